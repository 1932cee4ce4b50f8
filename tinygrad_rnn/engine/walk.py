"""The backward pass as an object: `Walk` visits nodes from the youngest to the oldest.

A node is visited after all nodes that used it, since they are younger: a heap on the sequence numbers is
all the bookkeeping there is, and neither deep chains nor diamonds need recursion. `step()` visits one
node; `backward()` and `grad()` merely drain the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from ..errors import BackendError, DtypeError, GraphError, ShapeError
from . import annotate
from .node import Node, mode, tick, writes
from .op import TABLE, TENSOR_OPS
from .tensor import Tensor, apply, enable_grad, tensor


class Walk:
    """One backward pass over the graph behind `roots`.

    roots         (tensor, upstream gradient) pairs; gradients are tensors of the same shape
    wanted        None: accumulate into the `grad` of every leaf. Else the tensors whose gradients are
                  collected in `found`, and only what lies on a path to them is visited
    retain_graph  keep what the nodes saved
    create_graph  run the VJPs on tensors and so record them
    partial       take the wanted tensors as independent of one another: do not look behind them
    contributed   is called with a node, the number of one of its inputs, and the gradient that the node
                  contributes to that input, each time one is found
    """

    def __init__(
        self,
        roots: Sequence[tuple[Tensor, Tensor]],
        wanted: Sequence[Tensor] | None = None,
        retain_graph: bool = False,
        create_graph: bool = False,
        partial: bool = False,
        contributed: Callable[[Node, int, Any], None] | None = None,
    ) -> None:
        self.keep = retain_graph or create_graph
        self.create_graph = create_graph
        self._watching, self._contributed = mode.watching, contributed
        self._heap: list[int] = []
        # seq -> [node, cotangent, whether the cotangent's memory belongs to this walk]. For a node with
        # several outputs the cotangent is a list, None where an output has none (yet).
        self._pending: dict[int, list] = {}
        self.found: dict[tuple[Node, int], Any] = {}
        self._wanted: set[Node] | None = None
        self._ends: set[Node] = set()  # where a partial walk stops
        self._on_path: set[Node] | None = None
        if wanted is not None:
            self._wanted = {t.node for t in wanted if t.node is not None}
            self._ends = self._wanted if partial else set()
            self._on_path = _on_path([t.node for t, _ in roots if t.node is not None], self._wanted)
        for root, upstream in roots:
            if root.node is not None:
                self._deliver(root.node, root.output, upstream if create_graph else upstream.array)

    def peek(self) -> tuple[Node, Any] | None:
        """The node that step() will visit, and its cotangent, which is complete; None when done."""
        if not self._heap:
            return None
        node, cotangent, _ = self._pending[-self._heap[0]]
        return node, cotangent

    def step(self) -> Node | None:
        """Visit the youngest node that has a gradient pending, and return it; None when done."""
        if not self._heap:
            return None
        node, g, owned = self._pending.pop(-heappop(self._heap))
        if node.listeners is not None or self._wanted is not None:
            g, owned = self._arrived(node, g), False  # hooks may hold it
        op = node.op
        if op is None:
            if self._wanted is None:
                self._accumulate(node, g, owned)
            return node
        on_path = self._on_path
        if on_path is not None and (node not in on_path or node in self._ends):
            return node

        inputs, out = node.inputs, node.out
        if inputs is None:
            raise GraphError(
                f"the graph behind {op.name} was walked before and freed; call the first backward() "
                "with retain_graph=True, or compute the forward pass again"
            )
        if writes.last > node.seq:
            _refuse_overwritten(node)
        pending, heap = self._pending, self._heap
        params, vjps, watching, contributed = node.params, op.vjps, self._watching, self._contributed
        expected: Any
        if self.create_graph:
            F: Any = TENSOR_OPS
            expected = Tensor
            inputs, out = _as_tensors(node)
        else:
            F = node.backend.F
            expected = node.backend.array_type

        gradients = None if op.joint is None else self._joint(node, F, g, out, inputs)
        own = op.gives_away and not self.create_graph
        gradient: Any
        for number, parent in enumerate(node.parents):
            if parent is None or (on_path is not None and parent not in on_path):
                continue
            if gradients is not None:
                gradient = gradients[number]
                if gradient is None:
                    continue
            else:
                vjp = vjps[number]
                if vjp is None:
                    continue
                gradient = vjp(F, g, out, *inputs, **params) if params else vjp(F, g, out, *inputs)
            if watching:
                annotate.after_vjp(node, number, g, gradient, inputs)
            if (
                gradient.__class__ is not expected
                or gradient.shape != parent.shape
                or gradient.dtype is not parent.dtype
            ):
                gradient = self._fitted(node, number, F, gradient)
            if contributed is not None:
                contributed(node, number, gradient)
            if parent.outputs is not None:
                self._deliver(parent, node.output_used(number), gradient)
                continue
            seq = parent.seq
            entry = pending.get(seq)
            if entry is None:
                pending[seq] = [parent, gradient, own]
                heappush(heap, -seq)
            elif entry[2]:
                entry[1] += gradient
            else:
                entry[1] = entry[1] + gradient
                entry[2] = not self.create_graph and gradient.shape != ()

        if not self.keep:
            node.inputs = node.out = node.residuals = None
        return node

    def drain(self) -> None:
        while self._heap:
            self.step()

    # --- the parts of a visit that are not on the fast path ---------------------------------------

    def _joint(self, node: Node, F: Any, g: Any, out: Any, inputs: Any) -> Any:
        op = node.op
        assert op is not None and op.joint is not None
        on_path = self._on_path
        needs = tuple([p is not None and (on_path is None or p in on_path) for p in node.parents])
        if not any(needs):
            return ()
        if self.create_graph and op.reference is not None:
            return _differentiate_reference(node, g, inputs, needs)
        extra = dict(node.params)
        if op.has_residuals:
            extra["residuals"] = node.residuals
        return op.joint(F, g, out, *inputs, needs=needs, **extra)

    def _deliver(self, node: Node, output: int, gradient: Any) -> None:
        """Add a contribution to the cotangent of one output of a node."""
        entry = self._pending.get(node.seq)
        if entry is None:
            if node.outputs is not None:
                several: list[Any] = [None] * node.outputs
                several[output] = gradient
                entry = [node, several, False]
            else:
                entry = [node, gradient, False]
            self._pending[node.seq] = entry
            heappush(self._heap, -node.seq)
        elif node.outputs is not None:
            present = entry[1][output]
            entry[1][output] = gradient if present is None else present + gradient
        else:
            entry[1] = entry[1] + gradient
            entry[2] = False

    def _arrived(self, node: Node, g: Any) -> Any:
        """The cotangent of this node is complete: run hooks, keep what is to be kept."""
        several = g if node.outputs is not None else [g]
        hooks = node.listeners.hooks if node.listeners is not None else []
        retained = node.listeners.retained if node.listeners is not None else {}
        for output, cotangent in enumerate(several):
            if cotangent is None:
                continue
            for _, at, hook in list(hooks):
                if at == output:
                    cotangent = self._hooked(node, output, hook, cotangent)
            several[output] = cotangent
            if output in retained:
                kept = self._as_tensor(node, cotangent)
                before = retained[output]
                retained[output] = kept if before is None else before + kept
            if self._wanted is not None and node in self._wanted:
                self.found[node, output] = self._as_tensor(node, cotangent)
        return several if node.outputs is not None else several[0]

    def _hooked(self, node: Node, output: int, hook: Callable, cotangent: Any) -> Any:
        replaced = hook(self._as_tensor(node, cotangent))
        if replaced is None:
            return cotangent
        shape, dtype = node.shape_of(output), node.dtype_of(output)
        if not isinstance(replaced, Tensor) or (replaced.shape, replaced.dtype) != (shape, dtype):
            raise ShapeError(
                f"a gradient hook must return None or a {dtype} tensor of shape {shape}, not {replaced!r}"
            )
        if replaced.backend is not node.backend:
            raise BackendError(f"a gradient hook gave a tensor in {replaced.backend}, not in {node.backend}")
        return replaced if self.create_graph else replaced.array

    def _as_tensor(self, node: Node, cotangent: Any) -> Tensor:
        if isinstance(cotangent, Tensor):
            return cotangent
        # A copy: a VJP may have handed on an array that others hold as well.
        return Tensor(node.backend.xp.array(cotangent), None, 0, node.backend)

    def _accumulate(self, leaf: Node, g: Any, owned: bool) -> None:
        arriving = Tensor(g, None, 0, leaf.backend) if owned else self._as_tensor(leaf, g)
        if isinstance(g, Tensor):  # recorded, under create_graph: keep its node, share its array with nobody
            arriving = Tensor(g.backend.xp.array(g.array), g.node, g.output, g.backend)
        if leaf.grad is None:
            leaf.grad = arriving
        elif self.create_graph:
            leaf.grad = leaf.grad + arriving
        else:
            total = leaf.backend.xp.asarray(leaf.grad.array + arriving.array)
            leaf.grad = Tensor(total, None, 0, leaf.backend)

    def _fitted(self, node: Node, number: int, F: Any, gradient: Any) -> Any:
        """A gradient made to fit the parent: summed back where the op broadcast. Else an error."""
        op, parent = node.op, node.parents[number]
        assert op is not None
        output = node.output_used(number)
        shape, dtype, backend = parent.shape_of(output), parent.dtype_of(output), parent.backend
        names = op.input_names
        which = f"{op.name}: the VJP for {names[number] if names else f'input {number}'}"
        if not self.create_graph and gradient.__class__ is not backend.array_type:
            if not isinstance(gradient, np.generic) or backend.array_type is not np.ndarray:
                raise BackendError(f"{which} gave a {type(gradient).__name__}, not an array of {backend}")
            gradient = backend.xp.asarray(gradient)  # NumPy makes scalars of arrays of no dimensions
        elif self.create_graph and (not isinstance(gradient, Tensor) or gradient.backend is not backend):
            raise BackendError(f"{which} gave {gradient!r}, not a tensor in {backend}")
        if gradient.shape != shape:
            summed = sum_to_shape(F, gradient, shape) if op.broadcasts else gradient
            if summed.shape != shape:
                raise ShapeError(f"{which} gave shape {gradient.shape} for an input of shape {shape}")
            gradient = summed
        if gradient.dtype != dtype:
            raise DtypeError(f"{which} gave {gradient.dtype} for an input of {dtype}")
        return gradient


def sum_to_shape(F: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """Undo NumPy's broadcasting: sum over the axes that were added or stretched. A g to whose shape
    `shape` does not broadcast comes back with another shape."""
    extra = len(g.shape) - len(shape)
    if extra < 0:
        return g
    stretched = [extra + axis for axis, size in enumerate(shape) if size == 1 and g.shape[extra + axis] != 1]
    axes = (*range(extra), *stretched)
    summed = F.sum(g, axis=axes, keepdims=True) if axes else g
    return F.reshape(summed, summed.shape[extra:]) if extra else summed


def _on_path(roots: list[Node], wanted: set[Node]) -> set[Node]:
    """The nodes behind `roots` that are in `wanted` or lead to one of them."""
    if not wanted:
        return set()
    oldest = min(node.seq for node in wanted)
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen or node.seq < oldest:
            continue
        seen.add(node)
        stack.extend(parent for parent in node.parents if parent is not None)
    found: set[Node] = set()
    for node in sorted(seen, key=lambda n: n.seq):
        if node in wanted or any(parent in found for parent in node.parents):
            found.add(node)
    return found


def _as_tensors(node: Node) -> tuple[list, Any]:
    """What a node saved, as tensors that are connected to the graph again."""
    backend = node.backend
    used = node.outputs_used or (0,) * len(node.parents)
    inputs: list[Any] = [
        # For an op between backends an input lives elsewhere, but such an op saves no values.
        Tensor(saved, parent, output, backend) if isinstance(saved, backend.array_type) else saved
        for saved, parent, output in zip(node.inputs, node.parents, used, strict=False)
    ]
    if node.out is None:
        return inputs, None
    if node.outputs is None:
        return inputs, Tensor(node.out, node, 0, backend)
    return inputs, tuple(Tensor(out, node, i, backend) for i, out in enumerate(node.out))


def _differentiate_reference(node: Node, g: Any, inputs: list, needs: tuple[bool, ...]) -> tuple:
    """The gradients of a fused op as recorded tensors, through its textbook equations.

    The op's inputs may depend on one another, but its VJP must not look behind them: each is passed
    through a fresh identity node, and the inner derivative stops there.
    """
    assert node.op is not None and node.op.reference is not None
    identity = TABLE["identity"]
    fresh = [apply(identity, (x,)) if isinstance(x, Tensor) and x.node else x for x in inputs]
    outs = node.op.reference(TENSOR_OPS, *fresh, **node.params)
    outs = outs if isinstance(outs, tuple) else (outs,)
    upstream = g if isinstance(g, list) else [g]
    pairs = [(o, u) for o, u in zip(outs, upstream, strict=True) if u is not None]
    wanted = [x for x, need in zip(fresh, needs, strict=True) if need]
    found = iter(partial_gradients(pairs, wanted, create_graph=True))
    return tuple(next(found) if need else None for need in needs)


def partial_gradients(
    roots: Sequence[tuple[Tensor, Tensor]], wanted: Sequence[Tensor], create_graph: bool
) -> list[Tensor | None]:
    """The gradients for `wanted`, not looking behind them even where one depends on another: what the VJP
    of a subgraph from `wanted` to `roots` is made of."""
    walk = Walk(roots, wanted, create_graph=create_graph, partial=True)
    _run(walk)
    return [walk.found.get((x.node, x.output)) for x in wanted if x.node is not None]


def _refuse_overwritten(node: Node) -> None:
    assert node.op is not None
    names = node.op.input_names
    saved = [(names[i] if names else f"input {i}", a) for i, a in enumerate(node.inputs)]
    saved += [("result", o) for o in (node.out if isinstance(node.out, tuple) else (node.out,))]
    for what, array in saved:
        if isinstance(array, node.backend.array_type) and writes.written_since(array, node.seq):
            raise GraphError(
                f"{node.op.name} saved its {what} of shape {array.shape} for the backward pass, and it was "
                "written to in place since (by an optimiser's step, or under no_grad); call backward() "
                "before writing, or compute the forward pass again"
            )


# --- what users call ------------------------------------------------------------------------------


def backward(
    root: Tensor, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False
) -> None:
    """`Tensor.backward`."""
    if root.node is None:
        raise GraphError(
            "backward() on a tensor that needs no gradient: none of the tensors it was computed from has "
            "requires_grad=True, or it was computed inside tg.no_grad() or after detach()"
        )
    walk = Walk([(root, _upstream(root, gradient))], None, retain_graph, create_graph)
    _run(walk)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    retain_graph: bool | None = None,
) -> Any:
    """The gradient of (the sum over) `outputs` with respect to `inputs`, without touching any `.grad`.

    outputs, inputs: a tensor or a sequence of them; inputs need not be leaves.
    grad_outputs: upstream gradients, one an output; may be None for outputs of one element.
    create_graph: record the derivative, so that it can be differentiated again.
    allow_unused: give None for an input that the outputs do not depend on, instead of an error.
    retain_graph: as for backward(); follows create_graph unless given.

    Returns a tensor for a single input, a tuple for a sequence.
    """
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None or isinstance(grad_outputs, Tensor) or not isinstance(grad_outputs, Sequence):
        grad_outputs = [grad_outputs] * (1 if grad_outputs is not None else len(outs))
    if len(grad_outputs) != len(outs):
        raise ShapeError(f"{len(outs)} outputs and {len(grad_outputs)} grad_outputs; give one for each")
    for i, x in enumerate(ins):
        if x.node is None and not allow_unused:
            raise GraphError(f"input {i} of shape {x.shape} does not require a gradient")
    roots = [(o, _upstream(o, g)) for o, g in zip(outs, grad_outputs, strict=True) if o.node is not None]
    keep = create_graph if retain_graph is None else retain_graph
    walk = Walk(roots, ins, keep, create_graph)
    _run(walk)
    found = [None if x.node is None else walk.found.get((x.node, x.output)) for x in ins]
    if not allow_unused:
        for i, (x, g) in enumerate(zip(ins, found, strict=True)):
            if g is None:
                raise GraphError(
                    f"the outputs do not depend on input {i} of shape {x.shape}; "
                    "allow_unused=True gives None for it"
                )
    return found[0] if isinstance(inputs, Tensor) else tuple(found)


def _run(walk: Walk) -> None:
    if walk.create_graph:
        with enable_grad():
            walk.drain()
    else:
        walk.drain()


def _upstream(root: Tensor, gradient: Any) -> Tensor:
    if gradient is None:
        if root.size != 1:
            raise ShapeError(
                f"the upstream gradient can be left out for one element only; this output has shape "
                f"{root.shape}: pass a gradient of that shape, or reduce it with sum() or mean()"
            )
        return Tensor(root.backend.xp.ones(root.shape, root.dtype), None, 0, root.backend)
    if not isinstance(gradient, Tensor):
        gradient = tensor(gradient, dtype=root.dtype, backend=root.backend)
    if gradient.backend is not root.backend:
        raise BackendError(f"the upstream gradient lives in {gradient.backend}, the output in {root.backend}")
    if gradient.shape != root.shape:
        raise ShapeError(f"upstream gradient of shape {gradient.shape} for an output of {root.shape}")
    if gradient.dtype == root.dtype:
        return gradient
    return apply(TABLE["astype"], (gradient,), {"dtype": root.dtype})


class HookHandle:
    """Returned by Tensor.register_hook()."""

    def __init__(self, node: Node, output: int, hook: Callable) -> None:
        self._node, self._id = node, tick()
        node.listened().hooks.append((self._id, output, hook))

    def remove(self) -> None:
        """Take the hook away; again does nothing."""
        hooks = self._node.listened().hooks
        hooks[:] = [h for h in hooks if h[0] != self._id]
