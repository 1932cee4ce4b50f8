"""The kernels of sequence.py, compiled: the same plan and formulas, the point-wise passes as Numba loops.

One call is a whole sequence. Inside, nothing is allocated and Python is not asked: a step calls NumPy's own
BLAS library for its products (see jit.py), then passes over its gates while they are in the cache. The layout
is that of sequence.py, features as rows and batch as columns: so a gate of a step is one contiguous block and
a pass over it one flat loop, which the compiler turns into vector instructions. A pass writes to two arrays
at most: with more the compiler can no longer tell that they do not overlap.

Backward, the gradient of a weight is a product over many time steps: those of a chunk are laid side by side,
(features, chunk B), which also bounds the memory.

Arrays are flat here: a row of `gates` (T, K H B) is what sequence.py has as (K H, B).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ...blas import routines
from . import sequence
from .jit import (
    INLINED,
    add_outer,
    add_sums,
    compiled,
    float_of_bits,
    inlined,
    lay_down,
    product,
    product_beside,
    product_transposed,
    take_up,
)

CHUNK = 512  # columns of the products over a chunk of time steps, about


# --- a gate ---------------------------------------------------------------------------------------


def tanh_of(x: Any) -> Any:
    """tanh(x); of a float32 within 4 units in the last place."""
    raise NotImplementedError("for compiled code")


@overload(tanh_of, jit_options=INLINED)  # type: ignore[arg-type]
def _tanh_of(x):
    if x == types.float64:
        return lambda x: math.tanh(x)

    # A rational function, near enough up to its limit, that the compiler can vectorise; beyond 9 tanh rounds
    # to 1. Coefficients: Eigen, generic_fast_tanh_float. A NaN passes all comparisons.
    f = np.float32
    limit, full, tiny, one = f(7.90531110763549805), f(9), f(0.0004), f(1)
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
        value = x if abs(x) < tiny else above / below
        return one if x > full else -one if x < -full else value

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
def inputs_part(blas, x, symbols, t, w_ih, bias, a, rows, batch):
    """a (rows, B) = W_ih x + bias. Where the inputs are symbols, w_ih is a table with a column W_ih x + bias
    for each of them."""
    if symbols.size:
        size = w_ih.size // rows
        step = symbols[t * batch : (t + 1) * batch]
        for j in range(rows):
            row, column = a[j * batch : (j + 1) * batch], w_ih[j * size : (j + 1) * size]
            for b in range(batch):
                row[b] = column[step[b]]
    else:
        fill(a, bias, batch)
        product(blas, w_ih, x[t], a, rows, w_ih.size // rows, batch, 1)


@inlined
def lay_down_inputs(x, symbols, t, side, features, place, batch, stride):
    """As lay_down(); a symbol is laid down as a 1 in its row, among zeros."""
    if symbols.size:
        step = side[place * features : (place + 1) * features] if batch == 1 else side
        if batch == 1:
            step[:] = 0
            step[symbols[t]] = 1
        else:
            for row in range(features):
                for b in range(batch):
                    side[row * stride + place + b] = 0
            for b in range(batch):
                side[symbols[t * batch + b] * stride + place + b] = 1
    else:
        lay_down(x[t], side, place, batch, stride)


@inlined
def add_to(a, b):
    for n in range(a.size):
        a[n] += b[n]


@inlined
def add_weight_gradients(blas, da, before, dw, ones, db, rows, features, columns, batch, stride):
    """dw (rows, features) += da before^T, db += the sums of da, over the time steps of a chunk."""
    add_outer(blas, da, before, dw, rows, columns, features, batch, stride)
    add_sums(blas, da, ones, db, rows, columns, batch, stride)


@inlined
def input_gradients(blas, w_ih, da, side, dx, t, features, rows, columns, batch, stride):
    """dx = W_ih^T da of the time steps from t on that lie in a chunk; `side` is overwritten."""
    product_beside(blas, w_ih, da, side, features, rows, columns, batch, stride)
    for place in range(0, columns, batch):
        take_up(side, dx[t + place // batch], place, batch, stride)


# --- RNN ------------------------------------------------------------------------------------------


@compiled
def _rnn_forward(blas, x, symbols, w_ih, w_hh, bias, h0, outputs, rectified, B):
    H = bias.size
    for t in range(len(outputs)):
        a = outputs[t]
        inputs_part(blas, x, symbols, t, w_ih, bias, a, H, B)
        product(blas, w_hh, h0 if t == 0 else outputs[t - 1], a, H, H, B, 1)
        if rectified:
            for n in range(a.size):
                a[n] = a[n] if not a[n] <= 0 else a.dtype.type(0)
        else:
            tanh_all(a)


@compiled
def _rnn_backward(
    blas,
    g,
    dh,
    x,
    symbols,
    w_ih,
    w_hh,
    h0,
    outputs,
    rectified,
    dx,
    dw_ih,
    dw_hh,
    db,
    da,
    da_s,
    x_s,
    h_s,
    ones,
    B,
):
    H, D, one = dh.size // B, w_ih.size * B // dh.size, dh.dtype.type(1)
    stride = da_s.size // H
    last = len(outputs) - 1
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
        lay_down(da, da_s, place, B, stride)
        lay_down(before, h_s, place, B, stride)
        lay_down_inputs(x, symbols, t, x_s, D, place, B, stride)
        if place == 0:
            columns = min(stride, (last + 1 - t) * B)
            add_weight_gradients(blas, da_s, h_s, dw_hh, ones, db, H, H, columns, B, stride)
            add_outer(blas, da_s, x_s, dw_ih, H, columns, D, B, stride)
            if len(dx):
                input_gradients(blas, w_ih, da_s, x_s, dx, t, D, H, columns, B, stride)


# --- LSTM -----------------------------------------------------------------------------------------


@compiled
def _lstm_forward(blas, x, symbols, w_ih, w_hh, bias, h0, gates, cells, outputs, B):
    """gates (T, 4 H B) and cells (T + 1, H B), or one row each if nobody will look back."""
    H = bias.size // 4
    n = H * B
    for t in range(len(outputs)):
        a = gates[min(t, len(gates) - 1)]
        c, c_new = cells[min(t, len(cells) - 1)], cells[min(t + 1, len(cells) - 1)]
        h = outputs[t]
        inputs_part(blas, x, symbols, t, w_ih, bias, a, 4 * H, B)
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
    blas,
    g,
    dh,
    dc,
    x,
    symbols,
    w_ih,
    w_hh,
    h0,
    gates,
    cells,
    outputs,
    dx,
    dw_ih,
    dw_hh,
    db,
    da,
    da_s,
    x_s,
    h_s,
    ones,
    B,
):
    H = dh.size // B
    K = 4 * H
    n, D, one = H * B, w_ih.size // K, dh.dtype.type(1)
    stride = da_s.size // K
    last = len(outputs) - 1
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
        lay_down(da, da_s, place, B, stride)
        lay_down(before, h_s, place, B, stride)
        lay_down_inputs(x, symbols, t, x_s, D, place, B, stride)
        if place == 0:
            columns = min(stride, (last + 1 - t) * B)
            add_weight_gradients(blas, da_s, h_s, dw_hh, ones, db, K, H, columns, B, stride)
            add_outer(blas, da_s, x_s, dw_ih, K, columns, D, B, stride)
            if len(dx):
                input_gradients(blas, w_ih, da_s, x_s, dx, t, D, K, columns, B, stride)


# --- GRU ------------------------------------------------------------------------------------------


@compiled
def _gru_forward(blas, x, symbols, w_ih, w_hh, b_ih, b_hh, h0, gates, hidden, outputs, scratch, B):
    """gates (T, 3 H B) and hidden (T, H B), the products W_hn h + b_hn, or one row each."""
    H = b_ih.size // 3
    n = H * B
    for t in range(len(outputs)):
        a, hn = gates[min(t, len(gates) - 1)], hidden[min(t, len(hidden) - 1)]
        h, h_new = h0 if t == 0 else outputs[t - 1], outputs[t]
        inputs_part(blas, x, symbols, t, w_ih, b_ih, a, 3 * H, B)
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
    blas, g, dh, x, symbols, w_ih, w_hh, h0, gates, hidden, outputs, dx, dw_ih, dw_hh, db_ih, db_hh,
    da, da_h, da_s, da_h_s, x_s, h_s, ones, B,
):  # fmt: skip
    H = dh.size // B
    K = 3 * H
    n, D, one = H * B, w_ih.size // K, dh.dtype.type(1)
    stride = da_s.size // K
    last = len(outputs) - 1
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
        lay_down(da, da_s, place, B, stride)
        lay_down(da_h, da_h_s, place, B, stride)
        lay_down(h, h_s, place, B, stride)
        lay_down_inputs(x, symbols, t, x_s, D, place, B, stride)
        if place == 0:
            columns = min(stride, (last + 1 - t) * B)
            add_weight_gradients(blas, da_h_s, h_s, dw_hh, ones, db_hh, K, H, columns, B, stride)
            add_weight_gradients(blas, da_s, x_s, dw_ih, ones, db_ih, K, D, columns, B, stride)
            if len(dx):
                input_gradients(blas, w_ih, da_s, x_s, dx, t, D, K, columns, B, stride)


# --- the output layer and its loss -----------------------------------------------------------------


def exp_of(x: Any) -> Any:
    """exp(x) for x <= 0; of a float32 within 2 units in the last place, and 0 below -87."""
    raise NotImplementedError("for compiled code")


@overload(exp_of, jit_options=INLINED)  # type: ignore[arg-type]
def _exp_of(x):
    if x == types.float64:
        return lambda x: math.exp(x)

    # exp(x) = 2^n exp(r) with r = x - n ln 2 (ln 2 in two parts), |r| <= ln 2 / 2: a Taylor series.
    f = np.float32
    log2_e, ln2_high, ln2_low, least = f(1.44269504), f(0.693359375), f(-2.12194440e-4), f(-87.0)
    c2, c3, c4, c5, c6 = f(1 / 2), f(1 / 6), f(1 / 24), f(1 / 120), f(1 / 720)
    half, one = f(0.5), f(1.0)

    def series(x):
        y = least if x < least else x  # a NaN stays
        n = np.floor(y * log2_e + half)
        r = (y - n * ln2_high) - n * ln2_low
        power = (((((c6 * r + c5) * r + c4) * r + c3) * r + c2) * r) * r + r + one
        scaled = power * float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))
        return f(0) if x < least else scaled

    return series


@compiled
def _cross_entropy(blas, outputs, w, bias, targets, gradients, losses, batch):
    """losses (T, B) in nats, and their gradients with respect to the scores W h + bias, (T, V B)."""
    V = bias.size
    H = w.size // V
    largest, total = np.empty_like(losses[0]), np.empty_like(losses[0])
    for t in range(len(outputs)):
        scores, goal = gradients[t], targets[t]
        fill(scores, bias, batch)
        product(blas, w, outputs[t], scores, V, H, batch, 1)
        largest[:] = scores[:batch]
        for v in range(1, V):
            row = scores[v * batch : (v + 1) * batch]
            for b in range(batch):
                largest[b] = row[b] if not row[b] <= largest[b] else largest[b]
        for b in range(batch):
            losses[t, b] = largest[b] - scores[goal[b] * batch + b]
        total[:] = 0
        for v in range(V):
            row = scores[v * batch : (v + 1) * batch]
            for b in range(batch):
                row[b] = exp_of(row[b] - largest[b])
            add_to(total, row)
        for b in range(batch):
            losses[t, b] += math.log(total[b])
            total[b] = 1 / total[b]
        for v in range(V):
            row = scores[v * batch : (v + 1) * batch]
            for b in range(batch):
                row[b] *= total[b]
        for b in range(batch):
            scores[goal[b] * batch + b] -= 1


@compiled
def _cross_entropy_backward(blas, gradients, scale, outputs, w, dh, dw, db, side, h_side, ones, batch):
    """dh (T, H B), dw (V, H) and db (V) from the gradients that _cross_entropy() left, times `scale`."""
    V = db.size
    H = w.size // V
    stride = ones.size
    step = np.empty_like(gradients[0])
    columns = 0
    for t in range(len(outputs)):
        for k in range(step.size):
            step[k] = gradients[t, k] * scale
        product_transposed(blas, w, step, dh[t], H, V, batch)
        lay_down(step, side, columns, batch, stride)
        lay_down(outputs[t], h_side, columns, batch, stride)
        columns += batch
        if columns == stride or t == len(outputs) - 1:
            add_weight_gradients(blas, side, h_side, dw, ones, db, V, H, columns, batch, stride)
            columns = 0


# --- called as those of sequence.py are -----------------------------------------------------------


@functools.cache
def blas_of(dtype: Any) -> tuple[int, int]:
    found = routines()
    assert found is not None
    return found.gemm[dtype.name], found.gemv[dtype.name]


def flat(x: Any) -> Any:
    """(T, B, H) -> (T, H B), features as rows; (B, H) -> (H B,). Without a copy where it lies so already."""
    rows = np.ascontiguousarray(x.swapaxes(-1, -2))
    return rows.reshape(*rows.shape[:-2], -1)


def line(weight: Any) -> Any:
    """A weight's numbers row by row, as a flat array."""
    return np.ascontiguousarray(weight).reshape(-1)


