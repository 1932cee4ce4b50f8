"""Operators and methods of `Tensor`, attached from the op table.

Here is only which op goes under which name; what an op does is in its family's file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import DtypeError
from ..node import mode
from ..op import TABLE, Op
from ..tensor import Tensor, apply
from . import elementwise, indexing, plumbing, reduction, shape

OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "pow": "power",
    "matmul": "matmul",
}
COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
UNARY = {"neg": "negative", "abs": "abs"}
LOGICAL = {"and": "logical_and", "rand": "logical_and", "or": "logical_or", "ror": "logical_or"}
LOGICAL["invert"] = "logical_not"

METHODS: dict[str, Callable] = {
    f.__name__: f
    for f in (
        elementwise.abs,
        elementwise.exp,
        elementwise.expm1,
        elementwise.log,
        elementwise.log1p,
        elementwise.sqrt,
        elementwise.sin,
        elementwise.cos,
        elementwise.tanh,
        elementwise.sigmoid,
        elementwise.relu,
        elementwise.clip,
        reduction.sum,
        reduction.mean,
        reduction.var,
        reduction.max,
        reduction.min,
        reduction.prod,
        reduction.argmax,
        reduction.argmin,
        reduction.logsumexp,
        reduction.softmax,
        reduction.log_softmax,
        reduction.cumsum,
        reduction.norm,
        shape.swapaxes,
        shape.squeeze,
        shape.split,
        indexing.take,
        plumbing.astype,
        plumbing.to,
    )
}


def _binary(op: Op) -> Callable:
    def operator(self: Tensor, other: Any) -> Any:
        return apply(op, (self, other))

    return operator


def _reflected(op: Op) -> Callable:
    def operator(self: Tensor, other: Any) -> Any:
        return apply(op, (other, self))

    return operator


def _in_place(op: Op) -> Callable:
    """Inside no_grad, `w -= step` changes a leaf that requires a gradient in place: a new tensor of the same
    name would silently stop being learnt. In all other cases `x -= y` means x = x - y."""

    def operator(self: Tensor, other: Any) -> Any:
        if self.node is None or self.node.op is not None or mode.recording:
            return NotImplemented
        return self.copy_(apply(op, (self, other)))

    return operator


def _unary(op: Op) -> Callable:
    def operator(self: Tensor) -> Any:
        return apply(op, (self,))

    return operator


def _logical(op: Op) -> Callable:
    """&, | and ~, which NumPy gives integers another meaning (bit by bit): refused for all but booleans."""

    def operator(self: Tensor, *other: Any) -> Any:
        for x in (self, *other):
            if isinstance(x, Tensor) and x.dtype.kind != "b":
                raise DtypeError(
                    f"& | ~ take booleans, such as (a > 0) & (b > 0), not {x.dtype}; see tg.{op.name}"
                )
        return apply(op, (self, *other))

    return operator


def _reshape(self: Tensor, *sizes: Any) -> Tensor:
    return shape.reshape(self, shape.spread_arguments("reshape", sizes))


def _transpose(self: Tensor, *axes: Any) -> Tensor:
    return shape.transpose(self, shape.spread_arguments("transpose", axes) if axes else None)


for name, op_name in OPERATORS.items():
    setattr(Tensor, f"__{name}__", _binary(TABLE[op_name]))
    setattr(Tensor, f"__r{name}__", _reflected(TABLE[op_name]))
    setattr(Tensor, f"__i{name}__", _in_place(TABLE[op_name]))
for name, op_name in COMPARISONS.items():
    setattr(Tensor, f"__{name}__", _binary(TABLE[op_name]))
for name, op_name in UNARY.items():
    setattr(Tensor, f"__{name}__", _unary(TABLE[op_name]))
for name, op_name in LOGICAL.items():
    setattr(Tensor, f"__{name}__", _logical(TABLE[op_name]))
for name, function in METHODS.items():
    setattr(Tensor, name, function)
Tensor.__getitem__ = indexing.index  # type: ignore[method-assign]
Tensor.reshape = _reshape  # type: ignore[method-assign]
Tensor.transpose = _transpose  # type: ignore[method-assign]
Tensor.T = property(lambda self: shape.transpose(self))  # type: ignore[assignment, misc]
