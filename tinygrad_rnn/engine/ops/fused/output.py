"""The output layer of a language model and its loss, compiled: scores, softmax, cross-entropy, gradients."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math

from .jit import compiled
from .layers import add_to, put
from .pointwise import exp_of
from .product import add_product, pack


@compiled
def cross_entropy(
    multiply, outputs, w_up, bias, w_down, targets, losses, scale, dh, dw, db, side, h_packed, chunk
):
    """losses (N,) in nats of the scores W h + bias for the outputs h (N, H), and the gradients of their sum
    times `scale`: dh (N, H), and added to dw (V, H) and db (V). dh with N = 0: no gradients.

    w_up, w_down: W^T and W packed. side (chunk, V): room for the scores of a chunk, which its gradients
    replace.
    """
    V = bias.size
    for begin in range(0, len(outputs), chunk):
        h = outputs[begin : begin + chunk]
        scores = side[: len(h)]
        for r in range(len(h)):
            put(bias, scores[r])
        add_product(multiply, h, w_up, scores)
        for r in range(len(h)):
            row, goal = scores[r], targets[begin + r]
            largest = row[0]
            for v in range(1, V):
                largest = row[v] if row[v] > largest else largest
            loss = largest - row[goal]
            for v in range(V):
                row[v] = exp_of(row[v] - largest)
            total = row.dtype.type(0)
            for v in range(V):
                total += row[v]
            losses[begin + r] = loss + math.log(total)
            if len(dh):  # p - 1 at the target, p elsewhere
                share = scale / total
                for v in range(V):
                    row[v] *= share
                row[goal] -= scale
                add_to(db, row)
        if len(dh):
            d = dh[begin : begin + len(h)]
            d[:] = 0
            add_product(multiply, scores, w_down, d)
            pack(h, h_packed, 0, len(h))
            add_product(multiply, scores.T, h_packed, dw)
