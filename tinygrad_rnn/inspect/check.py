"""`check`: the VJPs of a single node against differences of its own forward function."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.gradcheck import judge
from ..engine.node import Node
from ..engine.tensor import Tensor, apply, no_grad, tensor
from ..engine.walk import grad
from ..errors import TinygradError
from . import address
from .command import command, option
from .operands import Operand, Values, called
from .session import Session
from .tape import require_saved
from .view import Block, Facts, Table, Text, View

EPS, RTOL, ATOL = 1e-6, 1e-5, 1e-6  # as of gradcheck
MANY, FEW = 100, 8  # elements of an input that are moved; of an op that is slow or has many inputs
KINKS = 3  # that are named
SHOWN = 8  # inputs, the worst ones


@dataclass(frozen=True)
class Checked:
    """One input of a node, checked.

    index              of the worst element: the one furthest beyond what is allowed, or nearest to it
    analytic, numeric  its derivative by the VJP and by differences
    moved, size        how many elements were moved, of how many
    wrong              how many of them are wrong
    kinks              (index, value, slope to the left, slope to the right)
    edges              (index, value) of elements beside which the result is not finite: nothing tells there
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    moved: int
    size: int
    wrong: int
    kinks: list[tuple[tuple[int, ...], float, float, float]]
    edges: list[tuple[tuple[int, ...], float]]

    @property
    def relative(self) -> float:
        return abs(self.analytic - self.numeric) / max(abs(self.analytic), abs(self.numeric), ATOL)


@dataclass(frozen=True)
class Check:
    """A node, checked. problem: why it cannot be, or what its VJP raised; then `inputs` is empty."""

    node: Node
    inputs: list[Checked]
    problem: str = ""
    verdict: str = "ok"


@command(
    "Why",
    "check c[3]",
    option(
        "node", nargs="?", metavar="NODE", complete=address.names, help="the node, or all; where one stands"
    ),
)
def check(session: Session, arguments: Namespace) -> View:
    """Whether the derivative of a node is right, by moving its inputs a little.

    The op is computed again in float64, from the operands that this node had. Each element x of each input
    is moved by eps = 10^-6, or 10^-6 |x| if that is more, and (f(x + eps) - f(x - eps)) / (2 eps) compared
    with what the VJP says. In place of an upstream gradient there are fixed numbers u between 0.5 and 1.5, so
    that what is compared is the derivative of sum(u f(x)). Of a large input about 100 elements are moved.

    Where the slopes to the left and right differ there is a kink, as of relu at 0; then the VJP may say
    anything between the two. Wrong is what differs by more than 10^-6 + 10^-5 |derivative|.

        check           the node that one stands at (`cd`), or the loss
        check h[3]      one node; this one multiplies the output gate with tanh(c)
        check all       of each op on the tape the last node
    """
    tape = session.focus
    values = Values(session)
    if arguments.node == "all":
        last = {node.op.name: node for node in tape.nodes if node.op is not None}
        return _table(session, [check_node(values, node) for node in last.values()])
    node = address.find(session, arguments.node) if arguments.node else session.here or tape.nodes[-1]
    return _card(session, check_node(values, node), values)


def check_node(values: Values, node: Node) -> Check:
    """The derivatives of one node for each input that needs a gradient."""
    op = node.op
    if op is None:
        return Check(node, [], "it is a leaf: no op made it, so there is no derivative to check", "no check")
    require_saved(node)
    operands = values.operands(node)
    if problem := _problem(node, operands):
        return Check(node, [], problem, "no check")
    checked = [
        number
        for number, parent in enumerate(node.parents)
        if parent is not None and (op.joint is not None or op.vjps[number] is not None)
    ]
    inputs = [_upgraded(node, o.value, number in checked) for number, o in enumerate(operands)]
    most = FEW if op.has_residuals or len(checked) > MANY // FEW else MANY
    params = {**node.params, "dtype": np.dtype(np.float64)} if op.name == "astype" else node.params

    def forward() -> list[np.ndarray]:
        out = apply(op, tuple(inputs), params)
        return [one.numpy() for one in (out if isinstance(out, tuple) else (out,))]

    try:
        with np.errstate(all="ignore"):
            made = apply(op, tuple(inputs), params)
            outs = list(made) if isinstance(made, tuple) else [made]
            weights = [_weights(number, out.shape) for number, out in enumerate(outs)]
            found = grad(
                outs,
                [inputs[number] for number in checked],
                [tensor(u, backend=node.backend) for u in weights],
                allow_unused=True,
            )
            with no_grad():
                here = forward()
                if not all(np.isfinite(one).all() for one in here):
                    return Check(node, [], "its result is not finite; `why nan` says why", "no check")
                results = [
                    _compare(operands[number].name, inputs[number], gradient, forward, here, weights, most)
                    for number, gradient in zip(checked, found, strict=True)
                ]
    except TinygradError as error:
        return Check(node, [], " ".join(str(error).split()), "wrong")
    return Check(node, results, verdict="wrong" if any(one.wrong for one in results) else "ok")