def seen(rows: Any, batch: int) -> Any:
    """(T, H B) -> (T, B, H), or (H B,) -> (B, H), as callers see it."""
    return rows.reshape(*rows.shape[:-1], -1, batch).swapaxes(-1, -2)


def _bias(rows: int, dtype: Any, *biases: Any) -> Any:
    total = np.zeros(rows, dtype)
    for bias in biases:
        if bias is not None:
            total += bias
    return total


NO_SYMBOLS = np.empty(0, np.intp)


def forward(
    kind: str,
    inputs: tuple,
    symbols: Any,
    batch: int,
    states: tuple,
    weights: tuple,
    keep: bool,
    rectified: bool,
) -> tuple:
    """A layer over a sequence, everything flat: outputs (T, H B), the last c of an LSTM or None, and what the
    backward pass needs: gates and cells, or gates and recurrent products.

    inputs: x (T, D B) and the number of time steps; or symbols (T B,), and w_ih is a table.
    """
    x, steps = inputs
    w_ih, w_hh, b_ih, b_hh = weights
    dtype, size, rows = w_hh.dtype, states[0].size, w_hh.size * batch // states[0].size
    blas, kept = blas_of(dtype), steps if keep else 1
    outputs = np.empty((steps, size), dtype)
    bias = _bias(rows, dtype, b_ih) if kind == "gru" else _bias(rows, dtype, b_ih, b_hh)
    if symbols.size:
        w_ih = (w_ih.reshape(rows, -1) + bias[:, None]).reshape(-1)
    if kind == "rnn":
        _rnn_forward(blas, x, symbols, w_ih, w_hh, bias, states[0], outputs, rectified, batch)
        return outputs, None, ()
    gates = np.empty((kept, rows * batch), dtype)
    if kind == "lstm":
        cells = np.empty((kept + keep, size), dtype)
        cells[0] = states[1]
        _lstm_forward(blas, x, symbols, w_ih, w_hh, bias, states[0], gates, cells, outputs, batch)
        return outputs, cells[-1], (gates, cells)
    hidden, scratch = np.empty((kept, size), dtype), np.empty(rows * batch, dtype)
    b_hh = _bias(rows, dtype, b_hh)
    _gru_forward(blas, x, symbols, w_ih, w_hh, bias, b_hh, states[0], gates, hidden, outputs, scratch, batch)
    return outputs, None, (gates, hidden)


