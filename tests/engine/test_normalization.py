"""Laws of normalisation, its edges, and PyTorch's values, gradients and second derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.op import TABLE, TENSOR_OPS, public_function
from tinygrad_rnn.engine.ops.fused import use_kernels
from tinygrad_rnn.engine.ops.normalization import equations
from tinygrad_rnn.errors import (
    AnomalyError,
    BackendError,
    DtypeError,
    GraphError,
    ShapeError,
    UsageError,
)

from .laws import assert_close, weighted_sum
from .samples import REALS, UNRELATED, arrays, batch_norm_cases, leaf
from .test_pooling import agrees_with_pytorch, assert_pytorchs, channels_last, exact

SHAPES = st.sampled_from([(4, 2), (7, 1), (3, 2, 2), (2, 3, 2, 3), (5, 1, 1, 2)])
EPS = st.sampled_from([1e-5, 1e-3, 0.5])


@pytest.fixture(autouse=True, params=["numpy", "numba"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every law holds for either kernels."""
    if request.param == "numba":
        pytest.importorskip("numba")
    with use_kernels(request.param):
        yield request.param


def normalized(x: tg.Tensor, *affine: Any, eps: float = 1e-5) -> tg.Tensor:
    """x by the statistics of the batch."""
    return tg.batch_norm(x, None, None, *affine, training=True, eps=eps)


def axes_of(x: Any) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def drawn_x(data: Any) -> np.ndarray:
    return data.draw(arrays(data.draw(SHAPES), UNRELATED, unique=True))


# --- laws of batch normalisation --------------------------------------------------------------------


@given(st.data(), EPS)
def test_the_output_has_mean_0_and_variance_near_1(data: Any, eps: float) -> None:
    """s2 / (s2 + eps), where s2 is the variance of the input, before scale and shift."""
    x = drawn_x(data)
    out = normalized(tg.tensor(x), eps=eps).numpy()
    s2 = x.var(axis=axes_of(x))
    assert_close(out.mean(axis=axes_of(x)), np.zeros_like(s2))
    assert_close(out.var(axis=axes_of(x)), s2 / (s2 + eps))


@given(st.data(), EPS, st.sampled_from([0.25, 3.0]))
def test_scale_and_shift_of_what_comes_in(data: Any, eps: float, scale: float) -> None:
    """A shift is lost; to scale is to divide eps by the square."""
    x = drawn_x(data)
    out = normalized(tg.tensor(x), eps=eps).numpy()
    assert_close(normalized(tg.tensor(x + 7), eps=eps).numpy(), out, roundings=10_000)
    assert_close(normalized(tg.tensor(scale * x), eps=eps * scale**2).numpy(), out)


@given(st.integers(0, 99), st.sampled_from([0.5, 3.0]))
def test_the_scale_of_the_weights_before_it_is_lost_as_eps_vanishes(seed: int, scale: float) -> None:
    """How much it still matters, and how far their gradient is from orthogonal to them, shrinks with eps."""
    draw = np.random.default_rng(seed).normal
    x, direction = tg.tensor(draw(size=(8, 3))), tg.tensor(draw(size=(8, 2)))
    weights = draw(size=(3, 2))

    def deviation(eps: float) -> float:
        outs = [normalized(x @ tg.tensor(s * weights), eps=eps).numpy() for s in (1, scale)]
        return float(np.abs(outs[0] - outs[1]).max())

    def along(eps: float) -> np.ndarray:
        """The gradient of each channel's weights times these weights."""
        w = leaf(weights)
        loss = (tg.tanh(normalized(x @ w, eps=eps)) * direction).sum()
        return (tg.grad(loss, w).numpy() * weights).sum(axis=0)

    assert deviation(0.0) < 1e-13
    assert np.abs(along(0.0)).max() < 1e-12
    assert deviation(1e-4) == pytest.approx(10 * deviation(1e-5), rel=0.02)
    assert along(1e-4) == pytest.approx(10 * along(1e-5), rel=0.02)
    assert np.abs(along(1e-4)).max() > 1e-7  # not 0 for some other reason


