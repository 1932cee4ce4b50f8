"""Which lines at the prompt are commands and which are Python, and where one statement ends."""

from __future__ import annotations

import re
import warnings
from codeop import compile_command
from collections.abc import Callable, Container, Iterable, Iterator

from tinygrad_rnn.inspect import COMMANDS

_WORD = re.compile(r"[a-z][\w-]*")
_ASKED = re.compile(r"\?{0,2}\s*([a-z][\w-]*)\s*(\?{0,2})")
# What only Python has behind a name: an assignment, a comparison, an operator between two things.
_PYTHON = re.compile(
    r"""\s*(?: (?:[-+*/%@&|^:]|//|\*\*|<<|>>)?= | [<>,:] | !=
        | (?:[-+*/%@&|^]|//|\*\*)(?:\s|$)
        | (?:in|is|if|and|or|not\s+in)\s )""",
    re.VERBOSE,
)
_GOES_ON = re.compile(r"(?:elif|else|except|finally)\b|[)\]}]")  # what begins a line, but no statement


def claimed(line: str, taken: Container[str] = ()) -> str | None:
    """The command line that a line is, or None if it is Python.

    A command begins at the first column with a command's word. It is Python where that word is one of the
    names in `taken`, is called (`next(it)`) or assigned to, or stands in an expression (`step + 1`).
    `flow?` asks for help.
    """
    line = line.rstrip()
    asked = _ASKED.fullmatch(line)
    if asked and "?" in line and asked[1] in COMMANDS and asked[1] not in taken:
        return f"help {asked[1]}"
    word = _WORD.match(line)
    if word is None or word[0] not in COMMANDS or word[0] in taken:
        return None
    rest = line[word.end() :]
    if rest and rest[0] not in " \t;":
        return None
    argument = rest.lstrip()
    # Of an expression as the argument a bracket may be the beginning; elsewhere it is a call.
    if _PYTHON.match(rest) or (argument[:1] in ("(", "[") and COMMANDS[word[0]].rest is None):
        return None
    return line


def statements(lines: Iterable[str], is_command: Callable[[str], object]) -> Iterator[str]:
    """The lines, each with its line end, put together to what is run as one: a command, or one statement of
    Python at the first column with all that belongs to it, or what stands under `%%` up to an empty line.

    Yields each as soon as it is known to be complete.
    """
    held: list[str] = []
    for line in lines:
        if held and _begins(line, held):
            yield "".join(held)
            held = []
        held.append(line)
        if len(held) == 1 and not line.startswith("%%") and (is_command(line) or _ended(line, "single")):
            yield line
            held = []
    if held:
        yield "".join(held)


def _begins(line: str, held: list[str]) -> bool:
    """Whether the line begins something new, rather than being a part of what is held."""
    if held[0].startswith("%%"):
        return not held[-1].strip()
    if not line.strip() or line[0] in " \t#" or _GOES_ON.match(line):
        return False
    return _ended("".join(held), "exec")


def _ended(source: str, symbol: str) -> bool:
    """Whether no bracket, string or block is open at its end."""
    if source.endswith("\\\n"):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return compile_command(source, symbol=symbol) is not None
        except (SyntaxError, ValueError, OverflowError):  # no more lines would mend it, or it is a magic
            return True
