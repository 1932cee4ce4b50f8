"""`trnn corpus`: the texts that come along, and texts to be made."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import reader_may_leave

app = typer.Typer(help="Texts to train on: list them, make them.")


class Source(StrEnum):
    python = "python"


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_corpora() -> None:
    """List the texts that come along."""
    from tinygrad_rnn import text

    with reader_may_leave():
        for name in text.names():
            path = text.resolve(name)
            print(f"{name}  {path.stat().st_size:,} bytes  {path}")


@app.command("make")
def make(
    source: Annotated[
        Source, typer.Argument(help="python: the standard library's source of this interpreter.")
    ],
    size: Annotated[str, typer.Option(help="Largest size in bytes; 500k and 2M mean what they say.")] = "1M",
    output: Annotated[Path | None, typer.Option(help="File to write.", show_default="python.txt")] = None,
) -> None:
    """Make a text; the same interpreter makes the same one each time."""
    from tinygrad_rnn.errors import UsageError
    from tinygrad_rnn.models.files import write_atomically
    from tinygrad_rnn.text.python_source import python_source

    path = output or Path(f"{source.value}.txt")
    if path.exists():
        raise UsageError(f"{path} exists already; choose another --output")
    data = python_source(_bytes(size))
    write_atomically(path, data)
    print(f"{path}: {len(data):,} bytes")


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d+)([kMG]?)", size)
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{size!r} is not a size; write 1000000, 500k or 2M", param_hint="--size")
    return int(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]
