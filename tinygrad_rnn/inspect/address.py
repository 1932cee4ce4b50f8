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
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..engine.node import Node
from ..engine.tensor import Tensor
from ..errors import UsageError
from .recording import GATES, LETTERS, STATES

if TYPE_CHECKING:
    from .session import Session

_PLACE = re.compile(r"([a-z])(?:_l(\d+))?\[(-?\d+)\]")


def find(session: Session, name: str) -> Node:
    """The node of that name on the tape that is looked at. UsageError says what there is instead."""
    tape = session.focus
    if name.startswith("#"):
        if not name[1:].isdigit() or not 1 <= int(name[1:]) <= len(tape.nodes):
            raise UsageError(f"{name}: the nodes are numbered #1 to #{len(tape.nodes)}")
        return tape.nodes[int(name[1:]) - 1]
    if session.at_window:
        if name == "loss":
            return tape.nodes[-1]
        if name == "logits":
            return _logits(session)
        if match := _PLACE.fullmatch(name):
            return _at_place(session, name, match[1], match[2], int(match[3]))
        named = dict(session.model.named_parameters())
        near = [key for key in named if key == name] or [key for key in named if key.endswith(name)]
        if len(near) == 1:
            return _on_tape(session, name, named[near[0]].node)
        if near:
            raise UsageError(f"{name} may be any of {', '.join(near)}")
    value = session.namespace.get(name)
    if isinstance(value, Tensor):
        return _on_tape(session, name, value.node)
    letters = ", ".join(f"{letter}[3]" for letter in STATES[session.model.kind] + GATES[session.model.kind])
    there = f"loss, logits, {letters}, a parameter" if session.at_window else "the name of a tensor"
    raise UsageError(f"there is no {name!r} here; say {there} or a number as #17")


def layer_and_step(session: Session, letter: str, layer: int | None, step: int | None) -> tuple[int, int]:
    """Of a layer and a time step as given (None: the last), what they are. UsageError out of range."""
    layers, length = session.recording.layers, session.recording.length
    number = layers - 1 if layer is None else layer
    if not 0 <= number < layers:
        raise UsageError(f"{letter}_l{number}: the layers are 0 to {layers - 1}")
    if step is None:
        return number, length - 1
    if not -length <= step < length:
        raise UsageError(f"{letter}[{step}]: the time steps are 0 to {length - 1}")
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
    if session.at_window:
        if node is tape.nodes[-1]:
            return "loss"
        for name, parameter in session.model.named_parameters():
            if parameter.node is node:
                return name
        if node.name in LETTERS and node.time_step is not None and node.module is not None:
            layer = node.module.rpartition(".l")[2]
            one = session.recording.layers == 1
            place = LETTERS[node.name] if one else f"{LETTERS[node.name]}_l{layer}"
            return f"{place}[{node.time_step}]"
    else:
        for name, value in session.namespace.items():
            if isinstance(value, Tensor) and value.node is node and not name.startswith("_"):
                return name
    return f"#{tape.numbers[node]}"


def names(session: Session) -> Sequence[str]:
    """Words for the Tab key: what find() takes, one of each kind."""
    if not session.at_window:
        named = {k: v for k, v in session.namespace.items() if not k.startswith("_")}  # IPython has _, _1, ...
        return [k for k, v in named.items() if isinstance(v, Tensor) and v.node is not None]
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
    named = dict(session.model.named_parameters())
    near = [key for key in named if key == name] or [key for key in named if key.endswith(name)]
    if len(near) != 1:
        raise UsageError(f"no single parameter is called {name!r}; there are {', '.join(named)}")
    return near[0], named[near[0]]


def _at_place(session: Session, name: str, letter: str, layer: str | None, step: int) -> Node:
    check_letter(session, letter)
    number, t = layer_and_step(session, letter, None if layer is None else int(layer), step)
    return _on_tape(session, name, session.recording.node(letter, number, t))


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
