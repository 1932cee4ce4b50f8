"""`trnn repl` reading a script, and `trnn inspect`, as processes and in this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trnn_cli
from tinygrad_rnn.inspect import COMMANDS, Session, run
from trnn_cli.main import main

from .conftest import fails

prompt = pytest.importorskip("trnn_cli.prompt", exc_type=ModuleNotFoundError)  # where there is IPython

TRNN = str(Path(sys.executable).with_name("trnn"))
SMALL = "--hidden-size 8 --layers 1 --length 20".split()


@pytest.fixture
def repl(folder):
    """Run `trnn repl < script`: exit code, output, errors. It may write nowhere but to its own folder."""
    home = folder / "home"
    home.mkdir()
    places = {"HOME": home, "IPYTHONDIR": home / "ipython", "XDG_STATE_HOME": home / "state"}
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}

    def feed(script, *arguments, **further):
        process = subprocess.run(
            [TRNN, "repl", *(arguments or SMALL)],
            input=script,
            capture_output=True,
            text=True,
            env=environment | {name: str(place) for name, place in places.items()} | further,
            timeout=120,
        )
        assert not list(home.iterdir()), "it has left something behind"
        return process.returncode, process.stdout, process.stderr

    return feed


def small():
    return Session.small(hidden_size=8, num_layers=1, length=20)


# --- a script -----------------------------------------------------------------------------------------


def test_commands_print_their_views_and_nothing_else(repl):
    views = [run(small(), line).text(80) for line in ("window", "help help")]
    assert repl("window\n# a remark\n\nhelp help\n") == (0, "\n".join(views), "")
    assert repl("window; help help\n") == (0, "\n".join(views), "")


def test_an_empty_script(repl):
    assert repl("") == (0, "", "")


def test_the_width_is_that_of_columns(repl):
    assert repl("window", COLUMNS="200") == (0, run(small(), "window").text(200), "")


def test_python_runs_beside_commands(repl):
    script = """\
x = tg.tensor([1.0, 2.0], requires_grad=True)
for i in range(3):
    print(i)
    break
else:
    print("never")

y = (x *
     x).sum()