def _problem(node: Node, operands: list[Operand]) -> str:
    """Why a node cannot be checked; nothing if it can."""
    assert node.op is not None
    if node.op.moves:
        return "it moves an array from one backend to another, which rounds nothing and has nothing to check"
    if unknown := [operand.name for operand in operands if operand.unknown]:
        what = f"nobody kept the values of {' and '.join(unknown)}, which its VJP does not read"
        return f"{what}; what is computed at the prompt is kept"
    for operand in operands:
        if isinstance(operand.value, np.ndarray) and operand.value.dtype.kind == "f":
            bad = ~np.isfinite(operand.value)
            if bad.any():
                index = tuple(int(i) for i in np.argwhere(bad)[0])
                return f"{operand.name} is {operand.value[index]} at {index}; `why nan` says why"
    return ""


def _upgraded(node: Node, value: Any, checked: bool) -> Any:
    """An operand in float64 where it is a float, as a tensor of the node's backend."""
    if not isinstance(value, np.ndarray):
        return value
    wide = value.astype(np.float64) if value.dtype.kind == "f" else value
    return tensor(node.backend.from_host(wide), requires_grad=checked, backend=node.backend)


def _weights(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """Fixed numbers in place of an upstream gradient."""
    return np.random.default_rng(number).uniform(0.5, 1.5, shape)


def _compare(
    name: str,
    x: Tensor,
    gradient: Tensor | None,
    forward: Callable[[], list[np.ndarray]],
    here: list[np.ndarray],
    weights: list[np.ndarray],
    most: int,
) -> Checked:
    """Move elements of x, which is among the inputs of forward(), and put them back."""
    analytic = np.zeros(x.shape) if gradient is None else gradient.numpy()
    if not analytic.size:
        return Checked(name, (), 0.0, 0.0, 0, 0, 0, [], [])
    moved = chosen(analytic, most)
    flat = x.array.reshape(-1)  # a view: tensor() made the array contiguous

    def slopes(place: int, eps: float) -> tuple[float, float, float]:
        before = float(flat[place])
        steps = []
        for there in (before - eps, before + eps):
            flat[place] = there
            # Differences first and the sum then: what does not change leaves no rounding error.
            steps.append([one - own for one, own in zip(forward(), here, strict=True)])
        flat[place] = before
        left, right = (
            sum(float((u * step).sum()) for u, step in zip(weights, side, strict=True)) / eps
            for side in steps
        )
        return 0.0 - left, right, (right - left) / 2

    found = np.zeros((3, len(moved)))
    said = analytic.reshape(-1)[moved]
    for column, place in enumerate(moved):
        at = abs(float(flat[place]))
        found[:, column] = slopes(place, EPS * max(at, 1.0))
        left, right, numeric = found[:, [column]]
        error, _, kink = judge(said[[column]], numeric, left, right, RTOL, ATOL)
        if at and (error[0] or kink[0]):  # a step that is small beside a small x: log has no kink at 10^-6
            left, right, numeric = closer = np.array(slopes(place, EPS * at))[:, None]
            error, _, kink = judge(said[[column]], numeric, left, right, RTOL, ATOL)
            if not error[0] and not kink[0]:
                found[:, [column]] = closer
    left, right, numeric = found
    error, tolerance, kink = judge(said, numeric, left, right, RTOL, ATOL)
    edge = ~np.isfinite(numeric)
    error[edge], kink[edge] = 0, False
    distance = np.where(kink | edge, 0.0, np.abs(said - numeric) / tolerance)
    worst = int(np.argmax(np.where(error > 0, 1e300, 0) + np.minimum(distance, 1e299)))
    index = [tuple(int(i) for i in np.unravel_index(place, x.shape)) for place in moved]
    kinks = [(index[i], float(flat[moved[i]]), float(left[i]), float(right[i])) for i in np.flatnonzero(kink)]
    edges = [(index[i], float(flat[moved[i]])) for i in np.flatnonzero(edge)]
    wrong = int((error > 0).sum())
    return Checked(
        name, index[worst], float(said[worst]), float(numeric[worst]), len(moved), x.size, wrong, kinks, edges
    )


def chosen(analytic: np.ndarray, most: int) -> np.ndarray:
    """Which elements are moved: all, or spread evenly and the one with the largest derivative."""
    if analytic.size <= most:
        return np.arange(analytic.size)
    spread = np.linspace(0, analytic.size - 1, most - 1).astype(int)
    return np.unique([*spread, int(np.argmax(np.abs(analytic)))])


# --- what is shown ---------------------------------------------------------------------------------


def _card(session: Session, found: Check, values: Values) -> View:
    node, title = found.node, f"check {called(session, found.node)}"
    if found.problem and found.verdict == "no check":
        text = f"{found.problem[0].upper()}{found.problem[1:]}."
        return View(f"{title}: cannot be checked", [Text(text)], _data(session, found))
    if found.problem:
        return View(f"{title}: wrong", [Text(found.problem)], _data(session, found))
    blocks: list[Block] = []
    if node.op is not None and node.op.joint is None:
        names = [one.name for one in found.inputs]
        formulae = zip(node.op.input_names or (), node.op.derivative(), strict=True)
        blocks += [Facts([("VJP", text) for name, text in formulae if name in names]), Text("")]
    rows = [
        [
            one.name,
            str(one.index),
            one.analytic,
            one.numeric,
            one.relative,
            f"{one.moved:,} of {one.size:,}",
            "wrong" if one.wrong else "ok",
        ]
        for one in sorted(found.inputs, key=lambda one: (-one.wrong, -one.relative))[:SHOWN]
    ]
    header = ("input", "worst at", "by the VJP", "by differences", "relative", "moved", "verdict")
    blocks.append(Table(header, rows, ("moved", "relative", "worst at", "verdict")))
    if len(found.inputs) > SHOWN:
        blocks.append(Text(f"And {len(found.inputs) - SHOWN:,} more inputs, which are not worse."))
    for one in found.inputs:
        if one.wrong:
            text = (
                f"{one.name}{list(one.index)}: {one.analytic:.6g} by the VJP, {one.numeric:.6g} by "
                f"differences, relative error {one.relative:.3g}; {one.wrong:,} of {one.moved:,} are wrong."
            )
            blocks.append(Text(text, "bad"))
        for index, value, left, right in one.kinks[:KINKS]:
            text = f"A kink at {one.name}{list(index)} = {value:.4g}: slopes {left:.4g} and {right:.4g}."
            blocks.append(Text(text, "mark"))
        for index, value in one.edges[:KINKS]:
            text = (
                f"At {one.name}{list(index)} = {value:.4g} nothing tells: beside it the result is not finite."
            )
            blocks.append(Text(text, "mark"))
        if len(one.kinks) > KINKS:
            blocks.append(Text(f"And {len(one.kinks) - KINKS:,} more kinks in {one.name}.", "mark"))
    if node.op is not None and node.op.name == "astype":
        blocks.append(Text("In float64 throughout: the rounding of the cast has no derivative."))
    verdict = "the VJP is wrong" if found.verdict == "wrong" else "the VJP is right"
    return View(f"{title}: {verdict}", blocks, _data(session, found))


def _data(session: Session, found: Check) -> dict[str, Any]:
    return {
        "node": session.focus.numbers[found.node],
        "op": None if found.node.op is None else found.node.op.name,
        "verdict": found.verdict,
        "problem": found.problem,
        "inputs": [
            {**{name: getattr(one, name) for name in one.__dataclass_fields__}, "relative": one.relative}
            for one in found.inputs
        ],
    }


def _table(session: Session, checks: list[Check]) -> View:
    rows = []
    for one in checks:
        worst = max((x.relative for x in one.inputs), default=None)
        kinks = sum(len(x.kinks) for x in one.inputs)
        moved = sum(x.moved for x in one.inputs)
        note = f"{kinks} at a kink" if kinks else ""
        op = "" if one.node.op is None else one.node.op.name
        name = address.label(session, one.node)
        rows.append([op, name, one.node.time_step, moved, worst, one.verdict, note])
    wrong = [one.node.op.name for one in checks if one.node.op is not None and one.verdict == "wrong"]
    title = f"check all: wrong is {', '.join(wrong)}" if wrong else "check all: every VJP is right"
    if any(one.verdict == "no check" for one in checks):
        title += ", as far as it can be checked"
    header = ("op", "node", "step", "moved", "relative error", "verdict", "note")
    blocks: list[Block] = [Table(header, rows, ("note", "moved", "step", "node"))]
    if problems := [(called(session, one.node), one.problem) for one in checks if one.problem]:
        blocks += [Text(""), Facts(problems)]
    return View(title, blocks, {"checks": [_data(session, one) for one in checks]})
