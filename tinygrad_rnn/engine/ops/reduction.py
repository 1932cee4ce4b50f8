"""Ops that reduce over axes: sums, extremes, products, softmax and its kin, running sums, norms.

`axis` is an integer, a tuple of them, or None for all, as in NumPy; `keepdims` keeps reduced axes at size 1.
"""

from __future__ import annotations

import builtins
import math
from typing import Any

from ...errors import ShapeError
from ..op import op

Axis = int | tuple[int, ...] | None


def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The reduced axes as non-negative numbers."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,))) if ndim else ()


def _kept(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """`shape` with the reduced axes at size 1."""
    axes = _axes(axis, len(shape))
    return tuple(1 if i in axes else size for i, size in enumerate(shape))


def _left(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """`shape` without the reduced axes."""
    axes = _axes(axis, len(shape))
    return tuple(size for i, size in enumerate(shape) if i not in axes)


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    """How many elements go into each result."""
    return math.prod(shape[a] for a in _axes(axis, len(shape)))


def _spread(F: Any, g: Any, x: Any, axis: Axis) -> Any:
    """A reduced array stretched over x again."""
    return F.broadcast_to(F.reshape(g, _kept(x.shape, axis)), x.shape)


@op(lambda F, g, out, x, axis, keepdims: _spread(F, g, x, axis), shapes="x")
def sum(xp: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum over axes. Of booleans: their number."""
    return x.sum(axis=axis, keepdims=keepdims)


@op(
    lambda F, g, out, x, axis, keepdims: (
        _spread(F, g, x, axis) * (1 / builtins.max(_count(x.shape, axis), 1))
    ),
    shapes="x",
    floating=True,
)
def mean(xp: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Arithmetic mean over axes."""
    return x.mean(axis=axis, keepdims=keepdims)


def _var_vjp(F: Any, g: Any, out: Any, x: Any, axis: Axis, ddof: int, keepdims: bool) -> Any:
    """2 (x - mean) / (n - ddof)"""
    deviation = x - F.mean(x, axis=axis, keepdims=True)
    return _spread(F, g, x, axis) * deviation * (2 / (_count(x.shape, axis) - ddof))


@op(_var_vjp, saves="x", floating=True)
def var(xp: Any, x: Any, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Any:
    """Variance over axes, mean((x - mean)**2): of the population, unless ddof (1: of a sample) is given."""
    if _count(x.shape, axis) <= ddof:
        raise ShapeError(f"the variance of {_count(x.shape, axis)} elements with ddof={ddof} is undefined")
    return x.var(axis=axis, ddof=ddof, keepdims=keepdims)


def _extreme_vjp(F: Any, g: Any, out: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """Shared equally among the elements that attain the extreme."""
    attained = F.astype(x == F.reshape(out, _kept(x.shape, axis)), dtype=x.dtype)
    return _spread(F, g, x, axis) * (attained / F.sum(attained, axis=axis, keepdims=True))


@op(_extreme_vjp, saves="x out")
def max(xp: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest element over axes. Elements that tie share the gradient equally."""
    return x.max(axis=axis, keepdims=keepdims)


@op(_extreme_vjp, saves="x out")
def min(xp: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest element over axes. Elements that tie share the gradient equally."""
    return x.min(axis=axis, keepdims=keepdims)


@op()
def argmax(xp: Any, x: Any, axis: int | None = None) -> Any:
    """Index of the (first) largest element, along an axis or of the flattened tensor."""
    return x.argmax(axis=axis)


@op()
def argmin(xp: Any, x: Any, axis: int | None = None) -> Any:
    """Index of the (first) smallest element, along an axis or of the flattened tensor."""
    return x.argmin(axis=axis)


def _prod_vjp(F: Any, g: Any, out: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """For each element the product of all others, which `out / x` would not give where x is 0.

    Products of halves of halves are kept on the way up; on the way down each half is multiplied with the
    product of the elements outside it. 2 n multiplications, and exact derivatives of any order.
    """
    axes = _axes(axis, len(x.shape))
    rest = tuple(a for a in range(len(x.shape)) if a not in axes)
    order = rest + axes
    count = _count(x.shape, axis)
    kept = tuple(x.shape[a] for a in rest)
    levels = [F.reshape(F.transpose(x, order), (*kept, count))]
    while levels[-1].shape[-1] > 1:
        level = levels[-1]
        if level.shape[-1] % 2:
            level = levels[-1] = F.pad(level, ((0, 0),) * len(kept) + ((0, 1),), constant_values=1)
        half = level.shape[-1] // 2
        levels.append(level[..., :half] * level[..., half:])
    others = F.broadcast_to(F.reshape(g, (*kept, 1)), (*kept, levels[-1].shape[-1]))
    for below in levels[-2::-1]:
        half = below.shape[-1] // 2
        others = others[..., :half]  # without the padding of the level above
        others = F.concatenate((others * below[..., half:], others * below[..., :half]), axis=-1)
    others = F.reshape(others[..., :count], tuple(x.shape[a] for a in order))
    back = tuple(order.index(a) for a in range(len(order)))
    return F.transpose(others, back)


@op(_prod_vjp, saves="x")
def prod(xp: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Product over axes; the derivative is exact where elements are 0 as well."""
    return x.prod(axis=axis, keepdims=keepdims)


# --- softmax and its kin ------------------------------------------------------------------------


@op(
    lambda F, g, out, x, axis, keepdims: (
        _spread(F, g, x, axis) * F.exp(x - F.reshape(out, _kept(x.shape, axis)))
    ),
    saves="x out",
    floating=True,
)
def logsumexp(xp: Any, x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over axes, for any finite x: the largest element is taken out first."""
    top = x.max(axis=axis, keepdims=True)
    total = xp.log(xp.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return total if keepdims else total.reshape(_left(x.shape, axis))


@op(
    lambda F, g, out, x, axis: out * (g - F.sum(g * out, axis=axis, keepdims=True)),
    saves="out",
    floating=True,
)
def softmax(xp: Any, x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) along an axis."""
    if not x.size:
        return x.copy()
    e = xp.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@op(
    lambda F, g, out, x, axis: g - F.exp(out) * F.sum(g, axis=axis, keepdims=True),
    saves="out",
    floating=True,
)
def log_softmax(xp: Any, x: Any, axis: int = -1) -> Any:
    """log(softmax(x)) along an axis."""
    if not x.size:
        return x.copy()
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))


# --- running sums and norms -----------------------------------------------------------------------


def _cumsum_vjp(F: Any, g: Any, out: Any, x: Any, axis: int | None) -> Any:
    """The running sum from the other end."""
    axis = 0 if axis is None else axis
    return F.reshape(F.flip(F.cumsum(F.flip(g, axis=axis), axis=axis), axis=axis), x.shape)


@op(_cumsum_vjp, shapes="x")
def cumsum(xp: Any, x: Any, axis: int | None = None) -> Any:
    """Running sum along an axis, or of the flattened tensor."""
    return x.cumsum(axis=axis)


def _norm_vjp(F: Any, g: Any, out: Any, x: Any, ord: None, axis: Axis, keepdims: bool) -> Any:
    """x / norm(x), and 0 where the norm is 0."""
    length = F.reshape(out, _kept(x.shape, axis))
    return _spread(F, g, x, axis) * (x / F.where(length == 0, 1.0, length))


@op(_norm_vjp, saves="x out", floating=True)
def norm(xp: Any, x: Any, ord: None = None, axis: Axis = None, keepdims: bool = False) -> Any:
    """Euclidean norm over axes (of a matrix: Frobenius), without overflow. The derivative at 0 is 0."""
    if ord is not None:
        raise ShapeError(f"norm: only the Euclidean norm (ord=None) is there, not ord={ord!r}")
    if not x.size:
        return xp.sqrt((x * x).sum(axis=axis, keepdims=keepdims))
    scale = xp.absolute(x).max(axis=axis, keepdims=True)
    scale = xp.where((scale == 0) | ~xp.isfinite(scale), 1, scale).astype(x.dtype)
    scaled = x / scale
    length = xp.sqrt((scaled * scaled).sum(axis=axis, keepdims=True)) * scale
    return length if keepdims else length.reshape(_left(x.shape, axis))
