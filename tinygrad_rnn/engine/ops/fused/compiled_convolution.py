"""The kernels of convolution.py, compiled: called as those are.

All three are products of tiles.py, image by image, so that what they work on stays in the cache:

    y   rows: places of the result    terms: rows of the kernel, all channels    W: the weights
    dw  rows: numbers of the kernel   terms: rows of places of the result        W: g
    dx  rows: places of the input     terms: as of y, with the kernel turned     W: the weights

With a stride the places of dx are of several phases, of which each meets only some of the kernel.

Images are shared out to shards, and their dw added in order. Arrays are used where they are if their memory
is that of channels last. Groups are products of their own: with one channel each most of a vector lies idle.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ....errors import ShapeError
from . import convolution
from .shards import in_shards
from .tiles import TALL, multiply_images

Pair = tuple[int, int]


def forward(xp: Any, x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
    """y[n, o, r, c] = sum over m, i, j of w[o, m, i, j] x[n, m, r stride + i dilation - padding, ...]"""
    size = convolution.output_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    if _is_empty(x, w) or min(size) < 1:
        return convolution.forward(xp, x, w, stride, padding, dilation, groups)
    _check(x.shape, w.shape, (len(x), len(w), *size), size, groups)
    images, channels, height, width = x.shape
    outs = len(w)
    around, a_at, segments, K, c_at = _patches(
        (height, width, channels), size, outs, w.shape[2:], stride, padding, dilation, groups
    )
    matrix = np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(1, -1, outs)
    x, y = _channels_last(x), np.empty((images, *size, outs), x.dtype)
    flat, one = y.reshape(-1), y[0].size

    def work(first: int, last: int) -> None:
        multiply_images(
            x, around, matrix, flat, one, a_at, segments, K, 1, c_at, outs // groups, False, first, last
        )

    in_shards(work, images, 1)
    return y.transpose(0, 3, 1, 2)


def weight_gradient(
    xp: Any, x: Any, g: Any, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """dw[o, m, i, j] = sum over n, r, c of g[n, o, r, c] x[n, m, r stride + i dilation - padding, ...]"""
    if _is_empty(x, g) or min(kernel_size) < 1:
        return convolution.weight_gradient(xp, x, g, kernel_size, stride, padding, dilation, groups)
    images, channels, height, width = x.shape
    outs = g.shape[1]
    size = convolution.output_size((height, width), kernel_size, stride, padding, dilation)
    _check(x.shape, (outs, channels // groups, *kernel_size), g.shape, size, groups)
    around, a_at, segments, c_at = _kernel_rows(
        (height, width, channels), g.shape[2:], outs, kernel_size, stride, padding, dilation, groups
    )
    x, g = _channels_last(x), _channels_last(g).reshape(images, -1, outs)
    columns = outs // groups

    def work(first: int, last: int) -> Any:
        dw = np.zeros((*kernel_size, channels // groups, outs), x.dtype)
        multiply_images(
            x, around, g, dw.reshape(-1), 0, a_at, segments, len(g[0]) // len(segments), stride[1] * channels,
            c_at, columns, True, first, last,
        )  # fmt: skip
        return dw

    dw, *others = in_shards(work, images, 1)
    for other in others:
        dw += other
    return np.ascontiguousarray(dw.transpose(3, 2, 0, 1))


def input_gradient(
    xp: Any, g: Any, w: Any, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """dx[n, m, r stride + i dilation - padding, ...] is the sum of all such w[o, m, i, j] g[n, o, r, c]"""
    if _is_empty(g, w) or min(size) < 1:
        return convolution.input_gradient(xp, g, w, size, stride, padding, dilation, groups)
    images, outs, height, width = g.shape
    inputs = w.shape[1]
    channels = inputs * groups
    fitting = convolution.output_size(size, w.shape[2:], stride, padding, dilation)
    _check((images, channels, *size), w.shape, g.shape, fitting, groups)
    dx = np.empty((images, *size, channels), g.dtype)  # first: what is too large has too many phases as well
    around, phases = _phases(
        (height, width, outs), size, channels, w.shape[2:], stride, padding, dilation, groups
    )
    grouped = w.reshape(groups, outs // groups, *w.shape[1:])
    g = _channels_last(g)
    flat, one = dx.reshape(-1), dx[0].size
    matrices = [
        np.ascontiguousarray(grouped[:, :, :, i][..., j].transpose(3, 4, 1, 0, 2)).reshape(1, -1, channels)
        for i, j, *_ in phases
    ]

    def work(first: int, last: int) -> None:
        for matrix, (_, _, a_at, segments, K, c_at) in zip(matrices, phases, strict=True):
            multiply_images(
                g, around, matrix, flat, one, a_at, segments, K, 1, c_at, inputs, False, first, last
            )

    in_shards(work, images, 1)
    return dx.transpose(0, 3, 1, 2)


def _check(x: Any, w: Any, g: Any, size: Pair, groups: int) -> None:
    """That images, weights and results of these shapes belong together: nothing below looks at that again."""
    fits = w[0] % groups == 0 and x[1] == groups * w[1] and g == (x[0], w[0], *size)
    if not fits:
        raise ShapeError(f"a convolution of {x} by {w} in {groups} groups does not come to {g}")


def _is_empty(a: Any, b: Any) -> bool:
    return a.size == 0 or b.size == 0


def _channels_last(images: Any) -> Any:
    """(N, C, H, W) as (N, H, W, C), in this order in memory."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


