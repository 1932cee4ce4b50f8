"""Laws of images in another size and of parts of them; PyTorch's values, gradients, second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops.pooling import memory_order
from tinygrad_rnn.errors import DtypeError, ShapeError, TinygradError, UsageError

from .laws import assert_close
from .samples import REALS, arrays, leaf
from .test_pooling import agrees_with_pytorch, channels_last

MODES = st.sampled_from([("nearest", False), ("bilinear", False), ("bilinear", True)])
SHAPES = st.sampled_from([(1, 1, 1, 1), (2, 1, 3, 4), (1, 2, 7, 2), (0, 2, 3, 3), (1, 1, 5, 13)])


@given(st.data(), MODES)
def test_a_constant_image_and_the_same_size_change_nothing(data: Any, mode: tuple) -> None:
    shape = data.draw(SHAPES)
    size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    constant = tg.interpolate(tg.full(shape, 1.5, dtype="float64"), size, None, *mode).numpy()
    assert_close(constant, np.full((*shape[:2], *size), 1.5))
    x = data.draw(arrays(shape, REALS))
    assert_array_equal(tg.interpolate(tg.tensor(x), shape[2:], None, *mode).numpy(), x)
    assert_array_equal(tg.interpolate(tg.tensor(x), None, 1.0, *mode).numpy(), x)


@given(arrays((2, 2, 3, 4), REALS), st.integers(1, 4))
def test_nearest_pixels_of_a_whole_factor_are_repeated(x: np.ndarray, factor: int) -> None:
    larger = tg.interpolate(tg.tensor(x), scale_factor=factor).numpy()
    assert_array_equal(larger, x.repeat(factor, axis=2).repeat(factor, axis=3))
    assert_array_equal(tg.interpolate(tg.tensor(larger), x.shape[2:]).numpy(), x)


def test_the_nearest_pixel_is_found_in_pytorchs_precision() -> None:
    """A step from pixel to pixel is a float32: 19 * 54 / 38 is a little less than 27 then, 49 / 4.9 not."""
    row = lambda n: tg.tensor(np.arange(float(n)).reshape(1, 1, 1, n))  # noqa: E731
    assert tg.interpolate(row(54), (1, 38)).numpy()[0, 0, 0, 19] == 26
    assert tg.interpolate(row(11), scale_factor=(1, 4.9)).numpy()[0, 0, 0, 49] == 10


def test_an_image_that_comes_to_twice_the_size_has_each_pixel_twice() -> None:
    """As PyTorch has it, whatever the factor that is rounded down to this."""
    x = np.arange(8.0).reshape(1, 1, 1, 8)
    for factor in (2.0, 2.0744572183619376, 2.12):
        out = tg.interpolate(tg.tensor(x), scale_factor=(1, factor)).numpy()
        assert_array_equal(out, x.repeat(2, axis=3))


@given(st.integers(2, 6), st.integers(2, 9))
def test_a_slope_stays_a_slope_where_corners_are_aligned(size: int, length: int) -> None:
    x = np.linspace(0, 1, size) + np.linspace(0, 2, size)[:, None]
    out = tg.interpolate(tg.tensor(x[None, None]), length, mode="bilinear", align_corners=True).numpy()
    assert_close(out[0, 0], np.linspace(0, 1, length) + np.linspace(0, 2, length)[:, None])


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_results_and_gradients_lie_in_memory_as_the_images_do(mode: str) -> None:
    x = leaf(channels_last(np.random.default_rng(0).normal(size=(2, 3, 4, 5))))
    out = tg.interpolate(x, (6, 7), mode=mode)
    assert memory_order(out.array) == memory_order(x.array)
    gradient = tg.grad(out, x, leaf(out.array, requires_grad=False))
    assert memory_order(gradient.array) == memory_order(x.array)


def test_what_is_not_finite_stays_where_it_is() -> None:
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 1, 2] = np.inf
    larger = tg.interpolate(tg.tensor(x), 8).numpy()
    assert_array_equal(larger, x.repeat(2, axis=2).repeat(2, axis=3))


@given(st.data())
def test_a_crop_is_a_part_of_the_image_among_zeros(data: Any) -> None:
    shape = data.draw(st.sampled_from([(3, 4), (2, 3, 4), (2, 2, 5, 3), (0, 1, 2, 2)]))
    top, left = data.draw(st.integers(-7, 7)), data.draw(st.integers(-7, 7))
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    x = leaf(data.draw(arrays(shape, REALS)))
    around = np.zeros((*shape[:-2], shape[-2] + 30, shape[-1] + 30))
    around[..., 15 : 15 + shape[-2], 15 : 15 + shape[-1]] = x.numpy()
    window = (..., slice(15 + top, 15 + top + height), slice(15 + left, 15 + left + width))
    out = tg.crop(x, top, left, height, width)
    assert_array_equal(out.numpy(), around[window])
    given_away = np.zeros_like(around)
    given_away[window] = 1
    wanted = given_away[..., 15 : 15 + shape[-2], 15 : 15 + shape[-1]]
    assert_array_equal(tg.grad(out.sum(), x).numpy(), wanted)
    if out.size and x.size < 13:
        assert tg.gradcheck(lambda v: tg.crop(v, top, left, height, width), x, order=2)


def test_bad_input() -> None:
    x = tg.ones((1, 2, 3, 4))
    refused: list[tuple[Callable, type, str]] = [
        (lambda: tg.interpolate(tg.ones((3, 4)), 2), ShapeError, r"\(N, C, H, W\) .* not \(3, 4\)"),
        (lambda: tg.interpolate(tg.ones((1, 2, 0, 4)), 2), ShapeError, r"with pixels, not \(1, 2, 0, 4\)"),
        (lambda: tg.interpolate(x, 2, mode="cubic"), UsageError, "'nearest' or 'bilinear', not 'cubic'"),
        (lambda: tg.interpolate(x, 2, align_corners=True), UsageError, "align_corners goes with"),
        (lambda: tg.interpolate(x), UsageError, "either size or scale_factor"),
        (lambda: tg.interpolate(x, 2, 2.0), UsageError, "either size or scale_factor"),
        (lambda: tg.interpolate(tg.ones((2, 3, 4)), 2), ShapeError, r"not \(2, 3, 4\)"),  # PyTorch: a row
        (lambda: tg.interpolate(x, scale_factor=0.3), ShapeError, r"0.3 makes 0 by 1 .* \(1, 2, 3, 4\)"),
        (lambda: tg.interpolate(x, scale_factor=-1), ShapeError, "positive number or 2 of them, not -1"),
        (lambda: tg.interpolate(x, scale_factor=float("nan")), ShapeError, "positive number .* not nan"),
        (lambda: tg.interpolate(x, scale_factor=(2, 2, 2)), ShapeError, r"number or 2 .* not \(2, 2, 2\)"),
        (lambda: tg.interpolate(x, scale_factor="2"), DtypeError, "scale_factor must be a number, not '2'"),
        (lambda: tg.interpolate(x, scale_factor=(2, True)), DtypeError, "must be a number, not True"),
        (lambda: tg.crop(tg.ones(3), 0, 0, 1, 1), ShapeError, r"\(..., H, W\), not of shape \(3,\)"),
    ]
    for attempt, error, words in refused:
        with pytest.raises(error, match=words) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_dtypes() -> None:
    for dtype in ("float16", "float32", "float64"):
        for mode in ("nearest", "bilinear"):
            assert tg.interpolate(tg.ones((1, 1, 2, 2), dtype=dtype), 3, mode=mode).dtype == dtype
    whole = tg.tensor(np.arange(4).reshape(1, 1, 2, 2))
    assert tg.interpolate(whole, 3).dtype == "float32"
    assert tg.crop(whole, -1, 0, 2, 2).dtype == "int64"  # a picture's bytes stay bytes


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(st.data(), MODES)
def test_interpolation_is_that_of_pytorch(dtype: str, data: Any, mode: tuple) -> None:
    """Larger, smaller and stretched, by size or by factor; what one refuses the other does."""
    torch = pytest.importorskip("torch")
    x = data.draw(arrays(data.draw(SHAPES.filter(lambda shape: shape[0] > 0)), REALS))
    sizes = st.tuples(st.integers(1, 30), st.integers(1, 9))
    factors = st.sampled_from(
        [0.5, 0.3, 1.04, 1.5, 2.0, 2.6, 3.0, (1.3, 0.7), (0.999, 1.1), (2.0744572, 2.1)]
    )
    size = data.draw(st.none() | sizes)
    factor = data.draw(factors) if size is None else None
    arguments = (size, factor, mode[0])
    theirs = mode[1] if mode[0] == "bilinear" else None
    try:
        torch.nn.functional.interpolate(torch.tensor(x), *arguments, theirs)
    except RuntimeError:
        with pytest.raises(TinygradError):
            tg.interpolate(tg.tensor(x), *arguments, mode[1])
        return
    agrees_with_pytorch(
        lambda a: tg.interpolate(a, *arguments, mode[1]),
        lambda b: torch.nn.functional.interpolate(b, *arguments, theirs),
        x,
        dtype,
    )
