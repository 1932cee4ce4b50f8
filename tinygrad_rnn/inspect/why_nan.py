"""`why nan`: the first value or gradient that is not finite, and the rule that made it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.annotate import detect_anomaly
from ..engine.node import Node
from ..engine.op import TENSOR_OPS, Op
from ..engine.tensor import Tensor, enable_grad, leaf_node
from ..errors import AnomalyError
from .operands import Operand, Values, called, input_names, made_at, parts
from .tape import Contribution, Tape
from .view import Block, Facts, Table, Text, View, number

if TYPE_CHECKING:
    from .session import Session

Index = tuple[int, ...]

MIXING = ("matmul", "softmax", "log_softmax", "cumsum")  # of these an element depends on others than its own
SHOWN = (4, 3)  # so many steps from the beginning and from the end of a long chain


@dataclass(frozen=True)
class Finding:
    """Something that is not finite.

    what      "value" or "gradient"
    node      whose value, or whose VJP
    input     of a gradient: which input of the node it is for; None where contributions were added up
    array     it
    origin    "born": made of finite numbers; "inherited": from a constant; "given": a leaf holds it;
              "unknown": from what nobody kept
    rule      what made it
    operands  what it was made of
    """

    what: str
    node: Node
    input: int | None
    array: np.ndarray
    origin: str
    rule: str
    operands: Sequence[Operand]

    @property
    def index(self) -> Index:
        return first_bad(self.array)

    @property
    def value(self) -> float:
        return float(self.array[self.index])


def why_nan(session: Session) -> View:
    """The first value in forward order, or else the first gradient in backward order, that is not finite."""
    values = Values(session)
    known = {node: values.of(node) for node in session.focus.nodes}
    bad = {node for node, value in known.items() if not finite(value)}
    with np.errstate(all="ignore"):
        if bad:
            births = [node for node in known if node in bad and not bad.intersection(node.parents)]
            return _of_value(session, values, known, bad, births)
        gradient = _first_gradient(session.focus, values)
    return _nothing(session, known) if gradient is None else _of_gradient(session, gradient)


def finite(value: Any) -> bool:
    """Whether all of it is: of an array, a number, a list of arrays, or None."""
    if isinstance(value, list):
        return all(map(finite, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    return not isinstance(value, float) or math.isfinite(value)


def first_bad(array: np.ndarray) -> Index:
    """Index of the first element that is not finite."""
    place = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
    return tuple(int(i) for i in place)


# --- a value ---------------------------------------------------------------------------------------


def _of_value(
    session: Session, values: Values, known: dict[Node, Any], bad: set[Node], births: list[Node]
) -> View:
    tape = session.focus
    node = births[0]
    value = known[node]
    array = next(part for part in parts(value) if not finite(part))
    operands = values.operands(node)
    if node.op is None:
        origin, rule = "given", f"{called(session, node)} holds {array[first_bad(array)]}"
    else:
        origin = "born" if all(finite(operand.value) for operand in operands) else "inherited"
        if origin == "born" and any(operand.unknown for operand in operands):
            origin = "unknown"
        rule = forward_rule(node, operands, array, first_bad(array))
    found = Finding("value", node, None, array, origin, rule, operands)
    root = tape.nodes[-1]
    users = {one: [user for user, _ in tape.users.get(one, ()) if user in bad] for one in bad}
    ends = {root} if root in bad else {one for one in bad if not users[one]}
    way = path(node, ends, lambda one: users[one])
    reached = f"{len(bad):,} of {len(known):,} values"
    if root not in bad:
        reached += f"; not {called(session, root)}: that is finite"
    more = _others(session, births[1:])
    return _view(session, found, way, [("infected", reached), *more, *_leaves(session)])


def _others(session: Session, births: list[Node]) -> list[tuple[str, str]]:
    if not births:
        return []
    shown = ", ".join(called(session, node) for node in births[:3])
    return [("also", f"{shown}{' and others' if len(births) > 3 else ''}: not finite by themselves")]


def _leaves(session: Session) -> list[tuple[str, str]]:
    """Which leaves have a gradient that is not finite."""
    tape = session.focus
    leaves = [node for node in tape.nodes if node.op is None]
    wrong = [called(session, node) for node in leaves if not finite(tape.gradients.get(node))]
    if not wrong:
        return [("gradients", "finite in every leaf")]
    names = ", ".join(wrong[:4]) + (", …" if len(wrong) > 4 else "")
    return [("gradients", f"not finite in {len(wrong)} of {len(leaves)} leaves: {names}")]


# --- a gradient ------------------------------------------------------------------------------------


def _first_gradient(tape: Tape, values: Values) -> Finding | None:
    for node in tape.order:
        cotangent = tape.gradients[node]
        if not finite(cotangent):
            array = next(part for part in parts(cotangent) if not finite(part))
            count = len(tape.contributions.get(node, ()))
            rule = f"the sum of {count} contributions overflows" if count else "the pass began with it"
            summed = [
                Operand(f"contribution {i}", part.node, part.gradient, False)
                for i, part in enumerate(tape.contributions.get(node, ()), 1)
            ]
            return Finding("gradient", node, None, array, "born" if count else "given", rule, summed)
        for contribution in tape.given.get(node, ()):
            if not finite(contribution.gradient):
                return _gradient_of(tape, values, contribution)
    return None


def _gradient_of(tape: Tape, values: Values, contribution: Contribution) -> Finding:
    node = contribution.node
    assert node.op is not None
    upstream = tape.gradients[node]
    operands = [operand for operand in values.operands(node) if not operand.unknown]
    if not isinstance(upstream, list):
        operands = [
            Operand("upstream gradient", None, upstream, False),
            *operands,
            Operand("result", None, values.of(node), False),
        ]
    array = contribution.gradient
    rule = backward_rule(node.op, contribution.number, _at_index(operands, first_bad(array), array.shape))
    return Finding("gradient", node, contribution.number, array, "born", rule, operands)


def _of_gradient(session: Session, found: Finding) -> View:
    tape = session.focus
    bad = {  # node -> to which inputs it gave a gradient that is not finite
        node: [node.parents[one.number] for one in given if not finite(one.gradient)]
        for node, given in tape.given.items()
    }
    leaves = {node for node in tape.nodes if node.op is None and not finite(tape.gradients.get(node))}
    starts = [found.node] if found.input is None else [found.node.parents[found.input]]
    way = [found.node, *path(starts[0], leaves, lambda one: bad.get(one, []))]
    infected = sum(not finite(gradient) for gradient in tape.gradients.values())
    reached = f"{infected:,} of {len(tape.gradients):,} gradients; all values are finite"
    return _view(session, found, way if found.input is not None else way[1:], [("infected", reached)])


# --- the rules -------------------------------------------------------------------------------------


def forward_rule(node: Node, operands: Sequence[Operand], out: np.ndarray, index: Index) -> str:
    """What made the element at `index` of the result: "log of -0.3", "exp overflows: 89.2 > 88.7"."""
    assert node.op is not None
    name, limit = node.op.name, _limit(out.dtype)
    if unknown := [operand.name for operand in operands if operand.unknown]:
        return f"{name} gave {out[index]}; nobody kept its {' and '.join(unknown)}"
    if not pointwise(node.op, operands, out.shape):
        return _rule_of_sum(node, operands, out, index)
    at = _at_index(operands, index, out.shape)
    seen = {key: number(x) for key, x in at.items()}
    a, b = at.get("a", math.nan), at.get("b", math.nan)
    x = at.get("x", math.nan)
    infinite = any(not math.isfinite(one) for one in at.values())
    over = f"overflows {out.dtype}: more than {limit:.3g}"
    match name:
        case "log" if x <= 0:
            return f"log of {seen['x']}"
        case "log1p" if x <= -1:
            return f"log1p of {seen['x']}: log of {number(1 + x)}"
        case "sqrt" if x < 0:
            return f"sqrt of {seen['x']}"
        case "exp" | "expm1" if math.isfinite(x):
            return f"{name} overflows: {x:.5g} > {math.log(limit):.5g}, the largest for {out.dtype}"
        case "divide" if b == 0:
            return "0 / 0" if a == 0 else f"division by 0: {seen['a']} / 0"
        case "multiply" if 0 in (a, b) and infinite:
            return f"0 * {seen['b'] if a == 0 else seen['a']}"
        case "power" if a == 0 and b < 0:
            return f"division by 0: 0 ** {seen['b']}"
        case "power" if a < 0 and not b.is_integer():
            return f"{seen['a']} ** {seen['b']}: a negative number to a power that is no integer"
    if infinite:
        return f"{_formula(name, seen)}: an operand is not finite"
    return f"{_formula(name, seen)} {over}" if math.isinf(out[index]) else f"{_formula(name, seen)} is nan"


def backward_rule(op: Op, which: int, at: dict[str, float]) -> str:
    """What made a gradient that is not finite, of an upstream gradient, operands and a result that are."""
    g, x, a, b = (at.get(name, math.nan) for name in ("upstream gradient", "x", "a", "b"))
    out = at.get("result", math.nan)
    steep = {
        "sqrt": out == 0,
        "log": x == 0,
        "log1p": x == -1,
        "power": which == 0 and a == 0 and b < 1,
    }
    if steep.get(op.name):
        curve = f"a ** {number(b)}" if op.name == "power" else op.name
        slope = f"the slope of {curve} at {number(a if op.name == 'power' else x)} is infinite"
        return f"0 * inf: the upstream gradient is 0 and {slope}" if g == 0 else slope
    if op.name == "power" and which == 1 and a < 0:
        return f"log of {number(a)}: the slope of a ** b in b is a ** b log(a)"
    if op.name == "divide":
        quotient = "g / b" if which == 0 else "g a / b ** 2"
        return f"{quotient} overflows: g = {number(g)}, a = {number(a)}, b = {number(b)}"
    if op.name == "multiply":
        return f"g {'b' if which == 0 else 'a'} overflows: {number(g)} * {number(b if which == 0 else a)}"
    return f"the VJP of {op.name} leaves the range of its numbers"


def pointwise(op: Op, operands: Sequence[Operand], shape: Index) -> bool:
    """Whether an element of the result comes from the elements of the operands at the same place alone."""
    if op.joint is not None or op.name in MIXING:
        return False
    shapes = [np.shape(operand.value) for operand in operands if operand.value is not None]
    try:
        return np.broadcast_shapes(*shapes) == shape
    except ValueError:
        return False


def _at_index(operands: Sequence[Operand], index: Index, shape: Index) -> dict[str, float]:
    """The numbers that stand at that place, of the operands that have one."""
    found = {}
    for operand in operands:
        if operand.value is None:
            continue
        try:
            value = np.broadcast_to(operand.value, shape)[index]
        except (ValueError, IndexError):
            continue
        if value.dtype.kind in "fiub":
            found[operand.name] = float(value)
    return found


def _formula(name: str, seen: dict[str, str]) -> str:
    sign = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**"}.get(name)
    return f" {sign} ".join(seen.values()) if sign else f"{name} of {', '.join(seen.values())}"


def _rule_of_sum(node: Node, operands: Sequence[Operand], out: np.ndarray, index: Index) -> str:
    """Of an op whose result at one place depends on many elements."""
    assert node.op is not None
    name = node.op.name
    if node.op.reference is not None:
        return _inside(node, operands)
    if any(not finite(operand.value) for operand in operands):
        wrong = next(operand for operand in operands if not finite(operand.value))
        return f"{wrong.name} is not finite, and no part of the graph"
    if name == "matmul":
        a, b = (operand.value for operand in operands)
        row, column = _row_and_column(a, b, index)
        products = row.astype(np.float64) * column.astype(np.float64)
        k = int(np.argmax(np.abs(products)))
        largest = f"{number(row[k])} * {number(column[k])}, at {k}"
        return f"a sum of {len(products):,} products overflows {out.dtype}: the largest is {largest}"
    arrays = [np.asarray(o.value) for o in operands if o.value is not None]
    top = max((float(np.abs(array).max()) for array in arrays if array.size), default=math.nan)
    return f"{name} overflows {out.dtype}: the largest magnitude that goes in is {number(top)}"


def _row_and_column(a: np.ndarray, b: np.ndarray, index: Index) -> tuple[np.ndarray, np.ndarray]:
    """What is multiplied for one element of a @ b."""
    i = index[-1 if b.ndim == 1 else -2] if a.ndim > 1 else 0
    j = index[-1] if b.ndim > 1 else 0
    batch = index[: max(a.ndim, b.ndim) - 2] if max(a.ndim, b.ndim) > 2 else ()
    a, b = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    row = np.broadcast_to(a, (*lead, *a.shape[-2:]))[batch][i]
    column = np.broadcast_to(b, (*lead, *b.shape[-2:]))[batch][:, j]
    return row, column


def _inside(node: Node, operands: Sequence[Operand]) -> str:
    """Of a fused op: its textbook equations, computed once more and watched."""
    assert node.op is not None and node.op.reference is not None

    def leaf(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        array = node.backend.from_host(value)
        return Tensor(
            array, leaf_node(array, node.backend) if value.dtype.kind == "f" else None, 0, node.backend
        )

    try:
        with detect_anomaly(), enable_grad():
            node.op.reference(TENSOR_OPS, *(leaf(operand.value) for operand in operands), **node.params)
    except AnomalyError as error:
        first, *rest = (line.strip() for line in str(error).splitlines())
        step = getattr(error, "time_step", None)
        return f"inside of it, {'' if step is None else f'at time step {step}, '}{first}; {'; '.join(rest)}"
    return f"inside of {node.op.name}; its equations in ordinary ops stay finite"


def _limit(dtype: Any) -> float:
    return float(np.finfo(dtype).max)


# --- on its way ------------------------------------------------------------------------------------


def path(start: Node, ends: set[Node], following: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """The shortest way from start to one of the ends; start alone where there is none."""
    came: dict[Node, Node | None] = {start: None}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        if node in ends:
            way = [node]
            while (before := came[way[-1]]) is not None:
                way.append(before)
            return way[::-1]
        for one in following(node):
            if one not in came:
                came[one] = node
                queue.append(one)
    return [start]


def _chain(session: Session, way: list[Node]) -> str:
    shown = [called(session, node) for node in way]
    first, last = SHOWN
    if len(shown) > first + last + 1:
        shown = [*shown[:first], f"{len(shown) - first - last} more", *shown[-last:]]
    return " > ".join(shown)


# --- views -----------------------------------------------------------------------------------------


def _view(session: Session, found: Finding, way: list[Node], more: list[tuple[str, str]]) -> View:
    node, array, index = found.node, found.array, found.index
    count = int(array.size - np.isfinite(array).sum())
    origin = {
        "born": "born here: all that it was made of is finite",
        "inherited": "inherited: it came in with an operand that is no part of the graph",
        "given": "no op made it: it was there before",
        "unknown": "born here or before: not all that it was made of is known",
    }[found.origin]
    what = found.what
    if found.input is not None and node.op is not None:
        what = f"gradient for {input_names(node)[found.input]}"
    facts = [
        ("what", f"the {what} of {called(session, node)}"),
        ("is", f"{found.value} at index {index}; {count:,} of {array.size:,} elements are not finite"),
        ("origin", origin),
    ]
    if found.origin != "given":
        facts.append(("rule", found.rule))
    if found.input is not None and node.op is not None and node.op.joint is None:
        facts.append(("VJP", node.op.derivative()[found.input]))
    facts += made_at(session, node)
    at = _at_index(found.operands, index, array.shape)
    if node.op is not None and found.what == "value" and not pointwise(node.op, found.operands, array.shape):
        at = {}
    blocks: list[Block] = [Facts(facts)]
    if found.operands:
        blocks += [Text(""), Table(HEADER, [_row(session, operand, at) for operand in found.operands], SPARE)]
    blocks += [Text(""), Facts([("on its way", _chain(session, way)), *more])]
    data = {
        "what": found.what,
        "origin": found.origin,
        "rule": found.rule,
        "node": session.focus.numbers[node],
        "op": None if node.op is None else node.op.name,
        "input": found.input,
        "index": index,
        "value": found.value,
        "count": count,
        "operands": at,
        "time_step": node.time_step,
        "module": node.module,
        "location": node.location,
        "chain": [session.focus.numbers[one] for one in way],
    }
    return View(f"why nan: {found.rule}", blocks, data)


HEADER = ("operand", "at that index", "shape", "smallest", "largest", "is")
SPARE = ("is", "shape", "smallest", "largest")


def _row(session: Session, operand: Operand, at: dict[str, float]) -> list[Any]:
    here = at.get(operand.name)
    source = "" if operand.node is None else called(session, operand.node)
    if operand.unknown:
        return [operand.name, here, "", None, None, source or "not kept"]
    value = np.asarray(operand.value)
    ends = [value.min(), value.max()] if value.size and value.dtype.kind in "fiu" else [None, None]
    return [operand.name, here, str(value.shape), *ends, source]


def _nothing(session: Session, known: dict[Node, Any]) -> View:
    tape = session.focus
    rows, data = [], {}
    for what, found in [("value", known), ("gradient", tape.gradients)]:
        largest = max(((*_largest(value), node) for node, value in found.items()), key=lambda one: one[0])
        size, index, node = largest
        rows.append([what, size, called(session, node), str(index), node.time_step])
        data[what] = {"largest": size, "node": tape.numbers[node], "index": index}
    unknown = sum(value is None for value in known.values())
    text = f"All {len(known) - unknown:,} values and all {len(tape.gradients):,} gradients are finite."
    if unknown:
        text += f" {unknown} values were not kept and cannot be computed again."
    limit = _limit(tape.root.dtype)
    room = f"{tape.root.dtype} goes up to {limit:.3g}; exp overflows beyond {math.log(limit):.5g}."
    table = Table(("", "largest", "in", "at", "step"), rows, ("step", "at"))
    return View("why nan: nothing is", [Text(text), table, Text(room)], {"what": None, "largest": data})


def _largest(value: Any) -> tuple[float, Index]:
    found = [part for part in parts(value) if part is not None and part.size]
    if not found or found[0].dtype.kind != "f":
        return -1.0, ()
    array = max((np.abs(part) for part in found), key=lambda part: float(part.max()))
    place = np.unravel_index(int(np.argmax(array)), array.shape)
    return float(array.max()), tuple(int(i) for i in place)