@given(st.data(), EPS)
def test_gradients_sum_to_zero_over_the_batch(data: Any, eps: float) -> None:
    """And have a part along the output y that goes to 0 with eps: <dx, y> is <g, y> times
    weight eps / (s2 + eps)^(3/2), where g is the gradient of the output."""
    x = leaf(drawn_x(data))
    weight = np.random.default_rng(0).normal(size=x.shape[1])
    out = normalized(x, tg.tensor(weight), eps=eps)
    upstream, gradient = (g.numpy() for g in tg.grad(weighted_sum([tg.sin(out)]), [out, x]))
    axes = axes_of(gradient)
    size = np.abs(gradient).sum(axis=axes)
    assert_close(gradient.sum(axis=axes) / (size + 1), np.zeros(len(size)))
    y, s2 = normalized(x, eps=eps).numpy(), x.numpy().var(axis=axes)
    wanted = (upstream * y).sum(axis=axes) * weight * eps / (s2 + eps) ** 1.5
    assert_close((gradient * y).sum(axis=axes) / (size + 1), wanted / (size + 1))


@given(st.data())
def test_evaluation_is_affine_and_sees_no_batch(data: Any) -> None:
    x = drawn_x(data)
    y = data.draw(arrays(x.shape, REALS))
    channels = x.shape[1]
    mean, var = np.linspace(-1, 1, channels), np.linspace(0.5, 2, channels)
    weight, bias = np.linspace(2, -1, channels), np.linspace(0, 1, channels)

    def evaluated(values: np.ndarray) -> np.ndarray:
        running = tg.tensor(mean), tg.tensor(var)
        out = tg.batch_norm(tg.tensor(values), *running, tg.tensor(weight), tg.tensor(bias))
        assert_array_equal(running[0].numpy(), mean)
        assert_array_equal(running[1].numpy(), var)
        return out.numpy()

    assert_close(evaluated(0.25 * x + 0.75 * y), 0.25 * evaluated(x) + 0.75 * evaluated(y))
    assert_array_equal(evaluated(np.concatenate([x, y])), np.concatenate([evaluated(x), evaluated(y)]))
    spread = (slice(None),) + (None,) * (x.ndim - 2)
    wanted = (x - mean[spread]) / np.sqrt(var[spread] + 1e-5) * weight[spread] + bias[spread]
    assert_close(evaluated(x), wanted)
    assert evaluated(x[:1]).shape == x[:1].shape  # one value a channel is enough


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_one_value_a_channel_is_refused_in_training(shape: tuple) -> None:
    with pytest.raises(
        ShapeError, match=r"more than one value a channel, and x of shape .* its variance is 0"
    ):
        normalized(tg.ones(shape))
    assert normalized(tg.ones((2, *shape[1:]))).shape == (2, *shape[1:])
    assert normalized(tg.ones((1, 3, 1, 2))).shape == (1, 3, 1, 2)


