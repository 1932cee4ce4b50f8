"""`why`: the place where a NaN was made, where a gradient was lost, why there is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.annotate import annotate
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import Session, View, run
from tinygrad_rnn.inspect.recording import Change
from tinygrad_rnn.models import detach_state

from .conftest import TEXT, small


def leaf(*values: float, dtype: str = "float32") -> tg.Tensor:
    return tg.tensor(np.array(values), dtype=dtype, requires_grad=True)


def computed(session: Session, make: Callable[[], tg.Tensor]) -> tg.Tensor:
    """As the prompt does it: what is computed is kept, and looked at."""
    with np.errstate(all="ignore"), annotate(session.observer):
        out = make()
    session.look_at(out)
    return out


def parameter(session: Session, name: str) -> tg.Tensor:
    return dict(session.model.named_parameters())[name]


# --- why nan, in the graph of the model ------------------------------------------------------------


def test_nothing_is_not_finite(each: Session) -> None:
    data = run(each, "why nan").data
    tape = each.recording.tape
    values = [tape.value(node) for node in tape.nodes]
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    assert data["what"] is None
    assert data["largest"]["value"]["largest"] == max(np.abs(part).max() for part in parts)
    gradients = [g for g in tape.gradients.values() if not isinstance(g, list)]
    assert data["largest"]["gradient"]["largest"] == max(np.abs(g).max() for g in gradients)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite(each: Session, bad: float) -> None:
    weight = parameter(each, "rnn.weight_hh_l1")
    weight.array[3, 4] = bad
    each.record()
    data = run(each, "why nan").data
    assert each.recording.tape.nodes[data["node"] - 1] is weight.node
    assert (data["origin"], data["op"], data["index"], data["count"]) == ("given", None, (3, 4), 1)
    np.testing.assert_equal(data["value"], bad)
    assert data["chain"][0] == data["node"]
    if np.isnan(bad):
        assert data["chain"][-1] == len(each.recording.tape.nodes)


def test_biases_whose_sum_overflows(each: Session) -> None:
    for name in ("rnn.bias_ih_l0", "rnn.bias_hh_l0"):
        parameter(each, name).array[2] = 1.5e308
    each.record()
    data = run(each, "why nan").data
    assert (data["what"], data["origin"], data["op"]) == ("value", "born", "add")
    assert (data["index"], data["time_step"], data["module"]) == ((0, 2), 0, "rnn.l0")
    assert data["operands"]["a"] == pytest.approx(1.5e308) == data["operands"]["b"]
    assert data["rule"].startswith("1.5e+308 + 1.5e+308 overflows float64")
    assert "recurrent.py" in data["location"]


def test_a_long_product_that_overflows(session: Session) -> None:
    parameter(session, "output.weight").array[5] = 1e308
    parameter(session, "rnn.bias_ih_l1").array[:] = 50  # so that h is tanh(1) and more
    session.record()
    data = run(session, "why nan").data
    h = session.recording.values("h", 1)
    t = int(np.argmax(~np.isfinite(session.recording.logits[:, 5])))
    k = int(np.argmax(np.abs(h[t])))
    assert (data["op"], data["index"]) == ("matmul", (t, 0, 5))
    assert f"a sum of {h.shape[1]} products" in data["rule"]
    assert f"{h[t, k]:.4g} * 1e+308, at {k}" in data["rule"]


def test_golden_nan(session: Session, golden: Callable[[View], None]) -> None:
    for name in ("rnn.bias_ih_l0", "rnn.bias_hh_l0"):
        parameter(session, name).array[2] = 1.5e308
    session.record()
    golden(run(session, "why nan"))


def test_golden_finite(session: Session, golden: Callable[[View], None]) -> None:
    golden(run(session, "why nan"))


# --- why nan, in graphs of the user's --------------------------------------------------------------

ARRAY = np.array([np.inf, 1.0], np.float32)
VALUES: list[tuple[str, Callable[[tg.Tensor, tg.Tensor], Any], str, tuple[int, ...], dict[str, float]]] = [
    ("log", lambda x, y: (x - 1.3).log(), "log of -0.3", (0,), {"x": -0.3}),
    ("log", lambda x, y: (x - 2.0).log(), "log of -1", (0,), {"x": -1.0}),
    ("log1p", lambda x, y: (x * -2).log1p(), "log1p of -2: log of -1", (0,), {"x": -2.0}),
    ("sqrt", lambda x, y: tg.sqrt(-x), "sqrt of -1", (0,), {"x": -1.0}),
    ("exp", lambda x, y: (x + 88.2).exp(), "exp overflows: 89.2 > 88.723", (0,), {"x": 89.2}),
    ("divide", lambda x, y: (x - 1) / (y - 3), "0 / 0", (0,), {"a": 0.0, "b": 0.0}),
    ("divide", lambda x, y: x / (y - 3), "division by 0: 1 / 0", (0,), {"a": 1.0, "b": 0.0}),
    ("power", lambda x, y: (-x) ** 0.5, "-1 ** 0.5: a negative number", (0,), {"a": -1.0, "b": 0.5}),
    ("power", lambda x, y: (x - 1) ** -1.0, "division by 0: 0 ** -1", (0,), {"a": 0.0, "b": -1.0}),
    (
        "multiply",
        lambda x, y: (x * 1e38) * (y * 1e37),
        "1e+38 * 3e+37 overflows",
        (0,),
        {"a": 1e38, "b": 3e37},
    ),
    ("multiply", lambda x, y: (x - 1) * tg.tensor(ARRAY), "0 * inf", (0,), {"a": 0.0, "b": np.inf}),
    ("astype", lambda x, y: (x * 1e6).astype("float16"), "astype of 1e+06 overflows", (0,), {"x": 1e6}),
    ("matmul", lambda x, y: (x * 1e38) @ y, "a sum of 2 products overflows float32", (), {}),
]


@pytest.mark.parametrize(
    ("op", "make", "rule", "index", "operands"), VALUES, ids=[case[2] for case in VALUES]
)
def test_the_rule_that_made_a_value(
    session: Session, op: str, make: Any, rule: str, index: tuple[int, ...], operands: dict[str, float]
) -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 5.0)
    session.namespace.update(x=x, y=y)
    computed(session, lambda: make(x, y).sum())
    data = run(session, "why nan").data
    assert (data["what"], data["op"], data["index"]) == ("value", op, index)
    assert data["rule"].startswith(rule)
    assert data["origin"] == ("inherited" if np.inf in operands.values() else "born")
    assert {k: data["operands"][k] for k in operands} == pytest.approx(operands, rel=1e-6)
    assert data["chain"] == [data["node"], data["node"] + 1]
    assert "test_why.py" in data["location"]


def test_a_value_that_nobody_kept_is_computed_again(session: Session) -> None:
    x = leaf(1.0, -2.0)
    session.namespace["x"] = x
    with np.errstate(all="ignore"):
        out = (x * 3).log1p().sum()  # not watched: the product is kept by log1p
        lost = (x * 3).reshape(2, 1).exp().log().sum()
    session.look_at(out)
    assert run(session, "why nan").data["rule"] == "log1p of -6: log of -5"
    session.look_at(lost)
    assert run(session, "why nan").data["what"] is None


GRADIENTS: list[tuple[str, Callable[[tg.Tensor], Any], str, float]] = [
    ("sqrt", lambda z: tg.sqrt(z), "the slope of sqrt at 0 is infinite", np.inf),
    ("sqrt", lambda z: tg.sqrt(z) * tg.tensor([0.0, 1.0]), "0 * inf: the upstream gradient is 0 and", np.nan),
    ("power", lambda z: z**0.5, "the slope of a ** 0.5 at 0 is infinite", np.inf),
    ("divide", lambda z: (z + 1) / (z + 1e-25), "g a / b ** 2 overflows: g = 1, a = 1, b = 1e-25", -np.inf),
    ("multiply", lambda z: z * 1e30 * 1e30, "g b overflows: 1e+30 * 1e+30", np.inf),
]


@pytest.mark.parametrize(("op", "make", "rule", "value"), GRADIENTS, ids=[case[2] for case in GRADIENTS])
def test_the_rule_that_made_a_gradient(session: Session, op: str, make: Any, rule: str, value: float) -> None:
    z = leaf(0.0, 0.0 if op == "multiply" else 1.0)
    session.namespace["z"] = z
    computed(session, lambda: make(z).sum())
    data = run(session, "why nan").data
    assert (data["what"], data["origin"], data["op"], data["index"]) == ("gradient", "born", op, (0,))
    assert data["rule"].startswith(rule)
    np.testing.assert_equal(data["value"], value)
    assert data["chain"][0] == data["node"]
    assert session.focus.nodes[data["chain"][-1] - 1] is z.node


def test_contributions_whose_sum_overflows(session: Session) -> None:
    z = leaf(0.5e-38)
    computed(session, lambda: (z * 3e38 + z * 2e38).sum())
    data = run(session, "why nan").data
    assert (data["what"], data["origin"], data["rule"]) == (
        "gradient",
        "born",
        "the sum of 2 contributions overflows",
    )
    assert sorted(data["operands"].values()) == pytest.approx([2e38, 3e38])


def test_inside_a_fused_layer(session: Session) -> None:
    """The equations are computed once more, and the place in them is named."""
    rnn = tg.nn.RNN(2, 3, nonlinearity="relu")
    for p in rnn.parameters():
        p.array[...] = 1e19
    computed(session, lambda: rnn(tg.tensor(np.full((4, 1, 2), 9, np.float32)))[0].sum())
    data = run(session, "why nan").data
    assert (data["op"], data["origin"]) == ("rnn", "born")
    # h is 9e19 * 2 and more at step 0; the product with the recurrent weights leaves float32 at step 1.
    assert data["rule"].startswith("inside of it, at time step 1, matmul: the value is inf at index (0, 0)")


def test_a_gradient_that_is_not_finite_is_not_zero(session: Session) -> None:
    z = leaf(0.0, 1.0)
    session.namespace["z"] = z
    session.look_at(tg.sqrt(z).sum())
    with pytest.raises(UsageError, match="`why nan` says why"):
        run(session, "why zero z")


def test_golden_sqrt(session: Session, golden: Callable[[View], None]) -> None:
    z = leaf(0.0, 1.0)
    session.namespace["z"] = z
    with np.errstate(all="ignore"):
        session.look_at((tg.sqrt(z) * tg.tensor([0.0, 1.0])).sum())
    golden(run(session, "why nan"))


# --- why zero --------------------------------------------------------------------------------------


def test_every_edge_of_the_way(each: Session) -> None:
    tape = each.recording.tape
    for name in ("h[3]", "h_l0[5]", "rnn.weight_hh_l0", "embedding.weight"):
        data = run(each, f"why zero {name}").data
        node = tape.nodes[data["node"] - 1]
        assert data["norm"] == pytest.approx(np.linalg.norm(tape.gradients[node]))
        assert data["zeros"] == int((tape.gradients[node] == 0).sum())
        edges = data["edges"]
        assert edges[0]["node"] == len(tape.nodes)
        assert edges[-1]["to"] == data["node"]
        for edge, following in zip(edges, [*edges[1:], None], strict=True):
            if following is not None:
                assert edge["to"] == following["node"]
            giver, to = tape.nodes[edge["node"] - 1], tape.nodes[edge["to"] - 1]
            upstream = tape.gradients[giver]
            parts = [p for p in upstream if p is not None] if isinstance(upstream, list) else [upstream]
            assert edge["before"] == pytest.approx(np.sqrt(sum((p**2).sum() for p in parts)))
            sizes = [np.linalg.norm(c.gradient) for c in tape.contributions[to] if c.node is giver]
            assert any(edge["after"] == pytest.approx(size) for size in sizes)
            assert edge["kept"] == pytest.approx(edge["after"] / edge["before"])


def test_the_way_keeps_the_most() -> None:
    """Of two ways to x, through a factor of 0.1 and through 0.5 * 0.5."""
    session = Session.small(length=2)
    x = leaf(1.0, 2.0, dtype="float64")
    session.namespace["x"] = x
    computed(session, lambda: (x * 0.1 + x * 0.5 * 0.5).sum())
    kept = [edge["kept"] for edge in run(session, "why zero x").data["edges"] if edge["op"] == "multiply"]
    assert kept == pytest.approx([0.5, 0.5])


def test_rows_of_characters_that_do_not_occur(each: Session) -> None:
    view = run(each, "why zero embedding.weight")
    absent = sorted(set(range(len(each.vocabulary))) - set(each.recording.symbols.tolist()))
    assert view.data["zero_rows"] == absent
    missing = sorted(set(TEXT) - set(each.text))
    assert f"{len(absent)} of {len(set(TEXT))} rows are exactly 0: all of characters" in " ".join(
        view.text().split()
    )
    assert repr(missing[0]) in view.text()


def test_saturated_gates_take_all_of_it(each: Session) -> None:
    parameter(each, "rnn.bias_hh_l0").array[:] = 800
    each.record()
    data = run(each, "why zero weight_ih_l0").data
    assert data["norm"] == 0 == np.abs(each.model.rnn.weight_ih_l0.grad.numpy()).max()
    kinds = {edge["kind"] for edge in data["edges"]}
    # The GRU's update gate is 1, so that its candidate is multiplied by 1 - 1.
    expected = {"lstm": {"sigmoid", "tanh", "times 0"}, "gru": {"sigmoid", "times 0"}, "rnn": {"tanh"}}
    assert kinds == expected[each.model.kind]
    hidden = each.model.rnn.hidden_size
    shares = [edge["cause"] for edge in data["edges"] if edge["kind"] != "times 0"]
    assert all(f"{hidden} of {hidden} units saturated" in cause for cause in shares)
    assert all(cause.endswith("mean slope 0") for cause in shares)
    assert all(edge["after"] == 0 < edge["before"] for edge in data["edges"])


def test_a_closed_gate_is_named(session: Session) -> None:
    """From the loss at step 5 to c[3], where there is no other way than through two forget gates."""
    hidden = session.model.rnn.hidden_size
    parameter(session, "rnn.bias_ih_l1").array[hidden : 2 * hidden] = -4
    parameter(session, "rnn.weight_hh_l1").array[:] = 0
    session.record()
    c = [session.recording.node("c", 1, t) for t in range(6)]
    forget = session.recording.values("f", 1)
    tape = session.look_at(session.recording.loss_at(5))
    edges = run(session, f"why zero #{tape.numbers[c[3]]}").data["edges"]
    gates = [edge for edge in edges if edge["kind"] == "times forget gate"]
    assert len(gates) == 2
    for edge, t in zip(gates, (5, 4), strict=True):
        g = tape.gradients[c[t]]
        assert edge["kept"] == pytest.approx(np.linalg.norm(g * forget[t]) / np.linalg.norm(g))
        low = int((forget[t] < 0.1).sum())
        closed = f"a closed gate: mean {forget[t].mean():.4g}, {low} of {hidden} units below 0.1"
        assert edge["cause"].endswith(closed)


def test_an_open_gate_is_named(session: Session) -> None:
    edges = run(session, "why zero c[5]").data["edges"]
    [cause] = [edge["cause"] for edge in edges if edge["kind"] == "times output gate"]
    t = int(re.search(r"o_l1\[(\d+)\]", cause)[1])
    o = session.recording.values("o", 1)[t]
    assert cause.endswith(f"a gate: mean {o.mean():.4g}, {int((o < 0.1).sum())} of {o.size} units below 0.1")


def test_one_minus_the_update_gate() -> None:
    session = small("gru")
    edges = run(session, "why zero n[5]").data["edges"]
    [cause] = [edge["cause"] for edge in edges if edge["kind"] == "times 1 - update gate"]
    t = int(re.search(r"1 - update gate z_l1\[(\d+)\]", cause)[1])
    assert f"mean {(1 - session.recording.values('z', 1)[t]).mean():.4g}," in cause


def test_what_if_is_named(session: Session) -> None:
    session.changes = [Change("h", 1, None, None, scale=0.0)]
    session.record()
    data = run(session, "why zero weight_ih_l1").data
    assert data["norm"] == 0
    assert {edge["kind"] for edge in data["edges"]} == {"what-if"}


ZEROS: list[tuple[str, Callable[[tg.Tensor], Any], str]] = [
    ("relu", lambda x: (x - 5).relu(), "relu is off in 3 of 3 units"),
    ("clip", lambda x: x.clip(7, 8), "clipped: 3 of 3 elements are outside 7..8"),
    ("times 0", lambda x: x * 0.0, "multiplied by 0, a constant"),
    ("underflow", lambda x: x * 1e-30 * 1e-20, "too small for float32"),
    ("maximum", lambda x: tg.maximum(x, 9.0), "maximum takes the other in 3 of 3 elements"),
    ("where", lambda x: tg.where(tg.tensor([False] * 3), x, 1.0), "where takes the other branch in 3 of 3"),
    ("product with 0", lambda x: x @ tg.tensor(np.zeros((3, 2), np.float32)), "a constant, which is all 0"),
]


@pytest.mark.parametrize(("kind", "make", "cause"), ZEROS, ids=[case[0] for case in ZEROS])
def test_what_takes_all_of_a_gradient(session: Session, kind: str, make: Any, cause: str) -> None:
    x = leaf(1.0, 2.0, 3.0)
    session.namespace["x"] = x
    computed(session, lambda: make(x).sum())
    data = run(session, "why zero x").data
    assert data["norm"] == 0
    [edge] = data["edges"]
    assert edge["kind"] == kind
    assert cause in edge["cause"]


def test_contributions_that_cancel(session: Session) -> None:
    x = leaf(1.0, 2.0)
    session.namespace["x"] = x
    computed(session, lambda: (x * 2 - x - x).sum())
    assert "3 contributions came and cancel one another exactly" in run(session, "why zero x").text()


def test_a_cut_is_mentioned(session: Session) -> None:
    session.show(0, 20, 5)
    assert "cut off before step 5" in " ".join(run(session, "why zero h[4]").text(200).split())
    assert "cut off" not in run(session, "why zero h[19]").text()


def test_golden_zero(session: Session, golden: Callable[[View], None]) -> None:
    golden(run(session, "why zero c_l0[3]"))


def test_golden_all_zero(session: Session, golden: Callable[[View], None]) -> None:
    parameter(session, "rnn.bias_hh_l0").array[:] = 800
    session.record()
    golden(run(session, "why zero embedding.weight"))


# --- why none --------------------------------------------------------------------------------------


def reason(session: Session, name: str) -> str:
    return run(session, f"why none {name}").data["reason"]


def test_of_the_window(each: Session) -> None:
    view = run(each, "why none h[3]")
    assert view.data["reason"] == "no leaf"
    size = np.linalg.norm(each.recording.gradients("h", 1)[3])
    assert f"norm {size:.4g}" in view.text()
    view = run(each, "why none weight_hh_l0")
    assert (view.data["reason"], view.data["norm"]) == (
        "there",
        pytest.approx(np.linalg.norm(each.model.rnn.weight_hh_l0.grad.numpy())),
    )
    parameter(each, "rnn.weight_hh_l0").grad = None
    assert reason(each, "weight_hh_l0") == "no backward"


def test_the_life_of_a_leaf(session: Session) -> None:
    x = leaf(1.0, 2.0)
    session.namespace["x"] = x
    assert reason(session, "x") == "unused"
    y = x * 2
    session.namespace["y"] = y
    assert reason(session, "x") == "no path"
    assert reason(session, "y") == "no leaf"
    z = y.sum()
    session.namespace["z"] = z
    session.look_at(z)
    assert (reason(session, "x"), x.grad) == ("no backward", None)
    y.retain_grad()
    assert reason(session, "y") == "no backward"
    z.backward()
    assert reason(session, "x") == reason(session, "y") == "there"
    x.grad = None
    session.look_at(None)
    assert reason(session, "x") == "taken away"


def test_retained_too_late(session: Session) -> None:
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y.sum()
    z.backward()
    session.namespace.update(x=x, y=y, z=z)
    assert reason(session, "y") == "no leaf"
    y.retain_grad()
    assert reason(session, "y") == "freed"


def test_detached_on_the_way(session: Session) -> None:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    session.namespace.update(x=x, w=w, y=x * 2)
    d = session.namespace["d"] = session.namespace["y"].detach()
    assert reason(session, "d") == "detached"
    session.look_at((w * d).sum())
    data = run(session, "why none x").data
    assert (data["reason"], data["source"]) == ("cut", "y")
    assert session.focus.nodes[data["node"] - 1].op.name == "multiply"
    session.look_at((w * x.detach()).sum())
    assert run(session, "why none x").data["source"] == "X"
    session.look_at((w * 3.0).sum())
    assert reason(session, "x") == "no path"


def test_what_was_used_detached_alone(session: Session) -> None:
    """It left no node, so that nobody can know: the ways in which that happens are named."""
    w = session.namespace["w"] = leaf(1.0, 2.0)
    session.namespace["u"] = (w.detach() * 2).sum()
    view = run(session, "why none w")
    assert view.data["reason"] == "unused"
    assert "detach()" in view.data["cure"] and "no_grad()" in view.data["cure"]


def test_the_cure_names_the_root(session: Session) -> None:
    x = session.namespace["x"] = leaf(1.0, 2.0)
    z = session.namespace["z"] = (x * 2).sum()
    session.look_at(z)
    assert run(session, "why none x").data["cure"] == "call backward() on z (sum)"


def test_an_infinity_on_the_way_is_no_lost_gradient(session: Session) -> None:
    """It came to the other half; the half that is asked about got a finite one."""
    x, y = leaf(0.0, 1.0), leaf(1.0, 1.0)
    session.namespace.update(x=x, y=y)
    computed(session, lambda: (tg.concatenate([x.sqrt() * 1.0, y])[np.array([0, 2])] ** 0.5).sum())
    assert np.isfinite(session.focus.gradients[y.node]).all()
    with pytest.raises(UsageError, match="on the way is not finite"):
        run(session, "why zero y")


def test_the_state_of_an_earlier_window(session: Session) -> None:
    _, state = session.model(session.symbols[:5, None])
    h = session.namespace["h"] = state[0]
    h.retain_grad()
    logits, _ = session.model(session.symbols[5:10, None], detach_state(state))
    session.look_at(logits.sum())
    assert reason(session, "h") == "cut"
    old = session.namespace["old"] = session.recording.tensor("h", 1, 3)
    old.retain_grad()
    session.record()
    assert reason(session, "old") == "truncated"
    assert "time step 3 in rnn.l1" in " ".join(run(session, "why none old").text().split())


def test_what_has_no_gradient_at_all(session: Session) -> None:
    session.namespace.update(k=tg.tensor([1.0]), i=tg.tensor([1]))
    with tg.no_grad():
        session.namespace["n"] = leaf(2.0) * 2
    assert (reason(session, "k"), reason(session, "i"), reason(session, "n")) == (
        "constant",
        "integers",
        "constant",
    )


def test_golden_none(session: Session, golden: Callable[[View], None]) -> None:
    golden(run(session, "why none h[3]"))


# --- what makes no sense ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("why", "nan,zero,none"),
        ("why maybe", "choose from"),
        ("why nan h[3]", "whole graph"),
        ("why zero", "say for example `why zero loss`"),
        ("why none", "why none what"),
        ("why zero nothing", "there is no 'nothing' here"),
        ("why none nothing", "there is no 'nothing' here"),
        ("why zero h[99]", "the time steps are 0 to 19"),
        ("check h[99]", "the time steps are 0 to 19"),
    ],
)
def test_one_line_says_what_would_work(session: Session, line: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(session, line)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
