"""The kernels of sequence.py, compiled: called as those are, and done by passes.py and window.py."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from . import sequence
from .passes import Layer, Weights, in_order, nothing
from .shards import in_shards
from .window import Window


def _layer_forward(
    kind: str, x: Any, states: tuple, weights: tuple, keep: bool, rectified: bool = False
) -> tuple:
    states = tuple(np.ascontiguousarray(state) for state in states)
    layer = Layer(Weights(kind, weights), np.ascontiguousarray(x), states, keep, rectified)
    in_shards(layer.forward, x.shape[1])
    return (layer.outputs, *(state.copy() for state in layer.last_states())), layer if keep else None


def _layer_backward(layer: Layer, g: tuple, inputs: tuple, states: int, needs: tuple) -> tuple:
    x, arrays = inputs[0], inputs[1 + states :]
    w_ih, w_hh = arrays[:2]
    ends = [
        np.zeros(s.shape, s.dtype) if d is None else np.array(d, order="C")
        for d, s in zip(g[1:], inputs[1:], strict=False)
    ]
    dx = np.empty(x.shape if needs[0] else (0, 0, 0), x.dtype)
    upstream = nothing(3, x.dtype) if g[0] is None else np.ascontiguousarray(g[0])
    back = layer.weights.for_backward(needs[0])

    def backward(first: int, last: int) -> list:
        own = [np.zeros(s, x.dtype) for s in (w_ih.shape, w_hh.shape, len(w_hh), len(w_hh))]
        layer.backward(back, upstream, ends, dx, own, None, first, last)
        return own

    gradients = in_order(in_shards(backward, x.shape[1]))
    layer.weights.finish(gradients)
    return (
        dx if needs[0] else None,
        *ends,
        *(
            d if need and w is not None else None
            for d, w, need in zip(gradients, arrays, needs[1 + states :], strict=True)
        ),
    )


def rnn_forward(
    xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str
) -> tuple:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    if sequence.is_empty(x, h0):
        return sequence.rnn_forward(xp, x, h0, w_ih, w_hh, b_ih, b_hh, nonlinearity)
    return _layer_forward("rnn", x, (h0,), (w_ih, w_hh, b_ih, b_hh), True, nonlinearity == "relu")


def rnn_backward(
    xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any, nonlinearity: str
) -> tuple:
    """da = dh (1 - h^2), or dh [h > 0];  before the step: dh = W_hh^T da"""
    if sequence.is_empty(inputs[0], inputs[1]):
        return sequence.rnn_backward(xp, g, out, inputs, needs, residuals, nonlinearity)
    return _layer_backward(residuals, g, inputs, 1, needs)


def lstm_forward(
    xp: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool
) -> tuple:
    """i, f, o = sigmoid(...), g = tanh(...);  c' = f c + i g;  h' = o tanh(c')"""
    if sequence.is_empty(x, h0):
        return sequence.lstm_forward(xp, x, h0, c0, w_ih, w_hh, b_ih, b_hh, keep)
    return _layer_forward("lstm", x, (h0, c0), (w_ih, w_hh, b_ih, b_hh), keep)


def lstm_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """dc += dh o (1 - tanh(c')^2)
    da_i = dc g i (1 - i),  da_f = dc c f (1 - f),  da_g = dc i (1 - g^2),  da_o = dh tanh(c') o (1 - o)
    before the step: dh = W_hh^T da,  dc = dc f
    """
    if sequence.is_empty(inputs[0], inputs[1]):
        return sequence.lstm_backward(xp, g, out, inputs, needs, residuals)
    return _layer_backward(residuals, g, inputs, 2, needs)


def gru_forward(xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool) -> tuple:
    """r, z = sigmoid(...);  n = tanh(W_in x + b_in + r (W_hn h + b_hn));  h' = n + z (h - n)"""
    if sequence.is_empty(x, h0):
        return sequence.gru_forward(xp, x, h0, w_ih, w_hh, b_ih, b_hh, keep)
    return _layer_forward("gru", x, (h0,), (w_ih, w_hh, b_ih, b_hh), keep)


def gru_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """da_n = dh (1 - z) (1 - n^2),  da_z = dh (h - n) z (1 - z),  da_r = da_n (W_hn h + b_hn) r (1 - r)
    before the step: dh = dh z + W_hh^T (da_r, da_z, da_n r)
    """
    if sequence.is_empty(inputs[0], inputs[1]):
        return sequence.gru_backward(xp, g, out, inputs, needs, residuals)
    return _layer_backward(residuals, g, inputs, 1, needs)


def language_model_forward(xp: Any, parts: Any, symbols: Any, targets: Any, kind: str, keep: bool) -> tuple:
    """Mean cross-entropy and final states; see ../language_model.py.

    With `keep` the gradients as well, of the loss alone: what the forward pass leaves for the backward pass
    is used up while it is at hand, instead of being kept for the whole batch. So it costs as much as both.
    """
    loss, states, gradients = Window(parts, symbols, targets, kind, 1.0 if keep else None).run()
    return (loss, *states), ([gradients] if keep else None)


def language_model_backward(
    xp: Any, g: Any, parts: Any, residuals: Any, symbols: Any, targets: Any, kind: str
) -> tuple:
    """Gradients in the order of the op's inputs: those of the forward pass times the loss's own; the whole
    again, if the final states have gradients too, or these have been given away before."""
    upstream = 0.0 if g[0] is None else float(g[0])
    gradients = None
    with suppress(IndexError):
        gradients = residuals.pop()
    if any(d is not None for d in g[1:]):
        gradients = None  # and gone, before these are made
    if gradients is None:
        gradients = Window(parts, symbols, targets, kind, upstream, g[1:]).run()[2]
    elif upstream != 1:
        for gradient in gradients:
            gradient *= upstream
    return tuple(gradients)
