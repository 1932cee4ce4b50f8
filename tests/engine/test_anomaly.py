"""detect_anomaly: the first number that is not finite, and its origin. annotate: where nodes came from."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.annotate import module_scope
from tinygrad_rnn.errors import AnomalyError

from .samples import leaf

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own, on overflow


@pytest.fixture(autouse=True)
def watching() -> Iterator[None]:
    with tg.detect_anomaly():
        yield


def here(offset: int = 0) -> str:
    """File and line of the caller, as an error gives it."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return f"{__file__}:{frame.f_back.f_lineno + offset}"


def anomaly(call: Callable) -> Any:
    with pytest.raises(AnomalyError) as caught:
        call()
    return caught.value


# --- in the forward pass --------------------------------------------------------------------------


def test_a_value_born_in_an_op() -> None:
    """Op, value, index, what the operands were there, file and line."""
    x = leaf(np.array([[1.0, 2.0], [3.0, 0.0]]))
    place = here(+1)
    error = anomaly(lambda: tg.log(x))
    assert str(error).splitlines() == [
        "log: the value is -inf at index (1, 1) (born here: its operands are finite)",
        "  x = 0.0, in float64[2, 2] from 0.0 to 3.0",
        f"  {place}",
    ]
    assert (error.op, error.born, error.index, error.value) == ("log", True, (1, 1), -np.inf)
    assert error.location == place


def test_a_value_that_came_in() -> None:
    x = leaf(np.array([1.0, np.nan]))
    error = anomaly(lambda: x * 2.0)
    assert "multiply: the value is nan at index (1,) (not born here" in str(error)
    assert "a = nan" in str(error) and "b = 2.0" in str(error)
    assert error.born is False
    error = anomaly(lambda: tg.ones(1) * np.float32(np.inf))
    assert not error.born and "b = inf" in str(error)
    assert not anomaly(lambda: tg.ones(1) * float("inf")).born


def test_operands_are_shown_as_they_met() -> None:
    """The element at that index, also of an operand that was stretched, and the range of all elements."""
    x, row = leaf(np.ones((2, 2))), leaf(np.array([1.0, 0.0]))
    assert "b = 0.0, in float64[2] from 0.0 to 1.0" in str(anomaly(lambda: x / row))
    text = str(anomaly(lambda: leaf(np.full((2, 3), 1e200)) @ leaf(np.full((3, 1), 1e200))))
    assert "matmul: the value is inf at index (0, 0) (born here" in text
    assert "a = float64[2, 3] from 1e+200 to 1e+200" in text


def test_constants_are_watched_too() -> None:
    """Also what records no graph."""
    with tg.no_grad():
        error = anomaly(lambda: tg.log(tg.zeros(1)))
    assert error.op == "log" and re.search(r"test_anomaly\.py:\d+", str(error))
    error = anomaly(lambda: tg.split(tg.tensor([1.0, np.inf]), 2))
    assert error.op == "split" and error.index == (0,)


def test_integers_and_finite_numbers_pass() -> None:
    assert tg.tensor([1, 2]).sum().item() == 3
    x = leaf(np.array([1e300]))
    (x * 2.0).sum().backward()
    assert tg.zeros(0).sum().item() == 0


def test_module_and_time_step_are_named() -> None:
    def call() -> None:
        with module_scope("encoder.rnn"), tg.time_step(7):
            tg.log(tg.zeros(1))

    error = anomaly(call)
    assert (error.module, error.time_step) == ("encoder.rnn", 7)
    assert "module encoder.rnn, time step 7, " in str(error)
    assert anomaly(lambda: tg.log(tg.zeros(1))).module is None


# --- in the backward pass ---------------------------------------------------------------------------


