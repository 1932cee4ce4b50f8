"""The kernels of normalization.py, compiled: called as those are.

They are for memory in which channels come last: then x is rows, one for each place, and several rows together
are long enough for vector registers whatever the number of channels. Other x are left to normalization.py.

The statistics take one pass over x. The mean of a block, which lies in the nearest cache, is found first and
then the squares about it; blocks and shards are put together in float64 by the formula of Chan, Golub &
LeVeque (1983). So no sum is long, and a mean that is large beside the deviations does no harm.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from . import normalization
from .jit import compiled, inlined
from .normalization import Statistics
from .shards import in_shards

WIDTH = 128  # numbers, about, of the rows that are taken together
BLOCK = 1 << 13  # numbers of a block, about
ROWS = 512  # that a shard has at least


def forward(xp: Any, x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Statistics]:
    """(x - mean - rest) inverse_std weight + bias, the variance (C,), and the statistics. weight and bias
    (C,) may be None."""
    rows = _rows_of(x)
    if not x.size or not rows.flags.c_contiguous:
        return normalization.forward(xp, x, weight, bias, eps)
    count, channels, flat = x.size // x.shape[1], x.shape[1], rows.reshape(-1)

    def measure(first: int, last: int) -> Any:
        found = np.zeros((2, channels))
        moments(flat, channels, found[0], found[1], first, last)
        return last - first, found

    parts = in_shards(measure, count, ROWS)
    exact, squares = together(parts)
    mean, variance = exact.astype(x.dtype), squares / count
    inverse_std = 1 / np.sqrt(variance + eps)
    with np.errstate(invalid="ignore"):  # of means that are infinite
        rest = exact - mean
        scale = inverse_std if weight is None else inverse_std * weight
        shift = -rest * scale if bias is None else bias - rest * scale
    rest, inverse_std, scale, shift = (values.astype(x.dtype) for values in (rest, inverse_std, scale, shift))
    out = np.empty(rows.shape, x.dtype)
    flat_out = out.reshape(-1)
    in_shards(lambda first, last: apply(flat, mean, scale, shift, flat_out, first, last), count, ROWS)
    return _as_before(out), variance.astype(x.dtype), (mean, rest, inverse_std)


def backward(
    xp: Any, g: Any, x: Any, weight: Any, statistics: Statistics, needs: tuple[bool, bool, bool]
) -> tuple[Any, Any, Any]:
    """With y = (x - mean - rest) inverse_std, and averages and sums over a channel's n values:

    dx = weight inverse_std (g - average(g) - y average(g y))
    dweight = sum(g y)
    dbias = sum(g)
    """
    rows = _rows_of(x)
    if not x.size or not rows.flags.c_contiguous:
        return normalization.backward(xp, g, x, weight, statistics, needs)
    count, channels, flat = x.size // x.shape[1], x.shape[1], rows.reshape(-1)
    mean, rest, inverse_std = statistics
    upstream = np.ascontiguousarray(_rows_of(g)).reshape(-1)

    def add_up(first: int, last: int) -> Any:
        found = np.zeros((2, channels))
        sums(upstream, flat, mean, found[0], found[1], first, last)
        return found

    total = np.add.reduce(in_shards(add_up, count, ROWS))
    dbias, dweight = total[0], (total[1] - rest * total[0]) * inverse_std
    dx = None
    if needs[0]:
        scale = inverse_std if weight is None else inverse_std * weight
        product = inverse_std * (dweight / count)
        average, slope = dbias / count - rest * product, scale * product
        scale, average, slope = (values.astype(x.dtype) for values in (scale, average, slope))
        into = np.empty(rows.shape, x.dtype)
        flat_into = into.reshape(-1)
        in_shards(
            lambda first, last: spread(upstream, flat, mean, average, scale, slope, flat_into, first, last),
            count,
            ROWS,
        )
        dx = _as_before(into)
    return dx, dweight.astype(x.dtype) if needs[1] else None, dbias.astype(x.dtype) if needs[2] else None


def together(parts: list[tuple[int, Any]]) -> Any:
    """Mean and squares about it, of what has these: (count, (mean, squares)) each."""
    (count, (mean, squares)), *others = parts
    for more, (its_mean, its_squares) in others:
        apart, total = its_mean - mean, count + more
        mean = mean + apart * (more / total)
        squares = squares + its_squares + apart * apart * (count * more / total)
        count = total
    return mean, squares


def _rows_of(x: Any) -> Any:
    """x with channels last."""
    return x.transpose(0, *range(2, x.ndim), 1)


def _as_before(rows: Any) -> Any:
    return rows.transpose(0, rows.ndim - 1, *range(1, rows.ndim - 1))


# --- what is compiled; arrays are flat, rows of C numbers -------------------------------------------------


@inlined
def _repeated(values):
    """Values a channel, again and again for the rows that are taken together."""
    C = values.size
    several = np.empty(max(WIDTH // C, 1) * C, values.dtype)
    for n in range(several.size):
        several[n] = values[n % C]
    return several


@inlined
def _fold(several, into):
    """What was summed over rows apart, a channel."""
    for n in range(several.size):
        into[n % into.size] += several[n]
        several[n] = 0


@compiled
def moments(x, C, mean, squares, first, last):
    """The means of rows from `first` to `last`, and the sums of squares about them, in float64."""
    none = np.zeros(C, x.dtype)
    centre, sums_, powers = _repeated(none), _repeated(none), _repeated(none)
    width, found, more = centre.size, np.empty(C), np.empty(C)
    block = max(BLOCK // width, 8) * width
    done = 0
    for start in range(first * C, last * C, block):
        end = min(start + block, last * C)
        rows = (end - start) // C
        for at in range(start, end, width):
            part = x[at : min(at + width, end)]
            for n in range(part.size):
                sums_[n] += part[n]
        found[:] = 0
        _fold(sums_, found)
        for n in range(width):
            centre[n] = found[n % C] / rows
        for at in range(start, end, width):
            part = x[at : min(at + width, end)]
            for n in range(part.size):
                apart = part[n] - centre[n]
                sums_[n] += apart
                powers[n] += apart * apart
        found[:] = 0
        more[:] = 0
        _fold(sums_, found)
        _fold(powers, more)
        total = done + rows
        for c in range(C):
            rest = found[c] / rows  # what rounding has left between centre and mean
            apart = centre[c] + rest - mean[c]
            mean[c] += apart * (rows / total)
            squares[c] += more[c] - rest * found[c] + apart * apart * (done * (rows / total))
        done = total


@compiled
def apply(x, mean, scale, shift, out, first, last):
    """out = (x - mean) scale + shift"""
    C = mean.size
    mean, scale, shift = _repeated(mean), _repeated(scale), _repeated(shift)
    for at in range(first * C, last * C, mean.size):
        end = min(at + mean.size, last * C)
        part, into = x[at:end], out[at:end]
        for n in range(part.size):
            into[n] = (part[n] - mean[n]) * scale[n] + shift[n]


@compiled
def sums(g, x, mean, sum_g, sum_gx, first, last):
    """sum_g += g and sum_gx += g (x - mean), a channel, in float64."""
    C = mean.size
    mean = _repeated(mean)
    width = mean.size
    some, others = np.zeros(width, x.dtype), np.zeros(width, x.dtype)
    block = max(BLOCK // width, 8) * width
    for start in range(first * C, last * C, block):
        finish = min(start + block, last * C)
        for at in range(start, finish, width):
            end = min(at + width, finish)
            part, upstream = x[at:end], g[at:end]
            for n in range(part.size):
                some[n] += upstream[n]
                others[n] += upstream[n] * (part[n] - mean[n])
        _fold(some, sum_g)
        _fold(others, sum_gx)


@compiled
def spread(g, x, mean, average, scale, slope, dx, first, last):
    """dx = (g - average) scale - (x - mean) slope"""
    C = mean.size
    mean, average, scale, slope = _repeated(mean), _repeated(average), _repeated(scale), _repeated(slope)
    for at in range(first * C, last * C, mean.size):
        end = min(at + mean.size, last * C)
        part, upstream, into = x[at:end], g[at:end], dx[at:end]
        for n in range(part.size):
            into[n] = (upstream[n] - average[n]) * scale[n] - (part[n] - mean[n]) * slope[n]
