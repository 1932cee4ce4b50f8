"""The kernels of sequence.py, compiled: layers.py and output.py, called as those of sequence.py are.

What is prepared here once for a whole sequence: the weights are packed (see product.py), and where the inputs
are symbols, the first layer's products are a table with a row for each. Then every shard of the batch runs by
itself.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import layers, sequence
from .jit import compiled
from .output import cross_entropy, cross_entropy_backward
from .product import ROWS, multiplier, packed, packed_size, packed_transposed
from .shards import in_shards

CHUNK = 256  # rows, about, of the products that the gradients of weights grow by

FORWARD = {"rnn": layers.rnn_forward, "lstm": layers.lstm_forward, "gru": layers.gru_forward}
BACKWARD = {"rnn": layers.rnn_backward, "lstm": layers.lstm_backward, "gru": layers.gru_backward}
ROOM = {"rnn": 1, "lstm": 4, "gru": 4}  # gradients of gates in a row


@functools.cache
def halves(kind: str, hidden: int, dtype: Any) -> np.ndarray:
    """What the rows of weights and biases are multiplied by: 1/2 for sigmoids. See layers.py."""
    of_gates = {"rnn": [1], "lstm": [0.5, 0.5, 1, 0.5], "gru": [0.5, 0.5, 1]}[kind]
    return np.repeat(np.array(of_gates, dtype), hidden)


@functools.cache
def _nothing(dimensions: int, dtype: Any) -> np.ndarray:
    """In place of an array that is not there."""
    return np.empty((0,) * dimensions, dtype)


def _bias(rows: int, dtype: Any, *biases: Any) -> Any:
    total = np.zeros(rows, dtype)
    for bias in biases:
        if bias is not None:
            total += bias
    return total


def _room(rows: int, columns: int, dtype: Any) -> np.ndarray:
    """Room for the gradients of so many rows."""
    return np.empty((rows, columns + layers.PADDING), dtype)


def _packed_room(K: int, N: int, dtype: Any) -> np.ndarray:
    return np.empty(packed_size(K, N, dtype.itemsize), dtype)


def _steps(rows: int, steps: int) -> int:
    """Time steps of a chunk, with so many rows each."""
    return min(max(CHUNK // rows, 1), steps)


class Layer:
    """A layer over a sequence: made, run by forward() for each shard of the batch, then by backward().

    x (T, B, D); or symbols (T, B) and an embedding (V, D), from which x would be taken. states: h (B, H), for
    an LSTM also c. weights: w_ih, w_hh, b_ih, b_hh. keep: whether there will be a backward pass. x and states
    are contiguous.
    """

    def __init__(
        self, kind: str, x: Any, states: tuple, weights: tuple, keep: bool, rectified: bool = False,
        symbols: Any = None, embedding: Any = None,
    ) -> None:  # fmt: skip
        w_ih, w_hh, b_ih, b_hh = weights
        dtype, hidden = w_hh.dtype, w_hh.shape[1]
        scale = halves(kind, hidden, dtype)
        bias = _bias(len(scale), dtype, b_ih, None if kind == "gru" else b_hh) * scale
        if embedding is None:
            symbols, table = _nothing(2, np.dtype(np.intp)), _nothing(2, dtype)
            inputs, (steps, batch, _) = packed_transposed(w_ih, scale), x.shape
        else:
            x, table = _nothing(3, dtype), np.matmul(embedding, w_ih.T) * scale + bias
            inputs, (steps, batch) = _nothing(1, dtype), symbols.shape
        rows = steps if keep else 1
        self.outputs = np.empty((steps, batch, hidden), dtype)
        self._inputs, self._embedding = (x, symbols, table), embedding
        self._products: tuple = (inputs, packed_transposed(w_hh, scale), bias)
        self._options: tuple = (rectified,) if kind == "rnn" else ()
        self._kept: tuple = ()
        if kind == "lstm":
            cells = np.empty((rows + keep, batch, hidden), dtype)
            cells[0] = states[1]
            self._kept = (np.empty((rows, batch, 4 * hidden), dtype), cells)
        elif kind == "gru":
            self._products += (_bias(len(scale), dtype, b_hh) * scale,)
            self._kept = tuple(np.empty((rows, batch, n * hidden), dtype) for n in (3, 1))
        self._kind, self._states, self._weights = kind, states, weights

    def forward(self, first: int, last: int) -> None:
        """Outputs, and what backward() needs, of these streams."""
        FORWARD[self._kind](
            multiplier(self.outputs.dtype), *self._inputs, *self._products, self._states[0], *self._kept,
            self.outputs, *self._options, first, last,
        )  # fmt: skip

    def last_states(self) -> tuple:
        """After the last step, once forward() has run."""
        return (self.outputs[-1], self._kept[1][-1]) if self._kind == "lstm" else (self.outputs[-1],)

    def packed_for_backward(self, need_x: bool) -> tuple:
        """w_ih, if the gradient of x is needed, and w_hh."""
        w_ih, w_hh = self._weights[:2]
        if self._kind == "gru":  # the order in which gru_backward() has the gates
            w_ih = np.roll(w_ih, w_hh.shape[1], axis=0)
        return (packed(w_ih) if need_x else _nothing(1, w_hh.dtype), packed(w_hh))

    def backward(self, back: tuple, g: Any, ends: list, dx: Any, first: int, last: int) -> list:
        """Gradients of w_ih (or of the table), w_hh, b_ih and b_hh from these streams.

        back: packed_for_backward(). g (T, B, H): the gradient of the outputs, or with T = 0. ends: of the
        last states, which those of the first replace. dx (T, B, D): to be filled, or with T = 0. It may be g.
        """
        table, (rows, features) = self._inputs[2], self._weights[0].shape
        steps, _, hidden = self.outputs.shape
        dtype, streams = self.outputs.dtype, last - first
        chunk = _steps(streams, steps)
        dw_ih, dtable = np.zeros((0 if len(table) else rows, features), dtype), np.zeros_like(table)
        dw_hh = np.zeros((rows, hidden), dtype)
        biases = [np.zeros(rows, dtype) for _ in range(2 if self._kind == "gru" else 1)]
        BACKWARD[self._kind](
            multiplier(dtype), g, *ends, *self._inputs[:2], *back, self._states[0], *self._kept,
            self.outputs, *self._options, dx, dw_ih, dtable, dw_hh, *biases,
            _room(chunk * streams, ROOM[self._kind] * hidden, dtype),
            _packed_room(chunk * streams, features, dtype), _packed_room(chunk * streams, hidden, dtype),
            chunk, first, last,
        )  # fmt: skip
        return [dtable if len(table) else dw_ih, dw_hh, *biases]

    def gradients(self, of_shards: Iterable[list]) -> list:
        """Of w_ih, w_hh, b_ih and b_hh, from what backward() returned for the shards. Of symbols, one more:
        the embedding's."""
        d_inputs, dw_hh, db_ih, *db_hh = in_order(of_shards)
        hidden, w_ih = self.outputs.shape[2], self._weights[0]
        folded = self._embedding is not None
        if self._kind == "gru":
            d_inputs, db_ih = np.roll(d_inputs, -hidden, axis=int(folded)), np.roll(db_ih, -hidden)
        rest = [dw_hh, db_ih, db_hh[0] if db_hh else db_ih.copy()]
        if not folded:
            return [d_inputs, *rest]
        return [np.matmul(d_inputs.T, self._embedding), *rest, np.matmul(d_inputs, w_ih)]


