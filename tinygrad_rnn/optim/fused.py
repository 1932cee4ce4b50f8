"""An optimiser's update of all parameters in one call, where the compiled kernels are in use."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.ops.fused import is_compiled
from ..engine.ops.fused.shards import in_shards

WORTH_A_THREAD = 1 << 16  # numbers
SIZE, GRADIENT, REST = 0, 1, 2  # columns of a table, see engine/ops/fused/update.py


class FusedUpdate:
    """An update of all parameters by the function of that name in engine/ops/fused/update.py, which has the
    optimiser's slots in this order. It remembers where the arrays lie in memory."""

    def __init__(self, name: str, slots: tuple[str, ...]) -> None:
        self._name, self._slots = name, slots
        self._arrays: list[Any] = []
        self._table = np.empty((0, REST), np.int64)

    def __call__(self, params: list, state: list[dict], factors: Sequence[float], *options: Any) -> bool:
        """Change the parameters and their state. False, and nothing done, where that does not fit: arrays
        that are not NumPy's, of several dtypes, or not contiguous. factors, options: the function's.
        """
        dtype = params[0].dtype
        if not is_compiled(params[0].backend.xp, dtype):
            return False
        arrays = []
        for p, own in zip(params, state, strict=True):
            arrays += [p.array, *[own[slot] for slot in self._slots]]
        if len(arrays) != len(self._arrays) or not all(map(operator.is_, arrays, self._arrays)):
            columns = 1 + len(self._slots)
            if not all(_fits(a, dtype, params[n // columns].shape) for n, a in enumerate(arrays)):
                return False
            self._arrays, self._table = arrays, _table(arrays, columns)
        size = _enter_gradients(self._table, params, dtype)
        if size is None:
            return False
        from ..engine.ops.fused import update

        function, numbers = getattr(update, self._name), np.array(factors, dtype)
        work = lambda first, last: function(self._table, numbers, *options, first, last)  # noqa: E731
        in_shards(work, size, WORTH_A_THREAD)
        return True


def _table(arrays: list, columns: int) -> np.ndarray:
    from ..engine.ops.fused.update import enter

    table = np.zeros((len(arrays) // columns, REST + columns), np.int64)
    for number, array in enumerate(arrays):
        enter(table, number // columns, REST + number % columns, array)
    return table


def _enter_gradients(table: np.ndarray, params: list, dtype: Any) -> int | None:
    """Their sizes and places, and how many numbers they are in all; None if not all can be worked on."""
    from ..engine.ops.fused.update import enter

    total = 0
    for row, p in enumerate(params):
        gradient = p.grad
        if gradient is None:
            table[row, SIZE] = 0
            continue
        array = gradient.array
        if not _fits(array, dtype, p.array.shape):
            return None
        enter(table, row, GRADIENT, array)
        total += array.size
    return total


def _fits(array: Any, dtype: Any, shape: tuple[int, ...]) -> bool:
    return type(array) is np.ndarray and array.dtype == dtype and array.shape == shape and array.flags.carray
