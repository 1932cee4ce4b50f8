"""tinygrad_rnn as `trnn train` and `trnn sample` use it; all of its settings are its own choice."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from tinygrad_rnn.training.allocator import keep_freed_memory
from tinygrad_rnn.training.bench import Work, write
from tinygrad_rnn.training.threads import limited_threads, with_threads

keep_freed_memory()  # as the command does


class Training:
    def __init__(self, work: Work, start: dict[str, np.ndarray], threads: int | None) -> None:
        self._trainer = work.trainer()
        self._trainer.model.load_state_dict({n: a for n, a in start.items() if "." in n})
        config = with_threads(work.config)
        self._limits = ExitStack()  # which ends with this contestant
        self._limits.enter_context(limited_threads(config))
        self.threads = config.threads

    def step(self) -> float:
        return self._trainer.train_step().loss

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        loss = self._trainer.gradient(*self._trainer.windows[0])
        named = self._trainer.model.named_parameters()
        return loss, {name: parameter.grad.numpy() for name, parameter in named}


class Sampling:
    def __init__(self, work: Work, start: dict[str, np.ndarray], threads: int | None) -> None:
        self._model = work.trainer().model
        self.threads = 1

    def __call__(self, length: int) -> None:
        write(self._model, length)
