"""A layer's passes over a sequence: what the compiled kernels of layers.py need around them.

What is prepared once for a whole sequence: the weights are packed (see product.py), and where the inputs are
symbols, the first layer's products are a table with a row for each. Then every shard of the batch runs by
itself.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from . import layers
from .product import multiplier, packed, packed_size, packed_transposed
from .shards import CHUNK

_INDEX = np.dtype(np.intp)

FORWARD = {"rnn": layers.rnn_forward, "lstm": layers.lstm_forward, "gru": layers.gru_forward}
BACKWARD = {"rnn": layers.rnn_backward, "lstm": layers.lstm_backward, "gru": layers.gru_backward}
ROOM = {"rnn": 1, "lstm": 4, "gru": 4}  # gradients of gates in a row


@functools.cache
def halves(kind: str, hidden: int, dtype: Any) -> np.ndarray:
    """What the rows of weights and biases are multiplied by: 1/2 for sigmoids. See layers.py."""
    of_gates = {"rnn": [1], "lstm": [0.5, 0.5, 1, 0.5], "gru": [0.5, 0.5, 1]}[kind]
    return np.repeat(np.array(of_gates, dtype), hidden)


@functools.cache
def nothing(dimensions: int, dtype: Any) -> np.ndarray:
    """In place of an array that is not there."""
    return np.empty((0,) * dimensions, dtype)


def _bias(scale: Any, *biases: Any) -> Any:
    """Their sum times `scale`, of those that there are."""
    total, *others = [bias for bias in biases if bias is not None] or [np.zeros_like(scale)]
    for bias in others:
        total = total + bias
    return total * scale


def _room(rows: int, columns: int, dtype: Any) -> np.ndarray:
    """Room for the gradients of so many rows."""
    return np.empty((rows, columns + layers.PADDING), dtype)


def packed_room(K: int, N: int, dtype: Any) -> np.ndarray:
    return np.empty(packed_size(K, N, dtype.itemsize), dtype)


def _steps(rows: int, steps: int) -> int:
    """Time steps of a chunk, with so many rows each."""
    return min(max(CHUNK // rows, 1), steps)


class Weights:
    """A layer's weights w_ih, w_hh, b_ih, b_hh as the kernels read them, made once for all shards.

    embedding (V, D): the inputs will be symbols, of which it has the rows. None: they will be numbers.
    """

    def __init__(self, kind: str, arrays: tuple, embedding: Any = None) -> None:
        w_ih, w_hh, b_ih, b_hh = arrays
        dtype, hidden = w_hh.dtype, w_hh.shape[1]
        scale = halves(kind, hidden, dtype)
        bias = _bias(scale, b_ih, None if kind == "gru" else b_hh)
        if embedding is None:
            self.table, inputs = nothing(2, dtype), packed_transposed(w_ih, scale)
        else:
            self.table, inputs = np.matmul(embedding, w_ih.T) * scale + bias, nothing(1, dtype)
        self.products: tuple = (inputs, packed_transposed(w_hh, scale), bias)
        if kind == "gru":
            self.products += (_bias(scale, b_hh),)
        self.kind, self.arrays, self.embedding = kind, arrays, embedding

    def for_backward(self, need_x: bool) -> tuple:
        """w_ih, if the gradient of x is needed, and w_hh."""
        w_ih, w_hh = self.arrays[:2]
        if self.kind == "gru":  # the order in which gru_backward() has the gates
            w_ih = np.roll(w_ih, w_hh.shape[1], axis=0)
        return (packed(w_ih) if need_x else nothing(1, w_hh.dtype), packed(w_hh))

    def finish(self, gradients: list, of_table: Any = None, of_embedding: Any = None) -> None:
        """The gradients of w_ih, w_hh, b_ih and b_hh from what Layer.backward() left there; of symbols, from
        that of the table, and the embedding's."""
        dw_ih, _, db_ih, db_hh = gradients
        hidden = self.arrays[1].shape[1]
        if self.embedding is not None:
            of_table = np.roll(of_table, -hidden, axis=1) if self.kind == "gru" else of_table
            np.matmul(of_table.T, self.embedding, out=dw_ih)
            np.matmul(of_table, self.arrays[0], out=of_embedding)
        elif self.kind == "gru":
            dw_ih[:] = np.roll(dw_ih, -hidden, axis=0)
        if self.kind == "gru":
            db_ih[:] = np.roll(db_ih, -hidden)
        else:
            db_hh[:] = db_ih


