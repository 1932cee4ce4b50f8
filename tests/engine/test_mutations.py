"""The checker of gradients, checked: every VJP of the table is broken on purpose, and must not pass."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import Phase, find, settings

import tinygrad_rnn as tg
from tinygrad_rnn.engine import checkpoint as checkpoints
from tinygrad_rnn.engine.op import TABLE, Op
from tinygrad_rnn.engine.tensor import apply
from tinygrad_rnn.errors import BackendError, DtypeError, GradcheckError, ShapeError

from .hostile import HOSTILE
from .laws import as_function
from .samples import SAMPLES, Case, leaf, sequence_cases, tensors

MUTATIONS: dict[str, Callable] = {
    "scaled": lambda gradient: 1.01 * gradient,
    "negated": lambda gradient: -gradient,
    "zeroed": lambda gradient: 0 * gradient,
    "transposed": lambda gradient: gradient.transpose(),
}


SAME_WHEN_TRANSPOSED = {"b_ih", "b_hh"}  # of one dimension
NEVER_SQUARE = {("lstm", "w_hh"), ("gru", "w_hh")}  # the engine refuses the shape; see below
NEVER_SQUARE |= {("batch_norm", "weight"), ("batch_norm", "bias"), ("conv2d", "bias")}  # of one dimension


def gradients_of(op: Op) -> list[tuple[str, int]]:
    """Which inputs of an op have a VJP, by name and number."""
    names = op.input_names or ("first", "second")[: 1 if op.name == "checkpoint" else 2]
    return [(name, i) for i, name in enumerate(names) if op.joint is not None or op.vjps[i] is not None]


EVERY_MUTANT = [
    pytest.param(op, number, mutation, id=f"{op.name}-{name}-{mutation}")
    for op in TABLE.values()
    if op.source == "built-in" and op.differentiable
    for name, number in gradients_of(op)
    for mutation in MUTATIONS
    if mutation != "transposed" or (name not in SAME_WHEN_TRANSPOSED and (op.name, name) not in NEVER_SQUARE)
]
# Weights of a cell are square where D is as large as all gates together.
CASES = {name: sample.cases for name, sample in SAMPLES.items()}
CASES["rnn"] = sequence_cases(1, 1, st.just((2, 2, 2, 2)), nonlinearity="tanh")
CASES["lstm"] = sequence_cases(4, 2, st.sampled_from([(2, 2, 2, 2), (2, 1, 4, 1)]))
CASES["gru"] = sequence_cases(3, 1, st.sampled_from([(2, 2, 2, 2), (2, 1, 3, 1)]))


def mutant(op: Op, number: int, mutate: Callable) -> Op:
    """The op with the gradient for one input spoilt."""
    if op.joint is None:
        vjp = op.vjps[number]
        assert vjp is not None
        vjps = list(op.vjps)
        vjps[number] = lambda *args, **params: mutate(vjp(*args, **params))
        return dataclasses.replace(op, vjps=tuple(vjps))
    joint = op.joint

    def spoilt(*args: Any, **params: Any) -> tuple:
        gradients = list(joint(*args, **params))
        gradients[number] = mutate(gradients[number])
        return tuple(gradients)

    return dataclasses.replace(op, joint=spoilt)


def gradient_for(op: Op, case: Case, number: int) -> np.ndarray | None:
    """The gradient for one input by the unspoilt op; None if the case has no such input."""
    inputs, params = tensors(case)
    if number >= len(inputs) or not getattr(inputs[number], "requires_grad", False):
        return None
    outs = SAMPLES[op.name].call(op, inputs, params)
    upstream = [tg.tensor(np.random.default_rng(0).uniform(0.5, 1.5, o.shape), dtype=o.dtype) for o in outs]
    return tg.grad(outs, inputs[number], upstream).numpy()


def matters(mutation: str, gradient: np.ndarray | None) -> bool:
    """Whether the mutation makes another gradient, of the same shape."""
    if gradient is None:
        return False
    if mutation != "transposed":
        return bool(np.abs(gradient).max(initial=0) > 0.01)
    if gradient.ndim < 2 or gradient.shape != gradient.T.shape:
        return False
    return bool(np.abs(gradient - gradient.T).max(initial=0) > 0.01)


@pytest.mark.parametrize("op, number, mutation", EVERY_MUTANT)
def test_every_spoilt_vjp_is_caught(
    op: Op, number: int, mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaled by 1 %, negated, zeroed or transposed, in a case where that makes a difference."""
    first_found = settings(max_examples=2000, phases=[Phase.generate])
    case = find(
        CASES[op.name], lambda c: matters(mutation, gradient_for(op, c, number)), settings=first_found
    )
    spoilt = mutant(op, number, MUTATIONS[mutation])
    if op is checkpoints.CHECKPOINT:
        monkeypatch.setattr(checkpoints, "CHECKPOINT", spoilt)
    function, points = as_function(spoilt, case)
    with pytest.raises(GradcheckError, match="by the VJP"):
        tg.gradcheck(function, points)


