"""Clipping: keep a gradient that explodes from throwing the parameters away."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..engine.node import writes
from ..engine.tensor import Tensor


def clip_grad_norm_(params: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients, in place, so that their common Euclidean norm is at most max_norm.

    Returns the norm before. Where that is not finite nothing is scaled: the caller decides.
    (Pascanu et al., 2013, "On the difficulty of training recurrent neural networks".)
    """
    gradients = [gradient for p in params if (gradient := p.grad) is not None]
    total = 0.0
    with np.errstate(over="ignore"):
        squares = [g.backend.xp.vdot(g.array, g.array) for g in gradients]  # a GPU is told of all, then asked
        for g, square in zip(gradients, squares, strict=True):
            part = square.item()
            if not math.isfinite(part):  # perhaps only the square is too large for the dtype
                large = g.array.astype("float64")
                part = g.backend.xp.vdot(large, large).item()
            total += part
    norm = math.sqrt(total) if total >= 0 else total
    if math.isfinite(norm) and norm > max_norm:
        for g in gradients:
            array = g.array
            array *= max_norm / norm
            writes.note(array)
    return norm
