"""Notes on nodes (name, module path, time step, file and line), and the watch for NaN and infinity.

Both cost time, so both happen only when asked for: `with annotate():` or `with detect_anomaly():`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from ..errors import AnomalyError
from .node import Node, mode
from .op import TENSOR_OPS, Op

T = TypeVar("T")
_MACHINERY = os.path.dirname(os.path.abspath(__file__)) + os.sep
_PACKAGE = os.path.dirname(os.path.dirname(_MACHINERY)) + os.sep
_EQUATIONS = os.path.join(_MACHINERY, "ops", "recurrent.py")


class Observer(Protocol):
    """Is shown what is computed under annotate(observer)."""

    def made(self, node: Node, out: Any) -> None:
        """A node of the graph was made, and this is its result: an array, or a tuple of them."""

    def named(self, name: str, value: Any) -> Any:
        """`value` was given this name, at scope.module and scope.time_step. What is returned goes on in its
        place: the same tensor, or another of its shape (a gate held open)."""


class _Scope(threading.local):
    module: str | None = None
    time_step: int | None = None
    first_step = 0  # what time steps are counted from, where a text is read in parts
    observer: Observer | None = None
    inside = False  # whether lines of this package's own equations are noted, not those that called for them
    location: str | None = None  # while something is replayed: where the user asked for it


scope = _Scope()


@contextmanager
def annotate(observer: Observer | None = None, inside: bool = False) -> Iterator[None]:
    """Note on every node made in this block where it came from, and show the observer what is computed.

    inside: note the line of the equations (`f * c + i * g` in lstm_cell), not the line that called for them.
    """
    before = scope.observer, scope.inside
    scope.observer, scope.inside = observer or scope.observer, inside
    try:
        with _watching(annotating=True):
            yield
    finally:
        scope.observer, scope.inside = before


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Raise AnomalyError at the first value or gradient in this block that is not finite.

    The error names the op, whether the value was born there or came in with an operand, the index, the
    operands' values, and the module, time step, file and line as far as they are known. Inside a fused
    sequence op the textbook equations are replayed to find the place. Slow: every result is checked.
    """
    with _watching(anomaly=True), np.errstate(all="ignore"):  # the error says it better
        yield


@contextmanager
def _watching(**switches: bool) -> Iterator[None]:
    before = mode.annotating, mode.anomaly, mode.watching
    for name in switches:
        setattr(mode, name, True)
    mode.watching = True
    try:
        yield
    finally:
        mode.annotating, mode.anomaly, mode.watching = before


@contextmanager
def module_scope(path: str) -> Iterator[None]:
    """Nodes made in this block belong to the module of that path."""
    before, scope.module = scope.module, path
    try:
        yield
    finally:
        scope.module = before


@contextmanager
def time_step(number: int) -> Iterator[None]:
    """Nodes made in this block belong to that time step."""
    before, scope.time_step = scope.time_step, scope.first_step + number
    try:
        yield
    finally:
        scope.time_step = before


@contextmanager
def time_steps_from(first: int) -> Iterator[None]:
    """Time steps in this block are counted from `first`: a text that is read in parts has one count."""
    before, scope.first_step = scope.first_step, first
    try:
        yield
    finally:
        scope.first_step = before


def named(name: str, value: T) -> T:
    """Give the node of a tensor a name to be shown ("forget gate"); returns the tensor."""
    if not mode.watching:
        return value
    node = getattr(value, "node", None)
    if node is not None:
        node.noted().name = name
    return value if scope.observer is None else scope.observer.named(name, value)


def user_location() -> str | None:
    """File and line of the innermost caller outside this package, or outside the engine's machinery."""
    frame: Any = sys._getframe(1)
    hidden = _MACHINERY if scope.inside else _PACKAGE
    while frame is not None and frame.f_code.co_filename.startswith(hidden):
        if frame.f_code.co_filename == _EQUATIONS and scope.inside and frame.f_code.co_name != "linear":
            break
        frame = frame.f_back
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def after_forward(op: Op, inputs: tuple, params: dict, out: Any, node: Node | None) -> None:
    """Called by apply() while watching."""
    if node is not None:
        notes = node.noted()
        notes.module, notes.time_step = scope.module, scope.time_step
        notes.location = scope.location or user_location()
        if scope.observer is not None:
            scope.observer.made(node, out)
    if mode.anomaly:
        outs = out if isinstance(out, tuple) else (out,)
        if any(_first_bad(o) is not None for o in outs):
            operands = [getattr(x, "array", x) for x in inputs]
            born = not any(_first_bad(a) is not None for a in operands)
            if born and op.reference is not None:
                op.reference(TENSOR_OPS, *inputs, **params)  # raises where it happens
            bad = next(o for o in outs if _first_bad(o) is not None)
            place = node if node is not None else _Here()
            raise _error(op, "value", bad, born, _with_names(op, operands), place)