@given(batch_norm_cases(), st.booleans())
def test_the_kernel_computes_the_equations(case: Any, last: bool) -> None:
    """In values and every gradient, also where few outputs or inputs count, in either order in memory."""
    x = channels_last(case.inputs[0]) if last and case.inputs[0].ndim == 4 else case.inputs[0]
    inputs = [leaf(x), *(None if a is None else leaf(a) for a in case.inputs[1:])]
    points = [i for i in inputs if i is not None]
    fused = public_function(TABLE["batch_norm"])(*inputs, **case.params)
    plain = equations(TENSOR_OPS, *inputs, **case.params)
    for one, other in zip(fused, plain, strict=True):
        assert_close(one.numpy(), other.numpy())
    for used in ([0], [1], [2], [0, 2], [0, 1, 2]):
        for wanted in (points, points[:1], points[1:]):
            if not wanted:
                continue
            found, expected = (
                tg.grad(weighted_sum([outs[i] for i in used]), wanted, allow_unused=True, retain_graph=True)
                for outs in (fused, plain)
            )
            for one, other in zip(found, expected, strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    assert_close(one.numpy(), other.numpy())


@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last])
def test_a_mean_that_is_large_beside_the_deviations(order: Callable) -> None:
    """In float32 the output and the gradients are those of float64 on the same numbers, though the mean is no
    float32, which by itself would be off by a hundredth of a deviation."""
    draw = np.random.default_rng(0).normal
    numbers = (
        1e4 + 0.1 * draw(size=(16, 3, 8, 8)),
        draw(size=3),
        draw(size=3),
        0.5 + draw(size=(16, 3, 8, 8)),
    )
    single = [a.astype("float32") for a in numbers]

    def computed(dtype: str) -> list[np.ndarray]:
        inputs = [leaf(a.astype(dtype)) for a in single[:3]]
        inputs[0] = leaf(order(inputs[0].array))
        out, mean, var = public_function(TABLE["batch_norm"])(*inputs)
        factors = [tg.tensor(single[3].astype(dtype)), tg.tensor(np.full(3, 1e3, dtype))]
        by_output = tg.grad((out * factors[0]).sum(), inputs, retain_graph=True)
        by_variance = tg.grad((var * factors[1]).sum(), inputs[0])
        return [t.numpy() for t in (out, mean, var, *by_output, by_variance)]

    found, wanted = computed("float32"), computed("float64")
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == "float32"
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6 * np.abs(other).max())


def test_a_variance_that_is_small_beside_eps_is_exact() -> None:
    """It is not what 1 / sqrt(variance + eps) leaves of it."""
    x = (0.01 * np.random.default_rng(0).normal(size=(8, 3, 4, 4))).astype("float32")
    for images in (x, channels_last(x)):
        _, _, var = public_function(TABLE["batch_norm"])(leaf(images), None, None, eps=10.0)
        np.testing.assert_allclose(var.numpy(), x.astype("float64").var(axis=(0, 2, 3)), rtol=1e-6)


def test_results_and_gradients_lie_in_memory_as_x_does() -> None:
    x = leaf(channels_last(np.random.default_rng(0).normal(size=(2, 3, 4, 5))))
    out = normalized(x)
    assert out.array.transpose(0, 2, 3, 1).flags.c_contiguous
    gradient = tg.grad(out, x, leaf(x.array, requires_grad=False))
    assert gradient.array.transpose(0, 2, 3, 1).flags.c_contiguous


# --- running statistics ---------------------------------------------------------------------------


def test_running_statistics_move_towards_those_of_the_batch() -> None:
    """By the fraction `momentum` of the way, in place; the variance is that of a sample."""
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    mean, var = tg.tensor([1.0, 2.0], dtype="float64"), np.array([3.0, 4.0])
    memory = mean.array
    tg.batch_norm(tg.tensor(x), mean, var, training=True, momentum=0.25)
    assert mean.array is memory
    assert_close(mean.numpy(), 0.75 * np.array([1.0, 2.0]) + 0.25 * x.mean(axis=(0, 2)))
    assert_close(var, 0.75 * np.array([3.0, 4.0]) + 0.25 * x.var(axis=(0, 2), ddof=1))
    for _ in range(200):
        tg.batch_norm(tg.tensor(x), mean, var, training=True)
    again = tg.batch_norm(tg.tensor(x), mean, var * (11 / 12)).numpy()
    assert_close(again, normalized(tg.tensor(x)).numpy(), "float32")


def test_a_graph_of_evaluation_outlives_a_step_of_training() -> None:
    """It has what it needs; a graph that saved the running statistics themselves notices the write."""
    x, weight, bias = tg.randn(4, 2), tg.ones(2, requires_grad=True), tg.zeros(2, requires_grad=True)
    mean, var = tg.ones(2), tg.full((2,), 4.0)
    evaluated, other = tg.batch_norm(x, mean, var, weight, bias), weight * mean
    tg.batch_norm(x, mean, var, weight, bias, training=True)
    evaluated.sum().backward()
    assert_close(weight.grad.numpy(), ((x.numpy() - 1) / np.sqrt(4 + 1e-5)).sum(axis=0), "float32")
    with pytest.raises(GraphError, match="written to in place"):
        other.sum().backward()


