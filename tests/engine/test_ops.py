"""The laws that every op of the table obeys, on the samples of samples.py; then single ops' own laws."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_allclose, assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine import random
from tinygrad_rnn.engine.op import TABLE
from tinygrad_rnn.errors import DataError, DtypeError, ShapeError, TinygradError

from .laws import as_function, assert_close, derivatives
from .samples import REALS, SAMPLES, WITH_AXES, arrays, axis, cast, indices, laid_out, leaf, tensors

OPS = [name for name, op in TABLE.items() if op.source == "built-in"]
DIFFERENTIABLE = [name for name in OPS if TABLE[name].differentiable]


def for_each(names: list[str]) -> Callable:
    return pytest.mark.parametrize("name", names)


def examples(name: str, count: int) -> settings:
    return settings(max_examples=min(count, SAMPLES[name].examples or count))


# --- laws of all ops ------------------------------------------------------------------------------


def test_every_op_of_the_table_has_a_sample() -> None:
    assert set(SAMPLES) == set(OPS)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@for_each(OPS)
def test_values_are_those_of_numpy(name: str, dtype: str) -> None:
    """An op gives what its reference gives: values, shape and dtype, whatever the layout in memory."""
    sample = SAMPLES[name]

    @given(st.data())
    def law(data: Any) -> None:
        case = cast(data.draw(laid_out(data.draw(sample.cases))), dtype)
        outs = sample.call(TABLE[name], *tensors(case))
        wanted = sample.expected(cast(case, "float64"))
        assert len(outs) == len(wanted)
        for out, want in zip(outs, wanted, strict=True):
            assert out.shape == want.shape
            floating = np.dtype(case.params.get("dtype", dtype))
            assert out.dtype == (floating if want.dtype.kind == "f" else want.dtype)
            assert_close(out.numpy(), want, dtype)

    law()


def check_jacobians(name: str, count: int) -> None:
    @examples(name, count)
    @given(SAMPLES[name].cases)
    def law(case: Any) -> None:
        function, points = as_function(TABLE[name], case)
        with warnings.catch_warnings():
            warnings.simplefilter("error", tg.KinkWarning)
            assert tg.gradcheck(function, points, order=2, rtol=1e-5, atol=1e-6)

    law()


@for_each(DIFFERENTIABLE)
def test_jacobians_of_first_and_second_order(name: str) -> None:
    """The full Jacobian, and the gradient's own, are those of central differences."""
    check_jacobians(name, 40)


@pytest.mark.slow
@for_each(DIFFERENTIABLE)
def test_jacobians_on_many_examples(name: str) -> None:
    """The same law, looked at for longer."""
    check_jacobians(name, 400)


@for_each(DIFFERENTIABLE)
def test_float32_derivatives_are_close_to_float64(name: str) -> None:
    """Values, first and second derivatives in float32 are those in float64 to within its rounding."""

    @examples(name, 15)
    @given(SAMPLES[name].cases)
    def law(case: Any) -> None:
        case = cast(case, "float32")
        single, double = derivatives(name, case), derivatives(name, cast(case, "float64"))
        for gradient in single.first + single.second:
            assert gradient is None or gradient.dtype == np.float32
        for found, wanted in zip(single.all(), double.all(), strict=True):
            assert_close(found, wanted, "float32", roundings=1000)

    law()


@for_each(DIFFERENTIABLE)
def test_derivatives_do_not_depend_on_the_layout(name: str) -> None:
    """Transposed, reversed and non-contiguous inputs have the derivatives of contiguous ones."""

    @examples(name, 15)
    @given(st.data())
    def law(data: Any) -> None:
        case = data.draw(SAMPLES[name].cases)
        plain, other = derivatives(name, case), derivatives(name, data.draw(laid_out(case)))
        for found, wanted in zip(other.all(), plain.all(), strict=True):
            assert found.shape == wanted.shape
            assert_close(found, wanted, "float64")

    law()


@for_each(DIFFERENTIABLE)
def test_gradients_have_the_shape_of_their_inputs(name: str) -> None:
    """Also where there is nothing to differentiate: sizes of 0, and none of the outputs used."""

    @examples(name, 15)
    @given(SAMPLES[name].cases)
    def law(case: Any) -> None:
        function, points = as_function(TABLE[name], case)
        outs = function(*points)
        found = tg.grad(outs, points, [tg.zeros(o.shape, dtype=o.dtype) for o in outs])
        for gradient, point in zip(found, points, strict=True):
            assert gradient.shape == point.shape
            assert not gradient.numpy().any()

    law()


