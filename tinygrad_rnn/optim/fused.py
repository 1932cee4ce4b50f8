"""Adam's update in one pass over the arrays, where the compiled kernels are in use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..engine.ops.fused import is_compiled


def fused_adam(xp: Any, *arrays: Any) -> Callable | None:
    """`update(w, g, mean, square, lr, beta1, beta2, eps, decay, decoupled, steps)`, equal to Adam._update()
    up to rounding; None where that has to do it. arrays: w, mean and square."""
    w = arrays[0]
    if is_compiled(xp, w.dtype) and all(
        a.flags.carray and a.shape == w.shape and a.dtype == w.dtype for a in arrays
    ):
        return _update
    return None


def _update(
    w: Any, g: Any, mean: Any, square: Any, lr: float, beta1: float, beta2: float, eps: float, decay: float,
    decoupled: bool, steps: int,
) -> None:  # fmt: skip
    scale = lr / (1 - beta1**steps)
    root = (1 - beta2**steps) ** 0.5
    factors = np.array((scale, root, 1 - beta1, 1 - beta2, eps, decay), w.dtype)
    flat = (array.reshape(-1) for array in (w, np.ascontiguousarray(g), mean, square))
    _compiled()(*flat, factors, decoupled)


@cache
def _compiled() -> Any:
    from ..engine.ops.fused.jit import compiled

    def adam(w, g, mean, square, factors, decoupled):  # type: ignore[no-untyped-def]
        scale, root, a, b, eps, decay = factors
        kept = w.dtype.type(1) - decay if decoupled else w.dtype.type(1)
        pull = w.dtype.type(0) if decoupled else decay
        for k in range(w.size):
            slope = g[k] + pull * w[k]
            mean[k] += a * (slope - mean[k])
            square[k] += b * (slope * slope - square[k])
            w[k] = w[k] * kept - scale * mean[k] / (np.sqrt(square[k]) / root + eps)

    return compiled(adam)
