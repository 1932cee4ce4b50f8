"""Recurrent cells, one step at a time, and stacks of recurrent layers over whole sequences.

The equations are in engine/ops/recurrent.py. A cell computes them as ordinary ops; a stack runs each layer
as one fused op, or step by step by the same equations if `fused` is set to False. Names, shapes and gate
order of the parameters are PyTorch's.
"""

from __future__ import annotations

import math
from typing import Any

from ..engine.annotate import module_scope, scope
from ..engine.op import TENSOR_OPS
from ..engine.ops import recurrent as equations
from ..engine.ops.elementwise import dropout as drop
from ..engine.ops.shape import stack
from ..engine.tensor import Tensor
from ..errors import ShapeError
from .layers import uniform
from .module import Module


def _zero_state(x: Tensor, *shape: int) -> Tensor:
    return Tensor(x.backend.xp.zeros(shape, x.dtype), None, 0, x.backend)


def _checked(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ShapeError(f"the nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
    return nonlinearity


class _Cell(Module):
    gates: int

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        self.input_size, self.hidden_size = input_size, hidden_size
        bound = 1 / math.sqrt(hidden_size)
        rows = self.gates * hidden_size
        self.weight_ih = uniform(bound, rows, input_size)
        self.weight_hh = uniform(bound, rows, hidden_size)
        self.bias_ih = uniform(bound, rows) if bias else None
        self.bias_hh = uniform(bound, rows) if bias else None

    def _weights(self) -> tuple[Any, Any, Any, Any]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _describe(self) -> str:
        return f"{self.input_size} -> {self.hidden_size}"


class RNNCell(_Cell):
    """One step of the simple RNN: x (B, D), h (B, H) -> h' (B, H). h is zero unless given."""

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = _checked(nonlinearity)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        h = _zero_state(x, x.shape[0], self.hidden_size) if h is None else h
        return equations.rnn_cell(TENSOR_OPS, x, h, *self._weights(), nonlinearity=self.nonlinearity)


class LSTMCell(_Cell):
    """One step of the LSTM: x (B, D), state (h, c) of (B, H) each -> (h', c')."""

    gates = 4

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        zero = _zero_state(x, x.shape[0], self.hidden_size)
        h, c = (zero, zero) if state is None else state
        return equations.lstm_cell(TENSOR_OPS, x, h, c, *self._weights())


class GRUCell(_Cell):
    """One step of the GRU: x (B, D), h (B, H) -> h' (B, H)."""

    gates = 3

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        h = _zero_state(x, x.shape[0], self.hidden_size) if h is None else h
        return equations.gru_cell(TENSOR_OPS, x, h, *self._weights())


class Stack(Module):
    """Layers of one kind, each reading the outputs of the one below.

    x (T, B, input_size), or (B, T, input_size) with batch_first -> outputs of the last layer, of shape
    (T, B, hidden_size) or with the first two axes exchanged, and the state after the last time step:
    (num_layers, B, hidden_size). The state is zero at the start unless given.

    dropout: probability, applied in training to the outputs of every layer but the last.
    variational: that dropout zeroes the same features in all time steps of a call (see nn.Dropout).
    weight_dropout: probability, applied in training to the elements of every weight_hh, once a call and so
        the same in all time steps (Merity et al., 2018, "Regularizing and optimizing LSTM language models").
    fused: False computes the equations step by step, every gate a node of the graph.
    """

    gates: int
    states = 1  # how many tensors make up a state
    fused = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        weight_dropout: float = 0.0,
    ) -> None:
        if min(input_size, hidden_size, num_layers) < 1:
            raise ShapeError(
                f"{type(self).__name__}: sizes must be at least 1, not input_size={input_size}, "
                f"hidden_size={hidden_size}, num_layers={num_layers}"
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first = bias, batch_first
        self.dropout, self.variational, self.weight_dropout = dropout, variational, weight_dropout
        bound = 1 / math.sqrt(hidden_size)
        rows = self.gates * hidden_size
        for layer in range(num_layers):
            features = input_size if layer == 0 else hidden_size
            setattr(self, f"weight_ih_l{layer}", uniform(bound, rows, features))
            setattr(self, f"weight_hh_l{layer}", uniform(bound, rows, hidden_size))
            if bias:
                setattr(self, f"bias_ih_l{layer}", uniform(bound, rows))
                setattr(self, f"bias_hh_l{layer}", uniform(bound, rows))

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        if x.ndim != 3 or x.shape[2] != self.input_size:
            order = "(B, T, D)" if self.batch_first else "(T, B, D)"
            raise ShapeError(
                f"{type(self).__name__}: x must be {order} with D = {self.input_size}, not of shape {x.shape}"
            )
        if self.batch_first:
            x = x.swapaxes(0, 1)
        starts = self._starts(x, state)
        ends: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer:
                x = drop(x, self.dropout, self.training, shared_axis=0 if self.variational else None)
            with module_scope(f"{scope.module}.l{layer}"):
                x, *end = self._layer(x, *(s[layer] for s in starts), *self._weights(layer))
            ends.append(tuple(end))
        state = tuple(stack([end[i] for end in ends]) for i in range(self.states))
        outputs = x.swapaxes(0, 1) if self.batch_first else x
        return outputs, state if self.states > 1 else state[0]

    def _starts(self, x: Tensor, state: Any) -> tuple[Tensor, ...]:
        shape = (self.num_layers, x.shape[1], self.hidden_size)
        if state is None:
            return (_zero_state(x, *shape),) * self.states
        given = tuple(state) if self.states > 1 else (state,)
        if len(given) != self.states or any(s.shape != shape for s in given):
            raise ShapeError(
                f"{type(self).__name__}: the state must be {self.states} of shape {shape} "
                f"(num_layers, B, H), not {[s.shape for s in given]}"
            )
        return given

    def _weights(self, layer: int) -> tuple:
        w_ih, w_hh = (getattr(self, f"weight_{which}_l{layer}") for which in ("ih", "hh"))
        biases = (getattr(self, f"bias_{which}_l{layer}", None) for which in ("ih", "hh"))
        return w_ih, drop(w_hh, self.weight_dropout, self.training), *biases

    def _layer(self, *inputs: Any) -> tuple:
        kind = type(self).__name__.lower()
        if self.fused:
            return getattr(equations, kind)(*inputs, **self._options())
        return getattr(equations, f"{kind}_steps")(TENSOR_OPS, *inputs, **self._options())

    def _options(self) -> dict[str, Any]:
        return {}

    def _describe(self) -> str:
        layers = f", {self.num_layers} layers" if self.num_layers > 1 else ""
        return f"{self.input_size} -> {self.hidden_size}{layers}"


class RNN(Stack):
    """Simple recurrent layers: (outputs, h) = rnn(x, h). See Stack for shapes."""

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        weight_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, variational, weight_dropout
        )
        self.nonlinearity = _checked(nonlinearity)

    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}


class LSTM(Stack):
    """LSTM layers: (outputs, (h, c)) = lstm(x, (h, c)). See Stack for shapes."""

    gates = 4
    states = 2


class GRU(Stack):
    """GRU layers: (outputs, h) = gru(x, h). See Stack for shapes."""

    gates = 3
