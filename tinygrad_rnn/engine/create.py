"""Tensors that come from nowhere: zeros, ones, full, arange, eye, rand, randn.

Shapes are given as sizes, `zeros(2, 3)`, or as a sequence, `zeros((2, 3))`. All take by keyword `dtype`
(float32 by default), `requires_grad`, and `backend` (the default one by default).
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..errors import ShapeError
from .backend import Backend, get_backend
from .random import generator
from .tensor import DEFAULT_DTYPE, Tensor, tensor


def _sizes(shape: tuple) -> tuple[int, ...]:
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    try:
        sizes = tuple(operator.index(size) for size in given)
    except TypeError:
        raise ShapeError(f"the sizes of a shape are integers: {tuple(given)}") from None
    if any(size < 0 for size in sizes):
        raise ShapeError(f"a shape has no negative sizes: {sizes}")
    return sizes


def _make(host: np.ndarray, requires_grad: bool, backend: str | Backend | None) -> Tensor:
    return tensor(host, requires_grad=requires_grad, backend=get_backend(backend))


def zeros(
    *shape: Any, dtype: Any = DEFAULT_DTYPE, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """Zeros."""
    return _make(np.zeros(_sizes(shape), dtype), requires_grad, backend)


def ones(*shape: Any, dtype: Any = DEFAULT_DTYPE, requires_grad: bool = False, backend: Any = None) -> Tensor:
    """Ones."""
    return _make(np.ones(_sizes(shape), dtype), requires_grad, backend)


def full(
    shape: Any,
    fill_value: float,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """Every element `fill_value`; the dtype follows it (float32, int64 or bool) unless given."""
    if dtype is None:
        dtype = DEFAULT_DTYPE if isinstance(fill_value, float) else np.asarray(fill_value).dtype
    return _make(np.full(_sizes((shape,)), fill_value, dtype), requires_grad, backend)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """start, start + step, ... below stop; with one argument 0, 1, ... below it.

    int64 for integer arguments, float32 otherwise.
    """
    first, last = (0, start) if stop is None else (start, stop)
    host = np.arange(first, last, step)
    if dtype is None and host.dtype.kind == "f":
        dtype = DEFAULT_DTYPE
    return _make(host if dtype is None else host.astype(dtype), requires_grad, backend)


def eye(
    n: int,
    m: int | None = None,
    dtype: Any = DEFAULT_DTYPE,
    requires_grad: bool = False,
    backend: Any = None,
) -> Tensor:
    """The n x m matrix (m = n unless given) with ones on its diagonal."""
    return _make(np.eye(n, m, dtype=dtype), requires_grad, backend)


def rand(*shape: Any, dtype: Any = DEFAULT_DTYPE, requires_grad: bool = False, backend: Any = None) -> Tensor:
    """Uniform on [0, 1), from the generator that manual_seed() starts."""
    host = generator().random(_sizes(shape)).astype(dtype)
    below_one = np.nextafter(np.ones((), dtype), np.zeros((), dtype))  # rounding may have reached 1
    return _make(np.minimum(host, below_one), requires_grad, backend)


def randn(
    *shape: Any, dtype: Any = DEFAULT_DTYPE, requires_grad: bool = False, backend: Any = None
) -> Tensor:
    """Standard normal, from the generator that manual_seed() starts."""
    return _make(generator().standard_normal(_sizes(shape)).astype(dtype), requires_grad, backend)