def in_order(of_shards: Iterable[list]) -> list:
    """The sums of the shards' arrays."""
    return [functools.reduce(operator.iadd, arrays) for arrays in zip(*of_shards, strict=True)]


# --- a layer --------------------------------------------------------------------------------------


def _layer_forward(
    kind: str, x: Any, states: tuple, weights: tuple, keep: bool, rectified: bool = False
) -> tuple:
    states = tuple(np.ascontiguousarray(state) for state in states)
    layer = Layer(kind, np.ascontiguousarray(x), states, weights, keep, rectified)
    in_shards(layer.forward, x.shape[1])
    return (layer.outputs, *(state.copy() for state in layer.last_states())), layer if keep else None


def _layer_backward(layer: Layer, g: tuple, inputs: tuple, states: int, needs: tuple) -> tuple:
    x, weights = inputs[0], inputs[1 + states :]
    ends = [
        np.zeros(s.shape, s.dtype) if d is None else np.array(d, order="C")
        for d, s in zip(g[1:], inputs[1:], strict=False)
    ]
    dx = np.empty(x.shape if needs[0] else (0, 0, 0), x.dtype)
    upstream = _nothing(3, x.dtype) if g[0] is None else np.ascontiguousarray(g[0])
    backward = functools.partial(layer.backward, layer.packed_for_backward(needs[0]), upstream, ends, dx)
    gradients = layer.gradients(in_shards(backward, x.shape[1]))
    return (
        dx if needs[0] else None,
        *ends,
        *(
            d if need and w is not None else None
            for d, w, need in zip(gradients, weights, needs[1 + states :], strict=True)
        ),
    )


