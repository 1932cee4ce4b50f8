"""What is held out of a set that does not say so itself."""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from .counted import HELD_OUT, counted, permutation


def split(
    labels: np.ndarray, fraction: float, seed: int, classes: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The places to train on and those held out, both ascending: a function of labels, fraction and seed.

    Held out is round(N * fraction) of the N images, of each class its share (what is left after rounding down
    goes to the classes that lost most by it), but of no class all, and of none nothing. None for fraction 0.
    DataError for a class of a single image.
    """
    if fraction == 0:
        return np.arange(len(labels)), np.zeros(0, np.intp)
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < 2:
        few = int(counts.argmin())
        raise DataError(
            f"class {classes[few]} has too few images, {counts[few]}; "
            "it takes two, one to train on and one to hold out, or --val-fraction 0"
        )
    shares = counts * fraction
    taken = np.floor(shares).astype(np.intp)
    left = round(len(labels) * fraction) - int(taken.sum())
    taken[np.argsort(taken - shares, kind="stable")[: max(left, 0)]] += 1
    taken = np.clip(taken, 1, counts - 1)

    order = permutation(counted(seed, HELD_OUT), len(labels))
    held_out = np.zeros(len(labels), bool)
    for label, count in enumerate(taken):
        held_out[order[labels[order] == label][:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
