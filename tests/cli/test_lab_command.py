"""`trnn lab`: the list, a lab's text, files and JSON, and what goes wrong."""

import functools
import json
import os
import pty
import sys

import pytest

from tinygrad_rnn import labs
from tinygrad_rnn.errors import DataError
from tinygrad_rnn.labs import residual_identity
from trnn_cli import layout
from trnn_cli.main import main

from .conftest import fails

NAME = "residual-identity"


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """The lab with small sizes."""
    run = functools.partial(residual_identity.run, depths=(1, 2), sigmas=(0.0, 0.1, 1.0), deepest=2)
    monkeypatch.setitem(labs.LABS, NAME, labs.Lab("Is it the identity?", "a second", run))


def test_alone_it_lists_the_labs_with_their_questions(trnn):
    code, out, err = trnn("lab")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(labs.LABS)
    for name, lab in labs.LABS.items():
        assert f"{lab.question} ({lab.takes})" in next(line for line in out.splitlines() if name in line)
    listed = json.loads(trnn("lab", "--json")[1])
    assert [one["lab"] for one in listed] == list(labs.LABS) and listed[0]["takes"] == "a second"


@pytest.mark.parametrize("columns", [24, 40, 80])
def test_the_list_fits_a_terminal(capsys, monkeypatch, columns):
    monkeypatch.setattr(layout, "width", lambda: columns)
    assert main(["lab"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= columns


def test_it_shows_and_writes_what_it_found(trnn, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = trnn("lab", NAME, "--seeds", 2)
    assert code == 0 and "Holds at this size: with zero weights" in out and "seeds           0, 1\n" in out
    assert max(map(len, out.splitlines())) <= 80
    written = sorted(path.name for path in (folder / "labs" / NAME).iterdir())
    pictures = [f"{NAME}.png", f"{NAME}.svg"] if labs_draw() else []
    assert written == [f"{NAME}.json", *pictures]
    for name in written:
        assert f"labs/{NAME}/{name}" in out
    found = json.loads((folder / "labs" / NAME / f"{NAME}.json").read_text())
    assert found["holds"] is True and found["numbers"]["largest_difference"] == 0
    assert len(found["numbers"]["small_weights"]["plain"]) == 2 and found["seconds"] >= 0


def labs_draw():
    from tinygrad_rnn.labs import figure

    return figure.can_draw()


def test_json_is_printed_and_nothing_written_unless_asked(trnn, folder):
    code, out, _ = trnn("lab", NAME, "--seeds", 1, "--json")
    assert code == 0 and not list(folder.iterdir())
    printed = json.loads(out)
    assert printed["lab"] == NAME and printed["verdict"].startswith("Holds")
    trnn("lab", NAME, "--seeds", 1, "--json", "--out", "deep/er")
    written = json.loads((folder / "deep" / "er" / f"{NAME}.json").read_text())
    assert written["numbers"] == printed["numbers"]


def test_without_matplotlib_a_line_says_what_to_install(trnn, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, _ = trnn("lab", NAME, "--seeds", 1)
    assert code == 0 and out.endswith("pictures take matplotlib: pip install 'tinygrad-rnn[plot]'\n")
    assert [path.name for path in (folder / "labs" / NAME).iterdir()] == [f"{NAME}.json"]


def test_a_name_that_there_is_not(trnn, folder):
    fails(trnn("lab", "residual-identiti"), 2, "'residual-identiti'", "did you mean residual-identity?")
    fails(trnn("lab", "nonsense"), 2, "there are residual-identity, l2-pull, gradient-by-depth")
    fails(trnn("lab", "--out", "x"), 2, "name it: trnn lab NAME --out FOLDER")
    fails(trnn("lab", NAME, "--seeds", 0), 2, "--seeds")
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_is_known_before_the_work(trnn, folder, monkeypatch):
    (folder / "taken").touch()
    monkeypatch.setitem(labs.LABS, NAME, labs.Lab("?", "", lambda **_: pytest.fail("it worked")))
    fails(trnn("lab", NAME, "--out", "taken"), 1, "taken: File exists")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="takes a folder in which nobody can write")
def test_so_is_a_folder_that_takes_no_file(trnn, monkeypatch):
    monkeypatch.setitem(labs.LABS, NAME, labs.Lab("?", "", lambda **_: pytest.fail("it worked")))
    fails(trnn("lab", NAME, "--out", "/proc"), 1, "/proc: ")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_what_cannot_be_written_is_shown_all_the_same(trnn, folder, monkeypatch, options):
    run = labs.LABS[NAME].run

    def spoiling(**given):
        (folder / "here").rmdir()
        (folder / "here").touch()
        return run(**given)

    monkeypatch.setitem(labs.LABS, NAME, labs.Lab("?", "", spoiling))
    code, out, err = trnn("lab", NAME, "--seeds", 1, "--out", "here", *options)
    assert code == 1 and "Holds at this size: with zero weights" in out and "wrote" not in out
    assert "here" in err and len(err.splitlines()) == 1


def test_what_fails_leaves_no_folder(trnn, folder, monkeypatch):
    def fail(**_):
        raise DataError("no digits")

    monkeypatch.setitem(labs.LABS, NAME, labs.Lab("?", "", fail))
    fails(trnn("lab", NAME, "--out", "deep/er"), 3, "no digits")
    assert not list(folder.iterdir())


def test_ctrl_c_ends_it_with_one_line_and_leaves_nothing(trnn, folder, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setitem(labs.LABS, NAME, labs.Lab("?", "", interrupted))
    code, out, err = trnn("lab", NAME)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "trnn: interrupted; nothing is written"
    assert not list(folder.iterdir())
    (folder / "mine").mkdir()  # what was there already stays
    trnn("lab", NAME, "--out", "mine")
    assert (folder / "mine").is_dir()


def test_a_terminal_sees_its_progress(folder, monkeypatch):
    """On standard error, and only there."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["lab", NAME, "--seeds", "1", "--out", "here"]) == 0
        terminal.flush()
        shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "%" in shown and "pre-activation, depth 1" in shown
