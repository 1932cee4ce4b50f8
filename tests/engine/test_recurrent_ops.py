"""A sequence as one op is the textbook equations: in values and in every gradient, whatever is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from numpy.testing import assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.backend import NUMPY, Backend, get_backend
from tinygrad_rnn.engine.op import TABLE, TENSOR_OPS
from tinygrad_rnn.engine.ops.fused import use_kernels
from tinygrad_rnn.engine.tensor import apply
from tinygrad_rnn.errors import BackendError, ShapeError

from .hostile import HOSTILE
from .laws import assert_close, weighted_sum
from .samples import SAMPLES, Case, cast, laid_out, leaf, leaves_of, sequence_cases, tensors

CELLS = {"rnn": (1, 1), "lstm": (4, 2), "gru": (3, 1)}  # gates, states


@pytest.fixture(autouse=True, params=["numpy", "numba"])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every law holds for either kernels."""
    with use_kernels(request.param):
        yield


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))


@st.composite
def calls(draw: Any, cell: str, sizes: Any = SIZES) -> Case:
    """A drawn call: sizes, nonlinearity, biases that may be None, states that may be zero, layouts."""
    gates, states = CELLS[cell]
    extra = {"nonlinearity": st.sampled_from(["tanh", "relu"])} if cell == "rnn" else {}
    case = draw(laid_out(draw(sequence_cases(gates, states, sizes, **extra))))
    if draw(st.booleans()):
        zeros = tuple(np.zeros_like(state) for state in case.inputs[1 : 1 + states])
        case = case._replace(inputs=(case.inputs[0], *zeros, *case.inputs[1 + states :]))
    return case


def run(cell: str, inputs: tuple, params: dict[str, Any], fused: bool) -> tuple[tg.Tensor, ...]:
    """All outputs, by the kernel or by the equations."""
    if fused:
        return getattr(tg, cell)(*inputs, **params)
    return TABLE[cell].reference(TENSOR_OPS, *inputs, **params)  # type: ignore[misc]


def both(case: Case, cell: str, used: set[int], backend: Backend = NUMPY) -> list[list[np.ndarray]]:
    """Values, and gradients of a loss over the outputs `used`, by the kernel and by the equations."""
    found = []
    for fused in (True, False):
        inputs, params = tensors(case, backend)
        outs = run(cell, inputs, params, fused)
        loss = weighted_sum([out for number, out in enumerate(outs) if number in used])
        leaves = leaves_of(inputs)
        gradients = tg.grad(loss, leaves, allow_unused=True)
        zeros = [tg.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]
        found.append([t.numpy() for t in (*outs, *zeros)])
    return found


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", CELLS)
def test_fused_equals_reference(cell: str, dtype: str) -> None:
    """Values and all gradients, over sizes, layouts, missing biases and any of the outputs used."""
    subsets = st.sets(st.integers(0, CELLS[cell][1]), min_size=1)

    @settings(max_examples=60)
    @given(calls(cell), subsets)
    def law(case: Case, used: set[int]) -> None:
        kernel, equations = both(cast(case, dtype), cell, used)
        for one, other in zip(kernel, equations, strict=True):
            assert (one.shape, one.dtype) == (other.shape, np.dtype(dtype))
            assert_close(one, other, dtype)

    law()


@pytest.mark.parametrize("cell", CELLS)
def test_fused_equals_reference_on_the_hostile_backend(cell: str) -> None:
    @settings(max_examples=15)
    @given(calls(cell))
    def law(case: Case) -> None:
        for one, other in zip(*both(case, cell, {0, 1}, HOSTILE), strict=True):
            assert_close(one, other)

    law()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", CELLS)
def test_fused_on_cupy_equals_numpy(cell: str, dtype: str) -> None:
    @settings(max_examples=15)
    @given(calls(cell, st.sampled_from([(1, 1, 1, 1), (7, 3, 2, 5), (3, 16, 8, 32)])))
    def law(case: Case) -> None:
        case = cast(case, dtype)
        on_device, equations = both(case, cell, {0, 1}, get_backend("cupy"))
        on_host, _ = both(case, cell, {0, 1})
        for one, other, third in zip(on_device, equations, on_host, strict=True):
            assert_close(one, other, dtype, roundings=1000)
            assert_close(one, third, dtype, roundings=1000)

    law()


@pytest.mark.parametrize("cell", CELLS)
def test_second_derivatives_equal_those_of_the_reference(cell: str) -> None:
    @settings(max_examples=15)
    @given(calls(cell))
    def law(case: Case) -> None:
        found = []
        for fused in (True, False):
            inputs, params = tensors(case)
            leaves = leaves_of(inputs)
            loss = weighted_sum([out * out for out in run(cell, inputs, params, fused)])
            first = tg.grad(loss, leaves, create_graph=True)
            second = tg.grad(weighted_sum(list(first)), leaves)
            found.append([g.numpy() for g in (*first, *second)])
        for one, other in zip(*found, strict=True):
            assert_close(one, other)

    law()


