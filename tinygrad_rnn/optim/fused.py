"""An optimiser's update of all parameters in one call, where the compiled kernels are in use, or on a GPU."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.ops.fused import is_compiled, is_on_device

SIZE, GRADIENT, REST = 0, 1, 2  # columns of a table, see engine/ops/fused/update.py


class FusedUpdate:
    """An update of all parameters by the function of that name in engine/ops/fused/update.py or device.py,
    which has the optimiser's slots in this order. It remembers where the arrays lie in memory."""

    def __init__(self, name: str, slots: tuple[str, ...]) -> None:
        self._name, self._slots = name, slots
        self._arrays: list[Any] = []
        self._table = np.empty((0, REST), np.int64)

    def __call__(self, params: list, state: list[dict], factors: Sequence[float], *options: Any) -> bool:
        """Change the parameters and their state. False, and nothing done, where that does not fit: there is
        no such function, or arrays are of several libraries or dtypes or (gradients apart) not contiguous.
        factors, options: the function's.
        """
        backend, dtype = params[0].backend, params[0].dtype
        xp = backend.xp
        passes = self._passes(xp, dtype)
        if passes is None or any(p.backend is not backend for p in params):
            return False
        arrays = []
        for p, own in zip(params, state, strict=True):
            arrays += [p.array, *[own[slot] for slot in self._slots]]
        columns = 1 + len(self._slots)
        if len(arrays) != len(self._arrays) or not all(map(operator.is_, arrays, self._arrays)):
            if not all(_fits(passes, a, dtype, params[n // columns].shape) for n, a in enumerate(arrays)):
                return False
            self._arrays, self._table = arrays, np.zeros((len(params), REST + columns), np.int64)
            for number, array in enumerate(arrays):
                passes.enter(self._table, number // columns, REST + number % columns, array)
        gradients = []  # copies of some, which must live until all is done
        for row, p in enumerate(params):
            gradient = p.grad
            if gradient is None:
                self._table[row, SIZE] = 0
                continue
            array = xp.ascontiguousarray(gradient.array)
            if not _fits(passes, array, dtype, p.array.shape):
                return False
            passes.enter(self._table, row, GRADIENT, array)
            gradients.append(array)
        passes.run(xp, dtype, self._name, self._table, factors, *options)
        return True

    def _passes(self, xp: Any, dtype: Any) -> Any:
        """The module with that function for arrays of this library and dtype."""
        if is_compiled(xp, dtype):
            from ..engine.ops.fused import update

            return update
        if is_on_device(xp, dtype) and self._name == "adam":
            from ..engine.ops.fused import device

            return device
        return None


def _fits(passes: Any, array: Any, dtype: Any, shape: tuple[int, ...]) -> bool:
    return array.dtype == dtype and array.shape == shape and passes.can_take(array)
