"""`Plan`: how far a run goes, and how often it stops to look at itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .config import TrainConfig
from .settings import Settings


@dataclass(frozen=True)
class Plan:
    """How far a run goes, and how often it stops to look at itself; worked out of the settings.

    steps and seconds: None where they do not limit the run, but never both.
    """

    steps_per_epoch: int
    steps: int | None
    seconds: float | None
    eval_every: int
    checkpoint_every: int
    sample_every: int | None

    @classmethod
    def of(cls, config: Settings, steps_per_epoch: int) -> Plan:
        epochs = config.epochs
        if epochs is None and config.max_steps is None and config.minutes is None:
            epochs = max(config.default_epochs, math.ceil(config.default_steps / steps_per_epoch))
        limits = [config.max_steps] if config.max_steps is not None else []
        limits += [epochs * steps_per_epoch] if epochs is not None else []
        # About once an epoch; of little data once in as many epochs as make enough steps.
        epochs_between = math.ceil(config.interval_steps / steps_per_epoch)
        interval = epochs_between * steps_per_epoch
        return cls(
            steps_per_epoch=steps_per_epoch,
            steps=min(limits, default=None),
            seconds=None if config.minutes is None else 60 * config.minutes,
            eval_every=config.eval_every or interval,
            checkpoint_every=config.checkpoint_every or min(interval, 1000),
            sample_every=config.sample_every if isinstance(config, TrainConfig) else None,
        )

    def progress(self, step: int, elapsed: float) -> float:
        """How much of the run is done, 0 to 1, after `step` steps and `elapsed` seconds."""
        by_steps = step / self.steps if self.steps is not None else 0.0
        by_time = elapsed / self.seconds if self.seconds is not None else 0.0
        return min(max(by_steps, by_time), 1.0)
