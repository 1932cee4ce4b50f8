"""Randomness is counted, not carried.

Initial values come from one seeded generator on the host. A mask drawn during training is instead a pure
function of a key, (seed, step, number of the draw within the step), by the counter-based generator Philox
(Salmon et al., 2011), so that a resumed run, a recomputed segment and a replayed reference see the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..errors import UsageError

Key = tuple[int, int, int]


class _State:
    def __init__(self) -> None:
        self.seed = 0
        self.step = 0
        self.draws = 0
        self.generator: np.random.Generator | None = None  # numpy.random loads when first needed


_state = _State()


def manual_seed(seed: int) -> None:
    """Start all randomness anew from `seed`, 0 to 2**64 - 1: rand, randn, initial weights, dropout masks."""
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise UsageError(f"a seed is an integer from 0 to 2**64 - 1, not {seed}")
    _state.seed = int(seed)
    _state.step = _state.draws = 0
    _state.generator = None


def generator() -> np.random.Generator:
    """The host generator behind rand, randn and initial weights."""
    if _state.generator is None:
        _state.generator = np.random.Generator(np.random.PCG64(_state.seed))
    return _state.generator


def set_step(step: int, seed: int | None = None) -> None:
    """Say which training step the masks to come belong to; the count of draws starts again.

    seed: of the training; None leaves it as manual_seed() set it.
    """
    _state.step, _state.draws = step, 0
    if seed is not None:
        _state.seed = seed


def next_key() -> Key:
    """The key of the next mask."""
    key = (_state.seed, _state.step, _state.draws)
    _state.draws += 1
    return key


def snapshot() -> tuple:
    """Where all randomness stands, for restore() and replay(). JSON can hold it."""
    return (_state.seed, _state.step, _state.draws), generator().bit_generator.state


@contextmanager
def replay(taken: tuple) -> Iterator[None]:
    """Draw in this block what was drawn after snapshot() was taken: to compute a segment once more."""
    before = snapshot()
    restore(taken)
    try:
        yield
    finally:
        restore(before)


def restore(taken: Sequence) -> None:
    """Let all randomness stand where it stood at snapshot(). UsageError for other counts, and NumPy's errors
    for other states of its generator."""
    counts, state = taken
    if len(counts) != 3 or not all(type(count) is int and 0 <= count < 2**64 for count in counts):
        raise UsageError(f"randomness stands at a seed, a step and a draw, not {counts}")
    generator().bit_generator.state = state
    _state.seed, _state.step, _state.draws = counts


def keep_mask(key: Key, shape: tuple[int, ...], p: float) -> np.ndarray:
    """Booleans of `shape`, each False with probability p (to within 2**-32), a function of `key` alone."""
    seed, step, draw = key
    bits = np.random.Philox(key=np.array([seed, draw], np.uint64), counter=[0, 0, step, 0])
    count = int(np.prod(shape))
    words = bits.random_raw((count + 1) // 2).view(np.uint32)[:count]
    return (words >= np.uint32(min(round(p * 2**32), 2**32 - 1))).reshape(shape)
