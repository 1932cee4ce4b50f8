"""An optimiser's update of all parameters, compiled: one pass over their arrays, in one call."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from .jit import compiled, inlined


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
def adam(table, factors, decoupled, first, last):
    """See Adam in optim/optimizers.py. A row of the table is of a parameter: its size and the addresses of
    it, its gradient, their mean and that of their squares, contiguous and of the dtype of `factors`:
    lr / (1 - beta1^steps), the root of 1 - beta2^steps, 1 - beta1, 1 - beta2, eps, and weight decay (times lr
    if it is decoupled). Of all numbers in the order of the table only the first to the last are changed."""
    scale, root, a, b, eps, decay = factors
    one = factors.dtype.type(1)
    kept = one - decay if decoupled else one
    pull = factors.dtype.type(0) if decoupled else decay
    for row in range(len(table)):
        size = table[row, 0]
        begin, end = max(first, 0), min(last, size)
        first, last = first - size, last - size
        if begin >= end:
            continue
        w = _part(table[row, 1], size, begin, end, factors)
        g = _part(table[row, 2], size, begin, end, factors)
        mean = _part(table[row, 3], size, begin, end, factors)
        square = _part(table[row, 4], size, begin, end, factors)
        for k in range(w.size):
            slope = g[k] + pull * w[k]
            mean[k] += a * (slope - mean[k])
            square[k] += b * (slope * slope - square[k])
            w[k] = w[k] * kept - scale * mean[k] / (np.sqrt(square[k]) / root + eps)
