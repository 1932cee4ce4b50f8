"""Forward and backward passes of RNN, LSTM and GRU over a whole sequence, on raw arrays.

Each follows the same plan. Forward: a product for the inputs of all time steps, then a step at a time one
product with the recurrent weights and the point-wise part, in place, keeping the gates. Backward: the steps
in reverse (back-propagation through time), each giving `da`, the gradient before the nonlinearities; then
every weight gradient as one large product over all time steps.

Inside, a step's arrays have the features as rows and the batch as columns, (H, B) where callers see (B, H):
the gates are then contiguous blocks of rows, which the point-wise passes and the products both like best.
A sigmoid is computed as tanh(z / 2) / 2 + 1/2, with the halving put into the weights, so that a single tanh
serves all gates of a step. Only functions that NumPy and CuPy share are used.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from . import model

ONES = 2**22  # and zeros at a time in the gradient of an embedding


def is_empty(*arrays: Any) -> bool:
    """Whether there is nothing in one of these, which the other twins leave to this one."""
    return any(0 in array.shape for array in arrays)


def _columns(xp: Any, x: Any) -> Any:
    """(..., B, H) -> (..., H, B), contiguous."""
    return xp.ascontiguousarray(x.swapaxes(-1, -2))


def _inputs_product(xp: Any, x: Any, weight: Any, *biases: Any) -> Any:
    """W x + biases for all time steps: (T, B, D) -> (T, K H, B), in memory of its own."""
    product = xp.matmul(weight, x.swapaxes(1, 2))
    for bias in biases:
        if bias is not None:
            product += bias[:, None]
    return product


def _parameter_gradients(
    xp: Any,
    da_x: Any,
    da_h: Any,
    x: Any,
    h_before: Any,
    w_ih: Any,
    needs: tuple[bool, ...],
) -> tuple:
    """Gradients of x, w_ih, w_hh, b_ih, b_hh from those of the pre-activations: each is one product.

    da_x, da_h: (T, K H, B), of the input's and of the recurrent part (one array but for the GRU).
    h_before: (T, H, B), the state before each step.
    """
    need_x, need_w_ih, need_w_hh, need_b_ih, need_b_hh = needs
    flat_x = _rows(da_x)  # (K H, T B)
    flat_h = flat_x if da_h is da_x else _rows(da_h)
    return (
        xp.matmul(flat_x.T, w_ih).reshape(x.shape) if need_x else None,
        xp.matmul(flat_x, x.reshape(flat_x.shape[1], x.shape[-1])) if need_w_ih else None,
        xp.matmul(flat_h, _rows(h_before).T) if need_w_hh else None,
        flat_x.sum(axis=1) if need_b_ih else None,
        flat_h.sum(axis=1) if need_b_hh else None,
    )


def _rows(a: Any) -> Any:
    """(T, H, B) -> (H, T B)"""
    steps, rows, batch = a.shape
    return a.swapaxes(0, 1).reshape(rows, steps * batch)


def _before(xp: Any, first: Any, outputs: Any) -> Any:
    """The state before each step, (T, H, B), from the initial one (B, H) and the outputs (T, B, H)."""
    return xp.concatenate((first.T[None], outputs.swapaxes(1, 2)[:-1]))


def _start(xp: Any, g: Any, like: Any) -> Any:
    """The upstream gradient of a final state (B, H) as (H, B), zero if there is none."""
    return xp.zeros(like.shape[::-1], like.dtype) if g is None else _columns(xp, g).copy()


# --- RNN ------------------------------------------------------------------------------------------


def rnn_forward(
    xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str
) -> tuple:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    outputs = _inputs_product(xp, x, w_ih, b_ih, b_hh)  # (T, H, B), overwritten step by step
    h = _columns(xp, h0)
    product = xp.empty_like(h)
    for a in outputs:
        xp.matmul(w_hh, h, out=product)
        a += product
        if nonlinearity == "tanh":
            xp.tanh(a, out=a)
        else:
            xp.maximum(a, 0, out=a)
        h = a
    return (outputs.swapaxes(1, 2), h.T.copy()), None


def rnn_backward(
    xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any, nonlinearity: str
) -> tuple:
    """da = dh (1 - h^2), or dh [h > 0];  before the step: dh = W_hh^T da"""
    x, h0, w_ih, w_hh, _, _ = inputs
    g_outputs = None if g[0] is None else _columns(xp, g[0])
    outputs = out[0].swapaxes(1, 2)
    back = xp.ascontiguousarray(w_hh.T)
    dh = _start(xp, g[1], h0)
    da = xp.empty(outputs.shape, dh.dtype)
    for t in range(len(x) - 1, -1, -1):
        if g_outputs is not None:
            dh += g_outputs[t]
        h, d = outputs[t], da[t]
        if nonlinearity == "tanh":
            xp.subtract(1, h, out=d)
            d *= 1 + h
        else:
            xp.greater(h, 0, out=d)
        d *= dh
        xp.matmul(back, d, out=dh)
    need_x, _, *rest = needs
    dx, *weights = _parameter_gradients(xp, da, da, x, _before(xp, h0, out[0]), w_ih, (need_x, *rest))
    return (dx, dh.T, *weights)


# --- LSTM -----------------------------------------------------------------------------------------


def _halved_sigmoids(w: Any, hidden: int) -> Any:
    """Rows of the gates i, f and o halved, those of g left: see the head of this file."""
    scaled = w * 0.5
    scaled[2 * hidden : 3 * hidden] = w[2 * hidden : 3 * hidden]
    return scaled


def lstm_forward(
    xp: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool
) -> tuple:
    """i, f, o = sigmoid(...), g = tanh(...);  c' = f c + i g;  h' = o tanh(c')

    Residuals: gates (T, 4H, B) in the order i, f, g, o; cells (T+1, H, B) from c0 on; tanh of the cells
    (T, H, B).
    """
    steps, batch, _ = x.shape
    H = h0.shape[-1]
    biases = (b if b is None else _halved_sigmoids(b, H) for b in (b_ih, b_hh))
    gates = _inputs_product(xp, x, _halved_sigmoids(w_ih, H), *biases)
    recurrent = _halved_sigmoids(w_hh, H)
    outputs = xp.empty((steps, H, batch), x.dtype)
    cells = xp.empty((steps + 1 if keep else 1, H, batch), x.dtype)
    tanh_cells = xp.empty((steps if keep else 1, H, batch), x.dtype)
    cells[0] = c0.T
    h = _columns(xp, h0)
    product = xp.empty((4 * H, batch), x.dtype)
    scratch = xp.empty((H, batch), x.dtype)
    for t in range(steps):
        a, c = gates[t], cells[t if keep else 0]
        c_new, tanh_c = cells[t + 1 if keep else 0], tanh_cells[t if keep else 0]
        i, f, g, o = a[:H], a[H : 2 * H], a[2 * H : 3 * H], a[3 * H :]
        xp.matmul(recurrent, h, out=product)
        a += product
        xp.tanh(a, out=a)
        for sigmoid in (a[: 2 * H], o):
            sigmoid *= 0.5
            sigmoid += 0.5
        xp.multiply(f, c, out=c_new)
        xp.multiply(i, g, out=scratch)
        c_new += scratch
        xp.tanh(c_new, out=tanh_c)
        h = outputs[t]
        xp.multiply(o, tanh_c, out=h)
    residuals = (gates, cells, tanh_cells) if keep else None
    return (outputs.swapaxes(1, 2), h.T.copy(), cells[-1].T.copy()), residuals


def lstm_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """dc += dh o (1 - tanh(c')^2)
    da_i = dc g i (1 - i),  da_f = dc c f (1 - f),  da_g = dc i (1 - g^2),  da_o = dh tanh(c') o (1 - o)
    before the step: dh = W_hh^T da,  dc = dc f
    """
    x, h0, c0, w_ih, w_hh, _, _ = inputs
    gates, cells, tanh_cells = residuals
    H = h0.shape[-1]
    g_outputs = None if g[0] is None else _columns(xp, g[0])
    back = xp.ascontiguousarray(w_hh.T)
    dh, dc = _start(xp, g[1], h0), _start(xp, g[2], c0)
    da = xp.empty_like(gates)
    s = xp.empty_like(dh)
    for t in range(len(x) - 1, -1, -1):
        if g_outputs is not None:
            dh += g_outputs[t]
        a, d, tanh_c = gates[t], da[t], tanh_cells[t]
        i, f, g_gate, o = a[:H], a[H : 2 * H], a[2 * H : 3 * H], a[3 * H :]
        d_i, d_f, d_g, d_o = d[:H], d[H : 2 * H], d[2 * H : 3 * H], d[3 * H :]
        # The slopes of the gates: s (1 - s) of a sigmoid, (1 - g) (1 + g) of the tanh ...
        xp.subtract(1, a, out=d)
        d[: 2 * H] *= a[: 2 * H]
        d_o *= o
        xp.add(g_gate, 1, out=s)
        d_g *= s
        # ... times what reaches each gate.
        xp.multiply(dh, tanh_c, out=s)
        d_o *= s
        xp.multiply(tanh_c, tanh_c, out=s)
        xp.subtract(1, s, out=s)
        s *= o
        s *= dh
        dc += s
        xp.multiply(dc, g_gate, out=s)
        d_i *= s
        xp.multiply(dc, cells[t], out=s)
        d_f *= s
        xp.multiply(dc, i, out=s)
        d_g *= s
        dc *= f
        xp.matmul(back, d, out=dh)
    need_x, _, _, *rest = needs
    dx, *weights = _parameter_gradients(xp, da, da, x, _before(xp, h0, out[0]), w_ih, (need_x, *rest))
    return (dx, dh.T, dc.T, *weights)


# --- GRU ------------------------------------------------------------------------------------------


def gru_forward(xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool) -> tuple:
    """r, z = sigmoid(...);  n = tanh(W_in x + b_in + r (W_hn h + b_hn));  h' = n + z (h - n)

    Residuals: gates (T, 3H, B) in the order r, z, n; the products W_hn h + b_hn (T, H, B).
    """
    steps, batch, _ = x.shape
    H = h0.shape[-1]
    gates = _inputs_product(xp, x, w_ih, b_ih)
    outputs = xp.empty((steps, H, batch), x.dtype)
    hidden_products = xp.empty((steps if keep else 1, H, batch), x.dtype)
    h = _columns(xp, h0)
    product = xp.empty((3 * H, batch), x.dtype)
    scratch = xp.empty((H, batch), x.dtype)
    for t in range(steps):
        a, hn = gates[t], hidden_products[t if keep else 0]
        rz, r, z, n = a[: 2 * H], a[:H], a[H : 2 * H], a[2 * H :]
        xp.matmul(w_hh, h, out=product)
        if b_hh is not None:
            product += b_hh[:, None]
        hn[...] = product[2 * H :]
        rz += product[: 2 * H]
        rz *= 0.5
        xp.tanh(rz, out=rz)
        rz *= 0.5
        rz += 0.5
        xp.multiply(r, hn, out=scratch)
        n += scratch
        xp.tanh(n, out=n)
        h_new = outputs[t]
        xp.subtract(h, n, out=h_new)
        h_new *= z
        h_new += n
        h = h_new
    residuals = (gates, hidden_products) if keep else None
    return (outputs.swapaxes(1, 2), h.T.copy()), residuals


def gru_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """da_n = dh (1 - z) (1 - n^2),  da_z = dh (h - n) z (1 - z),  da_r = da_n (W_hn h + b_hn) r (1 - r)
    before the step: dh = dh z + W_hh^T (da_r, da_z, da_n r)
    """
    x, h0, w_ih, w_hh, _, _ = inputs
    gates, hidden_products = residuals
    H = h0.shape[-1]
    g_outputs = None if g[0] is None else _columns(xp, g[0])
    back = xp.ascontiguousarray(w_hh.T)
    before = _before(xp, h0, out[0])
    dh = _start(xp, g[1], h0)
    da_x, da_h = xp.empty_like(gates), xp.empty_like(gates)
    product, s = xp.empty_like(dh), xp.empty_like(dh)
    for t in range(len(x) - 1, -1, -1):
        if g_outputs is not None:
            dh += g_outputs[t]
        a, d, d_recurrent = gates[t], da_x[t], da_h[t]
        r, z, n = a[:H], a[H : 2 * H], a[2 * H :]
        d_r, d_z, d_n = d[:H], d[H : 2 * H], d[2 * H :]
        # The slopes of the gates ...
        xp.subtract(1, a, out=d)
        xp.multiply(dh, d_z, out=s)  # dh (1 - z)
        d[: 2 * H] *= a[: 2 * H]
        # ... times what reaches each gate.
        d_n *= s
        xp.add(n, 1, out=s)
        d_n *= s
        xp.subtract(before[t], n, out=s)
        s *= dh
        d_z *= s
        xp.multiply(d_n, hidden_products[t], out=s)
        d_r *= s
        d_recurrent[: 2 * H] = d[: 2 * H]
        xp.multiply(d_n, r, out=d_recurrent[2 * H :])
        xp.matmul(back, d_recurrent, out=product)
        dh *= z
        dh += product
    need_x, _, *rest = needs
    dx, *weights = _parameter_gradients(xp, da_x, da_h, x, before, w_ih, (need_x, *rest))
    return (dx, dh.T, *weights)


# --- a whole language model -----------------------------------------------------------------------


def cross_entropy(xp: Any, scores: Any, targets: Any, keep: bool) -> Any:
    """Losses (T, B) in nats of the scores (T, B, V), which become softmax - one_hot,
    if these are to be kept."""
    scores -= scores.max(axis=-1, keepdims=True)
    losses = -xp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    xp.exp(scores, out=scores)
    total = scores.sum(axis=-1)
    losses += xp.log(total)
    if keep:
        scores /= total[..., None]
        scores -= targets[..., None] == xp.arange(scores.shape[-1])
    return losses


def table_gradient(xp: Any, symbols: Any, dx: Any, rows: int) -> Any:
    """Row s is the sum of dx (N, E) where symbols (N,) are s. As a product with ones and zeros, which adds in
    the same order every time, on a GPU too; a block of rows at a time, so that these stay few."""
    found = xp.empty((rows, dx.shape[1]), dx.dtype)
    block = max(ONES // len(symbols), 1)
    for start in range(0, rows, block):
        these = xp.arange(start, min(start + block, rows))
        xp.matmul((these[:, None] == symbols).astype(dx.dtype), dx, out=found[start : start + block])
    return found


language_model_forward = functools.partial(model.forward, sys.modules[__name__])
language_model_backward = functools.partial(model.backward, sys.modules[__name__])
