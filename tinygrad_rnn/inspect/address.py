"""What nodes are called, and the way from such a name back to the node.

h[3], c[3], f[3]     a value of the last layer at a time step; [-1] is the last step
h_l0[3]              of the layer 0
weight_hh_l0         a parameter; the end of its name will do where it is the only one
loss, logits         the end of the graph
w                    a tensor that was given this name at the prompt
#17                  the 17th node of the tape
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from ..engine.node import Node
from ..engine.tensor import Tensor
from ..errors import UsageError
from ..nn import Module
from .recording import GATES, STATES, Place, place_of
from .tape import Tape

if TYPE_CHECKING:
    from .session import Session

_PLACE = re.compile(r"([a-z])(?:_l(\d+))?\[(-?\d+)\]")


def find(session: Session, name: str) -> Node:
    """The node of that name on the tape that is looked at. UsageError says what there is instead."""
    tape = session.focus
    if name.startswith("#"):
        if not name[1:].isdecimal() or not 1 <= int(name[1:]) <= len(tape.nodes):
            raise UsageError(f"{name}: the nodes are numbered #1 to #{len(tape.nodes)}")
        return tape.nodes[int(name[1:]) - 1]
    if session.at_window and name == "loss":
        return tape.nodes[-1]
    if session.at_window and name == "logits":
        return _logits(session)
    if match := _PLACE.fullmatch(name):
        return _at_place(session, name, match[1], match[2], int(match[3]))
    own = dict(_own(session))
    if name in own:
        return _on_tape(session, name, own[name].node)
    near = _parameters_called(session, name)
    if len(near) == 1:
        return _on_tape(session, name, near[0][1].node)
    if near:
        raise UsageError(f"{name} may be any of {', '.join(key for key, _ in near)}")
    letters = ", ".join(f"{letter}[3]" for letter in STATES[session.model.kind] + GATES[session.model.kind])
    there = f"loss, logits, {letters}, a parameter" if session.at_window else "the name of a tensor"
    raise UsageError(f"there is no {name!r} here; say {there} or a number as #17")


def _parameters_called(session: Session, name: str) -> list[tuple[str, Tensor]]:
    """Those of the model whose names are `name` or end in it, from a dot on."""
    named: list[tuple[str, Tensor]] = [*session.model.named_parameters()]
    if session.model.tie_weights:
        named.append(("output.weight", session.model.output.weight))
    whole = [(key, parameter) for key, parameter in named if key == name]
    return whole or [(key, parameter) for key, parameter in named if name and key.endswith("." + name)]


def layer_and_step(session: Session, layer: int | None, step: int | None) -> tuple[int, int]:
    """Of a layer and a time step as given (None: the last), what they are. UsageError out of range."""
    layers, length = session.recording.layers, session.recording.length
    number = layers - 1 if layer is None else layer
    if not 0 <= number < layers:
        raise UsageError(f"there is no layer {number}; the layers are 0 to {layers - 1}")
    if step is None:
        return number, length - 1
    if not -length <= step < length:
        raise UsageError(f"there is no time step {step}; the time steps are 0 to {length - 1}")
    return number, step % length


def check_letter(session: Session, letter: str) -> str:
    """UsageError for a letter that this kind of network has not."""
    letters = STATES[session.model.kind] + GATES[session.model.kind]
    if letter not in letters:
        kind = session.model.kind
        article = "a" if kind == "gru" else "an"
        raise UsageError(f"{article} {kind} has no {letter!r}; it has {', '.join(letters)}")
    return letter


def label(session: Session, node: Node) -> str:
    """The shortest name that find() finds the node by."""
    tape = session.focus
    if session.at_window and node is tape.nodes[-1]:
        return "loss"
    named = _own(session) if not session.at_window else iter(())
    if node.op is None:
        named = chain(named, session.model.named_parameters())
    for name, value in named:
        if value.node is node:
            return name
    place, there = _place(node), _places(tape)
    if place is not None and len(there.nodes[place]) == 1:
        letter, layer, step = place
        return f"{letter}[{step}]" if there.layers == 1 else f"{letter}_l{layer}[{step}]"
    return f"#{tape.numbers[node]}"


def _own(session: Session) -> Iterator[tuple[str, Tensor]]:
    """The user's own tensors by their names, then the parameters of the user's networks: m.weight_hh_l0."""
    named = [(k, v) for k, v in session.namespace.items() if not k.startswith("_")]  # IPython has _, _1, ...
    yield from ((name, value) for name, value in named if isinstance(value, Tensor))
    for name, value in named:
        if isinstance(value, Module) and value is not session.model:
            yield from ((f"{name}.{key}", parameter) for key, parameter in value.named_parameters())


def _place(node: Node) -> Place | None:
    return place_of(node.name, node.module, node.time_step)


class _Places(NamedTuple):
    """The gates and states of a tape by their place (several nodes, where a network was called more than
    once), and how many layers they are of."""

    nodes: dict[Place, list[Node]]
    layers: int


_OF_TAPES: WeakKeyDictionary[Tape, _Places] = WeakKeyDictionary()


def _places(tape: Tape) -> _Places:
    if tape not in _OF_TAPES:
        found: dict[Place, list[Node]] = {}
        for node in tape.nodes:
            place = _place(node)
            if place is not None:
                found.setdefault(place, []).append(node)
        _OF_TAPES[tape] = _Places(found, 1 + max((layer for _, layer, _ in found), default=0))
    return _OF_TAPES[tape]


def names(session: Session) -> Sequence[str]:
    """Words for the Tab key: what find() takes, one of each kind."""
    if not session.at_window:
        return [name for name, value in _own(session) if value.node is not None]
    letters = STATES[session.model.kind] + GATES[session.model.kind]
    layers = range(session.recording.layers)
    places = [f"{x}[{t}]" for x in letters for t in range(session.recording.length)]
    places += [f"{x}_l{n}[{t}]" for x in letters for n in layers for t in range(session.recording.length)]
    return ["loss", "logits", *parameters(session), *places]


def parameters(session: Session) -> Sequence[str]:
    """The names of the model's parameters."""
    return [name for name, _ in session.model.named_parameters()]


def find_parameter(session: Session, name: str) -> tuple[str, Tensor]:
    """A parameter by its name or the end of it. UsageError lists them."""
    near = _parameters_called(session, name)
    if len(near) != 1:
        raise UsageError(
            f"no single parameter is called {name!r}; there are {', '.join(parameters(session))}"
        )
    return near[0]


def _at_place(session: Session, name: str, letter: str, layer: str | None, step: int) -> Node:
    if session.at_window:
        check_letter(session, letter)
        number, t = layer_and_step(session, None if layer is None else int(layer), step)
        return _on_tape(session, name, session.recording.node(letter, number, t))
    tape = session.focus
    there = _places(tape)
    number = there.layers - 1 if layer is None else int(layer)
    found = there.nodes.get((letter, number, step), [])
    if len(found) != 1:
        what = "no" if not found else f"{len(found)} times a"
        raise UsageError(f"there is {what} {name} in this graph; `graph` shows what there is")
    return found[0]


def _logits(session: Session) -> Node:
    [node] = [p for p in session.focus.nodes[-1].parents if p is not None]
    return node


def _on_tape(session: Session, name: str, node: Node | None) -> Node:
    if node is None:
        raise UsageError(f"{name} needs no gradient, so it has no node")
    if node not in session.focus.numbers:
        raise UsageError(
            f"{name} is not part of the graph that is looked at; `focus {name}` looks at its own"
        )
    return node
