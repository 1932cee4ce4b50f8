"""Recurrent networks: the textbook equations, and each as one op over a whole sequence.

The equations come first. They are the definition: what the cells of `nn` compute step by step, what
higher derivatives differentiate, and what anomaly detection replays. Below them each sequence is entered in
the op table as a single op whose forward and backward passes are the kernels of fused/sequence.py.

Names, shapes and gate order are PyTorch's, so that weights travel both ways. Sequences are (T, B, D): time
steps, batch, features. A state is (B, H). weight_ih is (K H, D), weight_hh (K H, H), biases (K H,) or None,
with K = 1 for the RNN, 4 for the LSTM (gates i, f, g, o), 3 for the GRU (r, z, n).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import ShapeError
from ..annotate import named, time_step
from ..op import op
from .fused import kernels_for, sequence

# --- the equations --------------------------------------------------------------------------------


def linear(F: Any, x: Any, weight: Any, bias: Any) -> Any:
    """x W^T + b"""
    product = F.matmul(x, F.transpose(weight, axes=None))
    return product if bias is None else product + bias


def rnn_cell(
    F: Any, x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str = "tanh"
) -> Any:
    """One step of the simple recurrent network (Elman, 1990).

    h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu in place of tanh
    """
    z = linear(F, x, w_ih, b_ih) + linear(F, h, w_hh, b_hh)
    return named("hidden state", F.tanh(z) if nonlinearity == "tanh" else F.relu(z))


def lstm_cell(F: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> tuple[Any, Any]:
    """One step of long short-term memory (Hochreiter & Schmidhuber, 1997; forget gate: Gers et al., 2000).

    i, f, o = sigmoid(...), g = tanh(...) of W_ih x + b_ih + W_hh h + b_hh
    c' = f c + i g
    h' = o tanh(c')
    """
    gates = linear(F, x, w_ih, b_ih) + linear(F, h, w_hh, b_hh)
    i, f, g, o = F.split(gates, indices_or_sections=4, axis=-1)
    i = named("input gate", F.sigmoid(i))
    f = named("forget gate", F.sigmoid(f))
    g = named("cell candidate", F.tanh(g))
    o = named("output gate", F.sigmoid(o))
    c = named("cell state", f * c + i * g)
    h = named("hidden state", o * F.tanh(c))
    return h, c


def gru_cell(F: Any, x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
    """One step of the gated recurrent unit (Cho et al., 2014), reset gate after the product as in cuDNN.

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n = tanh(W_in x + b_in + r (W_hn h + b_hn))
    h' = (1 - z) n + z h
    """
    xr, xz, xn = F.split(linear(F, x, w_ih, b_ih), indices_or_sections=3, axis=-1)
    hr, hz, hn = F.split(linear(F, h, w_hh, b_hh), indices_or_sections=3, axis=-1)
    r = named("reset gate", F.sigmoid(xr + hr))
    z = named("update gate", F.sigmoid(xz + hz))
    n = named("candidate", F.tanh(xn + r * hn))
    return named("hidden state", (1 - z) * n + z * h)


# --- over a sequence, step by step ----------------------------------------------------------------


def rnn_steps(
    F: Any, x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str = "tanh"
) -> tuple[Any, Any]:
    """rnn_cell at every time step."""
    outputs = []
    for t in range(x.shape[0]):
        with time_step(t):
            h = rnn_cell(F, x[t], h, w_ih, w_hh, b_ih, b_hh, nonlinearity)
        outputs.append(h)
    return F.stack(outputs, axis=0), h


def lstm_steps(
    F: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any
) -> tuple[Any, Any, Any]:
    """lstm_cell at every time step."""
    outputs = []
    for t in range(x.shape[0]):
        with time_step(t):
            h, c = lstm_cell(F, x[t], h, c, w_ih, w_hh, b_ih, b_hh)
        outputs.append(h)
    return F.stack(outputs, axis=0), h, c


def gru_steps(F: Any, x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> tuple[Any, Any]:
    """gru_cell at every time step."""
    outputs = []
    for t in range(x.shape[0]):
        with time_step(t):
            h = gru_cell(F, x[t], h, w_ih, w_hh, b_ih, b_hh)
        outputs.append(h)
    return F.stack(outputs, axis=0), h


# --- over a sequence, as one op -------------------------------------------------------------------


def _forward(kind: str, xp: Any, *inputs: Any, **options: Any) -> Any:
    """By the kernels for these arrays. They are part of the residuals: what they kept only they can read."""
    kernels = kernels_for(xp, inputs[0].dtype)
    outputs, residuals = getattr(kernels, f"{kind}_forward")(xp, *inputs, **options)
    return outputs, (kernels, residuals)


def _sequence_vjp(kind: str) -> Callable:
    """A kernel's backward pass as a joint VJP. (Higher derivatives never come here: they go through the
    equations, because the gates that a kernel saved are functions of its inputs.)"""

    def vjp(F: Any, g: Any, out: Any, *inputs: Any, needs: Any, residuals: Any, **params: Any) -> tuple:
        kernels, kept = residuals
        return getattr(kernels, f"{kind}_backward")(F.backend.xp, g, out, inputs, needs, kept, **params)

    vjp.__name__ = vjp.__qualname__ = f"{kind}_backward"
    vjp.__wrapped__ = getattr(sequence, f"{kind}_backward")  # type: ignore[attr-defined] # what derivative() shows
    return vjp


_traits: dict[str, Any] = {"saves": "* out", "has_residuals": True, "promotes": True, "gives_away": True}


@op(inputs=6, joint=_sequence_vjp("rnn"), reference=rnn_steps, name="rnn", **_traits)
def rnn(
    xp: Any,
    x: Any,
    h0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    nonlinearity: str = "tanh",
    keep: bool = True,
) -> Any:
    """The simple RNN over a sequence: (outputs (T, B, H), last h (B, H)). See rnn_cell."""
    if nonlinearity not in ("tanh", "relu"):
        raise ShapeError(f"rnn: the nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
    _check_shapes("rnn", 1, x, (h0,), w_ih, w_hh, b_ih, b_hh)
    return _forward("rnn", xp, x, h0, w_ih, w_hh, b_ih, b_hh, nonlinearity=nonlinearity)


@op(inputs=7, joint=_sequence_vjp("lstm"), reference=lstm_steps, name="lstm", **_traits)
def lstm(
    xp: Any,
    x: Any,
    h0: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    keep: bool = True,
) -> Any:
    """The LSTM over a sequence: (outputs (T, B, H), last h (B, H), last c (B, H)). See lstm_cell."""
    _check_shapes("lstm", 4, x, (h0, c0), w_ih, w_hh, b_ih, b_hh)
    return _forward("lstm", xp, x, h0, c0, w_ih, w_hh, b_ih, b_hh, keep=keep)


@op(inputs=6, joint=_sequence_vjp("gru"), reference=gru_steps, name="gru", **_traits)
def gru(xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool = True) -> Any:
    """The GRU over a sequence: (outputs (T, B, H), last h (B, H)). See gru_cell."""
    _check_shapes("gru", 3, x, (h0,), w_ih, w_hh, b_ih, b_hh)
    return _forward("gru", xp, x, h0, w_ih, w_hh, b_ih, b_hh, keep=keep)


def _check_shapes(
    name: str, gates: int, x: Any, states: tuple, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any
) -> None:
    if x.ndim != 3 or x.shape[0] < 1:
        raise ShapeError(f"{name}: x must be (T, B, D) with T at least 1, not of shape {x.shape}")
    _, batch, features = x.shape
    hidden = w_hh.shape[-1]
    expected = [
        *((f"state {i}", s, (batch, hidden)) for i, s in enumerate(states)),
        ("weight_ih", w_ih, (gates * hidden, features)),
        ("weight_hh", w_hh, (gates * hidden, hidden)),
        ("bias_ih", b_ih, (gates * hidden,)),
        ("bias_hh", b_hh, (gates * hidden,)),
    ]
    for what, array, shape in expected:
        if array is not None and array.shape != shape:
            raise ShapeError(
                f"{name}: {what} has shape {array.shape}; x of shape {x.shape} and hidden size {hidden} "
                f"need {shape}"
            )
