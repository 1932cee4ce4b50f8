"""A recurrent model writes a text: each symbol drawn from its prediction and fed back, in one compiled loop.

What a symbol costs is the reading of every weight once. So nothing else is done that can be avoided: the
embedding is folded into a table of the first layer's inputs, and the products are BLAS's matrix by vector.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .compiled import blas_of, line, sigmoid_all, tanh_all, tanh_of
from .jit import compiled, inlined, product

NOT_FINITE = -1


@inlined
def _copy(a, b):
    for k in range(a.size):
        a[k] = b[k]


@inlined
def _step(kind, blas, layer, a, s, x, ih, hh, b_hh, h, c):
    """A layer's state after one more input: a holds W_ih x + b_ih, s is room for W_hh h + b_hh."""
    n = h.size
    _copy(s, b_hh[layer])
    product(blas, hh[layer], h, s, s.size, n, 1, 1)
    if kind == 0:
        for k in range(n):
            h[k] = tanh_of(a[k] + s[k])
    elif kind == 1:
        for k in range(a.size):
            a[k] += s[k]
        sigmoid_all(a[: 2 * n])
        tanh_all(a[2 * n : 3 * n])
        sigmoid_all(a[3 * n :])
        i, f, g, o = a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n :]
        for k in range(n):
            c[k] = f[k] * c[k] + i[k] * g[k]
        for k in range(n):
            h[k] = o[k] * tanh_of(c[k])
    else:
        for k in range(2 * n):
            a[k] += s[k]
        sigmoid_all(a[: 2 * n])
        r, z, candidate, part = a[:n], a[n : 2 * n], a[2 * n :], s[2 * n :]
        for k in range(n):
            candidate[k] = tanh_of(candidate[k] + r[k] * part[k])
        for k in range(n):
            h[k] = candidate[k] + z[k] * (h[k] - candidate[k])


@inlined
def _filter(weights, top_k, top_p):
    """0 for what top_k and then top_p leave out; see likeliest() in text/sampling.py."""
    order = np.argsort(-weights, kind="mergesort")
    for rank in range(top_k, order.size):
        weights[order[rank]] = 0
    total = 0.0
    for rank in range(order.size):
        total += weights[order[rank]]
    before = 0.0
    for rank in range(order.size):
        weight = weights[order[rank]]
        if rank and before >= top_p * total:
            weights[order[rank]] = 0
        before += weight


@compiled
def _write(
    kind,
    blas,
    table,
    ih,
    b_ih,
    hh,
    b_hh,
    w,
    b,
    h,
    c,
    latest,
    points,
    temperature,
    exclude,
    top_k,
    top_p,
    written,
):
    """`written` filled with symbols that continue `latest`; a draw from 0 to 1 for each is in `points`."""
    V, hidden = b.size, h.shape[1]
    a, s, scores, weights = np.empty_like(b_hh[0]), np.empty_like(b_hh[0]), np.empty_like(b), np.empty(V)
    for number in range(written.size):
        _copy(a, table[latest])
        for layer in range(len(h)):
            if layer:
                _copy(a, b_ih[layer - 1])
                product(blas, ih[layer - 1], h[layer - 1], a, a.size, hidden, 1, 1)
            _step(kind, blas, layer, a, s, h, ih, hh, b_hh, h[layer], c[layer])
        _copy(scores, b)
        product(blas, w, h[len(h) - 1], scores, V, hidden, 1, 1)
        if exclude >= 0:
            scores[exclude] = -np.inf
        best = 0
        for v in range(V):
            if scores[v] > scores[best] or scores[v] != scores[v]:  # a NaN stays
                best = v
        if not math.isfinite(scores[best]):
            return NOT_FINITE
        latest = best
        if temperature > 0:
            highest = np.float64(scores[best])
            for v in range(V):
                weights[v] = math.exp((np.float64(scores[v]) - highest) / temperature)
            if top_k < V or top_p < 1:
                _filter(weights, top_k, top_p)
            total = 0.0
            for v in range(V):
                total += weights[v]
            point, sum_so_far = points[number] * total, 0.0
            for v in range(V):
                sum_so_far += weights[v]
                if sum_so_far > point:
                    latest = v
                    break
        written[number] = latest
    return written.size


class Writer:
    """Writes by the model of `parts` (see ../language_model.py), from its states (L, 1, H)."""

    def __init__(self, kind: str, parts: Any, latest: int) -> None:
        self._kind = ("rnn", "lstm", "gru").index(kind)
        first = parts.layers[0]
        self._table = np.ascontiguousarray((first[0] @ parts.embedding.T + first[2][:, None]).T)
        dtype, rows = self._table.dtype, self._table.shape[1]
        upper, hidden = parts.layers[1:], parts.weight.shape[1]
        self._weights = (
            np.array([line(layer[0]) for layer in upper], dtype).reshape(len(upper), rows * hidden),
            np.array([layer[2] for layer in upper], dtype).reshape(len(upper), rows),
            np.array([line(layer[1]) for layer in parts.layers]),
            np.array([layer[3] for layer in parts.layers]),
            line(parts.weight),
            line(parts.bias),
        )
        h, c = (parts.states[i % len(parts.states)][:, 0].copy() for i in range(2))
        self._states, self._latest = (h, c), latest

    def write(
        self,
        points: np.ndarray,
        temperature: float,
        top_k: int | None = None,
        top_p: float | None = None,
        exclude: int | None = None,
    ) -> np.ndarray | None:
        """As many symbols as `points` has draws from 0 to 1; None if a prediction is not finite."""
        written = np.empty(len(points), np.intp)
        found = _write(
            self._kind,
            blas_of(self._table.dtype),
            self._table,
            *self._weights,
            *self._states,
            self._latest,
            points,
            float(temperature),
            -1 if exclude is None else int(exclude),
            min(top_k or len(self._table), len(self._table)),
            1.0 if top_p is None else float(top_p),
            written,
        )
        if found == NOT_FINITE:
            return None
        self._latest = int(written[-1])
        return written
