"""Convolution's own laws, beside those of all ops: one trilinear form, alike by all kernels and PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops.fused import convolution as generic
from tinygrad_rnn.engine.ops.fused import use_kernels
from tinygrad_rnn.errors import DtypeError, ShapeError, TinygradError

from .laws import assert_close, derivatives, weighted_sum
from .samples import REALS, arrays, cast, conv2d, convolution_cases, laid_out, leaf
from .test_pooling import DTYPES, assert_pytorchs, exact

RECORDS = {"conv2d": "xw", "conv2d_input": "yw", "conv2d_weight": "xy"}


@pytest.fixture(autouse=True, params=["numpy", "numba"])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every law holds for either kernels."""
    with use_kernels(request.param):
        yield


def fill(shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    return (0.5 * np.sin(np.arange(np.prod(shape)) * 0.7 + offset)).reshape(shape)


# --- one trilinear form ----------------------------------------------------------------------------


@st.composite
def triples(draw: Any) -> tuple:
    """Images x, kernels w, images y of the result's shape, and the options."""
    (x, w, _), options = draw(convolution_cases("xw"))
    return x, w, draw(arrays(conv2d(x, w, None, **options).shape, REALS)), options


@given(triples())
def test_the_derivatives_are_adjoint(triple: tuple) -> None:
    """<conv(x, w), y> = <x, conv_x^T(y, w)> = <w, conv_w^T(x, y)>"""
    x, w, y, options = triple
    inputs = leaf(x), leaf(w)
    out = tg.conv2d(*inputs, **options)
    dx, dw = tg.grad(out, inputs, tg.tensor(y))
    for product in (out.numpy() * y, x * dx.numpy(), w * dw.numpy()):
        assert_close(product.sum(), (conv2d(x, w, None, **options) * y).sum())


@given(triples(), st.data())
def test_linear_in_images_and_in_kernels(triple: tuple, data: Any) -> None:
    x, w, _, options = triple
    a, b = (data.draw(arrays(like.shape, REALS)) for like in (x, w))
    out = lambda x, w: tg.conv2d(leaf(x), leaf(w), **options).numpy()  # noqa: E731
    assert_close(out(2 * x - a, w), 2 * out(x, w) - out(a, w))
    assert_close(out(x, 2 * w - b), 2 * out(x, w) - out(x, b))


@given(triples(), st.tuples(*[st.integers(0, 2)] * 2), st.data())
def test_commutes_with_translation_away_from_the_border(triple: tuple, by: tuple, data: Any) -> None:
    """An image moved by strides gives the result moved by places, but for places that see the padding."""
    x, w, _, options = triple
    ways = list(zip(by, options["stride"], options["padding"], strict=True))
    further = [n + b * s for n, (b, s, _) in zip(x.shape[2:], ways, strict=True)]
    image = data.draw(arrays((*x.shape[:2], *further), REALS))
    moved = image[:, :, ways[0][0] * ways[0][1] :, ways[1][0] * ways[1][1] :]
    whole, part = (tg.conv2d(leaf(i), leaf(w), **options).numpy() for i in (image, moved))
    first, second = (-(-p // s) for _, s, p in ways)
    assert_close(part[:, :, first:, second:], whole[:, :, by[0] + first :, by[1] + second :])


def test_does_not_commute_with_translation_at_the_border() -> None:
    image, w = np.ones((1, 1, 1, 5)), leaf(np.ones((1, 1, 1, 3)))
    whole, moved = (tg.conv2d(leaf(i), w, padding=(0, 1)).numpy() for i in (image, image[..., 1:]))
    assert whole.tolist() == [[[[2, 3, 3, 3, 2]]]]
    assert moved.tolist() == [[[[2, 3, 3, 2]]]]


# --- kernels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", RECORDS)
def test_every_kernel_is_the_generic_one(name: str, dtype: str) -> None:
    """Values, first and second derivatives, whatever the layout in memory."""

    @given(convolution_cases(RECORDS[name]).flatmap(laid_out))
    def law(case: Any) -> None:
        case = cast(case, dtype)
        found = derivatives(name, case).all()
        with use_kernels("numpy"):
            wanted = derivatives(name, case).all()
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == other.dtype == dtype
            assert_close(one, other, dtype)

    law()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_images_one_by_one_or_together(groups: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them fit into the cache, and also when the last ones are fewer."""
    options: dict[str, Any] = {"stride": stride, "padding": 1, "groups": groups}
    case = (fill((7, 4, 5, 6)), fill((6, 4 // groups, 3, 3), 1), fill((6,), 2))
    wanted = conv2d(*case, (stride,) * 2, (1, 1), (1, 1), groups)
    found = []
    for size in (1, 60_000, 1 << 30):
        monkeypatch.setattr(generic, "CACHE", size)
        inputs = [leaf(array) for array in case]
        out = tg.conv2d(*inputs, **options)
        found.append([out.numpy(), *(g.numpy() for g in tg.grad((out * out).sum(), inputs))])
        assert_close(out.numpy(), wanted)
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            assert_close(one, another)


@pytest.mark.parametrize("x", [fill((2, 3, 5, 4)), fill((2, 5, 4, 3)).transpose(0, 3, 1, 2)])
def test_results_lie_in_memory_with_channels_last(x: np.ndarray) -> None:
    """Whatever lay how before; so do gradients of images."""
    x, w = leaf(x), leaf(fill((4, 3, 3, 3)))
    out = tg.conv2d(x, w, leaf(fill((4,))), padding=1)
    gradient = tg.grad(out, x, tg.tensor(fill(out.shape)))
    for images in (out, gradient):
        assert images.array.transpose(0, 2, 3, 1).flags.c_contiguous


# --- what users call -------------------------------------------------------------------------------


def test_numbers_and_pairs_mean_the_same() -> None:
    x, w = leaf(fill((2, 4, 6, 6))), leaf(fill((4, 2, 2, 2), 1))
    for call in (tg.conv2d, tg.conv_transpose2d):
        one = call(x, w, stride=2, padding=1, dilation=2, groups=2)
        pairs = call(x, w, None, stride=(2, 2), padding=[1, 1], dilation=(np.int64(2), 2), groups=np.int64(2))
        assert_array_equal(one.numpy(), pairs.numpy())


@pytest.mark.parametrize("kernel", [(1, 3), (2, 3), (4, 2)])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_same_padding_keeps_the_size(kernel: tuple, dilation: int) -> None:
    """What is odd of it comes after the image."""
    x, w = fill((2, 3, 5, 4)), fill((2, 3, *kernel), 1)
    total = [dilation * (k - 1) for k in kernel]
    padded = np.pad(x, ((0, 0), (0, 0), *((t // 2, t - t // 2) for t in total)))
    same = tg.conv2d(leaf(x), leaf(w), padding="same", dilation=dilation)
    assert same.shape == (2, 2, 5, 4)
    assert_close(same.numpy(), conv2d(padded, w, None, (1, 1), (0, 0), (dilation,) * 2, 1))
    assert_array_equal(
        tg.conv2d(leaf(padded), leaf(w), padding="valid", dilation=dilation).numpy(), same.numpy()
    )


def test_an_image_without_a_batch() -> None:
    x, w = fill((2, 4, 4)), fill((2, 2, 3, 3), 1)
    for call in (tg.conv2d, tg.conv_transpose2d):
        assert_array_equal(call(leaf(x), leaf(w)).numpy(), call(leaf(x[None]), leaf(w)).numpy()[0])
    line, w = x[0], w[0, :, :1].repeat(4, 1)
    assert_array_equal(tg.conv1d(line, w).numpy(), tg.conv1d(line[None], w).numpy()[0])


@given(triples())
def test_conv_transpose2d_is_conv2ds_gradient(triple: tuple) -> None:
    """And output_padding picks the size."""
    x, w, y, options = triple
    image = leaf(x)
    (wanted,) = tg.grad(tg.conv2d(image, leaf(w), **options), [image], tg.tensor(y))
    ways = zip(
        x.shape[2:], w.shape[2:], *(options[k] for k in ("stride", "padding", "dilation")), strict=True
    )
    more = tuple((n + 2 * p - d * (k - 1) - 1) % s for n, k, s, p, d in ways)
    found = tg.conv_transpose2d(leaf(y), leaf(w), None, output_padding=more, **options)
    assert_close(found.numpy(), wanted.numpy())


def test_dtypes() -> None:
    """float32 stays; different ones are promoted; integers become floats."""
    x, w, bias = fill((1, 2, 4, 4)), fill((2, 2, 3, 3)), fill((2,))
    cases = [("float32", "float32", "float32", "float32"), ("float32", "float64", "float32", "float64")]
    cases += [("float16", "float16", "float16", "float16"), ("int64", "float32", "float32", "float32")]
    cases += [("float32", "float32", "float64", "float64")]
    for *dtypes, wanted in cases:
        for call in (tg.conv2d, tg.conv_transpose2d):
            inputs = [leaf(a.astype(dtype)) for a, dtype in zip((x, w, bias), dtypes, strict=True)]
            out = call(*inputs)
            assert out.dtype == wanted
            (out * out).sum().backward()
            for tensor in inputs:
                assert tensor.grad is None or tensor.grad.dtype == tensor.dtype
    out = tg.conv2d(np.ones((1, 1, 2, 2), int), [[[[1, 2], [3, 4]]]])
    assert out.dtype.kind == "f"
    assert out.numpy().tolist() == [[[[10]]]]


@pytest.mark.parametrize("name", ["conv2d", "conv1d", "conv_transpose2d"])
def test_the_gradient_of_a_bias_keeps_its_digits(name: str) -> None:
    """In float32 and for thousands of places, which one by one would round alike each time."""
    x, w = np.ones((64, 1, 32, 32), "float32"), np.ones((1, 2, 1, 1), "float32")
    w = w if name == "conv_transpose2d" else w.reshape(2, 1, 1, 1)
    if name == "conv1d":
        x, w = x[:, :, 0], w[..., 0]
    bias = leaf(np.zeros(2, "float32"))
    out = getattr(tg, name)(x, w, bias)
    upstream = leaf(np.full_like(out.array, 0.7))  # channels last, as the result is
    gradient = tg.grad(out, bias, upstream).numpy()
    np.testing.assert_allclose(gradient, out.size / 2 * float(np.float32(0.7)), rtol=2e-6)


def test_no_images_at_all() -> None:
    """Have no result, and the kernels no gradient but zeros."""
    for call, shape in ((tg.conv2d, (0, 2, 2, 3)), (tg.conv_transpose2d, (0, 2, 6, 7))):
        inputs = leaf(np.zeros((0, 2, 4, 5))), leaf(fill((2, 2, 3, 3))), leaf(fill((2,)))
        out = call(*inputs)
        assert out.shape == shape
        out.sum().backward()
        assert [x.grad.numpy().any() for x in inputs] == [False] * 3  # type: ignore[union-attr]


X, W = (2, 4, 5, 6), (6, 2, 3, 3)

ERRORS: dict[type, list[tuple[Callable, tuple, dict, str]]] = {
    ShapeError: [
        (tg.conv2d, (X, (6, 3, 3, 3)), {}, r"1 group is for 3 channels; x of shape \(2, 4, 5, 6\) has 4"),
        (tg.conv2d, (X[1:], W), {}, r"weight of shape \(6, 2, 3, 3\) .* 2 channels; x of shape \(4, 5, 6\)"),
        (tg.conv2d, (X, W), {"groups": 3}, r"4 channels of x do not divide into 3 groups, with x of shape"),
        (tg.conv2d, (X, (5, 2, 3, 3)), {"groups": 2}, "5 kernels do not divide into 2 groups"),
        (tg.conv2d, (X[:2], W), {}, r"x must be \(N, C, H, W\) or \(C, H, W\), not of shape \(2, 4\)"),
        (tg.conv1d, (X, (4, 4, 3)), {}, r"x must be \(N, C, L\) or \(C, L\), not of shape \(2, 4, 5, 6\)"),
        (tg.conv2d, (X, (6, 4, 3)), {}, r"weight must have 4 dimensions with KH, KW last.* \(6, 4, 3\)"),
        (tg.conv2d, (X, (6, 4, 3, 0)), {}, "none of them 0"),
        (tg.conv2d, (X, (6, 4, 7, 3)), {"padding": (0, 1)}, "over 7 by 3 .* padding 0 by 1, 5 by 8"),
        (tg.conv2d, (X, (6, 4, 3, 3)), {"dilation": 3}, r"over 7 by 7 .*dilation 3 by 3\) is larger than x"),
        (tg.conv1d, (X[1:], (6, 5, 9)), {"padding": 1}, "a kernel that reaches over 9 .* padding 1, 8"),
        (tg.conv2d, (X, W), {"groups": 2, "padding": "same", "stride": 2}, "'same' needs a stride of 1"),
        (tg.conv2d, (X, W, (4,)), {"groups": 2}, r"bias must be of shape \(6,\) .* not \(4,\)"),
        (tg.conv_transpose2d, (X, (2, 2, 3, 3)), {}, "1 group is for 2 channels"),
        (tg.conv_transpose2d, (X, (4, 2, 3, 3), (2,)), {"groups": 2}, r"bias must be of shape \(4,\)"),
        (tg.conv_transpose2d, (X, (4, 2, 3, 3)), {"output_padding": 1}, "less than stride .* or dilation"),
        (tg.conv_transpose2d, (X, (4, 2, 3, 3)), {"padding": 4}, "the result would be -1 by 0 for x of"),
    ],
    DtypeError: [
        (
            tg.conv2d,
            (X, W),
            {"groups": 2, "padding": "full"},
            "padding must be 'same', 'valid', an integer or 2 of them, not 'full'",
        ),
        (tg.conv_transpose2d, (X, (4, 2, 3, 3)), {"padding": "same"}, "padding must be an integer .* 'same'"),
    ],
}


@pytest.mark.parametrize(
    "error, call, shapes, options, words", [(error, *case) for error in ERRORS for case in ERRORS[error]]
)
def test_what_is_refused(error: type, call: Callable, shapes: tuple, options: dict, words: str) -> None:
    """In one line, with the shapes, and by the name of the function."""
    with pytest.raises(error, match=words) as caught:
        call(*(leaf(np.ones(shape)) for shape in shapes), **options)
    assert str(caught.value).startswith(f"{call.__name__}: ")
    assert "\n" not in str(caught.value)


def test_images_that_no_memory_holds_are_refused() -> None:
    """At once, and not after a table as long has been written."""
    with pytest.raises(ShapeError, match="too big"):
        tg.conv_transpose2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2)), stride=2**31)


def test_an_op_by_itself_reads_nothing_beside_its_inputs() -> None:
    """Shapes that do not belong together are refused before a kernel sees them."""
    F, options = (
        tg.get_backend("numpy").F,
        {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1},
    )
    x, w, y = np.ones((1, 2, 4, 4)), np.ones((3, 2, 3, 3)), np.ones((1, 3, 2, 2))
    assert F.conv2d(x, w, None, **options).shape == y.shape
    for wrong in (
        lambda: F.conv2d(x[:, :1], w, None, **options),
        lambda: F.conv2d(x[:, :, :2], w, None, **options),
        lambda: F.conv2d(x, w[:, :1], None, **{**options, "groups": 2}),
        lambda: F.conv2d_input(y, w, size=(5, 4), **options),
        lambda: F.conv2d_input(y[:, :2], w, size=(4, 4), **options),
        lambda: F.conv2d_weight(x, y, kernel_size=(3, 4), **options),
        lambda: F.conv2d_weight(x[:0], y, kernel_size=(3, 3), **options),
    ):
        with pytest.raises(TinygradError, match="do not belong together"):
            wrong()


# --- PyTorch ---------------------------------------------------------------------------------------


@st.composite
def torch_calls(draw: Any) -> tuple[str, list[tuple[int, ...]], dict[str, Any]]:
    """A function's name, its inputs' shapes and its options."""
    name = draw(st.sampled_from(["conv2d", "conv1d", "conv_transpose2d"]))
    ways = 1 if name == "conv1d" else 2
    several = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(ways))  # noqa: E731
    kernel, stride, padding, dilation = several(1, 4), several(1, 3), several(0, 3), several(1, 3)
    groups = draw(st.integers(1, 3))
    first, second = groups * draw(st.integers(1, 3)), draw(st.integers(1, 3))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    room = zip(kernel, padding, dilation, strict=True)
    size = tuple(max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 4)) for k, p, d in room)
    channels, outs = groups * second, first
    if name == "conv_transpose2d":
        options["output_padding"] = tuple(
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
        )
        size = tuple(n + 2 * p for n, p in zip(size, padding, strict=True))  # something is left of it
        channels, outs = first, groups * second
    elif draw(st.booleans()):
        if set(stride) == {1}:
            options["padding"] = "same"
        elif all(d * (k - 1) < n for n, k, d in zip(size, kernel, dilation, strict=True)):
            options["padding"] = "valid"
    image = (draw(st.integers(0, 3)), channels, *size)
    shapes = [image[draw(st.integers(0, 1)) :], (first, second, *kernel), (outs,)]
    return name, shapes[: draw(st.integers(2, 3))], options


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_derivatives_are_pytorchs(dtype: str) -> None:
    """Of first and second order."""
    torch = pytest.importorskip("torch")

    @given(torch_calls(), st.integers(0, 99))
    def law(call: tuple, seed: int) -> None:
        name, shapes, options = call
        values = [np.random.default_rng(seed + i).normal(size=s).astype(dtype) for i, s in enumerate(shapes)]
        ours = [leaf(value) for value in values]
        theirs = [exact(value, requires_grad=True) for value in values]
        out = getattr(tg, name)(*ours, **options)
        first = tg.grad((out * out).sum(), ours, create_graph=True)
        second = tg.grad(weighted_sum(list(first)), ours)
        other = getattr(torch.nn.functional, name)(*theirs, **options)
        theirs_first = torch.autograd.grad((other * other).sum(), theirs, create_graph=True)
        weighted = [np.random.default_rng(i).uniform(0.5, 1.5, g.shape) for i, g in enumerate(first)]
        total = sum((g * exact(w.astype(dtype))).sum() for g, w in zip(theirs_first, weighted, strict=True))
        theirs_second = torch.autograd.grad(total, theirs, materialize_grads=True)
        found, wanted = [out, *first, *second], [other, *theirs_first, *theirs_second]
        for one, another in zip(found, wanted, strict=True):
            assert_pytorchs(one, another, dtype)

    law()
