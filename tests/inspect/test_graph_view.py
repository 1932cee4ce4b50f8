"""`graph` and `export`: what is shown is what the nodes say, however much of it is folded."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.annotate import annotate, module_scope, time_step
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import Session, completions, run
from tinygrad_rnn.inspect.folding import Formulae, cells
from tinygrad_rnn.inspect.operands import Values

from .conftest import small


def rows(session: Session, line: str = "graph") -> list[dict]:
    return [row for section in run(session, line).data["sections"] for row in section["rows"]]


def at_prompt(session: Session, **made: tg.Tensor) -> None:
    session.namespace |= made


# --- what is alike --------------------------------------------------------------------------------


def test_every_op_is_in_one_cell_and_a_cell_has_one_op_at_each_place(each: Session) -> None:
    found = cells(each.focus, lambda node: True)
    shown = Counter(node for cell in found for run_ in cell.runs for node in run_)
    assert shown == Counter(node for node in each.focus.nodes if node.op is not None)
    for cell in found:
        for alike in zip(*cell.runs, strict=True):
            assert len({(node.op, node.name, node.module) for node in alike}) == 1
    assert sorted(len(cell.runs) for cell in found)[-2:] == [20, 20]


def test_steps_that_reach_back_otherwise_are_not_alike() -> None:
    """Steps 2 and 7 read the state of one step before, 4 and 6 that of two; 3 and 5 nobody reads."""
    session = small(layers=1)
    w = tg.tensor([0.5], requires_grad=True)
    h = [w]
    with annotate(session.observer), module_scope("mine"):
        for t in range(1, 8):
            with time_step(t):
                h.append(h[t - 1 - (t % 2 == 0 and t > 2)] * w)
    session.look_at(h[-1] + h[-2])
    steps = [cell.steps for cell in cells(session.focus, lambda node: node.module == "mine")]
    assert [some for some in steps if len(some) > 1] == [[2, 7], [4, 6]]


# --- the rows -------------------------------------------------------------------------------------


def test_formulae_computed_by_hand_give_the_value_of_the_node(each: Session) -> None:
    """Every formula that is shown, with the numbers of time step 1 put in for its names."""
    recording, values, nodes = each.recording, Values(each), each.focus.nodes
    named = {
        name.removeprefix("rnn."): parameter.numpy() for name, parameter in each.model.named_parameters()
    }
    functions = {
        "tanh": np.tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "split": lambda x: np.split(x, x.shape[-1] // 6, axis=-1),
        "state": lambda letter, layer, t: recording.values(letter, layer)[t : t + 1],
        "node": lambda number: values.of(nodes[number - 1]),
        "w": named,
    }
    checked = 0
    for row in rows(each):
        if row["op"] in ("getitem", "stack", "cross_entropy"):
            continue
        text = re.sub(r"([a-z])_l(\d)\[t-1\]", r"state('\1', \2, 0)", row["formula"])
        text = re.sub(r"([a-z])_l(\d)\[t\]", r"state('\1', \2, 1)", text).replace("[t]", "[1]")
        text = re.sub(r"#(\d+)\.(\d)", r"node(\1)[\2]", text)
        text = re.sub(r"#(\d+)", r"node(\1)", text)
        text = re.sub(r"\b(output\.\w+|(?:weight|bias)_\w+)", r"w['\1']", text)
        computed = eval(text, functions)
        np.testing.assert_allclose(
            np.concatenate(computed) if row["op"] == "split" else computed,
            np.concatenate(values.of(nodes[row["number"] - 1]))
            if row["op"] == "split"
            else values.of(nodes[row["number"] - 1]),
            rtol=1e-10,
            atol=1e-12,
            err_msg=row["formula"],
        )
        checked += 1
    assert checked >= 6


@pytest.mark.parametrize(
    "text",
    ["a - (b - c)", "a - b - c", "a * (b + c)", "(a + b) * c", "a / (b * c)", "a @ (b + c).T", "tanh(a * b)"],
)
def test_a_formula_has_the_brackets_that_it_needs(text: str) -> None:
    """Read as Python it is the node again."""
    session = small()
    names = {
        x: tg.tensor(np.array([[2.0, 3.0], [5.0, 7.0]]) + i, requires_grad=True) for i, x in enumerate("abc")
    }
    session.namespace |= names
    root = eval(text, {**names, "tanh": tg.tanh})
    session.look_at(root)
    [cell] = cells(session.focus, lambda node: True)
    formula = Formulae(session, cell, inline=True)[root.node]
    assert "#" not in formula
    again = eval(formula, {**names, "tanh": tg.tanh})
    np.testing.assert_array_equal(again.numpy(), root.numpy())


def test_norms_are_those_of_the_gradients_at_every_step(each: Session) -> None:
    found = {row["node"]: row for row in rows(each)}
    for layer in (0, 1):
        row = found[f"h_l{layer}[t]"]
        gradients = each.recording.gradients("h", layer)
        assert row["steps"] == list(range(20))
        np.testing.assert_allclose(row["gradient_norms"], np.linalg.norm(gradients, axis=1), rtol=1e-12)
    each_node = {row["number"]: row["gradient_norms"] for row in rows(each, "graph --all")}
    assert len(each_node) == len(each.focus.nodes)
    for number, [norm] in each_node.items():
        gradient = each.focus.gradients.get(each.focus.nodes[number - 1])
        parts = [part for part in gradient if part is not None] if isinstance(gradient, list) else [gradient]
        if gradient is None:
            assert norm is None
        else:
            assert norm == pytest.approx(np.sqrt(sum((part**2).sum() for part in parts)), rel=1e-12)


def test_the_state_goes_round(each: Session) -> None:
    sections = run(each, "graph --rolled").data["sections"]
    state = {"lstm": ["h_l1", "c_l1"]}.get(each.model.kind, ["h_l1"])
    assert state in [section["state"] for section in sections]
    text = run(each, "graph --rolled").text(80)
    assert f"+-> {', '.join(state)} of the step before" in text
    assert text.count(" = ") == 0 and text.count("h_l1[t] ") >= 1


def test_a_cut_is_said() -> None:
    session = small()
    session.show(0, 20, 8)
    [heading] = [
        s["heading"] for s in run(session, "graph").data["sections"] if s["heading"].startswith("rnn.l1  t")
    ]
    assert heading == "rnn.l1  t=0..19 (x20); no gradient goes back from t=8, 16"


@pytest.mark.parametrize("line", ["graph", "graph --rolled", "graph --t 3..5", "graph rnn"])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_never_more_than_a_screen_unasked(line: str, width: int) -> None:
    for layers in (1, 2, 9):
        text = run(small(layers=layers), line).text(width)
        assert len(text.splitlines()) <= 40 + (width == 40) * 3  # the title and the note take more lines
        assert ("left out" in text) or layers < 9 or line == "graph --t 3..5"


def test_all_is_all(session: Session) -> None:
    assert len(run(session, "graph --all").text().splitlines()) > len(session.focus.nodes)


def test_only_some_steps_or_a_module(session: Session) -> None:
    assert {step for row in rows(session, "graph --t 3..5") for step in row["steps"]} == {3, 4, 5}
    assert {step for row in rows(session, "graph --t 4") for step in row["steps"]} == {4}
    numbers = {row["number"] for row in rows(session, "graph rnn.l1 --t 4 --all")}
    of_module = [n for n in session.focus.nodes if n.module == "rnn.l1" and n.time_step == 4]
    assert numbers == {session.focus.numbers[node] for node in of_module}
    assert {row["op"] for row in rows(session, "graph output")} == {"transpose", "matmul", "add"}


def test_a_graph_of_the_users_own() -> None:
    session, constant = small(), tg.tensor([1.0, 3.0])
    with annotate(session.observer):
        x, w = tg.tensor([1.0, 2.0], requires_grad=True), tg.tensor([3.0, 4.0], requires_grad=True)
        y = x * w
        z = y - 1
    at_prompt(session, x=x, w=w, y=y)
    session.look_at((z * constant).sum())
    assert [(row["node"], row["formula"]) for row in rows(session)] == [
        ("x", "leaf"),
        ("w", "leaf"),
        ("y", "multiply(x, w)"),
        ("#4", "subtract(y, 1)"),
        ("#5", "multiply(#4, const)"),
        ("#6", "sum(#5)"),
    ]
    assert rows(session)[0]["gradient_norms"] == [pytest.approx(np.hypot(3, 12))]
    long = x
    for _ in range(60):
        long = tg.tanh(long + w) * w
    session.look_at(long)
    assert len(run(session, "graph").text().splitlines()) <= 40


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("graph --t 20", "0 to 19"),
        ("graph --t 5..3", "0 to 19"),
        ("graph --t h", "3..5"),
        ("graph rnn.l7", "rnn.l0, rnn.l1"),
        ("graph output --t 3", "made nothing"),
        ("graph output --rolled", "goes round"),
    ],
)
def test_bad_input_is_answered_in_one_line(session: Session, line: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        run(session, line)
    assert "\n" not in str(caught.value)


def test_modules_complete(session: Session) -> None:
    assert "rnn.l1" in completions(session, "graph rnn")


def test_shapes_are_shown_of_a_wide_model_too() -> None:
    """On 80 columns, with 128 units and 50 steps."""
    text = run(Session.small(hidden_size=128, embedding_size=64), "graph").text(80)
    assert "4 x (1, 128)" in text and "(50, 1, 128)" in text


def test_norms_are_those_of_the_gradients_shortly(session: Session) -> None:
    text = run(session, "graph rnn.l1 --t 3").text(200)
    [shown] = re.findall(r"^ h_l1\[3\].* (\d\.\de-\d+)$", text, re.M)
    assert float(shown) == pytest.approx(np.linalg.norm(session.recording.gradients("h", 1)[3]), rel=0.05)
    assert "first..last" not in text


def test_one_node_is_one(session: Session) -> None:
    x = tg.tensor(np.ones(2), requires_grad=True)
    session.look_at(x)
    assert "1 node, 0 edges" in run(session, "graph").title
    run(session, "step")
    with pytest.raises(UsageError, match="1 node was visited"):
        run(session, "step")


def test_texts(session: Session, golden) -> None:
    golden(run(session, "graph"))


def test_rolled_texts(golden) -> None:
    golden(run(small("gru", layers=1), "graph --rolled"))


def test_texts_of_one_step(session: Session, golden) -> None:
    golden(run(session, "graph rnn.l1 --t 3"))


# --- files ----------------------------------------------------------------------------------------


def parents_of(session: Session) -> Counter:
    numbers = session.focus.numbers
    return Counter((numbers[p], numbers[n]) for n in session.focus.nodes for p in n.parents if p is not None)


def test_json_has_every_node_and_edge_and_comes_back(each: Session, tmp_path: Path) -> None:
    run(each, f"export json {tmp_path / 'graph.json'}")
    graph = json.loads((tmp_path / "graph.json").read_text())
    assert graph["root"] == len(each.focus.nodes)
    assert Counter((a, b) for a, b, _, _ in graph["edges"]) == parents_of(each)
    for node, written in zip(each.focus.nodes, graph["nodes"], strict=True):
        numbers = [None if p is None else each.focus.numbers[p] for p in node.parents]
        assert written["parents"] == numbers
        assert written["op"] == (None if node.op is None else node.op.name)
        assert (written["name"], written["module"]) == (node.name, node.module)
        assert json.loads(json.dumps(node.shape)) == written["shape"]
    for parent, node, number, output in graph["edges"]:
        target = each.focus.nodes[node - 1]
        assert target.parents[number] is each.focus.nodes[parent - 1]
        assert target.output_used(number) == output
    assert run(each, "export json").data["text"] == (tmp_path / "graph.json").read_text()


def test_dot_has_every_edge_and_the_time_steps_as_clusters(each: Session) -> None:
    text = run(each, "export dot").data["text"]
    edges = Counter((int(a), int(b)) for a, b in re.findall(r"^  n(\d+) -> n(\d+);$", text, re.M))
    assert edges == parents_of(each)
    inside: list[str] = []
    where: dict[int, int | None] = {}
    for line in text.splitlines():
        if found := re.search(r"subgraph (\w+) \{", line):
            inside.append(found[1])
        elif line.strip() == "}" and inside:
            inside.pop()
        elif found := re.match(r" +n(\d+) \[", line):
            where[int(found[1])] = int(inside[0].removeprefix("cluster_t")) if inside else None
    assert where == {each.focus.numbers[node]: node.time_step for node in each.focus.nodes}
    assert text.count("{") == text.count("}")


def test_names_of_the_users_are_quoted_in_dot() -> None:
    session = small()
    x = tg.tensor([1.0], requires_grad=True)
    session.namespace['a"\\b'] = x
    session.look_at(x * 2)
    assert r'n1 [label="a\"\\b\nleaf (1,)", shape=box];' in run(session, "export dot").data["text"]


def test_svg_is_a_picture_of_the_graph(session: Session) -> None:
    text = run(session, "export svg").data["text"]
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "h_l1[t]" in "".join(root.itertext())


def test_the_text_is_shown_whole_whatever_the_width(session: Session) -> None:
    view = run(session, "export json")
    assert json.loads(view.text(40)) == json.loads(view.data["text"])


def test_a_file_is_not_overwritten(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "graph.dot"
    file.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        run(session, f"export dot {file}")
    assert file.read_text() == "mine"
    with pytest.raises(UsageError, match="invalid choice"):
        run(session, "export png")
