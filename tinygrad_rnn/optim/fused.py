"""Adam's update in one pass over the arrays, where the compiled kernels are in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..engine.ops.fused import is_compiled


def fused_adam(xp: Any, w: Any, mean: Any, square: Any) -> Callable | None:
    """`update(w, g, mean, square, lr, beta1, beta2, eps, decay, decoupled, steps)`, equal to Adam._update()
    up to rounding; None where that has to do it."""
    alike = w.shape == mean.shape == square.shape and w.dtype == mean.dtype == square.dtype
    if alike and is_compiled(xp, w.dtype) and all(a.flags.carray for a in (w, mean, square)):
        return _update
    return None


def _update(
    w: Any, g: Any, mean: Any, square: Any, lr: float, beta1: float, beta2: float, eps: float, decay: float,
    decoupled: bool, steps: int,
) -> None:  # fmt: skip
    from ..engine.ops.fused.update import adam

    scale = lr / (1 - beta1**steps)
    root = (1 - beta2**steps) ** 0.5
    factors = np.array((scale, root, 1 - beta1, 1 - beta2, eps, decay), w.dtype)
    flat = (array.reshape(-1) for array in (w, np.ascontiguousarray(g), mean, square))
    adam(*flat, factors, decoupled)
