"""`what-if`: the window once more, with a gate held, a gradient scaled or the past cut off."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import UsageError
from . import address
from .command import command, option
from .do import left_focus
from .flow import decay, state_norms
from .operands import norm
from .recording import GATES, LETTERS, STATES, Change, Recording
from .session import Session
from .view import Block, Facts, Heat, Table, Text, View, number, shown_character

ROWS = 6  # time steps that are listed
RANGE = 1e-6  # of the colours: the lowest is this much of the highest, or more
_STEPS = r"(?:\[(?P<first>-?\d+)(?:\.\.(?P<last>-?\d+))?\])?"
_PLACE = r"(?P<letter>[a-z])(?:_l(?P<layer>\d+))?" + _STEPS + r"(?:\.(?P<unit>\d+))?"
_HELD = re.compile(_PLACE + r"\s*=\s*(?P<number>\S+)")
_SCALED = re.compile(r"d" + _PLACE + r"\s*\*\s*(?P<number>\S+)")
_CUT = re.compile(r"cut\s+(?P<step>-?\d+)")
SYNTAX = "f=1, f_l0[10]=0, c[10..20].3=0.5, dc*0, dh[20]*0.1 or cut 20"


def _words(session: Session) -> list[str]:
    """One of each kind of change to each letter; steps, layers and units are added by hand."""
    letters = STATES[session.model.kind] + GATES[session.model.kind]
    return ["--keep", "--clear", *(f"{x}=1" for x in letters), *(f"d{x}*0" for x in letters), "cut"]


@command(
    "Do",
    "what-if f[10..20]=1",
    option("change", complete=_words),
    rest="[--keep] CHANGE, CHANGE ... | --clear",
)
def what_if(session: Session, arguments: argparse.Namespace) -> View:
    """What if this gate were open, this gradient smaller, the past cut off? The window before and after.

    A change is one of
        f=1           the gate, or state, is held at a value; no gradient goes back through it then
        dc*0          the gradient in it is multiplied by a number, and that goes on back
        cut 20        nothing goes back from step 20 to the one before: the state is detached there
    and a place is f: every layer, time step and unit; f_l0: of layer 0; f[10]: at step 10; f[10..20]: at
    these steps, both included; f[10].3: there, unit 3. Several changes are separated by commas.

    The first map is by how much the loss of each prediction changes. The second has the norm of the gradient
    of the mean loss in the states, before and after ('). The decay is that of the loss of the last
    prediction alone: what a step back multiplies the norm by.

        what-if f=1                     the forget gate open everywhere
        what-if dc*0, dh[30]*0.1        no gradient through the cell, little through h at step 30
        what-if --keep cut 20           it stays, for every view, until what-if --clear
    """
    words = arguments.rest.split()
    options = [word for word in words if word.startswith("--")]
    if words == ["--clear"]:
        return _cleared(session)
    if any(option != "--keep" for option in options) or words == ["--keep"]:
        raise UsageError("what-if: say changes such as f=1, --keep f=1 to let them stay, or --clear alone")
    keep = bool(options)
    changes, cuts = parse(session, " ".join(word for word in words if word not in options))
    before, left = session.recording, left_focus(session) if keep else []
    if keep:
        session.changes += changes
        session.cuts += cuts
        after = session.record()
    else:
        after = session.run(changes, cuts)
    return _compared(session, before, after, changes, cuts, keep, left, arguments.rest)


def _cleared(session: Session) -> View:
    count = len(session.changes) + len(session.cuts)
    before, left = session.recording.loss.item(), left_focus(session) if count else []
    session.changes.clear()
    session.cuts.clear()
    after = session.record().loss.item() if count else before
    return View(
        f"what-if: {count} change{'s' * (count != 1)} taken back",
        [Facts([("loss", f"{number(before)} -> {number(after)}"), *left])],
        {"removed": count, "before": before, "after": after},
    )


# --- what is changed ------------------------------------------------------------------------------


def parse(session: Session, text: str) -> tuple[list[Change], list[int]]:
    """The changes and cuts that are written down. UsageError for what the network of the session has not."""
    changes, cuts = [], []
    for part in (part.strip() for part in text.split(",")):
        if match := _CUT.fullmatch(part):
            cuts.append(_cut(session, int(match["step"])))
        elif match := _HELD.fullmatch(part):
            changes.append(_change(session, match, "value"))
        elif match := _SCALED.fullmatch(part):
            changes.append(_change(session, match, "scale"))
        else:
            raise UsageError(f"what-if: {part or 'nothing'!r} is no change; say {SYNTAX}")
    return changes, cuts


def _cut(session: Session, step: int) -> int:
    length = session.recording.length
    if not 1 <= step < length:
        raise UsageError(
            f"what-if: the past of step {step} cannot be cut off; the steps are 1 to {length - 1}"
        )
    return step


def _change(session: Session, match: re.Match[str], kind: str) -> Change:
    letter = address.check_letter(session, match["letter"])
    layer = None if match["layer"] is None else int(match["layer"])
    steps = None
    if match["first"] is not None:
        first, last = int(match["first"]), int(match["last"] or match["first"])
        (_, first), (_, last) = (address.layer_and_step(session, layer, t) for t in (first, last))
        if first > last:
            raise UsageError(f"what-if: the steps of {match[0]} end before they begin")
        steps = range(first, last + 1)
    elif layer is not None:
        address.layer_and_step(session, layer, None)
    unit = None if match["unit"] is None else int(match["unit"])
    units = session.model.rnn.hidden_size
    if unit is not None and unit >= units:
        raise UsageError(f"what-if: {match[0]}: the units are 0 to {units - 1}")
    try:
        amount = float(match["number"])
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount):
        raise UsageError(f"what-if: {match[0]}: {match['number']} is not a finite number")
    return Change(letter, layer, steps, unit, **{kind: amount})


def described(change: Change) -> str:
    """In words: where, and what becomes of it."""
    names = {letter: name for name, letter in LETTERS.items()}
    units = "" if change.unit is None else f"unit {change.unit} of "
    layer = "every layer" if change.layer is None else f"layer {change.layer}"
    if change.steps is None:
        when = "at every step"
    elif len(change.steps) == 1:
        when = f"at step {change.steps[0]}"
    else:
        when = f"at steps {change.steps[0]} to {change.steps[-1]}"
    where = f"{units}the {names[change.letter]} {change.letter} of {layer} {when}"
    if change.value is not None:
        return f"{where} is held at {change.value:g}"
    return f"the gradient in {where} is multiplied by {change.scale:g}"


# --- before and after -----------------------------------------------------------------------------


def _compared(
    session: Session,
    before: Recording,
    after: Recording,
    changes: Sequence[Change],
    cuts: Sequence[int],
    keep: bool,
    left: Sequence[tuple[str, str]],
    given: str,
) -> View:
    difference = after.losses - before.losses
    steps, which = _listed(changes, difference)
    flows = [state_norms(recording) for recording in (before, after)]
    last = before.length - 1
    decays = [
        {name: decay(norms) for name, norms in state_norms(r, r.gradients_of(r.loss_at(last))).items()}
        for r in (before, after)
    ]
    weights = [_weights(recording) for recording in (before, after)]
    rows: dict[str, np.ndarray] = {}
    for name in flows[0]:
        rows |= {f"d{name}": flows[0][name], f"d{name}'": flows[1][name]}
    read, target = session.text, session.targets
    blocks: list[Block] = [
        Facts(
            [
                *(("change", described(change)) for change in changes),
                *(
                    ("change", f"the state that step {cut} begins with is cut off from its past")
                    for cut in cuts
                ),
                ("loss", f"{number(before.loss.item())} -> {number(after.loss.item())} nats, the mean"),
                ("stays", "until `what-if --clear`" if keep else "no: this was a trial; --keep lets it stay"),
                *left,
            ]
        ),
    ]
    if difference.any():
        blocks += [
            Heat({"loss' - loss": difference}, read, scale="signed", cuts=after.cuts[1:]),
            Text(which),
            Table(
                ["t", "read", "next", "loss", "loss'"],
                [
                    [
                        str(t),
                        shown_character(read[t]),
                        shown_character(target[t]),
                        before.losses[t],
                        after.losses[t],
                    ]
                    for t in steps
                ],
            ),
        ]
    blocks += [
        Text("the norm of the gradient of the mean loss, before and after (')"),
        Heat(rows, read, low=_lowest(rows), cuts=after.cuts[1:]),
        Text("how a gradient of the last prediction's loss decays, by a step back"),
        Table(["state", "before", "after"], [[n, *(_factor(d[n]) for d in decays)] for n in decays[0]]),
        Text("the norm of the gradient in each weight"),
        Table(
            ["parameter", "before", "after", "times"],
            [[n, a, weights[1][n], weights[1][n] / a if a else ""] for n, a in weights[0].items()],
            spare=["times"],
        ),
    ]
    return View(
        f"what-if {given}",
        blocks,
        {
            "changes": [described(change) for change in changes],
            "cuts": list(cuts),
            "kept": keep,
            "loss": [before.loss.item(), after.loss.item()],
            "losses": [before.losses, after.losses],
            "flow": flows,
            "decay": decays,
            "weights": weights,
        },
    )


def _listed(changes: Sequence[Change], difference: np.ndarray) -> tuple[list[int], str]:
    """Time steps to name, and which they are: those where a value is held, if they are few."""
    held = [change for change in changes if change.value is not None]
    named = sorted({t for change in held for t in change.steps or ()})
    if 0 < len(named) <= ROWS and all(change.steps is not None for change in held):
        return named, "the loss of the prediction at each step that was changed"
    size = np.where(np.isfinite(difference), np.abs(difference), np.inf)
    largest = np.argsort(-size, kind="stable")[:ROWS]
    return sorted(int(t) for t in largest if size[t]), "where the loss changes most"


def _lowest(rows: Mapping[str, np.ndarray]) -> float | None:
    """The low end of the scale: not so low that one tiny number makes all others look alike."""
    norms = np.concatenate([*rows.values()])
    norms = norms[np.isfinite(norms) & (norms > 0)]
    return float(max(norms.min(), norms.max() * RANGE)) if norms.size else None


def _factor(value: float) -> str:
    return "no gradient" if math.isnan(value) else number(value)


def _weights(recording: Recording) -> dict[str, float]:
    """The norm of the gradient in each parameter; 0 where none arrives."""
    found = recording.tape.gradients
    return {
        name: norm(found[p.node]) if p.node in found else 0.0
        for name, p in recording.model.named_parameters()
        if p.node is not None
    }
