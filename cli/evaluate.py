"""`trnn eval`: how well a model predicts a text, in one number."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_rnn.training.dynamic import DECAY, SEGMENT

from .arguments import AsJson, Checkpoint, Unknown, Which, unit_of
from .runs import Run, find_checkpoint
from .terminal import clock, reader_may_leave, say_if_compiling

if TYPE_CHECKING:
    import numpy as np

    from tinygrad_rnn.text.scoring import Scored
    from tinygrad_rnn.training.evaluation import Tally

EXAMPLES = """Try:

trnn eval runs/first

trnn eval runs/first letter.txt --unknown skip

trnn eval runs/first --dynamic"""

DYNAMIC = "Dynamic evaluation"
PROGRESS_EVERY = 0.2  # seconds


def _option(help: str, default: str) -> Any:
    return typer.Option(help=help, show_default=default, rich_help_panel=DYNAMIC)


def evaluate(
    run: Run,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Text files, folders, names of known texts, or - for standard input; read as one text.",
            show_default="what was held out from training",
        ),
    ] = None,
    checkpoint: Checkpoint = Which.best,
    unknown: Unknown = "error",
    as_json: AsJson = False,
    dynamic: Annotated[
        bool,
        typer.Option(
            "--dynamic",
            help="Also evaluate copies of the model that learn from the text as they read it.",
            rich_help_panel=DYNAMIC,
        ),
    ] = False,
    dynamic_lr: Annotated[
        float | None,
        _option(
            "How fast it learns: the nats by which a step lowers the loss of a segment, about.",
            "found as the text is read",
        ),
    ] = None,
    dynamic_decay: Annotated[
        float | None, _option("How fast it forgets what it has learnt here.", str(DECAY))
    ] = None,
    segment: Annotated[
        int | None, _option("Symbols read between two changes of the weights.", str(SEGMENT))
    ] = None,
) -> None:
    """The loss of a model on a text: nats and bits per character, perplexity.

    The text is one stream, read from its first character, which is not counted, to its last. (In training the
    held-out part is read in many streams at once, each of which starts with an empty state, so the loss shown
    there is a little higher.)
    """
    from tinygrad_rnn import models
    from tinygrad_rnn.errors import DataError, UsageError
    from tinygrad_rnn.text.cache import user_folder
    from tinygrad_rnn.text.reading import EncodedText
    from tinygrad_rnn.text.scoring import score
    from tinygrad_rnn.text.sources import find_sources
    from tinygrad_rnn.training.dynamic import DynamicEvaluation
    from tinygrad_rnn.training.evaluation import one_thread
    from tinygrad_rnn.training.events import bits
    from tinygrad_rnn.training.origin import normal_form, training_corpus

    from .layout import print_facts, print_json

    given = {"lr": dynamic_lr, "decay": dynamic_decay, "segment": segment}
    rates: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if rates and not dynamic:
        raise UsageError("the options of dynamic evaluation need --dynamic")
    path = find_checkpoint(run, checkpoint.value)
    model, vocabulary, meta = models.load(path)
    say_if_compiling(f"{model.kind}_{'backward' if dynamic else 'forward'}")
    corpus = training_corpus(path) if dynamic or not files else None
    unit = unit_of(vocabulary)
    record: dict[str, Any] = {"checkpoint": str(path), "step": meta.get("step")}
    with ExitStack() as spools, reader_may_leave(), one_thread():
        pieces: Iterable[np.ndarray]
        if files:
            sources = find_sources(files, spools, user_folder())
            pieces = EncodedText(sources, vocabulary, normal_form(path), unknown)
            record["text"] = pieces.text.shown
        else:
            assert corpus is not None
            pieces, record["text"] = [corpus.held_out], f"{corpus.name}, what was held out from training"
            if len(corpus.held_out) == 0:
                raise DataError("nothing was held out from training; name a text to evaluate on")
        tally, seconds = _read(score(model, pieces), len(vocabulary), unit)
        if tally.symbols == 0:
            raise DataError(f"{record['text']} is too short: the first {unit} is not counted")
        record |= _losses(tally, seconds)
        record["frequencies"] = {"nats": tally.entropy, "bits": bits(tally.entropy)}
        if isinstance(pieces, EncodedText):
            record["unknown"] = pieces.lacking
        if dynamic:
            assert corpus is not None
            learning = DynamicEvaluation(model, corpus.train, **rates)
            record["dynamic"] = _losses(*_read(learning.score(pieces), len(vocabulary), unit)) | {
                "lr": learning.leader,
                "decay": learning.decay,
                "segment": learning.segment,
                "rates": [{"lr": lr, "symbols": count} for lr, count in learning.read.items()],
            }
        if as_json:
            print_json(record)
        else:
            print_facts(_facts(record, unit))


def _read(scored: Iterable[Scored], vocab_size: int, unit: str) -> tuple[Tally, float]:
    """The losses of a text, added up, and the seconds it took. Meanwhile a terminal is kept informed."""
    from tinygrad_rnn.training.evaluation import Tally

    tally, began = Tally(vocab_size), time.monotonic()
    with _live_line() as show:
        for symbols in scored:
            tally.add(symbols)
            speed = tally.symbols / max(time.monotonic() - began, 1e-9)
            show(f"{tally.symbols:,} {unit}s  {tally.bits:.3f} bits/{unit}  {speed:,.0f} {unit}/s")
    return tally, time.monotonic() - began


def _losses(tally: Tally, seconds: float) -> dict[str, Any]:
    return {
        "symbols": tally.symbols,
        "nats": tally.nats,
        "bits": tally.bits,
        "perplexity": tally.perplexity,
        "seconds": round(seconds, 3),
        "symbols_per_second": round(tally.symbols / max(seconds, 1e-9)),
    }


@contextmanager
def _live_line() -> Iterator[Callable[[str], None]]:
    """Gives a function that shows a line on standard error, if that is a terminal, in place of the one
    before. At the end it is gone."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda line: None
        return
    shown = time.monotonic()

    def show(line: str) -> None:
        nonlocal shown
        if time.monotonic() - shown > PROGRESS_EVERY:
            shown = time.monotonic()
            columns = shutil.get_terminal_size().columns
            print(f"\r\x1b[K{line[: columns - 1]}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _facts(record: dict[str, Any], unit: str) -> Iterator[tuple[str, str]]:
    yield "checkpoint", f"{record['checkpoint']}, step {record['step']}"
    yield "text", f"{record['text']}: {record['symbols']:,} {unit}s after the first"
    if unknown := record.get("unknown"):
        yield "", f"{unknown:,} that the model does not know were skipped or replaced"
    yield "loss", _loss(record, unit)
    yield (
        "frequencies",
        f"{_nats(record['frequencies'], unit)}, if one knew only how frequent each {unit} is",
    )
    yield "speed", _speed(record, unit)
    if dynamic := record.get("dynamic"):
        yield "dynamic", f"{_loss(dynamic, unit)}, by weights that learn from the text already read"
        rates = dynamic["rates"]
        ahead = " (ahead at the end)" if len(rates) > 1 else ""
        yield (
            "",
            f"lr {dynamic['lr']:g}{ahead}, decay {dynamic['decay']:g}, "
            f"segments of {dynamic['segment']} {unit}s",
        )
        if ahead:
            tried = ", ".join(f"{rate['lr']:g} on {rate['symbols']:,}" for rate in rates)
            yield "", f"lr tried: {tried} {unit}s"
        yield "", _speed(dynamic, unit)


def _loss(losses: dict[str, Any], unit: str) -> str:
    return f"{_nats(losses, unit)}, perplexity {losses['perplexity']:.3f}"


def _nats(losses: dict[str, float], unit: str) -> str:
    return f"{losses['nats']:.4f} nats = {losses['bits']:.4f} bits/{unit}"


def _speed(losses: dict[str, Any], unit: str) -> str:
    return f"{losses['symbols_per_second']:,} {unit}/s, {clock(losses['seconds'])}"