def test_running_statistics_move_once_though_a_checkpoint_computes_twice() -> None:
    x, mean, var = leaf(np.random.default_rng(0).normal(size=(4, 2))), np.zeros(2), np.ones(2)

    def block(x: tg.Tensor) -> tg.Tensor:
        return tg.batch_norm(x, mean, var, training=True)

    out = tg.checkpoint(lambda x: tg.checkpoint(block, x) ** 3, x)
    after = mean.copy(), var.copy()
    assert after[0].all()
    found = tg.grad(out.sum(), x).numpy()
    assert_array_equal((mean, var), after)
    block(x)  # and those of the next step move again
    assert (mean != after[0]).all()
    assert_close(found, tg.grad((normalized(x) ** 3).sum(), x).numpy())


def test_running_statistics_that_cannot_be_written_to_serve_in_evaluation_only(hostile: Any) -> None:
    """In training neither moves, and nothing is computed."""
    x, mean, fixed = tg.tensor(np.random.default_rng(0).normal(size=(4, 2))), np.zeros(2), np.ones(2)
    fixed.flags.writeable = False
    with pytest.raises(UsageError, match="running_var is written to in training, and is read-only"):
        tg.batch_norm(x, mean, fixed, training=True)
    spread = tg.broadcast_to(tg.ones(1), (2,))  # a tensor whose elements are one and the same number
    with pytest.raises(UsageError, match=r"running_var .* read-only: give a copy"):
        tg.batch_norm(x, mean, spread, training=True)
    with pytest.raises(BackendError, match=r"running_var .* must be an array of numpy, as x is"):
        tg.batch_norm(x, mean, tg.ones(2, backend=hostile), training=True)
    assert not mean.any()
    assert_close(tg.batch_norm(x, mean, fixed, eps=0.0).numpy(), x.numpy())


def test_a_momentum_beyond_1_goes_beyond_the_batch() -> None:
    """As in PyTorch: the formula is taken at its word."""
    for momentum in (-0.5, 0.0, 1.0, 2.0):
        mean, var = np.zeros(2), np.ones(2)
        x = np.random.default_rng(0).normal(size=(4, 2))
        tg.batch_norm(tg.tensor(x), mean, var, training=True, momentum=momentum)
        assert_close(mean, momentum * x.mean(axis=0))
        assert_close(var, 1 - momentum + momentum * x.var(axis=0, ddof=1))


def test_anomalies_inside_are_found_by_the_equations() -> None:
    x = tg.tensor(np.ones((3, 2)), requires_grad=True)
    with pytest.raises(AnomalyError, match="divide"), tg.detect_anomaly():
        normalized(x, eps=0.0)


# --- layers and groups ----------------------------------------------------------------------------


@given(arrays((2, 3, 4), UNRELATED, unique=True), EPS)
def test_each_row_of_a_layer_is_normalised_by_itself(x: np.ndarray, eps: float) -> None:
    out = tg.layer_norm(tg.tensor(x), 4, eps=eps).numpy()
    assert_close(out.mean(axis=-1), np.zeros((2, 3)))
    assert_close(out.var(axis=-1), x.var(axis=-1) / (x.var(axis=-1) + eps))
    assert_close(tg.layer_norm(tg.tensor(x[:1]), (4,), eps=eps).numpy(), out[:1])


@given(arrays((2, 4, 3), UNRELATED, unique=True))
def test_groups_of_one_of_all_and_in_between(x: np.ndarray) -> None:
    t = tg.tensor(x)
    assert_close(tg.group_norm(t, 1).numpy(), tg.layer_norm(t, (4, 3)).numpy())
    assert_close(tg.group_norm(t, 4).numpy(), tg.layer_norm(t, 3).numpy())
    halves = [tg.layer_norm(half, (2, 3)).numpy() for half in tg.split(t, 2, axis=1)]
    assert_close(tg.group_norm(t, 2).numpy(), np.concatenate(halves, axis=1))


