"""A recurrent model writes texts: each symbol drawn from its prediction and fed back, in one compiled loop.

What a symbol costs is the reading of every weight once, for all texts that are written side by side. So
nothing else is done that can be avoided: the embedding is folded into a table of the first layer's inputs,
and the weights are packed once (see product.py).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .jit import compiled, inlined
from .layers import add_to, gru_point, lstm_point, put
from .passes import halves
from .pointwise import tanh_all
from .product import add_product, multiplier, packed_transposed

RNN, LSTM, GRU = range(3)
NOT_FINITE = -1


@inlined
def _step(kind, a, s, h, c):
    """The states h and c (B, H) after one more input: a (B, K H) is W_ih x + b_ih, s is W_hh h + b_hh."""
    for b in range(len(h)):
        if kind != GRU:
            add_to(a[b], s[b])
            tanh_all(a[b])
        if kind == RNN:
            put(a[b], h[b])
        elif kind == LSTM:
            lstm_point(a[b], c[b], c[b], h[b])
        else:
            gru_point(a[b], s[b], s[b, 2 * h.shape[1] :], h[b], h[b])


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


@inlined
def _draw(scores, weights, point, temperature, top_k, top_p):
    """A symbol of softmax(scores / temperature), filtered, by a draw from 0 to 1; or NOT_FINITE."""
    V, best = scores.size, 0
    for v in range(V):
        if scores[v] > scores[best] or scores[v] != scores[v]:  # a NaN stays
            best = v
    if not math.isfinite(scores[best]):
        return NOT_FINITE
    if temperature == 0:
        return best
    highest = np.float64(scores[best])
    for v in range(V):
        weights[v] = math.exp((np.float64(scores[v]) - highest) / temperature)
    if top_k < V or top_p < 1:
        _filter(weights, top_k, top_p)
    total = 0.0
    for v in range(V):
        total += weights[v]
    sum_so_far = 0.0
    for v in range(V):
        sum_so_far += weights[v]
        if sum_so_far > point * total:
            return v
    return best


@compiled
def write(
    multiply, kind, table, ih, b_ih, hh, b_hh, w, bias, h, c, latest, points, temperature, exclude, top_k,
    top_p, written,
):  # fmt: skip
    """`written` (n, B) filled with symbols that continue `latest` (B,), by the draws from 0 to 1 in `points`;
    from a prediction on that is not finite with NOT_FINITE."""
    layers, B, _ = h.shape
    a, s = np.empty((B, b_hh.shape[1]), h.dtype), np.empty((B, b_hh.shape[1]), h.dtype)
    scores, weights = np.empty((B, bias.size), h.dtype), np.empty(bias.size)
    for n in range(len(written)):
        for layer in range(layers):
            for b in range(B):
                put(table[latest[b]] if layer == 0 else b_ih[layer - 1], a[b])
                put(b_hh[layer], s[b])
            if layer:
                add_product(multiply, h[layer - 1], ih[layer - 1], a)
            add_product(multiply, h[layer], hh[layer], s)
            _step(kind, a, s, h[layer], c[layer])
        for b in range(B):
            put(bias, scores[b])
        add_product(multiply, h[layers - 1], w, scores)
        for b in range(B):
            if exclude >= 0:
                scores[b, exclude] = -np.inf
            symbol = _draw(scores[b], weights, points[n, b], temperature, top_k, top_p)
            written[n, b] = symbol
            latest[b] = max(symbol, 0)


class Writer:
    """Writes texts side by side, by the model of `parts` (see ../language_model.py) from its states (L, B, H)
    and the symbols `latest` (B,). A text does not depend on the others: nor do the products of its row."""

    piece = 256  # symbols that are best written in one call

    def __init__(self, kind: str, parts: Any, latest: np.ndarray) -> None:
        self._kind = ("rnn", "lstm", "gru").index(kind)
        (w_ih, _, b_ih, _), hidden = parts.layers[0], parts.weight.shape[1]
        scale = halves(kind, hidden, parts.weight.dtype)
        lowest = (np.matmul(parts.embedding, w_ih.T) + b_ih) * scale
        upper = parts.layers[1:]
        self._weights = (
            lowest,
            _stacked([packed_transposed(layer[0], scale) for layer in upper], lowest),
            _stacked([layer[2] * scale for layer in upper], lowest),
            _stacked([packed_transposed(layer[1], scale) for layer in parts.layers], lowest),
            _stacked([layer[3] * scale for layer in parts.layers], lowest),
            packed_transposed(parts.weight),
            np.ascontiguousarray(parts.bias),
        )
        h, c = (np.array(parts.states[i % len(parts.states)], order="C") for i in range(2))
        self._states = (h, c, np.array(latest, np.intp))

    def write(
        self,
        points: np.ndarray,
        temperature: float,
        top_k: int | None = None,
        top_p: float | None = None,
        exclude: int | None = None,
    ) -> np.ndarray:
        """As many symbols of each text as there are rows in `points` (n, B), draws from 0 to 1;
        NOT_FINITE where a prediction is not finite."""
        written, V = np.empty(points.shape, np.intp), len(self._weights[0])
        write(
            multiplier(self._weights[0].dtype), self._kind, *self._weights, *self._states,
            np.ascontiguousarray(points), float(temperature), -1 if exclude is None else int(exclude),
            min(top_k or V, V), 1.0 if top_p is None else float(top_p), written,
        )  # fmt: skip
        return written

    def keep(self, texts: np.ndarray) -> None:
        """Go on with these texts only, given by their places."""
        h, c, latest = self._states
        self._states = (np.ascontiguousarray(h[:, texts]), np.ascontiguousarray(c[:, texts]), latest[texts])


def _stacked(arrays: list, like: np.ndarray) -> np.ndarray:
    return np.stack(arrays) if arrays else np.empty((0, 0), like.dtype)
