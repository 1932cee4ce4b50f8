"""An optimiser's update of all parameters, compiled: one pass over their arrays, in one call.

The functions are told of the arrays by a table of where these lie in memory. A row is of a parameter: its
size, and the addresses of its gradient, of itself, and of what the optimiser remembers of it. All are
contiguous and of one dtype. Of all numbers, in the order of the table, a call is for the first to the last.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from .jit import compiled, inlined
from .shards import in_shards

WORTH_A_THREAD = 1 << 16  # numbers


@intrinsic
def _pointer(context, address, like):  # type: ignore[no-untyped-def]
    """To numbers like those of an array."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.int64, like), generate


@inlined
def _part(address, size, first, last, like):
    return carray(_pointer(address, like), size)[first:last]


@compiled
def enter(table, row, column, array):
    """The size of an array, and where it lies."""
    table[row, 0] = array.size
    table[row, column] = array.ctypes.data


def can_take(array: Any) -> bool:
    """Whether an array may stand in a table."""
    return type(array) is np.ndarray and array.flags.carray


def run(xp: Any, dtype: Any, name: str, table: np.ndarray, factors: Sequence[float], *options: Any) -> None:
    """Call the function of that name for all numbers, on several cores if they are many."""
    function, numbers = globals()[name], np.array(factors, dtype)
    work = lambda first, last: function(table, numbers, *options, first, last)  # noqa: E731
    in_shards(work, sum(table[:, 0].tolist()), WORTH_A_THREAD)


@compiled
def adam(table, factors, decoupled, first, last):
    """See Adam in optim/optimizers.py; remembered are mean and square. factors, of the dtype of all:
    lr / (1 - beta1^steps), the root of 1 - beta2^steps, 1 - beta1, 1 - beta2, eps, and weight decay (times lr
    if it is decoupled)."""
    rate, root, a, b, eps, decay = factors
    one = factors.dtype.type(1)
    kept = one - decay if decoupled else one
    pull = factors.dtype.type(0) if decoupled else decay
    for row in range(len(table)):
        size = table[row, 0]
        begin, end = max(first, 0), min(last, size)
        first, last = first - size, last - size
        if begin >= end:
            continue
        g = _part(table[row, 1], size, begin, end, factors)
        w = _part(table[row, 2], size, begin, end, factors)
        mean = _part(table[row, 3], size, begin, end, factors)
        square = _part(table[row, 4], size, begin, end, factors)
        for k in range(w.size):
            slope = g[k] + pull * w[k]
            mean[k] += a * (slope - mean[k])
            square[k] += b * (slope * slope - square[k])
            w[k] = w[k] * kept - rate * mean[k] / (np.sqrt(square[k]) / root + eps)


@compiled
def adagrad(table, factors, first, last):
    """See Adagrad in optim/optimizers.py. factors, of the dtype of all: lr and eps."""
    lr, eps = factors
    for row in range(len(table)):
        size = table[row, 0]
        begin, end = max(first, 0), min(last, size)
        first, last = first - size, last - size
        if begin >= end:
            continue
        g = _part(table[row, 1], size, begin, end, factors)
        w = _part(table[row, 2], size, begin, end, factors)
        total = _part(table[row, 3], size, begin, end, factors)
        for k in range(w.size):
            total[k] += g[k] * g[k]
            w[k] -= lr * g[k] / (np.sqrt(total[k]) + eps)
