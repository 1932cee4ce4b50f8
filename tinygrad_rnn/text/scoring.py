"""How surprised a model is by a text: for each symbol -log p of it, given all symbols before.

A text is one stream, whose hidden state is carried from its first symbol to its last, so that no number
depends on how it was cut into pieces. The first symbol has nothing before it and is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.ops.loss import cross_entropy
from ..engine.tensor import Tensor, tensor
from ..errors import CheckpointError
from ..nn.module import evaluating
from .batches import Window

if TYPE_CHECKING:
    from ..models import CharLM

WINDOW = 1000  # symbols read at once
_LARGEST = 1 << 22  # scores in memory at once: with a large vocabulary windows are shorter


@dataclass(frozen=True, eq=False)
class Scored:
    """Symbols in a row, and what a model made of them; in host memory.

    symbols        (T,)
    nats           (T,), float64: -log p of each
    likeliest      (T, K): the K likeliest symbols in each place, the likeliest first; K = 0 unless asked for
    probabilities  (T, K): of these
    """

    symbols: np.ndarray
    nats: np.ndarray
    likeliest: np.ndarray
    probabilities: np.ndarray

    @property
    def bits(self) -> np.ndarray:
        """-log2 p of each."""
        return self.nats / np.log(2)


def score(
    model: CharLM, pieces: Iterable[np.ndarray], likeliest: int = 0, window: int = WINDOW
) -> Iterator[Scored]:
    """Every symbol of a text but the first, in order, at most `window` at a time.

    pieces: one-dimensional arrays of symbols, of any lengths, which make up the text. Memory does not grow
    with it. CheckpointError for predictions that are not finite.
    """
    state: Any = None
    for inputs, targets in stream(pieces, min(window, max(_LARGEST // model.vocab_size, 1))):
        with evaluating(model):  # not around the yield: the caller's world is its own in between
            scored, _, state = score_window(model, inputs, targets, state, likeliest)
        if not np.isfinite(scored.nats).all():
            raise CheckpointError("the model's predictions are not finite; its weights are of no use")
        yield scored


def stream(pieces: Iterable[np.ndarray], length: int) -> Iterator[Window]:
    """A text as one stream of windows (T, 1), all of `length` but the last."""
    waiting = np.zeros(0, np.intp)
    for piece in pieces:
        for start in range(0, len(piece), length):
            waiting = np.concatenate((waiting, piece[start : start + length]), dtype=np.intp)
            if len(waiting) > length:
                yield waiting[:length, None], waiting[1 : length + 1, None]
                waiting = waiting[length:]
    if len(waiting) > 1:
        yield waiting[:-1, None], waiting[1:, None]


def score_window(
    model: CharLM, inputs: np.ndarray, targets: np.ndarray, state: Any, likeliest: int = 0
) -> tuple[Scored, Tensor, Any]:
    """A window (T, 1) scored; its losses (T, 1), to be differentiated; and the state after it."""
    logits, state = model(inputs, state)
    losses = cross_entropy(logits, tensor(targets, backend=logits.backend), reduction="none")
    nats = losses.numpy()[:, 0].astype(np.float64)
    nothing = np.zeros((len(nats), 0))
    best = _likeliest(logits.numpy()[:, 0], likeliest) if likeliest else (nothing.astype(np.intp), nothing)
    return Scored(targets[:, 0], nats, *best), losses, state


def _likeliest(logits: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` symbols of the highest logits (T, V), and what the softmax gives them."""
    scores = logits.astype(np.float64)
    symbols = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    return symbols, np.take_along_axis(probabilities, symbols, axis=1)


def most_surprising(nats: np.ndarray, count: int, apart: int) -> list[int]:
    """Where the `count` largest losses are, the largest first, any two at least `apart` places apart."""
    places: list[int] = []
    for place in np.argsort(-nats, kind="stable").tolist():
        if len(places) == count:
            break
        if all(abs(place - other) >= apart for other in places):
            places.append(place)
    return places
