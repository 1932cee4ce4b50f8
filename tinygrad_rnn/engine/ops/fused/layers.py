"""RNN, LSTM and GRU over a whole sequence, compiled: each direction of each is one function.

Inside, Python is not asked and nothing large is allocated. A time step is a product with the weights, which
were packed beforehand (see product.py), and passes over its gates while they are in the cache. Arrays lie as
callers see them, (T, B, features). A function works on the streams `first` to `last` of the batch, a shard:
shards have nothing in common but the weights, so that several run side by side.

A sigmoid is computed as tanh(z / 2) / 2 + 1/2. The halving is in the weights (see `halves`), so that a single
tanh serves all gates of a step, and `gates` keeps these tanh t: the sigmoid is s = t / 2 + 1/2, its slope
s (1 - s) = (1 - t) (1 + t) / 4.

Backward, the gradients `da` before the nonlinearities are collected over a chunk of time steps; then the
gradient of each weight grows by one product over the chunk. A pass writes to two arrays at most: with more
the compiler can no longer tell that they do not overlap.

multiply: the multiplier() of product.py. T: time steps, B: streams, D: features of the inputs x, H: of the
states, K: gates of the kind.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from .jit import compiled, inlined
from .pointwise import tanh_all, tanh_of
from .product import ROWS, add_product, pack

# Numbers after a row of gradients: rows a power of two apart would share few places of the cache.
PADDING = 16


@inlined
def sigmoid_from(t):
    """sigmoid(z), given t = tanh(z / 2)"""
    half = np.float32(0.5)
    return half * t + half


@inlined
def slope_from(t):
    """The slope of sigmoid at z, given t = tanh(z / 2)"""
    one, quarter = np.float32(1), np.float32(0.25)
    return quarter * ((one - t) * (one + t))


@inlined
def put(row, into):
    for k in range(into.size):
        into[k] = row[k]


@inlined
def add_to(into, row):
    for k in range(into.size):
        into[k] += row[k]


# --- what the kinds share -------------------------------------------------------------------------


@inlined
def inputs_together(multiply, x, w_ih, bias, a):
    """Where steps have few rows: W_ih x + bias of all of them, in one product. a: (T, B, K H)."""
    rows = a.reshape(a.shape[0] * a.shape[1], a.shape[2])
    for r in range(len(rows)):
        put(bias, rows[r])
    add_product(multiply, x.reshape(len(rows), x.shape[2]), w_ih, rows)


@inlined
def inputs_of_step(multiply, x, symbols, table, w_ih, bias, a, t, first, last):
    """a (rows, K H) = W_ih x_t + bias; of symbols, the rows of the table."""
    if table.size:
        for r in range(last - first):
            put(table[symbols[t, first + r]], a[r])
    else:
        for r in range(last - first):
            put(bias, a[r])
        add_product(multiply, x[t, first:last], w_ih, a)


@inlined
def before(states, outputs, t, first, last):
    """The states before step t."""
    return states[first:last] if t == 0 else outputs[t - 1, first:last]


@inlined
def add_input_gradients(multiply, side, x, symbols, dw_ih, dtable, x_packed, t, steps, first, last):
    """dw_ih (K H, D) += da^T x, over the `steps` time steps from t on; of symbols, dtable[symbol] += da.
    Rows of `side` begin with those of da."""
    rows = last - first
    if dtable.size:
        for s in range(steps):
            for r in range(rows):
                add_to(dtable[symbols[t + s, first + r]], side[s * rows + r])
    else:
        for s in range(steps):
            pack(x[t + s, first:last], x_packed, s * rows, steps * rows)
        add_product(multiply, side[: steps * rows, : len(dw_ih)].T, x_packed, dw_ih)


@inlined
def input_gradients(multiply, side, w_ih, dx, columns, t, steps, first, last):
    """dx = da W_ih of the `steps` time steps from t on, unless dx is not wanted. Rows of `side` begin with
    those of da, which has so many columns."""
    if len(dx):
        rows, D = last - first, dx.shape[2]
        if rows == dx.shape[1]:
            d = dx[t : t + steps].reshape(steps * rows, D)
            d[:] = 0
            add_product(multiply, side[: steps * rows, :columns], w_ih, d)
        else:
            for s in range(steps):
                d = dx[t + s, first:last]
                d[:] = 0
                add_product(multiply, side[s * rows : (s + 1) * rows, :columns], w_ih, d)


@inlined
def add_recurrent_gradients(multiply, da, h0, outputs, dw_hh, h_packed, t, steps, first, last):
    """dw_hh (K H, H) += da^T h, the states h before each of the `steps` time steps from t on."""
    rows = last - first
    for s in range(steps):
        pack(before(h0, outputs, t + s, first, last), h_packed, s * rows, steps * rows)
    add_product(multiply, da.T, h_packed, dw_hh)


# --- RNN ------------------------------------------------------------------------------------------


@compiled
def rnn_forward(multiply, x, symbols, table, w_ih, w_hh, bias, h0, outputs, rectified, first, last):
    """h' = tanh(W_ih x + W_hh h + bias), or relu"""
    together = not table.size and outputs.shape[1] < ROWS
    if together:
        inputs_together(multiply, x, w_ih, bias, outputs)
    for t in range(len(outputs)):
        a = outputs[t, first:last]
        if not together:
            inputs_of_step(multiply, x, symbols, table, w_ih, bias, a, t, first, last)
        add_product(multiply, before(h0, outputs, t, first, last), w_hh, a)
        z = a.reshape(a.size)
        if rectified:
            for k in range(z.size):
                z[k] = z[k] if not z[k] <= 0 else z.dtype.type(0)
        else:
            tanh_all(z)


