"""How facts and tables are laid out: aligned where there is room, under one another where there is not.

Piped, nothing is cut into lines: one fact a line, one row of a table a line. Whatever is printed here comes
out `printable`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

from rich.cells import cell_len

from .terminal import one_line

ROOMY = 24  # columns beside a label from which on they are used
GAP = 2


def width() -> int | None:
    """Columns of the terminal; None in a pipe, which has any number."""
    return max(shutil.get_terminal_size().columns, 1) if sys.stdout.isatty() else None


def print_json(value: Any) -> None:
    """Indented. What JSON has no word for comes as a string: infinity, NaN, a date out of a TOML file."""
    print(json.dumps(json.loads(json.dumps(value, default=str), parse_constant=str), indent=2))


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """A label and what it says, a line each; on a terminal wrapped, on a narrow one below the label."""
    facts = [(one_line(label), one_line(text)) for label, text in facts]
    columns = width()
    margin = max((cell_len(label) for label, _ in facts), default=0) + GAP
    for label, text in facts:
        if columns is None:
            print(f"{padded(label, margin)}{text}".rstrip())
        elif columns - margin < ROOMY:
            if label:
                print_paragraph(label)
            print_paragraph(text, "  " if label else "")
        else:
            print_paragraph(text, padded(label, margin), " " * margin)


def print_paragraph(text: str, first: str = "", rest: str | None = None) -> None:
    """Wrapped on a terminal. Lines begin with `first`, all but the first with `rest` (None: the same)."""
    columns = width()
    text = one_line(text)
    room = max(columns - cell_len(first), 1) if columns is not None else max(len(text), 1)
    head, *others = wrap(text, room, break_on_hyphens=False) or [""]
    print((first + head).rstrip())
    for line in others:
        print((first if rest is None else rest) + line)


def print_entries(entries: Iterable[str]) -> None:
    """As many on a line as a terminal has room for; none is cut. Piped all are on one line."""
    columns, line = width(), ""
    for entry in map(one_line, entries):
        wider = f"{line}{' ' * GAP}{entry}" if line else entry
        if line and columns is not None and cell_len(wider) > columns:
            print(line)
            wider = entry
        line = wider
    print(line)


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), spare: Sequence[str] = ()
) -> None:
    """Columns aligned, those named in `right` to the right.

    Where the terminal is too narrow the columns in `spare` go, the first named first; where it still is,
    each row comes as facts under one another.
    """
    columns = width()
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    shown = list(range(len(header)))

    def too_wide() -> bool:
        return columns is not None and sum(widths[i] + GAP for i in shown) - GAP > columns

    for name in spare:
        if too_wide():
            shown.remove(header.index(name))
    if too_wide():
        for number, row in enumerate(rows):
            if number:
                print()
            print_facts((label, cell) for label, cell in zip(header, row, strict=True) if cell)
        return
    for row in [header, *rows]:
        cells = [
            " " * (widths[i] - cell_len(row[i])) + row[i] if header[i] in right else padded(row[i], widths[i])
            for i in shown
        ]
        print((" " * GAP).join(cells).rstrip())


def sparkline(values: Sequence[float | None], lowest: float, highest: float) -> str:
    """A column a value, higher ones larger and those above `highest` as it; None is a gap."""
    levels = "▁▂▃▄▅▆▇█" if _shows("▁█") else "_.:-=+*#"
    scale = (len(levels) - 1) / ((highest - lowest) or 1.0)
    return "".join(
        " " if value is None else levels[round((min(value, highest) - lowest) * scale)] for value in values
    )


def _shows(characters: str) -> bool:
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return os.environ.get("TERM") != "dumb"


def padded(text: str, columns: int) -> str:
    """`text` and spaces up to so many columns; characters of double width count twice."""
    return text + " " * (columns - cell_len(text))