NORMS: dict[str, tuple[Callable, tuple]] = {
    "layer_norm": (lambda x, w, b: tg.layer_norm(x, (2, 3), w, b, eps=0.1), (2, 3)),
    "group_norm": (lambda x, w, b: tg.group_norm(x, 1, w, b, eps=0.1), (2,)),
    "in evaluation": (lambda x, w, b: tg.batch_norm(x, np.ones(2), np.array([1.0, 2.0]), w, b), (2,)),
}


@pytest.mark.parametrize("name", NORMS)
def test_jacobians_of_the_others(name: str) -> None:
    function, shape = NORMS[name]
    draw = np.random.default_rng(0).normal
    x = leaf(draw(size=(2, 2, 3)))
    assert tg.gradcheck(function, [x, leaf(draw(size=shape)), leaf(draw(size=shape))], order=2)
    assert tg.gradcheck(lambda v: function(v, None, None), x, order=2)


# --- dtypes, empty batches, bad input ---------------------------------------------------------------


def test_dtypes() -> None:
    for dtype in ("float16", "float32", "float64"):
        x = tg.tensor(np.random.default_rng(0).normal(size=(4, 2, 3)), dtype=dtype)
        running = tg.zeros(2), tg.ones(2)
        for training in (True, False):
            assert tg.batch_norm(x, *running, training=training).dtype == dtype
        assert tg.layer_norm(x, 3).dtype == tg.group_norm(x, 2).dtype == dtype
        assert {r.dtype for r in running} == {np.dtype("float32")}
    whole = tg.tensor(np.arange(8).reshape(4, 2))
    assert normalized(whole).dtype == tg.layer_norm(whole, 2).dtype == "float32"
    assert tg.batch_norm(whole, *running).dtype == "float32"


@pytest.mark.parametrize("shape", [(0, 3, 2), (0, 3)])
def test_an_empty_batch(shape: tuple) -> None:
    """Has no statistics, and leaves the running ones alone."""
    x, weight = leaf(np.zeros(shape)), leaf(np.ones(3))
    running = np.zeros(3), np.ones(3)
    for out in (
        tg.batch_norm(x, *running, weight, training=True),
        tg.batch_norm(x, *running, weight),
        tg.group_norm(x, 3, weight),
    ):
        assert out.shape == shape
        gradients = tg.grad(out.sum(), [x, weight])
        assert_array_equal(gradients[1].numpy(), np.zeros(3))
    assert tg.layer_norm(x, shape[-1]).shape == shape
    assert_array_equal(running, [np.zeros(3), np.ones(3)])


def test_bad_input() -> None:
    x, three = tg.ones((4, 2, 2)), tg.ones(3)
    running = tg.zeros(2), tg.ones(2)
    refused: list[tuple[Callable, type, str]] = [
        (
            lambda: tg.batch_norm(x, *running, three),
            ShapeError,
            r"weight has shape \(3,\); x .* needs \(2,\)",
        ),
        (lambda: tg.batch_norm(x, three, three), ShapeError, r"running_mean has shape \(3,\).* needs \(2,\)"),
        (lambda: tg.batch_norm(three, *running), ShapeError, r"at least 2 dimensions, \(N, C, ...\).*\(3,\)"),
        (lambda: tg.batch_norm(x, None, None), UsageError, "needs running_mean and running_var"),
        (
            lambda: tg.batch_norm(x, np.zeros(2, int), running[1]),
            DtypeError,
            "running_mean is written to in training: it must be floats without gradient, not int64",
        ),
        (
            lambda: tg.batch_norm(x, running[0], tg.zeros(2, requires_grad=True)),
            DtypeError,
            "running_var is written to .* not float32 with a gradient",
        ),
        (lambda: tg.batch_norm(x, [0, 0], running[1]), DtypeError, r"running_mean must be .* not \[0, 0\]"),
        (lambda: tg.group_norm(x, 3), ShapeError, r"2 channels of x of shape \(4, 2, 2\).* into 3 groups"),
        (lambda: tg.group_norm(x, 2, three), ShapeError, r"weight has shape \(3,\)"),
        (lambda: tg.layer_norm(x, (3,)), ShapeError, r"normalized_shape \(3,\) .* \(4, 2, 2\) ends"),
        (lambda: tg.layer_norm(x, (1, 4, 2, 2)), ShapeError, r"normalized_shape \(1, 4, 2, 2\)"),
        (lambda: tg.layer_norm(x, 2, three), ShapeError, r"weight has shape \(3,\); x .* needs \(2,\)"),
        (
            lambda: tg.layer_norm(x, 2, [1, 1]),
            DtypeError,
            r"weight must be a tensor .* of shape \(2,\), not \[1, 1",
        ),
        (lambda: tg.layer_norm(x, ()), ShapeError, r"normalized_shape \(\)"),
    ]
    for attempt, error, words in refused:
        with pytest.raises(error, match=words) as caught:
            attempt()
        assert "\n" not in str(caught.value)


