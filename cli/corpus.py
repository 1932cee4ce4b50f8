"""`trnn corpus`: the texts that come along, texts to be made, texts to be fetched, and what is in a text."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from enum import StrEnum
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unicodedata import category

import typer

from .sample import check_new
from .terminal import busy, printable, reader_may_leave

if TYPE_CHECKING:
    from tinygrad_rnn.text.statistics import Statistics

COMMONEST = 20  # symbols shown
RARE = 10  # a symbol that occurs less often is called rare: there is little to learn from
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


def complete_text(incomplete: str) -> list[str]:
    """For the shell: known texts and files that begin so; told of none it looks for files itself."""
    from tinygrad_rnn import text
    from tinygrad_rnn.text import catalogue

    known = [name for name in (*text.names(), *catalogue.CATALOGUE) if name.startswith(incomplete)]
    here = sorted(path.name for path in Path().glob("[!.]*") if path.name.startswith(incomplete))
    return known and [*known, *here]


def _complete_fetched(incomplete: str) -> list[str]:
    from tinygrad_rnn.text import catalogue

    return [name for name in catalogue.CATALOGUE if name.startswith(incomplete)]


@app.command("list")
def list_corpora() -> None:
    """List the texts that come along, and those that can be fetched."""
    from tinygrad_rnn import text
    from tinygrad_rnn.text import catalogue

    from .layout import print_paragraph

    with reader_may_leave():
        for name in text.names():
            path = text.resolve(name)
            print(f"{name}  {path.stat().st_size:,} bytes  {path}")
        for name, entry in catalogue.CATALOGUE.items():
            where = catalogue.cached(name) or f"fetch it: trnn corpus get {name}"
            print(f"{name}  {entry.size:,} bytes  {where}")
            print_paragraph(entry.about, "    ")
            print_paragraph(entry.licence, "    ")
            print(f"    {entry.address}")


@app.command("get", epilog="Try: trnn corpus get tinyshakespeare, then: trnn train tinyshakespeare")
def get(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A text of the catalogue.",
            show_default="shows the catalogue",
            autocompletion=_complete_fetched,
        ),
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
        Path | None,
        typer.Option(help="File to write; - for standard output.", show_default="the source's name, .txt"),
    ] = None,
) -> None:
    """Make a text of whole lines: the same one each time, on every machine (python: of the same interpreter).

    Of all but python the lowest possible loss is known, and printed.
    """
    from tinygrad_rnn.text import recipes
    from tinygrad_rnn.text.sources import STDIN

    path = output or Path(f"{source.value}.txt")
    pieces = recipes.make(source.value, _bytes(size), seed)
    with reader_may_leave():
        if str(path) == STDIN:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            notes = sys.stderr if sys.stderr.isatty() else None
        else:
            check_new(path)
            notes = sys.stdout
            print(f"{printable(str(path))}: {recipes.write(path, pieces):,} bytes")
        if source.value in recipes.RECIPES and notes:
            nats = recipes.RECIPES[source.value].entropy
            lowest = f"{nats:.3f} nats = {nats / log(2):.3f} bits/char"
            print(f"the lowest loss possible on it is {lowest}", file=notes)


@app.command("stats", epilog="Try: trnn corpus stats harbour, or: cat *.txt | trnn corpus stats -")
def stats(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TEXT",
            help="A text file, a folder of them, a text's name such as harbour, or - for standard input.",
            show_default=False,
            autocompletion=complete_text,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one object for machines.")] = False,
) -> None:
    """Look into a text before training on it. Of a folder all text files are one text, as in training.

    The losses are what simpler minds than a network reach on it. A compressor's is a yardstick: a model below
    it has learnt more about the text.
    """
    from tinygrad_rnn.text.cache import user_folder
    from tinygrad_rnn.text.sources import STDIN, find_sources
    from tinygrad_rnn.text.statistics import measure

    with ExitStack() as spools:
        statistics = measure(find_sources([source], spools, user_folder()))
    name = "standard input" if source == STDIN else source
    with reader_may_leave():
        if as_json:
            print(json.dumps(_record(name, statistics)))
        else:
            _print(name, statistics)


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d{1,15})([kMG]?)", size)
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{size!r} is not a size; write 1000000, 500k or 2M", param_hint="--size")
    return int(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]


def _print(name: str, text: Statistics) -> None:
    from .layout import print_entries, print_facts, print_paragraph, print_table

    unit, symbols = ("char", "characters") if text.encoding == "utf-8" else ("byte", "bytes")
    sizes = {"bytes": text.size, symbols: text.symbols, "lines": text.lines, "different": len(text.codes)}
    print_facts([("text", name), *((what, f"{number:,}") for what, number in sizes.items())])
    print()
    header = ["loss", "nats", f"bits/{unit}"]
    rows = [[what, f"{nats:.3f}", f"{nats / log(2):.3f}"] for what, nats in _losses(text).items()]
    print_table(header, rows, right=header[1:], spare=header[2:])
    print()
    print("commonest")
    print_entries(f"{_shown(text, code)} {count:,}" for code, count in _counts(text)[:COMMONEST])
    if notes := list(_unusual(text)):
        print()
        print("unusual")
        for note in notes:
            print_paragraph(note)


def _losses(text: Statistics) -> dict[str, float]:
    """What simple minds reach, in nats."""
    from tinygrad_rnn.text.statistics import COMPRESSED

    part = f" (first {COMPRESSED >> 20} MiB)" if text.size > COMPRESSED else ""
    losses = {"guessing": log(len(text.codes)), "frequencies": text.entropy}
    if text.after_one is not None:
        losses["one before"] = text.after_one
    return losses | {f"{name}{part}": bits * log(2) for name, bits in text.compressed.items()}


def _unusual(text: Statistics) -> Iterator[str]:
    """What a user may not expect in a text."""
    counts = _counts(text)
    if text.not_utf8 is not None:
        yield f"{text.not_utf8}; counted in bytes, as --encoding bytes reads it"
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
