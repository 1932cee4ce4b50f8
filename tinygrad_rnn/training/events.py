"""What a trainer tells those who listen: it prints nothing itself.

Losses are in nats a symbol (a character, a byte, or the class of an image); `bits` turns them into bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .plan import Plan


@dataclass(frozen=True)
class Started:
    """Before the first step. about: how much there is to train on, as the trainer's about() says."""

    run: Path
    parameters: int
    about: dict[str, int]
    plan: Plan


@dataclass(frozen=True)
class Resumed:
    """A run goes on after `step` (0: from its beginning). reasons: why the numbers may not be those of a run
    that was never interrupted; none: they are, to the last bit. length_changed: what another length of the
    run does to the learning rate."""

    step: int
    checkpoint: Path | None
    reasons: tuple[str, ...]
    length_changed: str | None = None


@dataclass(frozen=True)
class Stepped:
    """After each step. grad_norm: before clipping. examples: the symbols of text, or the images, that it was
    made with. duration: of this step, in seconds, as elapsed is.

    skipped: the loss or the gradient was not finite, and the weights are what they were before.
    """

    step: int
    epoch: int
    loss: float
    grad_norm: float
    lr: float
    examples: int
    duration: float
    elapsed: float
    progress: float
    skipped: str | None = None


@dataclass(frozen=True)
class Rewound:
    """Something was not finite at step `at`; training goes on from step `to` with a lower learning rate."""

    at: int
    to: int
    reason: str
    lr: float


@dataclass(frozen=True)
class Evaluating:
    """While a validation runs. done: from 0 to 1."""

    step: int
    done: float


@dataclass(frozen=True)
class Evaluated:
    """About every epoch. train_loss: mean since the event before, None if all its steps were skipped.
    val_loss: None if nothing is held out. measures: what else the validation found, such as the accuracy."""

    step: int
    epoch: int
    train_loss: float | None
    val_loss: float | None
    best: bool
    elapsed: float
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recorded:
    """A line was added to history.jsonl."""

    record: dict[str, Any]


@dataclass(frozen=True)
class Sampled:
    """The model wrote a few lines."""

    step: int
    epoch: int
    text: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on the disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """After the last step. reason: "steps", "minutes", "patience" or "interrupted". val_loss, measures: of
    the best validation."""

    step: int
    epoch: int
    reason: str
    val_loss: float | None
    val_step: int | None
    elapsed: float
    run: Path
    checkpoint: Path
    measures: dict[str, float] = field(default_factory=dict)


Event = Started | Resumed | Stepped | Rewound | Evaluating | Evaluated | Recorded | Sampled | Saved | Finished


def bits(nats: float) -> float:
    """A loss in bits instead of nats."""
    return nats / math.log(2)