def after_vjp(node: Node, number: int, g: Any, gradient: Any, inputs: Any) -> None:
    """Called by the backward walk while watching: the gradient that node's VJP gave input `number`."""
    if not mode.anomaly or node.op is None:
        return
    gradient = getattr(gradient, "array", gradient)
    if _first_bad(gradient) is None:
        return
    upstream = g if isinstance(g, (tuple, list)) else (g,)
    born = not any(_first_bad(getattr(u, "array", u)) is not None for u in upstream)
    if born and node.op.reference is not None:
        _replay_backward(node, g, inputs)
    seen = _with_names(node.op, inputs)
    seen += [("result", out) for out in (node.out if isinstance(node.out, tuple) else (node.out,))]
    seen += [("upstream gradient", u) for u in upstream]
    raise _error(node.op, f"gradient for {seen[number][0]}", gradient, born, seen, node)


def _with_names(op: Op, operands: Any) -> list[tuple[str, Any]]:
    names = op.input_names or tuple(f"input {i}" for i in range(len(operands)))
    return list(zip(names, operands, strict=False))


def _replay_backward(node: Node, g: Any, inputs: Any) -> None:
    from .tensor import Tensor, leaf_node
    from .walk import grad

    def leaf(array: Any) -> Any:
        if not hasattr(array, "dtype") or array.dtype.kind != "f":
            return array
        return Tensor(array, leaf_node(array, node.backend), 0, node.backend)

    leaves = [leaf(getattr(a, "array", a)) for a in inputs]
    before = scope.module, scope.location
    scope.module, scope.location = node.module, node.location
    try:
        outs = node.op.reference(TENSOR_OPS, *leaves, **node.params)  # type: ignore[union-attr,misc]
    finally:
        scope.module, scope.location = before
    outs = outs if isinstance(outs, tuple) else (outs,)
    upstream = g if isinstance(g, (tuple, list)) else (g,)
    pairs = [(o, u) for o, u in zip(outs, upstream, strict=True) if u is not None]
    raw = [Tensor(getattr(u, "array", u), None, 0, node.backend) for _, u in pairs]
    wanted = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    grad([o for o, _ in pairs], wanted, raw, allow_unused=True)


class _Here:
    """Stands in for a node where nothing is recorded."""

    name = None

    def __init__(self) -> None:
        self.module, self.time_step, self.location = scope.module, scope.time_step, user_location()


def _first_bad(array: Any) -> tuple[int, ...] | None:
    """Index of the first element that is not finite."""
    if isinstance(array, float):
        return None if np.isfinite(array) else ()
    if getattr(getattr(array, "dtype", None), "kind", "") != "f":
        return None
    host = array.get() if hasattr(array, "get") else np.asarray(array)
    bad = ~np.isfinite(host)
    if not bad.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), host.shape))


def _error(op: Op, what: str, bad: Any, born: bool, seen: list[tuple[str, Any]], place: Any) -> AnomalyError:
    index = _first_bad(bad)
    value = float(np.asarray(bad.get() if hasattr(bad, "get") else bad)[index])
    origin = (
        "born here: its operands are finite"
        if born
        else "not born here: an operand or the upstream gradient was not finite already"
    )
    lines = [f"{op.name}: the {what} is {value} at index {index} ({origin})"]
    for name, value_seen in seen:
        if value_seen is None:  # no bias, or an operand that the backward pass did not need
            continue
        if _elementwise(op):
            shown = _value_at(value_seen, index, getattr(bad, "shape", ()))
        else:  # the result's index says nothing of the operands: show what is wrong in them, if anything
            shown = _value_at(value_seen, _first_bad(getattr(value_seen, "array", value_seen)), None)
        lines.append(f"  {name} = {shown}")
    where = [
        f"{place.name}" if place.name else None,
        f"module {place.module}" if place.module else None,
        f"time step {place.time_step}" if place.time_step is not None else None,
        place.location,
    ]
    lines += [f"  {', '.join(filter(None, where))}"] if any(where) else []
    error = AnomalyError("\n".join(lines))
    error.op, error.born, error.index, error.value = op.name, born, index, value  # type: ignore[attr-defined]
    error.module, error.time_step = place.module, place.time_step  # type: ignore[attr-defined]
    error.location = place.location  # type: ignore[attr-defined]
    return error


def _elementwise(op: Op) -> bool:
    """Whether an element of the result comes from the operands' elements at the same place alone."""
    if isinstance(op.forward, str):
        return getattr(getattr(np, op.forward, None), "signature", "") is None  # matmul has one
    return op.input_names is not None and len(op.input_names) == 1 and not op.params and op.joint is None


def _value_at(operand: Any, index: tuple[int, ...] | None, shape: tuple[int, ...] | None) -> str:
    """The operand's range, and its element at `index`, if any, of `shape` (None: its own)."""
    array = getattr(operand, "array", operand)
    if not hasattr(array, "dtype") or not hasattr(array, "ndim"):
        return repr(operand)
    if not hasattr(array, "reshape"):
        return f"{array.dtype}{list(array.shape)} (not kept)"
    host = array.get() if hasattr(array, "get") else np.asarray(array)
    if not host.size:
        return f"{host.dtype}{list(host.shape)}"
    extent = f"{host.dtype}{list(host.shape)} from {host.min()} to {host.max()}"
    if index is None:
        return extent
    try:
        there = np.broadcast_to(host, host.shape if shape is None else shape)[index].item()
    except ValueError:
        return extent
    return f"{there!r}, in {extent}" if host.size > 1 else repr(there)
