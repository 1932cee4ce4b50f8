"""`Tape`: a graph that was walked backward with everything kept, so that it can be looked at.

The walk is the engine's own. What it forgets as it goes is written down here: the cotangent of each node and
each contribution to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..engine.node import Node
from ..engine.tensor import Tensor
from ..engine.walk import Walk
from ..errors import GraphError, UsageError


class Contribution(NamedTuple):
    """What one node gave to the gradient of one of its inputs.

    node      the one that gave it: it used the input
    number    which of its inputs that is
    gradient  a host array of the input's shape
    """

    node: Node
    number: int
    gradient: np.ndarray


class Tape:
    """The graph behind `root`, walked backward once.

    root           the tensor that was differentiated
    upstream       the gradient it began with; ones for a single number
    nodes          all that a gradient reached or could reach, oldest first; leaves among them
    numbers        node -> its place in `nodes`, from 1: what views call #17
    order          the nodes in the order in which the backward pass visited them
    gradients      node -> its cotangent: a host array; of a node with several outputs a list, None where an
                   output has none. Nodes that no gradient reached are missing.
    contributions  node -> what its cotangent is the sum of, in the order in which it came
    """

    @np.errstate(all="ignore")  # what is not finite is there to be looked at
    def __init__(self, root: Tensor, values: Mapping[Node, Any], upstream: Tensor | None = None) -> None:
        if root.node is None:
            raise GraphError("this tensor needs no gradient: nothing that it was computed from does")
        if upstream is None:
            upstream = Tensor(root.backend.xp.ones(root.shape, root.dtype), None, 0, root.backend)
        self.root, self.upstream = root, upstream
        self.nodes = behind(root.node)
        if any(node.inputs is None for node in self.nodes if node.op is not None):
            raise GraphError(
                "the graph was walked before and freed; call backward(retain_graph=True), or compute it again"
            )
        self.numbers = {node: number for number, node in enumerate(self.nodes, 1)}
        self.order: list[Node] = []
        self.gradients: dict[Node, Any] = {}
        self.contributions: dict[Node, list[Contribution]] = {}
        self.users: dict[Node, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for number, parent in enumerate(node.parents):
                if parent is not None:
                    self.users.setdefault(parent, []).append((node, number))
        self._values = values
        # Now, while it is there: backward() frees what nodes have saved.
        self._of_leaves = {node: self._saved(node) for node in self.nodes if node.op is None}
        listening = [node.listeners for node in self.nodes if node.listeners is not None]
        retained = [dict(listeners.retained) for listeners in listening]
        leaves = [Tensor(None, node, 0, node.backend) for node in self.nodes if node.op is None]
        walk = Walk([(root, upstream)], leaves, retain_graph=True, contributed=self._contributed)
        while (arrived := walk.peek()) is not None:
            node, cotangent = arrived
            self.order.append(node)
            self.gradients[node] = _kept(node, cotangent)
            walk.step()
        for listeners, before in zip(listening, retained, strict=True):
            listeners.retained.update(before)  # looking adds nothing to what retain_grad() keeps

    def _contributed(self, node: Node, number: int, gradient: Any) -> None:
        parent = node.parents[number]
        # Only what an op gives away may be added to later on.
        gives_away = node.op is not None and node.op.gives_away
        gradient = on_host(parent, gradient) if gives_away else _kept(parent, gradient)
        self.contributions.setdefault(parent, []).append(Contribution(node, number, gradient))

    @cached_property
    def steps(self) -> dict[Node, int]:
        """Which step of the backward pass visits each node, from 1; nodes that none visits are missing."""
        return {node: step for step, node in enumerate(self.order, 1)}

    @cached_property
    def given(self) -> dict[Node, list[Contribution]]:
        """Node -> what it handed on, in the order of its inputs; of nodes that handed on nothing no entry."""
        found: dict[Node, list[Contribution]] = {}
        for contributions in self.contributions.values():
            for contribution in contributions:
                found.setdefault(contribution.node, []).append(contribution)
        return {node: sorted(given, key=lambda one: one.number) for node, given in found.items()}

    def value(self, node: Node) -> Any:
        """What the node computed, or of a leaf what it is: a host array, a tuple of them for several
        outputs; None if nobody kept it."""
        if node is self.root.node and node.outputs is None:
            return on_host(node, self.root.array)
        kept = self._values.get(node)
        if kept is None:
            kept = node.out
        if kept is None:
            kept = self._of_leaves.get(node) if node.op is None else self._saved(node)
        return None if kept is None else on_host(node, kept)

    def _saved(self, node: Node) -> Any:
        """What a user of the node saved of it for its own VJP; None if none did."""
        if node.outputs is None:
            for user, number in self.users.get(node, ()):
                saved = user.inputs[number] if user.op is not None and user.inputs is not None else None
                if isinstance(saved, node.backend.array_type):
                    return saved
        return None

    def saved_bytes(self, node: Node) -> int:
        """What this node alone keeps for its VJP, in bytes; arrays that others hold as well count too."""
        kept = [*(node.inputs or ()), *(node.out if isinstance(node.out, tuple) else (node.out,))]
        return sum(int(array.nbytes) for array in kept if isinstance(array, node.backend.array_type))


def require_saved(node: Node) -> None:
    """UsageError for a node whose operands backward() has given back since the tape was made."""
    if node.op is not None and node.inputs is None:
        raise UsageError(
            "backward() has freed this graph: compute it again and `focus` on it, or use "
            "backward(retain_graph=True); `window` runs the window again"
        )


def behind(root: Node) -> list[Node]:
    """The nodes that `root` depends on and itself, oldest first."""
    seen: set[Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(parent for parent in node.parents if parent is not None)
    return sorted(seen, key=lambda node: node.seq)


def _kept(node: Node, value: Any) -> Any:
    """In host memory; no copy where it is there already: the gradients of weights are large."""
    if isinstance(value, list):
        return [None if one is None else _kept(node, one) for one in value]
    return value if node.backend.array_type is np.ndarray else on_host(node, value)


def on_host(node: Node, value: Any) -> Any:
    """An array, or a sequence of them, as copies in host memory."""
    if isinstance(value, (tuple, list)):
        return [None if one is None else on_host(node, one) for one in value]
    return np.array(value) if isinstance(value, (float, int, np.generic)) else node.backend.to_host(value)
