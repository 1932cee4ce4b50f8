"""The prompt of `trnn repl`: IPython, in which a line that begins with a command is that command.

Without a terminal to type at, the same shell reads a script: no prompts, no history, plain text.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from IPython.core.compilerop import CachingCompiler
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from IPython.terminal.prompts import RichPromptDisplayHook
from traitlets.config import Config

import tinygrad_rnn as tg
from tinygrad_rnn.engine.annotate import annotate
from tinygrad_rnn.errors import TinygradError
from tinygrad_rnn.inspect import COMMANDS, Session, View, run
from tinygrad_rnn.inspect.recording import by_equations
from tinygrad_rnn.inspect.view import number, shown_text
from tinygrad_rnn.notebook import Commands

from .claiming import claimed, statements
from .layout import print_paragraph, sparkline, width
from .looking import PLAIN_WIDTH, print_view
from .terminal import UNWRITABLE, counted, one_line

GREETING = (
    "Try flow, gates, grads, step; `help` lists the commands, `help flow` explains.",
    'Python works: tg, np, model, session, text, view("flow").data. Ctrl-D leaves.',
)
REFRESH = 0.1  # seconds between two live lines
SPARE = 4  # columns at its end, so that the ^C that the terminal shows begins no other line


def converse(session: Session) -> None:
    """Prompt until the user leaves."""
    with _home() as folder:
        shell = _shell(session, folder, Config())
        if sys.stdout.isatty() and sys.stderr.isatty():
            session.progress = shell.progress
        _greet(session)
        shell.mainloop()


def _greet(session: Session) -> None:
    read = counted(session.length, "character")
    print_paragraph(f"trnn {tg.__version__}: {session.name}, run forward and backward over {read}:")
    print(shown_text(session.text)[: width() or PLAIN_WIDTH])
    for paragraph in GREETING:
        print_paragraph(paragraph)


def read(session: Session, lines: Iterable[str]) -> None:
    """Run a script line by line, going on after what fails. TinygradError at its end says how much did."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.TerminalInteractiveShell.simple_prompt = True
    done = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        shell = _shell(session, folder, config)
        shell.scripted = True
        for statement in statements(lines, shell.claims):
            if all(not line.strip() or line.startswith("#") for line in statement.splitlines()):
                continue
            result = shell.run_cell(statement, store_history=True)
            sys.stdout.flush()
            error = result.error_before_exec or result.error_in_exec
            if isinstance(error, KeyboardInterrupt) or _output_is_lost(error):
                raise error
            done, failed = done + 1, failed + (error is not None)
            if not shell.keep_running:  # it said `exit`
                break
    if failed:
        raise TinygradError(f"{failed} of {counted(done, 'line')} failed")


class Compiler(CachingCompiler):
    """Names what was typed as the prompt in front of it: a node's place is `In [3]:1`, its first line."""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return f"In [{number}]"


class Hook(RichPromptDisplayHook):
    """What becomes of an expression's value: a view is shown as by a command; a script has no prompts."""

    shell: Any

    def __call__(self, result: Any = None) -> None:
        if not isinstance(result, View):
            super().__call__(result)
        elif not self.quiet():
            self.shell.show(result)
            self.update_user_ns(result)
            self.fill_exec_result(result)

    def write_output_prompt(self) -> None:
        if self.shell.scripted:
            self.prompt_end_newline = True  # the value begins at the first column
        else:
            super().write_output_prompt()