@for_each(DIFFERENTIABLE)
def test_every_derivative_can_be_shown(name: str) -> None:
    """The table's text of each derivative is a formula, not a function's name."""
    for line in TABLE[name].derivative():
        assert "(...)" not in line
        assert "not at hand" not in line


# --- laws of single ops ---------------------------------------------------------------------------


def numbers(shape: Any = (3, 4), seed: int = 0) -> tg.Tensor:
    """Float64 values that are all different, as a leaf."""
    return leaf(np.random.default_rng(seed).normal(size=shape))


@given(arrays((2, 3), REALS))
def test_functions_undo_one_another(x: np.ndarray) -> None:
    t = leaf(x)
    assert_close(tg.log(tg.exp(t)).numpy(), x)
    assert_close(tg.log1p(tg.expm1(t)).numpy(), x)
    assert_close(tg.sqrt(t * t).numpy(), tg.abs(t).numpy())
    assert_close((tg.sin(t) ** 2 + tg.cos(t) ** 2).numpy(), np.ones_like(x))
    assert_close(tg.tanh(t).numpy(), (2 * tg.sigmoid(2 * t) - 1).numpy())
    assert_close((tg.softplus(t) - tg.softplus(-t)).numpy(), x)
    assert_array_equal(tg.flip(tg.flip(t)).numpy(), x)
    assert_array_equal(tg.concatenate(tg.split(t, [1, 2], axis=1), axis=1).numpy(), x)
    assert_array_equal(tg.stack(list(t)).numpy(), x)
    assert_array_equal(tg.pad(t, ((1, 2), (0, 3)))[1:3, 0:3].numpy(), x)


@given(arrays((3, 4), REALS), st.integers(-50, 50))
def test_softmax_and_its_kin(x: np.ndarray, shift: int) -> None:
    """They sum to one, a shift changes nothing, one is the log and one the gradient of another."""
    t = leaf(x)
    p = tg.softmax(t)
    assert_close(p.sum(axis=-1).numpy(), np.ones(3))
    assert_close(tg.softmax(t + shift).numpy(), p.numpy())
    assert_close(tg.log_softmax(t).numpy(), tg.log(p).numpy())
    assert_close(tg.grad(tg.logsumexp(t, axis=-1).sum(), t).numpy(), p.numpy())


@given(arrays((3, 4), REALS), st.integers(0, 1), st.integers(0, 1))
def test_moments(x: np.ndarray, along: int, ddof: int) -> None:
    t = leaf(x)
    count = x.shape[along]
    assert_close(tg.cumsum(t, axis=along).numpy().take(-1, axis=along), x.sum(axis=along))
    square = ((t * t).mean(axis=along) - t.mean(axis=along) ** 2) * (count / (count - ddof))
    assert_close(tg.var(t, axis=along, ddof=ddof).numpy(), square.numpy())
    assert tg.gradcheck(lambda v: tg.var(v, axis=along, ddof=ddof), t)
    assert_close((tg.norm(t, axis=along) ** 2).numpy(), (t * t).sum(axis=along).numpy())


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "cumsum", "logsumexp", "norm"])
@pytest.mark.parametrize("along", [0, -1])
def test_a_number_reduced_along_its_one_axis(name: str, along: int) -> None:
    """NumPy lets an array of no dimensions pass as one of one; so do value and gradient here."""
    x = leaf(np.array(2.0))
    out = getattr(tg, name)(x, axis=along)
    assert out.item() == 2
    gradient = tg.grad(out.sum(), x)
    assert gradient.shape == ()
    assert gradient.item() == 1


def test_axes_may_be_given_in_every_form() -> None:
    x = numbers((2, 3, 4))
    y = x.numpy()
    for source, destination in (((0, 1), (2, 0)), ((-1,), (0,)), ([1, 2], [0, 1])):
        assert_array_equal(tg.moveaxis(x, source, destination).numpy(), np.moveaxis(y, source, destination))
        assert tg.gradcheck(lambda v, s=source, d=destination: tg.moveaxis(v, s, d), x)
    assert len(tg.split(x, np.int64(2), axis=0)) == len(tg.split(x, np.array([1]), axis=0)) == 2
    assert_array_equal(tg.pad(x, np.array([[1, 0], [0, 1], [2, 2]])).numpy()[1:, :3, 2:-2], y)


