"""Sampling: a model writes, one symbol at a time, each drawn from its own prediction and fed back to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.tensor import no_grad
from ..errors import CheckpointError, UsageError
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..models import CharLM


def sample(
    model: CharLM, prime: np.ndarray, length: int, temperature: float = 1.0, seed: int | None = 0
) -> Iterator[int]:
    """Generate `length` symbols that continue `prime`, a one-dimensional array of at least one symbol.

    temperature  divides the logits before the softmax: 1 is the model's own distribution, less makes what
                 is likely likelier still, 0 takes the likeliest symbol every time
    seed         of the draws: the same seed, model and prime give the same symbols; None: others each time
    """
    if len(prime) == 0:
        raise UsageError("sampling needs at least one symbol to start from")
    if not (np.isfinite(temperature) and temperature >= 0):
        raise UsageError(f"temperature is {temperature}; it must be 0 or a positive number")
    return _symbols(model, np.asarray(prime, np.intp), length, temperature, np.random.default_rng(seed))


def _symbols(
    model: CharLM, prime: np.ndarray, length: int, temperature: float, draws: np.random.Generator
) -> Iterator[int]:
    state: Any = None
    symbols = prime
    for _ in range(length):
        with evaluating(model):  # not around the yield: the caller's world is its own in between
            logits, state = model(symbols[:, None], state)
        symbol = choose(logits[-1, 0].numpy(), temperature, draws)
        yield symbol
        symbols = np.array([symbol])


def choose(logits: np.ndarray, temperature: float, draws: np.random.Generator) -> int:
    """A symbol drawn from softmax(logits / temperature), computed in float64."""
    scores = logits.astype(np.float64)
    highest = scores.max()
    if not np.isfinite(highest):
        raise CheckpointError("the model's predictions are not finite; its weights are of no use")
    scores -= highest  # the likeliest is 0, so nothing overflows
    if temperature == 0:
        return int(scores.argmax())
    with np.errstate(all="ignore"):  # a tiny temperature takes the others to -inf, and exp to 0
        cumulative = np.cumsum(np.exp(scores / temperature))
    return int(np.searchsorted(cumulative, draws.random() * cumulative[-1], side="right"))


def opening(vocabulary: Vocabulary) -> np.ndarray:
    """A symbol to start from where there is no other: a line's end if there is one, after which anything
    may begin; else a space, else the first symbol."""
    for code in (ord("\n"), ord(" ")):
        found = np.flatnonzero(vocabulary.codes == code)
        if len(found):
            return found
    return np.zeros(1, np.intp)


@contextmanager
def evaluating(model: CharLM) -> Iterator[None]:
    """In this block the model does not train: no dropout, and nothing is recorded."""
    training = model.training
    if training:
        model.eval()
    try:
        with no_grad():
            yield
    finally:
        if training:
            model.train()
