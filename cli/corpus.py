"""`trnn corpus`: the texts that come along, texts to be made, texts to be fetched, and what is in a text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unicodedata import category

import typer

from .terminal import busy, one_line, printable, reader_may_leave

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from tinygrad_rnn.text.statistics import Statistics

COMMONEST = 20  # symbols shown
RARE = 10  # a symbol that occurs less often is called rare: there is little to learn from
WIDE = 40  # columns, from which on there is room for a loss in nats and in bits
NAMED = 20  # rare symbols and control characters named

EXAMPLES = """Try:

trnn corpus stats harbour

trnn corpus make dyck --size 2M --seed 1

trnn corpus get tinyshakespeare, then: trnn train tinyshakespeare"""

app = typer.Typer(
    help="Texts to train on: list them, make them, fetch them, look into them.", epilog=EXAMPLES
)


class Source(StrEnum):
    python = "python"
    dyck = "dyck"
    arithmetic = "arithmetic"
    reber = "reber"


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_corpora() -> None:
    """List the texts that come along, and those that can be fetched."""
    from tinygrad_rnn import text
    from tinygrad_rnn.text import catalogue

    with reader_may_leave():
        for name in text.names():
            path = text.resolve(name)
            print(f"{name}  {path.stat().st_size:,} bytes  {path}")
        for name, entry in catalogue.CATALOGUE.items():
            where = catalogue.cached(name) or f"not fetched yet; trnn corpus get {name}"
            print(f"{name}  {entry.size:,} bytes  {where}")
            print(f"    {entry.about}")
            print(f"    {entry.licence}; {entry.address}")


@app.command("get", epilog="Try: trnn corpus get tinyshakespeare, then: trnn train tinyshakespeare")
def get(
    name: Annotated[
        str | None, typer.Argument(help="A text of the catalogue.", show_default="shows the catalogue")
    ] = None,
) -> None:
    """Fetch a well-known text into the user's cache folder, and check that it is the one.

    From then on its name is enough for every command that takes a text.
    """
    if name is None:
        return list_corpora()

    from tinygrad_rnn.text import catalogue

    with busy(f"fetching {name}"):
        path = catalogue.fetch(name)
    with reader_may_leave():
        print(f"{name}  {path.stat().st_size:,} bytes  {path}")


@app.command("make", epilog="Try: trnn corpus make reber --size 500k, then: trnn train reber.txt")
def make(
    source: Annotated[
        Source,
        typer.Argument(
            help="python: the standard library's source of this interpreter. dyck: nested brackets. "
            "arithmetic: lines such as 37+48=85. reber: the embedded Reber grammar, a test of memory."
        ),
    ],
    size: Annotated[str, typer.Option(help="Largest size in bytes; 500k and 2M mean what they say.")] = "1M",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Same seed, same text; python has none.", show_default="0")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="the source's name, .txt")
    ] = None,
) -> None:
    """Make a text of whole lines: the same one each time, on every machine (python: of the same interpreter).

    Of all but python the lowest possible loss is known, and printed.
    """
    from tinygrad_rnn.errors import UsageError
    from tinygrad_rnn.text import recipes

    path = output or Path(f"{source.value}.txt")
    if path.exists():
        raise UsageError(f"{path} exists already; choose another --output")
    written = recipes.write(path, recipes.make(source.value, _bytes(size), seed))
    with reader_may_leave():
        print(f"{printable(str(path))}: {written:,} bytes")
        if source.value in recipes.RECIPES:
            nats = recipes.RECIPES[source.value].entropy
            print(f"the lowest loss possible on it is {nats:.3f} nats = {nats / log(2):.3f} bits/char")


@app.command("stats", epilog="Try: trnn corpus stats harbour")
def stats(
    file: Annotated[str, typer.Argument(help="A text file, or the name of a text such as harbour.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one object for machines.")] = False,
) -> None:
    """Look into a text before training on it.

    The losses are what simpler minds than a network reach on it. A compressor's is a yardstick: a model below
    it has learnt more about the text.
    """
    from tinygrad_rnn import text
    from tinygrad_rnn.text.statistics import measure

    statistics = measure(text.resolve(file))
    with reader_may_leave():
        if as_json:
            print(json.dumps(_record(file, statistics)))
        else:
            _print_report(file, statistics)


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d+)([kMG]?)", size)
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{size!r} is not a size; write 1000000, 500k or 2M", param_hint="--size")
    return int(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]


def _print_report(name: str, text: Statistics) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as captured:  # rich has its own way when the reader leaves; print() has ours
        for part in _report(name, text, console.width):
            console.print(part)
    print("\n".join(line.rstrip() for line in captured.get().split("\n")), end="")


def _report(name: str, text: Statistics, width: int) -> Iterator[RenderableType]:
    from rich.columns import Columns
    from rich.text import Text

    unit, symbols = ("char", "characters") if text.encoding == "utf-8" else ("byte", "bytes")
    sizes = {"bytes": text.size, symbols: text.symbols, "lines": text.lines, "different": len(text.codes)}
    yield Text(one_line(name), "bold")
    yield _grid([(what, f"{number:,}") for what, number in sizes.items()])
    yield Text()
    rows = [(what, f"{nats:.3f}", f"{nats / log(2):.3f}") for what, nats in _losses(text).items()]
    table = [("loss", "nats", f"bits/{unit}"), *rows]
    yield _grid(table if width >= WIDE else [row[:2] for row in table], header=True)
    yield Text()
    yield Text("commonest", "bold")
    counts = [f"{_shown(text, code)} {count:,}" for code, count in _counts(text)[:COMMONEST]]
    yield Columns(map(Text, counts), padding=(0, 2))
    if notes := list(_unusual(text)):
        yield Text()
        yield Text("unusual", "bold")
        yield from map(Text, notes)


def _losses(text: Statistics) -> dict[str, float]:
    """What simple minds reach, in nats."""
    from tinygrad_rnn.text.statistics import COMPRESSED

    part = f" (first {COMPRESSED >> 20} MiB)" if text.size > COMPRESSED else ""
    losses = {"guessing": log(len(text.codes)), "frequencies": text.entropy}
    if text.after_one is not None:
        losses["the one before"] = text.after_one
    return losses | {f"{name}{part}": bits * log(2) for name, bits in text.compressed.items()}


def _unusual(text: Statistics) -> Iterator[str]:
    """What a user may not expect in a text."""
    counts = _counts(text)
    if text.not_utf8 is not None:
        yield f"not UTF-8: {text.not_utf8}; counted in bytes, as --encoding bytes reads it"
    if text.marked:
        yield "a byte-order mark at the beginning"
    if returns := text.count("\r"):
        yield f"carriage returns: {returns:,}"
    control = [(c, n) for c, n in counts if category(chr(c)) == "Cc" and chr(c) not in "\n\r\t"]
    if control and text.encoding == "utf-8":
        yield f"control characters: {_listed(text, control)}"
    if broken := text.count("\ufffd"):
        yield f"U+FFFD, where an earlier program could not read the original: {broken:,}"
    if rare := [(c, n) for c, n in counts if n < RARE][::-1]:
        yield f"rarer than {RARE} times: {_listed(text, rare)}"


def _counts(text: Statistics) -> list[tuple[int, int]]:
    return list(zip(text.codes.tolist(), text.counts.tolist(), strict=True))


def _listed(text: Statistics, counts: list[tuple[int, int]]) -> str:
    listed = ", ".join(f"{_shown(text, code)} {count:,}" for code, count in counts[:NAMED])
    return listed + (f" and {len(counts) - NAMED:,} more" if len(counts) > NAMED else "")


def _shown(text: Statistics, code: int) -> str:
    return repr(chr(code)) if text.encoding == "utf-8" else f"0x{code:02x}"


def _record(name: str, text: Statistics) -> dict[str, Any]:
    """For machines: losses in nats, the commonest symbol first; a symbol is a character or a byte's value."""
    symbol = chr if text.encoding == "utf-8" else int
    return {
        "text": name,
        "encoding": text.encoding,
        "not_utf8": text.not_utf8,
        "bytes": text.size,
        "symbols": text.symbols,
        "lines": text.lines,
        "byte_order_mark": text.marked,
        "losses": _losses(text),
        "counts": [[symbol(code), count] for code, count in _counts(text)],
    }


def _grid(rows: Iterable[tuple[str, ...]], header: bool = False) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        grid.add_row(*row, style="bold" if header and not grid.row_count else None)
    grid.columns[0].overflow = "fold"
    for column in grid.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    return grid