@given(arrays((4,), [0.0, 1.0, 2.0, -3.0]))
def test_product_with_zeros(x: np.ndarray) -> None:
    """The derivative of a product is the product of the others, whatever is zero."""
    others = [np.prod(np.delete(x, i)) for i in range(4)]
    t = leaf(x)
    assert_array_equal(tg.grad(tg.prod(t), t).numpy(), others)


@given(st.data())
def test_scatter_is_the_adjoint_of_indexing(data: Any) -> None:
    """<v, x[index]> = <scatter(v), x>, repeated indices included."""
    shape = data.draw(WITH_AXES)
    index = data.draw(indices(shape))
    x = data.draw(arrays(shape, REALS))
    v = data.draw(arrays(x[index].shape, REALS))
    t = leaf(x)
    gradient = tg.grad(t[index], t, tg.tensor(v)).numpy()
    assert_close((gradient * x).sum(), (v * x[index]).sum())


@given(st.lists(st.integers(-5, 4), max_size=20))
def test_repeated_indices_accumulate(picks: list[int]) -> None:
    """The gradient of rows picked by number counts how often each was picked."""
    table = leaf(np.zeros((5, 2)))
    tg.take(table, picks, axis=0).sum().backward()
    assert table.grad is not None
    counts = np.bincount(np.array(picks, int) % 5, minlength=5)
    assert_array_equal(table.grad.numpy(), np.stack([counts, counts], axis=1))


@given(st.data())
def test_take_is_numpys(data: Any) -> None:
    x = data.draw(arrays(data.draw(hnp.array_shapes(max_dims=3, max_side=3)), REALS))
    along = data.draw(st.none() | axis(x.shape))
    size = x.size if along is None else x.shape[along]
    form = data.draw(st.sampled_from([np.array, list, tuple, tg.tensor]))
    picks = data.draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=4))
    assert_array_equal(tg.take(leaf(x), form(picks), axis=along).numpy(), np.take(x, picks, axis=along))
    assert_array_equal(leaf(x).take(picks[0], axis=along).numpy(), np.take(x, picks[0], axis=along))


@pytest.mark.parametrize(
    "subscripts, shapes",
    [
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ba", [(2, 3)]),
        ("ii", [(3, 3)]),
        ("ii->i", [(3, 3)]),
        ("iji->j", [(3, 2, 3)]),
        ("iii,i->i", [(2, 2, 2), (2,)]),
        ("...ij,...jk->...ik", [(2, 1, 3), (3, 2)]),
        ("...ij,...jk", [(4, 2, 3), (1, 3, 2)]),
        ("i...,i...->...", [(2, 3), (2, 3)]),
        ("...->...", [(2, 3)]),
        (" i j , j -> i ", [(2, 3), (3,)]),
        ("a,b,c->cab", [(2,), (3,), (2,)]),
        ("i,i->", [(3,), (1,)]),
    ],
)
def test_einsum_takes_every_form_of_numpys(subscripts: str, shapes: list) -> None:
    """Implicit results, ellipses, diagonals, spaces, sizes of 1: values and derivatives."""
    operands = [numbers(shape, seed) for seed, shape in enumerate(shapes)]
    wanted = np.einsum(subscripts, *(x.numpy() for x in operands))
    assert_close(tg.einsum(subscripts, *operands).numpy(), wanted)
    assert tg.gradcheck(lambda *x: tg.einsum(subscripts, *x), operands, order=2)


@given(arrays((2, 3, 4), REALS), arrays((4, 2), REALS))
def test_matmul_is_the_einsum(a: np.ndarray, b: np.ndarray) -> None:
    x, y = leaf(a), leaf(b)
    product, sums = x @ y, tg.einsum("...ij,jk->...ik", x, y)
    assert_close(product.numpy(), sums.numpy())
    weights = tg.tensor(np.random.default_rng(0).normal(size=product.shape))
    for one, other in zip(tg.grad(product, (x, y), weights), tg.grad(sums, (x, y), weights), strict=True):
        assert_close(one.numpy(), other.numpy())


@given(arrays((2, 3, 4), REALS), arrays((2, 3), [0, 1, 2, 3]))
def test_cross_entropy_is_the_log_softmax_at_the_target(x: np.ndarray, targets: np.ndarray) -> None:
    logits = leaf(x)
    hot = tg.one_hot(tg.tensor(targets), 4, dtype="float64")
    by_hand = -(tg.log_softmax(logits) * hot).sum(axis=-1)
    loss = tg.cross_entropy(logits, targets, reduction="none")
    assert_close(loss.numpy(), by_hand.numpy())
    assert_close(tg.grad((loss * loss).sum(), logits).numpy(), tg.grad((by_hand**2).sum(), logits).numpy())


