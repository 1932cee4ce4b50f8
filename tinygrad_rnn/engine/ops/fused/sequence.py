"""Forward and backward passes of RNN, LSTM and GRU over a whole sequence, on raw arrays.

Each follows the same plan. Forward: one large product for the inputs of all time steps, then a step at a time
one product with the recurrent weights and the point-wise part, in place, keeping the gates. Backward: the
steps in reverse (back-propagation through time), each giving the gradient before the nonlinearities, `da`;
then every weight gradient as one large product over all time steps.

Shapes: x (T, B, D), states (B, H), gates (T, B, K H). Only functions that NumPy and CuPy share are used.
A sigmoid is computed as tanh(z / 2) / 2 + 1/2: the halving is put into the weights, so that a single
tanh serves all gates of a step.
"""

from __future__ import annotations

from typing import Any


def _inputs_product(xp: Any, x: Any, weight: Any, *biases: Any) -> Any:
    """x W^T + biases for all time steps at once: (T, B, D) -> (T, B, K H), in memory of its own."""
    steps, batch, features = x.shape
    product = xp.matmul(x.reshape(steps * batch, features), weight.T)
    for bias in biases:
        if bias is not None:
            product += bias
    return product.reshape(steps, batch, weight.shape[0])


def _parameter_gradients(
    xp: Any,
    da_x: Any,
    da_h: Any,
    x: Any,
    h_before: Any,
    w_ih: Any,
    needs: tuple[bool, bool, bool, bool, bool],
) -> tuple:
    """Gradients of x, w_ih, w_hh, b_ih, b_hh from those of the pre-activations: each is one product.

    da_x, da_h: (T, B, K H), of the input's and of the recurrent part (the same but for the GRU).
    h_before: (T, B, H), the state before each step.
    """
    flat_x = da_x.reshape(-1, da_x.shape[-1])
    flat_h = flat_x if da_h is da_x else da_h.reshape(-1, da_h.shape[-1])
    need_x, need_w_ih, need_w_hh, need_b_ih, need_b_hh = needs
    return (
        xp.matmul(flat_x, w_ih).reshape(x.shape) if need_x else None,
        xp.matmul(flat_x.T, x.reshape(-1, x.shape[-1])) if need_w_ih else None,
        xp.matmul(flat_h.T, h_before.reshape(-1, h_before.shape[-1])) if need_w_hh else None,
        flat_x.sum(axis=0) if need_b_ih else None,
        flat_h.sum(axis=0) if need_b_hh else None,
    )


def _before(xp: Any, first: Any, outputs: Any) -> Any:
    """The state before each step: the initial one, then all but the last of the outputs."""
    return xp.concatenate((first[None], outputs[:-1]))


def _or_zeros(xp: Any, g: Any, like: Any) -> Any:
    return xp.zeros_like(like) if g is None else g.copy()


# --- RNN ------------------------------------------------------------------------------------------


def rnn_forward(
    xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str
) -> tuple:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    outputs = _inputs_product(xp, x, w_ih, b_ih, b_hh)  # (T, B, H), overwritten step by step
    recurrent = xp.ascontiguousarray(w_hh.T)
    product = xp.empty_like(h0)
    h = h0
    for a in outputs:
        xp.matmul(h, recurrent, out=product)
        a += product
        if nonlinearity == "tanh":
            xp.tanh(a, out=a)
        else:
            xp.maximum(a, 0, out=a)
        h = a
    return (outputs, h.copy()), None


def rnn_backward(
    xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any, nonlinearity: str
) -> tuple:
    """da = dh (1 - h^2), or dh [h > 0];  dh before the step = da W_hh."""
    x, h0, w_ih, w_hh, _, _ = inputs
    g_outputs, g_last = g
    outputs, _ = out
    dh = _or_zeros(xp, g_last, h0)
    da = xp.empty_like(outputs)
    for t in range(len(x) - 1, -1, -1):
        if g_outputs is not None:
            dh += g_outputs[t]
        h = outputs[t]
        if nonlinearity == "tanh":
            da[t] = (dh + dh * h) * (1 - h)
        else:
            da[t] = dh * (h > 0)
        xp.matmul(da[t], w_hh, out=dh)
    need_x, _, *rest = needs
    dx, *weights = _parameter_gradients(
        xp, da, da, x, _before(xp, h0, outputs), w_ih, (need_x, *rest)
    )
    return (dx, dh, *weights)


