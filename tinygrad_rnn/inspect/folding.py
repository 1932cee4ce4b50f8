"""What is alike in a graph, and what a node computes, as text: what the picture of a graph is made of.

A run is a stretch of nodes of one module at one time step, in the order in which they were made. Runs of the
same ops, joined to the same things as many steps back, are one cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ..engine.node import Node
from . import address
from .operands import Values
from .session import Session
from .tape import Tape

LONGEST = 39  # characters of a formula that other ops are drawn into
INFIX = {"add": ("+", 1), "subtract": ("-", 1), "multiply": ("*", 2), "divide": ("/", 2), "matmul": ("@", 2)}
ATOM = 3  # binds more tightly than any infix op

Link = tuple | None
"""From a node to an input: (None, None, place in the same run), ("leaf", None, number) or (module, steps
back, place in its run), steps back None where either has no time step. None: it needs no gradient."""


@dataclass
class Cell:
    """Runs that are alike.

    runs   each a list of nodes, oldest run first
    links  for each node of a run a link for each of its inputs, as far as any of the runs has it
    """

    runs: list[list[Node]]
    links: list[list[Link]]

    @property
    def steps(self) -> list[int]:
        return [run[0].time_step for run in self.runs if run[0].time_step is not None]

    @property
    def typical(self) -> list[Node]:
        """The first of the runs that lack the fewest inputs: at the first time step there is no state yet."""
        return min(self.runs, key=lambda run: sum(p is None for node in run for p in node.parents))

    @property
    def loop(self) -> list[Node]:
        """The nodes of the typical run that the next time step uses: the state."""
        own = self.runs[0][0].module
        used = {link[2] for links in self.links for link in links if link and link[:2] == (own, 1)}
        return [node for place, node in enumerate(self.typical) if place in used]

    @property
    def begins(self) -> list[int]:
        """Of a state that goes round, the time steps after the first that no gradient goes back from."""

        def goes_back(run: list[Node]) -> bool:
            before = (p.time_step for node in run for p in node.parents if p is not None)
            return any(step is not None and step < (run[0].time_step or 0) for step in before)

        return [run[0].time_step or 0 for run in self.runs[1:] if self.loop and not goes_back(run)]


def cells(tape: Tape, wanted: Callable[[Node], bool], fold: bool = True) -> list[Cell]:
    """The runs of ops that are wanted, oldest first. fold: those that are alike together."""
    ops = [node for node in tape.nodes if node.op is not None]
    runs = [list(run) for _, run in groupby(ops, key=lambda node: (node.module, node.time_step))]
    place = {node: (number, at) for number, run in enumerate(runs) for at, node in enumerate(run)}
    found: list[Cell] = []
    alike: dict[tuple, list[Cell]] = {}
    for run in runs:
        if not wanted(run[0]):
            continue
        links = [[_link(tape, place, node, parent) for parent in node.parents] for node in run]
        ops_of_run = tuple(
            (node.op.name, node.name, _shape_alike(node)) for node in run if node.op is not None
        )
        kind = (run[0].module, run[0].time_step is None, ops_of_run)
        for cell in alike.setdefault(kind, []):
            joined = _joined(cell.links, links)
            if joined is not None:
                cell.runs.append(run)
                cell.links = joined
                break
        else:
            found.append(Cell([run], links))
            if fold:
                alike[kind].append(found[-1])
    return found


def _shape_alike(node: Node) -> Any:
    """The shape; of what stacks or joins as many things as it is given, nothing."""
    assert node.op is not None
    return None if node.op.input_names is None else node.shape


def _link(tape: Tape, place: Mapping[Node, tuple[int, int]], node: Node, parent: Node | None) -> Link:
    if parent is None:
        return None
    if parent.op is None:
        return ("leaf", None, tape.numbers[parent])
    run, at = place[parent]
    if run == place[node][0]:
        return (None, None, at)
    known = node.time_step is not None and parent.time_step is not None
    return (parent.module, node.time_step - parent.time_step if known else None, at)  # type: ignore[operator]


def _joined(one: list[list[Link]], other: list[list[Link]]) -> list[list[Link]] | None:
    """The links of both; None if they contradict one another."""
    joined = []
    for mine, yours in zip(one, other, strict=True):
        if len(mine) != len(yours):  # stacks of more steps and of fewer
            if {*mine} != {*yours}:
                return None
            yours = mine
        if any(a != b and a is not None and b is not None for a, b in zip(mine, yours, strict=True)):
            return None
        joined.append([b if a is None else a for a, b in zip(mine, yours, strict=True)])
    return joined


# --- formulae -------------------------------------------------------------------------------------


class Formulae:
    """What each node of a cell computes, as text.

    inline  what is used once goes into the formula of what uses it, as far as that stays short: `inside` has
            these nodes. Otherwise each is the name of its op and its inputs.
    """

    def __init__(self, session: Session, cell: Cell, inline: bool) -> None:
        self.session, self.cell, self.inline, self.run = session, cell, inline, cell.typical
        self._values = Values(session)
        self.inside: set[Node] = set()
        self._written: dict[Node, tuple[str, int]] = {}
        for node in self.run:
            self._written[node] = self._formula(node)

    def __getitem__(self, node: Node) -> str:
        return self._written[node][0]

    def label(self, node: Node) -> str:
        """What a node is called in this cell: h[t-1] for the h of the step before."""
        name, step = called_in_equations(self.session, node), node.time_step
        if len(self.cell.runs) == 1 or step is None or self.run[0].time_step is None:
            return name
        away = step - self.run[0].time_step
        if name.endswith(f"[{step}]"):
            return name.removesuffix(f"[{step}]") + (f"[t{away:+d}]" if away else "[t]")
        return f"{name} of t{away:+d}" if away else name

    def _formula(self, node: Node) -> tuple[str, int]:
        """Text, and how tightly it binds."""
        chosen = {i: p for i, p in enumerate(node.parents) if p is not None and self._may_be_inside(p)}
        text, binding = self._write(node, chosen)
        while len(text) > LONGEST and chosen:
            del chosen[max(chosen, key=lambda i: len(self[chosen[i]]))]
            text, binding = self._write(node, chosen)
        self.inside |= {*chosen.values()}
        return text, binding

    def _may_be_inside(self, node: Node) -> bool:
        return (
            self.inline
            and node in self._written
            and node.outputs is None
            and len(self.session.focus.users[node]) == 1
            and called_in_equations(self.session, node).startswith("#")
        )

    def _write(self, node: Node, chosen: Mapping[int, Node]) -> tuple[str, int]:
        op, name = node.op, "" if node.op is None else node.op.name
        assert op is not None
        given = [self._operand(node, number, number in chosen) for number in range(len(node.parents))]
        if self.inline and name in INFIX and len(given) == 2:
            (left, tight), (right, tighter) = given
            sign, binding = INFIX[name]
            left, right = (
                left if tight >= binding else f"({left})",
                right if tighter > binding else f"({right})",
            )
            return f"{left} {sign} {right}", binding
        if self.inline and name in ("transpose", "getitem"):
            inner = given[0][0] if given[0][1] == ATOM else f"({given[0][0]})"
            if name == "transpose" and node.params.get("axes") is None:
                return f"{inner}.T", ATOM
            if name == "getitem" and isinstance(index := node.params.get("index"), int):
                repeats = len(self.cell.runs) > 1 and node.time_step is not None
                return f"{inner}[{'t' if repeats else index}]", ATOM
        texts = [text for text, _ in given]
        if op.input_names is None and len(texts) > 4:
            texts = [texts[0], "..", texts[-1]]
        return f"{name}({', '.join(texts)})", ATOM

    def _operand(self, node: Node, number: int, inside: bool) -> tuple[str, int]:
        parent = node.parents[number]
        if parent is None:
            return self._constant(node, number), ATOM
        if inside:
            return self._written[parent]
        return self.label(parent) + ("" if parent.outputs is None else f".{node.output_used(number)}"), ATOM

    def _constant(self, node: Node, number: int) -> str:
        """An input that needs no gradient: the number that it is everywhere, or "const"."""
        operand = self._values.operands(node)[number]
        if operand.unknown or operand.value is None:
            return "const" if operand.unknown else "none"
        elements = np.asarray(operand.value, np.float64).ravel()
        first = round(float(elements[0]), 4) if elements.size and np.isfinite(elements[0]) else np.nan
        same = np.allclose(elements, first, rtol=1e-6, atol=1e-6)
        return f"{first:.5g}" if same else "const"


def called_in_equations(session: Session, node: Node) -> str:
    """What a node is called; the weights of the recurrent layers as in the equations, without "rnn."."""
    return address.label(session, node).removeprefix("rnn.")