def test_cross_entropy_of_ignored_targets_only_is_zero() -> None:
    logits = numbers((2, 3))
    loss = tg.cross_entropy(logits, np.array([-1, -1]), ignore_index=-1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.numpy().any()


@given(arrays((3, 2), REALS), st.floats(0.05, 0.95), st.integers(0, 2**64 - 1))
@settings(max_examples=10)
def test_dropout_is_a_function_of_its_key(x: np.ndarray, p: float, seed: int) -> None:
    """The same key draws the same mask; elements are kept and scaled, or zero; so are gradients."""
    t = leaf(x + 10)
    key = (seed, 3, 5)
    out = tg.dropout(t, p, key=key)
    assert_array_equal(out.numpy(), tg.dropout(t, p, key=key).numpy())
    kept = out.numpy() != 0
    assert_close(out.numpy(), np.where(kept, t.numpy() / (1 - p), 0))
    assert_close(tg.grad(out.sum(), t).numpy(), kept / (1 - p))


@given(arrays((4, 3, 2), REALS), st.sampled_from([0, 1, 2, -3, -1]))
def test_a_mask_shared_along_an_axis_is_one_mask_for_all(x: np.ndarray, axis: int) -> None:
    """Every slice along the axis loses the same elements, those that a slice alone would lose."""
    t, key = leaf(np.abs(x) + 1), (1, 2, 3)
    kept = tg.dropout(t, 0.5, key=key, shared_axis=axis).numpy() != 0
    one = np.ones_like(kept.take([0], axis), np.float32)
    assert_array_equal(kept, np.broadcast_to(tg.dropout(tg.tensor(one), 0.5, key=key).numpy() != 0, x.shape))


def test_dropout_draws_anew_and_again_after_the_same_seed() -> None:
    def masks() -> list[np.ndarray]:
        tg.manual_seed(7)
        return [tg.dropout(tg.ones(1000), 0.25).numpy() for _ in range(2)]

    first, second = masks()
    assert not np.array_equal(first, second)
    assert_array_equal(np.stack(masks()), [first, second])
    assert abs((first == 0).mean() - 0.25) < 0.05
    random.set_step(1)
    assert not np.array_equal(tg.dropout(tg.ones(1000), 0.25).numpy(), first)
    random.set_step(0)
    assert_array_equal(tg.dropout(tg.ones(1000), 0.25).numpy(), first)
    x = tg.ones(3)
    assert tg.dropout(x, 0.5, training=False) is x
    assert not tg.dropout(x, 1.0).numpy().any()


# --- kinks, ties, and numbers at the edge ----------------------------------------------------------


def slope(function: Callable, *values: Any) -> list:
    points = [leaf(np.array(v, float)) for v in values]
    return [g.numpy().tolist() for g in tg.grad(function(*points).sum(), points)]


def test_what_is_chosen_at_kinks() -> None:
    """The documented derivatives where there is none."""
    assert slope(tg.relu, [0.0]) == [[0.0]]
    assert slope(tg.abs, [0.0]) == [[0.0]]
    assert slope(lambda x: tg.leaky_relu(x, 0.25), [0.0]) == [[0.25]]
    assert slope(lambda x: tg.clip(x, -1, 1), [-1.0, 1.0, 2.0]) == [[1.0, 1.0, 0.0]]
    assert slope(tg.norm, [0.0, 0.0]) == [[0.0, 0.0]]
    assert slope(tg.maximum, [1.0], [1.0]) == [[0.5], [0.5]]
    assert slope(tg.minimum, [1.0], [1.0]) == [[0.5], [0.5]]


@given(arrays((2, 3), [0.0, 1.0]), st.none() | axis((2, 3)), st.booleans())
def test_ties_share_the_gradient_of_an_extreme(x: np.ndarray, along: Any, keepdims: bool) -> None:
    for function, extreme in ((tg.max, x.max), (tg.min, x.min)):
        t = leaf(x)
        attained = x == extreme(axis=along, keepdims=True)
        wanted = attained / attained.sum(axis=along, keepdims=True)
        assert_close(tg.grad(function(t, axis=along, keepdims=keepdims).sum(), t).numpy(), wanted)


def test_powers_at_zero_and_of_numbers() -> None:
    assert slope(lambda x: x**2, [0.0, 3.0]) == [[0.0, 6.0]]
    assert slope(lambda x: x**1, [0.0]) == [[1.0]]
    assert slope(lambda x: x**0, [0.0]) == [[0.0]]
    assert slope(lambda x: x**0.5, [4.0]) == [[0.25]]
    assert slope(lambda x: x**-1, [2.0]) == [[-0.25]]
    assert slope(lambda a, b: a**b, [0.0, 0.0], [2.0, 0.0]) == [[0.0, 0.0], [0.0, 0.0]]
    assert_close(slope(lambda x: 2**x, [3.0])[0], [8 * np.log(2)])
    assert slope(lambda x: 0**x, [2.0]) == [[0.0]]
    for exponent in (0, 1, 2, 3, -1, 0.5, 2.5):
        assert tg.gradcheck(lambda x, e=exponent: x**e, leaf(np.array([0.5, 2.0])), order=2)
    assert tg.gradcheck(tg.power, [leaf(np.array([0.5, 2.0, 3.0])), leaf(np.array([0.0, 1.0, 2.0]))], order=2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_overflow_where_the_result_is_finite(dtype: str) -> None:
    """Stable forms: large arguments give their limits, and finite gradients."""
    big = 300.0 if dtype == "float32" else 3000.0
    x = tg.tensor([-big, big], dtype=dtype, requires_grad=True)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for function, wanted in [
            (tg.sigmoid, [0, 1]),
            (tg.softplus, [0, big]),
            (tg.tanh, [-1, 1]),
            (tg.softmax, [0, 1]),
            (tg.log_softmax, [-2 * big, 0]),
            (lambda v: tg.logsumexp(v, keepdims=True), [big]),
            (lambda v: tg.binary_cross_entropy_with_logits(v, np.array([1, 0], dtype)), [big]),
            (lambda v: tg.cross_entropy(v, np.array(0)), [2 * big]),
        ]:
            out = function(x)
            assert_allclose(out.numpy().reshape(-1), wanted, rtol=1e-6)
            assert np.isfinite(tg.grad(out.sum(), x).numpy()).all()
    huge = tg.tensor([3e30, 4e30], requires_grad=True)
    assert_allclose(tg.norm(huge).item(), 5e30, rtol=1e-6)
    assert_allclose(tg.grad(tg.norm(huge), huge).numpy(), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_numbers_keep_their_digits(dtype: str) -> None:
    tiny = tg.tensor([1e-30], dtype=dtype)
    for function in (tg.expm1, tg.log1p, tg.tanh, tg.sin):
        assert_allclose(function(tiny).numpy(), tiny.numpy(), rtol=1e-6)
    assert_allclose(tg.sigmoid(tg.tensor([-80.0], dtype=dtype)).numpy(), np.exp(-80.0), rtol=1e-5)


# --- what is refused ------------------------------------------------------------------------------

X = tg.ones(2, 3)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: X + tg.ones(4), ShapeError, ["add", "float32[2, 3]", "float32[4]"]),
        (lambda: X @ X, ShapeError, ["matmul", "float32[2, 3], float32[2, 3]"]),
        (lambda: tg.sum(X, axis=2), ShapeError, ["sum", "axis", "[2, 3]"]),
        (lambda: tg.reshape(X, (4, 2)), ShapeError, ["reshape", "(4, 2)", "[2, 3]"]),
        (lambda: tg.transpose(X, (0, 0)), ShapeError, ["transpose", "(0, 0)"]),
        (lambda: tg.squeeze(X, 0), ShapeError, ["squeeze", "[2, 3]"]),
        (lambda: tg.broadcast_to(X, (2, 4)), ShapeError, ["broadcast_to", "(2, 4)"]),
        (lambda: tg.concatenate([X, tg.ones(3, 4)]), ShapeError, ["concatenate", "[2, 3]", "[3, 4]"]),
        (lambda: tg.concatenate([]), ShapeError, ["concatenate", "no tensors"]),
        (lambda: tg.stack([X, tg.ones(3)]), ShapeError, ["stack", "[2, 3]", "[3]"]),
        (lambda: tg.split(X, 2, axis=1), ShapeError, ["split", "3", "2"]),
        (lambda: tg.split(X, 1, axis=2), ShapeError, ["split", "axis 2"]),
        (lambda: tg.split(X, [2, 1]), ShapeError, ["split", "[2, 1]"]),
        (lambda: tg.pad(X, ((1, 1),) * 3), ShapeError, ["pad", "2 dimensions"]),
        (lambda: tg.clip(X, 2, 1), ShapeError, ["clip", "2", "1"]),
        (lambda: tg.norm(X, ord=1), ShapeError, ["norm", "ord=1"]),
        (lambda: tg.var(X, axis=0, ddof=2), ShapeError, ["variance", "ddof=2"]),
        (lambda: tg.max(tg.zeros(0)), ShapeError, ["max", "[0]"]),
        (lambda: tg.take(X, [3], axis=1), ShapeError, ["3", "size 3"]),
        (lambda: tg.take(X, [0], axis=2), ShapeError, ["take", "axis 2", "(2, 3)"]),
        (lambda: tg.take(X, [0.5], axis=0), DtypeError, ["take", "integers"]),
        (lambda: tg.take(X, [True, False], axis=0), DtypeError, ["take", "integers"]),
        (lambda: X[2], ShapeError, ["getitem", "[2, 3]"]),
        (lambda: X[0.5], ShapeError, ["getitem", "0.5"]),
        (lambda: X[[0.5, 1.0]], DtypeError, ["index", "float64"]),
        (lambda: X[tg.ones(2)], DtypeError, ["index", "float32"]),
        (lambda: X[np.ones((3, 2), bool)], ShapeError, ["getitem", "boolean"]),
        (lambda: tg.einsum("ij,jk", X), ShapeError, ["einsum", "2 operands", "1"]),
        (lambda: tg.einsum("ijk->i", X), ShapeError, ["'ijk'", "(2, 3)"]),
        (lambda: tg.einsum("ij,jk->ik", X, X), ShapeError, ["einsum", "float32[2, 3]"]),
        (lambda: tg.einsum("ii->i", X), ShapeError, ["'i'", "2", "3"]),
        (lambda: tg.cross_entropy(X, np.array([0, 3])), DataError, ["target 3", "3 classes"]),
        (lambda: tg.cross_entropy(X, np.array([0, -1])), DataError, ["target -1"]),
        (
            lambda: tg.cross_entropy(tg.zeros(2, 3, dtype=int), np.zeros(2, int)),
            DtypeError,
            ["logits", "int64"],
        ),
        (lambda: tg.cross_entropy(X, np.zeros(2)), DtypeError, ["targets", "float64"]),
        (lambda: tg.cross_entropy(X, np.array([0])), ShapeError, ["(2, 3)", "(1,)"]),
        (lambda: tg.cross_entropy(X, np.array([0, 1]), reduction="avg"), ShapeError, ["'avg'"]),
        (lambda: tg.mse(X, tg.ones(3)), ShapeError, ["mse", "(2, 3)", "(3,)"]),
        (lambda: tg.dropout(X, 1.5), ShapeError, ["dropout", "1.5"]),
        (lambda: tg.dropout(X, shared_axis=2), ShapeError, ["dropout", "axis 2", "(2, 3)"]),
        (lambda: tg.tanh(None), DtypeError, ["tanh", "None"]),
        (lambda: tg.add(X, "text"), DtypeError, ["add"]),
        (lambda: tg.tensor([6]) & tg.tensor([3]), DtypeError, ["booleans", "int64"]),
        (lambda: tg.tensor(np.uint8([1])) + 300, DtypeError, ["add", "300", "uint8"]),
        (lambda: X.astype("no dtype"), DtypeError, ["astype", "no dtype"]),
        (lambda: tg.sum(X, axes=0), TypeError, ["sum()", "axes", "axis, keepdims"]),
        (lambda: tg.sum(X, 0, False, 1), TypeError, ["sum()", "at most 2"]),
        (lambda: tg.reshape(X), TypeError, ["reshape()", "shape"]),
        (lambda: tg.where(X, X), TypeError, ["where()", "b"]),
        (lambda: tg.stack(X), TypeError, ["stack()", "sequence", "Tensor"]),
        (lambda: tg.rnn(X, X, X, X, None, None), ShapeError, ["rnn", "(T, B, D)", "(2, 3)"]),
    ],
)
def test_errors_name_the_op_and_what_was_seen(call: Callable, error: type, words: list) -> None:
    with pytest.raises(error) as caught:
        call()
    assert error is TypeError or isinstance(caught.value, TinygradError)
    for word in words:
        assert word in str(caught.value)
