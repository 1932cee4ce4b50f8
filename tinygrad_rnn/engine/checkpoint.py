"""`checkpoint(fn, *inputs)`: compute a part of the graph again in the backward pass instead of storing it.

(Not the files that training writes: those are in models/files.py.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import GraphError
from . import random
from .node import Node, mode, tick, writes
from .op import TABLE, Op, add_to_table
from .tensor import Tensor, apply, enable_grad
from .walk import partial_gradients


def checkpoint(fn: Callable[..., Any], *inputs: Any) -> Any:
    """fn(*inputs), keeping of its graph only the ends; the backward pass computes it a second time.

    fn takes and returns a tensor or a tuple of tensors and must be a function of its arguments and of the
    parameters it closes over, to which gradients flow as well. What it draws at random
    (dropout's masks, tg.rand) it draws again; running statistics of batch normalisation move once only.
    Chen et al., 2016, "Training deep nets with sublinear memory cost".
    """
    if not mode.recording:
        return fn(*inputs)
    segment = _Segment(fn, inputs, random.snapshot())
    outs, single = segment.run()
    edges, saved = _frontier(outs, segment.start)
    if not edges:
        return outs[0] if single else outs
    segment.edges = edges
    segment.tracked = tuple(out.node is not None for out in outs)
    backend = next(out.backend for out in outs)
    node = Node(
        CHECKPOINT,
        [parent for parent, _ in edges],
        # Kept not for the VJP, which computes everything again, but so that a write to one is noticed.
        (*saved, *(x.array for x in inputs if isinstance(x, Tensor))),
        tuple(out.array for out in outs),
        {"segment": segment},
        tuple(out.shape for out in outs),
        tuple(out.dtype for out in outs),
        backend,
    )
    node.outputs = len(outs)
    node.outputs_used = tuple(output for _, output in edges)
    segment.made = node.seq
    results = tuple(
        Tensor(out.array, node if tracked else None, number if tracked else 0, backend)
        for number, (out, tracked) in enumerate(zip(outs, segment.tracked, strict=True))
    )
    return results[0] if single else results


class _Segment:
    """What it takes to compute the segment again."""

    edges: list[tuple[Node, int]]
    tracked: tuple[bool, ...]

    def __init__(self, fn: Callable, inputs: tuple, taken: tuple) -> None:
        self.fn, self.inputs, self.taken = fn, inputs, taken
        self.start = self.made = 0

    def run(self) -> tuple[tuple[Tensor, ...], bool]:
        """The outputs with their graph, and whether fn gave a single tensor."""
        self.start = tick()
        identity = TABLE["identity"]
        with enable_grad():
            # Behind an identity of its own each input is outside the segment, whoever else uses it.
            ends = [
                apply(identity, (x,)) if isinstance(x, Tensor) and x.node is not None else x
                for x in self.inputs
            ]
            outs = self.fn(*ends)
        single = isinstance(outs, Tensor)
        return ((outs,) if single else tuple(outs)), single


def _frontier(outs: tuple[Tensor, ...], start: int) -> tuple[list[tuple[Node, int]], list]:
    """The nodes made before `start` on which `outs` depend, and what was saved of their values."""
    edges: dict[tuple[Node, int], None] = {}
    saved: dict[int, Any] = {}
    seen: set[Node] = set()
    stack = [out.node for out in outs if out.node is not None]
    for out in outs:
        if out.node is not None and out.node.seq < start:
            edges[out.node, out.output] = None
    while stack:
        node = stack.pop()
        if node in seen or node.seq < start:
            continue
        seen.add(node)
        used = node.outputs_used or (0,) * len(node.parents)
        values = node.inputs or (None,) * len(node.parents)
        for parent, output, value in zip(node.parents, used, values, strict=False):
            if parent is None:
                continue
            stack.append(parent)
            if parent.seq < start:
                edges[parent, output] = None
                if value is not None:
                    saved[id(value)] = value
    return list(edges), list(saved.values())


def _vjp(F: Any, g: Any, out: Any, *saved: Any, needs: tuple[bool, ...], segment: _Segment) -> tuple:
    """Compute the segment again and differentiate it."""
    create_graph = any(isinstance(x, Tensor) for x in g)
    with random.replay(segment.taken):
        before, mode.repeating = mode.repeating, True
        try:
            outs, _ = segment.run()
        finally:
            mode.repeating = before
    if writes.last > segment.made:
        _refuse_changed(outs, out)
    backend = outs[0].backend
    roots = [
        (o, u if isinstance(u, Tensor) else Tensor(u, None, 0, backend))
        for o, u in zip(outs, g, strict=True)
        if u is not None
    ]
    wanted = [
        # Only node and output number count; the array of an outer tensor is not known here.
        Tensor(None, node, output, node.backend)
        for (node, output), need in zip(segment.edges, needs, strict=True)
        if need
    ]
    found = iter(partial_gradients(roots, wanted, create_graph))
    raw = (x if create_graph or x is None else x.array for x in found)
    return tuple(next(raw) if need else None for need in needs)


def _refuse_changed(outs: tuple[Tensor, ...], before: Any) -> None:
    """Not all that fn uses is known, but a write to it shows in what fn computes."""
    for again, first in zip(outs, before, strict=True):
        a, b = again.array, getattr(first, "array", first)
        if not ((a == b) | ((a != a) & (b != b))).all().item():
            raise GraphError(
                "checkpoint: a tensor that the function uses was written to in place since, and so it now "
                "computes another value; call backward() before writing"
            )


def _forward(xp: Any, *inputs: Any, segment: _Segment) -> Any:
    raise AssertionError("checkpoint() makes its node itself")


CHECKPOINT = add_to_table(
    Op(
        name="checkpoint",
        forward=_forward,
        input_names=None,
        params={"segment": None},
        joint=_vjp,
        saves=("*",),
        doc=checkpoint.__doc__ or "",
    )
)
