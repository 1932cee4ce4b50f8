"""The VJP of a node as a formula with its numbers, and the quiz about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tests.inspect.conftest import small
from tests.inspect.test_debugger import GRAPHS, kinds_of_nodes, looked_at
from tinygrad_rnn.engine.annotate import annotate
from tinygrad_rnn.engine.node import Node
from tinygrad_rnn.engine.op import TABLE
from tinygrad_rnn.engine.tensor import apply
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import Session, View, run
from tinygrad_rnn.inspect.expression import evaluate
from tinygrad_rnn.inspect.rules import formula, idea, source, with_a_gap
from tinygrad_rnn.inspect.visit import Visit

NOT_ONE_EXPRESSION = {("matmul stretched", "matmul")}
OVER_WINDOWS = (
    "conv2d_input conv2d_weight batch_norm max_pool2d take_winners put_winners avg_pool2d "
    "avg_pool2d_gradient interpolate interpolate_gradient"
).split()
"""Ops whose derivatives are loops over kernels or windows, or more than an equation."""


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> tuple[Session, str]:
    """A session that looks at one of the graphs with every op, and what that graph is called."""
    session = small("rnn", layers=1, length=2)
    looked_at(session, request.param)
    return session, request.param


def contribution(visit: Visit, number: int) -> np.ndarray:
    """What the backward pass had for an input, from the tape."""
    node = visit.node
    into = visit.tape.contributions[node.parents[number]]
    return next(c.gradient for c in into if c.node is node and c.number == number)


# --- formulae -------------------------------------------------------------------------------------


def check(session: Session, node: Node, number: int) -> None:
    visit = Visit(session, node)
    wanted = contribution(visit, number)
    text = formula(node, number)
    assert text is not None and idea(node) and source(node, number)
    found = np.asarray(evaluate(text, visit.values))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-12)
    gap = with_a_gap(text, visit.inputs)
    assert gap.count("___") == 1
    data = run(session, f"derive #{session.focus.numbers[node]}").data
    [entry] = [one for one in data["inputs"] if one["input"] == visit.inputs[number]] or [None]
    if entry is not None:  # of many inputs only the first and the last are shown
        at = tuple(entry["element"])
        assert entry["on the tape"] == wanted[at] and abs(wanted[at]) == np.abs(wanted).max()
        assert entry["value"] == pytest.approx(wanted[at], rel=1e-6, abs=1e-12)
        if "smaller terms" not in entry["worked"]:  # then what a student sees comes to the same
            seen = float(evaluate(entry["worked"], {}))
            assert seen == pytest.approx(wanted[at], rel=2e-3, abs=2e-3 * float(np.abs(wanted).max()))


def test_formulae_of_every_op(graph: tuple[Session, str]) -> None:
    session, name = graph
    for node, number in kinds_of_nodes(session):
        op = node.op.name  # type: ignore[union-attr]
        by_kernel = op in OVER_WINDOWS or (op == "conv2d" and number < 2)
        if (name, op) in NOT_ONE_EXPRESSION or by_kernel:
            assert formula(node, number) is None
            continue
        check(session, node, number)


def test_formulae_of_a_window(each: Session) -> None:
    each.show(0, 3, None)
    for node, number in kinds_of_nodes(each):
        visit = Visit(each, node)
        text = formula(node, number)
        assert text is not None
        wanted = contribution(visit, number)
        np.testing.assert_allclose(evaluate(text, visit.values), wanted, rtol=1e-9, atol=1e-15)
        for entry in run(each, f"derive #{each.focus.numbers[node]}").data["inputs"]:
            of = contribution(visit, visit.inputs.index(entry["input"]))
            at = tuple(entry["element"])
            assert entry["value"] == pytest.approx(of[at], rel=1e-9)
            assert abs(of[at]) == np.abs(of).max()


def test_the_numbers_of_a_forget_gate(session: Session, say: Callable[[str], View]) -> None:
    """By the cell's equations: dL/df = dL/dc c', and through the sigmoid f (1 - f)."""
    t, rec = 12, session.recording
    [entry] = say(f"derive f[{t}]").data["inputs"]
    f, g = rec.values("f", 1)[t], rec.gradients("c", 1)[t] * rec.values("c", 1)[t - 1]
    products = g * f * (1 - f)
    unit = int(np.abs(products).argmax())
    assert entry["element"] == [0, unit]
    assert entry["value"] == pytest.approx(products[unit])
    assert entry["worked"].count(f"{f[unit]:.4g}") == 2 and f"{abs(g[unit]):.4g}" in entry["worked"]
    text = say(f"derive f[{t}]").text()
    assert "g * (out * (1 - out))" in text and "g * (f_l1[12] * (1 - f_l1[12]))" in text


def test_a_leaf_lists_what_its_gradient_is_the_sum_of(session: Session, say: Callable[[str], View]) -> None:
    view = say("derive weight_hh_l1")
    assert view.data["contributions"] == session.length
    own = dict(session.model.named_parameters())["rnn.weight_hh_l1"].grad
    assert view.data["gradient"]["norm"] == pytest.approx(np.linalg.norm(own.numpy()))  # type: ignore[union-attr]
    assert "14 more" in view.text()


def test_derive_follows_the_debugger(say: Callable[[str], View]) -> None:
    assert say("derive").data["node"] == "loss"
    coming = say("step 5").data["next"]
    assert say("derive").data["node"] == coming
    say("continue")
    with pytest.raises(UsageError, match="at the end"):
        say("derive")


def test_an_op_of_the_users(session: Session, say: Callable[[str], View]) -> None:
    @tg.custom_op(lambda F, g, out, x: g * 3 * F.exp(x) * x)
    def of_my_own(xp: Any, x: Any) -> Any:
        """Something."""
        return 3 * (x - 1) * xp.exp(x)

    try:
        x = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
        session.namespace["x"] = x
        session.look_at(of_my_own(x).sum())
        text = say("derive #2").text()
        assert "g * 3 * np.exp(x) * x" in text and "Something." in text
        say("quiz #2")
        assert say("answer g * 3 * x * exp(x)").data["right"]
    finally:
        del TABLE["of_my_own"]


def test_a_whole_sequence_as_one_op(session: Session, say: Callable[[str], View]) -> None:
    layer = tg.nn.LSTM(3, 4)
    out, _ = layer(tg.tensor(np.ones((2, 1, 3), "float32")))
    session.look_at(out.sum())
    number = next(k for n, k in session.focus.numbers.items() if n.op is not None and n.op.name == "lstm")
    assert "da_i = dc g i (1 - i)" in say(f"derive #{number}").text(200)
    with pytest.raises(UsageError, match="more than one expression"):
        say(f"quiz #{number}")


def test_a_gradient_that_a_hook_changes(session: Session, say: Callable[[str], View]) -> None:
    x = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    y = x * 3.0
    y.register_hook(lambda g: g.detach() * 10.0)
    session.namespace.update(x=x, y=y)
    session.look_at(y.sum())
    view = say("derive y")
    [entry] = view.data["inputs"]
    assert (entry["value"], entry["on the tape"]) == (3.0, 30.0) and "hook" in view.text()
    say("quiz y")
    assert say("answer 3 * g").data["right"]


POLES: dict[str, Callable[[Any], Any]] = {
    "sqrt": lambda x: x.sqrt(),
    "log": lambda x: x.log(),
    "log1p": lambda x: (x - 1).log1p(),
    "divide": lambda x: 1 / x,
    "power": lambda x: x**-1,
    "power with a fraction": lambda x: x**0.5,
    "norm": lambda x: apply(TABLE["norm"], (x,), {"ord": None, "axis": 0, "keepdims": False}),
    "prod": lambda x: x.prod(),
    "logsumexp": lambda x: x.log().logsumexp(axis=0),
}


@pytest.mark.parametrize("name", POLES)
def test_derivations_at_a_pole(session: Session, say: Callable[[str], View], name: str) -> None:
    """What is worked through is what the backward pass has, also where that is infinite."""
    with np.errstate(all="ignore"), annotate(session.observer):
        x = tg.tensor(np.array([0.0, 4.0]), requires_grad=True)
        session.look_at(POLES[name](x).sum())
    for node in session.focus.order:
        for one in say(f"derive #{session.focus.numbers[node]}").data.get("inputs", ()):
            assert one["value"] == pytest.approx(one["on the tape"], nan_ok=True)
    if name not in ("norm", "prod"):
        assert np.isinf(session.focus.gradients[x.node][0]) or name == "logsumexp"  # type: ignore[index]


def test_a_helper_of_the_engine_is_no_rule(session: Session, say: Callable[[str], View]) -> None:
    x = session.namespace["x"] = tg.tensor(np.ones((2, 3)), requires_grad=True)
    session.look_at(x.mean() + x.sum())
    for op in ("mean", "sum"):
        number = next(k for n, k in session.focus.numbers.items() if n.op is not None and n.op.name == op)
        [one] = say(f"derive #{number}").data["inputs"]
        assert (
            one["rule"] == one["formula"]
            and np.isfinite(evaluate(one["rule"], {"g": 1.0, "x": x.numpy()})).all()
        )
        say(f"quiz #{number}")
        right = say(f"answer {one['formula']}")
        assert right.data["right"] and "_spread" not in right.text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("derive nowhere", "there is no 'nowhere'"),
        ("derive #99999", "the nodes are numbered"),
        ("quiz output.bias", "is a leaf"),
        ("quiz h[3] c", "need a gradient: a, b"),
        ("answer", "an expression is missing"),
        ("answer g *", "invalid syntax"),
        ("answer bogus", "there is no 'bogus' here"),
        ("answer logit", "did you mean logits?"),
        ("answer g = 3", "invalid syntax"),
        ("answer np.nothing(g)", "nothing"),
        ("answer g @ logits", "g @ logits: matmul"),
        ("answer 'a'", "gives a str"),
        ("answer open", "there is no 'open'"),
    ],
)
def test_bad_input_is_one_line(say: Callable[[str], View], line: str, said: str) -> None:
    if line.startswith("answer"):
        say("quiz")
    with pytest.raises(UsageError, match=re.escape(said)) as error:
        say(line)
    assert "\n" not in str(error.value)


# --- the quiz -------------------------------------------------------------------------------------


def test_every_formula_is_a_right_answer(graph: tuple[Session, str]) -> None:
    session, _ = graph
    for node, number in kinds_of_nodes(session):
        text = formula(node, number)
        if text is None:
            continue
        visit = Visit(session, node)
        label = f"#{session.focus.numbers[node]}"
        asked = run(session, f"quiz {label} {visit.inputs[number]}")
        assert asked.data["shape"] == list(contribution(visit, number).shape)
        assert run(session, f"answer {text}").data["right"]


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("h[3] a", "g * b", None),
        ("h[3] a", "b * g", None),
        ("h[3] a", "np.multiply(b, g)", None),
        ("h[3] a", "-g * b", "sign"),
        ("h[3] a", "b", "derivative alone"),
        ("h[3] a", "g", "g as it came"),
        ("h[3] a", "g * a", "the gradient of b"),
        ("h[3] a", "2 * g * b", "2 times"),
        ("h[3] a", "g * b.T", r"the shape is \(6, 6\)"),
        ("h[3] a", "(g * b).T", "transposed?"),
        ("h[3] a", "g * b + 0.01", "0 of 6 values agree"),
        ("h[3] a", "g * b * np.nan", "0 of 6"),
        ("logits b", "g", "stretched"),
        ("logits b", "g.sum(axis=(0, 1))", None),
        ("f[3]", "g * out * (1 - out)", None),
        ("f[3]", "g * out", "0 of 6 values agree"),
    ],
)
def test_answers(say: Callable[[str], View], question: str, answer: str, said: str | None) -> None:
    say(f"quiz {question}")
    view = say(f"answer {answer}")
    assert view.data["right"] is (said is None)
    if said is not None:
        assert re.search(said, view.data["why"])


def test_a_square_matrix_the_wrong_way_round(session: Session, say: Callable[[str], View]) -> None:
    rng = np.random.default_rng(0)
    a, b = (tg.tensor(rng.normal(size=(3, 3)), requires_grad=True) for _ in "ab")
    session.look_at(((a @ b) ** 2).sum())
    say("step 2")
    say("quiz")
    assert "transposed" in say("answer (g @ b.T).T").data["why"]
    assert say("answer g @ b.T").data["right"]


def test_the_ladder_of_hints(say: Callable[[str], View]) -> None:
    say("quiz f[3]")
    texts = [say("hint").data["text"] for _ in range(4)]
    assert "s (1 - s)" in texts[0] and "(1, 6)" in texts[1] and "___" in texts[2]
    assert texts[3] == "dL/dx = g * (out * (1 - out))"
    over = say("hint")
    assert "Given up" in over.title and over.data["score"] == {"asked": 1, "right": 0, "alone": 0}


def test_the_score(session: Session, say: Callable[[str], View]) -> None:
    say("quiz f[3]")
    assert say("answer g * out * (1 - out)").data["score"] == {"asked": 1, "right": 1, "alone": 1}
    say("quiz f[4]")
    say("answer g")
    say("step 3")  # is free while a question is open
    assert say("answer g * out * (1 - out)").data["score"] == {"asked": 2, "right": 2, "alone": 1}
    say("quiz f[5]")
    say("hint")
    assert say("answer g * out * (1 - out)").data["score"] == {"asked": 3, "right": 3, "alone": 1}
    session.record()  # what was asked is forgotten, and the score is not
    say("quiz f[3]")
    assert say("answer g").data["score"] == {"asked": 4, "right": 3, "alone": 1}


def test_a_question_counts_once(say: Callable[[str], View]) -> None:
    say("quiz f[3]")
    say("answer g")
    say("quiz f[3]")  # again, while it is open
    assert say("answer g * out * (1 - out)").data["score"] == {"asked": 1, "right": 1, "alone": 0}
    say("quiz f[3]")  # and after it was answered
    again = say("answer g * out * (1 - out)").data
    assert again["right"] and again["score"] == {"asked": 1, "right": 1, "alone": 0}
    say("quiz h[3] a")
    for _ in range(5):
        given_up = say("hint")
    assert "Given up" in given_up.title
    say("quiz h[3] a")
    assert say("answer g * b").data["score"] == {"asked": 2, "right": 1, "alone": 0}


@pytest.mark.parametrize("line", ["answer g", "hint"])
def test_between_two_questions(say: Callable[[str], View], line: str) -> None:
    with pytest.raises(UsageError, match="`quiz` asks one"):
        say(line)
    say("quiz f[3]")
    say("answer g * out * (1 - out)")
    with pytest.raises(UsageError, match="`quiz` asks one"):
        say(line)


def test_the_quiz_passes_leaves_over(session: Session, say: Callable[[str], View]) -> None:
    x, y = (tg.tensor(np.array([1.0, 2.0]), requires_grad=True) for _ in "xy")
    session.look_at((x.tanh() + y).sum())
    coming = [None if node.op is None else node.op.name for node in session.focus.order]
    assert coming == ["sum", "add", "tanh", None, None]
    say("step 2")
    assert say("quiz").data["op"] == "tanh"
    say("step 1")
    with pytest.raises(UsageError, match="`restart`"):
        say("quiz")


def test_the_names_of_a_question_come_first(session: Session, say: Callable[[str], View]) -> None:
    x = tg.tensor(np.ones((2, 3)), requires_grad=True)
    session.look_at(x.sum(axis=1).sum())
    say("quiz #2")
    with pytest.raises(UsageError, match="there are g, out, x, axis, keepdims"):
        say("answer bogus")


def test_the_question_is_of_the_node_that_comes_next(say: Callable[[str], View]) -> None:
    coming = say("step 4").data["next"]
    assert say("quiz").data["node"] == coming
    say("step")  # and stays of it
    assert f"asked: dL/dx0 of {coming}" in say("answer norm(g)").text(200)


def test_an_expression_leaves_nothing_behind(session: Session) -> None:
    names = {"g": np.ones(2)}
    evaluate("(h := g * 2) + 1", names)
    assert names.keys() == {"g"}
    with pytest.raises(UsageError, match="no 'h'"):
        evaluate("h", names)
    assert evaluate("[sum(g * i) for i in range(3)][2]", names) == 4.0


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["h[12]", "c[12]", "f[12]", "weight_hh_l0", "#600"])
def test_picture_of_a_derivation(
    say: Callable[[str], View], golden: Callable[[View], None], node: str
) -> None:
    golden(say(f"derive {node}"))


def test_picture_of_the_loss(say: Callable[[str], View], golden: Callable[[View], None]) -> None:
    golden(say("derive loss"))


def test_picture_of_a_question(say: Callable[[str], View], golden: Callable[[View], None]) -> None:
    golden(say("quiz h[12] b"))


def test_picture_of_a_wrong_answer(say: Callable[[str], View], golden: Callable[[View], None]) -> None:
    say("quiz h[12] b")
    golden(say("answer g * a + g"))


def test_picture_of_a_right_answer(say: Callable[[str], View], golden: Callable[[View], None]) -> None:
    say("quiz h[12] b")
    golden(say("answer g * a"))
