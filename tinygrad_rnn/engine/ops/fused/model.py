"""A whole language model by the layers, the loss and the table's gradient of a module of kernels."""

from __future__ import annotations

from typing import Any


def forward(kernels: Any, xp: Any, parts: Any, symbols: Any, targets: Any, kind: str, keep: bool) -> tuple:
    """Mean cross-entropy and final states; see ../language_model.py.

    Residuals: of each layer its inputs, outputs and residuals; p - one_hot of every prediction p (T, B, V).
    """
    forward_of = getattr(kernels, f"{kind}_forward")
    x, kept, ends = parts.embedding[symbols], [], []
    for number, weights in enumerate(parts.layers):
        rest = (*(state[number] for state in parts.states), *weights)
        outputs, residuals = forward_of(xp, x, *rest, "tanh" if kind == "rnn" else keep)
        if keep:
            kept.append(((x, *rest), outputs, residuals))
        x, *end = outputs
        ends.append(end)
    scores = xp.matmul(x, parts.weight.T)
    scores += parts.bias
    losses = kernels.cross_entropy(xp, scores, targets, keep)
    loss = xp.asarray(losses.mean()).astype(scores.dtype)
    states = (xp.stack([end[i] for end in ends]) for i in range(len(parts.states)))
    return (loss, *states), ((kept, scores) if keep else None)


def backward(
    kernels: Any, xp: Any, g: Any, parts: Any, residuals: Any, symbols: Any, targets: Any, kind: str
) -> tuple:
    """Gradients in the order of the op's inputs."""
    kept, differences = residuals
    d = differences * (0 if g[0] is None else g[0] / targets.size)
    flat = d.reshape(targets.size, d.shape[-1])
    top = kept[-1][1][0]
    dw, db = xp.matmul(flat.T, top.reshape(targets.size, top.shape[-1])), flat.sum(axis=0)
    dx = xp.matmul(d, parts.weight)
    backward_of = getattr(kernels, f"{kind}_backward")
    starts: list = [None] * len(kept)
    layers: list = [None] * len(kept)
    option = ("tanh",) if kind == "rnn" else ()
    for number in range(len(kept) - 1, -1, -1):
        inputs, outputs, own = kept[number]
        upstream = (dx, *(None if each is None else each[number] for each in g[1:]))
        needs = (True,) * len(inputs)
        dx, *rest = backward_of(xp, upstream, outputs, inputs, needs, own, *option)
        starts[number], layers[number] = rest[: len(parts.states)], rest[len(parts.states) :]
    d_embedding = kernels.table_gradient(
        xp, symbols.reshape(-1), dx.reshape(targets.size, -1), len(parts.embedding)
    )
    states = (xp.stack([each[i] for each in starts]) for i in range(len(parts.states)))
    return (d_embedding, dw, db, *states, *(d for each in layers for d in each))
