"""A debugger for the backward pass: go through it node by node, stop where something happens, look, go back.

The tape holds what the backward pass did at each node, so the debugger is a place in it: going back is exact,
and no hook of the user's is called again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ..engine.node import Node
from ..errors import UsageError
from . import address
from .command import command, option
from .expression import compiled, evaluate
from .graph import modules
from .jacobian import jacobian
from .operands import made_at, norm, parts, shape_text
from .session import Session
from .tape import Tape
from .view import Block, Facts, Line, Lines, Span, Text, View
from .view import number as shown
from .visit import Delivery, Visit, derivative_in, gradient_data, gradient_text, upstream

GROUP = "Step through the backward pass"
WRITTEN_OUT = 8  # rows and columns up to which a Jacobian is shown
INPUTS = 4  # of a node with more inputs the first and the last are shown


@dataclass(frozen=True)
class Breakpoint:
    """A condition on a node.

    text    as it was given
    holds   whether a node fulfils it
    each    stop at every node that does, not only where the walk comes to such nodes from others
    """

    text: str
    holds: Callable[[Tape, Node], bool]
    each: bool


@dataclass
class Debugger:
    """Where one is in the backward pass, and what to look out for on the way.

    visited      how many nodes were visited; the last of them is what is shown
    breakpoints  by their numbers, which do not change when others are deleted
    watches      expressions, likewise
    """

    visited: int = 0
    breakpoints: dict[int, Breakpoint] = field(default_factory=dict)
    watches: dict[int, str] = field(default_factory=dict)

    def anew(self) -> Debugger:
        """For another graph: at its beginning, with the same breakpoints and watches."""
        return Debugger(0, self.breakpoints, self.watches)

    def hit(self, tape: Tape, place: int) -> str | None:
        """What stops at tape.order[place], if anything does."""
        for number, point in self.breakpoints.items():
            if stops_at(point, tape, place):
                return f"breakpoint {number}: {point.text}"
        return None


def stops_at(point: Breakpoint, tape: Tape, place: int) -> bool:
    """Whether it stops at the node that is visited at this place of the order."""
    if not point.holds(tape, tape.order[place]):
        return False
    return point.each or not place or not point.holds(tape, tape.order[place - 1])


def debugger(session: Session) -> Debugger:
    """The one of the session; with a new window or another graph it is back at the beginning."""
    session.focus  # noqa: B018 - says so where there is none
    return cast(Debugger, session.memory.setdefault("debugger", Debugger()))


# --- to go on and back ----------------------------------------------------------------------------


@command(GROUP, "step", option("count", nargs="?", type=int, default=1, metavar="N"))
def step(session: Session, arguments: argparse.Namespace) -> View:
    """Visit the next node of the backward pass, or the next N, and show what happened there.

    The pass begins at the loss with dL/dL = 1 and visits a node when its gradient g is complete: after all
    nodes that used it. For each input that needs one the picture shows

        Jacobian      d out / d input: values where they are at most 8 x 8, and its structure
        contribution  J^T g, what the op's vector-Jacobian product adds to the gradient of the input
        accumulator   that gradient before and after: a value that was used twice gets two contributions

        step          one node
        step 10       ten; a breakpoint on the way stops it
    """
    at_least_one(arguments.count, "step")
    return _go(session, lambda taken, before, node: taken == arguments.count)


@command(GROUP, "next", name="next")
def next_(session: Session, arguments: argparse.Namespace) -> View:
    """Go on to the next time step or module.

    Nodes are visited until one belongs to another module or time step than the last one; that is shown. A
    breakpoint on the way stops it.

        next
    """
    return _go(session, lambda taken, before, node: before is not None and _scope(before) != _scope(node))


@command(GROUP, "until h[3]", option("node", complete=address.names))
def until(session: Session, arguments: argparse.Namespace) -> View:
    """Go on until a node has been visited.

    Its gradient is complete then, and the view shows what it handed on. A breakpoint on the way stops it.

        until h[3]
        until weight_hh_l0
    """
    visit = Visit(session, address.find(session, arguments.node))
    there, at = visit.step, debugger(session).visited
    if there == at:
        raise UsageError(f"{arguments.node} has just been visited: `where` shows it")
    if there < at:
        raise UsageError(
            f"{arguments.node} was visited at step {there:,}, and this is step {at:,}: `back {at - there}`"
        )
    return _go(session, lambda taken, before, node: node is visit.node)


@command(GROUP, "continue", name="continue")
def continue_(session: Session, arguments: argparse.Namespace) -> View:
    """Go on to the next breakpoint, or to the end.

    `break` says where that is; without one the pass runs through.

        break t 3; continue
    """
    return _go(session, lambda taken, before, node: False)


@command(GROUP, "step 5; back", option("count", nargs="?", type=int, default=1, metavar="N"))
def back(session: Session, arguments: argparse.Namespace) -> View:
    """Undo the last step, or the last N; what is shown is the node before.

    It is shown exactly as it was: the tape remembers what happened at each node.

        back
        back 10
    """
    at_least_one(arguments.count, "back")
    state = debugger(session)
    if arguments.count > state.visited:
        done = f"only {_nodes(state.visited)} visited" if state.visited else "no node was visited yet"
        raise UsageError(f"back {arguments.count}: {done}; `restart` goes to the beginning")
    state.visited -= arguments.count
    return stop(session)


@command(GROUP, "restart")
def restart(session: Session, arguments: argparse.Namespace) -> View:
    """Begin the backward pass anew.

    Breakpoints and watches stay, also on another window or graph; the next step visits the loss.

        restart
    """
    debugger(session).visited = 0
    return stop(session)


@command(GROUP, "where")
def where(session: Session, arguments: argparse.Namespace) -> View:
    """Show again where the debugger stands.

    That is the node that was visited last, with what `step` shows of it.

        where
    """
    return stop(session)


def _go(session: Session, enough: Callable[[int, Node | None, Node], bool]) -> View:
    """Visit nodes until `enough(how many so far, the one before, this one)`, a breakpoint, or the end."""
    state, order = debugger(session), session.focus.order
    if state.visited == len(order):
        raise UsageError(f"the backward pass is over: {_nodes(len(order))} visited; `restart` or `back`")
    start, why = state.visited, None
    while state.visited < len(order):
        place = state.visited
        before = order[place - 1] if place else None
        state.visited += 1
        why = state.hit(session.focus, place)
        if why is not None or enough(state.visited - start, before, order[place]):
            break
    return stop(session, why, start)


def _nodes(count: int) -> str:
    return "1 node was" if count == 1 else f"{count:,} nodes were"


def _scope(node: Node) -> Any:
    """What `next` takes as one thing: a module at a time step; leaves by themselves."""
    return node.op is None, node.module, node.time_step


def at_least_one(count: int, name: str) -> None:
    """UsageError for less."""
    if count < 1:
        raise UsageError(f"{name} {count}: say how many, 1 or more")


# --- breakpoints and watches ----------------------------------------------------------------------


def _words(session: Session) -> Sequence[str]:
    return [
        "op",
        "module",
        "t",
        "norm<1e-8",
        "norm>10",
        "nan",
        "delete",
        *_ops(session.focus),
        *modules(session.focus),
    ]


@command(
    GROUP,
    "break op tanh",
    option("what", complete=_words),
    name="break",
    rest="[op NAME | module PATH | t STEP | norm<X | norm>X | nan | delete K]",
)
def break_(session: Session, arguments: argparse.Namespace) -> View:
    """Stop where a condition holds: at an op, in a module, at a time step, or by the gradient that arrives.

    The debugger stops when such a node has just been visited. `op` stops at every node of that op; the others
    where the condition begins to hold: it did not at the node visited before. norm is that of the upstream
    gradient g; nan is a g or a contribution that is not finite: its first node is where it was born.

        break op tanh        every tanh
        break module rnn.l0  where the gradient enters a module
        break t 3            where it comes to time step 3, in any module
        break norm<1e-8      where it has vanished
        break norm>10        where it explodes
        break nan
        break                lists them
        break delete 2
    """
    state = debugger(session)
    if not arguments.rest:
        return _listed(
            "breakpoint", {k: point.text for k, point in state.breakpoints.items()}, "break op tanh"
        )
    if deleted := _deleted(arguments.rest, "breakpoint", state.breakpoints):
        return deleted
    point = _breakpoint(session, arguments.rest)
    for number, other in state.breakpoints.items():
        if other.text == point.text:
            raise UsageError(f"{point.text} is breakpoint {number} already")
    number = max(state.breakpoints, default=0) + 1
    state.breakpoints[number] = point
    stops = [place for place in range(len(session.focus.order)) if stops_at(point, session.focus, place)]
    ahead = [place + 1 for place in stops if place >= state.visited]
    said = f"it stops at {len(stops):,} of {len(session.focus.order):,} nodes"
    said += f"; the next one is step {ahead[0]:,}: `continue`" if ahead else ", none of them ahead"
    data = {"number": number, "breakpoint": point.text, "steps": [place + 1 for place in stops]}
    return View(f"breakpoint {number}: {point.text}", [Text(said)], data)


def _breakpoint(session: Session, text: str) -> Breakpoint:
    tape = session.focus
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    if word == "nan" and not rest:
        return Breakpoint("nan", _not_finite, each=False)
    if match := re.fullmatch(r"norm\s*([<>])\s*(\S+)", text):
        try:
            bound = float(match[2])
        except ValueError:
            raise UsageError(f"break {text}: {match[2]} is no number; as in norm<1e-8") from None
        below = match[1] == "<"

        def beyond(tape: Tape, node: Node) -> bool:
            value = norm(tape.gradients[node])
            return value < bound if below else value > bound

        return Breakpoint(f"norm{match[1]}{bound:g}", beyond, each=False)
    if word == "op" and rest:
        if rest not in _ops(tape):
            raise UsageError(f"break op {rest}: the ops of this graph: {', '.join(_ops(tape))}")
        return Breakpoint(
            f"op {rest}", lambda _, node: node.op is not None and node.op.name == rest, each=True
        )
    if word == "module" and rest:
        if rest not in modules(tape):
            raise UsageError(
                f"break module {rest}: the modules of this graph: {', '.join(modules(tape)) or 'none'}"
            )
        return Breakpoint(
            f"module {rest}", lambda _, node: f"{node.module}.".startswith(f"{rest}."), each=False
        )
    if word == "t" and rest:
        steps = sorted({node.time_step for node in tape.order if node.time_step is not None})
        if not steps:
            raise UsageError("break t: this graph has no time steps; `break op` or `break norm<1e-8`")
        if not rest.isdecimal() or int(rest) not in steps:
            raise UsageError(f"break t {rest}: the time steps are {steps[0]} to {steps[-1]}")
        return Breakpoint(f"t {int(rest)}", lambda _, node: node.time_step == int(rest), each=False)
    raise UsageError(
        f"break {text}: say op NAME, module PATH, t STEP, norm<X, norm>X, nan or delete K, as in break t 3"
    )


def _not_finite(tape: Tape, node: Node) -> bool:
    """Whether the gradient that arrives at a node, or one that it hands on, has a NaN or infinity."""
    handed_on = [contribution.gradient for contribution in tape.given.get(node, ())]
    return any(not np.isfinite(part).all() for part in [*parts(tape.gradients[node]), *handed_on])


def _ops(tape: Tape) -> list[str]:
    return sorted({node.op.name for node in tape.order if node.op is not None})


@command(
    GROUP,
    "watch norm(g)",
    rest="[EXPRESSION | delete K]",
)
def watch(session: Session, arguments: argparse.Namespace) -> View:
    """Show the value of an expression at every stop.

    It may name g (the upstream gradient), out (the result), the inputs as the op calls them (`derive` says
    how), norm(...) and NumPy as np. Where a name does not exist at a node, the stop says so.

        watch norm(g)
        watch np.abs(g).max() / np.abs(out).max()
        watch              lists them
        watch delete 1
    """
    state = debugger(session)
    if not arguments.rest:
        return _listed("watched expression", state.watches, "watch norm(g)")
    if deleted := _deleted(arguments.rest, "watch", state.watches):
        return deleted
    compiled(arguments.rest)
    number = max(state.watches, default=0) + 1
    state.watches[number] = arguments.rest
    title, data = f"watch {number}: {arguments.rest}", {"number": number, "expression": arguments.rest}
    if not state.visited:
        return View(title, [Text("it is shown at every stop: `step`")], data)
    value, text = _watched(Visit(session, session.focus.order[state.visited - 1]), arguments.rest)
    return View(title, [Text(f"here: {text}")], data | {"value": value})


def _watched(visit: Visit, expression: str) -> tuple[Any, str]:
    """The value as data, and as text; what is wrong with it at this node in place of it."""
    try:
        value = np.asarray(evaluate(expression, visit.values))
    except UsageError as error:
        return None, f"({error})"
    return gradient_data(value) if value.shape else value.item(), gradient_text(value)


def _listed(what: str, entries: dict[int, str], example: str) -> View:
    if not entries:
        return View(f"There is no {what} yet; for example: {example}", data={"entries": {}})
    facts = [(str(number), text) for number, text in entries.items()]
    return View(
        f"{what.capitalize()}: `{example.split()[0]} delete K` takes one away",
        [Facts(facts)],
        {"entries": entries},
    )


def _deleted(text: str, what: str, entries: dict[int, Any]) -> View | None:
    word, _, rest = text.partition(" ")
    if word != "delete":
        return None
    if not rest.strip().isdecimal() or int(rest) not in entries:
        there = ", ".join(map(str, entries)) or "none"
        raise UsageError(f"delete {rest.strip() or '?'}: say the number of a {what}; there are {there}")
    del entries[int(rest)]
    return View(f"{what} {int(rest)} is deleted", data={"deleted": int(rest)})


# --- the picture ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matrix:
    """A small matrix; columns that the width has no room for come below."""

    values: np.ndarray
    indent: int = 0

    def lines(self, width: int) -> Iterator[Line]:
        cells = [[shown(float(value)) for value in row] for row in self.values]
        column = max(len(cell) for row in cells for cell in row) + 1
        band = max((width - self.indent - 2) // column, 1)
        count = len(cells[0])
        for start in range(0, count, band):
            end = min(start + band, count)
            if band < count:
                yield [Span(" " * self.indent + f"columns {start} to {end - 1}", "dim")]
            for row in cells:
                inside = "".join(cell.rjust(column) for cell in row[start:end])
                yield [Span(" " * self.indent), Span("[", "dim"), Span(inside[1:]), Span("]", "dim")]


@np.errstate(all="ignore")  # what is not finite is there to be looked at
def stop(session: Session, why: str | None = None, start: int | None = None) -> View:
    """Where the debugger stands: the node visited last, and what happened there.

    why: what stopped it; start: how many nodes had been visited when it set out.
    """
    state, order = debugger(session), session.focus.order
    if not state.visited:
        return _beginning(session)
    visit = Visit(session, order[state.visited - 1])
    blocks: list[Block] = []
    if why is not None:
        blocks.append(Text(why, "mark"))
    passed = state.visited - start - 1 if start is not None else 0
    if passed:
        blocks.append(Text(f"{passed:,} {'node' if passed == 1 else 'nodes'} on the way", "dim"))
    blocks.append(Facts(_facts(visit)))
    shown_inputs, omitted = visit.deliveries, 0
    if len(shown_inputs) > INPUTS:
        omitted = len(shown_inputs) - 2
        shown_inputs = [shown_inputs[0], shown_inputs[-1]]
    inputs = []
    for place, delivery in enumerate(shown_inputs):
        if omitted and place:
            blocks.append(Text(f"... {omitted:,} more inputs alike ...", "dim"))
        more, data = _input(visit, delivery)
        blocks += more
        inputs.append(data)
    watched = {text: _watched(visit, text) for text in state.watches.values()}
    if watched:
        blocks += [
            Text("watched", "label"),
            Facts([(f"  {text}", value[1]) for text, value in watched.items()]),
        ]
    following = order[state.visited] if state.visited < len(order) else None
    blocks.append(Text(_following(session, following), "dim"))
    data = {
        "step": state.visited,
        "steps": len(order),
        "node": visit.label,
        "op": None if visit.node.op is None else visit.node.op.name,
        "name": visit.node.name,
        "module": visit.node.module,
        "time_step": visit.node.time_step,
        "location": visit.node.location,
        "stopped": why,
        "gradient": gradient_data(visit.g),
        "inputs": inputs,
        "watches": {text: value[0] for text, value in watched.items()},
        "next": None if following is None else address.label(session, following),
    }
    return View(f"step {state.visited:,} of {len(order):,}: {visit.label}", blocks, data)


def _beginning(session: Session) -> View:
    order = session.focus.order
    first = Visit(session, order[0])
    known: list[Block] = [Facts(upstream(first)), Text("Nothing else is known yet.")]
    if first.node.outputs is None:
        text = f"g = {derivative_in(first.label)} = {gradient_text(first.g)}, and nothing else is known yet"
        known = [Text(text)]
    data = {"step": 0, "steps": len(order), "next": first.label}
    blocks = [*known, Text(_following(session, order[0]), "dim")]
    return View(f"step 0 of {len(order):,}: the backward pass has not begun", blocks, data)


def _facts(visit: Visit) -> list[tuple[str, str]]:
    """The node and the gradient that arrived."""
    name = f"   ({visit.node.name})" if visit.node.name else ""
    facts = [("node", f"{visit.written()}{name}"), *made_at(visit.session, visit.node)]
    count = len(visit.tape.contributions.get(visit.node, ()))
    complete = f"; the sum of {count:,} contributions" if count > 1 else ""
    facts += [
        (name, f"{text}{complete if visit.node.outputs is None else ''}") for name, text in upstream(visit)
    ]
    if visit.hooked:
        facts.append(("hook", "a hook may change g before it is handed on"))
    return facts


def _input(visit: Visit, delivery: Delivery) -> tuple[list[Block], dict[str, Any]]:
    """One input: its Jacobian, the contribution, the accumulator."""
    number, name = delivery.number, visit.inputs[delivery.number]
    into, matrix = visit.input_label(number), jacobian(visit.node, number)
    small = matrix.rows * matrix.columns > 0 and max(matrix.rows, matrix.columns) <= WRITTEN_OUT
    values = matrix.matrix() if small else None
    structure = f"{matrix.rows:,} x {matrix.columns:,}, {matrix.text}"
    if (weight := _weight(visit, number)) is not None:
        structure += f", here g W with W = {weight}"
    sums = [f"{ordinal(delivery.place)} of {delivery.total:,} contributions into {into}"]
    if delivery.total == 1:
        sums = [f"the only contribution into {into}"]
    if delivery.before is not None:
        sums.append(f"before  {gradient_text(delivery.before, shape=False)}")
        sums.append(f"after   {gradient_text(delivery.after, shape=False)}")
    heading = [Span(f"to {name} = {into}", "good"), Span(f", {shape_text(delivery.gradient.shape)}", "dim")]
    blocks: list[Block] = [Lines([heading]), Facts([(f"  {'Jacobian':<12}", structure)])]
    if values is not None and matrix.kind != "identity":
        blocks.append(Matrix(values, indent=4))
    blocks.append(
        Facts(
            [
                ("  contribution", gradient_text(delivery.gradient, shape=False)),
                ("  accumulator", "\n".join(sums)),
            ]
        )
    )
    found = {"rows": matrix.rows, "columns": matrix.columns, "kind": matrix.kind, "structure": matrix.text}
    data = {
        "input": name,
        "into": into,
        "jacobian": found | ({} if values is None else {"values": values}),
        "contribution": gradient_data(delivery.gradient),
        "before": gradient_data(delivery.before),
        "after": gradient_data(delivery.after),
        "place": delivery.place,
        "count": delivery.total,
    }
    return blocks, data


def _weight(visit: Visit, number: int) -> str | None:
    """Where a matrix product is x W^T, which is how layers have it: the name of W."""
    node = visit.node
    other = node.parents[1] if node.op is not None and node.op.name == "matmul" and number == 0 else None
    if other is None or other.op is None or other.op.name != "transpose" or len(other.shape) != 2:
        return None
    return None if other.parents[0] is None else address.label(visit.session, other.parents[0])


def _following(session: Session, node: Node | None) -> str:
    """What the next step does."""
    if node is None:
        return "that was the last node: every gradient is complete; `restart` begins anew"
    visit = Visit(session, node)
    count = len(visit.tape.contributions.get(node, ()))
    sums = f", whose gradient is complete: {count:,} contribution{'s' * (count > 1)}" if count else ""
    return f"next: {visit.written()}{sums}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ..., 11th, ..., 21st"""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number:,}{ending}"
