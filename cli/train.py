"""`trnn train`: options to a configuration, events to the screen."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .runs import RUNS

if TYPE_CHECKING:
    from tinygrad_rnn.training import Trainer

MODEL, TRAINING, LENGTH, OUTPUT = "Model", "Training", "How long", "The run"


def _option(panel: str, help: str, default: str | bool = True) -> Any:
    return typer.Option(help=help, show_default=default, rich_help_panel=panel)


def train(
    corpus: Annotated[
        str, typer.Argument(help="A text file, or the name of a text that comes along, such as harbour.")
    ],
    kind: Annotated[str, _option(MODEL, "lstm, gru or rnn.")] = "lstm",
    layers: Annotated[int, _option(MODEL, "Recurrent layers.")] = 2,
    hidden_size: Annotated[int, _option(MODEL, "Units a layer.")] = 128,
    embedding_size: Annotated[int, _option(MODEL, "Numbers that stand for a symbol.")] = 64,
    dropout: Annotated[
        float, _option(MODEL, "Part of the activations dropped in training; 0.2 to 0.5 helps large models.")
    ] = 0.0,
    batch_size: Annotated[int, _option(TRAINING, "Streams of text read in parallel.")] = 50,
    seq_length: Annotated[
        int, _option(TRAINING, "Symbols a window: how far back in time the gradient flows.")
    ] = 50,
    optimizer: Annotated[str, _option(TRAINING, "sgd, adam, adamw, adagrad or rmsprop.")] = "adam",
    lr: Annotated[float, _option(TRAINING, "Learning rate at the start; falls to 0 along a cosine.")] = 8e-3,
    clip: Annotated[float, _option(TRAINING, "Largest norm of the gradient; inf does not clip.")] = 5.0,
    seed: Annotated[int, _option(TRAINING, "Of initial weights and dropout: same seed, same training.")] = 0,
    backend: Annotated[str, _option(TRAINING, "numpy, or cupy for an NVIDIA GPU.")] = "numpy",
    threads: Annotated[
        int | None,
        _option(TRAINING, "Threads of the matrix products.", "1, all cores from 256 units a layer on"),
    ] = None,
    encoding: Annotated[
        str, _option(TRAINING, "utf-8: a symbol is a character; bytes: a byte, for any file.")
    ] = "utf-8",
    val_fraction: Annotated[
        float, _option(TRAINING, "Part of the text, at its end, held out for validation.")
    ] = 0.1,
    epochs: Annotated[
        int | None,
        _option(LENGTH, "Times through the text.", "10, on a small text as many as make about 4000 steps"),
    ] = None,
    minutes: Annotated[float | None, _option(LENGTH, "Stop after this time.")] = None,
    max_steps: Annotated[int | None, _option(LENGTH, "Stop after this many steps.")] = None,
    eval_every: Annotated[int | None, _option(OUTPUT, "Steps between validations.", "an epoch")] = None,
    sample_every: Annotated[int | None, _option(OUTPUT, "Steps between samples.", "5 in a run")] = None,
    checkpoint_every: Annotated[
        int | None, _option(OUTPUT, "Steps between checkpoints.", "an epoch, at most 1000")
    ] = None,
    run: Annotated[Path | None, _option(OUTPUT, "Folder to write to.", f"a new one in {RUNS}/")] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print nothing but errors.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Train a character model on a text.

    Ctrl-C finishes the step, saves a checkpoint and ends.
    """
    settings = {name: value for name, value in locals().items() if name not in ("run", "quiet")}

    from contextlib import nullcontext

    from tinygrad_rnn.text import load_corpus
    from tinygrad_rnn.training import RunFolder, TrainConfig, Trainer
    from tinygrad_rnn.training.allocator import keep_freed_memory

    from .display import Display

    config = TrainConfig(**settings)
    text = load_corpus(config.corpus, encoding=config.encoding, val_fraction=config.val_fraction)
    display = None if quiet else Display(config)
    keep_freed_memory()
    trainer = Trainer(config, text, display or (lambda event: None))
    if run is not None:
        folder = RunFolder.create(run, config)
    else:
        folder = RunFolder.create_new(RUNS, text.name, config)
    with _stopping(trainer), display.live() if display else nullcontext():
        finished = trainer.train(folder)
    if finished.reason == "interrupted":
        raise typer.Exit(130)


@contextmanager
def _stopping(trainer: Trainer) -> Iterator[None]:
    """In this block the first Ctrl-C asks the trainer to stop; a second one ends the program at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        trainer.stop()
        print("\rfinishing this step, then saving; Ctrl-C again ends at once", file=sys.stderr)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
