"""What a node computed and what it computed it from, also where nobody kept it; and where it was made.

An op saves what its VJPs read, and no more: `a + b` saves nothing. What is missing is the value of a node
that somebody kept, or can be computed again from what was kept, or, for a constant, follows from the result.
"""

from __future__ import annotations

import linecache
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..engine.node import Node
from ..engine.tensor import Tensor, apply, no_grad
from .address import label
from .tape import Tape, on_host

if TYPE_CHECKING:
    from .session import Session


class Operand(NamedTuple):
    """One input of a node.

    name     what the op calls it: "a"
    node     the node that it came from; None for a constant
    value    a host array, a Python number, or None (no bias)
    unknown  nothing tells what it was
    """

    name: str
    node: Node | None
    value: Any
    unknown: bool


class Values:
    """The value of every node of the tape that is looked at, as far as it can be known."""

    def __init__(self, session: Session) -> None:
        self.tape: Tape = session.focus
        named = [x for x in session.namespace.values() if isinstance(x, Tensor) and x.node is not None]
        self._named = {x.node: x for x in named if x.node is not None and x.node.outputs is None}
        self._found: dict[Node, Any] = {}

    def of(self, node: Node) -> Any:
        """A host array; a list of them for several outputs; None where nothing tells what it was."""
        todo = [node]
        while todo:  # no recursion: a chain may be long
            one = todo[-1]
            if one not in self._found:
                value = self._kept(one)
                if value is None and one.op is not None:
                    needed = [p for n, p in enumerate(one.parents) if p is not None and not _saved(one, n)]
                    if missing := [parent for parent in needed if parent not in self._found]:
                        todo.extend(missing)
                        continue
                    value = self._again(one)
                self._found[one] = value
            todo.pop()
        return self._found[node]

    def operands(self, node: Node) -> list[Operand]:
        """The inputs of a node, in their order; none of a leaf."""
        if node.op is None:
            return []
        found = []
        for number, (name, parent) in enumerate(zip(input_names(node), node.parents, strict=False)):
            value = self._operand(node, number, parent)
            found.append(Operand(name, parent, value, value is None and not _saved(node, number)))
        return found

    def _kept(self, node: Node) -> Any:
        value = self.tape.value(node)
        if value is None and node in self._named:
            value = on_host(node, self._named[node].array)
        return value

    def _operand(self, node: Node, number: int, parent: Node | None) -> Any:
        if _saved(node, number):
            saved = node.inputs[number]
            return on_host(node, saved) if isinstance(saved, node.backend.array_type) else saved
        if parent is not None:
            value = self.of(parent)
            return value[node.output_used(number)] if isinstance(value, list) else value
        return self._constant(node, number)

    def _constant(self, node: Node, number: int) -> Any:
        """A constant that was not saved, as it follows from the result: of ops that save no values."""
        assert node.op is not None
        out = self._kept(node)
        if out is None:
            return None
        if node.op.name in ("add", "subtract"):
            other = node.parents[1 - number]
            known = None if other is None else self._operand(node, 1 - number, other)
            if known is None:
                return None
            if node.op.name == "add":
                return out - known
            return known - out if number == 1 else out + known
        if node.op.name == "where":
            return out  # where the condition chose this input, and elsewhere it does not matter
        if node.op.name == "stack":
            return np.take(out, number, axis=node.params["axis"])
        if node.op.name == "concatenate" and node.params["axis"] is not None:
            axis = node.params["axis"] % out.ndim
            sizes = [shaped.shape[axis] for shaped in node.inputs]
            start = sum(sizes[:number])
            return np.take(out, range(start, start + sizes[number]), axis=axis)
        return None

    def _again(self, node: Node) -> Any:
        """The op applied once more."""
        assert node.op is not None
        operands = self.operands(node)
        if node.inputs is None or any(operand.unknown for operand in operands):
            return None
        inputs = tuple(as_tensor(node, operand.value) for operand in operands)
        with no_grad(), np.errstate(all="ignore"):
            out = apply(node.op, inputs, node.params)
        return [x.numpy() for x in out] if isinstance(out, tuple) else out.numpy()


def _saved(node: Node, number: int) -> bool:
    """Whether the node kept the value of this input; where it keeps all, None is a value too (no bias)."""
    if node.inputs is None or node.op is None:
        return False
    saved = node.inputs[number]
    return node.op.saves_all or isinstance(saved, (node.backend.array_type, int, float))


def as_tensor(node: Node, value: Any) -> Any:
    """An operand for the op of that node: a host array as a tensor in its backend, anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return Tensor(node.backend.from_host(value), None, 0, node.backend)


# --- what views say of a node ---------------------------------------------------------------------


def input_names(node: Node) -> list[str]:
    """What the op calls its inputs; x0, x1, ... where there may be any number of them. None of a leaf."""
    if node.op is None:
        return []
    return list(node.op.input_names or (f"x{i}" for i in range(len(node.parents))))


def shape_text(shape: Any) -> str:
    """(1, 32); of several outputs 4 x (1, 32), or each."""
    if shape and isinstance(shape[0], tuple):
        return f"{len(shape)} x {shape[0]}" if len({*shape}) == 1 else " and ".join(map(str, shape))
    return str(tuple(shape))


def called(session: Session, node: Node) -> str:
    """Its address and its op: "h_l1[3] (multiply)"."""
    name = label(session, node)
    if node.op is None:
        return name
    return f"{name} ({node.op.name})"


def made_at(session: Session, node: Node) -> list[tuple[str, str]]:
    """Facts: the module, the time step and what is read there, the file, the line and what stands on it."""
    facts = []
    if node.module:
        facts.append(("module", node.module))
    if node.time_step is not None:
        read = session.text[node.time_step] if session.at_window else ""
        facts.append(("time step", f"{node.time_step}" + (f", reading {read!r}" if read else "")))
    if node.location:
        file, _, line = node.location.rpartition(":")
        text = linecache.getline(file, int(line)).strip()
        facts.append(("line", f"{os.path.basename(file)}:{line}" + (f"  {text}" if text else "")))
    return facts


def cut_after(session: Session, node: Node) -> list[tuple[str, str]]:
    """A fact: where the state is cut off after this node of the window; none where it is not."""
    if not session.at_window or node not in session.focus.numbers or node.time_step is None:
        return []
    later = [cut for cut in session.recording.cuts if cut > node.time_step]
    if not later:
        return []
    text = f"the state is cut off before step {later[0]}: losses from there on do not come back to this one"
    return [("cut", text)]


def parts(value: Any) -> list[Any]:
    """The arrays of a value or a gradient: one, or of several outputs those that there are."""
    return [part for part in value if part is not None] if isinstance(value, list) else [value]


def norm(value: Any) -> float:
    """Euclidean, of an array or of all arrays of a list; without overflow."""
    arrays = [np.asarray(part, np.float64).ravel() for part in parts(value)]
    return math.hypot(*(float(np.linalg.norm(array)) for array in arrays)) if arrays else 0.0
