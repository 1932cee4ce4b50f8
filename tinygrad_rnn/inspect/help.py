"""`help`: the commands by their groups, or one of them with its usage, options and example."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from typing import Any

from .command import COMMANDS, GROUPS, Command, command, find, option
from .session import Session
from .view import Block, Facts, Line, Span, Text, View

ROOMY = 24  # columns that what an example does needs beside it
FURTHER = 4  # columns by which it is indented below it
FIRST = ("graph", "flow", "why", "lesson")  # of their groups: where a stranger begins


@command(
    "Look",
    "help help",
    option("command", nargs="?", metavar="COMMAND", complete=lambda session: [*COMMANDS], help="one of them"),
)
def help(session: Session, arguments: argparse.Namespace) -> View:
    """The commands, or all about one of them.

    Every command answers a question about the network and the window of text that it has just read, forward
    and backward. Several stand on a line with semicolons between them.

        help
        help help
    """
    return _all() if arguments.command is None else _one(find(arguments.command))


def _all() -> View:
    blocks: list[Block] = []
    margin = max(map(len, COMMANDS))
    for group in GROUPS:
        members = [entered for entered in COMMANDS.values() if entered.group == group]
        members.sort(key=lambda entered: entered.name not in FIRST)
        if members:
            facts = Facts([(f"{one.name:{margin}}", one.summary) for one in members])
            blocks += [Text(""), Text(group, "title"), facts]
    more = "`help COMMAND` says more. `;` stands between two commands on a line."
    data = {
        group: {one.name: one.summary for one in COMMANDS.values() if one.group == group} for group in GROUPS
    }
    return View("The commands", [*blocks, Text(""), Text(more)], {"groups": data})


def _one(called: Command) -> View:
    facts = [("usage", called.usage), ("example", called.example)]
    options = [
        (_names(given.names, given.settings), given.settings.get("help", "")) for given in called.options
    ]
    blocks: list[Block] = [*_paragraphs(called.doc), Text(""), Facts(facts)]
    if described := [(names, text) for names, text in options if text]:
        blocks += [Text(""), Facts(described)]
    data = {
        "command": called.name,
        "group": called.group,
        "usage": called.usage,
        "example": called.example,
        "doc": called.doc,
        "options": dict(options),
    }
    return View(f"{called.name}: {called.summary}", blocks, data)


def _names(names: tuple[str, ...], settings: dict[str, Any]) -> str:
    value = settings.get("metavar") or ""
    if not names[0].startswith("-"):
        return value or names[0]
    return f"{', '.join(names)} {value}".rstrip()


def _paragraphs(doc: str) -> list[Block]:
    """What follows the summary: paragraphs, to be wrapped anew, and between them lines that are indented."""
    blocks: list[Block] = []
    for lines in _parts(doc.split("\n")[1:]):
        blocks.append(Text(" ".join(lines)) if _depth(lines[0]) == 0 else Examples(lines))
    return blocks


def _parts(lines: list[str]) -> Iterator[list[str]]:
    """Lines of one kind: indented, not indented, empty."""
    for _, part in groupby(lines, lambda line: (not line, _depth(line) > 0)):
        yield list(part)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


@dataclass(frozen=True)
class Examples:
    """Indented lines: what one would type, two blanks or more, what it does. That is wrapped in its column,
    or below where this is too narrow; a line that is indented as far as the column goes on with it."""

    given: Sequence[str]

    def lines(self, width: int) -> Iterator[Line]:
        for head, text in self._rows():
            column = len(head)
            if text and width - column < ROOMY:
                yield [Span(head.rstrip())]
                head, column = "", _depth(head) + FURTHER
            rows = wrap(text, max(width - column, 10), break_on_hyphens=False) or [""]
            for number, row in enumerate(rows):
                yield [Span((head if number == 0 and head else " " * column) + row)]

    def _rows(self) -> list[tuple[str, str]]:
        rows: list[tuple[str, str]] = []
        for line in self.given:
            gap = re.search(r"\S {2,}(?=\S)", line)
            if rows and not gap and _depth(line) == len(rows[-1][0]) > _depth(rows[-1][0]):
                rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}")
            else:
                column = gap.end() if gap else _depth(line)
                rows.append((line[:column], line[column:]))
        return rows
