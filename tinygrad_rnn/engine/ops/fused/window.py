"""A window of text through a whole language model: its loss and the gradients, in one go.

Nobody but the backward pass reads the gates and cells that the forward pass leaves behind. So both passes are
made for a part of the batch at a time, a few streams, and the next part has the same memory.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import compiled
from .layers import add_to
from .output import cross_entropy
from .passes import Layer, Weights, nothing, packed_room
from .product import multiplier, packed, packed_transposed
from .shards import CHUNK, in_shards, parts_of


@compiled
def _add_rows(dx, symbols, table):
    """table[s] += the gradient (T, B, D) at every place of the symbol s"""
    steps, batch = symbols.shape
    for t in range(steps):
        for b in range(batch):
            add_to(table[symbols[t, b]], dx[t, b])


class Gradients:
    """Of all that a language model has, before its first use zero: embedding, output weight and bias, of each
    layer w_ih, w_hh, b_ih and b_hh, and of the first layer's table."""

    def __init__(self, parts: Any, table: Any) -> None:
        zeros, dtype = np.zeros, parts.embedding.dtype
        self.embedding, self.weight, self.bias = (zeros(a.shape, dtype) for a in parts[:3])
        self.layers = [[zeros(a.shape, dtype) for a in arrays] for arrays in parts.layers]
        self.table = zeros(table.shape, dtype)

    def all(self) -> list:
        """But the table's, and as the op's inputs are, see Parts in ../language_model.py; the states' are
        missing."""
        return [self.embedding, self.weight, self.bias, *(d for each in self.layers for d in each)]

    def add(self, other: Gradients) -> None:
        """Those from other streams."""
        for own, given in zip([*self.all(), self.table], [*other.all(), other.table], strict=True):
            own += given


class Window:
    """symbols and targets (T, B) for the model of `parts`; made, then run().

    upstream: the gradient of the loss; None: no gradients are wanted. of_ends: those of the states after the
    last step (L, B, H), or None each.

    Where the text is longer than the vocabulary, the embedding is folded into the first layer: W_ih E^T is a
    table with a row for each symbol, and a step looks its rows up instead of multiplying.
    """

    def __init__(
        self, parts: Any, symbols: Any, targets: Any, kind: str, upstream: float | None, of_ends: tuple = ()
    ) -> None:
        self._symbols, self._targets = (np.ascontiguousarray(a, np.intp) for a in (symbols, targets))
        (steps, batch), dtype = symbols.shape, parts.embedding.dtype
        self._folded = symbols.size >= len(parts.embedding)
        self._back = upstream is not None
        self._parts, self._dtype = parts, dtype
        self._layers = [
            Weights(kind, arrays, None if number or not self._folded else parts.embedding)
            for number, arrays in enumerate(parts.layers)
        ]
        self._output = (packed_transposed(parts.weight), np.ascontiguousarray(parts.bias))
        self._states = [np.ascontiguousarray(state) for state in parts.states]
        self._ends = [np.empty(state.shape, dtype) for state in self._states]
        self._losses = np.empty(steps * batch, dtype)
        if upstream is None:
            return
        self._scale = dtype.type(upstream / symbols.size)
        self._d_states = [np.zeros(state.shape, dtype) for state in self._states]
        for own, given in zip(self._d_states, of_ends, strict=False):
            if given is not None:
                own[:] = given
        self._packed = packed(parts.weight)
        self._for_backward = [
            layer.for_backward(number > 0 or not self._folded) for number, layer in enumerate(self._layers)
        ]

    def run(self) -> tuple:
        """The mean loss, the states after the last step, and if they are wanted the gradients, in the order
        of the op's inputs."""
        of_shards = in_shards(self._shard, self._symbols.shape[1])
        loss = np.asarray(np.add.reduce(self._losses) / self._losses.size, self._dtype)
        if not self._back:
            return loss, self._ends, None
        gradients = of_shards[0]
        for other in of_shards[1:]:
            gradients.add(other)
        self._layers[0].finish(gradients.layers[0], gradients.table, gradients.embedding)
        for weights, own in zip(self._layers[1:], gradients.layers[1:], strict=True):
            weights.finish(own)
        outer = gradients.all()
        return loss, self._ends, [*outer[:3], *self._d_states, *outer[3:]]

    def _shard(self, first: int, last: int) -> Gradients | None:
        gradients = Gradients(self._parts, self._layers[0].table) if self._back else None
        for begin, end in parts_of(first, last):
            self._part(begin, end, gradients)
        return gradients

    def _part(self, first: int, last: int, gradients: Gradients | None) -> None:
        """The streams `first` to `last`: their losses and last states, and what they add to the gradients."""
        streams, steps = last - first, len(self._symbols)
        symbols, targets = self._symbols, self._targets
        if streams < symbols.shape[1]:
            symbols, targets = (np.ascontiguousarray(a[:, first:last]) for a in (symbols, targets))
        embedding = self._parts.embedding
        x, stack = symbols if self._folded else embedding[symbols], []
        for number, weights in enumerate(self._layers):
            states = tuple(state[number, first:last] for state in self._states)
            layer = Layer(weights, x, states, self._back)
            layer.forward(0, streams)
            for end, state in zip(self._ends, layer.last_states(), strict=True):
                end[number, first:last] = state
            x = layer.outputs
            if self._back:
                stack.append(layer)
        targets = targets.reshape(-1)
        top, losses = x.reshape(steps * streams, -1), self._losses[first * steps : last * steps]
        chunk, V, dtype = min(CHUNK, len(top)), len(self._output[1]), self._dtype
        room = np.empty((chunk, V), dtype)
        if gradients is None:
            none = nothing(1, dtype), nothing(2, dtype)
            cross_entropy(
                multiplier(dtype), top, *self._output, none[0], targets, losses, dtype.type(0), none[1],
                none[1], none[0], room, none[0], chunk,
            )  # fmt: skip
            return
        g = np.empty((steps, streams, top.shape[1]), dtype)
        cross_entropy(
            multiplier(dtype), top, *self._output, self._packed, targets, losses, self._scale,
            g.reshape(top.shape), gradients.weight, gradients.bias, room,
            packed_room(chunk, top.shape[1], dtype), chunk,
        )  # fmt: skip
        dx = g
        for number in reversed(range(len(stack))):
            if number == 0:
                size = (0, 0, 0) if self._folded else (steps, streams, embedding.shape[1])
                dx = np.empty(size, dtype)
            ends = [d[number, first:last] for d in self._d_states]
            back, own = self._for_backward[number], gradients.layers[number]
            stack.pop().backward(back, g, ends, dx, own, gradients.table, 0, streams)
        if not self._folded:
            _add_rows(dx, symbols, gradients.embedding)
