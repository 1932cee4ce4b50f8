"""The local Jacobian of a node: how each element of its result depends on each element of one of its inputs.

Rows are the elements of the result (of all outputs, one after another), columns those of the input, both in
the order in which NumPy's ravel() takes them. A backward pass never forms this matrix: the op's VJP gives the
product of its transpose with the upstream gradient. Here it is described, by what the op is, and where it is
small enough written out, by pushing unit upstream gradients through the VJP.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.node import Node
from ..engine.walk import sum_to_shape
from .tape import on_host
from .view import number as shown

ELEMENTWISE = frozenset(
    "add subtract multiply divide power negative abs sqrt exp expm1 log log1p sin cos tanh sigmoid relu "
    "leaky_relu softplus maximum minimum clip where dropout_mask identity astype transfer".split()
)
"""Ops whose result depends, element by element, on one element of each input (after broadcasting)."""

REARRANGING = frozenset(
    "reshape transpose swapaxes moveaxis expand_dims squeeze flip broadcast_to getitem pad split concatenate "
    "stack".split()
)
"""Ops whose result has elements of their inputs, unchanged, at other places."""

REDUCING = frozenset("sum mean var max min prod logsumexp norm".split())
"""Ops over axes: an element of the input goes into one element of the result."""

SEARCHED = 64  # rows and columns up to which the matrix of an op that nothing is known of is looked at


@dataclass(frozen=True)
class Jacobian:
    """rows x columns. kind: one word for its structure; text: what to say of it."""

    rows: int
    columns: int
    kind: str
    text: str

    def column(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Which rows of a column may differ from zero, and what stands there."""
        raise NotImplementedError

    def matrix(self) -> np.ndarray:
        """All of it, as the structure has it."""
        full = np.zeros((self.rows, self.columns))
        for place in range(self.columns):
            rows, values = self.column(place)
            full[rows, place] = values
        return full


