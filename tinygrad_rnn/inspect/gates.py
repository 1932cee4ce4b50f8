"""What the units do while the model reads: `gates`, `cells`, `predict`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np

from ..errors import UsageError
from . import address
from .command import command, option
from .flow import kept_changes, layers_of
from .recording import GATES, STATES, read_states
from .session import Session
from .view import Block, Facts, Heat, Table, Text, View, number, shown_text

GROUP = "Through time"
LOW, HIGH = 0.1, 0.9  # a gate beyond these is saturated (Karpathy et al., 2015)
NAMED = 5  # units that are listed
STRETCH, SEARCHED = 400, 2000  # symbols that a unit is shown over; that a unit is searched in
CANDIDATES = 5
_TANH = "gn"  # not between 0 and 1 but between -1 and 1


def _units(session: Session) -> list[str]:
    return [str(unit) for unit in range(session.model.rnn.hidden_size)]


_LAYER = option("--layer", type=int, metavar="L", complete=layers_of, help="the last one unless given")


@command(GROUP, "gates 12", option("unit", type=int, nargs="?", complete=_units), _LAYER)
def gates(session: Session, arguments: argparse.Namespace) -> View:
    """How far each gate is open at every character: i, f, o, g of an LSTM, r, z, n of a GRU.

    Without a unit the mean over all units, and for each unit the share of the characters at which the gate
    was saturated: low, below 0.1 (shut), or high, above 0.9 (open); of g and n, which lie between -1 and 1,
    beyond -0.9 and 0.9. A forget gate that is high nearly always carries its cell on, one that is low forgets
    (Karpathy et al., 2015, "Visualizing and understanding recurrent networks"). The update gate z of a GRU
    keeps the old state where it is high.

        gates           all units of the last layer
        gates 12        one unit, with its cell and its output
        gates --layer 0
    """
    recording = session.recording
    letters = GATES[recording.kind]
    if not letters:
        raise UsageError(
            "an rnn has no gates; `cells 3` shows what a unit does, `compare rnn lstm gru` all three"
        )
    layer, _ = address.layer_and_step(session, arguments.layer, None)
    values = {letter: recording.values(letter, layer) for letter in letters}
    between = [letter for letter in letters if letter not in _TANH]
    if arguments.unit is not None:
        return _one_unit(session, values, _unit(session, arguments.unit), layer)
    ends = {letter: (-HIGH, HIGH) if letter in _TANH else (LOW, HIGH) for letter in letters}
    shares = {
        letter: {
            "low": (values[letter] < ends[letter][0]).mean(axis=0),
            "high": (values[letter] > ends[letter][1]).mean(axis=0),
        }
        for letter in letters
    }
    rows = [
        [
            letter,
            float(values[letter].mean()),
            f"{shares[letter]['low'].mean():.0%}",
            f"{shares[letter]['high'].mean():.0%}",
            _most(shares[letter]["low"]),
            _most(shares[letter]["high"]),
        ]
        for letter in letters
    ]
    header = ["gate", "mean", "low", "high", "most often low", "most often high"]
    per_unit = {f"{letter} {side}": shares[letter][side] for letter in letters for side in ("low", "high")}
    return View(
        f"gates: layer {layer}, mean over {recording.model.rnn.hidden_size} units",
        [
            _map(session, {letter: values[letter].mean(axis=1) for letter in between}, "unit"),
            _map(session, {x: values[x].mean(axis=1) for x in letters if x in _TANH}, "signed"),
            Text(""),
            Table(header, rows, spare=["most often low", "most often high"]),
            Text(
                f"The share of the characters at which each unit was saturated low (below {LOW}; {-HIGH} of "
                f"{' and '.join(x for x in letters if x in _TANH)}) or high (above {HIGH}):"
            ),
            Heat(per_unit, scale="unit", unit="unit"),
        ],
        {"layer": layer, "mean": {x: v.mean(axis=1) for x, v in values.items()}, "saturated": shares},
    )


def _one_unit(session: Session, values: dict[str, np.ndarray], unit: int, layer: int) -> View:
    between = {letter: v[:, unit] for letter, v in values.items() if letter not in _TANH}
    signed = {letter: v[:, unit] for letter, v in values.items() if letter in _TANH}
    signed |= {
        s: session.recording.values(s, layer)[:, unit] for s in reversed(STATES[session.recording.kind])
    }
    facts = [
        (letter, f"mean {number(row.mean())}, shut {np.mean(row < LOW):.0%}, open {np.mean(row > HIGH):.0%}")
        for letter, row in between.items()
    ]
    return View(
        f"gates: unit {unit} of layer {layer}",
        [_map(session, between, "unit"), Text(""), _map(session, signed, "signed"), Facts(facts)],
        {"layer": layer, "unit": unit, "values": between | signed},
    )


def _map(session: Session, rows: dict, scale: str) -> Heat:
    return Heat(rows, session.text, scale=scale, cuts=session.recording.cuts[1:])


def _unit(session: Session, unit: int) -> int:
    size = session.model.rnn.hidden_size
    if not 0 <= unit < size:
        raise UsageError(f"there is no unit {unit}; the units are 0 to {size - 1}")
    return unit


def _most(shares: np.ndarray) -> str:
    order = [int(u) for u in np.argsort(-shares, kind="stable")[:NAMED] if shares[u] > 0]
    return ", ".join(f"{u} ({shares[u]:.0%})" for u in order) or "none"


# --- one unit over a longer text -------------------------------------------------------------------


def _inside(opening: str, closing: str) -> Callable[[str], np.ndarray]:
    """1 from an opening character to the closing one, which may be the same; an empty line ends it too."""

    def feature(text: str) -> np.ndarray:
        depth, found = 0, []
        for place, character in enumerate(text):
            if text[place - 1 : place + 1] == "\n\n":
                depth = 0
            elif character in closing and (depth or character not in opening):
                depth = max(depth - 1, 0)
            elif character in opening:
                depth += 1
            found.append(min(depth, 1))
        return np.array(found, float)

    return feature


def _newline(text: str) -> np.ndarray:
    return np.array([c == "\n" for c in text], float)


def _position(text: str) -> np.ndarray:
    found, place = [], 0
    for character in text:
        place = 0 if character == "\n" else place + 1
        found.append(place)
    return np.array(found, float)


FEATURES: dict[str, tuple[str, str, Callable[[str], np.ndarray]]] = {
    "quote": ("1 inside double quotation marks", '"\u201c\u00ab', _inside('"\u201c\u00ab', '"\u201d\u00bb')),
    "newline": ("1 at a line end", "\n", _newline),
    "bracket": ("1 inside brackets", "([{", _inside("([{", ")]}")),
    "position": ("characters since the line began", "\n", _position),
}
"""What a unit may follow: its meaning, the characters that begin one, and the numbers for a text."""


@command(
    GROUP,
    "cells --find quote",
    option("unit", type=int, nargs="?", complete=_units),
    option("--find", choices=list(FEATURES), help="rank the units by how they follow this"),
    _LAYER,
)
def cells(session: Session, arguments: argparse.Namespace) -> View:
    """The text, coloured by one unit: tanh(c) of an LSTM, h of the others.

    The model reads on from where the window begins, further than the window.

        cells 17              the text under unit 17
        cells --find quote    which units are on inside quotation marks: the correlation of each with that,
                              over 2,000 characters; also newline, bracket, position (in the line)
    """
    layer, _ = address.layer_and_step(session, arguments.layer, None)
    if (arguments.unit is None) == (arguments.find is None):
        raise UsageError("cells: give a unit (`cells 17`) or what to look for (`cells --find quote`)")
    letter = STATES[session.model.kind][-1]
    length = STRETCH if arguments.find is None else SEARCHED
    symbols = session.symbols[session.position : session.position + length]
    read = read_states(session.model, symbols, session.state_before(session.position), session.changes)
    values = read[letter, layer]
    values = np.tanh(values) if letter == "c" else values
    text = session.decode(symbols)
    what = f"{'tanh(c)' if letter == 'c' else 'h'} of layer {layer}"
    if arguments.find is None:
        unit = _unit(session, arguments.unit)
        row = values[:, unit]
        return View(
            f"cells: unit {unit}, {what}, over {len(text)} characters",
            [Heat({str(unit): row}, text, scale="signed", high=1.0, paint=True, first=session.position)],
            {"unit": unit, "layer": layer, "values": row, "text": text},
        )
    return _found(session, arguments.find, text, values, what, layer)


def _found(session: Session, name: str, text: str, values: np.ndarray, what: str, layer: int) -> View:
    meaning, _, feature = FEATURES[name]
    before = session.decode(session.symbols[max(session.position - SEARCHED, 0) : session.position])
    wanted = feature(before + text)[len(before) :]  # a quotation may have begun before
    if wanted.std() == 0:
        raise UsageError(
            f"cells: no {name} begins or ends in these {len(text):,} characters; {_elsewhere(session, name)}"
        )
    correlations = correlation(values, wanted)
    order = np.argsort(-np.abs(correlations), kind="stable")[:8]
    rows = []
    binary = name != "position"
    for unit in map(int, order):
        column = values[:, unit]
        means = [float(column[wanted > 0].mean()), float(column[wanted == 0].mean())] if binary else []
        rows.append([unit, float(correlations[unit]), *means])
    header = ["unit", "correlation", *(["mean there", "elsewhere"] if binary else [])]
    best = int(order[0])
    begin = max(int(np.flatnonzero(wanted)[0]) // 10 * 10 - 10, 0)
    shown = slice(begin, begin + STRETCH // 2)
    maps = {f"unit {best}": values[shown, best], name: wanted[shown] / wanted.max()}
    picture: list[Block] = [
        Text(""),
        Heat(maps, text[shown], scale="signed", high=1.0, first=session.position + begin),
    ]
    return View(
        f"cells: which units of {what} follow {name} ({meaning})",
        [Table(header, rows), *picture, Facts(kept_changes(session))],
        {"find": name, "layer": layer, "correlations": correlations, "order": order},
    )


def _elsewhere(session: Session, name: str) -> str:
    """Where in the text there is one."""
    opening = FEATURES[name][1]
    wanted = [i for i in range(len(session.vocabulary)) if session.decode(np.array([i])) in opening]
    places = np.flatnonzero(np.isin(session.symbols, wanted))
    if not len(places):
        return "this text has none"
    later = places[places > session.position + SEARCHED]
    place = int((later if len(later) else places)[0])
    latest = len(session.symbols) - 1 - session.length
    return f"there is one at {place:,}: `window --at {max(min(place - session.length // 2, latest), 0)}`"


def correlation(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(H,): Pearson's correlation of each column of (N, H) with (N,); 0 for a unit that never moves."""
    centred, other = values - values.mean(axis=0), wanted - wanted.mean()
    lengths = np.linalg.norm(centred, axis=0) * np.linalg.norm(other)
    return np.where(lengths > 0, centred.T @ other / np.where(lengths > 0, lengths, 1.0), 0.0)


