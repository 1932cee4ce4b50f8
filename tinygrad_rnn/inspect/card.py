"""`cd`, `ls`, `up`, `down`: walking about in a graph, with a card for each node."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..engine.node import Node
from ..errors import UsageError
from . import address
from .command import command, option
from .look import share_text, statistics
from .operands import Values, called, input_names, made_at, shape_text
from .session import Session
from .view import Block, Facts, Table, Text, View

SHOWN = 6  # users, on a card
LISTED = 30  # users, by ls


# --- the commands --------------------------------------------------------------------------------


@command(
    "Look",
    "cd h[3]",
    option(
        "node",
        nargs="?",
        metavar="NAME",
        complete=address.names,
        help="h[3], a parameter, #17; none: the loss",
    ),
)
def cd(session: Session, arguments: argparse.Namespace) -> View:
    """Go to a node of the graph, and see what is there: its formula, its inputs, its value and its gradient.

    In the formula of an input's gradient g is the upstream gradient, out the result, and the inputs have
    the names that stand before their own. Statistics are of the elements that are finite.

        cd h[3]              the hidden state of the last layer after the fourth character
        cd c_l0[-1]          the cell state of the lowest layer after the last
        cd #17               the 17th node, as `graph` numbers them
        cd                   back to the loss
    """
    node = _root(session) if arguments.node is None else address.find(session, arguments.node)
    return _go(session, node)


@command("Look", "walk")
def walk(session: Session, arguments: argparse.Namespace) -> View:
    """Walk about in the graph: the card of the node that one stands at.

    `cd NAME` goes to a node, `down` to one of its inputs, `up` to one that used it, and `ls` lists both. The
    walk begins at the loss. On the card are formula, inputs, users, and statistics of value and gradient.

        walk
        cd h[3]; down; walk
    """
    return card(session, _here(session))


@command("Look", "ls")
def ls(session: Session, arguments: argparse.Namespace) -> View:
    """The inputs of the node that one stands at, for `down K`, and its users, for `up K`.

    In the order of the op's arguments, and from the first that used it to the last.
    """
    node = _here(session)
    tape = session.focus
    inputs = [
        [k, name, "constant" if parent is None else address.label(session, parent), *_op_and_shape(parent)]
        for k, (name, parent) in enumerate(_inputs(node), 1)
    ]
    users = _users(session, node)
    used = [
        [k, name, address.label(session, user), *_op_and_shape(user)]
        for k, (name, user) in enumerate(users, 1)
    ]
    blocks: list[Block] = [
        Table(["down", "as its", "node", "op", "shape"], inputs, ["shape"])
        if inputs
        else Text("no inputs: it is a leaf"),
        Table(["up", "as the user's", "node", "op", "shape"], used[:LISTED], ["shape"])
        if used
        else Text("no users: the backward pass begins here"),
    ]
    if len(used) > LISTED:
        blocks.append(Text(f"and {len(used) - LISTED} more", "dim"))
    data = {
        "number": tape.numbers[node],
        "parents": [None if parent is None else tape.numbers[parent] for parent in node.parents],
        "users": [tape.numbers[user] for _, user in users],
    }
    return View(f"Around {called(session, node)}", blocks, data)


@command(
    "Look",
    "cd h[3]; up",
    option("k", nargs="?", type=int, default=1, metavar="K", help="as `ls` numbers them"),
)
def up(session: Session, arguments: argparse.Namespace) -> View:
    """Go to a node that used this one: a step towards the loss, against the way of the gradient.

    up          to the first of them
    up 2        to the second that `ls` lists
    """
    node = _here(session)
    users = _users(session, node)
    if not users:
        raise UsageError(f"{address.label(session, node)} is where the backward pass begins; `down` goes on")
    if not 1 <= arguments.k <= len(users):
        raise UsageError(f"up {arguments.k}: {_so_many(session, node, len(users), 'user')}")
    return _go(session, users[arguments.k - 1][1])


@command("Look", "down", option("k", nargs="?", type=int, metavar="K", help="as `ls` numbers them"))
def down(session: Session, arguments: argparse.Namespace) -> View:
    """Go to an input of this node: a step on the way of the gradient, away from the loss.

    down        to the first that has a gradient
    down 2      to the second that `ls` lists
    """
    node = _here(session)
    inputs = _inputs(node)
    if not inputs:
        raise UsageError(f"{address.label(session, node)} is a leaf: nothing is below it; `up` goes back")
    if arguments.k is None:
        [first, *_] = [parent for _, parent in inputs if parent is not None]
        return _go(session, first)
    if not 1 <= arguments.k <= len(inputs):
        raise UsageError(f"down {arguments.k}: {_so_many(session, node, len(inputs), 'input')}")
    name, parent = inputs[arguments.k - 1]
    if parent is None:
        raise UsageError(
            f"down {arguments.k}: {name} needs no gradient, so it has no node; `ls` lists those that do"
        )
    return _go(session, parent)


def _so_many(session: Session, node: Node, count: int, what: str) -> str:
    return f"{address.label(session, node)} has {count} {what}{'s' if count > 1 else ''}; `ls` lists them"


def _root(session: Session) -> Node:
    return session.focus.nodes[-1]


def _here(session: Session) -> Node:
    return session.here or _root(session)


def _go(session: Session, node: Node) -> View:
    session.here = None if node is _root(session) else node
    return card(session, node)


def _inputs(node: Node) -> list[tuple[str, Node | None]]:
    """What the op calls each input, and where it comes from."""
    return list(zip(input_names(node), node.parents, strict=True))


def _users(session: Session, node: Node) -> list[tuple[str, Node]]:
    """What each user calls it, and the user."""
    return [(_inputs(user)[n][0], user) for user, n in session.focus.users.get(node, [])]


def _op_and_shape(node: Node | None) -> tuple[str, str]:
    return ("", "") if node is None else ("leaf" if node.op is None else node.op.name, shape_text(node.shape))


# --- the card of a node ---------------------------------------------------------------------------


def card(session: Session, node: Node) -> View:
    """All that is known of one node."""
    tape, op = session.focus, node.op
    value, gradient = Values(session).of(node), tape.gradients.get(node)
    facts = [("op", "leaf: where the graph begins" if op is None else f"{op.name}: {op.doc.splitlines()[0]}")]
    facts += [] if op is None else [("formula", "\n".join(op.derivative()))]
    facts += _joined("from", [f"{name} = {_called(session, parent)}" for name, parent in _inputs(node)])
    facts += _joined(
        "used by", [f"{_called(session, user)} as {name}" for name, user in _users(session, node)]
    )
    facts.append(("shape", f"{shape_text(node.shape)} of {_dtypes(node)}"))
    facts += [] if op is None else [("saved", f"{tape.saved_bytes(node):,} bytes for the way back")]
    facts += made_at(session, node)
    found = {
        "value": None if value is None else statistics(value),
        "gradient": None if gradient is None else statistics(gradient),
    }
    rows = [
        [key, *(None if one is None else _statistic(key, one[key]) for one in found.values())]
        for key in ("min", "mean", "max", "norm", "zero", "not finite")
    ]
    blocks: list[Block] = [Facts(facts), Table(["", *found], rows)]
    if value is None:
        blocks.append(Text("nobody kept its value", "dim"))
    if gradient is None:
        blocks.append(Text("no gradient reached it: `why none` says where it was lost", "dim"))
    name = f", the {node.name}" if node.name else ""
    title = f"{address.label(session, node)}{name}: node {tape.numbers[node]} of {len(tape.nodes):,}"
    data = {
        "number": tape.numbers[node],
        "label": address.label(session, node),
        "name": node.name,
        "op": None if op is None else op.name,
        "formula": [] if op is None else op.derivative(),
        "parents": [None if parent is None else tape.numbers[parent] for parent in node.parents],
        "users": [tape.numbers[user] for _, user in _users(session, node)],
        "shape": node.shape,
        "dtype": _dtypes(node),
        "saved_bytes": tape.saved_bytes(node),
        "module": node.module,
        "time_step": node.time_step,
        "value": found["value"],
        "gradient": found["gradient"],
    }
    return View(title, blocks, data)


def _joined(label: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    if not texts:
        return []
    more = [f"and {len(texts) - SHOWN} more: `ls`"] if len(texts) > SHOWN else []
    return [(label, "\n".join([*texts[:SHOWN], *more]))]


def _called(session: Session, node: Node | None) -> str:
    return "a constant" if node is None else f"{called(session, node)} {shape_text(node.shape)}"


def _dtypes(node: Node) -> str:
    return (
        ", ".join({str(dtype): None for dtype in node.dtype}) if node.outputs is not None else str(node.dtype)
    )


def _statistic(key: str, value: Any) -> Any:
    return share_text(value) if key in ("zero", "not finite") else value
