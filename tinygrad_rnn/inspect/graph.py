"""`graph`: the picture of a graph, what is alike at many time steps shown once."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..engine.node import Node
from ..errors import UsageError
from .command import command, option
from .folding import Cell, Formulae, called_in_equations, cells
from .operands import norm, shape_text
from .session import Session
from .tape import Tape
from .view import Line, Span, Table, Text, View

SCREEN = 40  # lines


@command(
    "Look",
    "graph",
    option(
        "scope",
        nargs="?",
        metavar="MODULE",
        help="only what this module made",
        complete=lambda session: modules(session.focus),
    ),
    option("--t", dest="steps", metavar="STEPS", help="only these time steps: 3 or 3..5"),
    option("--rolled", action="store_true", help="one cell a layer, and the state that goes round"),
    option("--all", action="store_true", help="however long it is, nothing folded"),
)
def graph(session: Session, arguments: argparse.Namespace) -> View:
    """The graph: every op, its shape, where it belongs, and the norm of its gradient.

    From the leaves down to the loss. Time steps that look alike are shown once, at step t: h[t-1] is the
    hidden state of the step before, and #39 is the node at the first step that has all its inputs. Where a
    line an op would be more than a screen, what is used once stands inside the formula of what uses it.
    |grad| is the norm of dL/d(node), at the first and at the last of the steps; "const" is an input that
    needs no gradient.

        graph               the whole, on a screen
        graph rnn.l0        one module, a line an op
        graph --t 3..5      these time steps
        graph --rolled      one cell a layer
        graph --all         every node
    """
    tape = session.focus
    whole = arguments.scope is None and arguments.steps is None
    name = "the loss" if session.at_window else called_in_equations(session, tape.nodes[-1])
    found = cells(tape, _wanted(tape, arguments), fold=not arguments.all)
    if not found and not whole:
        raise UsageError(
            f"{arguments.scope} made nothing at t={arguments.steps}; `graph` shows what there is"
        )
    if arguments.rolled and not any(cell.loop for cell in found):
        raise UsageError("nothing here goes round from one time step to the next; `graph` shows all there is")
    made = [
        *([leaves(session, arguments.rolled)] if whole else []),
        *_sections(session, found, inline=arguments.rolled),
    ]
    if not arguments.all and sum(section.height for section in made) > SCREEN - 4:
        short = [leaves(session, folded=True)] if whole else []
        made = [*short, *_sections(session, found, inline=True)]
    edges = sum(p is not None for node in tape.nodes for p in node.parents)
    title = f"The graph of {name}: {_count(len(tape.nodes), 'node')}, {_count(edges, 'edge')}"
    room = None if arguments.all else SCREEN - 4
    data = {"root": name, "nodes": len(tape.nodes), "edges": edges, "sections": [vars(one) for one in made]}
    several = any(len(row["steps"]) > 1 for section in made for row in section.rows)
    note = f"|grad|: norm of the gradient of {name}{', at the first..last of the steps' * several}"
    return View(title, [Sections(made, arguments.rolled, room), Text(note, "dim")], data)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _wanted(tape: Tape, arguments: argparse.Namespace) -> Callable[[Node], bool]:
    """Which nodes were asked for."""
    steps = None if arguments.steps is None else steps_of(tape, arguments.steps)
    scope = arguments.scope
    if scope is not None and scope not in modules(tape):
        raise UsageError(f"no module {scope!r} here; there are {', '.join(modules(tape)) or 'none'}")

    def wanted(node: Node) -> bool:
        inside = scope is None or f"{node.module}.".startswith(f"{scope}.")
        return inside and (steps is None or node.time_step in steps)

    return wanted


def modules(tape: Tape) -> list[str]:
    """The paths of the modules that made nodes of it, and of what these are in."""
    found: dict[str, None] = {}
    for node in tape.nodes:
        parts = (node.module or "").split(".")
        found |= dict.fromkeys(".".join(parts[: n + 1]) for n in range(len(parts)) if parts[0])
    return list(found)


def steps_of(tape: Tape, text: str) -> range:
    """ "3" or "3..5" as time steps of the graph. UsageError for others."""
    there = sorted({node.time_step for node in tape.nodes if node.time_step is not None})
    match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", text)
    if not there:
        raise UsageError("this graph has no time steps; `graph` shows all of it")
    if match is None:
        raise UsageError(f"--t {text}: say a time step as 3, or some as 3..5")
    first, last = int(match[1]), int(match[2] or match[1])
    if not there[0] <= first <= last <= there[-1]:
        raise UsageError(f"--t {text}: the time steps are {there[0]} to {there[-1]}")
    return range(first, last + 1)


# --- the picture ----------------------------------------------------------------------------------


@dataclass
class Section:
    """A cell, or the leaves, as a heading and rows.

    state   what goes round from one time step to the next, by name
    """

    heading: str
    rows: list[dict[str, Any]]
    state: Sequence[str] = ()

    @property
    def height(self) -> int:
        return 1 + len(self.rows)


@dataclass(frozen=True)
class Sections:
    """Sections as one table.

    loops   draw the state going round beside the rows
    room    the lines that there may be: of more, those in the middle are left out; None for all
    """

    sections: Sequence[Section]
    loops: bool
    room: int | None

    def lines(self, width: int) -> Iterator[Line]:
        lines = list(self._all(width))
        over = 0 if self.room is None else max(len(lines) - self.room, 0)
        start = (len(lines) - over) // 2
        yield from lines[:start]
        if over:
            yield [Span(f".. {over + 1} lines left out: --all", "mark")]
            start += over + 1
        yield from lines[start:]

    def _all(self, width: int) -> Iterator[Line]:
        header = ["node", "what it computes", "shape", "called", "|grad|"]
        rows = [_cells_of(row) for section in self.sections for row in section.rows]
        first, *others = Table(header, rows, ["called", "shape", "|grad|"]).lines(width - 1)
        left = iter(others)
        yield [Span(" "), *first]
        for section in self.sections:
            state = ", ".join(section.state) if self.loops else ""
            yield from Text(section.heading, "label").lines(width)
            if state:
                yield from Text(f"+-> {state} of the step before", "mark").lines(width)
            for _ in section.rows:
                yield [Span("|" if state else " ", "mark"), *next(left)]
            if state:
                yield from Text(f"+-- {state} to the next step", "mark").lines(width)


def _cells_of(row: dict[str, Any]) -> list[str | None]:
    shape = shape_text(row["shape"])
    return [row["node"], row["formula"], shape, row["name"], _norms(row["gradient_norms"])]


def _sections(session: Session, found: Sequence[Cell], inline: bool) -> list[Section]:
    made = []
    for cell in found:
        formulae = Formulae(session, cell, inline)
        rows = [
            _row(session, formulae.label(node), formulae[node], [run[place] for run in cell.runs], node)
            for place, node in enumerate(cell.typical)
            if node not in formulae.inside
        ]
        state = [re.sub(r"\[t\]$", "", formulae.label(node)) for node in reversed(cell.loop)]
        made.append(Section(_heading(cell), rows, state))
    return made


def _row(session: Session, label: str, formula: str, alike: Sequence[Node], node: Node) -> dict[str, Any]:
    """node: the one among those alike that the row shows."""
    gradients = [session.focus.gradients.get(one) for one in alike]
    return {
        "node": label,
        "number": session.focus.numbers[node],
        "op": "leaf" if node.op is None else node.op.name,
        "formula": formula,
        "shape": node.shape,
        "name": node.name,
        "steps": [one.time_step for one in alike],
        "gradient_norms": [None if g is None else norm(g) for g in gradients],
    }


def leaves(session: Session, folded: bool = False) -> Section:
    """What the graph begins with: a row each, or all in the heading."""
    found = [node for node in session.focus.nodes if node.op is None]
    if folded:
        size = sum(math.prod(node.shape) for node in found)
        return Section(f"{len(found)} leaves, {size:,} numbers: `grads`", [])
    rows = [_row(session, called_in_equations(session, node), "leaf", [node], node) for node in found]
    return Section("leaves", rows)


def _heading(cell: Cell) -> str:
    steps, module = cell.steps, cell.runs[0][0].module or ""
    if not steps:
        return f"{module} (x{len(cell.runs)})" if len(cell.runs) > 1 else module or "outside of any module"
    if len(steps) == 1:
        return f"{module}  t={steps[0]}".strip()
    note = f"; no gradient goes back from t={_ranges(cell.begins)}" if cell.begins else ""
    return f"{module}  t={_ranges(steps)} (x{len(steps)}){note}".strip()


def _ranges(steps: Sequence[int]) -> str:
    """1, 2, 3, 7 as 1..3, 7"""
    runs = [[s for _, s in run] for _, run in groupby(enumerate(steps), key=lambda pair: pair[1] - pair[0])]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs]
    return ", ".join(texts if len(texts) < 6 else [*texts[:4], "..", texts[-1]])


def _norms(norms: Sequence[float | None]) -> str:
    ends = norms if len(norms) == 1 else [norms[0], norms[-1]]
    return "..".join(map(_short, ends))


def _short(value: float | None) -> str:
    """none, 0, 1.8e-2"""
    if not value:
        return "none" if value is None else "0"
    digits, e, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}" if e and int(power) else digits
