"""The kernels of sequence.py, compiled: the same plan and formulas, with the point-wise passes as Numba loops.

One call is a whole sequence. Inside, nothing is allocated and Python is not asked: a step calls NumPy's own
BLAS library for its products (see jit.py), then passes over its gates while they are in the cache. The layout
is that of sequence.py, features as rows and batch as columns, so that a gate of a step is one contiguous block
and a pass over it one flat loop, which the compiler turns into vector instructions. A pass writes to two
arrays at most: with more the compiler can no longer tell that they do not overlap.

Backward, the gradient of a weight is a product over many time steps: those of a chunk are laid side by side,
(features, chunk B), which also bounds the memory.

Arrays are flat here: a row of `gates` (T, K H B) is what sequence.py has as (K H, B).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ...blas import routines
from . import sequence
from .jit import INLINED, add_outer, add_sums, compiled, inlined, lay_down, product, product_transposed

CHUNK = 512  # columns of the products over a chunk of time steps, about


# --- a gate ---------------------------------------------------------------------------------------


def tanh_of(x: Any) -> Any:
    """tanh(x); of a float32 within 3 units in the last place."""
    raise NotImplementedError("for compiled code")


@overload(tanh_of, jit_options=INLINED)
def _tanh_of(x):
    if x == types.float64:
        return lambda x: math.tanh(x)

    # A rational function, near enough everywhere, that the compiler can vectorise; beyond the limit tanh
    # rounds to 1. Coefficients: Eigen, generic_fast_tanh_float. A NaN passes both comparisons.
    f = np.float32
    limit, tiny = f(7.90531110763549805), f(0.0004)
    a1, a3, a5 = f(4.89352455891786e-03), f(6.37261928875436e-04), f(1.48572235717979e-05)
    a7, a9 = f(5.12229709037114e-08), f(-8.60467152213735e-11)
    a11, a13 = f(2.00018790482477e-13), f(-2.76076847742355e-16)
    b0, b2 = f(4.89352518554385e-03), f(2.26843463243900e-03)
    b4, b6 = f(1.18534705686654e-04), f(1.19825839466702e-06)

    def rational(x):
        y = limit if x > limit else x
        y = -limit if y < -limit else y
        s = y * y
        above = y * ((((((a13 * s + a11) * s + a9) * s + a7) * s + a5) * s + a3) * s + a1)
        below = ((b6 * s + b4) * s + b2) * s + b0
        return x if abs(x) < tiny else above / below

    return rational


@inlined
def tanh_all(a):
    for n in range(a.size):
        a[n] = tanh_of(a[n])


@inlined
def sigmoid_all(a):
    """sigmoid(z) = tanh(z / 2) / 2 + 1/2"""
    half = a.dtype.type(0.5)
    for n in range(a.size):
        a[n] = half * tanh_of(half * a[n]) + half


# --- what the kinds share -------------------------------------------------------------------------


@inlined
def fill(a, bias, batch):
    """Every row of a (K H, B) its bias."""
    for j in range(bias.size):
        for b in range(j * batch, (j + 1) * batch):
            a[b] = bias[j]


@inlined
def add_to(a, b):
    for n in range(a.size):
        a[n] += b[n]


@inlined
def add_weight_gradients(blas, da, before, dw, ones, db, rows, features, columns, batch, stride):
    """dw (rows, features) += da before^T, db += the sums of da, over the time steps of a chunk."""
    add_outer(blas, da, before, dw, rows, columns, features, batch, stride)
    add_sums(blas, da, ones, db, rows, columns, batch, stride)


# --- RNN ------------------------------------------------------------------------------------------


@compiled
def _rnn_forward(blas, x, w_ih, w_hh, bias, h0, outputs, rectified, B):
    H = bias.size
    for t in range(len(outputs)):
        a = outputs[t]
        fill(a, bias, B)
        product(blas, w_ih, x[t], a, H, w_ih.size // H, B, 1)
        product(blas, w_hh, h0 if t == 0 else outputs[t - 1], a, H, H, B, 1)
        if rectified:
            for n in range(a.size):
                a[n] = a[n] if not a[n] <= 0 else a.dtype.type(0)
        else:
            tanh_all(a)


@compiled
def _rnn_backward(
    blas, g, dh, x, w_ih, w_hh, h0, outputs, rectified, dx, dw_ih, dw_hh, db, da, da_s, x_s, h_s, ones, B
):
    H, D, one = dh.size // B, w_ih.size * B // dh.size, dh.dtype.type(1)
    stride = da_s.size // H
    last = len(x) - 1
    for t in range(last, -1, -1):
        if len(g):
            add_to(dh, g[t])
        h, place = outputs[t], t * B % stride
        before = h0 if t == 0 else outputs[t - 1]
        if rectified:
            for n in range(dh.size):
                da[n] = dh[n] if h[n] > 0 else dh[n] * 0
        else:
            for n in range(dh.size):
                da[n] = dh[n] * (one - h[n]) * (one + h[n])
        product_transposed(blas, w_hh, da, dh, H, H, B)
        if len(dx):
            product_transposed(blas, w_ih, da, dx[t], D, H, B)
        lay_down(da, da_s, place, B, stride)
        lay_down(before, h_s, place, B, stride)
        lay_down(x[t], x_s, place, B, stride)
        if place == 0:
            columns = min(stride, (last + 1 - t) * B)
            add_weight_gradients(blas, da_s, h_s, dw_hh, ones, db, H, H, columns, B, stride)
            add_outer(blas, da_s, x_s, dw_ih, H, columns, D, B, stride)


# --- LSTM -----------------------------------------------------------------------------------------


@compiled
def _lstm_forward(blas, x, w_ih, w_hh, bias, h0, gates, cells, outputs, B):
    """gates (T, 4 H B) and cells (T + 1, H B), or one row each if nobody will look back."""
    H = bias.size // 4
    n = H * B
    for t in range(len(outputs)):
        a = gates[min(t, len(gates) - 1)]
        c, c_new = cells[min(t, len(cells) - 1)], cells[min(t + 1, len(cells) - 1)]
        h = outputs[t]
        fill(a, bias, B)
        product(blas, w_ih, x[t], a, 4 * H, w_ih.size // (4 * H), B, 1)
        product(blas, w_hh, h0 if t == 0 else outputs[t - 1], a, 4 * H, H, B, 1)
        i, f, g, o = a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n :]
        sigmoid_all(a[: 2 * n])
        tanh_all(g)
        sigmoid_all(o)
        for k in range(n):
            c_new[k] = f[k] * c[k] + i[k] * g[k]
        for k in range(n):
            h[k] = o[k] * tanh_of(c_new[k])


@compiled
def _lstm_backward(
    blas, g, dh, dc, x, w_ih, w_hh, h0, gates, cells, outputs, dx, dw_ih, dw_hh, db, da, da_s, x_s, h_s, ones, B
):
    H = dh.size // B
    K = 4 * H
    n, D, one = H * B, w_ih.size // K, dh.dtype.type(1)
    stride = da_s.size // K
    last = len(x) - 1
    d_i, d_f, d_g, d_o = da[:n], da[n : 2 * n], da[2 * n : 3 * n], da[3 * n :]
    for t in range(last, -1, -1):
        if len(g):
            add_to(dh, g[t])
        a, c, c_new, place = gates[t], cells[t], cells[t + 1], t * B % stride
        i, f, g_gate, o = a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n :]
        before = h0 if t == 0 else outputs[t - 1]
        for k in range(n):
            tanh_c = tanh_of(c_new[k])
            d_o[k] = dh[k] * tanh_c * o[k] * (one - o[k])
            dc[k] += dh[k] * o[k] * (one - tanh_c) * (one + tanh_c)
        for k in range(n):
            d_i[k] = dc[k] * g_gate[k] * i[k] * (one - i[k])
            d_g[k] = dc[k] * i[k] * (one - g_gate[k]) * (one + g_gate[k])
        for k in range(n):
            d_f[k] = dc[k] * c[k] * f[k] * (one - f[k])
            dc[k] = dc[k] * f[k]
        product_transposed(blas, w_hh, da, dh, H, K, B)
        if len(dx):
            product_transposed(blas, w_ih, da, dx[t], D, K, B)
        lay_down(da, da_s, place, B, stride)
        lay_down(before, h_s, place, B, stride)
        lay_down(x[t], x_s, place, B, stride)
        if place == 0:
            columns = min(stride, (last + 1 - t) * B)
            add_weight_gradients(blas, da_s, h_s, dw_hh, ones, db, K, H, columns, B, stride)
            add_outer(blas, da_s, x_s, dw_ih, K, columns, D, B, stride)


# --- GRU ------------------------------------------------------------------------------------------


@compiled
def _gru_forward(blas, x, w_ih, w_hh, b_ih, b_hh, h0, gates, hidden, outputs, scratch, B):
    """gates (T, 3 H B) and hidden (T, H B), the products W_hn h + b_hn, or one row each."""
    H = b_ih.size // 3
    n = H * B
    for t in range(len(outputs)):
        a, hn = gates[min(t, len(gates) - 1)], hidden[min(t, len(hidden) - 1)]
        h, h_new = h0 if t == 0 else outputs[t - 1], outputs[t]
        fill(a, b_ih, B)
        product(blas, w_ih, x[t], a, 3 * H, w_ih.size // (3 * H), B, 1)
        fill(scratch, b_hh, B)
        product(blas, w_hh, h, scratch, 3 * H, H, B, 1)
        r, z, candidate, part = a[:n], a[n : 2 * n], a[2 * n :], scratch[2 * n :]
        add_to(a[: 2 * n], scratch[: 2 * n])
        sigmoid_all(a[: 2 * n])
        for k in range(n):
            hn[k] = part[k]
            candidate[k] = tanh_of(candidate[k] + r[k] * part[k])
        for k in range(n):
            h_new[k] = candidate[k] + z[k] * (h[k] - candidate[k])


@compiled
def _gru_backward(
    blas, g, dh, x, w_ih, w_hh, h0, gates, hidden, outputs, dx, dw_ih, dw_hh, db_ih, db_hh,
    da, da_h, da_s, da_h_s, x_s, h_s, ones, B,
):  # fmt: skip
    H = dh.size // B
    K = 3 * H
    n, D, one = H * B, w_ih.size // K, dh.dtype.type(1)
    stride = da_s.size // K
    last = len(x) - 1
    d_r, d_z, d_n, d_hn = da[:n], da[n : 2 * n], da[2 * n :], da_h[2 * n :]
    through = np.empty_like(dh)
    for t in range(last, -1, -1):
        if len(g):
            add_to(dh, g[t])
        a, hn, place = gates[t], hidden[t], t * B % stride
        r, z, candidate = a[:n], a[n : 2 * n], a[2 * n :]
        h = h0 if t == 0 else outputs[t - 1]
        for k in range(n):
            d_n[k] = dh[k] * (one - z[k]) * (one - candidate[k]) * (one + candidate[k])
            d_hn[k] = d_n[k] * r[k]
        for k in range(n):
            d_z[k] = dh[k] * (h[k] - candidate[k]) * z[k] * (one - z[k])
            through[k] = dh[k] * z[k]
        for k in range(n):
            d_r[k] = d_n[k] * hn[k] * r[k] * (one - r[k])
        for k in range(2 * n):
            da_h[k] = da[k]
        product_transposed(blas, w_hh, da_h, dh, H, K, B)
        add_to(dh, through)
        if len(dx):
            product_transposed(blas, w_ih, da, dx[t], D, K, B)
        lay_down(da, da_s, place, B, stride)
        lay_down(da_h, da_h_s, place, B, stride)
        lay_down(h, h_s, place, B, stride)
        lay_down(x[t], x_s, place, B, stride)
        if place == 0:
            columns = min(stride, (last + 1 - t) * B)
            add_weight_gradients(blas, da_h_s, h_s, dw_hh, ones, db_hh, K, H, columns, B, stride)
            add_weight_gradients(blas, da_s, x_s, dw_ih, ones, db_ih, K, D, columns, B, stride)


# --- called as those of sequence.py are -----------------------------------------------------------


def _blas(dtype: Any) -> tuple[int, int]:
    found = routines()
    assert found is not None
    return found.gemm[dtype.name], found.gemv[dtype.name]


def _flat(x: Any) -> Any:
    """(T, B, H) -> (T, H B), features as rows; (B, H) -> (H B,). Without a copy where it lies so already."""
    rows = np.ascontiguousarray(x.swapaxes(-1, -2))
    return rows.reshape(*rows.shape[:-2], -1)


def _line(weight: Any) -> Any:
    """A weight's numbers in rows, as a flat array."""
    return np.ascontiguousarray(weight).reshape(-1)


