"""`trnn sample`: a trained model writes to standard output, character by character."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .runs import RUNS
from .terminal import one_line, printable, reader_may_leave


class Which(StrEnum):
    best = "best"
    last = "last"


def sample(
    run: Annotated[
        Path | None,
        typer.Argument(help="A run folder or a checkpoint file.", show_default=f"the newest run in {RUNS}/"),
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Characters (or bytes) to write.")] = 1000,
    temperature: Annotated[
        float, typer.Option(help="Below 1 safer, above 1 wilder, 0 always the likeliest.")
    ] = 0.8,
    prime: Annotated[str, typer.Option(help="Text to continue.")] = "",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the draws.", show_default="another text each time")
    ] = None,
    checkpoint: Annotated[
        Which, typer.Option(help="Of a run: the lowest validation loss, or the last written.")
    ] = Which.best,
) -> None:
    """Let a trained model write.

    On a terminal the text comes as it is written; in a pipe there is the text alone.
    """
    from tinygrad_rnn import models, text
    from tinygrad_rnn.text.sampling import opening
    from tinygrad_rnn.training import newest

    path = models.find_checkpoint(run if run is not None else newest(RUNS), checkpoint.value)
    model, vocabulary, meta = models.load(path)
    start = vocabulary.encode(prime) if prime else opening(vocabulary)
    symbols = text.sample(model, start, length, temperature, seed)

    terminal = sys.stdout.isatty()
    if terminal:
        print(one_line(f"{path}, step {meta.get('step')}"), file=sys.stderr)
    decoder = vocabulary.decoder()
    with reader_may_leave():
        last = _write(decoder.feed(start), terminal) if prime else ""
        for symbol in symbols:
            last = _write(decoder.feed([symbol]), terminal) or last
        last = _write(decoder.feed([], final=True), terminal) or last
        if terminal and not last.endswith("\n"):
            print()


def _write(text: str, terminal: bool) -> str:
    text = printable(text) if terminal else text
    sys.stdout.write(text)
    sys.stdout.flush()
    return text
