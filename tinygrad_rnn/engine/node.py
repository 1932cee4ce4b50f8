"""What the graph is made of: `Node`, the clock that orders nodes, and the log of in-place writes.

A node is not a tensor. It knows the op that was applied, the nodes of the inputs, and the raw arrays
that the backward pass will need. `Tensor` (tensor.py) points to a node; no node points to a tensor, so
there are no reference cycles, and dropping the last tensor of a graph frees all of it at once.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backend import Backend
    from .op import Op

tick = itertools.count(1).__next__
"""The clock. A node takes the next tick when it is made, and so does every in-place write: hence a
node is always younger than its parents, and a write is younger than what was saved before it."""


class Mode(threading.local):
    """Per-thread switches, read on every op."""

    recording = True  # no_grad() turns this off
    repeating = False  # checkpoint() computes again what was computed before: what it wrote, it has written
    annotating = False  # annotate(): nodes get a name, module path, time step, file and line
    anomaly = False  # detect_anomaly(): every value and gradient is checked
    watching = False  # annotating or anomaly: the only one that the fast path looks at


mode = Mode()


class Notes:
    """Where a node came from, as far as annotate() or named() noted it."""

    __slots__ = ("location", "module", "name", "time_step")

    def __init__(self) -> None:
        self.name: str | None = None  # "forget gate"
        self.module: str | None = None  # dotted path of the module
        self.time_step: int | None = None
        self.location: str | None = None  # the user's file and line


class Listeners:
    """Who wants to know the gradient of a tensor when it is complete."""

    __slots__ = ("hooks", "retained")

    def __init__(self) -> None:
        self.hooks: list[tuple[int, int, Callable]] = []  # (handle id, output number, function)
        self.retained: dict[int, Any] = {}  # output number -> gradient, after retain_grad()


class Node:
    """One application of an op, or (with `op` None) a leaf: a tensor that the user made.

    op        the Op, None for a leaf
    parents   one node an input, None where that input needs no gradient
    inputs    what the VJP will see of each input: raw array, Shaped, Python number or None.
              None as a whole once it was freed
    out       the saved result (raw array or tuple of them), where the op asks for it
    params    keyword arguments of the op
    shape, dtype, backend  of the result; tuples of shapes and dtypes where the op has several
    seq       the tick at which the node was made
    outputs   None for an op with one result, else the number of results
    outputs_used  for each input the number of the parent's output that it is; None if all are 0
    residuals what a kernel keeps for its own backward pass
    grad      of a leaf: the accumulated gradient, a Tensor
    """

    __slots__ = (
        "__weakref__",
        "backend",
        "dtype",
        "grad",
        "inputs",
        "listeners",
        "notes",
        "op",
        "out",
        "outputs",
        "outputs_used",
        "params",
        "parents",
        "residuals",
        "seq",
        "shape",
    )

    def __init__(
        self,
        op: Op | None,
        parents: Any,
        inputs: Any,
        out: Any,
        params: Any,
        shape: Any,
        dtype: Any,
        backend: Backend,
    ) -> None:
        self.op = op
        self.parents = parents
        self.inputs = inputs
        self.out = out
        self.params = params
        self.shape = shape
        self.dtype = dtype
        self.backend = backend
        self.seq = tick()
        self.outputs: int | None = None
        self.outputs_used: tuple[int, ...] | None = None
        self.residuals: Any = None
        self.grad: Any = None
        self.listeners: Listeners | None = None
        self.notes: Notes | None = None

    def __repr__(self) -> str:
        label = "leaf" if self.op is None else self.op.name
        where = [
            repr(self.name) if self.name else None,
            f"in {self.module}" if self.module else None,
            f"t={self.time_step}" if self.time_step is not None else None,
            self.location,
        ]
        return f"<Node {' '.join([label, str(self.shape), *filter(None, where)])}>"

    @property
    def name(self) -> str | None:
        return None if self.notes is None else self.notes.name

    @property
    def module(self) -> str | None:
        return None if self.notes is None else self.notes.module

    @property
    def time_step(self) -> int | None:
        return None if self.notes is None else self.notes.time_step

    @property
    def location(self) -> str | None:
        return None if self.notes is None else self.notes.location

    def noted(self) -> Notes:
        """The notes, to be written to."""
        if self.notes is None:
            self.notes = Notes()
        return self.notes

    def listened(self) -> Listeners:
        """The listeners, to be added to."""
        if self.listeners is None:
            self.listeners = Listeners()
        return self.listeners

    def shape_of(self, output: int) -> tuple[int, ...]:
        return self.shape if self.outputs is None else self.shape[output]

    def output_used(self, number: int) -> int:
        """Which output of parents[number] this node used."""
        return 0 if self.outputs_used is None else self.outputs_used[number]

    def dtype_of(self, output: int) -> Any:
        return self.dtype if self.outputs is None else self.dtype[output]


class Shaped(NamedTuple):
    """Stands in for an input of which a VJP needs the shape and the dtype, not the values."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)


class WriteLog:
    """Remembers when an array was last written to in place: the version count of saved arrays.

    An array is known by the identity of the memory it views. Should that memory be freed and its
    identity taken by a new array, the entry is older than every node which saves the new one, so it
    does no harm.
    """

    def __init__(self) -> None:
        self.last = 0  # the tick of the latest write to anything: the quick test of the backward walk
        self._by_owner: dict[int, int] = {}

    def note(self, array: Any) -> None:
        """Say that `array` was just written to."""
        self.last = self._by_owner[id(_owner(array))] = tick()

    def written_since(self, array: Any, seq: int) -> bool:
        return self._by_owner.get(id(_owner(array)), 0) > seq


def _owner(array: Any) -> Any:
    """The array that owns the memory which `array` views."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


writes = WriteLog()