# --- PyTorch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(st.data())
def test_batch_normalisation_is_that_of_pytorch(dtype: str, data: Any) -> None:
    """Also the running statistics, over several steps."""
    torch = pytest.importorskip("torch")
    x = drawn_x(data)
    x = channels_last(x) if x.ndim == 4 and data.draw(st.booleans()) else x
    channels, draw = x.shape[1], np.random.default_rng(0).uniform
    affine = [
        draw(0.5, 2, channels).astype(dtype) if data.draw(st.booleans()) else None for _ in ("weight", "bias")
    ]
    start = [draw(0.5, 2, channels).astype(dtype) for _ in ("mean", "variance")]
    ours, theirs = [tg.tensor(s) for s in start], [exact(s) for s in start]
    options = {
        "training": data.draw(st.booleans()),
        "momentum": data.draw(st.sampled_from([0.1, 0.5, 1.0])),
        "eps": data.draw(st.sampled_from([1e-2, 0.1])),
    }
    agrees_with_pytorch(
        lambda a: tg.batch_norm(a, *ours, *(None if p is None else tg.tensor(p) for p in affine), **options),
        lambda b: torch.nn.functional.batch_norm(b, *theirs, *map(exact, affine), **options),
        x,
        dtype,
    )
    for one, other in zip(ours, theirs, strict=True):
        assert_pytorchs(one, other, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(st.data())
def test_the_gradients_of_scale_and_shift_are_those_of_pytorch(dtype: str, data: Any) -> None:
    torch = pytest.importorskip("torch")
    x = drawn_x(data).astype(dtype)
    w = np.linspace(-1, 2, x.shape[1]).astype(dtype)
    agrees_with_pytorch(
        lambda a: normalized(tg.tensor(x), a, a * a, eps=0.01),
        lambda b: torch.nn.functional.batch_norm(exact(x), None, None, b, b * b, True, eps=0.01),
        w,
        dtype,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(st.data())
def test_layer_and_group_normalisation_are_those_of_pytorch(dtype: str, data: Any) -> None:
    torch = pytest.importorskip("torch")
    # Of two values alone, the terms of a gradient cancel but for a part eps / (variance + eps) of them.
    eps = {"float64": 0.01, "float32": 0.5}[dtype]
    shape = data.draw(st.sampled_from([(2, 4), (3, 2, 2), (2, 4, 3), (1, 4, 2, 3), (2, 6, 2, 1)]))
    x = data.draw(arrays(shape, UNRELATED, unique=True))
    last = shape[-data.draw(st.integers(1, len(shape) - 1)) :]
    groups = data.draw(st.sampled_from([g for g in (1, 2, 3, 4) if shape[1] % g == 0]))
    for kind, option, size in (("layer_norm", last, last), ("group_norm", groups, shape[1:2])):
        affine = [
            np.random.default_rng(n).uniform(-1, 1, size).astype(dtype) if data.draw(st.booleans()) else None
            for n in range(2)
        ]
        agrees_with_pytorch(
            lambda a, kind=kind, option=option, affine=affine: getattr(tg, kind)(
                a, option, *(None if p is None else tg.tensor(p) for p in affine), eps=eps
            ),
            lambda b, kind=kind, option=option, affine=affine: getattr(torch.nn.functional, kind)(
                b, option, *map(exact, affine), eps=eps
            ),
            x,
            dtype,
        )
