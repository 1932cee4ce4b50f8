"""Images (N, C, H, W) in another size, and parts of them.

Along each axis a value of the result is a mixture of one or two values of the image, so the whole is linear:
the op below and its derivative are one another's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...errors import ShapeError, UsageError
from ..op import TABLE, op
from ..tensor import Tensor, apply, tensor
from .options import integer, integers, number, said
from .pooling import memory_order
from .shape import pad

Taps = list[tuple[np.ndarray, np.ndarray | None]]
"""What a result's values along one axis are made of: places in the image, and their weights (None: all 1)."""


def interpolate(
    x: Tensor,
    size: int | tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """Images of another size: (N, C, H, W) -> (N, C, H', W').

    size: H' and W', or one number for both. scale_factor, in its place: H' = floor(H * scale_factor), and
    the image is scaled by just that factor.
    mode: "nearest" takes the value of the pixel that a place lies in (rounded down), "bilinear" weighs the
    four pixels around it. Nothing is smoothed before an image is made smaller.
    align_corners: with "bilinear": the centres of the corner pixels keep their places, instead of the
    image's edges.

    Of PyTorch's modes there are these two, without antialias and recompute_scale_factor, and only for images
    in batches: PyTorch takes (C, H, W) for rows of W values, which these are not.

    Raises ShapeError for shapes or sizes that make no image, UsageError for options that do not go together,
    DtypeError for one of another type.
    """
    x = x if isinstance(x, Tensor) else tensor(x)
    if x.ndim != 4 or not x.shape[2] * x.shape[3]:
        raise ShapeError(f"interpolate: x must be images of shape (N, C, H, W) with pixels, not {x.shape}")
    if mode not in ("nearest", "bilinear"):
        raise UsageError(f"interpolate: mode is 'nearest' or 'bilinear', not {said(mode)}")
    if align_corners and mode == "nearest":
        raise UsageError("interpolate: align_corners goes with mode='bilinear' only")
    if (size is None) == (scale_factor is None):
        raise UsageError("interpolate: give either size or scale_factor")
    scales: tuple[float, ...] | None = None
    if scale_factor is not None:
        given = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
        scales = tuple(number("interpolate", "scale_factor", factor) for factor in given)
        if len(scales) != 2 or not all(math.isfinite(factor) and factor > 0 for factor in scales):
            raise ShapeError(
                f"interpolate: scale_factor must be a positive number or 2 of them, not {said(scale_factor)}"
            )
        height, width = (math.floor(n * factor) for n, factor in zip(x.shape[2:], scales, strict=True))
        if min(height, width) < 1:
            raise ShapeError(
                f"interpolate: scale_factor {said(scale_factor)} makes {height} by {width} pixels of x of "
                f"shape {x.shape}"
            )
    else:
        height, width = integers("interpolate", "size", size, 2, 1)
    params = {"size": (height, width), "scales": scales, "mode": mode, "align_corners": align_corners}
    return apply(TABLE["interpolate"], (x,), params)


def crop(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """The part of images (..., H, W) of that height and width whose first pixel is (top, left), which may lie
    outside; what lies outside the image is 0. It is made of ops of the table (slices and zeros around them),
    and needs no derivative of its own.

    Raises ShapeError for a part of no pixels, or x of fewer than two dimensions; DtypeError for numbers that
    are not whole.
    """
    x = x if isinstance(x, Tensor) else tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"crop: x must be images of shape (..., H, W), not of shape {x.shape}")
    top, left = integer("crop", "top", top), integer("crop", "left", left)
    height, width = integer("crop", "height", height, 1), integer("crop", "width", width, 1)
    slices, widths = [], [(0, 0)] * (x.ndim - 2)
    for begin, length, size in ((top, height, x.shape[-2]), (left, width, x.shape[-1])):
        first = min(max(begin, 0), size)
        last = max(min(begin + length, size), first)
        before = max(-begin, 0) if last > first else 0
        slices.append(slice(first, last))
        widths.append((before, length - before - (last - first)))
    inside = x[(..., *slices)]
    return inside if not any(map(any, widths)) else pad(inside, tuple(widths))


# --- the op and its derivative --------------------------------------------------------------------


@op(
    lambda F, g, out, x, size, **how: F.interpolate_gradient(g, size=x.shape[2:], **how),
    shapes="x",
    floating=True,
    name="interpolate",
)
def _interpolated(
    xp: Any,
    x: Any,
    size: tuple[int, int],
    scales: Any = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Any:
    """Images of height and width `size`."""
    for axis, (length, scale) in enumerate(zip(size, scales or (None, None), strict=True), 2):
        if length != x.shape[axis]:
            x = _mixed(xp, x, axis, _taps(x.shape[axis], length, scale, mode, align_corners))
    return x


@op(
    lambda F, g, out, x, size, **how: F.interpolate(g, size=x.shape[2:], **how),
    shapes="x",
    floating=True,
)
def interpolate_gradient(
    xp: Any,
    x: Any,
    size: tuple[int, int],
    scales: Any = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Any:
    """The derivative of interpolate: images of height and width `size`, from those that were made of them."""
    for axis, (length, scale) in enumerate(zip(size, scales or (None, None), strict=True), 2):
        if length != x.shape[axis]:
            taps = _taps(length, x.shape[axis], scale, mode, align_corners)
            x = _mixed(xp, x, axis, _transposed(taps, length))
    return x


def _taps(size: int, length: int, scale: float | None, mode: str, align_corners: bool) -> Taps:
    """How `length` values are made of `size` values; PyTorch's rules, to its rounding."""
    if mode == "nearest":
        if length == 2 * size:
            scale = 2.0  # whatever scale_factor was rounded down to this
        step = np.float32(1 / scale if scale else size / length)
        places = np.floor(np.arange(length, dtype=np.float32) * step).astype(np.intp)
        return [(np.minimum(places, size - 1), None)]
    if align_corners:
        at = np.arange(length) * ((size - 1) / (length - 1) if length > 1 else 0)
    else:
        at = np.maximum((np.arange(length) + 0.5) * (1 / scale if scale else size / length) - 0.5, 0)
    below = at.astype(np.intp)
    above = np.minimum(below + 1, size - 1)
    share = at - below
    return [(below, 1 - share), (above, share)]


def _transposed(taps: Taps, size: int) -> Taps:
    """How `size` values are made of the mixtures' gradients: of those that a value went into. One that went
    into fewer than others has weights of 0 for what it lacks."""
    gave: list[list[tuple[int, float]]] = [[] for _ in range(size)]
    for places, weights in taps:
        for mixture, place in enumerate(places.tolist()):
            weight = 1.0 if weights is None else weights[mixture]
            if weight:
                gave[place].append((mixture, weight))
    most = max(map(len, gave))
    turns = zip(*(own + [(own[0][0] if own else 0, 0.0)] * (most - len(own)) for own in gave), strict=True)
    pairs = [tuple(map(np.array, zip(*turn, strict=True))) for turn in turns]
    return [(mixtures, None if (weights == 1).all() else weights) for mixtures, weights in pairs]


def _mixed(xp: Any, x: Any, axis: int, taps: Taps) -> Any:
    """The mixtures of x's values along an axis."""
    order, back = memory_order(x)
    x, axis = x.transpose(order), back[axis]
    total: Any = None
    for places, weights in taps:
        part = xp.take(x, xp.asarray(places), axis=axis)
        if weights is not None:
            part *= xp.asarray(weights.astype(x.dtype)).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
        if total is None:
            total = part
        else:
            total += part
    return total.transpose(back)