# --- tables, in elements of a padded image ---------------------------------------------------------


def _rows(places: Any) -> Any:
    """A table of rows: the last one is repeated until any tile is full."""
    places = places.reshape(-1)
    return np.concatenate([places, np.repeat(places[-1:], TALL - 1)])


def _steps(numbers: Pair, steps: Pair) -> tuple[Any, Any]:
    """So many places, so far apart, each way."""
    return np.arange(numbers[0]) * steps[0], np.arange(numbers[1]) * steps[1]


def _grid(rows: Any, columns: Any, width: int, channels: int) -> Any:
    """Where pixels begin in an image so many pixels wide."""
    return (np.asarray(rows)[:, None] * width + np.asarray(columns)) * channels


def _runs(rows: Any, columns: Any, width: int, channels: int, groups: int) -> tuple[Any, int]:
    """The segments of these pixels of a kernel, and their length: of a row at a time where it is one run of
    memory."""
    if groups == 1 and (np.diff(columns) == 1).all() and len(columns):
        return _grid(rows, columns[:1], width, channels).reshape(-1), len(columns) * channels
    return _grid(rows, columns, width, channels).reshape(-1), channels // groups


@functools.lru_cache(256)
def _patches(
    shape: tuple[int, int, int], size: Pair, outs: int, kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair, groups: int,
) -> tuple:  # fmt: skip
    """For y: the padded image's size and beginning, and the tables."""
    height, width, channels = shape
    around = height + 2 * padding[0], width + 2 * padding[1], *padding
    wide = around[1]
    segments, K = _runs(*_steps(kernel, dilation), wide, channels, groups)
    a_at = _rows(_grid(*_steps(size, stride), wide, channels))
    return around, a_at, segments, K, _rows(np.arange(size[0] * size[1]) * outs)


@functools.lru_cache(256)
def _kernel_rows(
    shape: tuple[int, int, int], size: Pair, outs: int, kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair, groups: int,
) -> tuple:  # fmt: skip
    """For dw."""
    height, width, channels = shape
    around = height + 2 * padding[0], width + 2 * padding[1], *padding
    taps = _grid(*_steps(kernel, dilation), around[1], channels)
    a_at = _rows(taps[:, :, None] + np.arange(channels // groups))
    segments = np.arange(size[0]) * (stride[0] * around[1] * channels)
    return around, a_at, segments, _rows(np.arange(taps.size * (channels // groups)) * outs)


@functools.lru_cache(256)
def _phases(
    shape: tuple[int, int, int], size: Pair, channels: int, kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair, groups: int,
) -> tuple:  # fmt: skip
    """For dx: around, and the tables of each phase, with the rows and columns of the kernel that it meets."""
    ways = [_phases_of(*way) for way in zip(size, kernel, stride, padding, dilation, strict=True)]
    top, left = (max(0, *(-min(offsets, default=0) for _, _, offsets in way)) for way in ways)
    bottom, right = (
        max(0, *(len(places) + max(offsets, default=0) - n for places, _, offsets in way))
        for way, n in zip(ways, shape, strict=False)
    )
    around = top + shape[0] + bottom, left + shape[1] + right, top, left
    phases = []
    for rows, i, r in ways[0]:
        for columns, j, c in ways[1]:
            a_at = _grid(np.arange(len(rows)), np.arange(len(columns)), around[1], shape[2])
            segments, K = _runs(np.array(r, int) + top, np.array(c, int) + left, around[1], shape[2], groups)
            c_at = _grid(rows, columns, size[1], channels)
            phases.append((i, j, _rows(a_at), segments, K, _rows(c_at)))
    return around, phases


def _phases_of(size: int, kernel: int, stride: int, padding: int, dilation: int) -> list[tuple]:
    """One way: the places of the input a stride apart, and of each number of the kernel that they meet, which
    it is and which place of g the first of them meets it in; in the order of these places."""
    phases = []
    for phase in range(min(stride, size)):
        met = [(phase + padding - i * dilation, i) for i in range(kernel)]
        met = sorted((at // stride, i) for at, i in met if at % stride == 0)
        phases.append((np.arange(phase, size, stride), [i for _, i in met], [at for at, _ in met]))
    return phases
