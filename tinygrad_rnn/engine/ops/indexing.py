"""Picking elements and putting them back: indexing, take, and scatter, the VJP of both.

Where an index names an element several times, its gradients add up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DtypeError, ShapeError
from ..backend import Backend
from ..op import TABLE, op
from ..tensor import Tensor, apply, raw_index, tensor


@op(lambda F, g, out, x, index: F.scatter(g, index=index, shape=x.shape), shapes="x")
def getitem(xp: Any, x: Any, index: Any) -> Any:
    """x[index] for any index that NumPy takes: integers, slices, None, ..., boolean and integer arrays."""
    return x[index]


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or p.__class__ in (int, slice) for p in parts)


@op(lambda F, g, out, values, index, shape: F.getitem(g, index=index), needs_backend=True)
def scatter(backend: Backend, values: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Zeros of `shape` with `values` added at `index`."""
    out = backend.xp.zeros(shape, values.dtype)
    if _is_basic(index):
        out[index] = values  # names each element once
    else:
        backend.scatter_add(out, index, values)
    return out


def index(x: Tensor, where: Any) -> Tensor:
    """`x[where]`."""
    return apply(TABLE["getitem"], (x,), {"index": raw_index(x, where)})


def take(x: Tensor, indices: Any, axis: int | None = None) -> Tensor:
    """Elements of x at integer `indices` along an axis (of the flattened tensor if None).

    The axis is replaced by the shape of `indices`: rows of an embedding table W of shape (V, D) for
    symbols of shape (T, B), `take(W, symbols, axis=0)`, have shape (T, B, D).
    """
    x = x if isinstance(x, Tensor) else tensor(x)
    if isinstance(indices, (list, tuple)):
        indices = np.asarray(indices, None if np.size(indices) else np.int64)
    if getattr(indices, "dtype", np.dtype(type(indices))).kind not in "iu":
        raise DtypeError(f"take: indices must be integers, not {indices!r}")
    if axis is None:
        return index(apply(TABLE["reshape"], (x,), {"shape": x.size}), indices)
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"take: axis {axis} of a tensor of shape {x.shape}")
    return index(x, (slice(None),) * (axis % x.ndim) + (indices,))


@op()
def one_hot(xp: Any, x: Any, num_classes: int, dtype: Any = "float32") -> Any:
    """1 at place x along a new last axis of size num_classes, 0 elsewhere; all 0 for x out of its range."""
    return (x[..., None] == xp.arange(num_classes)).astype(dtype)
