"""What a trainer tells those who listen: it prints nothing itself.

Losses are in nats a symbol (a character, or a byte); `bits` turns them into bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from .config import Plan


@dataclass(frozen=True)
class Started:
    """Before the first step. `streams` is smaller than the batch size asked for on a short text."""

    run: Path
    parameters: int
    vocabulary: int
    train_symbols: int
    val_symbols: int
    streams: int
    plan: Plan


@dataclass(frozen=True)
class Stepped:
    """After each step. grad_norm: before clipping. duration: of this step, in seconds, as elapsed is."""

    step: int
    epoch: int
    loss: float
    grad_norm: float
    lr: float
    symbols: int
    duration: float
    elapsed: float
    progress: float


@dataclass(frozen=True)
class Evaluated:
    """About every epoch. train_loss: mean since the event before. val_loss: None if nothing is held out."""

    step: int
    epoch: int
    train_loss: float
    val_loss: float | None
    best: bool
    elapsed: float


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
    """After the last step. reason: "steps", "minutes" or "interrupted". val_loss: the best one."""

    step: int
    epoch: int
    reason: str
    val_loss: float | None
    val_step: int | None
    elapsed: float
    checkpoint: Path


Event = Started | Stepped | Evaluated | Sampled | Saved | Finished


def bits(nats: float) -> float:
    """A loss in bits instead of nats."""
    return nats / math.log(2)
