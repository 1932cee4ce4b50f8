"""The VJP of a node: derived with its own numbers, and asked for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ..engine.node import Node, Shaped
from ..errors import UsageError
from . import address
from .command import command, option
from .debugger import GROUP, debugger
from .expression import evaluate
from .jacobian import ELEMENTWISE, flattened, input_shape, jacobian, vjp
from .operands import norm, shape_text
from .rules import formula, idea, relabelled, rule, with_a_gap
from .session import Session
from .view import Block, Facts, Lines, Span, Table, Text, View
from .view import number as shown
from .visit import FEW, Visit, derivative_in, gradient_data, gradient_text, upstream

TERMS = 3  # of a sum that is worked through, the largest
COMPUTABLE = 1_000_000  # elements of a Jacobian without a known structure, up to which it is formed


@command(
    GROUP,
    "derive f[3]",
    option("node", nargs="?", complete=address.names),
)
@np.errstate(all="ignore")  # what is not finite is there to be looked at
def derive(session: Session, arguments: argparse.Namespace) -> View:
    """The gradient that a node hands on, as a formula, with its shapes and its numbers.

    For each input that needs a gradient:

        rule      the op's own VJP, from the source of the op table
        formula   the same in NumPy, with the names of this node's inputs; g is dL/d(node)
        element   the largest element worked through, and what the backward pass has there

    Without a NODE: the one that the debugger visits next (`step`).

        derive h[3]
        derive #17
    """
    visit = _visit(session, arguments.node)
    if visit.node.op is None:
        return _leaf(visit)
    blocks: list[Block] = [Facts(_named(visit))]
    blocks.append(Text(idea(visit.node)))
    deliveries, omitted, data = visit.deliveries, 0, []
    if len(deliveries) > 4:
        deliveries, omitted = [deliveries[0], deliveries[-1]], len(deliveries) - 2
    for place, delivery in enumerate(deliveries):
        if omitted and place:
            blocks.append(Text(f"... {omitted:,} more inputs alike ...", "dim"))
        more, numbers = _derived(visit, delivery.number, delivery.gradient)
        blocks += more
        data.append(numbers | {"place": delivery.place, "count": delivery.total})
    op = visit.node.op.name
    title = visit.written()
    return View(title, blocks, {"node": visit.label, "op": op, "step": visit.step, "inputs": data})


def _visit(session: Session, name: str | None) -> Visit:
    """Of the node of that name, or of the one that the debugger visits next. UsageError if there is none."""
    if name is not None:
        visit = Visit(session, address.find(session, name))
        visit.step  # noqa: B018 - says so if there is none
        return visit
    order, at = session.focus.order, debugger(session).visited
    if at == len(order):
        raise UsageError("the debugger is at the end, so no node comes next: name one, or `restart`")
    return Visit(session, order[at])


def _leaf(visit: Visit) -> View:
    """Where gradients end: what the sum is made of."""
    into = visit.tape.contributions.get(visit.node, [])
    text = "A leaf: it was not computed, so nothing is handed on. Its gradient is the sum of what arrives."
    ends = into if len(into) <= 6 else [*into[:3], *into[-3:]]
    rows: list[tuple] = [(Visit(visit.session, c.node).written(), norm(c.gradient)) for c in ends]
    if len(into) > 6:
        rows.insert(3, (f"... {len(into) - 6:,} more", None))
    facts = [(derivative_in(visit.label), gradient_text(visit.g))]
    data = {"node": visit.label, "op": None, "gradient": gradient_data(visit.g), "contributions": len(into)}
    return View(
        visit.written(),
        [Text(text), Facts(facts), Table(["from", "|contribution|"], rows)],
        data,
    )


def _named(visit: Visit) -> list[tuple[str, str]]:
    """What the names of the formulae stand for."""
    facts = upstream(visit)
    out = visit.values["out"]
    if out is not None and visit.node.outputs is None:
        facts.append(("out", f"{visit.label}, {gradient_text(out)}"))
    count = len(visit.inputs)
    for number, name in enumerate(visit.inputs):
        if count > 4 and 0 < number < count - 1:
            continue
        facts.append((name, _operand(visit, number, name)))
    for name in ("index", "mask"):
        if name in visit.values:
            facts.append((name, _value_text(visit.values[name])))
    return facts


def _operand(visit: Visit, number: int, name: str) -> str:
    value, called = visit.values[name], visit.input_label(number)
    parent = visit.node.parents[number]
    if isinstance(value, np.ndarray):
        if parent is None:
            called = "constant"
        elif called == f"#{visit.tape.numbers[parent]}":  # it has no name: say what it is
            called = Visit(visit.session, parent).written()
        return f"{called}, {_value_text(value)}"
    if isinstance(value, Shaped):
        return f"{called}, {shape_text(value.shape)}"
    return called


def _value_text(value: Any) -> str:
    """What stands there: of an index its parts."""
    if isinstance(value, tuple):
        return ", ".join(map(_value_text, value))
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size > FEW:
        return f"{shape_text(value.shape)}: integers {value.min()} .. {value.max()}"
    if isinstance(value, np.ndarray):
        return gradient_text(value)
    if isinstance(value, slice):
        start, stop, by = ("" if x is None else str(x) for x in (value.start, value.stop, value.step))
        return f"{start}:{stop}" + (f":{by}" if by else "")
    return str(value)


def _derived(visit: Visit, number: int, contribution: np.ndarray) -> tuple[list[Block], dict[str, Any]]:
    """The VJP for one input; of an empty one without an element."""
    node, name, into = visit.node, visit.inputs[number], visit.input_label(number)
    text, own = formula(node, number), rule(node, number)
    facts = [("  rule", f"dL/d{name} = {own}" if node.op is not None and node.op.joint is None else own)]
    if text is not None:
        labels = {visit.inputs[n]: visit.input_label(n) for n, p in enumerate(node.parents) if p is not None}
        labels["out"] = visit.label
        facts.append(("  formula", f"{derivative_in(into)} = {relabelled(text, labels)}"))
    heading = [Span(f"to {name} = {into}", "good"), Span(f", {shape_text(contribution.shape)}", "dim")]
    data: dict[str, Any] = {"input": name, "into": into, "rule": own, "formula": text}
    if not contribution.size:
        return [Lines([heading]), Facts([*facts, ("  element", "none: it is empty")])], data
    place, terms, value = worked(visit, number, contribution)
    where = f"[{', '.join(map(str, place))}]" if place else ""
    found = float(contribution[place])
    if terms is not None:
        equals = "" if terms == shown(cast(float, value)) else f" = {shown(cast(float, value))}"
        facts.append(("  element", f"{where + ' = ' if where else ''}{terms}{equals}"))
    facts.append(
        ("  on the tape", f"{name}{where} gets {shown(found)}" if where else f"it gets {shown(found)}")
    )
    if visit.hooked:
        facts.append(("  hook", "a hook may change g first: then the tape has what the changed g gives"))
    data |= {"element": list(place), "worked": terms, "value": value, "on the tape": found}
    return [Lines([heading]), Facts(facts)], data


def worked(
    visit: Visit, number: int, contribution: np.ndarray
) -> tuple[tuple[int, ...], str | None, float | None]:
    """The largest element of a contribution, not empty: its place, how it comes about, its value by that way.

    Of an element-wise op its formula with the numbers put in; of others the sum over the results that the
    element goes into, g times the entry of the Jacobian. (None, None) where that would be too large.
    """
    node = visit.node
    flat = int(np.nanargmax(np.abs(contribution))) if np.isfinite(contribution).any() else 0
    place = tuple(int(i) for i in np.unravel_index(flat, contribution.shape))
    matrix = jacobian(node, number)
    if matrix.kind == "dense" and matrix.rows * matrix.columns > COMPUTABLE:
        return place, None, None
    rows, entries = matrix.column(flat)
    g = flattened(node, visit.g)[rows]
    products = g * entries
    value = float(products.sum())
    text = formula(node, number) if len(rows) == 1 else None
    name = "" if node.op is None else node.op.name
    if name in ELEMENTWISE and name != "astype" and text is not None:
        numbers: dict[str, np.float64] = {}  # NumPy's: at a pole they give what arrays give, inf or nan
        for one in ["g", "out", "mask", *visit.inputs]:
            known = visit.values.get(one)
            if isinstance(known, (np.ndarray, int, float)):
                numbers[one] = np.float64(np.broadcast_to(known, node.shape).ravel()[rows[0]])
        value = float(evaluate(text, numbers))
        if text in numbers:
            return place, shown(value), value
        return place, relabelled(text, {one: _signed(it) for one, it in numbers.items()}), value
    if name == "cross_entropy" and text is not None:
        return place, _of_loss(visit, place, text), value
    largest = np.argsort(-np.abs(products), kind="stable")[:TERMS]
    terms = [shown(float(g[i])) for i in largest]
    if not (entries == 1).all():
        terms = [f"{term} * {_signed(float(entries[i]))}" for term, i in zip(terms, largest, strict=True)]
    rest = len(rows) - len(largest)
    text = " + ".join(terms).replace("+ -", "- ") or "0"
    return place, text + (f" + {rest:,} smaller terms" if rest else ""), value


def _of_loss(visit: Visit, place: tuple[int, ...], text: str) -> str:
    """An element of g * (softmax(logits) - one_hot(targets)) / n"""
    logits, targets = visit.values["logits"], visit.values["targets"]
    p = float(np.exp(logits[place] - np.logaddexp.reduce(logits[place[:-1]])))
    g = visit.g if visit.g.ndim == 0 else visit.g[place[:-1]]
    hit = " - 1" if targets[place[:-1]] == place[-1] else " - 0"
    return f"{shown(float(g))} * ({shown(p)}{hit})" + text[text.rindex(")") + 1 :]


def _signed(value: float) -> str:
    """In brackets if it is negative, so that it can stand in a product."""
    return f"({shown(value)})" if value < 0 else shown(value)


# --- the quiz -------------------------------------------------------------------------------------


@dataclass
class Score:
    """asked, right, and right at the first attempt without a hint."""

    asked: int = 0
    right: int = 0
    alone: int = 0

    def __str__(self) -> str:
        return f"{self.right} of {self.asked} right, {self.alone} at once and without a hint"


@dataclass
class Question:
    """What is asked: the VJP of a node for one of its inputs. over: answered, or given up."""

    node: Node
    number: int
    attempts: int = 0
    hints: int = 0
    over: bool = False


@dataclass
class Quiz:
    """question: None between two. posed: all of this graph, by node and input; each counts once."""

    question: Question | None = None
    score: Score = field(default_factory=Score)
    posed: dict[tuple[Node, int], Question] = field(default_factory=dict)

    def anew(self) -> Quiz:
        """For another graph: no question, the same score."""
        return Quiz(score=self.score)

    def ask(self, node: Node, number: int) -> Question:
        """A question that is new, or was posed before."""
        if (node, number) not in self.posed:
            self.posed[node, number] = Question(node, number)
            self.score.asked += 1
        self.question = self.posed[node, number]
        return self.question

    def end(self, right: bool) -> None:
        """The question is answered, or given up."""
        question = self.question
        assert question is not None
        if right and not question.over:
            self.score.right += 1
            self.score.alone += question.attempts == 1 and question.hints == 0
        question.over, self.question = True, None


def _quiz(session: Session) -> Quiz:
    return cast(Quiz, session.memory.setdefault("quiz", Quiz()))


@command(
    GROUP,
    "quiz",
    option("node", nargs="?", complete=address.names),
    option("input", nargs="?"),
)
def quiz(session: Session, arguments: argparse.Namespace) -> View:
    """Be asked for the VJP of a node: of the one that the debugger visits next, or of NODE.

    The answer is a NumPy expression of g (the upstream gradient), out (the result) and the inputs by the
    names that the question gives. It is right if its shape and all its values are those of the backward
    pass. INPUT says for which of the inputs; the first that needs a gradient unless given. Leaves, and ops
    that are more than one expression, are passed over. A question that was posed before does not count again.

        quiz
        answer g * out
        hint
        quiz h[3] b
    """
    node, number = _coming(session) if arguments.node is None else _named_one(session, arguments)
    return _question(session, _quiz(session).ask(node, number))


def _named_one(session: Session, arguments: argparse.Namespace) -> tuple[Node, int]:
    visit = _visit(session, arguments.node)
    number = visit.number_of(arguments.input)
    if formula(visit.node, number) is None:
        raise UsageError(
            f"{visit.label} is more than one expression: `derive {visit.label}` shows what it does"
        )
    return visit.node, number


def _coming(session: Session) -> tuple[Node, int]:
    """The next node of the backward pass that can be asked about, and its first input; or UsageError."""
    for node in session.focus.order[debugger(session).visited :]:
        given = session.focus.given.get(node)
        if given and formula(node, given[0].number) is not None:
            return node, given[0].number
    raise UsageError("no node comes next that can be asked about: `restart`, or name one")


def _open(session: Session) -> Question:
    """The question that was put. UsageError between two."""
    question = _quiz(session).question
    if question is None:
        raise UsageError("no question is open: `quiz` asks one")
    return question


def _question(session: Session, question: Question) -> View:
    visit, number = Visit(session, question.node), question.number
    name, into = visit.inputs[number], visit.input_label(number)
    op = visit.node.op
    assert op is not None
    names = visit.inputs if len(visit.inputs) < 5 else [visit.inputs[0], "...", visit.inputs[-1]]
    text = f"out = {op.name}({', '.join(names)})" + (f": {op.doc.splitlines()[0]}" if op.doc else "")
    ask = f"What is dL/d{name}, of shape {shape_text(input_shape(visit.node, number))}?"
    told = f"`answer EXPRESSION`, in NumPy; `hint` helps; `derive {visit.label}` shows it"
    data = {
        "node": visit.label,
        "op": op.name,
        "input": name,
        "into": into,
        "shape": list(input_shape(visit.node, number)),
        "names": ["g", "out", *visit.inputs],
    }
    title = visit.written()
    return View(title, [Text(text), Facts(_named(visit)), Text(ask, "mark"), Text(told, "dim")], data)


@command(GROUP, "quiz; answer g", rest="EXPRESSION")
@np.errstate(all="ignore")
def answer(session: Session, arguments: argparse.Namespace) -> View:
    """Answer the question of `quiz` with a NumPy expression.

    The shape is checked first, then every value. What is wrong is said as far as it can be seen: a sign, a
    transposition, a factor, g forgotten. Names: g, out, the inputs as the question calls them, np, norm,
    sigmoid, softmax, one_hot(targets, classes), and scatter(g, index, shape), which undoes x[index].

        answer (g + g * out) * (1 - out)
        answer g @ b.T
    """
    state, question = _quiz(session), _open(session)
    visit = Visit(session, question.node)
    value = evaluate(arguments.rest, visit.values)
    name, wanted = visit.inputs[question.number], expected(visit, question.number)
    question.attempts += 1
    wrong = verdict(visit, question.number, np.asarray(value), wanted)
    data = {"right": wrong is None, "attempts": question.attempts, "hints": question.hints, "why": wrong}
    if wrong is not None:
        asked = Text(f"asked: dL/d{name} of {visit.written()}")
        told = Text("`hint` helps, `answer` tries again", "dim")
        return View(f"Not yet: {wrong}", [asked, told], data | {"score": vars(state.score)})
    state.end(right=True)
    blocks: list[Block] = [
        Facts(
            [
                (f"dL/d{name}", gradient_text(wanted)),
                ("the op has", rule(visit.node, question.number)),
                ("score", str(state.score)),
            ]
        )
    ]
    if not wanted.any():
        blocks.append(Text("The gradient is exactly 0 here, so that much else would be right too.", "dim"))
    return View("Right.", blocks, data | {"score": vars(state.score)})


@command(GROUP, "quiz; hint")
def hint(session: Session, arguments: argparse.Namespace) -> View:
    """Help with the question of `quiz`: the idea, then the shapes, the formula with a gap, the formula.

    One more hint after that gives the question up.

        hint
    """
    state, question = _quiz(session), _open(session)
    visit, number = Visit(session, question.node), question.number
    name, text = visit.inputs[number], cast(str, formula(visit.node, number))
    question.hints += 1
    hints = [
        idea(visit.node),
        _shapes(visit, number),
        f"dL/d{name} = {with_a_gap(text, visit.inputs)}",
        f"dL/d{name} = {text}",
    ]
    data: dict[str, Any] = {"hint": question.hints, "of": len(hints), "score": vars(state.score)}
    if question.hints > len(hints):
        state.end(right=False)
        return View(
            "Given up.",
            [Facts([(f"dL/d{name}", text), ("score", str(state.score))])],
            data | {"formula": text},
        )
    said = hints[question.hints - 1]
    return View(f"Hint {question.hints} of {len(hints)}", [Text(said)], data | {"text": said})


def _shapes(visit: Visit, number: int) -> str:
    """The shapes of all that the formula may name, and what follows from them."""
    node, known = visit.node, []
    g = visit.values["g"]
    if isinstance(g, list):
        known.append(
            f"g is a list of {len(g)} arrays of shapes {', '.join(shape_text(one.shape) for one in g)}"
        )
    else:
        known.append(f"g and out have shape {shape_text(node.shape)}")
    for name in visit.inputs[:6]:
        value = visit.values[name]
        if hasattr(value, "shape"):
            known.append(f"{name} {shape_text(value.shape)}")
    shape = input_shape(node, number)
    text = f"{', '.join(known)}. dL/d{visit.inputs[number]} must have shape {shape_text(shape)}"
    if (
        node.op is not None
        and node.op.broadcasts
        and node.outputs is None
        and node.op.name not in ("matmul", "einsum")
        and shape != node.shape
    ):
        text += ": the input was stretched, so sum over the axes along which it was"
    return text + "."


def expected(visit: Visit, number: int) -> np.ndarray:
    """What the backward pass contributed to that input; without what a hook may have made of g."""
    if visit.hooked:
        return vjp(visit.node, number, visit.g)
    [delivery] = [one for one in visit.deliveries if one.number == number]
    return delivery.gradient


def verdict(visit: Visit, number: int, given: np.ndarray, wanted: np.ndarray) -> str | None:
    """What is wrong with an answer; None if nothing is."""
    name = visit.inputs[number]
    if given.shape != wanted.shape:
        needed = shape_text(wanted.shape)
        said = f"the shape is {shape_text(given.shape)}, and dL/d{name} has that of {name}, {needed}"
        if given.ndim == 2 and given.shape == wanted.shape[::-1]:
            return f"{said}: transposed?"
        if given.size > wanted.size and visit.node.outputs is None and given.shape == visit.node.shape:
            return f"{said}: {name} was stretched, so sum over the axes along which it was"
        return said
    if _same(given, wanted):
        return None
    if _same(-given, wanted):
        return "the sign is the wrong way round"
    if given.ndim == 2 and given.shape[0] == given.shape[1] and _same(given.T, wanted):
        return "it is transposed"
    node, g = visit.node, visit.g
    if node.outputs is None and _same(given, vjp(node, number, np.ones(node.shape, node.dtype))):
        return "that is the derivative alone: it must be multiplied with the upstream gradient, g"
    if node.outputs is None and wanted.shape == g.shape and _same(given, g):
        return f"that is g as it came: what does {visit.node.op.name} do to it?"  # type: ignore[union-attr]
    for other in visit.deliveries:
        if other.number != number and other.gradient.shape == given.shape and _same(given, other.gradient):
            return f"that is the gradient of {visit.inputs[other.number]}, and {name} was asked for"
    if (factor := _factor(given, wanted)) is not None:
        return f"it is {shown(factor)} times what it should be, everywhere"
    difference = np.abs(given - wanted)
    agree = int(_close(given, wanted).sum())
    place = np.unravel_index(int(np.argmax(np.nan_to_num(difference, nan=np.inf))), wanted.shape)
    where = f"[{', '.join(str(int(i)) for i in place)}]" if place else ""
    text = f"dL/d{name}{where} is {shown(float(given[place]))}, and should be {shown(float(wanted[place]))}"
    return text if wanted.size == 1 else f"{agree:,} of {wanted.size:,} values agree; {text}"


def _close(given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where values agree, to what single precision can tell."""
    finite = np.abs(wanted[np.isfinite(wanted)])
    size = float(finite.max()) if finite.size else 0.0
    return np.isclose(given, wanted, rtol=1e-4, atol=1e-5 * size, equal_nan=True)


def _same(given: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(_close(given, wanted).all())


def _factor(given: np.ndarray, wanted: np.ndarray) -> float | None:
    """The number that all values are too large by."""
    place = int(np.argmax(np.abs(np.nan_to_num(wanted))))
    if not np.ravel(wanted)[place]:
        return None
    factor = float(np.ravel(given)[place] / np.ravel(wanted)[place])
    return factor if factor and _same(given / factor, wanted) else None
