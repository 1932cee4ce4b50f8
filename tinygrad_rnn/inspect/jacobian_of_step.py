"""The Jacobian of one time step of a recurrent layer, and its largest singular value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.op import TENSOR_OPS
from ..engine.ops import recurrent as equations
from ..engine.ops.shape import concatenate
from ..engine.tensor import enable_grad, tensor
from ..engine.walk import grad
from ..models.char_lm import WEIGHTS
from .recording import STATES, Recording

VECTORS = 4  # that a power iteration turns at once
ENOUGH = 1e-4  # relative change at which it ends
MOST = 200  # iterations


def step_jacobians(recording: Recording, layer: int) -> np.ndarray:
    """(T, S, S): d(state_t)/d(state_t-1) of a layer while it read the window; what it reads is held.

    S is H, or 2 H for an LSTM, whose state is h and below it c. Each is found by S rows of the cell's
    equations at once, with the S unit vectors as upstream gradients.
    """
    letters, kind = STATES[recording.kind], recording.kind
    size = recording.model.rnn.hidden_size
    cell = getattr(equations, f"{kind}_cell")
    weights = [getattr(recording.model.rnn, f"{name}_l{layer}").detach() for name in WEIGHTS]
    states = {letter: _before(recording, letter, layer) for letter in letters}
    below = recording.inputs(layer)
    unit = np.eye(len(letters) * size, dtype=recording.logits.dtype)
    found = np.empty((recording.length, *unit.shape), unit.dtype)
    for t in range(recording.length):
        inputs = [tensor(_rows(states[letter][t], len(unit)), requires_grad=True) for letter in letters]
        with enable_grad():
            after: Any = cell(TENSOR_OPS, tensor(below[t : t + 1]), *inputs, *weights)
            together = concatenate(after, axis=1) if len(letters) > 1 else after
        found[t] = np.concatenate([g.numpy() for g in grad(together, inputs, tensor(unit))], axis=1)
    return found


def _rows(vector: np.ndarray, count: int) -> np.ndarray:
    return np.repeat(vector[None], count, axis=0)


def _before(recording: Recording, letter: str, layer: int) -> np.ndarray:
    """(T, H): the state that each step began with."""
    first = recording.start(letter, layer)
    return np.concatenate([first[None], recording.values(letter, layer)[:-1]])


def products(jacobians: np.ndarray, cuts: Sequence[int]) -> np.ndarray:
    """(T, S, S): d(state_T-1)/d(state_t) for each t, in float64; zero where a cut lies between."""
    found = np.empty(jacobians.shape)
    product = np.eye(jacobians.shape[1])
    for t in reversed(range(len(jacobians))):
        if t + 1 in cuts:  # nothing goes back over it
            product = np.zeros_like(product)
        found[t] = product
        product = product @ jacobians[t]
    return found


@np.errstate(all="ignore")
def spectral_norms(matrices: np.ndarray) -> np.ndarray:
    """(N,), the largest singular value of each of (N, S, S), by power iteration on A^T A.

    On a few vectors at once, so that singular values close to the largest delay nothing (subspace iteration).
    To about four digits; the estimate comes from below. Zero for a matrix of zeros, NaN for one that is not
    finite.
    """
    finite = np.isfinite(matrices).all(axis=(1, 2))
    if not finite.all():
        found = np.full(len(matrices), np.nan)
        found[finite] = spectral_norms(matrices[finite]) if finite.any() else []
        return found
    size = matrices.shape[2]
    start = np.random.default_rng(0).standard_normal((size, min(VECTORS, size))).astype(matrices.dtype)
    v, before = np.broadcast_to(start, (len(matrices), *start.shape)), np.zeros(len(matrices))
    transposed = matrices.swapaxes(1, 2)
    for _ in range(MOST):
        u = matrices @ np.linalg.qr(v)[0]
        wide = u.astype(float)  # the square of what float32 can hold is more than it can hold
        now = np.sqrt(np.linalg.eigvalsh(wide.swapaxes(1, 2) @ wide)[:, -1].clip(0))
        if (np.abs(now - before) <= ENOUGH * now).all():
            break
        before, v = now, transposed @ (u / np.where(now > 0, now, 1.0).astype(u.dtype)[:, None, None])
    return now
