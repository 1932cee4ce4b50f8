"""Commands: how one is declared, found, given its arguments, and completed.

    @command("Through time", "flow --from 30", option("--from", dest="source", type=int))
    def flow(session, arguments):
        '''The norm of the gradient at every time step.  ...'''

The first line of the docstring is what `help` says of it, the whole of it what `help flow` does.
"""

from __future__ import annotations

import argparse
import inspect
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import UsageError
from .view import Text, View

if TYPE_CHECKING:
    from .session import Session

GROUPS = ("Look", "Through time", "Step through the backward pass", "Why", "Do")

Completer = Callable[["Session"], Sequence[str]]
Function = Callable[["Session", argparse.Namespace], "View"]


@dataclass(frozen=True)
class Option:
    """One argument of a command, as argparse takes it, and what may stand there."""

    names: tuple[str, ...]
    settings: dict[str, Any]
    complete: Completer | None = None

    @property
    def takes_value(self) -> bool:
        return "action" not in self.settings


def option(*names: str, complete: Completer | None = None, **settings: Any) -> Option:
    """`option("--from", type=int, help=...)` or `option("node", nargs="?")`.

    complete: gives all words that may stand there, for the Tab key.
    """
    return Option(names, settings, complete)


@dataclass(frozen=True)
class Command:
    """A command. rest: it takes the rest of the line as it is, in arguments.rest."""

    name: str
    group: str
    example: str
    options: tuple[Option, ...]
    function: Function
    rest: str | None = None

    @property
    def summary(self) -> str:
        return self.doc.split("\n")[0]

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""

    @property
    def usage(self) -> str:
        if self.rest is not None:
            return f"{self.name} {self.rest}".rstrip()
        return _usage(self._parser())

    def _parser(self) -> argparse.ArgumentParser:
        parser = _Parser(prog=self.name, add_help=False, allow_abbrev=False)
        for given in self.options:
            parser.add_argument(*given.names, **given.settings)
        return parser

    def arguments(self, line: str) -> argparse.Namespace:
        """What stands behind the name. UsageError in one line."""
        if self.rest is not None:
            return argparse.Namespace(rest=line.strip())
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"{self.name}: {error}") from None
        return self._parser().parse_args(words)

    def __call__(self, session: Session, line: str) -> View:
        return self.function(session, self.arguments(line))


COMMANDS: dict[str, Command] = {}
"""Every command by its name."""


def command(group: str, example: str, *options: Option, name: str = "", rest: str | None = None) -> Callable:
    """Enter a function (session, arguments) -> View. Its name is the command's, `what_if` is what-if.

    example: a line that works in the session that `trnn repl` begins with; a test runs it.
    rest: what the rest of the line is, for the help ("EXPRESSION"): it is not taken apart.
    """

    def enter(function: Function) -> Function:
        called = name or function.__name__.replace("_", "-")
        assert group in GROUPS and called not in COMMANDS
        COMMANDS[called] = Command(called, group, example, options, function, rest)
        return function

    return enter


def find(name: str) -> Command:
    """UsageError for one that there is not, with what may have been meant."""
    if name in COMMANDS:
        return COMMANDS[name]
    near = get_close_matches(name, COMMANDS, n=1)
    raise UsageError(
        f"there is no command {name!r}; " + (f"did you mean {near[0]}?" if near else "`help` lists them")
    )


def run(session: Session, line: str) -> View:
    """Run one line: a command and its arguments."""
    name, rest = [*line.split(None, 1), "", ""][:2]
    if not name:
        raise UsageError("a command, please; `help` lists them")
    called = find(name)
    if not session.renew():
        return called(session, rest)
    view = called(session, rest)
    said = Text("the weights were changed since: the window was run again", "dim")
    return replace(view, blocks=[said, *view.blocks])


def split(line: str) -> list[str]:
    """The commands of a line, between semicolons that stand outside quotation marks."""
    parts, quote, start = [], "", 0
    for place, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == ";":
            parts.append(line[start:place])
            start = place + 1
    return [part.strip() for part in [*parts, line[start:]] if part.strip()]


def completions(session: Session, line: str) -> list[str]:
    """What the last word of the line may become."""
    before = line.split()
    last = "" if not line or line[-1].isspace() else before.pop()
    if not before:
        return [name for name in COMMANDS if name.startswith(last)]
    called = COMMANDS.get(before[0])
    if called is None:
        return []
    words: list[str] = []
    asked = [given for given in called.options if before[-1] in given.names and given.takes_value]
    for given in asked or called.options:
        flags = [name for name in given.names if name.startswith("-")]
        words += () if asked else flags
        if asked or not flags:
            words += [str(choice) for choice in given.settings.get("choices") or ()]
            words += given.complete(session) if given.complete is not None else ()
    return [word for word in dict.fromkeys(words) if word.startswith(last)]


class _Parser(argparse.ArgumentParser):
    """Raises instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; usage: {_usage(self)}")


def _usage(parser: argparse.ArgumentParser) -> str:
    return re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: ")).strip()
