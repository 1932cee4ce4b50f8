"""`help`, and what every command must bring along for it."""

from __future__ import annotations

import pytest

from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import COMMANDS, run, split
from tinygrad_rnn.inspect.command import GROUPS
from tinygrad_rnn.inspect.help import Examples


def test_lists_every_command_once_in_its_group(say):
    view = say("help")
    assert list(view.data["groups"]) == list(GROUPS)
    listed = {name: group for group, names in view.data["groups"].items() for name in names}
    lines = view.text(200).splitlines()
    below = {group: lines[lines.index(group) + 1].split()[0] for group in GROUPS}
    assert below == {
        "Look": "graph",
        "Through time": "flow",
        "Step through the backward pass": "step",
        "Why": "why",
        "Do": "lesson",
    }
    assert listed == {name: entered.group for name, entered in COMMANDS.items()}
    text = view.text(80)
    for name, entered in COMMANDS.items():
        [line] = [line for line in text.splitlines() if line.split(" ")[0] == name]
        assert line.removeprefix(name).strip() and entered.summary.startswith(line.removeprefix(name).strip())


def test_help_of_one_command(say, golden):
    view = say("help help")
    golden(view)
    assert view.data["usage"] == "help [COMMAND]"
    assert view.data["options"] == {"COMMAND": "one of them"}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_that_fits(say, name):
    view = say(f"help {name}")
    assert name in [line.split()[0] for line in split(view.data["example"])]
    assert view.data["usage"].split()[0] == name
    assert COMMANDS[name].summary.endswith((".", "?")), "the first line is a whole sentence"
    for width in (40, 80, 200):
        assert max(map(len, view.text(width).splitlines())) <= width


def test_an_unknown_command_is_one_line(say):
    with pytest.raises(UsageError, match=r"^there is no command 'hlep'; did you mean help\?$"):
        say("help hlep")


def test_completes_the_names(session):
    assert "help" in COMMANDS["help"].options[0].complete(session)
    assert run(session, "help").title == "The commands"


def test_examples_are_wrapped_in_their_column_or_below():
    block = Examples(
        [
            "    flow --jac   the largest singular value",
            "                 of the step's Jacobian",
            "    c = f * c",
        ]
    )
    wide = ["".join(span.text for span in line) for line in block.lines(60)]
    assert wide == [
        "    flow --jac   the largest singular value of the step's",
        "                 Jacobian",
        "    c = f * c",
    ]
    narrow = ["".join(span.text for span in line) for line in block.lines(36)]
    assert narrow == [
        "    flow --jac",
        "        the largest singular value",
        "        of the step's Jacobian",
        "    c = f * c",
    ]
