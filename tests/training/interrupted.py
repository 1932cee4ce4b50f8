"""Trainings that are cut off and go on, within one process: what the tests of resuming share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tinygrad_rnn.models.files import numbered
from tinygrad_rnn.text import load_corpus
from tinygrad_rnn.training import CharTrainer, RunFolder, TrainConfig, events

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 4 + "the owl, of course, sat in an oak.\n" * 4
TINY = {
    "kind": "lstm",
    "embedding_size": 6,
    "hidden_size": 6,
    "layers": 1,
    "batch_size": 4,
    "seq_length": 8,
    "lr": 0.02,
    "max_steps": 12,
}


class Killed(BaseException):
    """The process is gone: nothing is saved on the way out."""


def no_time() -> float:
    """A clock that stands still, so that two trainings can be compared to the last byte."""
    return 0.0


class Training:
    """A training in `folder`, begun or gone on with as often as one likes. events: of the last go."""

    def __init__(self, folder: Path, text: str = TEXT, clock=no_time, **settings) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.text = folder.parent / "text.txt"
        self.text.write_text(text, encoding="utf-8")
        self.folder, self.clock = folder / "run", clock
        self.config = TrainConfig(corpus=str(self.text), **(TINY | settings))
        self.events: list[events.Event] = []

    def trainer(self, config: TrainConfig, kill=None, stop=None) -> CharTrainer:
        """kill, stop: are shown each event; whether this is the moment to die, or to be asked to stop."""
        corpus = load_corpus(
            config.corpus,
            encoding=config.encoding,
            normalize=config.normalize,
            min_count=config.min_count,
            val_fraction=config.val_fraction,
        )
        self.events = []

        def emit(event: events.Event) -> None:
            self.events.append(event)
            if kill is not None and kill(event):
                raise Killed
            if stop is not None and stop(event):
                trainer.stop()

        trainer = CharTrainer(config, corpus, emit, self.clock)
        return trainer

    def begin(self, kill=None, stop=None) -> Training:
        """As `trnn train` does."""
        trainer = self.trainer(self.config, kill, stop)
        with suppress(Killed), RunFolder.create(self.folder, self.config) as run:
            trainer.train(run)
        return self

    def go_on(self, kill=None, stop=None, file: Path | None = None, **options) -> Training:
        """As `trnn train --resume` does."""
        with suppress(Killed), RunFolder.open(self.folder) as run:
            trainer = self.trainer(run.config(), kill, stop)
            trainer.resume(run, file, **options)
            trainer.train(run)
        return self

    def resumed(self, config: TrainConfig) -> events.Resumed:
        """Only what a resume with other settings says to them."""
        with RunFolder.open(self.folder) as run:
            return self.trainer(config).resume(run)

    def of(self, kind: type) -> list:
        """The events of that kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def last(self) -> Path:
        """The newest numbered checkpoint."""
        return numbered(self.folder)[-1]

    @property
    def history(self) -> list[str]:
        """The lines of history.jsonl."""
        return (self.folder / "history.jsonl").read_text().splitlines()

    @property
    def outcome(self) -> dict[str, str]:
        """All that a training leaves behind but the older checkpoints: name -> digest."""
        files = [self.last, *(self.folder / n for n in ("best.safetensors", "history.jsonl", "samples.txt"))]
        return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.exists()}


def at(kind: type, step: int) -> Callable[[events.Event], bool]:
    """Whether it is the moment of the first event of that kind from `step` on."""
    return lambda event: isinstance(event, kind) and getattr(event, "step", step) >= step