def _empty(*arrays: Any) -> bool:
    """Sizes of 0 are left to the twin."""
    return any(0 in array.shape for array in arrays)


def rnn_forward(
    xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str
) -> tuple:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    if _empty(x, h0):
        return sequence.rnn_forward(xp, x, h0, w_ih, w_hh, b_ih, b_hh, nonlinearity)
    return _layer_forward("rnn", x, (h0,), (w_ih, w_hh, b_ih, b_hh), True, nonlinearity == "relu")


def rnn_backward(
    xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any, nonlinearity: str
) -> tuple:
    """da = dh (1 - h^2), or dh [h > 0];  before the step: dh = W_hh^T da"""
    if _empty(inputs[0], inputs[1]):
        return sequence.rnn_backward(xp, g, out, inputs, needs, residuals, nonlinearity)
    return _layer_backward(residuals, g, inputs, 1, needs)


def lstm_forward(
    xp: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool
) -> tuple:
    """i, f, o = sigmoid(...), g = tanh(...);  c' = f c + i g;  h' = o tanh(c')"""
    if _empty(x, h0):
        return sequence.lstm_forward(xp, x, h0, c0, w_ih, w_hh, b_ih, b_hh, keep)
    return _layer_forward("lstm", x, (h0, c0), (w_ih, w_hh, b_ih, b_hh), keep)


def lstm_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """dc += dh o (1 - tanh(c')^2)
    da_i = dc g i (1 - i),  da_f = dc c f (1 - f),  da_g = dc i (1 - g^2),  da_o = dh tanh(c') o (1 - o)
    before the step: dh = W_hh^T da,  dc = dc f
    """
    if _empty(inputs[0], inputs[1]):
        return sequence.lstm_backward(xp, g, out, inputs, needs, residuals)
    return _layer_backward(residuals, g, inputs, 2, needs)


def gru_forward(xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool) -> tuple:
    """r, z = sigmoid(...);  n = tanh(W_in x + b_in + r (W_hn h + b_hn));  h' = n + z (h - n)"""
    if _empty(x, h0):
        return sequence.gru_forward(xp, x, h0, w_ih, w_hh, b_ih, b_hh, keep)
    return _layer_forward("gru", x, (h0,), (w_ih, w_hh, b_ih, b_hh), keep)


def gru_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """da_n = dh (1 - z) (1 - n^2),  da_z = dh (h - n) z (1 - z),  da_r = da_n (W_hn h + b_hn) r (1 - r)
    before the step: dh = dh z + W_hh^T (da_r, da_z, da_n r)
    """
    if _empty(inputs[0], inputs[1]):
        return sequence.gru_backward(xp, g, out, inputs, needs, residuals)
    return _layer_backward(residuals, g, inputs, 1, needs)


# --- a whole language model -----------------------------------------------------------------------


@compiled
def _add_rows(dx: Any, symbols: Any, table: Any) -> None:
    """table[s] += the gradient (T, B, D) at every place of the symbol s"""
    steps, batch = symbols.shape
    for t in range(steps):
        for b in range(batch):
            layers.add_to(table[symbols[t, b]], dx[t, b])


def _rows_of_steps(*arrays: Any) -> list:
    """Arrays (T, B, ...) as the output layer reads them: where a step has few rows, as one step of T B."""
    if arrays[0].shape[1] >= ROWS:
        return list(arrays)
    return [a.reshape(1, -1, *a.shape[2:]) for a in arrays]


