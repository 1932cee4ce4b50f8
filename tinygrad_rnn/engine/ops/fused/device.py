"""The kernels of sequence.py for a GPU: called as those are, with the point-wise parts in kernels.cu.

Few units: a layer's pass over all time steps is one launch. Many: a product and a launch for each step. All
else, what a layer has to multiply for all time steps at once, is cuBLAS's. Nothing here waits for the GPU.

Arrays lie as callers see them, (T, B, features).
"""

from __future__ import annotations

import functools
import sys
from importlib.resources import files
from typing import Any

import numpy as np

from . import model, sequence

STREAMS = 2  # that a block has
THREADS = 1024  # of a block, at most
FEW = 256  # units, whose weights every block can read from the caches at each step


@functools.cache
def _function(xp: Any, dtype: Any, name: str) -> Any:
    """A function of kernels.cu for numbers of that dtype."""
    return _module(xp, dtype).get_function(name)


@functools.cache
def _module(xp: Any, dtype: Any) -> Any:
    real = {"f": "float", "d": "double"}[dtype.char]
    source = files(__package__).joinpath("kernels.cu").read_text(encoding="utf-8")
    options = (f"-DReal={real}", f"-DSTREAMS={STREAMS}", f"-DTHREADS={THREADS}")
    return xp.RawModule(code=source, options=options)


def launch(
    xp: Any, dtype: Any, name: str, blocks: tuple, threads: int, *arguments: Any, numbers: int = 0
) -> None:
    """Start a function of kernels.cu. arguments: contiguous arrays, numbers, None for no array. numbers: of
    that dtype, in the memory that a block shares."""
    assert all(a.flags.c_contiguous for a in arguments if hasattr(a, "strides") and a.ndim)
    given = (np.uintp(0) if a is None else np.int32(a) if isinstance(a, int) else a for a in arguments)
    _function(xp, dtype, name)(blocks, (threads,), tuple(given), shared_mem=numbers * dtype.itemsize)