def test_a_gradient_born_in_an_op() -> None:
    """It names the line of the forward pass, the module, time step and name of the node."""
    x = leaf(np.array([1.0, 0.0]))
    with module_scope("decoder"), tg.time_step(3):
        root = tg.named("gate", tg.sqrt(x))
        place = here(-1)
    error = anomaly(lambda: root.sum().backward())
    assert "sqrt: the gradient for x is inf at index (1,) (born here" in str(error)
    assert "result = 0.0" in str(error) and "upstream gradient = 1.0" in str(error)
    assert f"gate, module decoder, time step 3, {place}" in str(error)
    assert (error.op, error.born, error.module, error.time_step) == ("sqrt", True, "decoder", 3)
    assert error.location == place


def test_a_gradient_that_came_in() -> None:
    x = leaf(np.array([1.0, 2.0]))
    error = anomaly(lambda: (x * 3.0).backward(np.array([1.0, np.nan])))
    assert "multiply: the gradient for a is nan at index (1,) (not born here" in str(error)
    assert "upstream gradient = nan" in str(error)


def test_recorded_gradients_are_watched() -> None:
    x = leaf(np.array([0.0]))
    assert anomaly(lambda: tg.grad(tg.sqrt(x).sum(), x, create_graph=True)).op in ("sqrt", "divide")


def test_inside_a_checkpoint() -> None:
    x = leaf(np.array([0.0]))
    out = tg.checkpoint(lambda v: tg.sqrt(v) * 2.0, x)
    assert anomaly(lambda: out.sum().backward()).op == "sqrt"


# --- inside the sequence ops --------------------------------------------------------------------------

GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def sequence(cell: str, x: np.ndarray, w_ih: float, w_hh: float, dtype: str = "float32") -> tg.Tensor:
    """The outputs of a sequence op with all weights alike, in the module "encoder"."""
    K, (_, B, D) = GATES[cell], x.shape
    states = [tg.zeros(B, 1, dtype=dtype)] * (2 if cell == "lstm" else 1)
    weights = [
        tg.tensor(np.full((K, size), value, dtype), requires_grad=True)
        for size, value in ((D, w_ih), (1, w_hh))
    ]
    with module_scope("encoder"):
        return getattr(tg, cell)(tg.tensor(x.astype(dtype)), *states, *weights, None, None)[0]


@pytest.mark.parametrize("cell", GATES)
def test_a_value_born_inside_a_sequence_op(cell: str) -> None:
    """The equations are replayed: the error names the inner op and the time step, not the kernel."""
    x = np.zeros((5, 1, 2))
    x[3] = [3e38, -3e38]
    error = anomaly(lambda: sequence(cell, x * 1.0, 10.0, 1.0))
    assert error.op == "matmul" and error.born
    assert error.time_step == 3
    assert error.module == "encoder"
    assert "test_anomaly.py" in error.location


def test_a_hidden_state_that_grows_without_bound() -> None:
    """A ReLU network that explodes: the step at which it leaves the finite numbers."""
    x = np.ones((12, 1, 1), "float32")
    weight = tg.tensor([[1e5]])
    error = anomaly(lambda: tg.rnn(tg.tensor(x), tg.zeros(1, 1), tg.ones(1, 1), weight, None, None, "relu"))
    assert error.born and error.op == "matmul"
    assert error.time_step == 8  # 1e5**7 is finite in float32 and 1e5**8 is not


@pytest.mark.parametrize("cell", GATES)
def test_a_value_that_came_into_a_sequence_op(cell: str) -> None:
    x = np.zeros((2, 1, 1))
    x[1] = np.nan
    error = anomaly(lambda: sequence(cell, x, 1.0, 1.0))
    assert error.op == cell and not error.born
    assert "x = nan, in float32[2, 1, 1] from nan to nan" in str(error)
    assert "b_ih" not in str(error)


@pytest.mark.parametrize("cell", GATES)
def test_a_gradient_born_inside_a_sequence_op(cell: str) -> None:
    """With zero states the gates stay open, and the gradient overflows one step before the loss."""
    outputs = sequence(cell, np.zeros((4, 1, 1)), 1.0, 1e30)
    error = anomaly(lambda: (outputs[2] * 1e20).sum().backward())
    assert error.op == "matmul" and error.born
    assert error.time_step == 2
    assert "gradient for a" in str(error) and "upstream gradient" in str(error)
    assert error.module == "encoder"
    assert error.location == outputs.node.location  # type: ignore[union-attr]


