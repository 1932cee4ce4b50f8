"""What the units do while the model reads: `gates`, `cells`, `predict`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from ..errors import UsageError
from . import address
from .command import command, option
from .recording import GATES, STATES, read_states
from .session import Session
from .view import Block, Facts, Heat, Table, Text, View, number, shown_text

GROUP = "Through time"
LOW, HIGH = 0.1, 0.9  # a gate beyond these is called shut or open (Karpathy et al., 2015)
NAMED = 5  # units that are listed
STRETCH, SEARCHED = 400, 2000  # symbols that a unit is shown over; that a unit is searched in
CANDIDATES = 5
_TANH = "gn"  # not between 0 and 1 but between -1 and 1


def _units(session: Session) -> list[str]:
    return [str(unit) for unit in range(session.model.rnn.hidden_size)]


def _layers(session: Session) -> list[str]:
    return [str(layer) for layer in range(session.recording.layers)]


_LAYER = option("--layer", type=int, metavar="L", complete=_layers, help="the last one unless given")


@command(GROUP, "gates 12", option("unit", type=int, nargs="?", complete=_units), _LAYER)
def gates(session: Session, arguments: argparse.Namespace) -> View:
    """How far each gate is open at every character: i, f, o, g of an LSTM, r, z, n of a GRU.

    Without a unit the mean over all units, and for each unit the share of the characters at which the gate
    was shut (below 0.1) or open (above 0.9): a forget gate that is open nearly always carries its cell on,
    one that is shut forgets (Karpathy et al., 2015, "Visualizing and understanding recurrent networks").

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
    layer, _ = address.layer_and_step(session, "gates of h", arguments.layer, None)
    values = {letter: recording.values(letter, layer) for letter in letters}
    between = [letter for letter in letters if letter not in _TANH]
    if arguments.unit is not None:
        return _one_unit(session, values, _unit(session, arguments.unit), layer)
    shares = {
        letter: {"low": (values[letter] < LOW).mean(axis=0), "high": (values[letter] > HIGH).mean(axis=0)}
        for letter in between
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
        for letter in between
    ]
    header = ["gate", "mean", "shut", "open", "most often shut", "most often open"]
    per_unit = {f"{letter} {side}": shares[letter][side] for letter in between for side in ("low", "high")}
    return View(
        f"gates: layer {layer}, mean over {recording.model.rnn.hidden_size} units",
        [
            _map(session, {letter: values[letter].mean(axis=1) for letter in between}, "unit"),
            _map(session, {x: values[x].mean(axis=1) for x in letters if x in _TANH}, "signed"),
            Text(""),
            Table(header, rows, spare=["most often shut", "most often open"]),
            Text(
                f"Shares of the characters at which each unit's gate was shut (< {LOW}) or open (> {HIGH}):"
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
    def feature(text: str) -> np.ndarray:
        depth, found = 0, []
        for character in text:
            if opening == closing:
                depth = 1 - depth if character in opening else depth
            else:
                depth = max(depth + (character in opening) - (character in closing), 0)
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


FEATURES: dict[str, tuple[str, Callable[[str], np.ndarray]]] = {
    "quote": ("1 inside double quotation marks, 0 outside", _inside('"', '"')),
    "newline": ("1 at a line end", _newline),
    "bracket": ("1 inside brackets", _inside("([{", ")]}")),
    "position": ("characters since the line began", _position),
}


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
    layer, _ = address.layer_and_step(session, "cells of h", arguments.layer, None)
    if (arguments.unit is None) == (arguments.find is None):
        raise UsageError("cells: give a unit (`cells 17`) or what to look for (`cells --find quote`)")
    letter = STATES[session.model.kind][-1]
    length = STRETCH if arguments.find is None else SEARCHED
    symbols = session.symbols[session.position : session.position + length]
    values = read_states(session.model, symbols, session.state_before(session.position))[letter, layer]
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
    meaning, feature = FEATURES[name]
    wanted = feature(text)
    if wanted.std() == 0:
        raise UsageError(
            f"cells: nothing to find in these {len(text):,} characters: no {name} begins or ends; "
            "another place may have one: `window --at 5000`"
        )
    correlations = correlation(values, wanted)
    order = np.argsort(-np.abs(correlations), kind="stable")[:8]
    rows = []
    for unit in map(int, order):
        column = values[:, unit]
        inside, outside = column[wanted > 0].mean(), column[wanted == 0].mean()
        rows.append([unit, float(correlations[unit]), float(inside), float(outside)])
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
        [Table(["unit", "correlation", "mean there", "elsewhere"], rows), *picture],
        {"find": name, "layer": layer, "correlations": correlations, "order": order},
    )


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
    shifted = np.exp(recording.logits - recording.logits.max(axis=1, keepdims=True))
    chances = shifted / shifted.sum(axis=1, keepdims=True)
    order = np.argsort(-chances, axis=1, kind="stable")
    right = chances[np.arange(recording.length), recording.targets]
    if arguments.step is not None:
        _, step = address.layer_and_step(session, "t", None, arguments.step)
        return _one_step(session, step, chances[step], order[step])
    rows, drawn = {"p": right}, {}
    for rank in range(min(CANDIDATES, chances.shape[1])):
        name = str(rank + 1)
        rows[name] = np.take_along_axis(chances, order[:, rank : rank + 1], axis=1)[:, 0]
        drawn[name] = shown_text(session.decode(order[:, rank]))
    first = float(np.mean(order[:, 0] == recording.targets))
    facts = [
        ("mean loss", f"{number(float(recording.losses.mean()))} nats a character"),
        ("likeliest", f"{first:.0%} of the likeliest candidates did come"),
        ("p", f"{number(float(right.mean()))} is the mean probability of what came"),
    ]
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
        rows.append([_quoted(session, symbol), chance, "#" * round(40 * chance), came])
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
    return repr(session.decode(np.array([symbol])))