def _seen(rows: Any, batch: int) -> Any:
    """(T, H B) -> (T, B, H), or (H B,) -> (B, H), as callers see it."""
    return rows.reshape(*rows.shape[:-1], -1, batch).swapaxes(-1, -2)


def _bias(rows: int, dtype: Any, *biases: Any) -> Any:
    total = np.zeros(rows, dtype)
    for bias in biases:
        if bias is not None:
            total += bias
    return total


def _empty(x: Any, *others: Any) -> bool:
    """Sizes of 0 are left to the twin."""
    return 0 in x.shape or any(0 in other.shape for other in others)


class _Backward:
    """What the backward passes of all kinds begin with and end in: the buffers for gradients."""

    def __init__(self, g: Any, inputs: Any, states: int, rows: int, needs: Any) -> None:
        x, w_ih, w_hh = inputs[0], inputs[1 + states], inputs[2 + states]
        steps, self.batch, _ = x.shape
        dtype = x.dtype
        hidden = w_hh.shape[1]
        self.x, self.w_ih, self.w_hh = _flat(x), _line(w_ih), _line(w_hh)
        self.h0 = _flat(inputs[1])
        self.g = np.empty((0, 0), dtype) if g[0] is None else _flat(g[0])
        self.starts = [
            np.zeros(hidden * self.batch, dtype) if each is None else _flat(each).copy()
            for each in g[1 : 1 + states]
        ]
        stride = min(max(CHUNK // self.batch, 1), steps) * self.batch
        self.dx = np.empty(self.x.shape if needs[0] else (0, 0), dtype)
        self.dw_ih, self.dw_hh = np.zeros(w_ih.size, dtype), np.zeros(w_hh.size, dtype)
        self.db = np.zeros(rows, dtype)
        self.ones = np.ones(stride, dtype)
        self.da, self.da_side = np.empty(rows * self.batch, dtype), np.empty(rows * stride, dtype)
        self.x_side, self.h_side = np.empty(x.shape[2] * stride, dtype), np.empty(hidden * stride, dtype)

    def gradients(self, inputs: Any, needs: Any, db_hh: Any = None) -> tuple:
        states = len(self.starts)
        w_ih, w_hh = inputs[1 + states], inputs[2 + states]
        need_w_ih, need_w_hh, need_b_ih, need_b_hh = needs[1 + states :]
        return (
            _seen(self.dx, self.batch) if needs[0] else None,
            *(_seen(d, self.batch) for d in self.starts),
            self.dw_ih.reshape(w_ih.shape) if need_w_ih else None,
            self.dw_hh.reshape(w_hh.shape) if need_w_hh else None,
            self.db if need_b_ih else None,
            (self.db.copy() if db_hh is None else db_hh) if need_b_hh else None,
        )


def rnn_forward(
    xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str
) -> tuple:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    if _empty(x, h0):
        return sequence.rnn_forward(xp, x, h0, w_ih, w_hh, b_ih, b_hh, nonlinearity)
    steps, batch, _ = x.shape
    outputs = np.empty((steps, h0.size), x.dtype)
    _rnn_forward(
        _blas(x.dtype), _flat(x), _line(w_ih), _line(w_hh), _bias(len(w_hh), x.dtype, b_ih, b_hh), _flat(h0),
        outputs, nonlinearity == "relu", batch,
    )  # fmt: skip
    return (_seen(outputs, batch), _seen(outputs[-1], batch).copy()), None


def rnn_backward(
    xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any, nonlinearity: str
) -> tuple:
    """da = dh (1 - h^2), or dh [h > 0];  before the step: dh = W_hh^T da"""
    if _empty(inputs[0], inputs[1]):
        return sequence.rnn_backward(xp, g, out, inputs, needs, residuals, nonlinearity)
    b = _Backward(g, inputs, 1, len(inputs[3]), needs)
    _rnn_backward(
        _blas(b.x.dtype), b.g, *b.starts, b.x, b.w_ih, b.w_hh, b.h0, _flat(out[0]), nonlinearity == "relu",
        b.dx, b.dw_ih, b.dw_hh, b.db, b.da, b.da_side, b.x_side, b.h_side, b.ones, b.batch,
    )  # fmt: skip
    return b.gradients(inputs, needs)


def lstm_forward(
    xp: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool
) -> tuple:
    """i, f, o = sigmoid(...), g = tanh(...);  c' = f c + i g;  h' = o tanh(c')

    Residuals: gates (T, 4 H B) in the order i, f, g, o, and cells (T + 1, H B) from c0 on.
    """
    if _empty(x, h0):
        return sequence.lstm_forward(xp, x, h0, c0, w_ih, w_hh, b_ih, b_hh, keep)
    steps, batch, _ = x.shape
    gates = np.empty((steps if keep else 1, 4 * h0.size), x.dtype)
    cells = np.empty((steps + 1 if keep else 1, h0.size), x.dtype)
    outputs = np.empty((steps, h0.size), x.dtype)
    cells[0] = _flat(c0)
    _lstm_forward(
        _blas(x.dtype), _flat(x), _line(w_ih), _line(w_hh), _bias(len(w_hh), x.dtype, b_ih, b_hh), _flat(h0),
        gates, cells, outputs, batch,
    )  # fmt: skip
    ends = _seen(outputs[-1], batch).copy(), _seen(cells[-1], batch).copy()
    return (_seen(outputs, batch), *ends), ((gates, cells) if keep else None)


def lstm_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """dc += dh o (1 - tanh(c')^2)
    da_i = dc g i (1 - i),  da_f = dc c f (1 - f),  da_g = dc i (1 - g^2),  da_o = dh tanh(c') o (1 - o)
    before the step: dh = W_hh^T da,  dc = dc f
    """
    if _empty(inputs[0], inputs[1]):
        return sequence.lstm_backward(xp, g, out, inputs, needs, residuals)
    b = _Backward(g, inputs, 2, len(inputs[4]), needs)
    _lstm_backward(
        _blas(b.x.dtype), b.g, *b.starts, b.x, b.w_ih, b.w_hh, b.h0, *residuals, _flat(out[0]),
        b.dx, b.dw_ih, b.dw_hh, b.db, b.da, b.da_side, b.x_side, b.h_side, b.ones, b.batch,
    )  # fmt: skip
    return b.gradients(inputs, needs)


def gru_forward(xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool) -> tuple:
    """r, z = sigmoid(...);  n = tanh(W_in x + b_in + r (W_hn h + b_hn));  h' = n + z (h - n)

    Residuals: gates (T, 3 H B) in the order r, z, n; the products W_hn h + b_hn (T, H B).
    """
    if _empty(x, h0):
        return sequence.gru_forward(xp, x, h0, w_ih, w_hh, b_ih, b_hh, keep)
    steps, batch, _ = x.shape
    gates = np.empty((steps if keep else 1, 3 * h0.size), x.dtype)
    hidden = np.empty((steps if keep else 1, h0.size), x.dtype)
    outputs = np.empty((steps, h0.size), x.dtype)
    _gru_forward(
        _blas(x.dtype), _flat(x), _line(w_ih), _line(w_hh), _bias(len(w_hh), x.dtype, b_ih),
        _bias(len(w_hh), x.dtype, b_hh), _flat(h0), gates, hidden, outputs, np.empty(3 * h0.size, x.dtype), batch,
    )  # fmt: skip
    return (_seen(outputs, batch), _seen(outputs[-1], batch).copy()), ((gates, hidden) if keep else None)


def gru_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """da_n = dh (1 - z) (1 - n^2),  da_z = dh (h - n) z (1 - z),  da_r = da_n (W_hn h + b_hn) r (1 - r)
    before the step: dh = dh z + W_hh^T (da_r, da_z, da_n r)
    """
    if _empty(inputs[0], inputs[1]):
        return sequence.gru_backward(xp, g, out, inputs, needs, residuals)
    b = _Backward(g, inputs, 1, len(inputs[3]), needs)
    db_hh = np.zeros_like(b.db)
    _gru_backward(
        _blas(b.x.dtype), b.g, *b.starts, b.x, b.w_ih, b.w_hh, b.h0, *residuals, _flat(out[0]),
        b.dx, b.dw_ih, b.dw_hh, b.db, db_hh, b.da, np.empty_like(b.da), b.da_side, np.empty_like(b.da_side),
        b.x_side, b.h_side, b.ones, b.batch,
    )  # fmt: skip
    return b.gradients(inputs, needs, db_hh)