@pytest.mark.parametrize("cell", GATES)
def test_a_gradient_that_came_into_a_sequence_op(cell: str) -> None:
    outputs = sequence(cell, np.zeros((2, 1, 1)), 1.0, 1.0)
    error = anomaly(lambda: outputs.backward(np.full((2, 1, 1), np.nan, "float32")))
    assert error.op == cell and not error.born


# --- on and off, and notes on nodes ---------------------------------------------------------------------


def test_watching_ends_with_the_block() -> None:
    with pytest.raises(AnomalyError), tg.detect_anomaly():
        tg.log(tg.zeros(1))
    anomaly(lambda: tg.log(tg.zeros(1)))  # the outer block of this test still watches


def test_on_the_hostile_backend(hostile: Any) -> None:
    x = tg.tensor([1.0, 0.0], backend=hostile, requires_grad=True)
    assert "x = 0.0" in str(anomaly(lambda: tg.log(x)))
    assert "result = 0.0" in str(anomaly(lambda: tg.sqrt(x).sum().backward()))


class TestAnnotate:
    """Outside anomaly detection, annotate() alone."""

    @pytest.fixture(autouse=True)
    def watching(self) -> None:
        """Not here."""

    def test_nothing_is_noted_or_checked_by_default(self) -> None:
        x = leaf(np.array([0.0, 1.0]))
        y = tg.named("gate", tg.sqrt(x))
        assert (y.node.name, y.node.module, y.node.time_step, y.node.location) == (None,) * 4
        y.sum().backward()
        assert x.grad is not None and np.isinf(x.grad.numpy()[0])

    def test_annotate_notes_where_a_node_came_from(self) -> None:
        x = leaf(np.array([0.0, 1.0]))
        with tg.annotate(), module_scope("cell"), tg.time_step(2):
            y = tg.named("gate", tg.sqrt(x))
            place = here(-1)
        node = y.node
        assert (node.name, node.module, node.time_step, node.location) == ("gate", "cell", 2, place)
        assert repr(node) == f"<Node sqrt (2,) 'gate' in cell t=2 {place}>"
        with tg.annotate():
            y.sum().backward()  # no check for numbers that are not finite
        assert x.grad is not None and np.isinf(x.grad.numpy()[0])

    def test_the_equations_name_their_gates(self) -> None:
        """The reference of a cell leaves named nodes at their time steps."""
        inputs = [leaf(np.full(s, 0.5)) for s in [(2, 1, 1), (1, 1), (1, 1), (4, 1), (4, 1)]]
        with tg.annotate():
            outs = tg.ops["lstm"].reference(_tensor_ops(), *inputs, None, None)
        found, stack = set(), [outs[0].node]
        while stack:
            node = stack.pop()
            found.add((node.name, node.time_step))
            stack += [parent for parent in node.parents if parent is not None]
        gates = ["input gate", "forget gate", "cell candidate", "output gate", "cell state", "hidden state"]
        assert {(gate, t) for gate in gates for t in (0, 1)} <= found


def _tensor_ops() -> Any:
    from tinygrad_rnn.engine.op import TENSOR_OPS

    return TENSOR_OPS


def test_where_places_do_not_correspond_no_unrelated_element_is_shown() -> None:
    """The element at (1, 1) of a product comes from a row and a column, not from a[1, 1]."""
    a = tg.tensor([[1.0, 2.0], [3e38, 4.0]])
    with pytest.raises(AnomalyError) as caught, tg.detect_anomaly():
        a @ tg.tensor([[1.0, 9.0], [5.0, 6.0]])
    assert "index (1, 1)" in str(caught.value)
    assert "a = float32[2, 2] from 1.0 to 3" in str(caught.value)
    with pytest.raises(AnomalyError, match=r"nan, in float32\[2\]"), tg.detect_anomaly():
        tg.concatenate([tg.tensor([1.0, 2.0]), tg.tensor([3.0, float("nan")])])
