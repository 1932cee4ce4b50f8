"""`TrainConfig`: every setting of a training run, its default, and what values it may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..engine.backend import get_backend
from ..errors import BackendError, UsageError
from ..models import KINDS
from ..optim import by_name
from ..text.vocabulary import ENCODINGS

DEFAULT_EPOCHS, DEFAULT_STEPS = 10, 4000
LARGEST = 2**16  # of a size or a number of layers


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings that make no sense raise a UsageError, one clear line each.

    Training ends with the first limit reached of `epochs`, `max_steps` and `minutes`. Without any it
    makes 10 epochs, or on a small text as many as make about 4000 steps. Intervals are in steps; None
    evaluates and saves about every epoch and writes five samples over the whole run.
    """

    corpus: str
    encoding: str = "utf-8"
    val_fraction: float = 0.1

    kind: str = "lstm"
    layers: int = 2
    hidden_size: int = 128
    embedding_size: int = 64
    dropout: float = 0.0

    batch_size: int = 50
    seq_length: int = 50
    optimizer: str = "adam"
    lr: float = 8e-3
    clip: float = 5.0  # largest norm of the gradient; infinity does not clip
    seed: int = 0
    backend: str = "numpy"
    threads: int | None = None  # of the matrix products; None: see threads.py

    epochs: int | None = None
    max_steps: int | None = None
    minutes: float | None = None
    eval_every: int | None = None
    sample_every: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name, known in [("encoding", ENCODINGS), ("kind", KINDS)]:
            if getattr(self, name) not in known:
                raise UsageError(f"no {name} is called {getattr(self, name)!r}; there are {', '.join(known)}")
        by_name(self.optimizer)
        try:
            get_backend(self.backend)
        except BackendError as error:
            raise UsageError(str(error)) from None

        for name in ("layers", "hidden_size", "embedding_size", "batch_size", "seq_length"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
            self._require(name, getattr(self, name) <= LARGEST, f"at most {LARGEST}")
        for name in ("threads", "epochs", "max_steps", "eval_every", "sample_every", "checkpoint_every"):
            self._require(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        for name in ("dropout", "val_fraction"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("threads", self.threads is None or self.threads <= 1024, "at most 1024")
        self._require("lr", 0 < self.lr < math.inf, "a positive number")
        self._require("clip", self.clip > 0, "a positive number")
        self._require("minutes", self.minutes is None or 0 < self.minutes < math.inf, "a positive number")
        self._require("seed", 0 <= self.seed < 2**64, "at least 0 and below 2**64")

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UsageError(f"{name.replace('_', ' ')} must be {wanted}, not {getattr(self, name)}")


@dataclass(frozen=True)
class Plan:
    """How far a run goes, and how often it stops to look at itself; worked out of a TrainConfig.

    steps and seconds: None where they do not limit the run, but never both.
    """

    steps_per_epoch: int
    steps: int | None
    seconds: float | None
    eval_every: int
    checkpoint_every: int
    sample_every: int | None

    @classmethod
    def of(cls, config: TrainConfig, steps_per_epoch: int) -> Plan:
        epochs = config.epochs
        if epochs is None and config.max_steps is None and config.minutes is None:
            epochs = max(DEFAULT_EPOCHS, math.ceil(DEFAULT_STEPS / steps_per_epoch))
        limits = [config.max_steps] if config.max_steps is not None else []
        limits += [epochs * steps_per_epoch] if epochs is not None else []
        # About once an epoch; on a tiny text once in as many epochs as make a hundred steps.
        epochs_between = math.ceil(100 / steps_per_epoch)
        interval = epochs_between * steps_per_epoch
        return cls(
            steps_per_epoch=steps_per_epoch,
            steps=min(limits, default=None),
            seconds=None if config.minutes is None else 60 * config.minutes,
            eval_every=config.eval_every or interval,
            checkpoint_every=config.checkpoint_every or min(interval, 1000),
            sample_every=config.sample_every,
        )

    def progress(self, step: int, elapsed: float) -> float:
        """How much of the run is done, 0 to 1, after `step` steps and `elapsed` seconds."""
        by_steps = step / self.steps if self.steps is not None else 0.0
        by_time = elapsed / self.seconds if self.seconds is not None else 0.0
        return min(max(by_steps, by_time), 1.0)
