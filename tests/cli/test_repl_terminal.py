"""`trnn repl` in a terminal: what is typed, completed, interrupted and kept."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("IPython")
pexpect = pytest.importorskip("pexpect")

TRNN = str(Path(sys.executable).with_name("trnn"))
# A command that takes its time, and says when it has begun.
SLOW = '''
import time
from tinygrad_rnn.inspect.command import command

@command("Do", "doze")
def doze(session, arguments):
    """Does nothing for a minute."""
    print("dozing" + " off", flush=True)
    time.sleep(60)
'''


class Terminal:
    """A prompt, and what is seen of it without colours and movements."""

    def __init__(self, home: Path, columns: int = 100) -> None:
        places = {"HOME": home, "IPYTHONDIR": home / "ipython", "XDG_STATE_HOME": home / "state"}
        further = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        environment = os.environ | {name: str(place) for name, place in places.items()} | further
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = pexpect.spawn(
            TRNN,
            ["repl", "--hidden-size", "8"],
            env=environment,
            dimensions=(40, columns),
            encoding="utf-8",
            timeout=20,
        )

    def prompted(self, number: int) -> str:
        """Wait for the prompt of that number; what was shown until then."""
        # Its parts have colours of their own.
        self.process.expect(rf"In \[(?:\x1b\[[\d;]*m)*{number}(?:\x1b\[[\d;]*m)*\]: ")
        return plain(self.process.before)

    def shown(self, text: str) -> None:
        self.process.expect_exact(text)

    def type(self, text: str) -> None:
        self.process.send(text)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", text)


@pytest.fixture
def home(folder):
    home = folder / "home"
    home.mkdir()
    return home


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_a_session(home, folder):
    (folder / "slow.py").write_text(SLOW)
    terminal = Terminal(home)
    greeting = terminal.prompted(1)
    assert "a new lstm 2x8, run forward and backward over 50 characters" in greeting
    assert "Ctrl-D leaves." in greeting and 3 <= len(greeting.strip().splitlines()) <= 5

    terminal.type("import slow\r")
    terminal.prompted(2)
    # The words of the commands are completed, and their arguments.
    terminal.type("wind\t")
    terminal.shown("window")
    terminal.type(" --tr\t")
    terminal.shown("--truncate")
    terminal.type(" 10\r")
    terminal.shown("\x1b[1mwindow: 50 characters from 0 on")  # in bold: a view has its colours
    assert "is cut off before step 10, 20, 30, 40" in terminal.prompted(3)
    # What runs is interrupted, by one line.
    terminal.type("doze\r")
    terminal.shown("dozing off")
    terminal.type("\x03")
    said = terminal.prompted(4)
    assert said.replace("^C", "").strip() == "interrupted"
    # A line that is being typed is thrown away.
    terminal.type("1 / 0 + ")
    terminal.shown("+")
    terminal.type("\x03")
    # Python is completed as ever, and runs.
    terminal.type("window_size = session.len\t")
    terminal.shown("session.length")
    terminal.type("; window_size + 1\r")
    said = terminal.prompted(5)
    assert "Out[4]: 51" in said and "ZeroDivisionError" not in said
    terminal.type("window = 3\r")
    assert "note: window is a name of yours now" in terminal.prompted(6)
    terminal.type("gaets\r")
    said = terminal.prompted(7)
    assert "NameError" in said and "note: did you mean the command gates?" in said
    terminal.type("%trnn cd nowhere\r")
    assert "error: " in terminal.prompted(8)
    terminal.type("\x04")
    terminal.process.expect(pexpect.EOF)
    terminal.process.close()
    assert terminal.process.exitstatus == 0
    assert [path.name for path in home.iterdir()] == ["state"], "the user's own IPython is left alone"

    again = Terminal(home)
    again.prompted(1)
    again.type("\x1b[A")  # the arrow up: what was typed last time
    again.shown("%trnn cd nowhere")
    again.type("\x03\x04")
    again.process.expect(pexpect.EOF)


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_a_block_is_typed_over_several_lines(home):
    terminal = Terminal(home, columns=60)
    terminal.prompted(1)
    terminal.type("for step in range(3):\r")
    terminal.shown("...")
    terminal.type("print('at', step)\rbreak\r\r\r")
    assert "at 0\r\n" in terminal.prompted(2)
    terminal.type("exit\r")
    terminal.process.expect(pexpect.EOF)