y.item()
y.node.location
len(text), model is session.model, view("window").data["length"]
view("window")
next(iter("ab"))
[step for step in range(2)]
"""
    code, out, err = repl(script)
    window = run(small(), "window").text(80)
    assert (code, err) == (0, "")
    assert out == f"0\n5.0\n'In [3]:2'\n(20, True, 20)\n{window}'a'\n[0, 1]\n"


def test_the_user_s_tensors_are_known_to_the_commands(repl):
    script = "x = tg.tensor(3.0, requires_grad=True)\ny = x * x\nfocus y\nsession.focus.root is y\n"
    code, out, err = repl(script + "session.observer.values[y.node].item(), session.namespace is globals()\n")
    assert (code, err) == (0, "")
    assert out.startswith("focus: y\n") and out.endswith("True\n(9.0, True)\n")


def test_the_model_at_the_prompt_shows_its_gates(repl):
    script = (
        "_ = model(np.zeros((2, 1), int))\nprint(*sorted({place[0] for place in session.observer.places}))\n"
    )
    assert repl(script) == (0, "c f g h i o\n", "")


def test_networks_made_at_the_prompt_show_their_gates(repl):
    script = "m = tg.nn.GRU(3, 4)\no, _ = m(tg.randn(5, 1, 3))\nfocus o.sum()\ngraph\ncd z[3]\n"
    code, out, err = repl(script + "cd m.weight_hh_l0\n")
    assert (code, err) == (0, "")
    assert "z[3], the update gate" in out and "m.weight_hh_l0" in out


def test_failures_are_counted_and_what_follows_is_run(repl):
    code, out, err = repl("gaets\nwindow --at x\nx = tg.zeros(2).reshape(3)\n1 / 0\n1 +\n7\n%nothing\n")
    assert (code, out) == (1, "7\n")
    assert "note: did you mean the command gates?\n" in err
    assert "\nerror: window: argument --at: invalid int value: 'x'; usage: window" in err
    assert "\nerror: reshape(" in err, "of the project's own errors one line"
    assert "ZeroDivisionError: division by zero" in err and "SyntaxError" in err, "of others all there is"
    assert "notebook.py" not in err and "\x1b" not in err
    assert err.endswith("\ntrnn: error: 6 of 7 lines failed\n")


def test_what_may_have_been_meant(repl):
    meant = "note: did you mean the command gates?\n"
    assert meant in repl("gaets\n")[2] and meant in repl("gaets 12\n")[2]
    assert meant not in repl("gaets = nothing\n")[2]


def test_one_failure(repl):
    code, out, err = repl("halp\nwindow --at x\n")
    assert (code, out) == (1, "")
    code, out, err = repl("window --at x\n")
    assert (code, out) == (1, "")
    assert err.splitlines()[1:] == ["trnn: error: 1 of 1 line failed"]


def test_a_name_of_the_user_s_goes_before_the_command_and_this_is_said_once(repl):
    script = "window = 3\nwindow\nwindow = 4\nwindow + 1\n%trnn window\ndel window\nwindow\nwindow = 5\n"
    code, out, err = repl(script)
    view = run(small(), "window").text(80)
    assert (code, out) == (0, f"3\n5\n{view}\n{view}")
    assert err == "note: window is a name of yours now; the command is still there as `%trnn window`\n"


def test_what_is_there_at_the_start_hides_no_command(repl):
    code, out, err = repl("print(*dir())\n")
    assert (code, err) == (0, "")
    assert {"tg", "np", "model", "session", "text", "view"} <= set(out.split())
    assert not set(out.split()) & set(COMMANDS)
    tried = re.match(r"Try ([\w, ]+);", prompt.GREETING[0])
    assert tried and set(tried[1].split(", ")) <= set(COMMANDS), "what it says to try is there"


def test_a_shadowed_command_with_an_argument_says_so(repl):
    code, _, err = repl("window = 3\nwindow 4\n")
    assert code == 1
    assert "note: window is a name of yours; the command is `%trnn window`\n" in err


def test_a_question_mark_is_help(repl):
    assert repl("window?\n") == (0, run(small(), "help window").text(80), "")


def test_exit_ends_it(repl):
    assert repl("1\nexit\n2\n") == (0, "1\n", "")


def test_input_that_a_command_asks_for_comes_from_the_script(repl):
    assert repl("x = input()\nhello\nx\n") == (0, "'hello'\n", "")


def test_characters_that_the_output_has_not(repl):
    code, out, err = repl("window\n", PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "")
    assert out == run(small(), "window").text(80, ascii=True)


def test_a_reader_that_leaves_and_a_full_disk(folder):
    script = "window\n" * 2000
    command = f"{TRNN} repl {' '.join(SMALL)}"
    (folder / "script").write_text(script)
    ended = subprocess.run(
        ["bash", "-c", f"{command} < script | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
    )
    assert ended.stdout.splitlines()[1:] == ["0"] and ended.stderr == ""
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as disk, open("script") as lines:
            ended = subprocess.run([TRNN, "repl", *SMALL], stdin=lines, stdout=disk, stderr=subprocess.PIPE)
        assert ended.stderr == b"trnn: error: standard output: No space left on device\n"
        assert ended.returncode == 1


def test_without_ipython_one_line_says_what_to_install(trnn, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "IPython"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "trnn_cli.prompt", raising=False)
    monkeypatch.delattr(trnn_cli, "prompt", raising=False)
    monkeypatch.setitem(sys.modules, "IPython", None)
    fails(trnn("repl"), 1, "pip install ipython")
    assert trnn("inspect", *SMALL, "-c", "window")[0] == 0


# --- trnn inspect -------------------------------------------------------------------------------------


def test_inspect_prints_views(trnn, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    views = [run(small(), line).text(80) for line in ("window", "help help", "help window")]
    said = trnn("inspect", *SMALL, "-c", "window; help help", "-c", "help window")
    assert said == (0, "\n".join(views), "")


def test_inspect_at_a_width(trnn):
    assert trnn("inspect", *SMALL, "-c", "window", "--width", 40)[1] == run(small(), "window").text(40)


def test_inspect_json(trnn):
    code, out, err = trnn("inspect", *SMALL, "-c", "window; help window", "--json")
    assert (code, err) == (0, "")
    session = small()
    assert json.loads(out) == [json.loads(run(session, line).json()) for line in ("window", "help window")]


def test_inspect_ends_at_the_first_failure(trnn):
    code, out, err = trnn("inspect", *SMALL, "-c", "window; windw; help")
    assert (code, out) == (2, run(small(), "window").text(80))
    assert err == "trnn: error: there is no command 'windw'; did you mean window?\n"
    fails(trnn("inspect", *SMALL, "-c", "window; windw", "--json"), 2, "windw")


def test_inspect_wants_a_command(trnn):
    fails(trnn("inspect"), 2, "-c flow")
    fails(trnn("inspect", "-c", " ; "), 2, "-c flow")


# --- what is looked at --------------------------------------------------------------------------------


@pytest.fixture
def trained(trnn, folder):
    """A run with the name "first"."""
    text = "the cat sat on the mat, and the dog sat on the log.\n" * 30
    (folder / "text.txt").write_text(text)
    sizes = "--kind gru --embedding-size 5 --hidden-size 8 --layers 1 --batch-size 4 --seq-length 10".split()
    steps = ["--max-steps", 5, "--run", "runs/first", "--quiet"]
    assert trnn("train", "text.txt", *sizes, *steps) == (0, "", "")


def test_a_run(trained, trnn, repl):
    code, out, _ = trnn("inspect", "first", "--length", 20, "-c", "window", "--json")
    [window] = json.loads(out)
    session = Session.load(Path("runs/first"), length=20)
    assert (code, window["text"]) == (0, session.text)
    assert window["loss"] == pytest.approx(session.recording.loss.item())
    said = repl("model.kind, session.name, len(text)\n", "--model", "first", "--length", "20")
    assert said == (0, "('gru', 'runs/first', 20)\n", "")


def test_another_text(trained, trnn, folder):
    (folder / "other.txt").write_text("the dog sat on the cat. " * 5)
    [window] = json.loads(
        trnn("inspect", "first", "--text", "other.txt", "--length", 9, "-c", "window", "--json")[1]
    )
    assert window["text"] == "the dog s"
    [window] = json.loads(trnn("inspect", *SMALL, "--text", "other.txt", "-c", "window", "--json")[1])
    assert window["text"] == "the dog sat on the c"


def test_another_model(trnn):
    sizes = "--kind rnn --hidden-size 5 --layers 3 --seed 7 --length 9".split()
    [window] = json.loads(trnn("inspect", *sizes, "-c", "window", "--json")[1])
    session = Session.small(seed=7, length=9, kind="rnn", hidden_size=5, num_layers=3)
    assert window["loss"] == pytest.approx(session.recording.loss.item())


def test_what_cannot_be_looked_at(trained, trnn, folder):
    (folder / "short.txt").write_text("a")
    for command in (["inspect", "-c", "window"], ["repl"]):
        named = ["--model"] if command[0] == "repl" else []
        fails(trnn(*command, *named, "nowhere"), 4, "nowhere does not exist")
        fails(trnn(*command, *named, "first", "--kind", "gru", "--seed", 1), 2, "--kind, --seed", "first")
        fails(trnn(*command, "--text", "nowhere.txt"), 3, "nowhere.txt")
        fails(trnn(*command, "--text", "short.txt"), 2, "short.txt", "two symbols")
        fails(trnn(*command, "--length", 0), 2, "--length")
        fails(trnn(*command, "--kind", "transformer"), 2, "--kind")
    fails(trnn("repl", "--text", "-"), 2, "standard input")


def test_the_runs_are_completed(trained, monkeypatch, capfd):
    for line, word in (("trnn inspect f", 2), ("trnn repl --model f", 3)):
        monkeypatch.setenv("_TRNN_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(word))
        with pytest.raises(SystemExit):
            main([])
        assert capfd.readouterr().out.split() == ["first"]