@pytest.mark.parametrize("cell", CELLS)
def test_numeric_gradients_through_time(cell: str) -> None:
    """Central differences of the last output alone, four steps after the first input; second order too."""

    @settings(max_examples=2)
    @given(calls(cell, st.just((4, 1, 2, 1))))
    def law(case: Case) -> None:
        inputs, params = tensors(case)
        given_inputs = [x for x in inputs if x is not None]

        def last(*points: tg.Tensor) -> tg.Tensor:
            rest = iter(points)
            filled = tuple(None if x is None else next(rest) for x in inputs)
            return run(cell, filled, params, fused=True)[0][-1]

        assert tg.gradcheck(last, given_inputs)
        assert tg.gradcheck(last, given_inputs, order=2, rtol=1e-5, atol=1e-6)

    law()


@pytest.mark.parametrize("cell", CELLS)
def test_steps_add_up(cell: str) -> None:
    """N + M steps at once are N steps, and M more from the state: outputs, states and gradients."""

    @settings(max_examples=15)
    @given(calls(cell, st.just((5, 2, 2, 3))), st.integers(1, 4))
    def law(case: Case, steps: int) -> None:
        inputs, params = tensors(case)
        leaves = leaves_of(inputs)
        whole = run(cell, inputs, params, fused=True)
        x, states, weights = inputs[0], len(whole) - 1, inputs[len(whole) :]
        early = run(cell, (x[:steps], *inputs[1 : 1 + states], *weights), params, fused=True)
        late = run(cell, (x[steps:], *early[1:], *weights), params, fused=True)
        joined = (tg.concatenate([early[0], late[0]]), *late[1:])
        for one, other in zip(whole, joined, strict=True):
            assert_close(one.numpy(), other.numpy())
        at_once = tg.grad(weighted_sum(list(whole)), leaves)
        in_turn = tg.grad(weighted_sum(list(joined)), leaves)
        for one, other in zip(at_once, in_turn, strict=True):
            assert_close(one.numpy(), other.numpy())

    law()


@pytest.mark.parametrize("cell", CELLS)
def test_no_gradient_leaks_across_a_detached_state(cell: str) -> None:
    """Truncation: the second window's loss knows the first window by the values of its state alone."""
    gates, states = CELLS[cell]
    rng = np.random.default_rng(0)
    first, second = (leaf(rng.normal(size=(3, 2, 2))) for _ in range(2))
    weights = [leaf(rng.normal(size=shape)) for shape in ((gates * 3, 2), (gates * 3, 3))]
    zero = [tg.zeros(2, 3, dtype="float64")] * states
    state = [s.detach() for s in getattr(tg, cell)(first, *zero, *weights, None, None)[1:]]
    loss = (getattr(tg, cell)(second, *state, *weights, None, None)[0] ** 2).sum()
    found = tg.grad(loss, [first, second, *weights], allow_unused=True)
    assert found[0] is None
    alone = [tg.tensor(s) for s in state]
    loss = (getattr(tg, cell)(second, *alone, *weights, None, None)[0] ** 2).sum()
    for one, other in zip(found[1:], tg.grad(loss, [second, *weights]), strict=True):
        assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("cell", CELLS)
def test_only_what_is_needed_is_computed(cell: str) -> None:
    """A subset of the inputs gets the same gradients; the large products for the others are left out."""
    returned: list[tuple] = []

    def recording(*args: Any, **params: Any) -> tuple:
        returned.append(TABLE[cell].joint(*args, **params))  # type: ignore[misc]
        return returned[-1]

    op = dataclasses.replace(TABLE[cell], joint=recording)
    states = CELLS[cell][1]

    @settings(max_examples=15)
    @given(calls(cell, st.just((3, 2, 2, 3))), st.sets(st.integers(0, 4 + states), min_size=1))
    def law(case: Case, wanted: set[int]) -> None:
        inputs, params = tensors(case)
        full = tg.grad(weighted_sum(list(run(cell, inputs, params, True))), leaves_of(inputs))
        by_place = dict(zip([i for i, x in enumerate(inputs) if x is not None], full, strict=True))
        partial = tuple(x if x is None or i in wanted else x.detach() for i, x in enumerate(inputs))
        assume(leaves_of(partial))
        arguments = {"nonlinearity": params["nonlinearity"]} if params else {}
        outs = apply(op, partial, arguments)
        found = tg.grad(weighted_sum(list(outs)), leaves_of(partial))
        places = [i for i in sorted(wanted) if inputs[i] is not None]
        for i, gradient in zip(places, found, strict=True):
            assert_close(gradient.numpy(), by_place[i].numpy())
        for i in {0, *range(1 + states, 5 + states)} - set(places):
            assert returned[-1][i] is None

    law()


