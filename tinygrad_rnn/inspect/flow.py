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
from .jacobian_of_step import products, spectral_norms, step_jacobians
from .recording import STATES, Recording, triangle
from .session import Session
from .view import Block, Facts, Heat, Text, View, number

GROUP = "Through time"
ROWS_OF_TRIANGLE = 17


def layers_of(session: Session) -> list[str]:
    """The numbers of the layers, for the Tab key."""
    return [str(layer) for layer in range(session.recording.layers)]


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
        help="the loss of the prediction at K alone; all: of several, a triangle",
    ),
    option("--jac", action="store_true", help="how much a step can stretch a gradient"),
    option("--layer", type=int, metavar="L", complete=layers_of, help="of this layer alone"),
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
                            the most that a gradient at the last step is stretched on its way back through
                            this layer, what it reads being held (Pascanu et al., 2013)

    The last two show one layer, the last unless --layer says which. The decay is exp(-slope) of a straight
    line through the logarithms of the whole row: what a step back multiplies the norm by, on average. A blank
    is exactly zero: nothing arrives. A bar in the ruler marks where truncation cuts the gradient.
    """
    recording = session.recording
    if arguments.layer is not None:
        address.layer_and_step(session, arguments.layer, None)
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
    for name, factor in decays.items():
        half = "" if source is None else _half_text(norms[name][: source + 1])
        facts.append((f"decay of {name}", _decay_text(factor) + half))
    facts += [("truncated", _cut_text(recording)), *kept_changes(session)]
    return View(
        f"flow: the norm of the gradient of {what}, by time step",
        [_map(session, norms), Facts(facts)],
        {"from": source, "norms": norms, "decay": decays, "cuts": recording.cuts},
    )


def state_norms(recording: Recording, among: Any = None, layers: Any = None) -> dict[str, np.ndarray]:
    """name ("h_l1") -> (T,): norms of the gradient in the states, the last layer first."""
    layers = range(recording.layers) if layers is None else layers
    return {
        f"{letter}_l{layer}": norms(recording.gradients(letter, layer, among))
        for layer in reversed(layers)
        for letter in STATES[recording.kind]
    }


def norms(rows: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64: squares soon leave the range of float32."""
    return np.linalg.norm(np.asarray(rows, float), axis=-1)


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
    return f"{number(factor)} a step back"


def _half_text(norms: np.ndarray) -> str:
    """How many steps before the last one the norm is first below half of what it is there."""
    back = norms[::-1]
    below = np.flatnonzero(back < back[0] / 2)
    return f"; below half {steps_back(int(below[0]))}" if len(below) else "; never below half"


