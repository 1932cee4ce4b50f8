"""Small images of shapes: made, any number of them, from a seed.

The same seed gives the same bytes on every platform and with every version of NumPy: all chance comes from
the words of a counter-based generator, and all arithmetic is of the kind that IEEE 754 rounds in one way only
(no sine, no matrix product).
"""

from __future__ import annotations

import numpy as np

from ..errors import SettingError
from .counted import NOISE, SHAPE, check_seed, counted, uniform

SHAPES = ("circle", "ring", "half", "square", "frame", "triangle", "cross", "bar")
MIN_SIZE = 8
_AT_ONCE = 128  # images: what is made of them fits the processor's cache


def make_shapes(
    count: int, size: int = 32, seed: int = 0, channels: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """`count` images, uint8 (count, channels, size, size), and labels, int64 (count,), places in SHAPES.

    Each has one shape somewhere, turned, between a third and two thirds of the image across, lighter or
    darker than the ground in each channel by 0.4 to 0.6 of the range; a ground whose brightness slopes; and
    noise. The classes come in turn. A larger set begins with the smaller one.
    """
    if count < 1:
        raise SettingError("count", f"must be at least 1, not {count}")
    if size < MIN_SIZE:
        raise SettingError("size", f"must be at least {MIN_SIZE}, for a shape to be seen, not {size}")
    if channels not in (1, 3):
        raise SettingError("channels", f"must be 1 or 3, not {channels}")
    check_seed(seed)
    labels = np.arange(count) % len(SHAPES)
    images = np.empty((count, channels, size, size), np.uint8)
    chance, noise = counted(seed, SHAPE), counted(seed, NOISE)
    for start in range(0, count, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        images[part] = _drawn(labels[part], images.shape[1:], chance, noise)
    return images, labels


def _drawn(
    labels: np.ndarray, shape: tuple[int, ...], chance: np.random.Philox, noise: np.random.Philox
) -> np.ndarray:
    channels, size, _ = shape
    # One row of numbers for each image, as arrays (B, 1, 1).
    place, turn, across, slope, ground, step = np.split(
        uniform(chance, len(labels), 6 + 2 * channels).T[:, :, None, None], [2, 3, 4, 6, 6 + channels]
    )
    radius = size * (1 + across[0]) / 6
    center = radius + place * (size - 2 * radius)
    at = np.arange(size) + 0.5
    y, x = (at[:, None] - center[0]) / radius, (at - center[1]) / radius

    # A direction (cos, sin): from the tangent of half its angle, -90 to 90 degrees, or the opposite one.
    half = 2 * (2 * turn[0] % 1) - 1
    side = np.where(turn[0] < 0.5, 1.0, -1.0)
    cos, sin = side * (1 - half * half) / (1 + half * half), side * 2 * half / (1 + half * half)
    covered = _inside(labels, cos * x + sin * y, cos * y - sin * x, radius)

    slope = (slope - 0.5) / 2
    shade = ground + slope[0] * (at[:, None] / size - 0.5) + slope[1] * (at / size - 0.5)
    figure = (ground + 0.4 + 0.2 * step) % 1
    picture = shade + covered * (figure - shade)  # (C, B, H, W)
    picture = picture.swapaxes(0, 1) + 0.25 * (uniform(noise, len(labels), *shape) - 0.5)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _inside(labels: np.ndarray, u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How much of each pixel the shape covers, 0 to 1, at (u, v) in units of its radius: (B, H, W)."""
    outside = np.empty(u.shape)  # the distance from the shape's border, negative inside
    for label, distance in enumerate(_DISTANCES):
        ours = labels == label
        outside[ours] = distance(u[ours], v[ours])
    return np.clip(0.5 - outside * radius, 0, 1)


def _circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v) - 1


def _box(u: np.ndarray, v: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.maximum(abs(u) - width, abs(v) - height)


_DISTANCES = (
    _circle,
    lambda u, v: abs(_circle(u, v) + 0.2) - 0.2,
    lambda u, v: np.maximum(_circle(u, v + 0.4), -0.4 - v),
    lambda u, v: _box(u, v, 0.75, 0.75),
    lambda u, v: abs(_box(u, v, 0.6, 0.6)) - 0.18,
    lambda u, v: np.maximum(v - 0.5, 0.8660254 * abs(u) - 0.5 * v - 0.5),
    lambda u, v: np.minimum(_box(u, v, 1, 0.28), _box(u, v, 0.28, 1)),
    lambda u, v: _box(u, v, 1, 0.28),
)
