"""The graph and the walk over it: depth, memory, accumulation, what is refused, what is computed."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.node import writes
from tinygrad_rnn.engine.op import TABLE, Op
from tinygrad_rnn.engine.tensor import apply
from tinygrad_rnn.engine.walk import Walk
from tinygrad_rnn.errors import BackendError, GraphError, ShapeError

from .laws import assert_close, weighted_sum
from .samples import REALS, arrays, leaf


def vector(*values: float) -> tg.Tensor:
    return leaf(np.array(values, float))


def gradient_of(t: tg.Tensor) -> list:
    assert t.grad is not None
    return t.grad.numpy().tolist()


# --- depth and width ------------------------------------------------------------------------------


def test_a_chain_of_100_000_ops() -> None:
    """Forward and backward, without recursion."""
    x = vector(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1e-5
    y.sum().backward()
    assert gradient_of(x) == [1.0]


def test_dropping_a_chain_of_100_000_ops() -> None:
    """All of it goes with the last tensor, whether or not it was walked."""
    y = vector(1.0)
    early = weakref.ref(y.node)
    for _ in range(100_000):
        y = y * 1.0
    assert early() is not None
    del y
    assert early() is None


def test_a_diamond_of_2_to_the_60_paths() -> None:
    x = vector(1.0)
    y = x
    for _ in range(60):
        y = y + y
    y.sum().backward()
    assert gradient_of(x) == [2.0**60]


@given(arrays((3,), REALS))
def test_a_tensor_used_many_times_collects_from_every_use(values: np.ndarray) -> None:
    x = leaf(values)
    y = x * 2
    terms = [x, y, x * y, x * x, tg.concatenate([x, y]), y[0], x]
    sum((t.sum() for t in terms), start=tg.tensor(0.0)).backward()
    first = np.array([1.0, 0, 0])
    assert_close(gradient_of(x), 1 + 2 + 4 * values + 2 * values + 3 + 2 * first + 1)


def test_the_walk_can_be_stepped() -> None:
    """step() visits a node at a time, from the youngest to the oldest, and None at the end."""
    x = vector(2.0)
    out = (x * x).exp().sum()
    walk = Walk([(out, tg.tensor(np.array(1.0)))])
    names = []
    while (node := walk.step()) is not None:
        names.append(node.op.name if node.op else "leaf")
    assert names == ["sum", "exp", "multiply", "leaf"]
    assert_close(gradient_of(x), [4 * np.exp(4)])


# --- memory -----------------------------------------------------------------------------------------


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Memory must come back by reference counting alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watched(*tensors: tg.Tensor) -> list[weakref.ref]:
    """Weak references to the arrays and nodes of tensors."""
    return [weakref.ref(o) for t in tensors for o in (t.array, t.node) if o is not None]


def alive(references: list[weakref.ref]) -> list[Any]:
    return [r() for r in references if r() is not None]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("finish", ["drop", "backward", "backward retained", "grad", "second order", "hooks"])
def test_a_graph_is_freed_with_its_last_tensor(finish: str) -> None:
    x = leaf(np.ones((4, 4)))
    hidden = tg.tanh(x @ x)
    parts = tg.split(hidden, 2)
    loss = (parts[0] * hidden[:2]).sum()
    references = watched(hidden, *parts, loss)
    assert len(alive(references)) == len(references)
    if finish == "backward":
        loss.backward()
    elif finish == "backward retained":
        loss.backward(retain_graph=True)
    elif finish == "grad":
        tg.grad(loss, x)
    elif finish == "second order":
        (first,) = tg.grad(loss, [x], create_graph=True)
        references += watched(first)
        first.sum().backward()
        del first
    elif finish == "hooks":
        hidden.register_hook(lambda g: g * 2)
        hidden.retain_grad()
        loss.backward()
    del hidden, parts, loss
    assert not alive(references)


@pytest.mark.usefixtures("no_collector")
def test_a_training_step_leaves_nothing_behind() -> None:
    """Parameters and their gradients stay; nothing else that a step made does."""
    weight = leaf(np.eye(3))
    bias = tg.zeros(3, dtype="float64", requires_grad=True)

    def step() -> list[weakref.ref]:
        x = tg.ones(2, 3, dtype="float64")
        out = tg.rnn(x[None], tg.zeros(2, 3), weight, weight, bias, None)[0]
        loss = tg.checkpoint(lambda o: (o * o).mean(), out)
        loss.backward()
        return watched(x, out, loss)

    assert not alive(step())
    assert not alive(step())
    assert gc.isenabled() is False


@pytest.mark.usefixtures("no_collector")
def test_saved_arrays_are_dropped_as_the_walk_proceeds() -> None:
    """When the walk has passed a node, what it saved is gone, though the graph is still held."""
    x = vector(1.0)
    passed: list[weakref.ref] = []
    gone: list[bool] = []
    early = tg.exp(x)
    early.register_hook(lambda g: gone.append(not alive(passed)))
    late = early * early
    for _ in range(3):
        late = tg.tanh(late)
        passed.append(weakref.ref(late.array))
    out = late.sum()
    del late
    assert alive(passed)
    out.backward()
    assert gone == [True]


@pytest.mark.usefixtures("no_collector")
def test_ops_save_only_what_they_need() -> None:
    """An array that no VJP reads is freed in the forward pass already."""
    x = vector(1.0, 2.0)
    for function in (lambda t: t + t, lambda t: t.sum(), lambda t: t.reshape(2, 1), tg.tanh, tg.relu):
        middle = x * 1.0
        reference = weakref.ref(middle.array)
        out = function(middle)
        del middle
        if out.array.base is None:  # no view of it
            assert reference() is None
        out.sum().backward()


# --- one backward after another ---------------------------------------------------------------------


def test_a_second_backward_needs_retain_graph() -> None:
    x = vector(3.0)
    loss = (x * x).sum()
    loss.backward()
    with pytest.raises(GraphError, match=r"walked before and freed.*retain_graph=True"):
        loss.backward()
    with pytest.raises(GraphError, match="retain_graph"):
        tg.grad(loss, x)
    assert gradient_of(x) == [6.0]


def test_two_backwards_with_retain_graph_double_exactly() -> None:
    x = vector(0.1, 0.7)
    loss = tg.sin(x * x).sum()
    loss.backward(retain_graph=True)
    once = x.grad.numpy()  # type: ignore[union-attr]
    loss.backward(retain_graph=True)
    assert_array_equal(x.grad.numpy(), 2 * once)  # type: ignore[union-attr]
    loss.backward()
    assert_array_equal(x.grad.numpy(), 2 * once + once)  # type: ignore[union-attr]


def test_gradients_accumulate_over_graphs_until_set_to_none() -> None:
    x = tg.tensor(2.0, requires_grad=True)
    (x * 3).backward()
    held = x.grad
    (x * 4).backward()
    assert x.grad is not None and x.grad.item() == 7
    assert isinstance(x.grad.array, np.ndarray)  # also of no dimensions
    assert held is not None and held.item() == 3  # an earlier gradient that somebody holds stays
    x.grad = None
    (x * 5).backward()
    assert x.grad is not None and x.grad.item() == 5
    x.grad = tg.tensor(1.0)
    with pytest.raises(ShapeError, match=r"float32.*\(\).*float32.*\(2,\)"):
        x.grad = tg.ones(2)
    with pytest.raises(GraphError, match="leaves"):
        (x * 2).grad = tg.tensor(1.0)


def test_leaves_that_get_the_same_gradient_do_not_share_it() -> None:
    """add hands one array to both: writing into one gradient must not change the other."""
    a, b = vector(1.0, 2.0), vector(3.0, 4.0)
    upstream = tg.ones(2, dtype="float64")
    (a + b).backward(upstream)
    assert a.grad is not None
    a.grad[0] = 100.0
    assert gradient_of(b) == [1.0, 1.0]
    assert upstream.numpy().tolist() == [1.0, 1.0]
    b.backward(upstream)
    assert upstream.numpy().tolist() == [1.0, 1.0]


def test_upstream_gradients() -> None:
    x = vector(1.0, 2.0)
    y = x * x
    with pytest.raises(ShapeError, match=r"one element only.*\(2,\).*sum\(\)"):
        y.backward()
    with pytest.raises(ShapeError, match=r"\(3,\) for an output of \(2,\)"):
        y.backward(np.ones(3))
    y.backward([1.0, 10.0])
    assert gradient_of(x) == [2.0, 40.0]
    assert_array_equal(tg.grad(x * x, x, np.float32([1, 1])).numpy(), [2, 4])
    with pytest.raises(ShapeError, match="1 outputs and 2 grad_outputs"):
        tg.grad(x * x, x, [tg.ones(2), tg.ones(2)])
    with pytest.raises(GraphError, match=r"requires_grad=True.*no_grad\(\).*detach\(\)"):
        tg.ones(1).backward()


# --- writing in place --------------------------------------------------------------------------------


def overwrite(t: tg.Tensor) -> None:
    with tg.no_grad():
        t.copy_(5.0)


WRITES: dict[str, Callable[[tg.Tensor, tg.Tensor], None]] = {
    "a leaf under no_grad": lambda x, constant: overwrite(x),
    "an element of it": lambda x, constant: x.detach().__setitem__(0, 5.0),
    "a view of it": lambda x, constant: overwrite(x.detach()[1:].reshape(1, 1)),
    "a constant tensor": lambda x, constant: overwrite(constant),
    "a view of the constant": lambda x, constant: constant[::-1].__setitem__(0, 1.0),
}


@pytest.mark.parametrize("write", WRITES)
def test_an_array_written_to_since_it_was_saved_is_refused(write: str) -> None:
    x, constant = vector(1.0, 2.0), tg.tensor(np.array([3.0, 4.0]))
    loss = (x * constant).sum()
    WRITES[write](x, constant)
    with pytest.raises(GraphError, match=r"multiply saved its (a|b) of shape \(2,\).*written to in place"):
        loss.backward()


def test_a_result_written_to_since_it_was_saved_is_refused() -> None:
    x = vector(1.0, 2.0)
    out = tg.tanh(x)
    out.detach()[0] = 9.0
    with pytest.raises(GraphError, match=r"tanh saved its result"):
        out.sum().backward()
    hidden = tg.rnn(*(leaf(np.ones(s)) for s in [(1, 1, 1), (1, 1), (1, 1), (1, 1)]), None, None)
    hidden[0].detach()[...] = 0.0
    with pytest.raises(GraphError, match="rnn saved its result"):
        hidden[1].sum().backward()


def test_writes_that_do_no_harm_are_let_pass() -> None:
    """Before it was saved, to what nobody saved, to a copy, and between two steps."""
    x, constant = vector(1.0, 2.0), tg.tensor(np.array([3.0, 4.0]))
    overwrite(x)
    loss = (x * constant).sum()
    overwrite(tg.tensor(constant))
    overwrite(tg.tensor(x))
    loss.backward()
    assert gradient_of(x) == [3.0, 4.0]

    y = vector(1.0)
    total = (y + 1).sum()  # saves nothing
    overwrite(y)
    total.backward()

    for _ in range(3):  # an optimiser's loop
        x.grad = None
        (x * x).sum().backward()
        assert x.grad is not None
        with tg.no_grad():
            x.copy_(x - 0.1 * x.grad)
    assert_close(x.numpy(), [5 * 0.8**3] * 2)


def test_writing_behind_the_engines_back_is_noticed_where_it_is_announced() -> None:
    """An optimiser writes raw arrays and notes it."""
    x = vector(1.0)
    loss = (x * x).sum()
    x.array += 1
    writes.note(x.array)
    with pytest.raises(GraphError, match="written to in place"):
        loss.backward()


def test_writing_into_tensors_of_the_graph_is_refused() -> None:
    x = vector(1.0, 2.0)
    y = x * 2
    with pytest.raises(GraphError, match=r"made by multiply.*tg\.where.*"):
        y[0] = 1.0
    with pytest.raises(GraphError, match=r"made by multiply"), tg.no_grad():
        y.copy_(1.0)
    with pytest.raises(GraphError, match=r"this leaf requires a gradient.*tg\.no_grad\(\)"):
        x[0] = 1.0
    constant = tg.zeros(2, dtype="float64")
    with pytest.raises(GraphError, match=r"the value written requires a gradient.*tg\.stack"):
        constant[0] = x[0]
    with tg.no_grad():
        constant[0] = x[1]
    assert constant.tolist() == [2.0, 0.0]
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        constant[:] = [1.0, 2.0, 3.0]
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        constant[5] = 1.0


def test_augmented_assignment_makes_a_new_tensor() -> None:
    x = vector(1.0, 2.0)
    y = x
    y += 1
    y *= x
    assert x.numpy().tolist() == [1.0, 2.0]
    y.sum().backward()
    assert gradient_of(x) == [3.0, 5.0]


# --- hooks and retained gradients ----------------------------------------------------------------------


def test_retain_grad() -> None:
    x = vector(1.0, 2.0)
    y = x * 3
    z = y * y
    assert y.grad is None
    y.retain_grad()
    y.retain_grad()
    z.sum().backward(retain_graph=True)
    assert gradient_of(y) == [6.0, 12.0]
    z.sum().backward()
    assert gradient_of(y) == [12.0, 24.0]
    assert z.grad is None
    x.retain_grad()  # a leaf does anyway
    with pytest.raises(GraphError, match="needs no gradient"):
        tg.ones(1).retain_grad()
    with pytest.raises(GraphError, match="needs no gradient"):
        tg.ones(1).register_hook(lambda g: None)


def test_retain_grad_of_one_of_several_outputs() -> None:
    x = vector(1.0, 2.0, 3.0)
    first, second, third = tg.split(x, 3)
    second.retain_grad()
    third.retain_grad()
    (first * 2 + second * 3).sum().backward()
    assert gradient_of(second) == [3.0]
    assert third.grad is None
    assert gradient_of(x) == [2.0, 3.0, 0.0]


def test_a_hook_sees_the_whole_gradient_once() -> None:
    x = vector(1.0, 2.0)
    y = x * 2
    seen: list[list] = []
    handle = y.register_hook(lambda g: seen.append(g.numpy().tolist()))
    (y + y * y).sum().backward(retain_graph=False)
    assert seen == [[5.0, 9.0]]
    assert gradient_of(x) == [10.0, 18.0]
    handle.remove()
    handle.remove()
    (x * 2).sum().backward()
    assert len(seen) == 1


def test_hooks_replace_gradients_in_the_order_of_registration() -> None:
    x = vector(1.0, 2.0)
    y = x * 2
    first = y.register_hook(lambda g: g * 10)
    y.register_hook(lambda g: g + 1)
    x.register_hook(lambda g: -g)
    y.retain_grad()
    y.sum().backward(retain_graph=True)
    assert gradient_of(y) == [11.0, 11.0]
    assert gradient_of(x) == [-22.0, -22.0]
    first.remove()
    x.grad = None
    y.sum().backward()
    assert gradient_of(x) == [-4.0, -4.0]


def test_hooks_on_outputs_of_an_op_with_several() -> None:
    x = vector(1.0, 2.0)
    first, second = tg.split(x, 2)
    second.register_hook(lambda g: g * 100)
    (first + second).sum().backward()
    assert gradient_of(x) == [1.0, 100.0]


def test_hooks_act_on_recorded_gradients_too() -> None:
    x = vector(3.0)
    y = x * x
    y.register_hook(lambda g: g * x)  # dy/dx as if the gradient were 2 x**2
    first = tg.grad(y.sum(), x, create_graph=True)
    assert first.item() == 18
    assert tg.grad(first.sum(), x).item() == 12


@pytest.mark.parametrize(
    "value, error",
    [
        (tg.ones(3, dtype="float64"), ShapeError),
        (tg.ones(2, dtype="float32"), ShapeError),
        (np.ones(2), ShapeError),
    ],
)
def test_a_hook_that_gives_something_else_is_refused(value: Any, error: type) -> None:
    x = vector(1.0, 2.0)
    x.register_hook(lambda g: value)
    with pytest.raises(error, match=r"hook must return None or a float64 tensor of shape \(2,\)"):
        (x * 2).sum().backward()


def test_a_hook_cannot_move_the_gradient(hostile: Any) -> None:
    x = vector(1.0, 2.0)
    x.register_hook(lambda g: g.to("hostile"))
    with pytest.raises(BackendError, match=r"hook.*hostile.*numpy"):
        (x * 2).sum().backward()


# --- tg.grad ------------------------------------------------------------------------------------------


def test_grad_leaves_no_trace() -> None:
    x, y = vector(2.0), vector(3.0)
    gx, gy = tg.grad((x * y).sum(), [x, y])
    assert (gx.item(), gy.item()) == (3, 2)
    assert x.grad is None and y.grad is None
    assert not gx.requires_grad
    single = tg.grad((x * y).sum(), x)
    assert isinstance(single, tg.Tensor)


def test_unused_inputs() -> None:
    x, unused, constant = vector(2.0), vector(1.0), tg.ones(1)
    with pytest.raises(GraphError, match=r"do not depend on input 1 of shape \(1,\).*allow_unused=True"):
        tg.grad((x * x).sum(), [x, unused])
    with pytest.raises(GraphError, match=r"input 1 of shape \(1,\) does not require"):
        tg.grad((x * x).sum(), [x, constant])
    gx, gu, gc_ = tg.grad((x * x).sum(), [x, unused, constant], allow_unused=True)
    assert gx.item() == 4 and gu is None and gc_ is None
    no_graph = tg.ones(1)
    assert tg.grad(no_graph, x, allow_unused=True) is None
    assert tg.grad([no_graph, (x * x).sum()], [x], allow_unused=True)[0].item() == 4
    with pytest.raises(GraphError, match="do not depend"):
        tg.grad(no_graph, x)


def test_inputs_need_not_be_leaves() -> None:
    x = vector(2.0)
    y = x * x
    z = y * y
    assert tg.grad(z.sum(), y, retain_graph=True).item() == 8
    assert [g.item() for g in tg.grad(z.sum(), [z, x], np.array(1.0))] == [1, 32]
    w = x * x
    assert tg.grad(w, w).item() == 1


def test_inputs_that_depend_on_one_another_get_total_derivatives() -> None:
    """d z / d x goes through y also where y is asked for as well."""
    x = vector(2.0)
    y = x * x
    z = (y * x).sum()
    gx, gy = tg.grad(z, [x, y])
    assert gx.item() == 12
    assert gy.item() == 2
    a, b = tg.split(leaf(np.array([1.0, 2.0])), 2)
    c = a * b
    ga, gb, gc_ = tg.grad((c * a).sum(), [a, b, c])
    assert (ga.item(), gb.item(), gc_.item()) == (4, 1, 1)


def test_several_outputs() -> None:
    x = vector(1.0, 2.0)
    outputs = [x * 2, (x * x).sum()]
    assert_array_equal(tg.grad(outputs, x, [tg.tensor([1.0, 10.0]), None]).numpy(), [4, 24])


def test_an_output_given_twice_counts_twice() -> None:
    x = vector(3.0)
    y = x * x
    assert tg.grad([y, y, y * 2], x).item() == 24
    parts = tg.split(vector(1.0, 2.0), 2)
    assert tg.grad([parts[0], parts[0]], parts[0]).item() == 2
    assert tg.grad((x * x).sum(), []) == ()


def test_an_input_without_a_derivative_stops_the_gradient() -> None:
    """A condition, though it may require a gradient for other reasons."""
    x = vector(0.0, 1.0)
    (tg.where(x, x * 2, 0.0) + x).sum().backward()
    assert gradient_of(x) == [1.0, 3.0]


def test_unused_outputs_of_an_op_count_as_zero() -> None:
    x = leaf(np.arange(6.0).reshape(3, 2))
    top, _, bottom = tg.split(x, 3)
    assert_array_equal(tg.grad(top.sum(), x, retain_graph=True).numpy(), [[1, 1], [0, 0], [0, 0]])
    assert_array_equal(tg.grad((bottom * 2).sum(), x).numpy(), [[0, 0], [0, 0], [2, 2]])
    states = [leaf(np.full(s, 0.5)) for s in [(2, 1, 1), (1, 1), (1, 1), (4, 1), (4, 1)]]
    outputs, _, _ = tg.lstm(*states, None, None)
    assert tg.grad(outputs[0].sum(), states[0]).numpy()[1] == 0


@given(arrays((2, 2), REALS))
def test_derivatives_to_third_order(values: np.ndarray) -> None:
    """x**4 sin x, recorded at each order, equals what pencil and paper give."""
    x = leaf(values)
    derivative = (x**4 * tg.sin(x)).sum()
    for _ in range(3):
        derivative = tg.grad(derivative.sum(), x, create_graph=True)
    s, c = np.sin(values), np.cos(values)
    by_hand = 24 * values * s + 36 * values**2 * c - 12 * values**3 * s - values**4 * c
    assert_close(derivative.numpy(), by_hand, roundings=1000)


def test_backward_with_create_graph() -> None:
    x = vector(3.0)
    (x**3).sum().backward(create_graph=True)
    first = x.grad
    assert first is not None and first.requires_grad
    x.grad = None
    first.sum().backward()
    assert gradient_of(x) == [18.0]
    x.grad = None
    for _ in range(2):
        (x**3).sum().backward(create_graph=True)
    assert gradient_of(x) == [54.0] and x.grad.requires_grad  # type: ignore[union-attr]
    x.grad = None


def test_the_upstream_gradient_can_be_differentiated_through() -> None:
    """A product of a Jacobian and a vector, by two products of a vector and a Jacobian."""
    x, v = vector(1.0, 2.0), tg.ones(2, dtype="float64", requires_grad=True)
    g = tg.grad(x * x, x, v, create_graph=True)
    assert_array_equal(tg.grad(g, v, np.array([1.0, 10.0])).numpy(), [2, 40])


# --- what is computed, and what is recorded ---------------------------------------------------------------


def explosive(op: Op, number: int) -> Op:
    """The op with a VJP that must not be called."""

    def explode(*_: Any, **__: Any) -> Any:
        raise AssertionError("nobody needs this gradient")

    if op.joint is not None:
        return dataclasses.replace(op, joint=explode)
    return dataclasses.replace(op, vjps=tuple(explode if i == number else v for i, v in enumerate(op.vjps)))


def test_only_needed_gradients_are_computed() -> None:
    x, y = vector(2.0), vector(3.0)
    constant = tg.tensor(np.array([5.0]))
    apply(explosive(TABLE["multiply"], 1), (x, constant)).sum().backward()
    product = apply(explosive(TABLE["multiply"], 1), (x, y))
    assert tg.grad(product.sum(), x, retain_graph=True).item() == 3
    with pytest.raises(AssertionError, match="nobody"):
        tg.grad(product.sum(), y)
    off_path = apply(explosive(TABLE["exp"], 0), (y * 1.0,))
    assert tg.grad((x * off_path.detach() + x + off_path * 0).sum(), x).item() == pytest.approx(1 + np.exp(3))


def test_nothing_behind_an_input_is_computed() -> None:
    """grad() stops at the inputs asked for where nothing further back is wanted: also at a joint VJP."""
    x = vector(1.0, 2.0)
    hidden = apply(explosive(TABLE["split"], 0), (x,), {"indices_or_sections": 2, "axis": 0})
    assert_array_equal(tg.grad((hidden[0] * hidden[1]).sum(), hidden[0]).numpy(), [2])


def test_a_joint_vjp_is_told_what_is_needed() -> None:
    told: list[tuple] = []

    def joint(F: Any, g: Any, out: Any, *inputs: Any, needs: tuple, axis: int) -> tuple:
        told.append(needs)
        return TABLE["stack"].joint(F, g, out, *inputs, needs=needs, axis=axis)  # type: ignore[misc]

    op = dataclasses.replace(TABLE["stack"], joint=joint)
    x, y = vector(1.0), vector(2.0)
    out = apply(op, (x, tg.ones(1, dtype="float64"), y), {"axis": 0})
    tg.grad(out.sum(), y, retain_graph=True)
    out.sum().backward()
    assert told == [(False, False, True), (True, False, True)]


def test_no_grad_and_enable_grad() -> None:
    x = vector(2.0)
    with tg.no_grad():
        assert not (x * x).requires_grad
        with tg.enable_grad():
            assert (x * x).requires_grad
        assert not (x * x).requires_grad
        assert x.requires_grad
    assert (x * x).requires_grad

    @tg.no_grad()
    def without(t: tg.Tensor) -> bool:
        """Its docstring."""
        return (t * t).requires_grad

    @tg.enable_grad()
    def recording(t: tg.Tensor) -> bool:
        return (t * t).requires_grad

    assert not without(x)
    assert without.__doc__ == "Its docstring."
    with tg.no_grad():
        assert recording(x)
    block = tg.no_grad()
    with block, block:
        assert not (x * x).requires_grad
    assert (x * x).requires_grad
    with pytest.raises(ZeroDivisionError), tg.no_grad():
        raise ZeroDivisionError
    assert (x * x).requires_grad


def test_the_first_derivative_is_not_recorded_unless_asked_for() -> None:
    x = vector(2.0)
    assert not tg.grad((x * x).sum(), x).requires_grad
    with tg.no_grad():
        loss = (x * x).sum()
    with pytest.raises(GraphError):
        loss.backward()
    kept = (x**3).sum()
    with tg.no_grad():  # the walk itself records, wherever it is called
        assert tg.grad(kept, x, create_graph=True).requires_grad


def test_detach_shares_the_array_and_ends_the_graph() -> None:
    x = vector(2.0)
    y = (x * x).detach()
    assert not y.requires_grad and y.is_leaf
    (x * y).sum().backward()
    assert gradient_of(x) == [4.0]
    assert x.detach().array is x.array


def test_constants_make_no_graph() -> None:
    y = tg.ones(2) * 3
    assert y.node is None and y.is_leaf
    flags = tg.ones(2, requires_grad=True) > 0
    assert not flags.requires_grad
    assert not tg.sign(vector(1.0)).requires_grad


def test_requires_grad_can_be_switched() -> None:
    x = tg.ones(2)
    x.requires_grad = True
    y = (x * 2).sum()
    y.backward()
    assert gradient_of(x) == [2.0, 2.0]
    with pytest.raises(GraphError, match=r"leaves only.*detach\(\).*sum"):
        y.requires_grad = False
    x.requires_grad = False
    assert x.grad is None
    assert not (x * 2).requires_grad


# --- checkpoint -------------------------------------------------------------------------------------------


def both_ways(function: Callable, make: Callable, wanted: list[tg.Tensor]) -> None:
    """Values, first and second derivatives with and without checkpoint are equal.

    `make` gives the inputs, with graphs of their own that every walk may consume.
    """

    def loss(call: Callable) -> tuple[tuple, tg.Tensor]:
        tg.manual_seed(3)
        outs = call(*make())
        outs = outs if isinstance(outs, tuple) else (outs,)
        return outs, weighted_sum([o * o for o in outs])

    def derivatives(call: Callable) -> list[np.ndarray]:
        outs, recorded = loss(call)
        first = tg.grad(recorded, wanted, create_graph=True)
        second = tg.grad(weighted_sum(list(first)), wanted, allow_unused=True)
        plain = tg.grad(loss(call)[1], wanted)
        return [t.numpy() for t in (*outs, *plain, *first, *second) if t is not None]

    with_it = derivatives(lambda *xs: tg.checkpoint(function, *xs))
    for found, want in zip(with_it, derivatives(function), strict=True):
        assert_close(found, want, roundings=1000)  # terms are added in another order


@given(arrays((2, 3), REALS), arrays((3, 3), REALS))
def test_checkpoint_changes_nothing(x_values: np.ndarray, w_values: np.ndarray) -> None:
    """Parameters that the function closes over, several inputs and outputs, dropout, nesting."""
    x, w = leaf(x_values), leaf(w_values / 3)
    c = tg.tensor(x_values)
    both_ways(lambda v: tg.tanh(v @ w), lambda: (x,), [x, w])
    both_ways(lambda a, b: (a @ b, a.sum(axis=0) * b, a), lambda: (x, w), [x, w])
    both_ways(lambda v: tg.dropout(tg.dropout(v, 0.5) @ w, 0.25), lambda: (x,), [x, w])
    both_ways(lambda v: tg.dropout(v, 0.5, shared_axis=0) @ tg.dropout(w, 0.5), lambda: (x,), [x, w])
    both_ways(lambda v: tg.checkpoint(lambda u: tg.sin(u @ w), v) * v, lambda: (x,), [x, w])
    both_ways(lambda v, c: v * c, lambda: (x, c), [x])
    both_ways(lambda a, b: a * b * w[:2, :1] + a, lambda: tg.split(x * x, 3, axis=1)[1:], [x, w])
    both_ways(lambda v: tg.tanh(v), lambda: ((x @ w) * 2,), [x, w])
    both_ways(lambda v: (v, w, c * x), lambda: (x,), [x, w])
    made_outside: list[tg.Tensor] = []

    def inputs() -> tuple:
        made_outside[:] = [x * w[0]]
        return (x * 2,)

    both_ways(lambda v: v * made_outside[0], inputs, [x, w])


def test_checkpoint_computes_again_instead_of_storing() -> None:
    calls = []

    def function(v: tg.Tensor) -> tg.Tensor:
        calls.append(1)
        middle = tg.exp(v)
        references.append(weakref.ref(middle.array))
        return tg.exp(middle)

    references: list[weakref.ref] = []
    x = vector(0.5)
    out = tg.checkpoint(function, x)
    assert len(calls) == 1
    assert not alive(references)
    out.sum().backward()
    assert len(calls) == 2
    with tg.no_grad():
        assert not tg.checkpoint(function, x).requires_grad
    assert not tg.checkpoint(function, x.detach()).requires_grad


def test_checkpoint_draws_later_masks_as_without_it() -> None:
    def masks(call: Callable) -> list[np.ndarray]:
        tg.manual_seed(1)
        x = tg.ones(50, requires_grad=True)
        inside = call(lambda v: tg.dropout(v, 0.5), x)
        inside.sum().backward()
        return [inside.numpy(), x.grad.numpy(), tg.dropout(x, 0.5).numpy()]  # type: ignore[union-attr]

    for found, want in zip(masks(tg.checkpoint), masks(lambda f, x: f(x)), strict=True):
        assert_array_equal(found, want)


def test_checkpoint_notices_that_something_it_needs_was_written_to() -> None:
    """Inputs, parameters and constants that the function closes over, saved or not by the ops inside."""
    for position in range(3):
        x, w, constant = vector(1.0), vector(2.0), tg.tensor(np.array([3.0]))
        out = tg.checkpoint(lambda v, w=w, constant=constant: tg.tanh(v + w + constant), x)
        overwrite((x, w, constant)[position])
        with pytest.raises(GraphError, match="written to in place"):
            out.sum().backward()
    x, unrelated = vector(1.0), vector(1.0)
    out = tg.checkpoint(lambda v: tg.tanh(v * 2), x)
    overwrite(unrelated)
    out.sum().backward()


def test_checkpoint_with_some_outputs_unused_or_constant() -> None:
    x = vector(2.0)
    used, unused, constant = tg.checkpoint(lambda v: (v * v, v * 3, tg.ones(1)), x)
    assert not constant.requires_grad
    used.sum().backward()
    assert gradient_of(x) == [4.0]
    assert unused.requires_grad
    assert tg.checkpoint(lambda v: v, x.detach()).tolist() == [2.0]


# --- what a debugger is shown --------------------------------------------------------------------


def test_a_walk_shows_what_comes_next_and_what_each_node_contributes() -> None:
    """Of the two outputs of split only the second is used, so that a gradient is missing as well."""
    x = tg.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    _, second = tg.split(x, 2)
    y = (second * second).sum()
    seen: list[tuple[str, int, list]] = []
    walk = Walk(
        [(y, tg.tensor(1.0))], contributed=lambda node, i, g: seen.append((node.op.name, i, g.tolist()))
    )
    visited = []
    while (arrived := walk.peek()) is not None:
        assert walk.peek()[0] is arrived[0]  # type: ignore[index]  # looking changes nothing
        assert walk.step() is arrived[0]
        name = "leaf" if arrived[0].op is None else arrived[0].op.name
        visited.append((name, arrived[1] if isinstance(arrived[1], list) else arrived[1].tolist()))
    assert walk.peek() is None and walk.step() is None
    assert [name for name, _ in visited] == ["sum", "multiply", "split", "leaf"]
    assert visited[2][1][0] is None and visited[2][1][1].tolist() == [6.0, 8.0]
    assert seen == [
        ("sum", 0, [1.0, 1.0]),
        ("multiply", 0, [3.0, 4.0]),
        ("multiply", 1, [3.0, 4.0]),
        ("split", 0, [0.0, 0.0, 6.0, 8.0]),
    ]
    assert x.grad is not None and x.grad.tolist() == [0.0, 0.0, 6.0, 8.0]
