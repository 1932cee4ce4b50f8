"""The compiled kernels of deep networks: convolution, normalisation, choosing. Each equals its generic twin,
for any sizes, options, layouts and numbers of shards, and comes to the same bits again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops.fused import LARGE, convolution, normalization, use_kernels
from tinygrad_rnn.errors import ShapeError

pytest.importorskip("numba")

from tinygrad_rnn.engine.ops.fused import compiled_choice, compiled_convolution, compiled_normalization
from tinygrad_rnn.engine.ops.fused.product import BYTES, VECTORS
from tinygrad_rnn.engine.ops.fused.shards import use_shards

PANEL = BYTES // 4 * VECTORS  # float32 that are multiplied at a time
DTYPES = st.sampled_from(["float32", "float64"])
LAYOUTS = st.sampled_from(["channels first", "channels last", "part"])
SHARDS = st.sampled_from([1, 2, 3])


def laid_out(array, layout):
    """The same numbers, elsewhere in memory."""
    if layout == "channels last":
        return np.ascontiguousarray(np.moveaxis(array, 1, -1)).transpose(
            0, array.ndim - 1, *range(1, array.ndim - 1)
        )
    if layout == "part":
        larger = np.full([n + 2 for n in array.shape], np.nan, array.dtype)
        inside = larger[tuple(slice(1, -1) for _ in array.shape)]
        inside[:] = array
        return inside
    return array


@st.composite
def convolutions(draw):
    """Shapes of images and weights that fit, and options."""
    small = st.integers(1, 3)
    kernel, stride, dilation = (draw(st.tuples(small, small)) for _ in range(3))
    padding = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, outs = (groups * draw(st.integers(1, 5) | st.just(PANEL // 2 + 1)) for _ in range(2))
    size = tuple(
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 9))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    shapes = (draw(st.integers(1, 4)), channels, *size), (outs, channels // groups, *kernel)
    return shapes, (stride, padding, dilation, groups)


def case(channels=16, outs=16, size=(6, 5), kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)):
    return ((2, channels, *size), (outs, channels, *kernel)), (stride, padding, dilation, 1)


@given(drawn=convolutions(), dtype=DTYPES, layout=LAYOUTS, shards=SHARDS)
@example(drawn=case(), dtype="float32", layout="channels last", shards=2)
@example(drawn=case(stride=(2, 2)), dtype="float32", layout="channels last", shards=2)
@example(drawn=case(outs=2 * PANEL + 3, channels=3), dtype="float32", layout="part", shards=1)
@example(drawn=case(channels=PANEL, outs=PANEL), dtype="float32", layout="channels last", shards=1)
@example(
    drawn=case(kernel=(1, 1), stride=(2, 2), padding=(0, 0)),
    dtype="float64",
    layout="channels last",
    shards=1,
)
@example(drawn=case(kernel=(1, 1), padding=(2, 1)), dtype="float32", layout="channels first", shards=1)
@example(drawn=case(kernel=(2, 3), stride=(3, 2), dilation=(2, 2)), dtype="float32", layout="part", shards=1)
@example(drawn=case(channels=512, outs=2, size=(2, 2)), dtype="float32", layout="part", shards=1)
def test_convolutions_are_those_of_the_generic_twin(drawn, dtype, layout, shards):
    (images, weights), (stride, padding, dilation, groups) = drawn
    options = stride, padding, dilation, groups
    rng = np.random.default_rng(sum(images))
    size = convolution.output_size(images[2:], weights[2:], stride, padding, dilation)
    shapes = images, weights, (images[0], weights[0], *size)
    exact = [rng.standard_normal(shape).astype(dtype).astype("float64") for shape in shapes]
    x, w, g = (laid_out(array.astype(dtype), layout) for array in exact)

    def all_three(kernels, x, w, g):
        return (
            kernels.forward(np, x, w, *options),
            kernels.weight_gradient(np, x, g, weights[2:], *options),
            kernels.input_gradient(np, g, w, images[2:], *options),
        )

    wanted = all_three(convolution, *exact)
    sizes = all_three(convolution, *map(np.abs, exact))  # of the sums, had no term another sign
    with use_shards(shards):
        found, again = all_three(compiled_convolution, x, w, g), all_three(compiled_convolution, x, w, g)
    terms = max(np.prod(images[1:]) * images[0], np.prod(shapes[2]))
    for ours, second, theirs, most in zip(found, again, wanted, sizes, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == dtype
        assert (np.abs(ours - theirs) <= 2 * (terms + 2) * np.finfo(dtype).eps * most).all()
        assert np.array_equal(ours, second)
    assert all(found[n].transpose(0, 2, 3, 1).flags.c_contiguous for n in (0, 2))


def test_what_does_not_fit_is_refused_before_memory_is_touched():
    x, w, g = (np.zeros(shape, "float32") for shape in ((2, 4, 6, 6), (3, 4, 3, 3), (2, 3, 4, 4)))
    options = (1, 1), (0, 0), (1, 1), 1
    compiled_convolution.forward(np, x, w, *options)
    for do in (
        lambda: compiled_convolution.forward(np, x, w[:, :3], *options),
        lambda: compiled_convolution.forward(np, x, w[:, :2], *options[:3], 2),
        lambda: compiled_convolution.weight_gradient(np, x, g, (2, 2), *options),
        lambda: compiled_convolution.weight_gradient(np, x, g[:1], (3, 3), *options),
        lambda: compiled_convolution.input_gradient(np, g, w[:2], (6, 6), *options),
        lambda: compiled_convolution.input_gradient(np, g, w, (7, 6), *options),
    ):
        with pytest.raises(ShapeError, match="convolution of"):
            do()


@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (2, 4, 2, 2)])
def test_a_convolution_of_nothing_or_to_nothing(shape):
    w, options = np.ones((3, 4, 3, 3), "float32"), ((1, 1), (0, 0), (1, 1), 1)
    y = compiled_convolution.forward(np, np.ones(shape, "float32"), w, *options)
    assert y.shape == convolution.forward(np, np.ones(shape, "float32"), w, *options).shape and y.size == 0


# --- normalisation --------------------------------------------------------------------------------


def per_channel(values, x):
    return values.reshape(-1, *(1,) * (x.ndim - 2))


@given(
    shape=st.tuples(st.integers(2, 70), st.integers(1, 40))
    | st.tuples(st.integers(1, 4), st.integers(1, 200), st.integers(2, 9), st.integers(1, 9)),
    dtype=DTYPES,
    layout=LAYOUTS,
    shards=SHARDS,
    centre=st.sampled_from([0.0, 3.0, -1000.0]),
    outlier=st.booleans(),
    affine=st.booleans(),
)
@example(
    shape=(3, 16, 32, 32), dtype="float32", layout="channels last", shards=2, centre=1000.0, outlier=True,
    affine=True,
)  # fmt: skip
def test_normalisation_is_that_of_float64(shape, dtype, layout, shards, centre, outlier, affine):
    """Also where the mean is large beside the deviations, and the first number far from all others."""
    rng = np.random.default_rng(sum(shape))
    x, g = (rng.standard_normal(shape) for _ in range(2))
    x += centre
    x.flat[0] += 100 * outlier
    weight, bias = (rng.standard_normal(shape[1]) if affine else None for _ in range(2))
    given = [None if a is None else a.astype(dtype) for a in (x, g, weight, bias)]
    x, g, weight, bias = (None if a is None else a.astype("float64") for a in given)
    single_x, single_g = (laid_out(a, layout) for a in given[:2])
    wanted, variance, statistics = normalization.forward(np, x, weight, bias, 1e-5)
    gradients = normalization.backward(np, g, x, weight, statistics, (True,) * 3)
    with use_shards(shards):
        out, found_variance, found_statistics = compiled_normalization.forward(np, single_x, *given[2:], 1e-5)
        found = compiled_normalization.backward(
            np, single_g, single_x, given[2], found_statistics, (True,) * 3
        )
    (mean, rest, inverse_std), (m, r, i) = statistics, (a.astype("float64") for a in found_statistics)
    # In float64 the mean itself is rounded, by so much of a deviation.
    room = 50 * np.finfo(dtype).eps * (1 + (np.abs(mean) * inverse_std).max() * (dtype == "float64"))
    np.testing.assert_allclose((m + r) * i, (mean + rest) * inverse_std, rtol=room, atol=room)
    np.testing.assert_allclose(i, inverse_std, rtol=room)
    np.testing.assert_allclose(found_variance, variance, rtol=room)
    np.testing.assert_allclose(out, wanted, rtol=room, atol=room * (1 + np.abs(wanted).max()))
    for ours, theirs in zip(found, gradients, strict=True):
        assert ours.dtype == dtype and ours.shape == theirs.shape
        # What is added up: in dx, terms as large as this that may cancel.
        terms = np.abs(g).sum() / shape[1]
        if theirs.ndim > 1:
            terms = np.abs(g).max() * inverse_std.max() * (1 if weight is None else np.abs(weight).max())
        most = np.abs(theirs).max() + terms
        np.testing.assert_allclose(ours, theirs, rtol=room, atol=room * (1 + most))


def test_only_the_gradients_that_are_needed():
    x = laid_out(np.random.default_rng(0).standard_normal((2, 3, 4, 4)), "channels last")
    *_, statistics = compiled_normalization.forward(np, x, None, None, 1e-5)
    for needs in ((True, False, False), (False, True, False), (False, False, True)):
        found = compiled_normalization.backward(np, x, x, None, statistics, needs)
        assert tuple(one is not None for one in found) == needs


def test_a_variance_does_not_depend_on_where_blocks_end():
    """Blocks whose means differ much: what they differ by is a part of the variance."""
    x = np.repeat(np.arange(9.0), 1000)[:, None].astype("float32")
    for shards in (1, 2, 3):
        with use_shards(shards):
            _, variance, (mean, *_) = compiled_normalization.forward(np, x, None, None, 0.0)
        assert mean == pytest.approx(4.0, rel=1e-6) and variance == pytest.approx(60 / 9, rel=1e-6)


def test_a_mean_that_is_not_a_float32_takes_nothing_from_the_variance():
    """Neighbouring float32, whose mean lies between them."""
    x = (2**23 + np.arange(4096) % 2)[:, None].astype("float32")
    _, variance, _ = compiled_normalization.forward(np, x, None, None, 0.0)
    assert variance == pytest.approx(0.25, rel=1e-6)


# --- choosing ---------------------------------------------------------------------------------------

SPECIAL = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan]


@given(dtype=DTYPES, layout=LAYOUTS, other=LAYOUTS, shards=SHARDS, ndim=st.integers(1, 4))
def test_relu_and_where_are_numpys(dtype, layout, other, shards, ndim):
    shape = ((40000,), (200, 200), (20, 40, 50), (4, 20, 25, 20))[ndim - 1]
    rng = np.random.default_rng(ndim)
    x, g = (rng.choice(SPECIAL, shape).astype(dtype) for _ in range(2))
    if ndim > 1:
        x, g = laid_out(x, layout), laid_out(g, other)
    with use_shards(shards), np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(compiled_choice.relu(x), np.maximum(x, 0))
        np.testing.assert_array_equal(compiled_choice.where(x > 0, g, 0.0), np.where(x > 0, g, 0))
        np.testing.assert_array_equal(compiled_choice.where(x > 0, g, 2), np.where(x > 0, g, 2))


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "bool"])
def test_a_condition_of_any_dtype(dtype):
    rng = np.random.default_rng(0)
    condition, a = rng.integers(0, 2, LARGE).astype(dtype), rng.standard_normal(LARGE)
    with use_kernels("numba"):
        found = tg.where(tg.tensor(condition), tg.tensor(a), 0.0).numpy()
    np.testing.assert_array_equal(found, np.where(condition, a, 0.0))


def test_ops_go_by_these_kernels_and_come_to_the_same():
    """A step through all of them, by each of both kinds of kernels."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 3, 16, 16)), rng.standard_normal((32, 3, 3, 3))
    found = []
    for kernels in ("numpy", "numba"):
        with use_kernels(kernels):
            images, weight = (tg.tensor(array, requires_grad=True) for array in (x, w))
            y = tg.batch_norm(tg.conv2d(images, weight, padding=1), None, None, training=True)
            assert y.size >= LARGE
            out = tg.relu(y)
            (out * out * out).mean().backward()
            found.append((out.numpy(), images.grad.numpy(), weight.grad.numpy()))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