# --- what comes next -------------------------------------------------------------------------------


@command(
    GROUP,
    "predict",
    option(
        "step",
        type=int,
        nargs="?",
        metavar="t",
        complete=lambda s: [str(t) for t in range(s.recording.length)],
    ),
)
def predict(session: Session, arguments: argparse.Namespace) -> View:
    """The likeliest next characters at every step, and what did come.

    The rows 1 to 5 are the candidates, the likeliest first, on a ground that says how likely; `p` is the
    probability of the character that did come. `predict 20` lists the candidates of one step.
    """
    recording = session.recording
    with np.errstate(all="ignore"):
        shifted = np.exp(recording.logits - recording.logits.max(axis=1, keepdims=True))
        chances = shifted / shifted.sum(axis=1, keepdims=True)
    order = np.argsort(-chances, axis=1, kind="stable")
    right = chances[np.arange(recording.length), recording.targets]
    if arguments.step is not None:
        _, step = address.layer_and_step(session, None, arguments.step)
        return _one_step(session, step, chances[step], order[step])
    rows, drawn = {"p": right}, {}
    for rank in range(min(CANDIDATES, chances.shape[1])):
        name = str(rank + 1)
        rows[name] = np.take_along_axis(chances, order[:, rank : rank + 1], axis=1)[:, 0]
        drawn[name] = shown_text(session.decode(order[:, rank])).replace(" ", "␣")
    first = float(np.mean(order[:, 0] == recording.targets))
    facts = [
        ("mean loss", f"{number(float(recording.losses.mean()))} nats a character"),
        ("accuracy", f"{first:.0%}: how often the likeliest candidate did come"),
        ("mean p", f"{number(float(right.mean()))}, of what did come"),
        *kept_changes(session),
    ]
    if not np.isfinite(chances).all():
        facts = [("not finite", "some scores are not finite: `why nan` says why"), *kept_changes(session)]
    return View(
        "predict: above what came next, below the likeliest candidates",
        [Heat(rows, session.targets, "unit", glyphs=drawn, cuts=recording.cuts[1:]), Facts(facts)],
        {
            "probability": right,
            "candidates": [session.decode(row[:CANDIDATES]) for row in order],
            "losses": recording.losses,
        },
    )


def _one_step(session: Session, step: int, chances: np.ndarray, order: np.ndarray) -> View:
    read, target = session.text, int(session.recording.targets[step])
    listed = [int(symbol) for symbol in order[:10]]
    if target not in listed:
        listed.append(target)
    rows = []
    for symbol in listed:
        chance = float(chances[symbol])
        came = "came" if symbol == target else ""
        rows.append(
            [
                _quoted(session, symbol),
                chance,
                "#" * round(40 * chance) if math.isfinite(chance) else "not finite",
                came,
            ]
        )
    return View(
        f"predict: after {read[max(step - 20, 0) : step + 1]!r}, step {step}",
        [Table(["next", "p", "", " "], rows)],
        {
            "step": step,
            "target": session.decode(np.array([target])),
            "probabilities": chances,
        },
    )


def _quoted(session: Session, symbol: int) -> str:
    if session.vocabulary.encoding == "bytes" and symbol < len(session.vocabulary.codes):
        return repr(bytes([int(session.vocabulary.codes[symbol])]))[1:]
    return repr(session.decode(np.array([symbol])))