@pytest.mark.parametrize("cell", CELLS)
def test_a_retained_sequence_can_be_walked_again(cell: str) -> None:
    """The backward pass writes into nothing that it will need a second time."""

    @settings(max_examples=5)
    @given(calls(cell, st.just((3, 2, 2, 2))))
    def law(case: Case) -> None:
        inputs, params = tensors(case)
        loss = weighted_sum(list(run(cell, inputs, params, fused=True)))
        first, second = (tg.grad(loss, leaves_of(inputs), retain_graph=True) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            assert_array_equal(one.numpy(), other.numpy())

    law()


@pytest.mark.parametrize("cell", CELLS)
def test_without_a_graph_the_values_are_the_same(cell: str) -> None:
    """No gates are kept then, and memory for one step serves all."""

    @settings(max_examples=10)
    @given(calls(cell))
    def law(case: Case) -> None:
        inputs, params = tensors(case)
        with tg.no_grad():
            bare = run(cell, inputs, params, fused=True)
        for one, other in zip(bare, run(cell, inputs, params, fused=True), strict=True):
            assert not one.requires_grad
            assert_array_equal(one.numpy(), other.numpy())

    law()


@pytest.mark.parametrize("cell", CELLS)
def test_sequences_of_a_batch_do_not_see_one_another(cell: str) -> None:
    rng = np.random.default_rng(1)
    gates, states = CELLS[cell]
    x, state = rng.normal(size=(4, 3, 2)), rng.normal(size=(3, 2))
    weights = [leaf(rng.normal(size=(gates * 2, 2))) for _ in range(2)]
    every = getattr(tg, cell)(leaf(x), *[leaf(state)] * states, *weights, None, None)
    for i in range(3):
        part = slice(i, i + 1)
        alone = getattr(tg, cell)(leaf(x[:, part]), *[leaf(state[part])] * states, *weights, None, None)
        assert_close(alone[0].numpy(), every[0].numpy()[:, part])
        assert_close(alone[1].numpy(), every[1].numpy()[part])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(2, 0, 2, 2), (2, 1, 0, 2), (1, 1, 1, 0)])
def test_sizes_of_zero(cell: str, sizes: tuple) -> None:
    """An empty batch, no features, no hidden units: empty or zero results, gradients of the right shape."""

    @settings(max_examples=2)
    @given(calls(cell, st.just(sizes)))
    def law(case: Case) -> None:
        for one, other in zip(*both(case, cell, {0, 1}), strict=True):
            assert_close(one, other)

    law()


def test_a_mixture_of_dtypes_is_cast_to_the_wider() -> None:
    x = tg.tensor(np.ones((2, 1, 1), "float32"), requires_grad=True)
    weight = leaf(np.ones((1, 1)))
    outputs, last = tg.rnn(x, tg.zeros(1, 1), weight, weight, None, None)
    assert outputs.dtype == last.dtype == np.float64
    outputs.sum().backward()
    assert x.grad is not None and x.grad.dtype == np.float32


def test_the_state_is_a_copy_of_the_last_output() -> None:
    """Writing into one (a detached state, a buffer) leaves the other."""
    weight = tg.ones(1, 1)
    outputs, last = tg.rnn(tg.ones(2, 1, 1), tg.zeros(1, 1), weight, weight, None, None)
    kept = outputs.numpy()
    last[...] = 5.0
    assert_array_equal(outputs.numpy(), kept)


@pytest.mark.parametrize("cell", CELLS)
def test_shapes_that_do_not_fit_are_named(cell: str) -> None:
    gates, states = CELLS[cell]
    T, B, D, H = 3, 2, 4, 5
    shapes = [(T, B, D), *[(B, H)] * states, (gates * H, D), (gates * H, H), (gates * H,), (gates * H,)]
    names = [r"\(T, B, D\)", *(f"state {i}" for i in range(states))]
    names += ["weight_ih", "state 0 .* hidden size 7", "bias_ih", "bias_hh"]
    inputs = [tg.ones(shape) for shape in shapes]
    getattr(tg, cell)(*inputs)
    for place, name in enumerate(names):
        spoilt = list(inputs)
        spoilt[place] = tg.ones(7, 7)
        with pytest.raises(ShapeError, match=f"{cell}: .*{name}"):
            getattr(tg, cell)(*spoilt)
    with pytest.raises(ShapeError, match=r"state 0 has shape \(1, 5\).*need \(2, 5\)"):
        getattr(tg, cell)(inputs[0], tg.ones(1, H), *inputs[2:])
    with pytest.raises(ShapeError, match=r"\(T, B, D\) with T at least 1, not of shape \(0, 2, 4\)"):
        getattr(tg, cell)(tg.ones(0, B, D), *inputs[1:])
    with pytest.raises(BackendError, match=r"x .* in numpy.*weight|w_ih .* in hostile"):
        getattr(tg, cell)(
            *inputs[: 1 + states], *(tg.tensor(w, backend=HOSTILE) for w in inputs[1 + states :])
        )


def test_an_unknown_nonlinearity() -> None:
    ones = [tg.ones(s) for s in ((1, 1, 1), (1, 1), (1, 1), (1, 1))]
    with pytest.raises(ShapeError, match="'tanh' or 'relu', not 'sin'"):
        tg.rnn(*ones, None, None, nonlinearity="sin")


def test_every_sequence_op_is_here() -> None:
    elsewhere = {"batch_norm", "max_pool2d"}  # which have no sequence
    with_reference = {name for name, op in TABLE.items() if op.reference is not None}
    assert {*CELLS, "language_model"} == with_reference - elsewhere
    assert set(CELLS) <= set(SAMPLES)
