"""Where the gradient goes on its way back through time: `flow`, `uses`, `connect`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UsageError
from . import address
from .command import command, option
from .jacobian_of_step import spectral_norms, step_jacobians
from .recording import STATES, Recording, triangle
from .session import Session
from .view import Block, Facts, Heat, Text, View, number

GROUP = "Through time"
ROWS_OF_TRIANGLE = 17


def _steps(session: Session) -> list[str]:
    return [str(t) for t in range(session.recording.length)]


@command(
    GROUP,
    "flow --from 30",
    option(
        "--from",
        dest="source",
        metavar="K",
        complete=lambda session: [*_steps(session), "all"],
        help="the loss of the prediction at K alone; all: of each, a triangle",
    ),
    option("--jac", action="store_true", help="how much a step can stretch a gradient"),
    option("--layer", type=int, metavar="L", help="of this layer alone"),
)
def flow(session: Session, arguments: argparse.Namespace) -> View:
    """How large the gradient is at every time step.

    Each cell is the norm of dL/dh_t (and dL/dc_t of an LSTM), a row a layer, a column a character that was
    read. L is the mean loss of the window: every prediction sends a gradient back, so the rows hardly fall.
    To see how it fades take one prediction alone:

        flow --from 49      dL_49/dh_t: what the loss at step 49 says to every step before
        flow --from all     the triangle: the same for several predictions, a row each
        flow --jac          the largest singular value of each step's Jacobian d(state_t)/d(state_t-1), where
                            the state is (h, c) for an LSTM, and of the product of those of all later steps:
                            the most that any gradient is stretched on its way (Pascanu et al., 2013)

    The decay is exp(-slope) of a straight line through the logarithms: what a step back multiplies the norm
    by. A blank is exactly zero: nothing arrives. A bar in the ruler marks where truncation cuts the gradient.
    """
    recording = session.recording
    if arguments.layer is not None:
        address.layer_and_step(session, "h", arguments.layer, None)
    layers = range(recording.layers) if arguments.layer is None else [arguments.layer]
    if arguments.jac:
        if arguments.source is not None:
            raise UsageError("flow: --jac looks at the steps themselves, not at a loss; leave out --from")
        return _jacobians(session, recording.layers - 1 if arguments.layer is None else arguments.layer)
    if arguments.source == "all":
        return _triangle(session, recording.layers - 1 if arguments.layer is None else arguments.layer)
    source = None if arguments.source is None else _step(session, arguments.source)
    among = None if source is None else recording.gradients_of(recording.loss_at(source))
    norms = state_norms(recording, among, layers)
    decays = {name: decay(row[: None if source is None else source + 1]) for name, row in norms.items()}
    what = "the window's mean loss" if source is None else f"the loss of the prediction at step {source}"
    facts = [
        ("loss", f"{number(recording.loss.item() if source is None else recording.losses[source])} nats")
    ]
    facts += [(f"decay of {name}", _decay_text(factor)) for name, factor in decays.items()]
    facts.append(("truncated", _cut_text(recording)))
    return View(
        f"flow: the norm of the gradient of {what}, by time step",
        [_map(session, norms), Facts(facts)],
        {"from": source, "norms": norms, "decay": decays, "cuts": recording.cuts},
    )


def state_norms(recording: Recording, among: Any = None, layers: Any = None) -> dict[str, np.ndarray]:
    """name ("h_l1") -> (T,): norms of the gradient in the states, the last layer first."""
    layers = range(recording.layers) if layers is None else layers
    return {
        f"{letter}_l{layer}": np.linalg.norm(recording.gradients(letter, layer, among), axis=1)
        for layer in reversed(layers)
        for letter in STATES[recording.kind]
    }


def decay(norms: np.ndarray) -> float:
    """What a step back multiplies a norm by: exp(-slope) of the line through the logarithms of those that are
    finite and not zero; NaN for fewer than two."""
    with np.errstate(all="ignore"):
        logs = np.log(np.asarray(norms, float))
    steps = np.flatnonzero(np.isfinite(logs))
    return math.nan if len(steps) < 2 else float(np.exp(-np.polyfit(steps, logs[steps], 1)[0]))


def _map(session: Session, rows: Mapping[str, Any], **options: Any) -> Heat:
    return Heat(rows, session.text, cuts=session.recording.cuts[1:], **options)


def _decay_text(factor: float) -> str:
    if math.isnan(factor):
        return "no line fits: fewer than two steps have a gradient"
    halves = f"; half is gone after {number(math.log(0.5) / math.log(factor))} steps" if factor < 1 else ""
    return f"{number(factor)} a step back{halves}"


def _cut_text(recording: Recording) -> str:
    inner = recording.cuts[1:]
    where = (
        f"before steps 0, {', '.join(map(str, inner))}" if inner else "before step 0, where the window begins"
    )
    return f"{where}: the state comes from there, no gradient goes back"


def _step(session: Session, given: str) -> int:
    try:
        step = int(given)
    except ValueError:
        raise UsageError(f"{given!r} is no time step; say 0 to {session.recording.length - 1}") from None
    return address.layer_and_step(session, "t", None, step)[1]


def _triangle(session: Session, layer: int) -> View:
    recording = session.recording
    last = recording.length - 1
    sources = sorted({round(k) for k in np.linspace(0, last, min(ROWS_OF_TRIANGLE, last + 1))})
    found = triangle(recording, sources, layer)
    norms = {letter: np.linalg.norm(rows, axis=2) for letter, rows in found.items()}
    blocks: list[Block] = []
    decays: dict[str, Any] = {}
    for letter, rows in norms.items():
        shown = {
            f"L_{k}": np.where(np.arange(last + 1) <= k, row, np.nan)
            for k, row in zip(sources, rows, strict=True)
        }
        blocks += [Text(f"d L_k / d {letter}_l{layer}[t]"), _map(session, shown, strict=False)]
        decays[letter] = [decay(row[: k + 1]) for k, row in zip(sources, rows, strict=True)]
        known = [x for x in decays[letter] if not math.isnan(x)]
        if known:
            blocks.append(
                Facts([(f"decay of {letter}", f"{number(float(np.median(known)))} a step back (median)")])
            )
    return View(
        f"flow: what the loss of each prediction sends back, layer {layer}",
        blocks,
        {"layer": layer, "from": sources, "norms": norms, "decay": decays, "cuts": recording.cuts},
    )


def _jacobians(session: Session, layer: int) -> View:
    recording = session.recording
    jacobians = step_jacobians(recording, layer)
    largest = spectral_norms(jacobians)
    products = np.empty_like(jacobians)
    product = np.eye(jacobians.shape[1], dtype=jacobians.dtype)
    for t in reversed(range(recording.length)):
        if t + 1 in recording.cuts:  # nothing goes back over it
            product = np.zeros_like(product)
        products[t] = product  # of the steps after t
        product = product @ jacobians[t]
    reach = spectral_norms(products)
    states = ", ".join(STATES[recording.kind])
    shown = [t for t in range(recording.length) if t not in recording.cuts] or [0]
    return View(
        f"flow: how much a step can stretch a gradient, layer {layer}",
        [
            _map(session, {"step": largest}),
            Text("step: the largest singular value of d(state_t)/d(state_t-1); its state is " + states),
            _map(session, {"to end": reach}),
            Text("to end: that of d(state_T-1)/d(state_t), the product of the steps after t"),
            Facts(
                [
                    (
                        "steps",
                        f"median {number(float(np.median(largest[shown])))}, largest {number(largest.max())}",
                    ),
                    ("product", _decay_text(decay(reach))),
                    (
                        "their product",
                        f"{number(_geometric(largest[shown]))} a step, if all stretched the same way",
                    ),
                ]
            ),
        ],
        {"layer": layer, "step": largest, "to_end": reach, "decay": decay(reach)},
    )


def _geometric(values: np.ndarray) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-300)))))


# --- a weight, and an input ------------------------------------------------------------------------


@command(GROUP, "uses weight_hh_l0", option("parameter", complete=address.parameters))
def uses(session: Session, arguments: argparse.Namespace) -> View:
    """A parameter's gradient, split by the time steps that it was used in.

    A recurrent weight is used at every step, and dL/dW is the sum of what each use contributes. The first
    row is the norm of each contribution, the second its cosine with the sum: above 0 this step pulls where
    the sum goes. The parts of a recurrent weight sum to W.grad to the last bit, in the order of the backward
    pass.
    """
    name, parameter = address.find_parameter(session, arguments.parameter)
    node = parameter.node
    total = None if node is None else session.recording.tape.gradients.get(node)
    if total is None:
        raise UsageError(f"{name} has no gradient in this window: `why none {name}` says why")
    parts = by_step(session.recording, name, node)
    norms = np.array([np.linalg.norm(part) for part in parts])
    length = float(np.linalg.norm(total)) or 1.0
    with np.errstate(all="ignore"):
        cosines = [
            float(np.vdot(p, total) / (n * length)) if n else 0.0 for p, n in zip(parts, norms, strict=True)
        ]
    summed = np.zeros_like(total)
    for part in reversed(parts):
        summed = summed + part
    largest = int(np.argmax(norms))
    return View(
        f"uses: dL/d {name}, by time step",
        [
            _map(session, {"norm": norms}),
            _map(session, {"cosine": cosines}, scale="signed", high=1.0),
            Facts(
                [
                    ("largest", f"{number(norms[largest])} at step {largest}"),
                    (
                        "norms added",
                        f"{number(norms.sum())}; the sum of the parts has {number(length)}: "
                        f"{1 - length / (norms.sum() or 1.0):.0%} cancels",
                    ),
                    ("sum - W.grad", f"{number(float(np.abs(summed - total).max()))} at most"),
                ]
            ),
        ],
        {"parameter": name, "norms": norms, "cosines": cosines, "norm": float(np.linalg.norm(total))},
    )


def by_step(recording: Recording, name: str, node: Any) -> list[np.ndarray]:
    """(T of them) what each time step contributes to the gradient of a parameter, of its shape.

    A weight of a recurrent layer is used once a step. The embedding and the output layer are used for all
    steps at once: there the gradient of the whole is split by rows.
    """
    tape, length = recording.tape, recording.length
    parts = [np.zeros(node.shape, node.dtype) for _ in range(length)]
    for user, _, gradient in tape.contributions.get(node, ()):
        if user.time_step is not None:
            parts[user.time_step] = parts[user.time_step] + gradient
    if name.startswith("rnn."):
        return parts
    if name == "embedding.weight":
        for t, row in enumerate(recording.embedded(tape.gradients)):
            parts[t][recording.symbols[t]] = row
        if recording.model.tie_weights:
            name = "output.weight"
    if name.startswith("output."):
        scores = _score_gradients(recording)
        hidden = recording.values("h", recording.layers - 1)
        for t in range(length):
            parts[t] = parts[t] + (scores[t] if name == "output.bias" else np.outer(scores[t], hidden[t]))
    return parts


def _score_gradients(recording: Recording) -> np.ndarray:
    """(T, V): the gradient in the scores, softmax(scores) - one_hot(target), over T: of the mean."""
    shifted = np.exp(recording.logits - recording.logits.max(axis=1, keepdims=True))
    scores = shifted / shifted.sum(axis=1, keepdims=True)
    scores[np.arange(recording.length), recording.targets] -= 1
    return scores / recording.length


@command(GROUP, "connect 40", option("step", metavar="t", complete=_steps))
def connect(session: Session, arguments: argparse.Namespace) -> View:
    """Which characters the prediction at step t depends on.

    Each character is coloured by the norm of the gradient of log p(next character at t) with respect to the
    vector that the embedding gave for it: how much the prediction would change if the model had read
    something slightly different there.
    """
    recording = session.recording
    t = _step(session, arguments.step)
    norms = np.linalg.norm(recording.embedded(recording.gradients_of(recording.loss_at(t))), axis=1)
    shown = np.where(np.arange(recording.length) <= t, norms, np.nan)
    order = [int(s) for s in np.argsort(-norms, kind="stable")[:5] if norms[s] > 0]
    read, target = session.text, session.targets[t]
    total = norms.sum() or 1.0
    chance = math.exp(-recording.losses[t])
    facts = [
        ("prediction", f"after {read[max(t - 15, 0) : t + 1]!r}: {target!r} with p = {chance:.3f}"),
        ("most", ", ".join(f"{read[s]!r} at {s} ({norms[s] / total:.0%})" for s in order) or "nothing"),
        ("reach", f"half of it lies in the last {_half(norms[: t + 1])} characters"),
    ]
    return View(
        f"connect: what the prediction at step {t} depends on",
        [Heat({"read": shown}, read, cuts=recording.cuts[1:], paint=True, strict=False), Facts(facts)],
        {"step": t, "norms": norms, "text": read},
    )


def _half(norms: np.ndarray) -> int:
    reached = np.cumsum(norms[::-1])
    return int(np.searchsorted(reached, reached[-1] / 2)) + 1
