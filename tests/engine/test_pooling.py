"""Laws of pooling, its edges, and PyTorch's values, gradients and second derivatives."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.op import TABLE, public_function
from tinygrad_rnn.engine.ops.pooling import memory_order
from tinygrad_rnn.errors import ShapeError

from .laws import assert_close
from .samples import IMAGES, REALS, arrays, avg_pool_cases, leaf, max_pool_cases, pooling_params

DTYPES = {"float64": 1e-10, "float32": 1e-5}


def channels_last(x: np.ndarray) -> np.ndarray:
    """The same images, in the memory order of what convolution makes."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


# --- laws -----------------------------------------------------------------------------------------


@given(st.data())
def test_each_gradient_goes_to_the_position_that_won(data: Any) -> None:
    """None is lost and none invented, and only values that are the largest of a window get one."""
    case = data.draw(max_pool_cases())
    x = leaf(case.inputs[0])
    out = tg.max_pool2d(x, **case.params)
    upstream = data.draw(arrays(out.shape, [0.25, 0.5, 1.0, 3.0]))
    gradient = tg.grad(out, x, tg.tensor(upstream)).numpy()
    assert_close(gradient.sum(axis=(2, 3)), upstream.sum(axis=(2, 3)))
    assert set(x.numpy()[gradient != 0]) == set(out.numpy().ravel())  # all values of x are different


@given(st.integers(1, 3), st.integers(1, 3), arrays((2, 2, 6, 6), REALS))
def test_disjoint_windows_have_one_winner_each(height: int, width: int, values: np.ndarray) -> None:
    """Also where values tie: the first one, row by row, gets the whole gradient."""
    x = leaf(values)
    gradient = tg.grad(tg.max_pool2d(x, (height, width)).sum(), x).numpy()
    rows, columns = 6 // height, 6 // width

    def windows(a: np.ndarray) -> np.ndarray:
        """Of each window its values, row by row."""
        parts = a[:, :, : rows * height, : columns * width].reshape(2, 2, rows, height, columns, width)
        return parts.transpose(0, 1, 2, 4, 3, 5).reshape(2, 2, rows, columns, -1)

    assert_array_equal((windows(gradient) == 1).sum(-1), 1)
    assert_array_equal(windows(gradient).argmax(-1), windows(values).argmax(-1))
    assert gradient.sum() == 4 * rows * columns


def test_nan_wins_and_padding_never_does() -> None:
    image = np.array([[np.nan, 2.0, -5.0], [1.0, 9.0, -np.inf], [-3.0, -4.0, -np.inf]])
    x = leaf(image[None, None])
    out = tg.max_pool2d(x, 2, 2, 1)
    assert_array_equal(out.numpy()[0, 0], [[np.nan, 2], [1, 9]])
    assert_array_equal(tg.grad(out.sum(), x).numpy()[0, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    corner = leaf(np.full((1, 1, 2, 2), -np.inf))  # no less than the padding, and yet chosen
    assert_array_equal(tg.grad(tg.max_pool2d(corner, 3, 1, 1).sum(), corner).numpy()[0, 0], [[4, 0], [0, 0]])
    whole = leaf(np.array([[[[3.0, np.nan, 5.0, np.nan]]]]))
    assert_array_equal(tg.grad(tg.max_pool2d(whole, (1, 4)).sum(), whole).numpy(), [[[[0, 0, 0, 1]]]])


@given(st.data())
def test_average_pooling_and_its_gradient_are_adjoint(data: Any) -> None:
    """<pool(x), y> = <x, gradient(y)>; and a constant image keeps its value where padding does not count."""
    case = data.draw(avg_pool_cases(gradient=False))
    x = case.inputs[0]
    out = tg.avg_pool2d(tg.tensor(x), **case.params).numpy()
    y = data.draw(arrays(out.shape, REALS))
    gradient = public_function(TABLE["avg_pool2d_gradient"])(tg.tensor(y), x.shape[2:], **case.params)
    assert_close((out * y).sum(), (x * gradient.numpy()).sum())
    params = {**case.params, "count_include_pad": False}
    constant = tg.avg_pool2d(tg.full(x.shape, 2.5, dtype="float64"), **params)
    assert_close(constant.numpy(), np.full(out.shape, 2.5))


@given(arrays((2, 3, 4, 5), REALS))
def test_the_global_average_is_that_of_one_window(values: np.ndarray) -> None:
    x = leaf(values)
    out = tg.global_avg_pool2d(x)
    assert out.shape == (2, 3)
    assert_close(out.numpy(), tg.avg_pool2d(x, (4, 5)).numpy()[:, :, 0, 0])
    assert tg.gradcheck(tg.global_avg_pool2d, x, order=2)


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d, lambda x, *_: tg.global_avg_pool2d(x)])
def test_an_image_without_a_batch(pool: Any) -> None:
    """Is a batch of one, in value and in derivatives."""
    image = np.random.default_rng(0).permutation(40).reshape(2, 4, 5) / 8
    arguments = ((3, 2), (1, 2), 1)
    one, batch = leaf(image), leaf(image[None])
    out, outs = pool(one, *arguments), pool(batch, *arguments)
    assert_array_equal(out.numpy(), outs.numpy()[0])
    gradient, gradients = (tg.grad((o**3).sum(), x) for o, x in ((out, one), (outs, batch)))
    assert_array_equal(gradient.numpy(), gradients.numpy()[0])
    assert tg.gradcheck(lambda v: pool(v, *arguments), leaf(image[:1]), order=2)


