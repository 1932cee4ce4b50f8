"""The magic inside IPython: `%load_ext tinygrad_rnn`, what it prints, completes, and how it fails."""

from __future__ import annotations

import atexit
import sys

import pytest

from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import COMMANDS, Session, View
from tinygrad_rnn.inspect.command import command, option

pytest.importorskip("IPython")


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """An IPython that keeps nothing, with the extension."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # IPython puts its own there
    config = Config()
    config.HistoryManager.enabled = False
    config.IPCompleter.use_jedi = False
    config.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell.instance(config=config, ipython_dir=str(tmp_path))
    assert shell.run_cell("%load_ext tinygrad_rnn").success
    yield shell
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)
    InteractiveShell.clear_instance()


@pytest.fixture
def echo():
    """A command that shows its argument, and where it was called."""

    @command("Do", "echo words", option("words", nargs="*", complete=lambda session: ["alpha", "albatross"]))
    def echo(session, arguments):
        """Shows what it was given."""
        echo.sessions.append(session)
        return View("echo: " + " ".join(arguments.words))

    echo.sessions = []
    yield echo
    del COMMANDS["echo"]


def test_a_line(shell, echo, capsys):
    assert shell.run_cell("x = 5\n%trnn echo {1+1} $x; echo 'a; b'").success
    assert capsys.readouterr().out == "echo: {1+1} $x\n\necho: a; b\n\n", "nothing is expanded"


def test_a_cell(shell, echo, capsys):
    assert shell.run_cell("%%trnn\necho one\n# a remark\n\necho two; echo three\n").success
    assert capsys.readouterr().out == "echo: one\n\necho: two\n\necho: three\n\n"


def test_alone_it_lists_the_commands(shell, capsys):
    shell.run_cell("%trnn")
    assert capsys.readouterr().out.startswith("The commands\n")


def test_a_failure_is_one_line_and_fails_the_cell(shell, echo, capsys):
    result = shell.run_cell("%%trnn\necho one\necoh two\necho three")
    assert isinstance(result.error_in_exec, UsageError) and not result.success
    assert capsys.readouterr().out == "echo: one\n\nerror: there is no command 'ecoh'; did you mean echo?\n"


def test_the_session_is_the_notebook_s_or_a_small_one(shell, echo, session):
    shell.run_cell("%trnn echo; echo")
    first, second = echo.sessions
    assert first is second and isinstance(first, Session)
    assert first.namespace is shell.user_ns, "the commands see the tensors of the notebook"
    shell.user_ns["session"] = session
    shell.run_cell("%trnn echo")
    assert echo.sessions[-1] is session and session.namespace is shell.user_ns
    shell.user_ns["session"] = "of something else"
    shell.run_cell("%trnn echo")
    assert echo.sessions[-1] is first


def test_tensors_of_the_notebook_are_known_by_name(shell, session, capsys):
    shell.user_ns["session"] = session
    shell.run_cell("import tinygrad_rnn as tg\nx = tg.tensor(3.0, requires_grad=True)\ny = x * x")
    assert shell.run_cell("%trnn focus y").success
    assert "focus: y" in capsys.readouterr().out
    assert session.focus.root is shell.user_ns["y"]


def test_a_view_has_html_for_the_notebook(shell, session, monkeypatch):
    published = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, **_: published.append(data))
    shell.user_ns["session"] = session
    shell.run_cell("%trnn help help")
    [data] = published
    assert set(data) >= {"text/plain", "text/html"}
    assert data["text/html"].startswith("<pre")


def test_completion(shell, echo):
    from IPython.core.completer import provisionalcompleter

    def complete(line):
        with provisionalcompleter():
            return [one.text for one in shell.Completer.completions(line, len(line))]

    assert "echo" in complete("%trnn ec")
    assert complete("%trnn echo al") == ["alpha", "albatross"]
    assert complete("%trnn help; echo al") == ["alpha", "albatross"]
    assert "albatross" not in complete("echo al"), "without the magic it is Python"


def test_unloading(shell, capsys):
    before = len(shell.Completer.custom_matchers)
    shell.run_cell("%unload_ext tinygrad_rnn")
    assert len(shell.Completer.custom_matchers) == before - 1
    assert not shell.run_cell("%trnn help").success
    shell.run_cell("%load_ext tinygrad_rnn\n%trnn help")
    assert "The commands" in capsys.readouterr().out
