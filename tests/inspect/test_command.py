"""Commands are found, take their arguments, complete, and each one's example works."""

from __future__ import annotations

import time

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.annotate import annotate
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import COMMANDS, Session, address, completions, find, run, split
from tinygrad_rnn.inspect.command import GROUPS
from tinygrad_rnn.inspect.recording import by_equations
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.text import Vocabulary

from .conftest import small


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_and_its_example_works(name, tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    called = COMMANDS[name]
    assert called.group in GROUPS and called.summary.endswith(".") and called.usage.startswith(name)
    session = Session.small()
    if name == "load":
        run(session, "save first.safetensors")
    for line in split(called.example):
        view = run(session, line)
    assert view.text(80) and view.to_dict()["title"] == view.title
    assert all(len(line) <= 80 for line in view.text(80).splitlines())


def test_the_commands_of_a_line():  # type: ignore[no-untyped-def]
    assert split("flow; gates 12 ;; watch 'a;b'") == ["flow", "gates 12", "watch 'a;b'"]
    assert split(" ; ") == []


def test_what_a_word_may_become(session):  # type: ignore[no-untyped-def]
    assert completions(session, "fl") == ["flow"]
    assert completions(session, "flow --f") == ["--from"]
    assert completions(session, "flow --from 1")[:2] == ["1", "10"]
    assert "rnn.weight_hh_l0" in completions(session, "uses rnn.w")
    assert completions(session, "cells --find q") == ["quote"]
    assert completions(session, "nothing h") == []
    assert completions(session, "gates --layer ") == ["0", "1"] == completions(session, "flow --layer ")
    assert completions(session, "compare --seed ") == []
    assert completions(session, "flow\t--fr") == ["--from"]


@pytest.mark.parametrize(
    "line, said",
    [
        ("flwo", "there is no command 'flwo'; did you mean flow?"),
        ("xyzzy", "there is no command 'xyzzy'; `help` lists them"),
        ("flow --frm 3", "unrecognized arguments: --frm 3; usage: flow"),
        ("gates twelve", "invalid int value: 'twelve'"),
        ("uses 'weight", "No closing quotation"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(session, line, said):  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError) as error:
        run(session, line)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_find_knows_only_whole_names():  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        find("flo")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_view_of_a_large_window_comes_at_once(name, capsys, tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    """Prints how long it takes; asserts nothing of it, since machines differ."""
    monkeypatch.chdir(tmp_path)
    session = Session.small(hidden_size=128, embedding_size=64)
    for line in split(COMMANDS[name].example):
        began = time.perf_counter()
        run(session, line).text(80)
        with capsys.disabled():
            print(f"{line}: {time.perf_counter() - began:.3f} s")


def test_nothing_of_the_session_is_changed_by_looking():  # type: ignore[no-untyped-def]
    session = small()
    before = {name: p.numpy() for name, p in session.model.named_parameters()}
    recording = session.recording
    for line in (
        "flow --from all",
        "flow --jac",
        "uses weight_hh_l0",
        "connect 5",
        "compare",
        "cells 1",
        "predict",
    ):
        run(session, line)
    assert session.recording is recording and session.focus is recording.tape
    for name, parameter in session.model.named_parameters():
        assert (parameter.numpy() == before[name]).all() and parameter.grad is not None


def test_white_space_of_any_kind_parts_a_command_from_its_arguments(session):  # type: ignore[no-untyped-def]
    assert run(session, " flow\t--from  3 ").data["from"] == 3
    with pytest.raises(UsageError, match="`help` lists them"):
        run(session, "  ")


ODD = {
    "not finite": lambda: spoilt(small()),
    "not finite, float32": lambda: spoilt(Session.small()),
    "a gru": lambda: small("gru", layers=1),
    "an rnn of one symbol": lambda: small("rnn", length=1),
    "tied weights": lambda: Session.small(embedding_size=32, tie_weights=True),
    "truncated": lambda: shown(small(), 0, 20, 3),
    "further on": lambda: shown(small(), 100, 20, None),
}


def spoilt(session: Session) -> Session:
    with tg.no_grad():
        session.model.rnn.weight_hh_l0[3, 2] = np.nan
    session.record()
    return session


def shown(session: Session, *place) -> Session:  # type: ignore[no-untyped-def]
    session.show(*place)
    return session


@pytest.mark.parametrize("odd", ODD)
def test_odd_sessions_are_looked_at_like_any_other(odd, tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    """Every example works, or says in a line why not."""
    monkeypatch.chdir(tmp_path)
    session = ODD[odd]()
    for called in COMMANDS.values():
        if called.group == "Do" and called.name not in ("window", "what-if", "export"):
            continue
        for line in split(called.example):
            try:
                text = run(session, line).text(80)
            except tg.errors.TinygradError as error:
                assert "\n" not in str(error) and len(str(error)) < 300
            else:
                assert called.name == "export" or all(len(row) <= 80 for row in text.splitlines())


def test_bytes_are_shown_as_such(tmp_path):  # type: ignore[no-untyped-def]
    data = bytes(range(200, 256)) * 30
    vocabulary = Vocabulary.of(data)
    session = Session(CharLM(len(vocabulary), hidden_size=4), vocabulary, vocabulary.encode(data))
    assert "'\\xc9'" in run(session, "predict 0").text() and "·" in session.text
    for line in ("flow", "gates", "cells 1", "connect 3", "graph", "cd h[3]"):
        assert run(session, line).text(80)


def test_a_length_that_makes_no_window():  # type: ignore[no-untyped-def]
    for length in (0, -5, 1001):
        with pytest.raises(UsageError, match="1 to 1,000 symbols"):
            Session.small(length=length)
    with pytest.raises(UsageError, match="1 to 1,000"):
        Session.small().show(0, 1001, None)


def test_weights_that_were_changed_are_looked_at_as_they_are(session):  # type: ignore[no-untyped-def]
    session.namespace["x"] = x = tg.tensor([1.0, 2.0], requires_grad=True)
    run(session, "flow")
    with tg.no_grad():
        session.model.rnn.weight_hh_l0 *= 3.0
    view = run(session, "flow")
    assert "the window was run again" in view.text() and "again" not in run(session, "flow").text()
    fresh = session.run()
    assert session.recording.loss.item() == fresh.loss.item()
    tape = session.look_at((x * x).sum())
    with tg.no_grad():
        session.model.rnn.weight_hh_l0 *= 0.5
    run(session, "graph")
    assert session.focus is tape


def test_names_mean_what_they_say(session):  # type: ignore[no-untyped-def]
    model = session.model
    assert address.find(session, "weight_hh_l0") is model.rnn.weight_hh_l0.node
    for name in ("s", "l0", "", "hh_l0", "#0", "#²", "h[20]", "h_l2[0]", "z[3]"):
        with pytest.raises(UsageError):
            address.find(session, name)
    session.namespace["s"] = tg.tensor(1.0, requires_grad=True)
    with pytest.raises(UsageError, match="`focus s` looks at its own"):
        address.find(session, "s")


def test_gates_and_weights_have_their_names_outside_of_the_window_too(session):  # type: ignore[no-untyped-def]
    recording = session.recording
    with annotate(session.observer), by_equations():
        loss, _ = session.model.loss(recording.symbols[:5, None], recording.targets[:5, None])
    session.look_at(loss)
    node = address.find(session, "f_l0[3]")
    assert address.label(session, node) == "f_l0[3]" and node.name == "forget gate"
    leaf = session.model.rnn.weight_hh_l0.node
    assert (
        address.label(session, leaf) == "rnn.weight_hh_l0" and address.find(session, "weight_hh_l0") is leaf
    )
    with pytest.raises(UsageError, match="there is no h"):
        address.find(session, "h[5]")


def test_a_graph_that_backward_has_freed(session):  # type: ignore[no-untyped-def]
    session.namespace["x"] = x = tg.tensor([1.0, 2.0], requires_grad=True)
    session.namespace["y"] = y = tg.tanh(x * x).sum()
    run(session, "focus y")
    y.backward()
    for line in ("step", "derive y", "check", "check all", "quiz", "why zero x"):
        with pytest.raises(UsageError, match="has freed this graph"):
            run(session, line)
    for line in ("graph", "cd y", "ls", "down", "grads", "why nan", "export json"):
        assert run(session, line).text(), "what was seen is kept"
    session.look_at(None)
    session.recording.loss.backward()
    with pytest.raises(UsageError, match="`window` runs the window again"):
        run(session, "step")
    run(session, "window")
    assert run(session, "step").text()


@pytest.mark.parametrize(
    "line",
    [
        "params",
        "hist weight_hh_l0 --grad",
        "cd h[3]; ls",
        "cd h[3]; up",
        "break op tanh; watch norm(g); continue",
        "step 5; back",
        "next",
        "quiz; hint; answer g",
        "why none h[3]",
        "sample 60 --seed 1",
        "what-if cut 8",
        "lesson",
        "lesson 1",
        "help",
        "help flow",
    ],
    ids=lambda line: line.replace(" ", "_"),
)
def test_golden(line, session, golden):  # type: ignore[no-untyped-def]
    """What is told of a line is the view of its last command."""
    for part in split(line):
        view = run(session, part)
    golden(view)
