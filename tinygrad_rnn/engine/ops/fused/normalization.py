"""Normalisation by the statistics of the data itself, in the functions that array libraries share.

x is (N, C, *spatial), with any strides; mean and variance are those of each channel, over all other axes.
"""

from __future__ import annotations

from typing import Any

# mean, rest and inverse_std = 1 / sqrt(variance + eps), each (C,). The mean is the sum of the first two: a
# single float32 that is large beside the deviations is off by some part of them.
Statistics = tuple[Any, Any, Any]


def forward(xp: Any, x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Statistics]:
    """(x - mean) inverse_std weight + bias, the variance (C,), and the statistics. weight and bias are (C,),
    or None."""
    mean = _means(xp, x)
    centred = x - _spread(mean, x)
    rest = _means(xp, centred)  # the corrected two-pass algorithm (Chan, Golub & LeVeque, 1983)
    variance = xp.maximum(_means(xp, centred * centred) - rest * rest, 0)
    inverse_std = 1 / xp.sqrt(variance + eps)
    scale = inverse_std if weight is None else inverse_std * weight
    shift = -rest * scale if bias is None else bias - rest * scale
    centred *= _spread(scale, x)
    centred += _spread(shift, x)
    return centred, variance, (mean, rest, inverse_std)


def backward(
    xp: Any, g: Any, x: Any, weight: Any, statistics: Statistics, needs: tuple[bool, bool, bool]
) -> tuple[Any, Any, Any]:
    """With y = (x - mean - rest) inverse_std, and averages and sums over a channel's n values:

    dx = weight inverse_std (g - average(g) - y average(g y))
    dweight = sum(g y)
    dbias = sum(g)
    """
    mean, rest, inverse_std = statistics
    y = x - _spread(mean, x)
    y *= _spread(inverse_std, x)
    more = rest * inverse_std  # than what is y
    count = x.size // max(x.shape[1], 1)
    average, product = _means(xp, g), _means(xp, g * y)
    product = product - more * average
    dx = None
    if needs[0]:
        y *= _spread(-product, x)
        y += g
        y -= _spread(average - more * product, x)
        y *= _spread(inverse_std if weight is None else inverse_std * weight, x)
        dx = y
    return dx, product * count if needs[1] else None, average * count if needs[2] else None


def _means(xp: Any, x: Any) -> Any:
    """The mean of each channel, (C,): of each image first, so that no sum is long."""
    if x.ndim > 2:
        # As a product, which asks less than a sum does of the order in memory.
        places = x.reshape(*x.shape[:2], -1)
        x = places @ xp.full(places.shape[2], 1 / places.shape[2], x.dtype)
    return x.mean(axis=0)


def _spread(values: Any, x: Any) -> Any:
    """Values a channel, of a shape that broadcasts to x."""
    return values.reshape(values.shape + (1,) * (x.ndim - 2))