@compiled
def rnn_backward(
    multiply, g, dh, x, symbols, w_ih, w_hh, h0, outputs, rectified, dx, dw_ih, dtable, dw_hh, db, side,
    x_packed, h_packed, chunk, first, last,
):  # fmt: skip
    """da = dh (1 - h^2), or dh [h > 0];  before the step: dh = W_hh^T da"""
    T, _, H = outputs.shape
    rows, one = last - first, dh.dtype.type(1)
    for end in range(T, 0, -chunk):
        begin = max(end - chunk, 0)
        for t in range(end - 1, begin - 1, -1):
            place = (t - begin) * rows
            da = side[place : place + rows, :H]
            for r in range(rows):
                d, h, da_row = dh[first + r], outputs[t, first + r], side[place + r]
                if len(g):
                    add_to(d, g[t, first + r])
                if rectified:
                    for k in range(H):
                        da_row[k] = d[k] if h[k] > 0 else d[k] * 0
                else:
                    for k in range(H):
                        da_row[k] = d[k] * (one - h[k]) * (one + h[k])
                add_to(db, da_row)
                d[:] = 0
            add_product(multiply, da, w_hh, dh[first:last])
        da = side[: (end - begin) * rows, :H]
        add_input_gradients(
            multiply, side, x, symbols, dw_ih, dtable, x_packed, begin, end - begin, first, last
        )
        input_gradients(multiply, side, w_ih, dx, da.shape[1], begin, end - begin, first, last)
        add_recurrent_gradients(multiply, da, h0, outputs, dw_hh, h_packed, begin, end - begin, first, last)


# --- LSTM -----------------------------------------------------------------------------------------


@inlined
def lstm_point(a, c, c_new, h):
    """One stream, from its gates a = tanh(z or z / 2):  c' = f c + i g;  h' = o tanh(c')"""
    H = h.size
    i, f, g, o = a[:H], a[H : 2 * H], a[2 * H : 3 * H], a[3 * H :]
    for k in range(H):
        c_new[k] = sigmoid_from(f[k]) * c[k] + sigmoid_from(i[k]) * g[k]
    for k in range(H):
        h[k] = sigmoid_from(o[k]) * tanh_of(c_new[k])