def _warps(threads: int) -> int:
    """Threads in whole warps, as many as there may be."""
    return min(-(-threads // 32) * 32, THREADS)


def _at(t: int, steps: int, timed: tuple) -> list:
    """What a single step has of arrays by time; of cells (T + 1, B, H) two."""
    return [a[t : t + 1 + len(a) - steps] for a in timed]


def _forward(xp: Any, kind: str, w_hh: Any, h: Any, constant: tuple, timed: tuple) -> None:
    """All steps of `kind`_forward in kernels.cu, whose arguments these are. timed: outputs first."""
    (T, B, H), dtype, K = timed[0].shape, h.dtype, len(w_hh) // h.shape[1]
    start = functools.partial(launch, xp, dtype, f"{kind}_forward", (-(-B // STREAMS),))
    weights, h = xp.ascontiguousarray(w_hh.T), xp.ascontiguousarray(h)
    if H <= FEW:
        numbers = STREAMS * (1 + K) * H
        start(_warps(K * H), weights, None, h, *constant, *timed, T, B, H, numbers=numbers)
        return
    z = xp.empty((B, K * H), dtype)
    for t in range(T):
        xp.matmul(h, weights, out=z)
        start(_warps(H), weights, z, h, *constant, *_at(t, T, timed), 1, B, H)
        h = timed[0][t]


def _backward(xp: Any, kind: str, w_hh: Any, g: Any, dh: Any, constant: tuple, timed: tuple) -> None:
    """All steps of `kind`_backward, from the last on. g: gradient of the outputs, or None. dh (B, H): of the
    last state, becomes that of the first. timed: last what is multiplied with w_hh."""
    (T, B, _), H, dtype, K = timed[-1].shape, dh.shape[1], dh.dtype, len(w_hh) // dh.shape[1]
    start = functools.partial(launch, xp, dtype, f"{kind}_backward", (-(-B // STREAMS),))
    weights, g = xp.ascontiguousarray(w_hh), None if g is None else xp.ascontiguousarray(g)
    if H <= FEW:
        states = 2 if kind == "gru" else 1
        groups = min(K, THREADS // H)
        numbers = STREAMS * (states + K + groups) * H
        start(groups * H, weights, g, dh, *constant, *timed, 0, T, B, H, numbers=numbers)
        return
    product = xp.empty_like(dh)
    for t in range(T - 1, -1, -1):
        up = None if g is None else g[t]
        start(_warps(H), weights, up, dh, *constant, *_at(t, T, timed), 1, 1, B, H)
        if kind == "gru":  # there dh has a part that goes past the weights
            dh += xp.matmul(timed[-1][t], weights, out=product)
        else:
            xp.matmul(timed[-1][t], weights, out=dh)


def _inputs(xp: Any, x: Any, w_ih: Any, *biases: Any) -> Any:
    """W x + biases for all time steps: (T, B, D) -> (T, B, K H)."""
    T, B, D = x.shape
    a = xp.matmul(x.reshape(T * B, D), w_ih.T)
    for bias in biases:
        if bias is not None:
            a += bias
    return a.reshape(T, B, len(w_ih))


def _gradients(xp: Any, da_x: Any, da_h: Any, x: Any, before: Any, w_ih: Any, needs: tuple) -> tuple:
    """Of x, w_ih, w_hh, b_ih, b_hh from those of the pre-activations (T, B, K H), of the input's and of the
    recurrent part: each is one product. before (T, B, H): the state before each step."""
    need_x, need_w_ih, need_w_hh, need_b_ih, need_b_hh = needs
    rows = len(x) * x.shape[1]
    from_x, from_h = (a.reshape(rows, a.shape[2]) for a in (da_x, da_h))
    return (
        xp.matmul(from_x, w_ih).reshape(x.shape) if need_x else None,
        xp.matmul(from_x.T, x.reshape(rows, x.shape[2])) if need_w_ih else None,
        xp.matmul(from_h.T, before.reshape(rows, before.shape[2])) if need_w_hh else None,
        from_x.sum(axis=0) if need_b_ih else None,
        from_h.sum(axis=0) if need_b_hh else None,
    )


def _before(xp: Any, first: Any, outputs: Any) -> Any:
    return xp.concatenate((first[None], outputs[:-1]))


def _end(xp: Any, g: Any, like: Any) -> Any:
    """The gradient of a last state (B, H), zero if there is none, to be worked on."""
    return xp.zeros(like.shape, like.dtype) if g is None else xp.array(g, order="C")


def rnn_forward(
    xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str
) -> tuple:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""
    if sequence.is_empty(x, h0):
        return sequence.rnn_forward(xp, x, h0, w_ih, w_hh, b_ih, b_hh, nonlinearity)
    outputs = _inputs(xp, x, w_ih, b_ih, b_hh)
    _forward(xp, "rnn", w_hh, h0, (int(nonlinearity == "relu"),), (outputs,))
    return (outputs, outputs[-1].copy()), None


def rnn_backward(
    xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any, nonlinearity: str
) -> tuple:
    """da = dh (1 - h^2), or dh [h > 0];  before the step: dh = W_hh^T da"""
    x, h0, w_ih, w_hh, _, _ = inputs
    if sequence.is_empty(x, h0):
        return sequence.rnn_backward(xp, g, out, inputs, needs, residuals, nonlinearity)
    outputs, dh = xp.ascontiguousarray(out[0]), _end(xp, g[1], h0)
    da = xp.empty_like(outputs)
    _backward(xp, "rnn", w_hh, g[0], dh, (int(nonlinearity == "relu"),), (outputs, da))
    dx, *weights = _gradients(xp, da, da, x, _before(xp, h0, outputs), w_ih, (needs[0], *needs[2:]))
    return (dx, dh, *weights)


def lstm_forward(
    xp: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool
) -> tuple:
    """i, f, o = sigmoid(...), g = tanh(...);  c' = f c + i g;  h' = o tanh(c')"""
    if sequence.is_empty(x, h0):
        return sequence.lstm_forward(xp, x, h0, c0, w_ih, w_hh, b_ih, b_hh, keep)
    (T, B, _), H = x.shape, h0.shape[1]
    gates, outputs = _inputs(xp, x, w_ih, b_ih, b_hh), xp.empty((T, B, H), x.dtype)
    cells = xp.empty((T + 1, B, H), x.dtype)
    cells[0] = c0
    _forward(xp, "lstm", w_hh, h0, (), (outputs, gates, cells))
    return (outputs, outputs[-1].copy(), cells[-1].copy()), (gates, cells) if keep else None


def lstm_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """dc += dh o (1 - tanh(c')^2)
    da_i = dc g i (1 - i),  da_f = dc c f (1 - f),  da_g = dc i (1 - g^2),  da_o = dh tanh(c') o (1 - o)
    before the step: dh = W_hh^T da,  dc = dc f
    """
    x, h0, c0, w_ih, w_hh, _, _ = inputs
    if sequence.is_empty(x, h0):
        return sequence.lstm_backward(xp, g, out, inputs, needs, residuals)
    (gates, cells), dh, dc = residuals, _end(xp, g[1], h0), _end(xp, g[2], c0)
    da = xp.empty_like(gates)
    _backward(xp, "lstm", w_hh, g[0], dh, (dc,), (gates, cells, da))
    dx, *weights = _gradients(xp, da, da, x, _before(xp, h0, out[0]), w_ih, (needs[0], *needs[3:]))
    return (dx, dh, dc, *weights)


def gru_forward(xp: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, keep: bool) -> tuple:
    """r, z = sigmoid(...);  n = tanh(W_in x + b_in + r (W_hn h + b_hn));  h' = n + z (h - n)"""
    if sequence.is_empty(x, h0):
        return sequence.gru_forward(xp, x, h0, w_ih, w_hh, b_ih, b_hh, keep)
    (T, B, _), H = x.shape, h0.shape[1]
    gates = _inputs(xp, x, w_ih, b_ih)
    outputs, hidden = (xp.empty((T, B, H), x.dtype) for _ in range(2))
    _forward(xp, "gru", w_hh, h0, (b_hh,), (outputs, gates, hidden))
    return (outputs, outputs[-1].copy()), (gates, hidden) if keep else None


def gru_backward(xp: Any, g: Any, out: Any, inputs: Any, needs: Any, residuals: Any) -> tuple:
    """da_n = dh (1 - z) (1 - n^2),  da_z = dh (h - n) z (1 - z),  da_r = da_n (W_hn h + b_hn) r (1 - r)
    before the step: dh = dh z + W_hh^T (da_r, da_z, da_n r)
    """
    x, h0, w_ih, w_hh, _, _ = inputs
    if sequence.is_empty(x, h0):
        return sequence.gru_backward(xp, g, out, inputs, needs, residuals)
    (gates, hidden), dh, before = residuals, _end(xp, g[1], h0), _before(xp, h0, out[0])
    da_x, da_h = xp.empty_like(gates), xp.empty_like(gates)
    _backward(xp, "gru", w_hh, g[0], dh, (), (before, gates, hidden, da_x, da_h))
    dx, *weights = _gradients(xp, da_x, da_h, x, before, w_ih, (needs[0], *needs[2:]))
    return (dx, dh, *weights)


# --- a whole language model -----------------------------------------------------------------------


def cross_entropy(xp: Any, scores: Any, targets: Any, keep: bool) -> Any:
    """Losses (T, B) in nats of the scores (T, B, V), which become softmax - one_hot."""
    losses, V = xp.empty(targets.shape, scores.dtype), scores.shape[-1]
    threads = 1 << max(min(V - 1, 255).bit_length(), 5)
    start = functools.partial(launch, xp, scores.dtype, "cross_entropy", (targets.size,), threads)
    start(scores, targets, losses, V, numbers=threads)
    return losses


def table_gradient(xp: Any, symbols: Any, dx: Any, rows: int) -> Any:
    """Row s is the sum of dx (N, E) where symbols (N,) are s, in the order of the text."""
    order, found = xp.argsort(symbols, kind="stable"), xp.empty((rows, dx.shape[1]), dx.dtype)
    starts = xp.searchsorted(symbols[order], xp.arange(rows + 1))
    threads = _warps(dx.shape[1])
    launch(xp, dx.dtype, "sum_by_symbol", (rows,), threads, order, starts, dx, found, dx.shape[1])
    return found


def can_take(array: Any) -> bool:
    """Whether an array may stand in a table of run()."""
    return bool(array.flags.c_contiguous)


def enter(table: np.ndarray, row: int, column: int, array: Any) -> None:
    """The size of an array, and where it lies."""
    table[row, 0], table[row, column] = array.size, array.data.ptr


def run(xp: Any, dtype: Any, name: str, table: np.ndarray, factors: Any, decoupled: bool) -> None:
    """adam() of kernels.cu. table: as in update.py."""
    blocks = max(1, min(-(-int(table[:, 0].max()) // 256), 1024))
    numbers = (dtype.type(factor) for factor in factors)
    launch(xp, dtype, name, (blocks, len(table)), 256, xp.asarray(table), *numbers, int(decoupled))


language_model_forward = functools.partial(model.forward, sys.modules[__name__])
language_model_backward = functools.partial(model.backward, sys.modules[__name__])