def language_model_forward(xp: Any, parts: Any, symbols: Any, targets: Any, kind: str, keep: bool) -> tuple:
    """Mean cross-entropy and final states; see ../language_model.py.

    Where the text is longer than the vocabulary, the embedding is folded into the first layer: W_ih E^T is a
    table with a row for each symbol, and a step looks its rows up instead of multiplying.
    """
    symbols, targets = (np.ascontiguousarray(a, np.intp) for a in (symbols, targets))
    dtype, (steps, batch) = parts.embedding.dtype, symbols.shape
    folded = symbols.size >= len(parts.embedding)
    source: dict[str, Any] = {"symbols": symbols, "embedding": parts.embedding} if folded else {}
    x, stack = None if folded else parts.embedding[symbols], []
    for number, weights in enumerate(parts.layers):
        states = tuple(np.ascontiguousarray(state[number]) for state in parts.states)
        stack.append(Layer(kind, x, states, weights, keep, **source))
        x, source = stack[-1].outputs, {}
    w, bias = packed_transposed(parts.weight), np.ascontiguousarray(parts.bias)
    losses, differences = np.empty((steps, batch), dtype), np.empty((steps, batch, len(bias)), dtype)
    top, goals, *filled = _rows_of_steps(x, targets, losses, differences)
    together = steps // len(top)

    def forward(first: int, last: int) -> None:
        for layer in stack:
            layer.forward(first, last)
        cross_entropy(multiplier(dtype), top, w, bias, goals, *filled, first * together, last * together)

    in_shards(forward, batch)
    ends = zip(*(layer.last_states() for layer in stack), strict=True)
    loss = np.asarray(losses.mean(), dtype)
    return (loss, *map(np.stack, ends)), ((stack, differences, folded) if keep else None)


def language_model_backward(
    xp: Any, g: Any, parts: Any, residuals: Any, symbols: Any, targets: Any, kind: str
) -> tuple:
    """Gradients in the order of the op's inputs."""
    stack, differences, folded = residuals
    dtype, (steps, batch, V) = differences.dtype, differences.shape
    scale, hidden = dtype.type(0 if g[0] is None else g[0] / symbols.size), parts.weight.shape[1]
    w, g_up = packed(parts.weight), np.empty((steps, batch, hidden), dtype)
    top, given, up = _rows_of_steps(stack[-1].outputs, differences, g_up)
    together = steps // len(top)
    d_states = [
        np.zeros(state.shape, dtype) if d is None else np.array(d, order="C")
        for d, state in zip(g[1:], parts.states, strict=True)
    ]
    d_lowest = _nothing(3, dtype) if folded else np.empty((steps, batch, parts.embedding.shape[1]), dtype)
    plans = []
    for number, layer in enumerate(stack):
        dx = g_up if number else d_lowest
        plans.append((layer, layer.packed_for_backward(len(dx) > 0), g_up, [d[number] for d in d_states], dx))

    def backward(first: int, last: int) -> list[list]:
        rows = (last - first) * together
        chunk = _steps(rows, len(top))
        dw, db = np.zeros((V, hidden), dtype), np.zeros(V, dtype)
        cross_entropy_backward(
            multiplier(dtype), given, scale, top, w, up, dw, db, np.empty((chunk * rows, V), dtype),
            _packed_room(chunk * rows, hidden, dtype), chunk, first * together, last * together,
        )  # fmt: skip
        return [*(layer.backward(*plan, first, last) for layer, *plan in reversed(plans)), [dw, db]]

    *of_layers, of_output = zip(*in_shards(backward, batch), strict=True)
    gradients = [layer.gradients(each) for layer, each in zip(stack, reversed(of_layers), strict=True)]
    if folded:
        d_embedding = gradients[0].pop()
    else:
        d_embedding = np.zeros(parts.embedding.shape, dtype)
        _add_rows(d_lowest, np.ascontiguousarray(symbols, np.intp), d_embedding)
    return (d_embedding, *in_order(of_output), *d_states, *(d for each in gradients for d in each))
