"""The loss of a model on a text that it does not learn from.

`evaluate` is the trainer's: quick, of many streams at once, each of which starts with an empty state. `Tally`
adds up what text/scoring.py says of one stream, the number to publish: it depends on no batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nn.module import evaluating
from ..text.batches import Windows
from ..text.scoring import Scored
from ..text.statistics import entropy
from .events import bits

if TYPE_CHECKING:
    from ..models import CharLM


class StoppedError(Exception):
    """An evaluation that was told to stop."""


def evaluate(model: CharLM, windows: Windows, going_on: Callable[[float], bool] = lambda done: True) -> float:
    """Mean loss in nats a symbol over all windows. The state starts at zero and is carried through them.

    Leaves the model, its gradients and all random generators as they were. `going_on` is told after each
    window how much is done, 0 to 1; if it says no, StoppedError is raised.
    """
    total, symbols = 0.0, 0
    state: Any = None
    with evaluating(model):
        for number, (inputs, targets) in enumerate(windows, 1):
            loss, state = model.loss(inputs, targets, state)
            total += loss.item() * targets.size
            symbols += targets.size
            if not going_on(number / len(windows)):
                raise StoppedError
    return total / symbols


class Tally:
    """The losses of a text of `vocab_size` different symbols, added up.

    symbols: how many have been counted.
    """

    def __init__(self, vocab_size: int) -> None:
        self.symbols = 0
        self._nats = 0.0
        self._counts = np.zeros(vocab_size, np.int64)

    def add(self, scored: Scored) -> None:
        """Count more symbols."""
        self.symbols += len(scored.symbols)
        # One after the other, so that the sum does not depend on how many come at once.
        self._nats = float(np.cumsum(np.append(self._nats, scored.nats))[-1])
        self._counts += np.bincount(scored.symbols, minlength=len(self._counts))

    @property
    def nats(self) -> float:
        """Mean loss a symbol."""
        return self._nats / self.symbols

    @property
    def bits(self) -> float:
        """The same in bits."""
        return bits(self.nats)

    @property
    def perplexity(self) -> float:
        """Among how many equally likely symbols it would be as hard to guess; infinite beyond all floats."""
        try:
            return math.exp(self.nats)
        except OverflowError:
            return math.inf

    @property
    def entropy(self) -> float:
        """In nats: the loss of a model that knows nothing but how frequent each symbol is in this text."""
        return entropy(self._counts)


@contextmanager
def one_thread() -> Iterator[None]:
    """In this block the BLAS library uses one thread: products of a single stream are too short to share."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=1, user_api="blas"):
        yield
