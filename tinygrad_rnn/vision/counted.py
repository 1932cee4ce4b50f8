"""Random numbers as functions of what they are for: see engine/random.py, whose masks these stay clear of."""

from __future__ import annotations

import numpy as np

from ..errors import SettingError

# The second word of the key, which for a mask counts the draws of a step and stays small.
HELD_OUT, ORDER, AUGMENTATION, SHAPE, NOISE = range(2**64 - 5, 2**64)


def counted(seed: int, purpose: int, number: int = 0) -> np.random.Philox:
    """The counter-based generator (Philox: Salmon et al., 2011) of a seed, a purpose and a number."""
    return np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=[0, 0, number, 0])


def permutation(bits: np.random.Philox, length: int) -> np.ndarray:
    """0 to length - 1 in random order: as the words of `bits` are sorted, so that it is the same with every
    version of NumPy."""
    return np.argsort(bits.random_raw(length), kind="stable")


def uniform(bits: np.random.Philox, *shape: int) -> np.ndarray:
    """Numbers of [0, 1) with 53 bits each, float64."""
    words = bits.random_raw(int(np.prod(shape))) >> np.uint64(11)
    return (words * 2.0**-53).reshape(shape)


def check_seed(seed: int) -> None:
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise SettingError("seed", f"must be an integer from 0 to 2**64 - 1, not {seed}")
