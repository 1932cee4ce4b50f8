"""A recurrent language model over a window of text as one op: from symbols to the loss of what comes next.

It is an embedding, recurrent layers, scores for every symbol and their cross-entropy, all of which are ops
of their own elsewhere. As one, nothing between them is written down in full or in another order, and a window
that is all overhead, a single stream through a small network, costs a few calls instead of dozens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError, DtypeError, ShapeError
from ..backend import Backend
from ..op import TENSOR_OPS, op
from . import recurrent
from .fused import kernels_for

STATES = {"rnn": 1, "lstm": 2, "gru": 1}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


class Parts(NamedTuple):
    """The op's inputs by name: embedding (V, D), output weight (V, H) and bias (V,), states (L, B, H), and
    for each of L layers weight_ih, weight_hh, bias_ih, bias_hh."""

    embedding: Any
    weight: Any
    bias: Any
    states: tuple
    layers: list[tuple]

    @classmethod
    def of(cls, inputs: Any, kind: str) -> Parts:
        first = 3 + STATES[kind]
        layers = [tuple(inputs[i : i + 4]) for i in range(first, len(inputs), 4)]
        embedding, weight, bias = inputs[:3]
        return cls(embedding, weight, bias, tuple(inputs[3:first]), layers)


def language_model_steps(F: Any, *inputs: Any, symbols: Any, targets: Any, kind: str) -> tuple:
    """The same in ordinary ops."""
    parts = Parts.of(inputs, kind)
    backend = parts.embedding.backend if F is TENSOR_OPS else F.backend
    symbols, targets = _there(backend, symbols), _there(backend, targets)
    x = F.getitem(parts.embedding, index=symbols)
    ends = []
    for number, weights in enumerate(parts.layers):
        starts = [F.getitem(state, index=number) for state in parts.states]
        x, *end = getattr(recurrent, f"{kind}_steps")(F, x, *starts, *weights)
        ends.append(end)
    scores = recurrent.linear(F, x, parts.weight, parts.bias)
    steps, batch = (backend.xp.arange(size) for size in targets.shape)
    chosen = F.getitem(scores, index=(steps[:, None], batch, targets))
    loss = F.mean(F.logsumexp(scores, axis=-1) - chosen)
    return loss, *(F.stack([end[i] for end in ends], axis=0) for i in range(len(parts.states)))


def _vjp(
    F: Any, g: Any, out: Any, *inputs: Any, needs: Any, residuals: Any, symbols: Any, targets: Any, kind: str
) -> tuple:
    """softmax(scores) - one_hot(targets), then back through the layers: see rnn, lstm and gru."""
    kernels, kept, symbols, targets = residuals
    parts = Parts.of(inputs, kind)
    gradients = kernels.language_model_backward(F.backend.xp, g, parts, kept, symbols, targets, kind)
    return tuple([d if need else None for d, need in zip(gradients, needs, strict=True)])


@op(
    inputs=None,
    joint=_vjp,
    reference=language_model_steps,
    has_residuals=True,
    saves="*",
    promotes=True,
    needs_backend=True,
    gives_away=True,
    name="language_model",
)
def language_model(
    backend: Backend, *inputs: Any, symbols: Any, targets: Any, kind: str, keep: bool = True
) -> Any:
    """Mean cross-entropy in nats of `targets` after `symbols`, both integer arrays (T, B), and the states
    after the last step, (L, B, H) each. See Parts for the inputs, in their order.

    The compiled kernels make the loss's gradients together with it, where a graph is recorded: a loss that is
    only looked at is best computed under no_grad(). If the states have gradients too, all is computed again.
    """
    parts = Parts.of(inputs, kind)
    if symbols.ndim != 2 or symbols.shape != targets.shape or 0 in symbols.shape:
        raise ShapeError(
            f"language_model: symbols and targets must be (T, B) with at least one of each, not "
            f"{symbols.shape} and {targets.shape}"
        )
    _check_shapes(parts, symbols.shape[1], kind)
    symbols, targets = (
        _own(backend, what, array, len(parts.embedding))
        for what, array in [("symbol", symbols), ("target", targets)]
    )
    kernels = kernels_for(backend.xp, parts.embedding.dtype)
    outputs, kept = kernels.language_model_forward(backend.xp, parts, symbols, targets, kind, keep)
    return outputs, (kernels, kept, symbols, targets)


def _check_shapes(parts: Parts, batch: int, kind: str) -> None:
    (V, D), H, rows = parts.embedding.shape, parts.weight.shape[-1], GATES[kind] * parts.weight.shape[-1]

    def check(what: str, array: Any, *shape: int) -> None:
        if array.shape != shape:
            raise ShapeError(
                f"language_model: {what} has shape {array.shape}; an embedding of {parts.embedding.shape}, "
                f"hidden size {H} and batch {batch} need {shape}"
            )

    check("weight", parts.weight, V, H)
    check("bias", parts.bias, V)
    for state in parts.states:
        check("a state", state, len(parts.layers), batch, H)
    for w_ih, w_hh, b_ih, b_hh in parts.layers:
        check("a weight_ih", w_ih, rows, D)
        check("a weight_hh", w_hh, rows, H)
        check("a bias_ih", b_ih, rows)
        check("a bias_hh", b_hh, rows)
        D = H  # of the layers above


def _own(backend: Backend, what: str, given: Any, V: int) -> Any:
    """A copy: kernels go by these without another look, and the caller may change what was given. They are
    looked at where they are, so that a GPU need not be waited for."""
    if given.dtype.kind not in "iu":
        raise DtypeError(f"language_model: {what}s must be integers, not {given.dtype}")
    symbols = given.astype(np.intp)
    if symbols.astype(np.uintp).max().item() >= V:  # in which the negative ones are the largest
        low, high = symbols.min().item(), symbols.max().item()
        raise DataError(f"language_model: {what} {low if low < 0 else high} is outside the {V} symbols")
    return backend.xp.ascontiguousarray(_there(backend, symbols))


def _there(backend: Backend, symbols: Any) -> Any:
    """The symbols as an array of the backend."""
    return symbols if isinstance(symbols, backend.array_type) else backend.from_host(symbols)
