"""Which lines at the prompt are commands, and where one ends."""

from __future__ import annotations

import pytest

from tinygrad_rnn.inspect import COMMANDS
from tinygrad_rnn.inspect.command import Command
from trnn_cli.claiming import claimed, statements

WORDS = "help flow step next break continue cd ls hist load save what-if gates".split()


@pytest.fixture(autouse=True)
def words():
    """These and no others are commands; the arguments of `quiz` and `focus` are expressions."""
    before = dict(COMMANDS)  # put back in this order
    COMMANDS.clear()
    COMMANDS.update({name: Command(name, "Do", name, (), lambda *_: None) for name in WORDS})
    for name in ("quiz", "focus"):
        COMMANDS[name] = Command(name, "Do", name, (), lambda *_: None, "EXPRESSION")
    yield
    COMMANDS.clear()
    COMMANDS.update(before)


@pytest.mark.parametrize(
    "line",
    [
        *WORDS,
        "flow --from 30",
        "flow; gates 12",
        "flow;",
        "gates 12",
        "gates -1",
        "break op tanh",
        "break norm<1e-8",
        "break nan",
        "cd h[3]",
        "cd #17",
        "cd ..",
        "hist weight_hh_l0",
        "load /tmp/runs/first",
        "load 'my run'",
        "what-if f[3]=1",
        "next 3",
        "quiz (g * w).sum()",
        "quiz -g * x",
        "quiz [1.0, 2.0]",
        "focus (x * w).sum()",
        "quiz g == 0",
    ],
)
def test_commands(line):
    assert claimed(line) == line
    assert claimed(line + "  \n") == line


@pytest.mark.parametrize(
    "line",
    [
        "step = 3",
        "step=3",
        "step == 3",
        "step += 1",
        "step //= 2",
        "step: int = 3",
        "step : int = 3",
        "step, x = 1, 2",
        "step , x = 1, 2",
        "step + 1",
        "step - 1",
        "step-1",
        "step * x",
        "step / x",
        "step < 3",
        "step <3",
        "step != 3",
        "step | x",
        "step if x else 3",
        "step is None",
        "step in steps",
        "step not in steps",
        "step and x",
        "flow.x",
        "flow(3)",
        "flow[3]",
        "next(it)",
        "next (it)",
        "help(np.tanh)",
        "help()",
        "quiz = 3",
        "quiz(3)",
        "focus += 1",
        "  flow",
        "steps",
        "step_size",
        "flowing 3",
        "what - 3",
        "x = flow",
        "%trnn flow",
        "!ls",
        "# flow",
        "",
    ],
)
def test_python(line):
    assert claimed(line) is None


def test_a_name_of_the_user_s_is_python():
    assert claimed("step 3", {"step": 3}) is None
    assert claimed("step?", {"step": 3}) is None
    assert claimed("flow", {"step": 3}) == "flow"


@pytest.mark.parametrize("line", ["flow?", "flow??", "?flow", "flow ?"])
def test_a_question_mark_asks_for_help(line):
    assert claimed(line) == "help flow"


def test_of_other_things_the_question_is_ipython_s():
    assert claimed("np.tanh?") is None and claimed("x?") is None and claimed("?") is None


def parts(script):
    return list(statements(script.splitlines(keepends=True), claimed))


@pytest.mark.parametrize(
    "script",
    [
        ["flow\n", "gates 12\n", "x = 3\n", "step\n"],
        ["for x in y:\n    break\n", "flow\n"],
        ["for x in y:\n    break\n\n    continue\nelse:\n    step\n\n", "break\n"],
        ["if x:\n    a\nelif y:\n    b\nelse:\n    c\n", "next\n"],
        ["try:\n    a\nexcept E:\n    b\nfinally:\n    c\n", "flow"],
        ["x = (1 +\nstep\n)\n", "step\n"],
        ['text = """\nflow\nstep\n"""\n', "flow\n"],
        ["x = 1 + \\\nstep\n", "step\n"],
        ["@decorated\ndef f():\n    return 1\n", "f()\n", "flow\n"],
        ["class A:\n\n    x = 1\n\n    def f(self):\n        pass\n\n", "class B:\n    pass\n", "flow\n"],
        ["gates 'it's\n", "flow\n"],
        ["# said\n", "flow\n"],
        ["%time x\n", "!ls 'a\n", "x?\n", "flow\n"],
        ["%%timeit\nfor x in y:\n    pass\nstep\n\n", "flow\n"],
        ["x = = 3\n", "flow\n"],
    ],
)
def test_statements(script):
    assert parts("".join(script)) == script


def test_what_is_complete_is_not_kept_waiting():
    lines = iter(["flow\n", "x = 3\n", "for x in y:\n", "    step\n", "gates\n"])
    found = statements(lines, claimed)
    assert next(found) == "flow\n" and next(found) == "x = 3\n"
    assert next(lines) == "for x in y:\n", "nothing further has been read"