# --- LSTM -----------------------------------------------------------------------------------------


def _half_sigmoid_gates(xp: Any, w: Any, hidden: int) -> Any:
    """Rows of the gates i, f and o halved, those of g left: see the head of this file."""
    scaled = w * 0.5
    scaled[2 * hidden : 3 * hidden] = w[2 * hidden : 3 * hidden]
    return scaled


def lstm_forward(
    xp: Any,
    x: Any,
    h0: Any,
    c0: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any,
    b_hh: Any,
    keep: bool,
) -> tuple:
    """i, f, o = sigmoid(...), g = tanh(...);  c' = f c + i g;  h' = o tanh(c').

    Residuals: gates (T, B, 4H) in the order i, f, g, o; cells (T+1, B, H) from c0 on; tanh of the cells
    (T, B, H).
    """
    steps, batch, _ = x.shape
    H = h0.shape[-1]
    biases = (b if b is None else _half_sigmoid_gates(xp, b, H) for b in (b_ih, b_hh))
    gates = _inputs_product(xp, x, _half_sigmoid_gates(xp, w_ih, H), *biases)
    recurrent = xp.ascontiguousarray(_half_sigmoid_gates(xp, w_hh, H).T)
    outputs = xp.empty((steps, batch, H), x.dtype)
    cells = xp.empty((steps + 1 if keep else 1, batch, H), x.dtype)
    tanh_cells = xp.empty((steps if keep else 1, batch, H), x.dtype)
    cells[0] = c0
    product = xp.empty((batch, 4 * H), x.dtype)
    scratch = xp.empty((batch, H), x.dtype)
    h = h0
    for t in range(steps):
        a, c = gates[t], cells[t if keep else 0]
        xp.matmul(h, recurrent, out=product)
        a += product
        xp.tanh(a, out=a)
        for sigmoid in (a[:, : 2 * H], a[:, 3 * H :]):
            sigmoid *= 0.5
            sigmoid += 0.5
        i, f, g, o = a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]
        c_new, tanh_c = cells[t + 1 if keep else 0], tanh_cells[t if keep else 0]
        xp.multiply(f, c, out=c_new)
        xp.multiply(i, g, out=scratch)
        c_new += scratch
        xp.tanh(c_new, out=tanh_c)
        h = outputs[t]
        xp.multiply(o, tanh_c, out=h)
    residuals = (gates, cells, tanh_cells) if keep else None
    return (outputs, h.copy(), cells[-1].copy()), residuals


def lstm_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """dc += dh o (1 - tanh(c')^2)
    da_i = dc g i (1 - i),  da_f = dc c f (1 - f),  da_g = dc i (1 - g^2),  da_o = dh tanh(c') o (1 - o)
    before the step: dh = da W_hh,  dc = dc f
    """
    x, h0, c0, w_ih, w_hh, _, _ = inputs
    g_outputs, g_h, g_c = g
    outputs = out[0]
    gates, cells, tanh_cells = residuals
    H = h0.shape[-1]
    dh, dc = _or_zeros(xp, g_h, h0), _or_zeros(xp, g_c, c0)
    da = xp.empty_like(gates)
    s = xp.empty_like(dh)
    for t in range(len(x) - 1, -1, -1):
        if g_outputs is not None:
            dh += g_outputs[t]
        a, d, tanh_c = gates[t], da[t], tanh_cells[t]
        i, f, c_candidate, o = a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]
        # How the gates themselves depend on the pre-activations, for all four at once ...
        xp.subtract(1, a, out=d)
        d[:, : 2 * H] *= a[:, : 2 * H]
        d[:, 3 * H :] *= o
        xp.add(c_candidate, 1, out=s)
        d[:, 2 * H : 3 * H] *= s
        # ... then what reaches each of them.
        xp.multiply(dh, tanh_c, out=s)
        d[:, 3 * H :] *= s
        xp.multiply(tanh_c, tanh_c, out=s)
        xp.subtract(1, s, out=s)
        s *= o
        s *= dh
        dc += s
        xp.multiply(dc, c_candidate, out=s)
        d[:, :H] *= s
        xp.multiply(dc, cells[t], out=s)
        d[:, H : 2 * H] *= s
        xp.multiply(dc, i, out=s)
        d[:, 2 * H : 3 * H] *= s
        dc *= f
        xp.matmul(d, w_hh, out=dh)
    need_x, _, _, *rest = needs
    dx, *weights = _parameter_gradients(
        xp, da, da, x, _before(xp, h0, outputs), w_ih, (need_x, *rest)
    )
    return (dx, dh, dc, *weights)