def steps_back(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'} back"


def kept_changes(session: Session) -> list[tuple[str, str]]:
    """A fact for every view of a window that `what-if --keep` has changed."""
    count = len(session.changes) + len(session.cuts)
    return (
        [("what-if", f"{count} change{'s' * (count > 1)} kept; `what-if --clear` ends that")] if count else []
    )


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
    return address.layer_and_step(session, None, step)[1]


def _triangle(session: Session, layer: int) -> View:
    recording = session.recording
    steps = np.arange(recording.length)
    found = {letter: norms(rows) for letter, rows in triangle(recording, steps, layer).items()}
    shown = sorted({round(k) for k in np.linspace(0, steps[-1], min(ROWS_OF_TRIANGLE, len(steps)))})
    blocks: list[Block] = []
    decays = {letter: [decay(row[: k + 1]) for k, row in enumerate(rows)] for letter, rows in found.items()}
    for letter, rows in found.items():
        maps = {f"L_{k}": np.where(steps <= k, rows[k], np.nan) for k in shown}
        blocks += [Text(f"d L_k / d {letter}_l{layer}[t]"), _map(session, maps, strict=False)]
        known = [x for x in decays[letter] if not math.isnan(x)]
        if known:
            median = number(float(np.median(known)))
            blocks.append(
                Facts([(f"decay of {letter}", f"{median} a step back, the median of all predictions")])
            )
    blocks.append(Facts(kept_changes(session)))
    return View(
        f"flow: what the loss of each prediction sends back, layer {layer}; {len(shown)} of {len(steps)}",
        blocks,
        {"layer": layer, "from": steps, "norms": found, "decay": decays, "cuts": recording.cuts},
    )


def _jacobians(session: Session, layer: int) -> View:
    recording = session.recording
    if session.changes:
        raise UsageError(
            "flow: --jac looks at the cell as it is, not as what-if changed it; first `what-if --clear`"
        )
    jacobians = step_jacobians(recording, layer)
    largest = spectral_norms(jacobians)
    reach = spectral_norms(products(jacobians, recording.cuts))
    states = ", ".join(STATES[recording.kind])
    inner = [t for t in range(recording.length) if t not in recording.cuts] or [0]
    facts = [
        ("steps", f"median {number(float(np.median(largest[inner])))}, largest {number(largest.max())}"),
        ("to end", _decay_text(decay(reach))),
        (
            "if aligned",
            f"{number(_geometric(largest[inner]))} a step, the geometric mean: if all stretched one way",
        ),
    ]
    return View(
        f"flow: how much a step can stretch a gradient, layer {layer}",
        [
            _map(session, {"step": largest}),
            Text("step: the largest singular value of d(state_t)/d(state_t-1); its state is " + states),
            _map(session, {"to end": reach}),
            Text("to end: that of d(state_T-1)/d(state_t), the product of the steps after t"),
            Facts(facts),
        ],
        {"layer": layer, "step": largest, "to_end": reach, "decay": decay(reach)},
    )


def _geometric(values: np.ndarray) -> float:
    return float(np.exp(np.mean(np.log(values)))) if (values > 0).all() else 0.0


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
    whole, length = total.reshape(-1), float(norms(total.reshape(-1)))
    lengths = np.array([norms(part.reshape(-1)) for part in parts])
    cosines = [
        float(np.vdot(part.reshape(-1) / n, whole / length)) if n and length else 0.0
        for part, n in zip(parts, lengths, strict=True)
    ]
    summed = np.zeros_like(total)
    for part in reversed(parts):  # the order of the backward pass
        summed = summed + part
    largest = int(np.argmax(lengths))
    facts = [("largest", f"{number(lengths[largest])} at step {largest}")]
    if lengths.any():
        cancels = 1 - length / lengths.sum()
        facts.append(
            (
                "norms added",
                f"{number(lengths.sum())}; the sum of the parts has {number(length)}: {cancels:.0%} cancels",
            )
        )
    else:
        facts = [("parts", "exactly 0 at every step: `why zero` says why")]
    kept = parameter.grad
    if kept is not None:
        facts.append(("sum - W.grad", f"{number(float(np.abs(summed - kept.numpy()).max()))} at most"))
    facts += kept_changes(session)
    return View(
        f"uses: dL/d {name}, by time step",
        [
            _map(session, {"norm": lengths}),
            _map(session, {"cosine": cosines}, scale="signed", high=1.0),
            Facts(facts),
        ],
        {"parameter": name, "norms": lengths, "cosines": cosines, "norm": length},
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
    found = norms(recording.embedded(recording.gradients_of(recording.loss_at(t))))
    shown = np.where(np.arange(recording.length) <= t, found, np.nan)
    order = [int(s) for s in np.argsort(-found, kind="stable")[:5] if found[s] > 0]
    read, target = session.text, session.targets[t]
    total = found.sum()
    chance = math.exp(-recording.losses[t])
    facts = [
        ("prediction", f"after {read[max(t - 15, 0) : t + 1]!r}: {target!r} with p = {chance:.3f}"),
        ("most", ", ".join(f"{read[s]!r} at {s} ({found[s] / total:.0%})" for s in order) or "nothing"),
    ]
    if total:
        last = _half(found[: t + 1])
        facts.append(("reach", f"half of it lies in the last {last} character{'' if last == 1 else 's'}"))
    facts += kept_changes(session)
    return View(
        f"connect: what the prediction at step {t} depends on",
        [Heat({"read": shown}, read, cuts=recording.cuts[1:], paint=True, strict=False), Facts(facts)],
        {"step": t, "norms": found, "text": read},
    )


def _half(found: np.ndarray) -> int:
    reached = np.cumsum(found[::-1])
    return int(np.searchsorted(reached, reached[-1] / 2)) + 1
