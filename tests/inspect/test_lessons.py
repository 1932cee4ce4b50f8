"""The lessons: each runs whole, and what it says is what its pictures show."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import COMMANDS, Session, run
from tinygrad_rnn.inspect.lesson import Piece, lessons, read

NUMBERS = [lesson.number for lesson in lessons()]
WIDTHS = (40, 80, 200)


@cache
def shown(number: int) -> list[dict[str, Any]]:
    """What a lesson shows, as data, in order."""
    return run(Session.small(), f"lesson {number} --all").data["shown"]


def views(pieces: list[dict[str, Any]], command: str) -> list[dict[str, Any]]:
    """The data of each time that a command was run."""
    return [piece["view"] for piece in pieces if piece.get("command") == command]


def results(pieces: list[dict[str, Any]], code: str) -> list[Any]:
    return [eval(piece["result"]) for piece in pieces if piece.get("python") == code]


def text(number: int) -> str:
    return " ".join(
        piece.text for part in lessons()[number - 1].parts for piece in part if piece.kind == "text"
    )


# --- giving a lesson ------------------------------------------------------------------------------


def test_there_are_lessons_on_what_a_lecture_tells() -> None:
    words = ["sum of products", "vanishes", "explosion", "LSTM carries", "Truncated", "GRU against LSTM"]
    for lesson, word in zip(lessons(), words, strict=True):
        assert word in lesson.title
    view = run(Session.small(), "lesson")
    assert list(view.data["lessons"].values()) == [lesson.title for lesson in lessons()]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_lesson_runs_whole_and_leaves_all_as_it_was(number: int) -> None:
    session = Session.small()
    session.namespace |= {"x": 1, "model": "mine"}
    before, names = copy.copy(vars(session)), dict(session.namespace)
    weights = session.model.state_dict()
    view = run(session, f"lesson {number} --all")
    for width in WIDTHS:
        assert all(len(line) <= width for line in view.text(width).splitlines())
    view.json()
    assert vars(session) == before and session.namespace == names
    for name, array in session.model.state_dict().items():
        np.testing.assert_array_equal(array, weights[name])


@pytest.mark.parametrize("number", NUMBERS)
def test_part_by_part_is_the_same_lesson(number: int) -> None:
    session = Session.small()
    recording, model = session.recording, session.model
    seen, view = [], run(session, f"lesson {number}")
    while "lesson" in view.data:
        seen += view.data["shown"]
        assert session.model is not model and session.namespace["model"] is session.model
        view = run(session, "lesson" if len(seen) % 2 else "lesson next")
    assert seen == shown(number)
    assert session.recording is recording and session.lesson is None and "model" not in session.namespace


def test_between_the_parts_the_lesson_s_model_is_there() -> None:
    session = Session.small()
    recording, observer, namespace = session.recording, session.observer, session.namespace
    run(session, "lesson 2")
    assert session.model.kind == "rnn" and session.observer is observer and session.namespace is namespace
    assert run(session, "flow --from 49").data["decay"]["h_l0"] < 0.6
    run(session, "train 2")
    namespace["own"] = 5
    assert run(session, "lesson next").data["part"] == 2
    run(session, "lesson end")
    assert session.recording is recording and session.trainer is None and namespace["own"] == 5


def test_another_lesson_takes_the_place_of_one() -> None:
    session = Session.small()
    model = session.model
    session.namespace["x"] = "mine"
    run(session, "lesson 1")
    assert isinstance(session.namespace["x"], tg.Tensor)
    run(session, "lesson 6")
    assert session.model.kind == "gru" and session.namespace["x"] == "mine"
    run(session, "lesson end")
    assert session.model is model


@pytest.mark.parametrize(
    "line, word",
    [
        ("7", "say 1 to 6"),
        ("0", "say 1 to 6"),
        ("vanishing", "say 1 to 6"),
        ("next", "none is being given"),
        ("end", "none is being given"),
        ("--all", "lesson 2 --all"),
        ("next --all", "lesson 2 --all"),
    ],
)
def test_no_such_lesson(line: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(Session.small(), f"lesson {line}")
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_a_part_that_fails_can_be_left() -> None:
    session = Session.small()
    run(session, "lesson 1")
    run(session, "lesson next")
    del session.namespace["y"]
    with pytest.raises(UsageError, match="lesson 1: f = x \\* y \\+ x \\* z: NameError"):
        run(session, "lesson next")
    run(session, "lesson end")
    assert session.lesson is None and "y" not in session.namespace


def test_how_a_lesson_is_written() -> None:
    lesson = read(
        3,
        "Title\nsession kind=rnn layers=1 scale=1.5\n\none\ntwo\n    x = y\n    y = z\nthree\n\nfour\n"
        "> flow --from 3\n>>> for i in a:\n...     b\n>>> c\n---\nfive\n",
    )
    assert (lesson.title, lesson.settings) == ("Title", {"kind": "rnn", "layers": 1, "scale": 1.5})
    assert lesson.parts == [
        [
            Piece("text", "one two"),
            Piece("formula", "    x = y\n    y = z"),
            Piece("text", "three"),
            Piece("text", "four"),
            Piece("command", "flow --from 3"),
            Piece("python", "for i in a:\n    b"),
            Piece("python", "c"),
        ],
        [Piece("text", "five")],
    ]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_lesson_speaks_of_commands_that_there_are(number: int) -> None:
    for part in lessons()[number - 1].parts:
        for piece in part:
            if piece.kind == "command":
                assert piece.text.split()[0] in COMMANDS


# --- what they say --------------------------------------------------------------------------------


def test_lesson_1_the_gradients_are_those_by_hand() -> None:
    pieces = shown(1)
    assert results(pieces, "x.grad.item(), y.grad.item(), z.grad.item()") == [(-4.0, -4.0, 3.0)]
    [slope] = results(pieces, "(((x + h + y) * z - f) / h).item()")
    assert slope == pytest.approx(-4, abs=0.01)
    [(weights, bias)] = results(pieces, "w.grad.tolist(), b.grad.item()")
    s = 1 / (1 + np.exp(-1))
    assert weights == pytest.approx([-s * (1 - s), -2 * s * (1 - s)]) and bias == pytest.approx(s * (1 - s))
    [saturated] = results(pieces, "saturated.grad.item()")
    assert saturated == pytest.approx(1 / (1 + np.exp(-10)) / (1 + np.exp(10)), rel=1e-3)


def by_hand(session: Session, step: int) -> np.ndarray:
    """(T,): the norm of the gradient of the loss at `step` in h of the only layer, by the cell itself."""
    model, state = session.model, session.recording.state
    state = None if state is None else state if isinstance(state, tuple) else (state,)
    states = [s[0] for s in state] if state is not None else []
    hidden = []
    cell = {"rnn": tg.nn.RNNCell, "lstm": tg.nn.LSTMCell, "gru": tg.nn.GRUCell}[model.kind](
        model.rnn.input_size, model.rnn.hidden_size
    )
    cell.load_state_dict({n[:-3]: p.numpy() for n, p in model.rnn.named_parameters()})
    for symbol in session.recording.symbols:
        x = model.embedding(np.array([symbol]))
        given = tuple(states) if len(states) > 1 else states[0]
        after = cell(x, given)
        states = list(after) if isinstance(after, tuple) else [after]
        hidden.append(states[0])
    loss = tg.cross_entropy(model.output(hidden[step]), tg.tensor(session.recording.targets[step : step + 1]))
    found = tg.grad(loss, hidden, allow_unused=True)
    return np.array([0.0 if g is None else np.linalg.norm(g.numpy()) for g in found])


@pytest.mark.parametrize("number, kept", [(2, 0.48), (3, 1.16), (4, 0.81), (6, 0.64)])
def test_what_a_step_back_keeps(number: int, kept: float) -> None:
    session = Session.small()
    run(session, f"lesson {number}")
    norms = by_hand(session, 49)
    np.testing.assert_allclose(run(session, "flow --from 49").data["norms"]["h_l0"], norms, rtol=2e-3)
    decay = np.exp(-np.polyfit(np.arange(50), np.log(norms), 1)[0])
    assert decay == pytest.approx(kept, abs=0.01)


def test_lesson_2_the_gradient_vanishes() -> None:
    pieces = shown(2)
    narrow, wide = views(pieces, "flow --from 49")
    norms = narrow["norms"]["h_l0"]
    assert norms[0] < 1e-12 * norms[-1] and "more than a million million times smaller" in text(2)
    [jacobians] = views(pieces, "flow --jac")
    assert max(jacobians["step"]) < 1 and np.median(jacobians["step"]) == pytest.approx(0.9, abs=0.02)
    assert jacobians["decay"] < 0.5
    [mean] = views(pieces, "flow")
    assert mean["decay"]["h_l0"] == pytest.approx(1, abs=0.01)  # its row stays level
    wide_norms = wide["norms"]["h_l0"]
    assert narrow["decay"]["h_l0"] < wide["decay"]["h_l0"] < 1 and wide_norms[0] < 1e-3 * wide_norms[-1]


def test_lesson_3_clipping_tames_what_explodes() -> None:
    pieces = shown(3)
    before, after = views(pieces, "flow --from 49")
    norms = before["norms"]["h_l0"]
    assert 500 < norms[0] / norms[-1] < 2000 and before["decay"]["h_l0"] == pytest.approx(1.16, abs=0.01)
    assert after["decay"]["h_l0"] < 1
    [norm] = results(pieces, "norm")
    [first] = results(pieces, "clip_grad_norm_(model.parameters(), 0.5)")
    [second] = results(pieces, "round(clip_grad_norm_(model.parameters(), 0.5), 4)")
    assert first == pytest.approx(norm) and second == pytest.approx(0.5)
    [wild], [tame] = results(pieces, "wild"), results(pieces, "tame")
    assert sum(loss > 4.2 for loss in wild) >= 10
    assert np.mean(tame[-10:]) < min(3.2, np.mean(wild[-10:]) - 0.5)


def test_lesson_4_the_cell_carries_the_gradient() -> None:
    pieces = shown(4)

    def decay(changes: str) -> tuple[float, float]:
        [view] = views(pieces, f"what-if {changes}")
        return tuple(float(d["c_l0"]) for d in view["decay"])  # type: ignore[return-value]

    before, opened = decay("f=1")
    assert before == pytest.approx(0.82, abs=0.01) and 1 <= opened < 1.05
    assert decay("f=0.5")[1] < 0.65
    [no_cell] = views(pieces, "what-if dc*0")
    assert no_cell["decay"][1]["h_l0"] == pytest.approx(0.05, abs=0.015)
    alone = decay("di*0, df*0, dg*0, do*0")[1]
    gates = views(pieces, "gates")[0]
    assert 0.7 < alone < before and np.mean(gates["mean"]["f"]) == pytest.approx(0.72, abs=0.01)
    assert decay("f=1, di*0, df*0, dg*0, do*0")[1] == pytest.approx(1, abs=1e-6)


def test_lesson_5_truncation_cuts_the_gradient_and_nothing_else() -> None:
    pieces = shown(5)
    cut, whole = views(pieces, "flow --from 49")
    assert not any(cut["norms"]["h_l0"][:40]) and all(cut["norms"]["h_l0"][40:])
    assert all(whole["norms"]["h_l0"])
    [once] = views(pieces, "what-if cut 25")
    assert once["losses"][0] == once["losses"][1]
    share = {name: once["weights"][1][name] / norm for name, norm in once["weights"][0].items()}
    assert all(0.9 < x < 1 for name, x in share.items() if name.startswith("rnn"))
    assert share["output.weight"] == share["output.bias"] == 1
    session = Session.small()
    run(session, "lesson 5")
    run(session, "window --truncate 1")
    norm = float(np.linalg.norm(session.model.rnn.weight_hh_l0.grad.numpy()))
    assert norm / once["weights"][0]["rnn.weight_hh_l0"] == pytest.approx(1 / 3, abs=0.04)


def test_lesson_6_the_update_gate_does_what_the_forget_gate_does() -> None:
    pieces = shown(6)
    [compared] = views(pieces, "compare rnn lstm gru")
    decays = {kind: one["decay"] for kind, one in compared["kinds"].items()}
    assert decays["rnn"] < decays["gru"] < decays["lstm"]
    [half] = views(shown(4), "what-if f=0.5")
    assert half["decay"][1]["h_l0"] == pytest.approx(decays["gru"], abs=0.02)
    [most], [all_] = views(pieces, "what-if z=0.75"), views(pieces, "what-if z=1")
    assert most["decay"][1]["h_l0"] == pytest.approx(decays["lstm"], abs=0.03)
    assert all_["decay"][1]["h_l0"] == pytest.approx(1, abs=1e-6)
    assert not any(norm for name, norm in all_["weights"][1].items() if name.startswith("rnn"))
    untrained, trained = views(pieces, "gates")
    assert (
        np.mean(untrained["mean"]["z"]) == pytest.approx(0.5, abs=0.02)
        and np.mean(trained["mean"]["z"]) < 0.4
    )