@compiled
def lstm_forward(multiply, x, symbols, table, w_ih, w_hh, bias, h0, gates, cells, outputs, first, last):
    """i, f, o = sigmoid(...), g = tanh(...) of W_ih x + W_hh h + bias;  c' = f c + i g;  h' = o tanh(c')

    gates (T, B, 4 H) and cells (T + 1, B, H), or one of each if nobody will look back.
    """
    together = not table.size and outputs.shape[1] < ROWS and len(gates) == len(outputs)
    if together:
        inputs_together(multiply, x, w_ih, bias, gates)
    for t in range(len(outputs)):
        a, c, c_new = gates[t % len(gates)], cells[t % len(cells)], cells[(t + 1) % len(cells)]
        z = a[first:last]
        if not together:
            inputs_of_step(multiply, x, symbols, table, w_ih, bias, z, t, first, last)
        add_product(multiply, before(h0, outputs, t, first, last), w_hh, z)
        tanh_all(z.reshape(z.size))
        for b in range(first, last):
            lstm_point(a[b], c[b], c_new[b], outputs[t, b])


@compiled
def lstm_backward(
    multiply, g, dh, dc, x, symbols, w_ih, w_hh, h0, gates, cells, outputs, dx, dw_ih, dtable, dw_hh, db,
    side, x_packed, h_packed, chunk, first, last,
):  # fmt: skip
    """dc += dh o (1 - tanh(c')^2)
    da_i = dc g i (1 - i),  da_f = dc c f (1 - f),  da_g = dc i (1 - g^2),  da_o = dh tanh(c') o (1 - o)
    before the step: dh = W_hh^T da,  dc = dc f
    """
    T, _, H = outputs.shape
    rows, one = last - first, dh.dtype.type(1)
    for end in range(T, 0, -chunk):
        begin = max(end - chunk, 0)
        for t in range(end - 1, begin - 1, -1):
            place = (t - begin) * rows
            da = side[place : place + rows, : 4 * H]
            for r in range(rows):
                b = first + r
                d, d_cell, c, c_new = dh[b], dc[b], cells[t, b], cells[t + 1, b]
                a, da_row = gates[t, b], side[place + r]
                i, f, c_in, o = a[:H], a[H : 2 * H], a[2 * H : 3 * H], a[3 * H :]
                d_i, d_f, d_in, d_o = (
                    da_row[:H],
                    da_row[H : 2 * H],
                    da_row[2 * H : 3 * H],
                    da_row[3 * H : 4 * H],
                )
                if len(g):
                    add_to(d, g[t, b])
                for k in range(H):
                    tanh_c = tanh_of(c_new[k])
                    d_o[k] = d[k] * tanh_c * slope_from(o[k])
                    d_cell[k] += d[k] * sigmoid_from(o[k]) * (one - tanh_c) * (one + tanh_c)
                for k in range(H):
                    d_i[k] = d_cell[k] * c_in[k] * slope_from(i[k])
                    d_in[k] = d_cell[k] * sigmoid_from(i[k]) * (one - c_in[k]) * (one + c_in[k])
                for k in range(H):
                    d_f[k] = d_cell[k] * c[k] * slope_from(f[k])
                    d_cell[k] = d_cell[k] * sigmoid_from(f[k])
                add_to(db, da_row)
                d[:] = 0
            add_product(multiply, da, w_hh, dh[first:last])
        da = side[: (end - begin) * rows, : 4 * H]
        add_input_gradients(
            multiply, side, x, symbols, dw_ih, dtable, x_packed, begin, end - begin, first, last
        )
        input_gradients(multiply, side, w_ih, dx, da.shape[1], begin, end - begin, first, last)
        add_recurrent_gradients(multiply, da, h0, outputs, dw_hh, h_packed, begin, end - begin, first, last)


# --- GRU ------------------------------------------------------------------------------------------


@inlined
def gru_point(a, s, hn, h, h_new):
    """One stream, from a = W_ih x + b_ih and s = W_hh h + b_hh, of which r and z are halved:
    r, z = sigmoid(a + s);  n = tanh(a_n + r s_n);  h' = n + z (h - n).  a becomes the tanh, hn is s_n."""
    H = h.size
    for k in range(2 * H):
        a[k] = tanh_of(a[k] + s[k])
    r, z, n, part = a[:H], a[H : 2 * H], a[2 * H :], s[2 * H :]
    for k in range(H):
        hn[k] = part[k]
        n[k] = tanh_of(n[k] + sigmoid_from(r[k]) * part[k])
    for k in range(H):
        h_new[k] = n[k] + sigmoid_from(z[k]) * (h[k] - n[k])