@pytest.mark.parametrize(
    "name, number, mutate, error, words",
    [
        ("lstm", 4, lambda g: g.T, ShapeError, "lstm: the VJP for w_hh gave shape"),
        ("add", 1, lambda g: g[:2], ShapeError, r"add: the VJP for b gave shape \(2,\) .* \(3,\)"),
        ("add", 1, lambda g: g[:, None], ShapeError, r"add: the VJP for b gave shape \(3, 1\)"),
        ("tanh", 0, lambda g: np.stack([g, g]), ShapeError, r"tanh: the VJP for x gave shape \(2, 3\)"),
        ("tanh", 0, lambda g: g[:1], ShapeError, r"tanh: the VJP for x gave shape \(1,\) .* \(3,\)"),
        ("sum", 0, lambda g: g.sum(), ShapeError, r"sum: the VJP for x gave shape \(\) .* \(3,\)"),
        ("tanh", 0, lambda g: g.astype("float32"), DtypeError, "tanh: the VJP for x gave float32 .* float64"),
        ("tanh", 0, lambda g: HOSTILE.from_host(g), BackendError, "tanh: the VJP for x gave a HostileArray"),
        ("tanh", 0, lambda g: g.tolist(), BackendError, "tanh: the VJP for x gave a list"),
        ("stack", 1, lambda g: g[:1], ShapeError, r"stack: the VJP for input 1 gave shape \(1,\)"),
    ],
)
def test_the_engine_refuses_gradients_that_do_not_fit(
    name: str, number: int, mutate: Callable, error: type, words: str
) -> None:
    """Of another shape, dtype or library, in the first derivative already, and by the op's name."""
    spoilt = mutant(TABLE[name], number, mutate)
    x = leaf(np.array([1.0, 2.0, 3.0]))
    arguments: dict[str, tuple] = {"tanh": (x,), "sum": (x,), "stack": (x, x), "add": (x, x)}
    if name == "lstm":
        arguments["lstm"] = tuple(map(leaf, map(np.ones, [(1, 1, 1), (1, 2), (1, 2), (8, 1), (8, 2)])))
        arguments["lstm"] += (None, None)
    outs = SAMPLES[name].call(spoilt, arguments[name], {})
    with pytest.raises(error, match=words):
        (outs[0] * 1.0).sum().backward()


# --- gradcheck itself -----------------------------------------------------------------------------


def square(vjp: Callable, **traits: Any) -> Callable:
    """x * x with a VJP of one's own, outside the table."""
    op = Op("square", lambda xp, x: x * x, ("x",), {}, (vjp,), saves=("x", "out"), **traits)
    return lambda x: apply(op, (x,))


def test_a_right_gradient_passes() -> None:
    x = leaf(np.array([[1.0, -2.0]]))
    assert tg.gradcheck(square(lambda F, g, out, x: 2 * g * x), x, order=3) is True
    assert tg.gradcheck(lambda a, b: (a * b, a - b), [x, leaf(np.array([3.0, 4.0]))], order=2)


def test_the_error_names_the_worst_element() -> None:
    """Input, output, both indices, both numbers, the relative error, how many are wrong."""

    def wrong(F: Any, g: Any, out: Any, x: Any) -> Any:
        return 2 * g * x * np.array([[1.0, 1.0, 1.001], [1.0, 1.5, 1.0]])

    x, y = leaf(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])), leaf(np.ones((2, 3)))
    with pytest.raises(GradcheckError) as caught:
        tg.gradcheck(lambda y, x: (y * 2, square(wrong)(x)), [y, x])
    message = str(caught.value)
    assert "output 1, input 1" in message
    assert re.search(r"d out\[1, 1\] / d in\[1, 1\] is 15 by the VJP and (10|9\.9)\d* numerically", message)
    assert "relative error 0.333" in message
    assert "2 of 36 elements" in message


def test_a_gradient_of_none_is_wrong_where_there_is_one() -> None:
    """A graph that is cut counts as zero, not as nothing to check."""
    x = leaf(np.array([1.0, 2.0]))
    with pytest.raises(GradcheckError, match="is 0 by the VJP"):
        tg.gradcheck(lambda x: x.detach() * 2, x)
    with pytest.raises(GradcheckError, match="is 0 by the VJP"):
        tg.gradcheck(lambda x, y: x.detach() * y, [x, leaf(np.array([1.0, 2.0]))])
    with pytest.raises(GradcheckError, match="is nan by the VJP"):
        tg.gradcheck(square(lambda F, g, out, x: g * np.nan), x)


