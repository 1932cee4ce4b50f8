"""Commands are found, take their arguments, complete, and each one's example works."""

from __future__ import annotations

import time

import pytest

from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import COMMANDS, Session, completions, find, run, split
from tinygrad_rnn.inspect.command import GROUPS

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
def test_every_view_of_a_large_window_comes_at_once(name, capsys):  # type: ignore[no-untyped-def]
    """Prints how long it takes; asserts nothing of it, since machines differ."""
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
