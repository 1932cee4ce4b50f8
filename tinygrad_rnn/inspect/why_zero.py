"""`why zero X`: where the gradient was lost on its way from the loss to X."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.node import Node
from ..errors import UsageError
from . import address
from .operands import Values, called, cut_after, norm, parts
from .tape import Contribution, Tape, require_saved
from .view import Block, Facts, Table, Text, View, number

if TYPE_CHECKING:
    from .session import Session

SHOWN = 8  # edges
CLOSED = 0.1  # a gate whose mean is below this is called closed
LOST = 0.999  # an edge that keeps more than this lost nothing worth showing
SATURATED = 0.99  # beyond this, or below 1 - 0.99 for a sigmoid, a unit is called saturated


@dataclass(frozen=True)
class Edge:
    """A step of the gradient back through one node, to one of its inputs.

    before, after  norms of the upstream gradient and of the contribution to the input
    kind, cause    what took or changed it: in a word or two, to add up by, and in numbers
    """

    node: Node
    to: Node
    before: float
    after: float
    kind: str
    cause: str

    @property
    def kept(self) -> float:
        return self.after / self.before if self.before else math.nan


def why_zero(session: Session, name: str) -> View:
    """The edges between the loss and X that let the least of the gradient through.

    UsageError where a gradient on the way is not finite.
    """
    tape = session.focus
    node = address.find(session, name)
    gradient = tape.gradients.get(node)
    size = 0.0 if gradient is None else norm(gradient)
    if not math.isfinite(size):
        raise UsageError(f"the gradient in {name} is not zero but not finite; `why nan` says why")
    require_saved(tape.nodes[-1])
    values = Values(session)
    edges = stream(session, values, node) if size else stops(session, values, node)
    data = {
        "node": tape.numbers[node],
        "norm": size,
        "elements": count(gradient, lambda part: part.size),
        "zeros": count(gradient, lambda part: part.size - np.count_nonzero(part)),
        "edges": [
            {
                "node": tape.numbers[edge.node],
                "to": tape.numbers[edge.to],
                "op": edge.node.op.name if edge.node.op is not None else None,
                "before": edge.before,
                "after": edge.after,
                "kept": edge.kept,
                "kind": edge.kind,
                "cause": edge.cause,
            }
            for edge in edges
        ],
    }
    rows, why_rows = _zero_rows(session, node, gradient)
    data["zero_rows"] = rows
    zeros = f"{data['zeros']:,} of {data['elements']:,} elements are exactly 0"
    facts = [("norm", number(size) if gradient is not None else "none: no gradient came here at all")]
    facts += [("zeros", zeros)] if gradient is not None else []
    facts += [("rows", why_rows)] if why_rows else []
    facts += cut_after(session, node)
    blocks: list[Block] = [Facts(facts), Text("")]
    if size:
        title = f"why zero {name}: it is not zero"
        blocks += _lost(session, edges)
    else:
        title = f"why zero {name}: its gradient is exactly 0"
        blocks += _stopped(session, edges, len(tape.contributions.get(node, ())))
    return View(title, blocks, data)


def count(gradient: Any, of: Callable[[np.ndarray], Any]) -> int:
    """Added up over the outputs of a node that have a gradient."""
    return 0 if gradient is None else sum(int(of(part)) for part in parts(gradient))


# --- the edges -------------------------------------------------------------------------------------


def stream(session: Session, values: Values, node: Node) -> list[Edge]:
    """The way from the loss to a node on which the least is lost: the product of what each edge keeps is the
    largest. In the order of the backward pass."""
    tape = session.focus
    between = leading_to(tape, node)
    upstream = {one: norm(gradient) for one, gradient in tape.gradients.items() if one in between}
    best: dict[Node, float] = {tape.nodes[-1]: 0.0}  # the logarithm of that product
    came: dict[Node, Contribution] = {}
    for one in tape.order:  # all that contributes to a node is visited before it
        for contribution in tape.contributions.get(one, ()) if one in between else ():
            after = norm(contribution.gradient)
            if not math.isfinite(upstream.get(contribution.node, 0.0)):
                raise UsageError("a gradient on the way is not finite; `why nan` says why")
            if after and contribution.node in best:
                kept = best[contribution.node] + math.log(after / upstream[contribution.node])
                if kept > best.get(one, -math.inf):
                    best[one], came[one] = kept, contribution
    edges = []
    while node in came:
        edges.append(_edge(session, values, came[node], node))
        node = came[node].node
    return edges[::-1]


def stops(session: Session, values: Values, node: Node) -> list[Edge]:
    """The edges between the loss and a node at which a gradient ends: something comes, nothing goes on.
    The largest that ended first."""
    tape = session.focus
    found = []
    for one in leading_to(tape, node):
        for contribution in tape.contributions.get(one, ()):
            if not contribution.gradient.any() and norm(tape.gradients[contribution.node]):
                found.append(_edge(session, values, contribution, one))
    return sorted(found, key=lambda edge: -edge.before)


def leading_to(tape: Tape, node: Node) -> set[Node]:
    """The nodes that depend on a node, and itself."""
    seen, todo = {node}, [node]
    while todo:
        for user, _ in tape.users.get(todo.pop(), ()):
            if user not in seen:
                seen.add(user)
                todo.append(user)
    return seen


def _edge(session: Session, values: Values, contribution: Contribution, to: Node) -> Edge:
    upstream = session.focus.gradients[contribution.node]
    before, after = norm(upstream), norm(contribution.gradient)
    kind, cause = _cause(session, values, contribution, before, after)
    return Edge(contribution.node, to, before, after, kind, cause)


# --- the causes ------------------------------------------------------------------------------------


def _cause(
    session: Session, values: Values, contribution: Contribution, before: float, after: float
) -> tuple[str, str]:
    """What happened to the gradient in this node: in a word, and in numbers."""
    node, which = contribution.node, contribution.number
    assert node.op is not None
    name = node.op.name
    if node.listeners is not None and node.listeners.hooks:
        return "what-if", node.name or "a hook changed the gradient"
    by_op = {
        "tanh": _tanh,
        "sigmoid": _sigmoid,
        "relu": _relu,
        "clip": _clip,
        "where": _where,
        "maximum": _larger,
        "minimum": _larger,
        "multiply": _factor,
        "matmul": _product,
        "cross_entropy": _cross_entropy,
    }
    found = by_op[name](session, values, node, which) if name in by_op else None
    if found is None:
        found = name, _PLAIN.get(name, name).format(parts=len(node.parents), of=_size_of_input(node, which))
    dtype = contribution.gradient.dtype
    if after == 0 and before < math.sqrt(np.finfo(dtype).tiny) and found[0] not in _SWITCHES:
        return "underflow", f"{found[1]}; what goes on is too small for {dtype}"
    return found


_SWITCHES = ("times 0", "product with 0", "relu", "clip", "where", "what-if", "maximum", "minimum")
_PLAIN = {
    "mean": "mean of {of} elements: each gets its share",
    "stack": "one of {parts} parts, and the rest is for the others",
    "concatenate": "one of {parts} parts, and the rest is for the others",
    "divide": "divided",
    "add": "passed on",
    "dropout_mask": "dropped out",
}


def _size_of_input(node: Node, which: int) -> int:
    parent = node.parents[which]
    return math.prod(parent.shape_of(node.output_used(which))) if parent is not None else 0


def _share(mask: np.ndarray) -> str:
    return f"{int(mask.sum()):,} of {mask.size:,}"


def _tanh(session: Session, values: Values, node: Node, which: int) -> tuple[str, str] | None:
    out = values.of(node)
    if out is None:
        return None
    slope = float(np.mean((1 + out) * (1 - out)))
    share = _share(np.abs(out) > SATURATED)
    return "tanh", f"tanh: {share} units saturated beyond {SATURATED}, mean slope {number(slope)}"


def _sigmoid(session: Session, values: Values, node: Node, which: int) -> tuple[str, str] | None:
    out = values.of(node)
    if out is None:
        return None
    low, high = out < 1 - SATURATED, out > SATURATED
    slope = float(np.mean(out * (1 - out)))
    ends = f"{int(low.sum())} below {1 - SATURATED:.2f}, {int(high.sum())} beyond {SATURATED}"
    return "sigmoid", f"sigmoid: {_share(low | high)} units saturated ({ends}), mean slope {number(slope)}"


def _cross_entropy(session: Session, values: Values, node: Node, which: int) -> tuple[str, str] | None:
    targets = math.prod(node.inputs[0].shape[:-1])
    mean = f", in the mean over {targets:,} predictions" if node.params["reduction"] == "mean" else ""
    return "cross_entropy", f"softmax minus target{mean}"


def _relu(session: Session, values: Values, node: Node, which: int) -> tuple[str, str] | None:
    out = values.of(node)
    return None if out is None else ("relu", f"relu is off in {_share(out <= 0)} units")


def _clip(session: Session, values: Values, node: Node, which: int) -> tuple[str, str] | None:
    low, high = node.params["a_min"], node.params["a_max"]
    x = values.operands(node)[0].value
    if x is None:
        return None
    outside = (x < (-np.inf if low is None else low)) | (x > (np.inf if high is None else high))
    ends = f"{'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}"
    return "clip", f"clipped: {_share(outside)} elements are outside {ends}"


def _where(session: Session, values: Values, node: Node, which: int) -> tuple[str, str] | None:
    condition = np.broadcast_to(values.operands(node)[0].value, node.shape).astype(bool)
    taken = ~condition if which == 1 else condition
    if session.at_window and session.changes:
        return "what-if", f"what-if holds {_share(taken)} units"
    return "where", f"where takes the other branch in {_share(taken)} elements"


def _larger(session: Session, values: Values, node: Node, which: int) -> tuple[str, str] | None:
    a, b = (operand.value for operand in values.operands(node))
    if a is None or b is None:
        return None
    mine, other = (a, b) if which == 0 else (b, a)
    lost = other > mine if node.op is not None and node.op.name == "maximum" else other < mine
    name = node.op.name if node.op is not None else ""
    return name, f"{name} takes the other in {_share(np.asarray(lost))} elements"


def _factor(session: Session, values: Values, node: Node, which: int) -> tuple[str, str] | None:
    other = values.operands(node)[1 - which]
    if other.value is None:
        return None
    factor = np.asarray(other.value)
    if not factor.any():
        return "times 0", f"multiplied by 0{_of(session, other.node) or ', a constant'}"
    mean = float(np.mean(factor))
    gate = _gate(session, other.node)
    if gate is None:
        size = float(np.mean(np.abs(factor)))
        return "times", f"multiplied{_of(session, other.node, ' by ')}, mean magnitude {number(size)}"
    kind, shown = gate
    state = "a closed gate" if mean < CLOSED else "a gate"
    share = _share(factor < CLOSED)
    return f"times {kind}", f"times {shown}, {state}: mean {number(mean)}, {share} units below {CLOSED}"


def _gate(session: Session, node: Node | None) -> tuple[str, str] | None:
    """Of a factor that is a gate, or 1 minus one: what it is called."""
    if node is None:
        return None
    if node.name is not None and node.name.endswith("gate"):
        return node.name, f"{node.name} {address.label(session, node)}"
    if node.op is not None and node.op.name == "subtract" and node.parents[0] is None:
        inner = _gate(session, node.parents[1])
        return None if inner is None else (f"1 - {inner[0]}", f"1 - {inner[1]}")
    return None


def _of(session: Session, node: Node | None, word: str = ": ") -> str:
    return "" if node is None else f"{word}{called(session, node)}"


def _product(session: Session, values: Values, node: Node, which: int) -> tuple[str, str] | None:
    other = values.operands(node)[1 - which]
    source = other.node
    while source is not None and source.op is not None and source.op.name == "transpose":
        source = source.parents[0]
    if other.value is None:
        return None
    shown = "a constant" if source is None else address.label(session, source)
    size = norm(other.value)
    if not size:
        return "product with 0", f"product with {shown}, which is all 0"
    return f"product with {shown}", f"product with {shown}, norm {number(size)}"


# --- which elements are zero -----------------------------------------------------------------------


def _zero_rows(session: Session, node: Node, gradient: Any) -> tuple[list[int], str]:
    """The rows of a leaf whose gradient is exactly 0, and why, where an index picked none of them."""
    if not isinstance(gradient, np.ndarray) or gradient.ndim != 2 or node.op is not None:
        return [], ""
    rows = [int(row) for row in np.flatnonzero(~gradient.any(axis=1))]
    if not rows:
        return rows, ""
    text = f"{len(rows):,} of {len(gradient):,} rows are exactly 0"
    users = session.focus.users.get(node, [])
    if users and all(user.op is not None and user.op.name == "getitem" for user, _ in users):
        picked = np.zeros(len(gradient), bool)
        for user, _ in users:
            picked[_rows_of(user.params["index"], len(gradient))] = True
        unused = [row for row in rows if not picked[row]]
        embedding = session.at_window and node is session.model.embedding.weight.node
        what = "characters that do not occur in this window" if embedding else "rows that no index picks"
        text += f": {'all' if len(unused) == len(rows) else f'{len(unused):,}'} of {what}"
        if embedding and unused:
            shown = ", ".join(repr(c) for c in session.decode(np.array(unused[:12])))
            text += f" ({shown}{', …' if len(unused) > 12 else ''})"
    return rows, text


def _rows_of(index: Any, rows: int) -> Any:
    """What an index picks along the first axis."""
    first = index[0] if isinstance(index, tuple) else index
    if first is None or first is Ellipsis:
        return slice(None)
    return np.asarray(first.get() if hasattr(first, "get") else first) if hasattr(first, "dtype") else first


# --- what is shown ---------------------------------------------------------------------------------


def _lost(session: Session, edges: list[Edge]) -> list[Block]:
    if not edges:
        return [Text("The backward pass begins here.")]
    kept = math.prod(edge.kept for edge in edges)
    text = (
        f"The way here on which the least is lost has {len(edges)} steps back from "
        f"{called(session, edges[0].node)}. Of a norm of {number(edges[0].before)} there about "
        f"{number(kept * edges[0].before)} came by it alone."
    )
    rows = []
    for kind, found in by_kind(edges).items():
        share = math.prod(edge.kept for edge in found)
        if share < LOST:
            rows.append((share, len(found), share ** (1 / len(found)), kind))
    rows.sort()
    worst = sorted((edge for edge in edges if edge.kept < LOST), key=lambda edge: edge.kept)
    blocks: list[Block] = [Text(text), Text("")]
    if rows:
        blocks += [Table(("kept", "times", "each", "lost at"), rows[:SHOWN]), Text("")]
    if worst:
        blocks.append(Text("Where the most was lost: the share that went on, and why", "label"))
        facts = [(number(edge.kept), _why(session, edge)) for edge in worst[:SHOWN]]
        blocks.append(Facts([*facts, *_more(len(worst) - SHOWN, "of these steps")]))
    return blocks


def _stopped(session: Session, edges: list[Edge], contributions: int) -> list[Block]:
    if not edges and contributions > 1:
        return [Text(f"{contributions} contributions came and cancel one another exactly.")]
    if not edges:
        return [Text("No node between the loss and here was given a gradient.")]
    facts = []
    for found in by_kind(edges).values():
        times = f"; the largest of {len(found):,} such" if len(found) > 1 else ""
        facts.append((number(found[0].before), _why(session, found[0]) + times))
    text = "Here a gradient came and nothing went on: the norm that came, and why"
    return [Text(text, "label"), Facts([*facts[:SHOWN], *_more(len(facts) - SHOWN, "causes")])]


def by_kind(edges: list[Edge]) -> dict[str, list[Edge]]:
    """The edges by what was the cause."""
    kinds: dict[str, list[Edge]] = {}
    for edge in edges:
        kinds.setdefault(edge.kind, []).append(edge)
    return kinds


def _why(session: Session, edge: Edge) -> str:
    return f"{called(session, edge.node)} > {address.label(session, edge.to)}: {edge.cause}"


def _more(count: int, what: str) -> list[tuple[str, str]]:
    return [("", f"and {count:,} more {what}")] if count > 0 else []