class Shell(TerminalInteractiveShell):
    """IPython, with the commands, and with every tensor that is computed here known to the session.

    scripted   it reads a script: no prompts, tracebacks on standard error
    """

    compiler_class = Compiler
    displayhook_class = Hook
    scripted = False
    commands: Commands

    def attend(self, session: Session) -> None:
        """Make the commands and the names of the session known."""
        self.user_ns.update(tg=tg, np=np, session=session, view=lambda line: run(self.commands.session, line))
        self.commands = Commands(self, self.show, self.typed, session)
        self.register_magics(self.commands)
        self.input_transformer_manager.line_transforms.append(self.transform)
        self.set_custom_exc((TinygradError, KeyboardInterrupt), _say_error)
        self.given = {"model": session.model, "text": session.text}
        self.user_ns.update(self.given)
        self.said: set[str] = set()
        self.shown = 0  # views of this cell; of a script, of all of it
        self.progress = Progress()

    def claims(self, line: str) -> str | None:
        """The command line that a line is; None for Python."""
        return claimed(line, self.user_ns)

    def typed(self, line: str) -> bool:
        """Whether the beginning of a line may become a command."""
        return self.claims(line) is not None or line.replace("-", "").isalpha()

    def transform(self, lines: list[str]) -> list[str]:
        """The lines of a cell, each command as the call that it is."""
        return [self._call(statement) for statement in statements(lines, self.claims)]

    def _call(self, statement: str) -> str:
        command = self.claims(statement)
        return statement if command is None else f"get_ipython().run_line_magic('trnn', {command!r})\n"

    def show(self, shown: View) -> None:
        """A view of a command; those of one line, and of a script, with an empty line between them."""
        self.progress.erase()
        if self.shown:
            print()
        self.shown += 1
        print_view(shown, plainly=self.scripted)

    def run_cell(self, raw_cell: str, *args: Any, **settings: Any) -> Any:
        session = self.commands.session
        self.shown = self.shown if self.scripted else 0
        with ExitStack() as stack:
            if self.claims(raw_cell) is None:  # a command knows itself what it wants to have noted
                stack.enter_context(by_equations())
                stack.enter_context(annotate(session.observer))
            result = super().run_cell(raw_cell, *args, **settings)
        self.progress.erase()
        for name in COMMANDS.keys() & (self.user_ns.keys() - self.said):
            self.said.add(name)
            self.note(f"{name} is a name of yours now; the command is still there as `%trnn {name}`")
        self._suggest(raw_cell, result.error_before_exec or result.error_in_exec)
        self._refresh()
        return result

    def _suggest(self, failed: str, error: BaseException | None) -> None:
        """Which command may have been meant by what is no Python."""
        word = failed.split(maxsplit=1)[0] if failed.strip() else ""
        if not (isinstance(error, SyntaxError) or (isinstance(error, NameError) and error.name == word)):
            return
        if word in self.user_ns and claimed(failed) is not None:
            self.note(f"{word} is a name of yours; the command is `%trnn {word}`")
        elif word not in COMMANDS and (near := get_close_matches(word, COMMANDS, n=1, cutoff=0.7)):
            self.note(f"did you mean the command {near[0]}?")

    def _refresh(self) -> None:
        """A command may have loaded another model: its name stands for it, unless the user has taken it."""
        session = self.commands.session
        for name, value in (("model", session.model), ("text", session.text)):
            held = self.user_ns.get(name)
            if held is self.given[name] or held is value:
                self.user_ns[name] = self.given[name] = value

    def note(self, text: str) -> None:
        """A line beside what was asked for."""
        print(f"note: {text}", file=sys.stderr)

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        if not self.scripted:
            super()._showtraceback(etype, evalue, stb)
        elif not _output_is_lost(evalue):
            print(self.InteractiveTB.stb2text(stb), file=sys.stderr)


class Progress:
    """A live line while something takes long: how far it is, and the loss so far."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._next = 0.0
        self._drawn = False

    def __call__(self, step: int, steps: int, loss: float) -> None:
        if step == 1:
            self._losses, self._next = [], monotonic() + REFRESH
        self._losses.append(loss)
        if monotonic() >= self._next:
            self._next = monotonic() + REFRESH
            print(end=f"\r{self._line(step, steps, loss)}\x1b[K", file=sys.stderr, flush=True)
            self._drawn = True

    def erase(self) -> None:
        """The line is gone, and what comes next stands in its place."""
        if self._drawn:
            print(end="\r\x1b[K", file=sys.stderr, flush=True)
            self._drawn = False

    def _line(self, step: int, steps: int, loss: float) -> str:
        words = f"{step:,} of {steps:,}, loss {number(loss)} "
        room = (width() or PLAIN_WIDTH) - len(words) - SPARE
        parts = np.array_split(np.array(self._losses), max(min(room, len(self._losses)), 1))
        curve = [float(part.mean()) for part in parts]
        return words + sparkline(curve, min(curve), max(curve))


def _shell(session: Session, folder: str | Path, config: Config) -> Shell:
    """The process's one shell. What it writes goes to the folder; the user's own IPython is not asked."""
    config.TerminalInteractiveShell.confirm_exit = False
    config.TerminalInteractiveShell.term_title = False
    config.IPCompleter.use_jedi = False
    session.namespace["__name__"] = "__main__"
    sys.path.append("")  # modules of this folder, but none in the place of one that is needed here
    shell = Shell.instance(config=config, ipython_dir=str(folder), user_ns=session.namespace)
    shell.attend(session)
    return shell


@contextmanager
def _home() -> Iterator[str | Path]:
    """Where the history of the prompt is kept; where nothing can be, a place for this time."""
    from platformdirs import user_state_path

    folder = user_state_path("tinygrad_rnn", appauthor=False) / "prompt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if writable:
        yield folder
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield temporary


def _say_error(shell: Shell, kind: type, error: BaseException, *_: Any, **__: Any) -> None:
    """One line, and no traceback."""
    if isinstance(error, KeyboardInterrupt):
        print("\rinterrupted", file=sys.stderr)
    else:
        print(f"error: {one_line(str(error))}", file=sys.stderr)


def _output_is_lost(error: BaseException | None) -> bool:
    """Whether nothing more can be written: the reader has left, or the disk is full."""
    unwritable = isinstance(error, OSError) and error.filename is None and error.errno in UNWRITABLE
    return unwritable or isinstance(error, BrokenPipeError)
