"""`cd`, `ls`, `up`, `down`, `grads`, `params`, `hist`: each number against NumPy, or computed another way."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops.loss import cross_entropy
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import Session, completions, run
from tinygrad_rnn.inspect.address import label
from tinygrad_rnn.inspect.do import LR
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.optim import Adam

from .conftest import small


def a_copy(session: Session) -> CharLM:
    """Of the model, with the gradients of the window by its fused kernels and backward()."""
    model = session.model
    sizes = (model.embedding.weight.shape[1], model.rnn.hidden_size, model.rnn.num_layers)
    made = CharLM(len(session.vocabulary), model.kind, *sizes).eval()
    for mine, its in zip(made.parameters(), model.parameters(), strict=True):
        mine.array = its.numpy()
        mine.node = tg.tensor(mine.array, requires_grad=True).node
    logits, _ = made(session.recording.symbols[:, None])
    cross_entropy(logits, tg.tensor(session.recording.targets[:, None])).backward()
    return made


# --- cards ----------------------------------------------------------------------------------------


def test_a_card_has_the_numbers_of_its_node(each: Session) -> None:
    data = run(each, "cd h[3]").data
    value = each.recording.values("h", 1)[3]
    gradient = each.recording.gradients("h", 1)[3]
    for found, array in ((data["value"], value), (data["gradient"], gradient)):
        expected = [array.min(), array.mean(), array.max(), np.sqrt((array**2).sum()), array.std()]
        np.testing.assert_allclose([found[k] for k in ("min", "mean", "max", "norm", "std")], expected)
        assert (found["zero"], found["not finite"]) == (0, 0)
    assert (data["module"], data["time_step"], data["name"]) == ("rnn.l1", 3, "hidden state")
    node = each.recording.node("h", 1, 3)
    assert data["shape"] == (1, 6) and data["op"] == node.op.name
    assert data["formula"] == node.op.derivative()
    assert each.here is node


def test_the_gradient_of_a_card_is_the_slope_of_the_loss(session: Session) -> None:
    """min and max of dL/db of the output layer, by central differences."""
    data = run(session, "cd output.bias").data
    bias = session.model.output.bias
    slopes = []
    for place in range(bias.size):
        ends = []
        for step in (1e-5, -1e-5):
            bias.array[place] += step
            ends.append(float(session.run().loss.item()))
            bias.array[place] -= step
        slopes.append((ends[0] - ends[1]) / 2e-5)
    expected = [min(slopes), max(slopes), np.linalg.norm(slopes)]
    np.testing.assert_allclose([data["gradient"][k] for k in ("min", "max", "norm")], expected, rtol=1e-5)


def test_zeros_and_what_is_not_finite_are_counted_apart() -> None:
    session = small()
    x = tg.tensor(np.array([0.0, 0.0, np.inf, np.nan, 3.0]), requires_grad=True)
    session.namespace["x"] = x
    session.look_at(x * 2)
    found = run(session, "cd x").data["value"]
    assert (found["zero"], found["not finite"], found["max"], found["mean"]) == (0.4, 0.4, 3.0, 1.0)
    assert "40.0%" in run(session, "cd x").text()


def test_several_outputs_are_taken_together(session: Session) -> None:
    node = session.recording.node("i", 0, 3).parents[0]
    data = run(session, f"cd #{session.focus.numbers[node]}").data
    parts = [part for part in session.focus.gradients[node] if part is not None]
    assert len(parts) == 4
    expected = np.sqrt(sum(float((part**2).sum()) for part in parts))
    assert data["gradient"]["norm"] == pytest.approx(expected)


def test_saved_bytes(session: Session) -> None:
    """multiply keeps both factors, (1, 6) in float64 each."""
    assert run(session, "cd h[3]").data["saved_bytes"] == 2 * 6 * 8


# --- walking --------------------------------------------------------------------------------------


def test_down_and_up_go_along_the_edges(each: Session) -> None:
    run(each, "cd h[5]")
    node = each.recording.node("h", 1, 5)
    for place, parent in enumerate(node.parents, 1):
        if parent is None:
            continue
        run(each, "cd h[5]")
        run(each, f"down {place}")
        assert each.here is parent
        users = [user for user, _ in each.focus.users[parent]]
        run(each, f"up {users.index(node) + 1}")
        assert each.here is node


def test_up_always_ends_at_the_loss_and_down_at_a_leaf(each: Session) -> None:
    run(each, "cd h[0]")
    for _ in range(len(each.focus.nodes)):
        if each.here is None:
            break
        run(each, "up")
    assert each.here is None
    with pytest.raises(UsageError, match="loss is where the backward pass begins"):
        run(each, "up")
    for _ in range(len(each.focus.nodes)):
        run(each, "down")
        if each.here.op is None:
            break
    with pytest.raises(UsageError, match="is a leaf"):
        run(each, "down")
    assert "no inputs" in run(each, "ls").text()
    assert "begins here" in (run(each, "cd"), run(each, "ls"))[1].text()


def test_ls_lists_inputs_and_users_in_order(each: Session) -> None:
    run(each, "cd rnn.weight_hh_l0")
    data = run(each, "ls").data
    node = each.model.rnn.weight_hh_l0.node
    assert data["users"] == [n for n, one in enumerate(each.focus.nodes, 1) if node in one.parents]
    assert len(data["users"]) == 20
    run(each, "up 7")
    assert each.focus.numbers[each.here] == data["users"][6]
    run(each, "cd h[5]")
    node = each.here
    found = run(each, "ls")
    assert found.data["parents"] == [p and each.focus.numbers[p] for p in node.parents]
    for parent in node.parents:
        assert label(each, parent) in found.text()


def test_walk_shows_where_one_stands(each: Session) -> None:
    assert run(each, "walk").data["label"] == "loss"
    there = run(each, "cd h[5]")
    assert run(each, "walk").text() == there.text() and each.here is each.recording.node("h", 1, 5)


def test_cd_alone_goes_to_the_loss(session: Session) -> None:
    run(session, "cd c[3]")
    assert run(session, "cd").data["label"] == "loss"
    assert session.here is None


@pytest.mark.parametrize(
    ("start", "line", "says"),
    [
        ("cd h[3]", "up 9", "has 2 users"),
        ("cd h[3]", "down 0", "has 2 inputs"),
        ("cd", "down 2", "targets needs no gradient"),
        ("cd", "cd q[3]", "it has h, c"),
        ("cd", "cd h[99]", "0 to 19"),
        ("cd", "cd nothing", "there is no 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(session: Session, start: str, line: str, says: str) -> None:
    run(session, start)
    here = session.here
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        run(session, line)
    assert "\n" not in str(caught.value) and session.here is here


# --- parameters -----------------------------------------------------------------------------------


def test_gradients_are_those_of_backward(each: Session) -> None:
    found = {row["name"]: row for row in run(each, "grads").data["rows"]}
    copied = dict(a_copy(each).named_parameters())
    assert [*found] == [*copied]
    for name, parameter in copied.items():
        gradient, weight, row = parameter.grad.numpy(), parameter.numpy(), found[name]
        assert row["gradient"] == pytest.approx(np.linalg.norm(gradient), rel=1e-9)
        assert row["weight"] == pytest.approx(np.linalg.norm(weight), rel=1e-9)
        assert row["mean"] == pytest.approx(gradient.mean(), rel=1e-7, abs=1e-15)
        assert row["zero"] == np.count_nonzero(gradient == 0) / gradient.size
        assert row["bad"] == 0
    # the rows of symbols that the window does not read
    read = np.unique(each.recording.symbols).size
    assert found["embedding.weight"]["zero"] == pytest.approx(1 - read / len(each.vocabulary))


def test_the_update_is_one_of_the_optimiser_that_trains() -> None:
    """By the very step that `train` would make next, from the same gradients."""
    session = Session.small(length=10)
    run(session, "train 1 --lr 0.01")
    assert run(session, "grads").data["lr"] == session.trainer.config.lr == 0.01  # type: ignore[union-attr]
    from tinygrad_rnn.training import TrainConfig

    session = small()
    session.config = TrainConfig(corpus="harbour", optimizer="sgd", lr=0.5, weight_decay=0.1)
    data = run(session, "grads").data
    assert data["optimizer"] == "SGD"
    for row in data["rows"]:
        weight = dict(session.model.named_parameters())[row["name"]]
        change = 0.5 * (weight.grad.numpy() + 0.1 * weight.numpy())
        assert row["ratio"] == pytest.approx(np.linalg.norm(change) / np.linalg.norm(weight.numpy()))


@pytest.mark.parametrize("lr", [None, 0.05])
def test_the_update_is_that_of_a_step_of_adam(each: Session, lr: float | None) -> None:
    if lr is not None:
        from tinygrad_rnn.training import TrainConfig

        each.config = TrainConfig(corpus="harbour", lr=lr)
    before = each.model.state_dict()
    found = {row["name"]: row["ratio"] for row in run(each, "grads").data["rows"]}
    copied = a_copy(each)
    Adam(copied.parameters(), lr or LR).step()
    for name, parameter in copied.named_parameters():
        change = np.linalg.norm(parameter.numpy() - before[name])
        assert found[name] == pytest.approx(change / np.linalg.norm(before[name]), rel=1e-6)
        np.testing.assert_array_equal(each.model.state_dict()[name], before[name])


def test_grads_are_sorted_and_filtered(session: Session) -> None:
    for column in ("weight", "gradient", "mean", "zero", "ratio"):
        numbers = [row[column] for row in run(session, f"grads --sort {column}").data["rows"]]
        assert numbers == sorted(numbers, reverse=True)
    names = [row["name"] for row in run(session, "grads --sort name --filter weight_hh").data["rows"]]
    assert names == ["rnn.weight_hh_l0", "rnn.weight_hh_l1"]
    with pytest.raises(UsageError, match=r"there are embedding\.weight"):
        run(session, "grads --filter foo")
    with pytest.raises(UsageError, match="choose from"):
        run(session, "grads --sort foo")


def test_what_is_not_finite_and_what_is_missing_has_its_place(session: Session) -> None:
    tape = session.focus
    nodes = {name: parameter.node for name, parameter in session.model.named_parameters()}
    tape.gradients[nodes["output.bias"]][0] = np.nan
    del tape.gradients[nodes["output.weight"]]
    rows = run(session, "grads --sort gradient").data["rows"]
    assert (rows[0]["name"], rows[-1]["name"]) == ("output.bias", "output.weight")
    assert rows[0]["bad"] == pytest.approx(1 / session.model.output.bias.size)
    assert rows[-1]["gradient"] is rows[-1]["ratio"] is None
    assert "none" in run(session, "grads").text()


def test_params_are_counted(each: Session) -> None:
    data = run(each, "params").data
    assert data["total"] == each.model.num_parameters() == sum(row["count"] for row in data["rows"])
    state = each.model.state_dict()
    for row in data["rows"]:
        array = state[row["name"]]
        expected = [array.mean(), array.std(), array.min(), array.max()]
        np.testing.assert_allclose([row[key] for key in ("mean", "std", "min", "max")], expected, rtol=1e-12)
        assert row["shape"] == array.shape and row["count"] == array.size


def test_leaves_of_the_users_own() -> None:
    session = small()
    x, w = tg.tensor(np.array([1.0, 2.0]), requires_grad=True), tg.tensor(np.array([3.0]), requires_grad=True)
    session.namespace |= {"x": x, "w": w}
    session.look_at((x * w).sum())
    rows = {row["name"]: row for row in run(session, "grads").data["rows"]}
    assert rows["x"]["gradient"] == pytest.approx(np.sqrt(18)) and rows["w"]["gradient"] == pytest.approx(3)
    assert run(session, "params").data["total"] == 3


# --- histograms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["hist weight_hh_l0", "hist weight_hh_l0 --grad --bins 5", "hist h[3]"])
def test_bars_count_every_number_once(each: Session, line: str) -> None:
    data = run(each, line).data
    node = each.model.rnn.weight_hh_l0.node
    numbers = {
        "hist weight_hh_l0": each.model.rnn.weight_hh_l0.numpy(),
        "hist weight_hh_l0 --grad --bins 5": each.focus.gradients[node],
        "hist h[3]": each.recording.values("h", 1)[3],
    }[line].ravel()
    ends = np.linspace(numbers.min(), numbers.max(), len(data["counts"]) + 1)
    np.testing.assert_allclose(data["ends"], ends, rtol=1e-9, atol=1e-15)
    expected = [
        sum(1 for x in numbers if low <= x < high or (high == ends[-1] and x == high))
        for low, high in zip(data["ends"][:-1], data["ends"][1:], strict=True)
    ]
    if data["ends"][-1] == ends[-1]:
        assert list(data["counts"]) == expected
    assert sum(data["counts"]) == numbers.size == data["size"]


def test_hist_sets_apart_what_is_not_finite() -> None:
    session = small()
    x = tg.tensor(np.array([0.0, 1.0, np.inf, np.nan, 3.0]), requires_grad=True)
    session.namespace |= {"x": x, "y": tg.tensor(np.array([np.nan]), requires_grad=True)}
    session.look_at((x * session.namespace["y"]).sum())
    data = run(session, "hist x").data
    assert sum(data["counts"]) + data["bad"] == data["size"] == 5
    assert (data["bad"], data["zero"]) == (2, 1)
    assert "no finite number" in run(session, "hist y").text()


@pytest.mark.parametrize("value", [1e200, 1e17])
def test_hist_of_numbers_with_nothing_between_them(value: float) -> None:
    session = small()
    x = session.namespace["x"] = tg.tensor(np.array([value, np.nextafter(value, np.inf)]), requires_grad=True)
    session.look_at(x.sum())
    data = run(session, "hist x").data
    assert list(data["counts"]) == [2] and list(data["ends"]) == list(x.numpy())


def test_hist_of_where_one_stands(session: Session) -> None:
    run(session, "cd c_l0[4]")
    assert run(session, "hist").data["label"] == "c_l0[4]"
    with pytest.raises(UsageError, match="1 to 200"):
        run(session, "hist --bins 0")


def test_a_value_that_no_gradient_reached(session: Session) -> None:
    node = session.recording.node("h", 0, 2)
    del session.focus.gradients[node]
    with pytest.raises(UsageError, match="no gradient reached"):
        run(session, "hist h_l0[2] --grad")
    assert "no gradient reached it" in run(session, "cd h_l0[2]").text()


# --- texts ----------------------------------------------------------------------------------------


def test_names_complete(session: Session) -> None:
    assert "rnn.weight_hh_l1" in completions(session, "hist rnn.w")
    assert "h_l0[3]" in completions(session, "cd h_l0[3")
    assert {"gradient", "ratio"} <= {*completions(session, "grads --sort ")}


def test_card_texts(session: Session, golden) -> None:
    golden(run(session, "cd h[3]"))


def test_ls_texts(session: Session, golden) -> None:
    run(session, "cd c[3]")
    golden(run(session, "ls"))


def test_grads_texts(session: Session, golden) -> None:
    golden(run(session, "grads --filter weight_hh --sort gradient"))


def test_params_texts(session: Session, golden) -> None:
    golden(run(session, "params"))


def test_hist_texts(session: Session, golden) -> None:
    golden(run(session, "hist weight_hh_l0 --grad"))
