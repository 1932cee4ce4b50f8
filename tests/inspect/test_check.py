"""`check`: the derivative of one node against differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.annotate import annotate
from tinygrad_rnn.engine.op import TABLE
from tinygrad_rnn.inspect import Session, View, run
from tinygrad_rnn.inspect.check import _weights
from tinygrad_rnn.inspect.operands import Values


def leaf(*values: float) -> tg.Tensor:
    return tg.tensor(np.array(values, np.float32), requires_grad=True)


def named(session: Session, *values: float) -> tg.Tensor:
    session.namespace["x"] = leaf(*values)
    return session.namespace["x"]


def computed(session: Session, make: Callable[[], tg.Tensor]) -> None:
    with np.errstate(all="ignore"), annotate(session.observer):
        out = make()
    session.look_at(out)


@pytest.fixture
def broken() -> object:
    """An op whose VJP has the wrong factor where x is more than 1; taken out of the table again."""

    @tg.custom_op(lambda F, g, out, x: F.where(x > 1, g * 2, g * 3), saves="x")
    def thrice(xp, x):  # type: ignore[no-untyped-def]
        return x * 3

    yield thrice
    del TABLE["thrice"]


def test_a_broken_vjp_is_found(session: Session, broken: Callable) -> None:
    x = leaf(0.5, -2.0, 4.0, 1.0)
    computed(session, lambda: broken(x).sum())
    view = run(session, "check #2")
    [found] = view.data["inputs"]
    u = _weights(0, (4,))
    assert view.data["verdict"] == "wrong"
    assert (found["name"], found["index"], found["wrong"], found["moved"]) == ("x", (2,), 1, 4)
    assert found["analytic"] == pytest.approx(2 * u[2])
    assert found["numeric"] == pytest.approx(3 * u[2])
    assert found["relative"] == pytest.approx(1 / 3)
    assert f"x[2]: {2 * u[2]:.6g} by the VJP, {3 * u[2]:.6g} by differences" in " ".join(view.text().split())
    assert run(session, "check all").title == "check all: wrong is thrice"
    verdicts = {one["op"]: one["verdict"] for one in run(session, "check all").data["checks"]}
    assert verdicts == {"thrice": "wrong", "sum": "ok"}


def test_golden_broken(session: Session, broken: Callable, golden: Callable[[View], None]) -> None:
    computed(session, lambda: broken(leaf(0.5, -2.0, 4.0, 1.0)).sum())
    golden(run(session, "check #2"))


def test_every_op_of_the_model(each: Session) -> None:
    data = run(each, "check all").data
    ops = {node.op.name for node in each.recording.tape.nodes if node.op is not None}
    assert {one["op"] for one in data["checks"]} == ops
    assert all(one["verdict"] == "ok" and one["inputs"] for one in data["checks"])
    for one in data["checks"]:
        node = each.recording.tape.nodes[one["node"] - 1]
        assert len(one["inputs"]) == sum(parent is not None for parent in node.parents)


def test_one_node_and_its_numbers(session: Session) -> None:
    """h = o tanh(c): the derivative of sum(u h) in tanh(c) is u o."""
    data = run(session, "check h[3]").data
    o, c = session.recording.values("o", 1)[3], session.recording.values("c", 1)[3]
    u = _weights(0, (1, o.size))[0]
    for found, expected in zip(data["inputs"], (u * np.tanh(c), u * o), strict=True):
        assert found["analytic"] == pytest.approx(expected[found["index"][1]], rel=1e-12)
        assert found["numeric"] == pytest.approx(found["analytic"], rel=1e-6)
        assert (found["moved"], found["size"]) == (o.size, o.size)


def test_without_a_name_where_one_stands(session: Session) -> None:
    assert run(session, "check").data["op"] == "cross_entropy"
    session.here = session.recording.node("c", 1, 2)
    assert run(session, "check").data["node"] == session.focus.numbers[session.here]


def test_a_kink_is_named(session: Session) -> None:
    x = named(session, 1.0, 0.0, -3.0)
    computed(session, lambda: x.relu().sum())
    view = run(session, "check #2")
    [found] = view.data["inputs"]
    [(index, value, left, right)] = found["kinks"]
    assert (index, value, left) == ((1,), 0.0, 0.0)
    assert right == pytest.approx(_weights(0, (3,))[1])
    assert view.data["verdict"] == "ok"
    assert "A kink at x[1] = 0: slopes 0 and" in view.text()


def test_what_lies_outside_a_kink_is_wrong(session: Session) -> None:
    @tg.custom_op(lambda F, g, out, x: F.where(x == 0, g * 5, g * F.sign(x)), saves="x")
    def tent(xp, x):  # type: ignore[no-untyped-def]
        return xp.absolute(x)

    try:
        computed(session, lambda: tent(leaf(1.0, 0.0)).sum())
        [found] = run(session, "check #2").data["inputs"]
    finally:
        del TABLE["tent"]
    assert (found["index"], found["wrong"], len(found["kinks"])) == ((1,), 1, 1)


def test_small_numbers_have_no_false_kinks(session: Session) -> None:
    """The step beside 10^-7 is small enough for the logarithm."""
    computed(session, lambda: leaf(1e-7, 1e-3, 5.0).log().sum())
    data = run(session, "check #2").data
    found = data["inputs"][0]
    assert (data["verdict"], found["kinks"], found["edges"]) == ("ok", [], [])


def test_at_the_end_of_the_domain(session: Session) -> None:
    computed(session, lambda: tg.sqrt(named(session, 0.0, 1.0)).sum())
    data = run(session, "check #2").data
    assert (data["verdict"], data["inputs"][0]["edges"]) == ("ok", [((0,), 0.0)])


def test_operands_that_were_not_saved(session: Session) -> None:
    """Of a sum nothing is saved: its constant follows from the result, what is not known is said."""
    x = leaf(1.0, 2.0)
    computed(session, lambda: (x + 5.0).sum())
    assert run(session, "check #2").data["verdict"] == "no check"  # nobody kept x, which has no name
    session.namespace["x"] = x
    [found] = run(session, "check #2").data["inputs"]
    assert (found["name"], found["moved"]) == ("a", 2)
    session.look_at(((x + 5.0) * 2).sum())  # not watched: only the product kept the sum
    assert run(session, "check #2").data["verdict"] == "ok"
    session.look_at(((x + 5.0) + 1.0).exp().sum())
    data = run(session, "check #2").data
    assert (data["verdict"], data["inputs"]) == ("no check", [])
    assert "nobody kept the values of b" in data["problem"]


CONSTANT = np.array([5.0, 7.0], np.float32)
CONSTANTS: list[tuple[Callable, int]] = [
    (lambda x, k: x + k, 1),
    (lambda x, k: k + x, 0),
    (lambda x, k: x - k, 1),
    (lambda x, k: k - x, 0),
    (lambda x, k: tg.stack([x, k], axis=1), 1),
    (lambda x, k: tg.concatenate([k, x]), 0),
]


@pytest.mark.parametrize(("make", "place"), CONSTANTS)
def test_a_constant_follows_from_the_result(session: Session, make: Callable, place: int) -> None:
    x = named(session, 1.0, 2.0)
    computed(session, lambda: make(x, tg.tensor(CONSTANT)).sum())
    operand = Values(session).operands(session.focus.nodes[1])[place]
    assert (operand.node, operand.unknown) == (None, False)
    np.testing.assert_array_equal(operand.value, CONSTANT)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x: (x / 0).sum(), "its result is not finite"),
        (lambda x: (x * tg.tensor([np.nan, 1.0])).sum(), "b is nan at (0,)"),
    ],
)
def test_what_cannot_be_checked(session: Session, make: Callable, says: str) -> None:
    x = leaf(1.0, 2.0)
    computed(session, lambda: make(x))
    data = run(session, "check #2").data
    assert (data["verdict"], says in data["problem"]) == ("no check", True)
    assert "it is a leaf" in run(session, "check #1").data["problem"]


def test_a_vjp_of_another_shape(session: Session) -> None:
    """What raises has its message shown. The tape needs gradients that fit, so the op breaks afterwards."""

    @tg.custom_op(lambda F, g, out, x: g * 3, saves="x")
    def thrice(xp, x):  # type: ignore[no-untyped-def]
        return x * 3

    computed(session, lambda: thrice(leaf(1.0, 2.0)).sum())
    op = TABLE.pop("thrice")
    object.__setattr__(op, "vjps", (lambda F, g, out, x: F.sum(g),))
    data = run(session, "check #2").data
    assert data["verdict"] == "wrong"
    assert "gave shape ()" in data["problem"]


@pytest.mark.parametrize("layer", [tg.nn.LSTM, tg.nn.GRU, tg.nn.RNN])
def test_a_whole_sequence_as_one_op(session: Session, layer: type) -> None:
    x = tg.tensor(np.random.default_rng(0).normal(size=(7, 2, 3)), requires_grad=True, dtype="float32")
    net = layer(3, 4)
    computed(session, lambda: net(x)[0].sum())
    checks = run(session, "check all").data["checks"]
    assert {one["verdict"] for one in checks} == {"ok"}
    [found] = [one for one in checks if one["op"] == layer.__name__.lower()]
    assert {one["name"] for one in found["inputs"]} == {"x", "w_ih", "w_hh", "b_ih", "b_hh"}


def test_all_at_forty_columns(session: Session) -> None:
    """No golden text: how small an error is depends on the machine."""
    view = run(session, "check all")
    assert all(f"\n{one['op']} " in view.text(40) for one in view.data["checks"])
    assert all(len(line) <= 40 for line in view.text(40).splitlines())