def backward(
    kind: str, g: Any, ends: list, inputs: tuple, symbols: Any, batch: int, first: Any, weights: tuple,
    kept: tuple, outputs: Any, need_x: bool, rectified: bool,
) -> tuple:  # fmt: skip
    """Gradients dx (or None), those of the states (in `ends`, overwritten), dw_ih, dw_hh, db_ih and db_hh."""
    x, steps = inputs
    w_ih, w_hh = weights[:2]
    dtype, rows, hidden = w_hh.dtype, w_hh.size * batch // first.size, first.size // batch
    features = w_ih.size // rows
    stride = min(max(CHUNK // batch, 1), steps) * batch
    dx = np.empty((steps if need_x else 0, features * batch), dtype)
    dw_ih, dw_hh, db = np.zeros(w_ih.size, dtype), np.zeros(w_hh.size, dtype), np.zeros(rows, dtype)
    da, side = np.empty(rows * batch, dtype), np.empty(rows * stride, dtype)
    x_side, h_side = np.empty(features * stride, dtype), np.empty(hidden * stride, dtype)
    ones = np.ones(stride, dtype)
    blas, db_hh = blas_of(dtype), db
    if kind == "rnn":
        _rnn_backward(
            blas, g, *ends, x, symbols, w_ih, w_hh, first, outputs, rectified,
            dx, dw_ih, dw_hh, db, da, side, x_side, h_side, ones, batch,
        )  # fmt: skip
    elif kind == "lstm":
        _lstm_backward(
            blas, g, *ends, x, symbols, w_ih, w_hh, first, *kept, outputs,
            dx, dw_ih, dw_hh, db, da, side, x_side, h_side, ones, batch,
        )  # fmt: skip
    else:
        db_hh = np.zeros(rows, dtype)
        _gru_backward(
            blas, g, *ends, x, symbols, w_ih, w_hh, first, *kept, outputs,
            dx, dw_ih, dw_hh, db, db_hh, da, np.empty_like(da), side, np.empty_like(side),
            x_side, h_side, ones, batch,
        )  # fmt: skip
    return dx if need_x else None, dw_ih, dw_hh, db, db_hh


def _layer_forward(
    kind: str, x: Any, states: tuple, weights: tuple, keep: bool, rectified: bool = False
) -> tuple:
    steps, batch, _ = x.shape
    lines = tuple(line(w) for w in weights[:2]) + tuple(weights[2:])
    outputs, c, kept = forward(
        kind, (flat(x), steps), NO_SYMBOLS, batch, tuple(map(flat, states)), lines, keep, rectified
    )
    ends = (outputs[-1],) if c is None else (outputs[-1], c)
    return (seen(outputs, batch), *(seen(end, batch).copy() for end in ends)), kept


def _layer_backward(
    kind: str,
    g: tuple,
    out: tuple,
    inputs: tuple,
    states: int,
    needs: tuple,
    kept: tuple,
    rectified: bool = False,
) -> tuple:
    x, weights = inputs[0], inputs[1 + states :]
    steps, batch, _ = x.shape
    ends = [
        np.zeros_like(flat(s)) if d is None else flat(d).copy()
        for d, s in zip(g[1:], inputs[1:], strict=False)
    ]
    dx, *gradients = backward(
        kind, np.empty((0, 0), x.dtype) if g[0] is None else flat(g[0]), ends, (flat(x), steps), NO_SYMBOLS,
        batch, flat(inputs[1]), tuple(line(w) for w in weights[:2]), kept, flat(out[0]), needs[0], rectified,
    )  # fmt: skip
    shaped = [d.reshape(w.shape) if w is not None else None for d, w in zip(gradients, weights, strict=True)]
    if shaped[3] is shaped[2] and shaped[3] is not None:
        shaped[3] = shaped[3].copy()  # each of two biases its own
    needed = needs[1 + states :]
    return (
        None if dx is None else seen(dx, batch),
        *(seen(end, batch) for end in ends),
        *(d if need else None for d, need in zip(shaped, needed, strict=True)),
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
    return _layer_backward("rnn", g, out, inputs, 1, needs, residuals, nonlinearity == "relu")


def lstm_forward(
    xp: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool
) -> tuple:
    """i, f, o = sigmoid(...), g = tanh(...);  c' = f c + i g;  h' = o tanh(c')

    Residuals: gates (T, 4 H B) in the order i, f, g, o, and cells (T + 1, H B) from c0 on.
    """
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
    return _layer_backward("lstm", g, out, inputs, 2, needs, residuals)


def gru_forward(xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool) -> tuple:
    """r, z = sigmoid(...);  n = tanh(W_in x + b_in + r (W_hn h + b_hn));  h' = n + z (h - n)

    Residuals: gates (T, 3 H B) in the order r, z, n; the products W_hn h + b_hn (T, H B).
    """
    if _empty(x, h0):
        return sequence.gru_forward(xp, x, h0, w_ih, w_hh, b_ih, b_hh, keep)
    return _layer_forward("gru", x, (h0,), (w_ih, w_hh, b_ih, b_hh), keep)


def gru_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """da_n = dh (1 - z) (1 - n^2),  da_z = dh (h - n) z (1 - z),  da_r = da_n (W_hn h + b_hn) r (1 - r)
    before the step: dh = dh z + W_hh^T (da_r, da_z, da_n r)
    """
    if _empty(inputs[0], inputs[1]):
        return sequence.gru_backward(xp, g, out, inputs, needs, residuals)
    return _layer_backward("gru", g, out, inputs, 1, needs, residuals)


# --- a whole language model -----------------------------------------------------------------------


@compiled
def _add_rows(dx, symbols, table, batch):
    """table[s] += the gradient (T, E B) at every place of the symbol s"""
    features = table.shape[1]
    for t in range(len(dx)):
        for j in range(features):
            for b in range(batch):
                table[symbols[t * batch + b], j] += dx[t, j * batch + b]


def language_model_forward(xp: Any, parts: Any, symbols: Any, targets: Any, kind: str, keep: bool) -> tuple:
    """Mean cross-entropy and final states; see ../language_model.py.

    Where the text is longer than the vocabulary, the embedding is folded into the first layer: W_ih E^T is a
    table with a column for each symbol, and a step looks its columns up instead of multiplying.
    """
    steps, batch = symbols.shape
    places = np.ascontiguousarray(symbols, np.intp).reshape(-1)
    folded = places.size >= len(parts.embedding)
    x, kept, ends = np.empty((0, 0), parts.embedding.dtype), [], []
    if not folded:
        x = flat(parts.embedding[symbols])
    for number, weights in enumerate(parts.layers):
        first = number == 0 and folded
        w_ih = np.matmul(weights[0], parts.embedding.T) if first else weights[0]
        starts = tuple(flat(state[number]) for state in parts.states)
        lines = (line(w_ih), line(weights[1]), *weights[2:])
        outputs, c, own = forward(
            kind, (x, steps), places if first else NO_SYMBOLS, batch, starts, lines, keep, False
        )
        kept.append((x, starts, lines, outputs, own))
        ends.append((outputs[-1],) if c is None else (outputs[-1], c))
        x = outputs
    top, columns = _columns(x, batch)
    V = len(parts.bias)
    differences = np.empty((len(top), V * columns), x.dtype)
    losses = np.empty((len(top), columns), x.dtype)
    goals = np.ascontiguousarray(targets, np.intp).reshape(len(top), columns)
    _cross_entropy(
        blas_of(x.dtype), top, line(parts.weight), line(parts.bias), goals, differences, losses, columns
    )
    loss = np.asarray(losses.mean(), x.dtype)
    states = (np.stack([seen(end[i], batch) for end in ends]) for i in range(len(parts.states)))
    return (loss, *states), ((places, folded, kept, top, differences) if keep else None)


def _columns(rows: Any, batch: int) -> tuple[Any, int]:
    """(T, H B) as the output layer reads it, and the columns of a step. A batch of one is turned into one
    step of T columns."""
    if batch > 1:
        return rows, batch
    return np.ascontiguousarray(rows.T).reshape(1, -1), len(rows)


def language_model_backward(
    xp: Any, g: Any, parts: Any, residuals: Any, symbols: Any, targets: Any, kind: str
) -> tuple:
    """Gradients in the order of the op's inputs."""
    places, folded, kept, top, differences = residuals
    steps, batch = symbols.shape
    dtype, columns = top.dtype, targets.size // len(top)
    V, H = parts.weight.shape
    scale = dtype.type(0 if g[0] is None else g[0] / targets.size)
    g_up, dw, db = np.empty_like(top), np.zeros(V * H, dtype), np.zeros(V, dtype)
    stride = min(max(CHUNK // columns, 1), len(top)) * columns
    _cross_entropy_backward(
        blas_of(dtype), differences, scale, top, line(parts.weight), g_up, dw, db,
        np.empty(V * stride, dtype), np.empty(H * stride, dtype), np.ones(stride, dtype), columns,
    )  # fmt: skip
    if batch == 1:
        g_up = np.ascontiguousarray(g_up.reshape(H, steps).T)
    d_starts: list = [None] * len(kept)
    d_layers: list = [None] * len(kept)
    for number in range(len(kept) - 1, -1, -1):
        x, starts, lines, outputs, own = kept[number]
        ends = [
            np.zeros_like(start) if each is None else flat(each[number]).copy()
            for each, start in zip(g[1:], starts, strict=True)
        ]
        first = number == 0 and folded
        g_up, *gradients = backward(
            kind, g_up, ends, (x, steps), places if first else NO_SYMBOLS, batch, starts[0], lines, own,
            outputs, not first, False,
        )  # fmt: skip
        d_starts[number] = [seen(end, batch) for end in ends]
        d_layers[number] = gradients
    if folded:  # W_ih E^T had the gradient `table`
        w_ih = parts.layers[0][0]
        table = d_layers[0][0].reshape(len(w_ih), V)
        d_layers[0][0] = np.matmul(table, parts.embedding)
        d_embedding = np.matmul(table.T, w_ih)
    else:
        d_embedding = np.zeros_like(parts.embedding)
        _add_rows(g_up, places, d_embedding, batch)
    states = (np.stack([each[i] for each in d_starts]) for i in range(len(parts.states)))
    shaped = [
        d.reshape(w.shape)
        for ds, ws in zip(d_layers, parts.layers, strict=True)
        for d, w in zip(ds, ws, strict=True)
    ]
    if kind != "gru":  # each of two biases its own
        shaped[3::4] = [d.copy() for d in shaped[3::4]]
    return (d_embedding, dw.reshape(V, H), db, *states, *shaped)
