"""The lessons: each runs whole, and what it says is what its pictures show."""

from __future__ import annotations

import copy
import re
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import GraphError, UsageError
from tinygrad_rnn.inspect import COMMANDS, Session, run, what_if
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


def says(number: int, words: str) -> bool:
    """Whether the lesson has these words: what is checked beside it is what a student reads."""
    pieces = (piece for part in lessons()[number - 1].parts for piece in part if piece.kind == "text")
    assert words in " ".join(piece.text for piece in pieces), f"lesson {number} no longer says {words!r}"
    return True


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
        ("²", "say 1 to 6"),
        ("² --all", "lesson 2 --all"),
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


@pytest.mark.parametrize("number", NUMBERS)
def test_looking_around_does_not_change_what_the_next_part_shows(number: int) -> None:
    session = Session.small()
    seen = run(session, f"lesson {number}").data["shown"]
    while session.lesson.part < len(session.lesson.lesson.parts):
        namespace = session.namespace
        tensors = [x for x in namespace.values() if isinstance(x, tg.Tensor) and x.requires_grad]
        for x in tensors:
            with suppress(GraphError):  # freed already
                x.sum().backward()
        namespace["own"] = tg.tensor([1.0, 2.0], requires_grad=True)
        run(session, "window --at 3 --length 7 --truncate 2")
        run(session, "what-if --keep dh*0, cut 3")
        run(session, "train 2")
        run(session, "focus own * 2")
        with tg.no_grad():
            session.model.rnn.weight_hh_l0 *= 3
        for name in [*session.lesson.names]:
            namespace[name] = 5
        seen += run(session, "lesson next").data["shown"]
    assert seen == shown(number)


def test_a_part_builds_on_the_lesson_s_own_model() -> None:
    session = Session.small()
    run(session, "lesson 4")
    own = session.model
    run(session, "train 1")
    session.become(Session.small(kind="rnn"))
    assert run(session, "lesson next").data["shown"] and session.model is own and session.trainer is None