def test_the_global_average_of_many_pixels_keeps_its_digits() -> None:
    image = channels_last(np.full((1, 4, 224, 224), 0.7, "float32"))
    np.testing.assert_allclose(tg.global_avg_pool2d(leaf(image)).numpy(), np.float32(0.7), rtol=5e-6)


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d])
@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last])
def test_results_and_gradients_lie_in_memory_as_the_images_do(pool: Any, order: Any) -> None:
    x = leaf(order(np.random.default_rng(0).normal(size=(2, 3, 4, 5))))
    out = pool(x, 2, 1, 1)
    assert memory_order(out.array) == memory_order(x.array)
    gradient = tg.grad(out, x, leaf(out.array, requires_grad=False))
    assert memory_order(gradient.array) == memory_order(x.array)


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d, lambda x, k: tg.global_avg_pool2d(x)])
def test_dtypes_and_empty_batches(pool: Any) -> None:
    for dtype in ("float16", "float32", "float64"):
        assert pool(tg.ones((1, 2, 4, 4), dtype=dtype), 2).dtype == dtype
    assert pool(tg.tensor(np.arange(16).reshape(1, 1, 4, 4)), 2).dtype == "float32"
    x = leaf(np.zeros((0, 2, 4, 4)))
    out = pool(x, 2)
    assert out.shape[:2] == (0, 2)
    assert tg.grad(out.sum(), x).shape == x.shape


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_gradient_that_is_not_finite_goes_to_one_place_only(dtype: str, value: float) -> None:
    x = leaf(np.arange(16).reshape(1, 1, 4, 4).astype(dtype))
    upstream = np.array([[[[value, 1], [2, -0.5]]]], dtype)
    gradient = tg.grad(tg.max_pool2d(x, 2), x, tg.tensor(upstream)).numpy()[0, 0]
    assert_array_equal(gradient, [[0, 0, 0, 0], [0, value, 0, 1], [0, 0, 0, 0], [0, 2, 0, -0.5]])
    assert gradient.dtype == dtype


def test_windows_of_more_places_than_a_byte_counts() -> None:
    values = np.random.default_rng(0).permutation(2 * 20 * 20).reshape(1, 2, 20, 20).astype(float)
    x = leaf(values)
    out = tg.max_pool2d(x, 20)
    assert_array_equal(out.numpy()[:, :, 0, 0], values.max(axis=(2, 3)))
    assert_array_equal(tg.grad(out.sum(), x).numpy(), values == values.max(axis=(2, 3), keepdims=True))


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d])
@pytest.mark.parametrize(
    "arguments, words",
    [
        (((5, 2),), r"kernel_size \(5, 2\) is larger than the image of height and width \(4, 4\)"),
        ((7, 1, 1), r"kernel_size \(7, 7\) is larger .* \(4, 4\) with padding \(1, 1\)"),
        ((3, 1, 2), r"padding \(2, 2\) is more than half of kernel_size \(3, 3\)"),
    ],
)
def test_windows_that_do_not_fit(pool: Any, arguments: tuple, words: str) -> None:
    with pytest.raises(ShapeError, match=words) as caught:
        pool(tg.ones((1, 2, 4, 4)), *arguments)
    assert "\n" not in str(caught.value)


