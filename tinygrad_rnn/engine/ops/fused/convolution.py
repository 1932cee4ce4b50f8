"""Convolution and its two derivatives as matrix products, in functions that array libraries share.

The patches of the images that the kernel is laid on become the rows of a matrix (im2col: Chellapilla, Puri &
Simard, 2006), a few images at a time, so that it stays in the cache between being written and multiplied.
Inside, channels come last: a patch is then made of long runs of memory, and the product is the result.

x is (N, C, H, W), w is (O, C / groups, KH, KW), g is the gradient of the result, (N, O, OH, OW). stride,
padding and dilation are pairs (height, width). Images that are made have the memory of channels last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CACHE = 1 << 21  # bytes of patches at a time

Pair = tuple[int, int]


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """In how many places the kernel can be laid on, each way."""
    height, width = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return height, width


def forward(xp: Any, x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
    """y[n, o, r, c] = sum over m, i, j of w[o, m, i, j] x[n, m, r stride + i dilation - padding, ...]"""
    size = output_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    y = xp.empty((x.shape[0], *size, w.shape[0]), x.dtype)
    matrix = _matrix(w, groups)
    for images, patches in _patches(xp, x, w.shape[2:], size, stride, padding, dilation, groups):
        xp.matmul(patches, matrix, out=_by_group(y[images], groups))
    return y.transpose(0, 3, 1, 2)


def weight_gradient(
    xp: Any, x: Any, g: Any, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """dw[o, m, i, j] = sum over n, r, c of g[n, o, r, c] x[n, m, r stride + i dilation - padding, ...]"""
    g = xp.ascontiguousarray(g.transpose(0, 2, 3, 1))
    members = x.shape[1] // groups
    matrix = xp.zeros((groups, kernel_size[0] * kernel_size[1] * members, g.shape[3] // groups), x.dtype)
    for images, patches in _patches(xp, x, kernel_size, g.shape[1:3], stride, padding, dilation, groups):
        matrix += xp.matmul(patches.swapaxes(1, 2), _by_group(g[images], groups))
    dw = matrix.reshape(groups, *kernel_size, members, g.shape[3] // groups).transpose(0, 4, 3, 1, 2)
    return xp.ascontiguousarray(dw).reshape(g.shape[3], members, *kernel_size)


def input_gradient(
    xp: Any, g: Any, w: Any, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """dx[n, m, r stride + i dilation - padding, ...] = sum of all such w[o, m, i, j] g[n, o, r, c]

    With a stride of one this is a convolution of g with the kernel turned round.
    """
    kernel = w.shape[2:]
    members = w.shape[1]
    if stride == (1, 1):
        turned = w[:, :, ::-1, ::-1].reshape(groups, -1, members, *kernel).swapaxes(1, 2)
        turned = turned.reshape(groups * members, -1, *kernel)
        around = tuple(d * (k - 1) - p for k, p, d in zip(kernel, padding, dilation, strict=True))
        return forward(xp, g, turned, stride, around, dilation, groups)  # type: ignore[arg-type]
    g = xp.ascontiguousarray(g.transpose(0, 2, 3, 1))
    (height, width), (above, left) = size, padding
    dx = xp.zeros((g.shape[0], height + 2 * above, width + 2 * left, groups, members), g.dtype)
    matrix = _matrix(w, groups).swapaxes(1, 2)
    for images in _blocks(g.shape[0], g.shape[1] * g.shape[2] * matrix.shape[2] * groups * g.dtype.itemsize):
        spread = xp.matmul(_by_group(g[images], groups), matrix)
        spread = spread.reshape(groups, images.stop - images.start, *g.shape[1:3], *kernel, members)
        for i, j, rows, columns in _places(kernel, g.shape[1:3], stride, dilation):
            dx[images, rows, columns] += spread[:, :, :, :, i, j].transpose(1, 2, 3, 0, 4)
    dx = dx[:, above : above + height, left : left + width]
    return dx.reshape(g.shape[0], height, width, groups * members).transpose(0, 3, 1, 2)


def _patches(
    xp: Any, x: Any, kernel: Pair, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Iterator[tuple[slice, Any]]:
    """Some images at a time, with a matrix for each group: a row a place, columns (KH, KW, C / groups).

    Negative padding takes rows and columns away.
    """
    above, left = (max(p, 0) for p in padding)
    top, side = (max(-p, 0) for p in padding)
    x = x[:, :, top : x.shape[2] - top, side : x.shape[3] - side].transpose(0, 2, 3, 1)
    count, height, width, channels = x.shape
    members = channels // groups
    length = kernel[0] * kernel[1] * members
    blocks = _blocks(count, size[0] * size[1] * length * groups * x.dtype.itemsize)
    around = None
    if above or left:  # room for one block: what is around the images stays zero
        most = blocks[0].stop if blocks else 0
        around = xp.zeros((most, height + 2 * above, width + 2 * left, channels), x.dtype)
    for images in blocks:
        block = x[images]
        n = block.shape[0]
        if around is not None:
            around[:n, above : above + height, left : left + width] = block
            block = around[:n]
        image, row, column, channel = block.strides
        places = row * stride[0], column * stride[1], row * dilation[0], column * dilation[1]
        # Each patch where it lies in the images; reshape copies them, in runs as long as there are.
        patches = xp.lib.stride_tricks.as_strided(
            block,
            (groups, n, *size, *kernel, members),
            (members * channel, image, *places, channel),
        )
        yield images, patches.reshape(groups, n * size[0] * size[1], length)


def _blocks(count: int, bytes_each: int) -> list[slice]:
    """So many images, cut into pieces that stay in the cache."""
    step = max(1, CACHE // max(bytes_each, 1))
    return [slice(first, min(first + step, count)) for first in range(0, count, step)]


def _places(
    kernel: Pair, size: Pair, stride: Pair, dilation: Pair
) -> Iterator[tuple[int, int, slice, slice]]:
    """Each element of the kernel, and the rows and columns of the padded image that it meets."""
    for i in range(kernel[0]):
        rows = slice(i * dilation[0], i * dilation[0] + size[0] * stride[0] - stride[0] + 1, stride[0])
        for j in range(kernel[1]):
            first = j * dilation[1]
            yield i, j, rows, slice(first, first + size[1] * stride[1] - stride[1] + 1, stride[1])


def _matrix(w: Any, groups: int) -> Any:
    """The kernel as a matrix for each group: (KH KW C / groups, O / groups)."""
    w = w.reshape(groups, -1, *w.shape[1:]).transpose(0, 3, 4, 2, 1)
    return w.reshape(groups, -1, w.shape[4])


def _by_group(y: Any, groups: int) -> Any:
    """Images (n, OH, OW, O) as a matrix for each group: (n OH OW, O / groups); a view."""
    return y.reshape(-1, groups, y.shape[3] // groups).swapaxes(0, 1)
