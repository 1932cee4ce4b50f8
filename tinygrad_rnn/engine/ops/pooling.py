"""Pooling of images (N, C, H, W): the largest value, or the average, of windows that slide over them.

An op walks over the places in a window, of which there are few, and treats all windows at once: nothing is
copied but the values themselves, and results lie in memory in the order that x does. global_avg_pool2d is a
mean, which is in the table already, and needs no derivative of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...errors import ShapeError
from ..op import op
from ..tensor import Tensor, tensor
from .options import integers

Pair = int | tuple[int, int]


class Windows(NamedTuple):
    """The windows along one axis of `size` values: window o begins at o * stride - padding, and its values
    lie `dilation` apart."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    outputs: int

    def places(self) -> Iterator[tuple[int, slice, slice]]:
        """Each place in a window: its number, the windows for which it is not in the padding, and what it
        is in each of these, as slices of the windows and of the values."""
        for number in range(self.kernel):
            start = number * self.dilation - self.padding
            first = max(0, -(start // self.stride))
            last = min(self.outputs, (self.size - 1 - start) // self.stride + 1)
            if first < last:
                begin, end = first * self.stride + start, (last - 1) * self.stride + start
                yield number, slice(first, last), slice(begin, end + 1, self.stride)

    def first_places(self) -> list[int]:
        """For each window the first place that is not in the padding."""
        begins = (o * self.stride - self.padding for o in range(self.outputs))
        return [max(0, -(begin // self.dilation)) for begin in begins]

    def counts(self, with_padding: bool) -> list[int]:
        """How many values each window averages: also those in the padding, or only its own. (One that
        ceil_mode lets hang over the padding's end counts none beyond it.)"""
        begins = [o * self.stride - self.padding for o in range(self.outputs)]
        if with_padding:
            return [min(b + self.kernel, self.size + self.padding) - b for b in begins]
        return [min(b + self.kernel, self.size) - max(b, 0) for b in begins]


def _windows(
    name: str,
    size: tuple[int, ...],
    kernel_size: Pair,
    stride: Pair | None,
    padding: Pair,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> tuple[Windows, Windows]:
    """The windows along height and width of an image of that size."""
    kernels = integers(name, "kernel_size", kernel_size, 2, 1)
    strides = kernels if stride is None else integers(name, "stride", stride, 2, 1)
    paddings = integers(name, "padding", padding, 2, 0)
    dilations = integers(name, "dilation", dilation, 2, 1)
    axes = []
    for n, k, s, p, d in zip(size, kernels, strides, paddings, dilations, strict=True):
        if p > k // 2:
            raise ShapeError(
                f"{name}: padding {paddings} is more than half of kernel_size {kernels}: a window could "
                "lie in the padding alone"
            )
        spread = d * (k - 1) + 1
        count = (n + 2 * p - spread + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:  # it would begin in the padding at the end
            count -= 1
        axis = Windows(n, k, s, p, d, count)
        if n < 1 or count < 1:
            raise ShapeError(
                f"{name}: kernel_size {kernels}"
                + (f" with dilation {dilations}" if d > 1 else "")
                + " is larger "
                f"than the image of height and width {size}" + (f" with padding {paddings}" if p else "")
            )
        if d > 1 and any(o * s - p + place * d >= n for o, place in enumerate(axis.first_places())):
            raise ShapeError(
                f"{name}: with kernel_size {kernels}, dilation {dilations} and padding {paddings}, a window "
                f"over the image of height and width {size} has all its values in the padding"
            )
        axes.append(axis)
    return axes[0], axes[1]


def _check_images(name: str, x: Any) -> None:
    if x.ndim not in (3, 4):
        raise ShapeError(
            f"{name}: x must be images of shape (N, C, H, W), or one (C, H, W), not of shape {x.shape}"
        )


def memory_order(x: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of x as they follow one another in memory, and the order that undoes this one."""
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    return tuple(order), tuple(order.index(axis) for axis in range(x.ndim))


def _filled(xp: Any, x: Any, size: tuple[int, int], value: float, dtype: Any = None) -> Any:
    """As many images as in x, of that height and width, filled with a value, in memory in the order of x."""
    order, back = memory_order(x)
    shape = (*x.shape[:-2], *size)
    made = xp.full(tuple(shape[axis] for axis in order), value, dtype or x.dtype)
    return made.transpose(back)


# --- the largest value ----------------------------------------------------------------------------


def _max_pool2d_vjp(
    F: Any, g: Any, out: Any, x: Any, needs: Any, residuals: Any, ceil_mode: bool, **windows: Any
) -> tuple:
    """dx = 0, and each g added at the place that won its window"""
    return (F.put_winners(g, residuals, size=x.shape[-2:], **windows),)


def _max_pool2d_equations(F: Any, x: Any, ceil_mode: bool = False, **windows: Any) -> Any:
    winners = F.max_pool2d_winners(x, ceil_mode=ceil_mode, **windows)
    return F.take_winners(x, winners, **windows)


@op(
    joint=_max_pool2d_vjp,
    reference=_max_pool2d_equations,
    saves="x",
    has_residuals=True,
    gives_away=True,
    floating=True,
)
def max_pool2d(
    xp: Any,
    x: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    keep: bool = True,
) -> Any:
    """The largest value of each window of an image: (N, C, H, W) -> (N, C, H', W'), or (C, H, W) of one.

    kernel_size, stride (kernel_size unless given), padding, dilation: an integer, or (height, width). The
    padding is never chosen. H' = floor((H + 2 padding - dilation (kernel_size - 1) - 1) / stride) + 1; with
    ceil_mode it is rounded up, without windows that would begin in the padding at the end. The gradient goes
    to the value that won: the first of equal ones, row by row; NaN wins. Integers become floats.

    Raises ShapeError where a window is larger than the padded image, or the padding than half a window, or
    all of a window lies in the padding (dilation may have it so; PyTorch gives -inf there); DtypeError for
    an option that is no integer.
    """
    _check_images("max_pool2d", x)
    windows = _windows("max_pool2d", x.shape[-2:], kernel_size, stride, padding, dilation, ceil_mode)
    return _largest(xp, x, windows, keep)


@op(floating=True)
def max_pool2d_winners(
    xp: Any,
    x: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Any:
    """Which place in each window has the largest value, counted row by row: (N, C, H', W')."""
    _check_images("max_pool2d", x)
    windows = _windows("max_pool2d", x.shape[-2:], kernel_size, stride, padding, dilation, ceil_mode)
    return _largest(xp, x, windows, True)[1]


def _largest(xp: Any, x: Any, windows: tuple[Windows, Windows], keep: bool) -> tuple[Any, Any]:
    """The largest value of each window, and (or None) the place that has it."""
    rows, columns = windows
    size = rows.outputs, columns.outputs
    largest = _filled(xp, x, size, -math.inf)
    winners = None
    if keep:
        narrow = rows.kernel * columns.kernel <= 256
        winners = _filled(xp, x, size, 0, "uint8" if narrow else "int64")
        first = xp.asarray(rows.first_places())[:, None] * columns.kernel
        winners += (first + xp.asarray(columns.first_places())).astype(winners.dtype)
    for place, out, into in _places(windows):
        values, best = x[into], largest[out]
        if winners is not None:
            values = values.copy(order="K")  # read several times, and seldom side by side in x
            better = (values > best) | (values != values)
            # Places ascend: the one that is better now is the largest number so far.
            xp.maximum(winners[out], better.astype(winners.dtype) * place, out=winners[out])
        xp.maximum(best, values, out=best)
    return largest, winners


def _places(windows: tuple[Windows, Windows]) -> Iterator[tuple[int, tuple, tuple]]:
    """Each place in a window, counted row by row: the windows that have it, and what it is in each."""
    rows, columns = windows
    for i, out_rows, x_rows in rows.places():
        for j, out_columns, x_columns in columns.places():
            yield i * columns.kernel + j, (..., out_rows, out_columns), (..., x_rows, x_columns)


@op(
    lambda F, g, out, x, winners, **windows: F.put_winners(g, winners, size=x.shape[-2:], **windows),
    None,
    inputs=2,
    saves="winners",
    shapes="x",
    floating=True,
)
def take_winners(
    xp: Any,
    x: Any,
    winners: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
) -> Any:
    """The value of each window of x at its place in `winners`, which counts them row by row."""
    windows = _given_windows(x.shape[-2:], winners.shape[-2:], kernel_size, stride, padding, dilation)
    taken = _filled(xp, x, winners.shape[-2:], 0)
    for place, out, into in _places(windows):
        taken[out] += xp.where(winners[out] == place, x[into], 0)
    return taken


@op(
    lambda F, g, out, values, winners, size, **windows: F.take_winners(g, winners, **windows),
    None,
    inputs=2,
    saves="winners",
    floating=True,
)
def put_winners(
    xp: Any,
    values: Any,
    winners: Any,
    size: tuple[int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
) -> Any:
    """The derivative of max_pool2d: an image of height and width `size`, 0 but for each window's value, which
    is added at its place in `winners`."""
    windows = _given_windows(size, winners.shape[-2:], kernel_size, stride, padding, dilation)
    image = _filled(xp, values, size, 0)
    for place, out, into in _places(windows):
        image[into] += _where_true(xp, winners[out] == place, values[out])
    return image


def _where_true(xp: Any, condition: Any, values: Any) -> Any:
    """The values where the condition is true, 0 elsewhere; infinity and NaN too, which times 0 are NaN."""
    if values.dtype.itemsize > 8:
        return xp.where(condition, values, 0)
    # Bits times 0 or 1: several times as quick as where().
    return (values.view(f"int{8 * values.dtype.itemsize}") * condition).view(values.dtype)


def _given_windows(
    size: tuple[int, int], counts: tuple[int, int], kernel_size: Pair, stride: Pair | None, *rest: Pair
) -> tuple[Windows, Windows]:
    """So many windows over height and width, of parameters that were checked before."""
    given = (kernel_size, kernel_size if stride is None else stride, *rest)
    pairs = [integers("max_pool2d", "a size of the windows", value, 2) for value in given]
    (k, s, p, d), (kk, ss, pp, dd) = zip(*pairs, strict=True)
    return Windows(size[0], k, s, p, d, counts[0]), Windows(size[1], kk, ss, pp, dd, counts[1])


# --- the average ----------------------------------------------------------------------------------


@op(
    lambda F, g, out, x, **windows: F.avg_pool2d_gradient(g, size=x.shape[-2:], **windows),
    shapes="x",
    floating=True,
)
def avg_pool2d(
    xp: Any,
    x: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The average of each window of an image, (N, C, H, W) or (C, H, W); options and sizes as in max_pool2d.

    count_include_pad: whether the zeros of the padding count as values. (PyTorch's divisor_override is not
    here: multiply the result.)

    Raises ShapeError where a window is larger than the padded image, or the padding than half a window;
    DtypeError for an option that is no integer.
    """
    _check_images("avg_pool2d", x)
    windows = _windows("avg_pool2d", x.shape[-2:], kernel_size, stride, padding, 1, ceil_mode)
    rows, columns = windows
    total = _filled(xp, x, (rows.outputs, columns.outputs), 0)
    for _, out, into in _places(windows):
        total[out] += x[into]
    total *= _shares(xp, windows, count_include_pad, x.dtype)
    return total


@op(
    lambda F, g, out, values, size, **windows: F.avg_pool2d(g, **windows),
    floating=True,
)
def avg_pool2d_gradient(
    xp: Any,
    values: Any,
    size: tuple[int, int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The derivative of avg_pool2d: an image of height and width `size` to which each window's value is added
    in equal shares."""
    windows = _windows("avg_pool2d", tuple(size), kernel_size, stride, padding, 1, ceil_mode)
    shares = values * _shares(xp, windows, count_include_pad, values.dtype)
    image = _filled(xp, values, size, 0)
    for _, out, into in _places(windows):
        image[into] += shares[out]
    return image


def _shares(xp: Any, windows: tuple[Windows, Windows], with_padding: bool, dtype: Any) -> Any:
    """1 / the number of values of each window: a number where all have as many, else (H', W')."""
    rows, columns = (axis.counts(with_padding) for axis in windows)
    if len({*rows}) == len({*columns}) == 1:
        return 1 / (rows[0] * columns[0])
    return xp.asarray([[1 / (row * column) for column in columns] for row in rows]).astype(dtype)


def global_avg_pool2d(x: Tensor) -> Tensor:
    """The average of each channel of an image: (N, C, H, W) -> (N, C), or (C, H, W) -> (C,). Lin, Chen & Yan,
    2014. It is made of ops of the table, and has no entry there.

    Raises ShapeError for other shapes, or an image of no pixels.
    """
    x = x if isinstance(x, Tensor) else tensor(x)
    _check_images("global_avg_pool2d", x)
    if not x.shape[-2] * x.shape[-1]:
        raise ShapeError(f"global_avg_pool2d: images of shape {x.shape} have no pixels to average")
    return x.mean(axis=-2).mean(axis=-1)  # a sum of all pixels in turn would lose digits