def test_images_that_are_none() -> None:
    for pool in (tg.max_pool2d, tg.avg_pool2d):
        with pytest.raises(
            ShapeError, match=r"must be images .* \(N, C, H, W\), or one \(C, H, W\), not of shape \(3, 4\)"
        ):
            pool(tg.ones((3, 4)), 2)
    with pytest.raises(ShapeError, match=r"not of shape \(3, 4\)"):
        tg.global_avg_pool2d(tg.ones((3, 4)))
    with pytest.raises(ShapeError, match=r"\(1, 2, 0, 4\) have no pixels"):
        tg.global_avg_pool2d(tg.ones((1, 2, 0, 4)))
    with pytest.raises(ShapeError, match=r"dilation \(2, 2\).* has all its values in the padding"):
        tg.max_pool2d(tg.ones((1, 1, 1, 1)), 2, 1, 1, 2)
    with pytest.raises(ShapeError, match=r"kernel_size \(3, 3\) with dilation \(2, 2\) is larger"):
        tg.max_pool2d(tg.ones((1, 1, 4, 4)), 3, dilation=2)


# --- PyTorch --------------------------------------------------------------------------------------


def exact(x: Any, **options: Any) -> Any:
    """The same numbers as a tensor of PyTorch's in float64; None as it is."""
    return None if x is None else pytest.importorskip("torch").tensor(x.astype("float64"), **options)


def agrees_with_pytorch(ours: Any, theirs: Any, x: np.ndarray, dtype: str) -> None:
    """Values, gradients and second derivatives of ours(x) and theirs(x)."""
    torch = pytest.importorskip("torch")
    x = x.astype(dtype)
    a, b = leaf(x), exact(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, y.shape).astype(dtype)
    first = tg.grad((y * y * tg.tensor(weights)).sum(), a, create_graph=True)
    (their_first,) = torch.autograd.grad((z * z * exact(weights)).sum(), b, create_graph=True)
    second = tg.grad((first * first).sum(), a)
    (their_second,) = torch.autograd.grad((their_first * their_first).sum(), b)
    for found, wanted in ((y, z), (first, their_first), (second, their_second)):
        assert_pytorchs(found, wanted, dtype)


def assert_pytorchs(found: tg.Tensor, wanted: Any, dtype: str) -> None:
    """Of PyTorch's shape and the dtype, and to 1e-10 of the largest number in float64, 1e-5 in float32. (Of 1
    where all are smaller: what goes in is as large as 1, and what comes out may cancel.) What is wanted of
    float32 is what PyTorch finds for the same numbers in float64: in float32 its own sums are off by more."""
    assert found.shape == tuple(wanted.shape) and found.dtype == dtype
    wanted = wanted.detach().numpy()
    largest = np.abs(wanted).max(initial=1.0, where=np.isfinite(wanted))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=DTYPES[dtype] * largest)


LARGER = [*IMAGES[:-1], (2, 3, 7, 6), (1, 2, 5, 9)]


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.data())
def test_pooling_is_that_of_pytorch(dtype: str, data: Any) -> None:
    """Ties are frequent: they are PyTorch's as well. So is one image without a batch."""
    functional = pytest.importorskip("torch.nn.functional")
    shape = data.draw(st.sampled_from(LARGER))
    x = data.draw(arrays(shape, [-1.0, -0.5, 0.0, 1.0, 2.0]))
    x = x[0] if data.draw(st.booleans()) else x
    params = data.draw(pooling_params(shape[2:], [1, 1, 2], [False, True]))
    agrees_with_pytorch(
        lambda a: tg.max_pool2d(a, **params), lambda b: functional.max_pool2d(b, **params), x, dtype
    )
    params = data.draw(pooling_params(shape[2:], [1], [False, True]))
    del params["dilation"]
    params["count_include_pad"] = data.draw(st.booleans())
    agrees_with_pytorch(
        lambda a: tg.avg_pool2d(a, **params), lambda b: functional.avg_pool2d(b, **params), x, dtype
    )


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2))
def test_the_number_of_windows_is_that_of_pytorch(size: int, kernel: int, stride: int, padding: int) -> None:
    """With ceil_mode or without, and what one refuses the other does."""
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(1, 1, size, 3))
    for ceil_mode in (False, True):
        arguments = ((kernel, 1), (stride, 1), (padding, 0), 1, ceil_mode)
        try:
            wanted = functional.max_pool2d(torch.tensor(x), *arguments).numpy()
        except RuntimeError:
            with pytest.raises(ShapeError):
                tg.max_pool2d(tg.tensor(x), *arguments)
        else:
            assert_array_equal(tg.max_pool2d(tg.tensor(x), *arguments).numpy(), wanted)
            agrees_with_pytorch(
                lambda a, arguments=arguments: tg.max_pool2d(a, *arguments),
                lambda b, arguments=arguments: functional.max_pool2d(b, *arguments),
                x,
                "float64",
            )