class Layer:
    """A layer over a sequence: made, run by forward() for each shard of the batch, then by backward().

    x: (T, B, D), or symbols (T, B) where the weights were made for these. states: h (B, H), for an LSTM also
    c. keep: whether there will be a backward pass. x and states are contiguous.
    """

    def __init__(self, weights: Weights, x: Any, states: tuple, keep: bool, rectified: bool = False) -> None:
        kind, dtype, hidden = weights.kind, states[0].dtype, states[0].shape[1]
        steps, batch = x.shape[:2]
        numbers, symbols = (x, nothing(2, _INDEX)) if x.ndim == 3 else (nothing(3, dtype), x)
        rows = steps if keep else 1
        self.outputs = np.empty((steps, batch, hidden), dtype)
        self._inputs, self.weights, self._states = (numbers, symbols), weights, states
        self._options: tuple = (rectified,) if kind == "rnn" else ()
        self._kept: tuple = ()
        if kind == "lstm":
            cells = np.empty((rows + keep, batch, hidden), dtype)
            cells[0] = states[1]
            self._kept = (np.empty((rows, batch, 4 * hidden), dtype), cells)
        elif kind == "gru":
            self._kept = tuple(np.empty((rows, batch, n * hidden), dtype) for n in (3, 1))

    def forward(self, first: int, last: int) -> None:
        """Outputs, and what backward() needs, of these streams."""
        weights = self.weights
        FORWARD[weights.kind](
            multiplier(self.outputs.dtype), *self._inputs, weights.table, *weights.products, self._states[0],
            *self._kept, self.outputs, *self._options, first, last,
        )  # fmt: skip

    def last_states(self) -> tuple:
        """After the last step, once forward() has run."""
        return (self.outputs[-1], self._kept[1][-1]) if self.weights.kind == "lstm" else (self.outputs[-1],)

    def backward(
        self, back: tuple, g: Any, ends: list, dx: Any, gradients: list, of_table: Any, first: int, last: int
    ) -> None:
        """Add what these streams give to the gradients of w_ih, w_hh, b_ih and b_hh, or to that of the table
        instead of w_ih's. Weights.finish() makes of it what they are.

        back: Weights.for_backward(). g (T, B, H): the gradient of the outputs, or with T = 0. ends: of the
        last states, which those of the first replace. dx (T, B, D): to be filled, or with T = 0. It may be g.
        """
        kind, table = self.weights.kind, self.weights.table
        steps, _, hidden = self.outputs.shape
        dtype, streams, features = self.outputs.dtype, last - first, self.weights.arrays[0].shape[1]
        chunk = _steps(streams, steps)
        dw_ih, dw_hh, *biases = gradients
        BACKWARD[kind](
            multiplier(dtype), g, *ends, *self._inputs, *back, self._states[0], *self._kept, self.outputs,
            *self._options, dx, *((nothing(2, dtype), of_table) if len(table) else (dw_ih, table)), dw_hh,
            *biases[: 2 if kind == "gru" else 1], _room(chunk * streams, ROOM[kind] * hidden, dtype),
            packed_room(chunk * streams, features, dtype), packed_room(chunk * streams, hidden, dtype),
            chunk, first, last,
        )  # fmt: skip


def in_order(of_shards: list[list]) -> list:
    """The sums of the shards' arrays."""
    return [functools.reduce(operator.iadd, arrays) for arrays in zip(*of_shards, strict=True)]
