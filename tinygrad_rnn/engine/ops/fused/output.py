"""The output layer of a language model and its loss, compiled: scores, softmax, cross-entropy in one pass."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math

from .jit import compiled
from .layers import add_to, put
from .pointwise import exp_of
from .product import add_product, pack


@compiled
def cross_entropy(multiply, outputs, w, bias, targets, losses, gradients, first, last):
    """losses (T, B) in nats of the scores W h + bias, and the gradients of the scores, (T, B, V).

    w: W^T packed. Streams `first` to `last` only.
    """
    V = bias.size
    for t in range(len(outputs)):
        scores = gradients[t, first:last]
        for r in range(last - first):
            put(bias, scores[r])
        add_product(multiply, outputs[t, first:last], w, scores)
        for r in range(last - first):
            row, goal = scores[r], targets[t, first + r]
            largest = row[0]
            for v in range(1, V):
                largest = row[v] if row[v] > largest else largest
            loss = largest - row[goal]
            for v in range(V):
                row[v] = exp_of(row[v] - largest)
            total = row.dtype.type(0)
            for v in range(V):
                total += row[v]
            losses[t, first + r] = loss + math.log(total)
            share = row.dtype.type(1) / total
            for v in range(V):
                row[v] *= share
            row[goal] -= row.dtype.type(1)


@compiled
def cross_entropy_backward(
    multiply, gradients, scale, outputs, w, dh, dw, db, side, h_packed, chunk, first, last
):  # fmt: skip
    """dh (T, B, H), dw (V, H) and db (V) from the gradients that cross_entropy() left, times `scale`.

    w: W packed. side: room for the rows of a chunk of time steps.
    """
    rows = last - first
    for begin in range(0, len(outputs), chunk):
        steps = min(chunk, len(outputs) - begin)
        for s in range(steps):
            d = side[s * rows : (s + 1) * rows]
            for r in range(rows):
                row, given = d[r], gradients[begin + s, first + r]
                for v in range(row.size):
                    row[v] = given[v] * scale
                add_to(db, row)
            up = dh[begin + s, first:last]
            up[:] = 0
            add_product(multiply, d, w, up)
            pack(outputs[begin + s, first:last], h_packed, s * rows, steps * rows)
        add_product(multiply, side[: steps * rows].T, h_packed, dw)
