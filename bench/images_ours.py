"""tinygrad_rnn as `trnn train-image` uses it; all of its settings are its own choice."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from tinygrad_rnn.engine.ops.fused.shards import shards_in_use
from tinygrad_rnn.training.allocator import keep_freed_memory
from tinygrad_rnn.training.threads import limited_threads

from .images import Work

keep_freed_memory()  # as the command does


class Training:
    def __init__(self, work: Work, start: dict[str, np.ndarray], threads: int | None) -> None:
        self._trainer = work.trainer()
        weights = {name: array for name, array in start.items() if "." in name}
        self._trainer.model.load_state_dict(self._trainer.model.state_dict() | weights)
        self._limits = ExitStack()  # which ends with this contestant
        self._limits.enter_context(limited_threads(work.config))
        self.threads = shards_in_use()

    def step(self) -> float:
        return self._trainer.train_step().loss

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        loss = self._trainer.gradient(*self._trainer.batch(0))
        named = self._trainer.model.named_parameters()
        return loss, {name: parameter.grad.numpy() for name, parameter in named}
