"""Ops that rearrange elements: reshape, transpose, broadcast, join, split, pad, flip."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ...errors import DtypeError, ShapeError
from ..op import op
from ..tensor import Tensor


@op(lambda F, g, out, x, shape: F.reshape(g, x.shape), shapes="x")
def reshape(xp: Any, x: Any, shape: int | tuple[int, ...]) -> Any:
    """The same elements in another shape; one size may be -1."""
    return x.reshape(shape)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    positive = [axis % len(axes) for axis in axes]
    return tuple(positive.index(axis) for axis in range(len(axes)))


@op(lambda F, g, out, x, axes: F.transpose(g, None if axes is None else _inverse(axes)))
def transpose(xp: Any, x: Any, axes: tuple[int, ...] | None = None) -> Any:
    """Axes in another order; reversed unless given."""
    return x.transpose(axes) if axes is not None else x.transpose()


@op(lambda F, g, out, x, axis1, axis2: F.swapaxes(g, axis1, axis2))
def swapaxes(xp: Any, x: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    return x.swapaxes(axis1, axis2)


@op(lambda F, g, out, x, source, destination: F.moveaxis(g, destination, source))
def moveaxis(xp: Any, x: Any, source: Any, destination: Any) -> Any:
    """Axes moved to other places, the rest keeping their order."""
    return xp.moveaxis(x, source, destination)


@op(lambda F, g, out, x, axis: F.reshape(g, x.shape), shapes="x")
def expand_dims(xp: Any, x: Any, axis: int | tuple[int, ...]) -> Any:
    """New axes of size 1 at the given places."""
    return xp.expand_dims(x, axis)


@op(lambda F, g, out, x, axis: F.reshape(g, x.shape), shapes="x")
def squeeze(xp: Any, x: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    """Axes of size 1 taken away: all, or the given ones."""
    return x.squeeze(axis)


@op(lambda F, g, out, x, shape: g, broadcasts=True)
def broadcast_to(xp: Any, x: Any, shape: int | tuple[int, ...]) -> Any:
    """x stretched to a shape by NumPy's broadcasting."""
    return xp.broadcast_to(x, shape)


@op(lambda F, g, out, x, axis: F.flip(g, axis=axis))
def flip(xp: Any, x: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    """Elements in reverse order along axes (all of them unless given)."""
    return xp.flip(x, axis)


# --- joining and splitting ------------------------------------------------------------------------


def _concatenate_vjp(
    F: Any, g: Any, out: Any, *inputs: Any, needs: tuple[bool, ...], axis: int | None
) -> tuple:
    """Each input's own stretch of the upstream gradient."""
    gradients, start = [], 0
    for x, need in zip(inputs, needs, strict=True):
        if axis is None:
            size = math.prod(x.shape)
            piece = F.reshape(g[start : start + size], x.shape) if need else None
        else:
            size = x.shape[axis]
            before = (slice(None),) * (axis % len(x.shape))
            piece = g[(*before, slice(start, start + size))] if need else None
        gradients.append(piece)
        start += size
    return tuple(gradients)


@op(inputs=None, joint=_concatenate_vjp, shapes="*", promotes=True)
def concatenate(xp: Any, *tensors: Any, axis: int | None = 0) -> Any:
    """Tensors joined along an axis that they have (flattened first if axis is None)."""
    return xp.concatenate(tensors, axis=axis)


def _stack_vjp(F: Any, g: Any, out: Any, *inputs: Any, needs: tuple[bool, ...], axis: int) -> tuple:
    """Each input's own slice of the upstream gradient."""
    before = (slice(None),) * (axis % len(g.shape))
    return tuple(g[(*before, i)] if need else None for i, need in enumerate(needs))


@op(inputs=None, joint=_stack_vjp, promotes=True)
def stack(xp: Any, *tensors: Any, axis: int = 0) -> Any:
    """Tensors of one shape joined along a new axis."""
    return xp.stack(tensors, axis=axis)


def _split_vjp(F: Any, g: Any, out: Any, x: Any, needs: Any, indices_or_sections: Any, axis: int) -> tuple:
    """The pieces' gradients joined again, zeros where a piece was not used."""
    bounds = _bounds(x.shape, indices_or_sections, axis)
    some = next(piece for piece in g if piece is not None)
    axis %= len(x.shape)
    pieces = []
    for piece, start, stop in zip(g, bounds[:-1], bounds[1:], strict=True):
        if piece is None:
            shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
            piece = F.zeros_like(some, shape=shape)
        pieces.append(piece)
    return (F.concatenate(pieces, axis=axis),)


def _bounds(shape: tuple[int, ...], indices_or_sections: Any, axis: int) -> list[int]:
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(f"split: axis {axis} of a tensor of shape {shape}")
    size = shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        sections = int(indices_or_sections)
        if sections < 1 or size % sections:
            raise ShapeError(f"split: {size} elements do not divide into {sections} equal parts")
        return list(range(0, size + 1, size // sections)) if size else [0] * (sections + 1)
    cuts = [min(max(i + size if i < 0 else i, 0), size) for i in indices_or_sections]
    bounds = [0, *cuts, size]
    if bounds != sorted(bounds):
        raise ShapeError(f"split: the places to cut must ascend, not {list(indices_or_sections)}")
    return bounds


@op(joint=_split_vjp, shapes="x")
def split(xp: Any, x: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    """A tuple of pieces along an axis: so many equal ones, or cut at the given places."""
    bounds = _bounds(x.shape, indices_or_sections, axis)
    before = (slice(None),) * (axis % x.ndim)
    return tuple(x[(*before, slice(start, stop))] for start, stop in itertools.pairwise(bounds))


def _widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    """NumPy's forms of pad_width (n, (before, after), ((before, after), ...)) as one pair an axis."""
    try:
        pairs = np.broadcast_to(np.asarray(pad_width), (ndim, 2)).tolist()
    except ValueError:
        raise ShapeError(f"pad: widths {pad_width} for a tensor of {ndim} dimensions") from None
    return [(before, after) for before, after in pairs]


def _pad_vjp(F: Any, g: Any, out: Any, x: Any, pad_width: Any, mode: str, constant_values: float) -> Any:
    """The part of g where x was."""
    widths = _widths(pad_width, len(x.shape))
    return g[tuple(slice(b, b + n) for (b, _), n in zip(widths, x.shape, strict=True))]


@op(_pad_vjp, shapes="x")
def pad(xp: Any, x: Any, pad_width: Any, mode: str = "constant", constant_values: float = 0) -> Any:
    """Elements of a constant value put around x: pad_width is n, (before, after), or a pair an axis."""
    if mode != "constant":
        raise DtypeError(f"tg.pad: the only mode is 'constant', not {mode!r}")
    return xp.pad(x, _widths(pad_width, x.ndim), constant_values=constant_values) if x.ndim else x


@op(shapes="x")
def zeros_like(xp: Any, x: Any, shape: tuple[int, ...] | None = None) -> Any:
    """Zeros of x's dtype and backend, and of its shape unless another is given."""
    return xp.zeros(x.shape if shape is None else shape, x.dtype)


def spread_arguments(name: str, first: tuple) -> Any:
    """`x.reshape(2, 3)` and `x.reshape((2, 3))` mean the same."""
    if len(first) == 1:
        return first[0]
    if any(isinstance(size, Tensor) for size in first):
        raise ShapeError(f"{name}: sizes are integers, not tensors")
    return first