SECOND_ORDER_MISTAKES: dict[str, Callable] = {
    "the input taken as constant": lambda F, g, out, x: 2 * g * _constant(x),
    "the upstream gradient taken as constant": lambda F, g, out, x: 2 * _constant(g) * x,
    "the result taken as constant": lambda F, g, out, x: 2 * g * _constant(out) / x,
    "a detour that is right only in value": lambda F, g, out, x: 2 * g * (2 * x - _constant(x)),
}


def _constant(x: Any) -> Any:
    return x.detach() if isinstance(x, tg.Tensor) else x


@pytest.mark.parametrize("mistake", SECOND_ORDER_MISTAKES)
def test_second_order_catches_what_first_order_does_not(mistake: str) -> None:
    function = square(SECOND_ORDER_MISTAKES[mistake])
    x = leaf(np.array([1.0, -2.0, 0.5]))
    assert tg.gradcheck(function, x)
    with pytest.raises(GradcheckError, match="gradient for input 0, "):
        tg.gradcheck(function, x, order=2)


def test_second_order_of_a_linear_op_is_not_checked_in_vain() -> None:
    """Its gradient depends on the upstream gradient alone: that dependence is what is checked."""
    double = Op("double", lambda xp, x: 2 * x, ("x",), {}, (lambda F, g, out, x: 2 * _constant(g),))
    x = leaf(np.array([1.0, 2.0]))
    assert tg.gradcheck(lambda x: apply(double, (x,)), x)
    with pytest.raises(GradcheckError, match="upstream gradient of output 0"):
        tg.gradcheck(lambda x: apply(double, (x,)), x, order=2)


def test_a_kink_is_warned_of_and_any_slope_between_accepted() -> None:
    at_kink = leaf(np.array([1.0, 0.0]))
    with pytest.warns(tg.KinkWarning, match=r"input 0: a kink .* index \(1,\) \(0.0\), slopes 0 and 1"):
        assert tg.gradcheck(tg.relu, at_kink)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tg.KinkWarning)
        assert tg.gradcheck(tg.abs, at_kink)
        with pytest.raises(GradcheckError, match=r"d in\[1\]"):
            tg.gradcheck(lambda x: spoilt_relu(x), at_kink)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tg.gradcheck(tg.relu, leaf(np.array([1.0, 0.1, -0.1])))


def spoilt_relu(x: tg.Tensor) -> tg.Tensor:
    """Slope 2 at the kink, right elsewhere."""
    op = mutant(TABLE["relu"], 0, lambda gradient: np.where(gradient == 0, 2.0, gradient))
    return apply(op, (x,))


def test_a_recorded_gradient_must_be_a_tensor() -> None:
    """A VJP that calls NumPy instead of F works at first order only, and says so at the second."""
    x = leaf(np.array(1.0))
    out = square(lambda F, g, out, x: np.asarray(2.0))(x)
    assert tg.grad(out, x, retain_graph=True).item() == 2
    with pytest.raises(BackendError, match=r"square: the VJP for x gave .* not a tensor in <Backend numpy>"):
        tg.grad(out, x, create_graph=True)


def test_outputs_that_are_no_floats_are_left_out() -> None:
    assert tg.gradcheck(lambda x: (x * x, tg.argmax(x), x > 0), leaf(np.array([1.0, 2.0])))


def test_what_gradcheck_refuses() -> None:
    x = leaf(np.ones(2))
    with pytest.raises(DtypeError, match="float64: input 1 is float32"):
        tg.gradcheck(lambda a, b: a * b, [x, tg.ones(2, requires_grad=True)])
    with pytest.raises(GradcheckError, match="nothing to check"):
        tg.gradcheck(tg.tanh, tg.ones(2, dtype="float64"))


def test_tolerances_are_those_given() -> None:
    x = leaf(np.array([3.0]))
    function = square(lambda F, g, out, x: 2.02 * g * x)
    with pytest.raises(GradcheckError):
        tg.gradcheck(function, x)
    assert tg.gradcheck(function, x, rtol=0.02)
    assert tg.gradcheck(function, x, atol=0.1)


def test_only_inputs_that_require_a_gradient_are_checked() -> None:
    """And nothing is written into the inputs or their gradients."""
    x, symbols = leaf(np.array([[1.0, 2.0]])), tg.tensor([0])
    wrong_for_constants = mutant(TABLE["multiply"], 1, MUTATIONS["scaled"])
    constant = tg.tensor(np.array([3.0, 4.0]))
    assert tg.gradcheck(lambda x, c, i: apply(wrong_for_constants, (x, c))[:, i], [x, constant, symbols])
    assert x.grad is None
    assert x.numpy().tolist() == [[1.0, 2.0]]