@compiled
def gru_forward(multiply, x, symbols, table, w_ih, w_hh, bias, b_hh, h0, gates, hidden, outputs, first, last):
    """r, z = sigmoid(...);  n = tanh(W_in x + b_in + r (W_hn h + b_hn));  h' = n + z (h - n)

    gates (T, B, 3 H) and hidden (T, B, H), the products W_hn h + b_hn, or one of each.
    """
    s = np.empty((last - first, b_hh.size), b_hh.dtype)
    together = not table.size and outputs.shape[1] < ROWS and len(gates) == len(outputs)
    if together:
        inputs_together(multiply, x, w_ih, bias, gates)
    for t in range(len(outputs)):
        a, hn, h = gates[t % len(gates)], hidden[t % len(hidden)], before(h0, outputs, t, first, last)
        if not together:
            inputs_of_step(multiply, x, symbols, table, w_ih, bias, a[first:last], t, first, last)
        for r in range(last - first):
            put(b_hh, s[r])
        add_product(multiply, h, w_hh, s)
        for r in range(last - first):
            gru_point(a[first + r], s[r], hn[first + r], h[r], outputs[t, first + r])


@compiled
def gru_backward(
    multiply, g, dh, x, symbols, w_ih, w_hh, h0, gates, hidden, outputs, dx, dw_ih, dtable, dw_hh, db_ih,
    db_hh, side, x_packed, h_packed, chunk, first, last,
):  # fmt: skip
    """da_n = dh (1 - z) (1 - n^2),  da_z = dh (h - n) z (1 - z),  da_r = da_n (W_hn h + b_hn) r (1 - r)
    before the step: dh = dh z + W_hh^T (da_r, da_z, da_n r)

    A row of `side` is da_n, da_r, da_z, da_n r: the first three are the input's, in which order w_ih, dw_ih
    and db_ih have them; the last three the state's.
    """
    T, _, H = outputs.shape
    rows, one = last - first, dh.dtype.type(1)
    for end in range(T, 0, -chunk):
        begin = max(end - chunk, 0)
        for t in range(end - 1, begin - 1, -1):
            place = (t - begin) * rows
            states = before(h0, outputs, t, first, last)
            for row in range(rows):
                b = first + row
                d, hn, h = dh[b], hidden[t, b], states[row]
                r, z, n = gates[t, b, :H], gates[t, b, H : 2 * H], gates[t, b, 2 * H :]
                da = side[place + row]
                d_n, d_r, d_z, d_hn = da[:H], da[H : 2 * H], da[2 * H : 3 * H], da[3 * H : 4 * H]
                if len(g):
                    add_to(d, g[t, b])
                for k in range(H):
                    d_n[k] = d[k] * (one - sigmoid_from(z[k])) * (one - n[k]) * (one + n[k])
                    d_hn[k] = d_n[k] * sigmoid_from(r[k])
                for k in range(H):
                    d_z[k] = d[k] * (h[k] - n[k]) * slope_from(z[k])
                    d[k] = d[k] * sigmoid_from(z[k])
                for k in range(H):
                    d_r[k] = d_n[k] * hn[k] * slope_from(r[k])
                add_to(db_ih, da)
                add_to(db_hh, da[H:])
            add_product(multiply, side[place : place + rows, H : 4 * H], w_hh, dh[first:last])
        steps = end - begin
        from_state = side[: steps * rows, H : 4 * H]
        add_input_gradients(multiply, side, x, symbols, dw_ih, dtable, x_packed, begin, steps, first, last)
        input_gradients(multiply, side, w_ih, dx, 3 * H, begin, steps, first, last)
        add_recurrent_gradients(multiply, from_state, h0, outputs, dw_hh, h_packed, begin, steps, first, last)