@dataclass(frozen=True)
class Entries(Jacobian):
    """Few entries that are not zero: their places and what stands there."""

    at: tuple[np.ndarray, np.ndarray]
    values: np.ndarray

    def column(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.at[1] == place
        return self.at[0][chosen], self.values[chosen]

    def matrix(self) -> np.ndarray:
        full = np.zeros((self.rows, self.columns))
        full[self.at] = self.values
        return full


@dataclass(frozen=True)
class Kronecker(Jacobian):
    """kron(left, right); an integer stands for the identity of that size."""

    left: Any
    right: Any

    def column(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.right.shape if isinstance(self.right, np.ndarray) else (self.right,) * 2
        i, left = _column(self.left, place // width)
        j, right = _column(self.right, place % width)
        return (i[:, None] * height + j).ravel(), np.outer(left, right).ravel()


@dataclass(frozen=True)
class Dense(Jacobian):
    """No structure is known: the VJP alone knows what stands in it."""

    node: Node
    number: int

    def column(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(self.rows), self.matrix()[:, place]

    def matrix(self) -> np.ndarray:
        return explicit(self.node, self.number)


def vjp(node: Node, number: int, upstream: Any) -> np.ndarray:
    """What the node's VJP makes of an upstream gradient for input `number`, by itself: no hook is called.

    upstream: a host array, or a list with one, or None, for each output.
    """
    parent = node.parents[number]
    gradient = _unsummed(node, number, upstream)
    return on_host(parent, sum_to_shape(node.backend.F, gradient, parent.shape_of(node.output_used(number))))


def explicit(node: Node, number: int) -> np.ndarray:
    """The Jacobian (rows, columns), a VJP for each row."""
    rows = []
    for place in range(size(node)):
        flat = np.zeros(size(node))
        flat[place] = 1
        rows.append(vjp(node, number, unflattened(node, flat)).ravel())
    return np.array(rows).reshape(len(rows), math.prod(input_shape(node, number)))


def size(node: Node) -> int:
    """How many elements the results of a node have together."""
    shapes = [node.shape] if node.outputs is None else node.shape
    return sum(math.prod(shape) for shape in shapes)


def flattened(node: Node, gradient: Any) -> np.ndarray:
    """A gradient of all outputs as (size,); zeros for an output that has none."""
    if node.outputs is None:
        return np.ravel(gradient)
    pairs = zip(gradient, node.shape, strict=True)
    return np.concatenate([np.zeros(math.prod(s)) if g is None else np.ravel(g) for g, s in pairs])


def unflattened(node: Node, flat: np.ndarray) -> Any:
    """The other way round: an array, or a list with one for each output."""
    if node.outputs is None:
        return flat.reshape(node.shape).astype(node.dtype)
    parts, start = [], 0
    for shape, dtype in zip(node.shape, node.dtype, strict=True):
        stop = start + math.prod(shape)
        parts.append(flat[start:stop].reshape(shape).astype(dtype))
        start = stop
    return parts


def jacobian(node: Node, number: int) -> Jacobian:
    """Of a node that has not been freed, in one of its inputs that needs a gradient."""
    assert node.op is not None
    name, shape = node.op.name, input_shape(node, number)
    if name in ELEMENTWISE:
        return _elementwise(node, number, shape)
    if name in REARRANGING:
        return _rearranging(node, number, shape)
    if size(node) == 1:
        return _one_row(node, number, shape)
    if name in REDUCING:
        return _reducing(node, number, shape)
    special = SPECIAL.get(name)
    found = None if special is None else special(node, number, shape)
    return found or _searched(node, number, shape)


def input_shape(node: Node, number: int) -> tuple[int, ...]:
    """Of an input that needs a gradient."""
    return node.parents[number].shape_of(node.output_used(number))


# --- what is known of each op ---------------------------------------------------------------------


def _elementwise(node: Node, number: int, shape: tuple[int, ...]) -> Jacobian:
    count = math.prod(shape)
    columns = np.broadcast_to(np.arange(count).reshape(shape), node.shape).ravel()
    ones = _unsummed(node, number, np.ones(node.shape, node.dtype))
    factors = np.broadcast_to(on_host(node, ones), node.shape).ravel()
    return _one_a_row(node, count, columns, factors)


def _rearranging(node: Node, number: int, shape: tuple[int, ...]) -> Jacobian:
    """The op itself says what goes where: it is given the numbers of the elements."""
    assert node.op is not None
    backend, count = node.backend, math.prod(shape)
    inputs = []
    for i, (parent, saved) in enumerate(zip(node.parents, node.inputs, strict=True)):
        if i == number:
            inputs.append(backend.from_host(np.arange(count).reshape(shape)))
        else:
            other = input_shape(node, i) if parent is not None else getattr(saved, "shape", shape)
            inputs.append(backend.from_host(np.full(other, -1)))
    params = node.params | ({"constant_values": -1} if node.op.name == "pad" else {})
    places = flattened(node, on_host(node, backend.forward[node.op](*inputs, **params)))
    return _one_a_row(node, count, places.astype(int), np.ones(len(places)))


def _one_a_row(node: Node, count: int, columns: np.ndarray, factors: np.ndarray) -> Jacobian:
    rows = np.flatnonzero(columns >= 0)
    kind, text = _at_most_one(len(columns), count, columns, factors)
    if node.outputs is not None:
        text += f", the {node.outputs} outputs one below the other"
    return Entries(len(columns), count, kind, text, (rows, columns[rows]), factors[rows])


def _at_most_one(rows: int, count: int, columns: np.ndarray, factors: np.ndarray) -> tuple[str, str]:
    """A word and a text for a matrix with at most one entry in each row."""
    plain = bool((factors == 1).all())
    if rows == count and (columns == np.arange(count)).all():
        if plain:
            return "identity", "the identity"
        if (factors == -1).all():
            return "identity", "minus the identity"
        return "diagonal", f"diagonal: {extent(factors)}"
    if rows == count and (np.bincount(columns[columns >= 0], minlength=count) == 1).all():
        return "permutation", "a permutation: the same elements in another order"
    if (
        (columns >= 0).all()
        and rows > count
        and (np.bincount(columns, minlength=count) == rows // count).all()
    ):
        each = f"{rows // count} entries in each column, which the VJP adds up"
        return "broadcast", f"stretched: {each}" + ("; all are 1" if plain else f": {extent(factors)}")
    if (columns >= 0).all():
        used = len(np.unique(columns))
        return "selection", f"a selection: a one in each row, in {used:,} of {count:,} columns; else zeros"
    kept = int((columns >= 0).sum())
    return "selection", f"a selection: a one in each column, in {kept:,} of {rows:,} rows; else zeros"


def _one_row(node: Node, number: int, shape: tuple[int, ...]) -> Jacobian:
    values = vjp(node, number, unflattened(node, np.ones(1))).ravel()
    text = f"one row, the derivative of a single number: {extent(values)}"
    count = len(values)
    return Entries(1, count, "row", text, (np.zeros(count, int), np.arange(count)), values)


def _reducing(node: Node, number: int, shape: tuple[int, ...]) -> Jacobian:
    axis = node.params["axis"]
    axes = [a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))]
    return _one_a_column(node, number, shape, axes)


def _one_a_column(node: Node, number: int, shape: tuple[int, ...], axes: list[int]) -> Jacobian:
    """Each element of the input goes into one result: the one at its place along the axes that are left."""
    kept = tuple(1 if axis in axes else length for axis, length in enumerate(shape))
    rows = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), shape).ravel()
    values = vjp(node, number, np.ones(node.shape, node.dtype)).ravel()
    count = len(values)
    text = f"one entry in each column, {count // max(size(node), 1)} in each row: {extent(values)}"
    return Entries(size(node), count, "reduction", text, (rows, np.arange(count)), values)


def _matmul(node: Node, number: int, shape: tuple[int, ...]) -> Jacobian | None:
    a, b = (tuple(saved.shape) for saved in node.inputs)
    if len(b) > 2:
        return None
    inner = a[-1]
    n, m = math.prod(a[:-1]), math.prod(b[1:])
    if number == 0:
        right = on_host(node, node.inputs[1]).reshape(inner, m).T
        text = "b^T" if n == 1 else f"block diagonal: b^T {n} times, once for each row of a"
        return Kronecker(n * m, n * inner, "b^T", f"{text}; the VJP is g b^T", n, right)
    left = on_host(node, node.inputs[0]).reshape(n, inner)
    sums = "an outer product" if n == 1 else f"{n} outer products added up"
    text = f"kron(a, I), blocks of one element of a times the identity; the VJP is a^T g, {sums}"
    return Kronecker(n * m, inner * m, "kron", text, left, m)


def _softmax(node: Node, number: int, shape: tuple[int, ...]) -> Jacobian:
    """softmax: diag(p) - p p^T; log_softmax: I - 1 p^T, with p the probabilities along the axis."""
    assert node.op is not None
    axis, out = node.params["axis"], on_host(node, node.out)
    places = np.moveaxis(np.arange(out.size).reshape(shape), axis, -1).reshape(-1, shape[axis])
    one, logarithm = np.eye(shape[axis]), node.op.name == "log_softmax"
    p = (np.exp(out) if logarithm else out).ravel()[places]
    blocks = one - p[:, None] if logarithm else one * p[:, None] - p[:, :, None] * p[:, None]
    formula = "I - 1 p^T" if logarithm else "diag(p) - p p^T"
    times = "" if len(p) == 1 else f"block diagonal, {len(p)} blocks: "
    rows, columns = np.broadcast_arrays(places[:, :, None], places[:, None])
    text = f"{times}{formula}, p the probabilities: a diagonal minus an outer product"
    return Entries(out.size, out.size, "softmax", text, (rows.ravel(), columns.ravel()), blocks.ravel())


def _loss(node: Node, number: int, shape: tuple[int, ...]) -> Jacobian:
    """reduction="none": a loss for each row of logits, or for each element."""
    assert node.op is not None
    return _one_a_column(node, number, shape, [len(shape) - 1] if node.op.name == "cross_entropy" else [])


def _cumsum(node: Node, number: int, shape: tuple[int, ...]) -> Jacobian | None:
    axis = node.params["axis"]
    if axis is not None and len(shape) > 1:
        return None
    count = math.prod(shape)
    text = "lower triangular, all ones: each sum has what came before"
    return Kronecker(count, count, "triangular", text, np.tri(count), 1)


SPECIAL: dict[str, Callable[[Node, int, tuple[int, ...]], Jacobian | None]] = {
    "matmul": _matmul,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "cross_entropy": _loss,
    "mse": _loss,
    "binary_cross_entropy_with_logits": _loss,
    "cumsum": _cumsum,
}


def _searched(node: Node, number: int, shape: tuple[int, ...]) -> Jacobian:
    """Of an op that nothing is known of, as one of the user's: what a look at a small matrix tells."""
    rows, columns = size(node), math.prod(shape)
    if max(rows, columns) > SEARCHED:
        return Dense(rows, columns, "dense", "no structure is known of this op", node, number)
    matrix = explicit(node, number)
    if rows == columns and not (matrix - np.diag(np.diag(matrix))).any():
        return Dense(rows, columns, "diagonal", f"diagonal: {extent(np.diag(matrix))}", node, number)
    share = np.count_nonzero(matrix) / max(matrix.size, 1)
    return Dense(rows, columns, "dense", f"{share:.0%} of it are not zero: {extent(matrix)}", node, number)


# --- small things ---------------------------------------------------------------------------------


def extent(values: np.ndarray) -> str:
    """The smallest and the largest of the values, how many are exactly zero and how many not finite."""
    finite = values[np.isfinite(values)]
    if not values.size:
        return "empty"
    if not finite.size:
        return "none is finite"
    low, high = float(finite.min()), float(finite.max())
    text = f"all {shown(low)}" if low == high else f"{shown(low)} .. {shown(high)}"
    zeros, bad = int((values == 0).sum()), int(values.size - finite.size)
    text += f", {zeros:,} of {values.size:,} are 0" if zeros and low != high else ""
    return text + (f", {bad:,} of {values.size:,} not finite" if bad else "")


@np.errstate(all="ignore")  # what is not finite is there to be looked at
def _unsummed(node: Node, number: int, upstream: Any) -> Any:
    """The VJP's own result, in the node's backend, before broadcasting is undone."""
    op, backend = node.op, node.backend
    assert op is not None
    if node.outputs is None:
        g: Any = backend.from_host(np.asarray(upstream))
    else:
        g = [None if one is None else backend.from_host(np.asarray(one)) for one in upstream]
    if op.joint is None:
        chosen = op.vjps[number]
        assert chosen is not None
        return chosen(backend.F, g, node.out, *node.inputs, **node.params)
    needs = tuple(i == number for i in range(len(node.parents)))
    extra = {"residuals": node.residuals} if op.has_residuals else {}
    return op.joint(backend.F, g, node.out, *node.inputs, needs=needs, **node.params, **extra)[number]


def _column(factor: Any, place: int) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(factor, np.ndarray):
        return np.arange(len(factor)), factor[:, place]
    return np.array([place]), np.ones(1)