@pytest.mark.parametrize("error", [UsageError("no such window"), KeyboardInterrupt()])
def test_a_part_that_fails_leaves_nothing_behind(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session.small()
    run(session, "lesson 2")
    run(session, "lesson next")
    run(session, "lesson next")
    weights, names = session.model.state_dict(), dict(session.namespace)

    def fail(*given: object) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setitem(COMMANDS, "window", replace(COMMANDS["window"], function=fail))
        for _ in range(2):  # the Python before it doubles W_hh, and gives a name
            with pytest.raises(type(error)) as caught:
                run(session, "lesson next")
            if isinstance(error, UsageError):
                assert "`lesson end` leaves the lesson" in str(caught.value)
                assert str(caught.value).startswith("lesson 2: no such window; ")
    for name, array in session.model.state_dict().items():
        np.testing.assert_array_equal(array, weights[name])
    assert session.namespace == names and session.lesson.part == 3
    assert run(session, "lesson next").data["shown"] == part(2, 4)
    run(session, "lesson end")
    assert session.lesson is None and "tg" not in session.namespace


def part(number: int, which: int) -> list[dict[str, Any]]:
    """What a part of a lesson shows, as data."""
    parts = lessons()[number - 1].parts
    start = sum(map(len, parts[: which - 1]))
    return shown(number)[start : start + len(parts[which - 1])]


def test_python_that_fails_is_named() -> None:
    session = Session.small()
    run(session, "lesson 1")
    [piece] = [piece for piece in lessons()[0].parts[1] if piece.text.startswith("h =")]
    given = session.lesson
    given.lesson = replace(
        given.lesson, parts=[given.lesson.parts[0], [replace(piece, text="h = y / nothing")]]
    )
    with pytest.raises(UsageError, match="lesson 1: h = y / nothing: NameError: name 'nothing' is not"):
        run(session, "lesson next")


def test_what_the_user_calls_by_a_name_of_the_lesson_stays() -> None:
    session = Session.small()
    names = session.namespace
    names |= {"x": "before", "y": "before"}
    run(session, "lesson 1")
    names["f"] = names["x"] = 5
    del names["y"]
    run(session, "lesson end")
    assert (names["f"], names["x"], names["y"]) == (5, 5, "before") and "q" not in names
    run(session, "lesson 1")
    names["f"] = 7
    run(session, "lesson next")  # needs its own f
    assert isinstance(names["f"], tg.Tensor)
    run(session, "lesson end")
    assert names["f"] == 7


def test_where_a_node_was_made_is_a_line_of_the_lesson() -> None:
    pieces = run(session := Session.small(), "lesson 1").data["shown"]
    lines = [line for piece in pieces for line in piece.get("python", "").splitlines()]
    number = lines.index("f = q * z") + 1
    assert session.namespace["f"].node.location == f"<lesson 1>:{number}"
    assert f"<lesson 1>:{number}  f = q * z" in run(session, "lesson next").text()


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
def test_what_a_lesson_sets_in_backticks_is_a_command(number: int) -> None:
    quoted = {
        words
        for part in lessons()[number - 1].parts
        for piece in part
        for words in re.findall("`([^`]*)`", piece.text)
    }
    for words in quoted:
        known = COMMANDS.get(words.split()[0])
        assert words.startswith("trnn train") or known, f"`{words}` is no command"
        for flag in re.findall(r"--\w+", words) if known else ():
            assert any(flag in given.names for given in known.options), words  # type: ignore[union-attr]


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
    assert says(1, "0.731 times 0.269, which is 0.197") and s == pytest.approx(0.731, abs=5e-4)
    assert s * (1 - s) == pytest.approx(0.197, abs=5e-4)
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


@pytest.mark.parametrize(
    "number, words, kept, within",
    [
        (2, "Each step back leaves about half of it", 0.5, 0.03),
        (3, "by about 16% a step", 1.16, 0.005),
        (4, "leaves about four fifths of the gradient", 0.8, 0.02),
        (6, "", 0.64, 0.01),
    ],
)
def test_what_a_step_back_keeps(number: int, words: str, kept: float, within: float) -> None:
    says(number, words)
    session = Session.small()
    run(session, f"lesson {number}")
    norms = by_hand(session, 49)
    np.testing.assert_allclose(run(session, "flow --from 49").data["norms"]["h_l0"], norms, rtol=2e-3)
    decay = np.exp(-np.polyfit(np.arange(50), np.log(norms), 1)[0])
    assert decay == pytest.approx(kept, abs=within)


def test_lesson_2_the_gradient_vanishes() -> None:
    pieces = shown(2)
    narrow, wide = views(pieces, "flow --from 49")
    norms = narrow["norms"]["h_l0"]
    assert norms[0] < 1e-12 * norms[-1] and says(2, "more than a million million times smaller")
    [jacobians] = views(pieces, "flow --jac")
    assert says(2, "all these values are below 1") and max(jacobians["step"]) < 1
    assert says(2, "might leave 0.9 of it, and the product leaves less than 0.5 a step")
    assert np.median(jacobians["step"]) == pytest.approx(0.9, abs=0.02)
    assert jacobians["decay"] < 0.5
    [mean] = views(pieces, "flow")
    assert says(2, "the row stays level") and mean["decay"]["h_l0"] == pytest.approx(1, abs=0.01)
    wide_norms = wide["norms"]["h_l0"]
    assert narrow["decay"]["h_l0"] < wide["decay"]["h_l0"] < 1 and wide_norms[0] < 1e-3 * wide_norms[-1]


def test_lesson_3_clipping_tames_what_explodes() -> None:
    pieces = shown(3)
    before, after = views(pieces, "flow --from 49")
    norms = before["norms"]["h_l0"]
    assert says(3, "some 1,300 times as much") and norms[0] / norms[-1] == pytest.approx(1300, rel=0.05)
    assert says(3, "The decay is below 1 now") and after["decay"]["h_l0"] < 1
    assert says(3, "the RNN that lesson 2 begins with")
    second, third = Session.small(), Session.small()
    run(second, "lesson 2")
    run(third, "lesson 3")
    for name, array in second.model.state_dict().items():
        scale = 4 if name == "rnn.weight_hh_l0" else 1
        np.testing.assert_allclose(third.model.state_dict()[name], scale * array, rtol=1e-6)
    [norm] = results(pieces, "norm")
    [first] = results(pieces, "clip_grad_norm_(model.parameters(), 0.5)")
    [second] = results(pieces, "round(clip_grad_norm_(model.parameters(), 0.5), 4)")
    assert first == pytest.approx(norm) and second == pytest.approx(0.5)
    [wild], [tame] = results(pieces, "wild"), results(pieces, "tame")
    assert says(3, "beyond the 4.1 that guessing costs") and len(wild) == 60
    assert np.log(len(third.vocabulary)) == pytest.approx(4.1, abs=0.05)
    assert sum(loss > 4.2 for loss in wild) >= 10
    assert np.mean(tame[-10:]) < min(3.2, np.mean(wild[-10:]) - 0.5)


def test_lesson_4_the_cell_carries_the_gradient() -> None:
    pieces = shown(4)

    def decay(changes: str) -> tuple[float, float]:
        [view] = views(pieces, f"what-if {changes}")
        return tuple(float(d["c_l0"]) for d in view["decay"])  # type: ignore[return-value]

    before, opened = decay("f=1")
    assert says(4, "1, or a little more, where it was 0.8")
    assert before == pytest.approx(0.8, abs=0.03) and 1 <= opened < 1.05
    assert says(4, "each step costs more") and decay("f=0.5")[1] < 0.65
    [no_cell] = views(pieces, "what-if dc*0")
    assert says(4, "about a twentieth a step")
    assert no_cell["decay"][1]["h_l0"] == pytest.approx(0.05, abs=0.015)
    alone = decay("di*0, df*0, dg*0, do*0")[1]
    gates = views(pieces, "gates")[0]
    assert says(4, "still most of what it was") and 0.7 < alone < before
    assert says(4, "about 0.7 open") and np.mean(gates["mean"]["f"]) == pytest.approx(0.72, abs=0.01)
    carousel = "f=1, di*0, df*0, dg*0, do*0"
    assert says(4, "exactly 1") and decay(carousel)[1] == pytest.approx(1, abs=1e-6)
    [both] = views(pieces, f"what-if {carousel}")
    row = both["flow"][1]["c_l0"]
    assert says(4, "dc_l0', grows to the left") and row[0] > row[20] > row[40] > row[49]
    untrained, trained = views(pieces, "flow --from 49")
    rows = untrained["norms"]
    assert (
        says(4, "In h the first step back costs more than half") and rows["h_l0"][48] < 0.5 * rows["h_l0"][49]
    )
    assert rows["c_l0"][48] > 0.5 * rows["c_l0"][49]
    assert says(4, "fades no more slowly than before")
    assert all(trained["decay"][name] < one for name, one in untrained["decay"].items())


def test_lesson_4_a_level_carousel_is_a_sum_over_predictions() -> None:
    session = Session.small()
    run(session, "lesson 4")
    changes = what_if.parse(session, "f=1, di*0, df*0, dg*0, do*0")
    recording = session.run(*changes)
    for k in (10, 49):  # each prediction's own gradient arrives everywhere as it was
        rows = recording.gradients("c", 0, recording.gradients_of(recording.loss_at(k)))
        np.testing.assert_allclose(rows[: k + 1], np.repeat(rows[k : k + 1], k + 1, axis=0), rtol=1e-5)


def test_lesson_5_truncation_cuts_the_gradient_and_nothing_else() -> None:
    pieces = shown(5)
    cut, whole = views(pieces, "flow --from 49")
    assert (
        says(5, "a blank, not just small")
        and not any(cut["norms"]["h_l0"][:40])
        and all(cut["norms"]["h_l0"][40:])
    )
    assert all(whole["norms"]["h_l0"])
    [once] = views(pieces, "what-if cut 25")
    assert once["losses"][0] == once["losses"][1]
    share = {name: once["weights"][1][name] / norm for name, norm in once["weights"][0].items()}
    assert says(5, "fall by less than a tenth")
    assert all(0.9 < x < 1 for name, x in share.items() if name.startswith("rnn"))
    assert share["output.weight"] == pytest.approx(1) and share["output.bias"] == pytest.approx(1)
    session = Session.small()
    run(session, "lesson 5")
    run(session, "window --truncate 1")
    norm = float(np.linalg.norm(session.model.rnn.weight_hh_l0.grad.numpy()))
    assert says(5, "A third of the gradient of W_hh is left")
    assert norm / once["weights"][0]["rnn.weight_hh_l0"] == pytest.approx(1 / 3, abs=0.04)
    assert says(5, "two per cent of it or less are left after twenty steps")
    assert all(row[49 - 20] < 0.02 * row[49] for row in whole["norms"].values())


def test_lesson_6_the_update_gate_does_what_the_forget_gate_does() -> None:
    pieces = shown(6)
    [compared] = views(pieces, "compare rnn lstm gru")
    decays = {kind: one["decay"] for kind, one in compared["kinds"].items()}
    assert decays["rnn"] < decays["gru"] < decays["lstm"]
    [half] = views(shown(4), "what-if f=0.5")
    assert says(6, "the LSTM kept 0.62") and half["decay"][1]["h_l0"] == pytest.approx(0.62, abs=0.01)
    assert half["decay"][1]["h_l0"] == pytest.approx(decays["gru"], abs=0.02)
    sizes = {
        kind: Session.small(kind=kind, num_layers=1).model.rnn.num_parameters() for kind in ("lstm", "gru")
    }
    assert says(6, "a third more numbers in the layer") and sizes["lstm"] / sizes["gru"] == 4 / 3
    [most], [all_] = views(pieces, "what-if z=0.75"), views(pieces, "what-if z=1")
    assert most["decay"][1]["h_l0"] == pytest.approx(decays["lstm"], abs=0.03)
    assert all_["decay"][1]["h_l0"] == pytest.approx(1, abs=1e-6)
    assert not any(norm for name, norm in all_["weights"][1].items() if name.startswith("rnn"))


def test_lesson_6_a_few_open_gates_carry_the_gradient() -> None:
    untrained, trained = views(shown(6), "gates")
    assert untrained["mean"]["z"] and says(6, "The mean of z has fallen to about half of what it was")
    assert 0.4 < np.mean(trained["mean"]["z"]) / np.mean(untrained["mean"]["z"]) < 0.6
    session = Session.small()
    run(session, "lesson 6")
    before = by_hand(session, 49)
    run(session, "train 200")
    after = by_hand(session, 49)
    slope = [np.polyfit(np.arange(50), np.log(norms), 1)[0] for norms in (before, after)]
    assert says(6, "the decay has risen, where that of the LSTM fell") and slope[1] < slope[0]
    assert (
        says(6, "the first five steps back cost all but a few per cent")
        and 0.01 < after[44] / after[49] < 0.06
    )
    assert says(6, "from there on a step keeps about nine tenths")
    assert (after[0] / after[44]) ** (1 / 44) == pytest.approx(0.9, abs=0.04)
    z = session.recording.values("z", 0)  # (T, H)
    shut, open_ = (z < 0.1).mean(axis=0), (z > 0.9).mean(axis=0)
    assert says(6, "Many have it shut most of the time (z low)") and (shut > 0.5).sum() >= 12
    assert says(6, "a few keep what they have") and 1 <= (open_ > 0.5).sum() <= 4
    recording = session.recording
    rows = recording.gradients("h", 0, recording.gradients_of(recording.loss_at(49))).astype(float) ** 2
    [unit] = {int(row.argmax()) for row in rows[5:40]}
    assert says(6, "almost all of the gradient goes through one unit, one of the few that keep")
    assert all(row[unit] > 0.8 * row.sum() for row in rows[5:40]) and open_[unit] > 0.5
