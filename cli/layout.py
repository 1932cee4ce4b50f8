"""How facts and tables are laid out: aligned where there is room, under one another where there is not.

Piped, nothing is cut into lines: one fact a line, one row of a table a line. Whatever is printed here comes
out `printable`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from textwrap import wrap

from rich.cells import cell_len

from .terminal import one_line

ROOMY = 40  # columns from which labels stand beside what they label
GAP = 2


def width() -> int | None:
    """Columns of the terminal; None in a pipe, which has any number."""
    return max(shutil.get_terminal_size().columns, 1) if sys.stdout.isatty() else None


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """A label and what it says, a line each; on a terminal wrapped, on a narrow one below the label."""
    facts = [(label, one_line(text)) for label, text in facts]
    columns = width()
    margin = max((cell_len(label) for label, _ in facts), default=0) + GAP
    for label, text in facts:
        if columns is None:
            print(f"{_padded(label, margin)}{text}".rstrip())
        elif columns < ROOMY:
            print(label)
            print_paragraph(text, "  ")
        else:
            lines = wrap(text, columns - margin, break_on_hyphens=False) or [""]
            print(
                "\n".join(_padded(start, margin) + line for start, line in _labelled(label, lines)).rstrip()
            )


def print_paragraph(text: str, first: str = "", rest: str | None = None) -> None:
    """Wrapped on a terminal. Lines begin with `first`, all but the first with `rest` (None: the same)."""
    columns = width()
    text = one_line(text)
    if columns is None:
        print(first + text)
        return
    rest = first if rest is None else rest
    room = max(columns - len(first), 1)
    print(
        "\n".join(
            (rest if i else first) + line for i, line in enumerate(wrap(text, room, break_on_hyphens=False))
        )
    )


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Columns aligned, those numbered in `right` to the right; a terminal too narrow gets facts instead."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    columns = width()
    if columns is not None and sum(widths) + GAP * (len(widths) - 1) > columns:
        for number, row in enumerate(rows):
            if number:
                print()
            print_facts((label, cell) for label, cell in zip(header, row, strict=True) if cell)
        return
    for row in [header, *rows]:
        cells = [
            " " * (widths[i] - cell_len(cell)) + cell if i in right else _padded(cell, widths[i])
            for i, cell in enumerate(row)
        ]
        print((" " * GAP).join(cells).rstrip())


def _labelled(label: str, lines: list[str]) -> Iterable[tuple[str, str]]:
    return zip([label] + [""] * (len(lines) - 1), lines, strict=True)


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - cell_len(text))
