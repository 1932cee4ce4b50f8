"""Adam's update of all parameters in one call, where the compiled kernels are in use."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine.ops.fused import is_compiled

WORTH_A_THREAD = 1 << 16  # numbers


class FusedAdam:
    """Adam.step() in one pass over all arrays. It remembers where they lie in memory."""

    def __init__(self) -> None:
        self._arrays: list[Any] = []
        self._table = np.empty((0, 5), np.int64)

    def update(self, params: list, state: list[dict], *factors: float, decoupled: bool) -> bool:
        """Change the parameters, and what Adam remembers of them (mean, square). False, and nothing done,
        where that does not fit: not NumPy's arrays, of several dtypes, or not contiguous.

        factors: lr / (1 - beta1^steps), the root of 1 - beta2^steps, 1 - beta1, 1 - beta2, eps, weight decay
        (times lr if it is decoupled).
        """
        if not is_compiled(params[0].backend.xp, params[0].dtype):
            return False
        arrays = [
            a for p, own in zip(params, state, strict=True) for a in (p.array, own["mean"], own["square"])
        ]
        if len(arrays) != len(self._arrays) or any(map(_another, arrays, self._arrays)):
            shapes = [p.shape for p in params for _ in range(3)]
            if not all(_fits(a, params[0].dtype, shape) for a, shape in zip(arrays, shapes, strict=True)):
                return False
            addresses = np.array([_address(a) for a in arrays], np.int64).reshape(-1, 3)
            self._arrays, self._table = arrays, np.insert(addresses, (0, 1), 0, axis=1)
        gradients = [None if p.grad is None else np.ascontiguousarray(p.grad.array) for p in params]
        for row, p, g in zip(self._table, params, gradients, strict=True):
            if g is not None and g.size != p.size:  # another array in the parameter's place
                return False
            row[0], row[2] = (0, 0) if g is None else (g.size, _address(g))
        from ..engine.ops.fused.shards import in_shards
        from ..engine.ops.fused.update import adam

        numbers = np.array(factors, params[0].dtype)
        in_shards(
            lambda first, last: adam(self._table, numbers, decoupled, first, last),
            int(self._table[:, 0].sum()),
            WORTH_A_THREAD,
        )
        return True


def _another(one: Any, other: Any) -> bool:
    return one is not other


def _fits(array: Any, dtype: Any, shape: tuple[int, ...]) -> bool:
    alike = isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == shape
    return alike and array.flags.carray


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
