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
    annotating = False  # annotate(): nodes get a name, module path, time step, file and line
    anomaly = False  # detect_anomaly(): every value and gradient is checked
    watching = False  # annotating or anomaly: the only one that the fast path looks at


mode = Mode()


class Node:
    """One application of an op, or (with `op` None) a leaf: a tensor that the user made.

    op       the Op, None for a leaf
    parents  one node an input, None where that input needs no gradient
    outputs_used  for each input the number of the parent's output that it is; None if all are 0
    inputs   what the VJP will see of each input: raw array, Shaped, Python number or None.
             None as a whole once it was freed
    out      the saved result (raw array or tuple of them), where the op asks for it
    params   keyword arguments of the op
    shape, dtype, backend  of the result; tuples of shapes and dtypes where the op has several
    outputs  None for an op with one result, else the number of results
    seq      the tick at which the node was made
    """

    outputs_used: tuple[int, ...] | None = None
    outputs: int | None = None
    residuals: Any = None
    # What belongs to the gradient. The rare things stay class attributes until somebody sets them.
    grad: Any = None
    hooks: list[tuple[int, int, Callable]] | None = None  # (handle id, output number, function)
    retained: dict[int, Any] | None = None  # output number -> gradient, after retain_grad()
    # What annotate() notes.
    name: str | None = None
    module: str | None = None
    time_step: int | None = None
    location: str | None = None

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

    def __repr__(self) -> str:
        label = "leaf" if self.op is None else self.op.name
        notes = [
            repr(self.name) if self.name else None,
            f"in {self.module}" if self.module else None,
            f"t={self.time_step}" if self.time_step is not None else None,
            self.location,
        ]
        return f"<Node {' '.join([label, str(self.shape), *filter(None, notes)])}>"

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