# --- GRU ------------------------------------------------------------------------------------------


def gru_forward(
    xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool
) -> tuple:
    """r, z = sigmoid(...);  n = tanh(W_in x + b_in + r (W_hn h + b_hn));  h' = n + z (h - n).

    Residuals: gates (T, B, 3H) in the order r, z, n; the products W_hn h + b_hn (T, B, H).
    """
    steps, batch, _ = x.shape
    H = h0.shape[-1]
    gates = _inputs_product(xp, x, w_ih, b_ih)
    recurrent = xp.ascontiguousarray(w_hh.T)
    outputs = xp.empty((steps, batch, H), x.dtype)
    hidden_products = xp.empty((steps if keep else 1, batch, H), x.dtype)
    product = xp.empty((batch, 3 * H), x.dtype)
    scratch = xp.empty((batch, H), x.dtype)
    h = h0
    for t in range(steps):
        a, hn = gates[t], hidden_products[t if keep else 0]
        rz, r, z, n = a[:, : 2 * H], a[:, :H], a[:, H : 2 * H], a[:, 2 * H :]
        xp.matmul(h, recurrent, out=product)
        if b_hh is not None:
            product += b_hh
        hn[...] = product[:, 2 * H :]
        rz += product[:, : 2 * H]
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
    return (outputs, h.copy()), (gates, hidden_products) if keep else None


def gru_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """da_n = dh (1 - z) (1 - n^2),  da_z = dh (h - n) z (1 - z),  da_r = da_n (W_hn h + b_hn) r (1 - r)
    before the step: dh = dh z + (da_r, da_z, da_n r) W_hh
    """
    x, h0, w_ih, w_hh, _, _ = inputs
    g_outputs, g_last = g
    outputs = out[0]
    gates, hidden_products = residuals
    H = h0.shape[-1]
    before = _before(xp, h0, outputs)
    dh = _or_zeros(xp, g_last, h0)
    da_x, da_h = xp.empty_like(gates), xp.empty_like(gates)
    product = xp.empty_like(dh)
    for t in range(len(x) - 1, -1, -1):
        if g_outputs is not None:
            dh += g_outputs[t]
        a, dx_t, dh_t = gates[t], da_x[t], da_h[t]
        r, z, n = a[:, :H], a[:, H : 2 * H], a[:, 2 * H :]
        da_n = dx_t[:, 2 * H :]
        da_n[...] = dh * (1 - z) * (1 - n) * (1 + n)
        dx_t[:, H : 2 * H] = dh * (before[t] - n) * z * (1 - z)
        dx_t[:, :H] = da_n * hidden_products[t] * r * (1 - r)
        dh_t[:, : 2 * H] = dx_t[:, : 2 * H]
        xp.multiply(da_n, r, out=dh_t[:, 2 * H :])
        xp.matmul(dh_t, w_hh, out=product)
        dh *= z
        dh += product
    need_x, _, *rest = needs
    dx, *weights = _parameter_gradients(xp, da_x, da_h, x, before, w_ih, (need_x, *rest))
    return (dx, dh, *weights)
