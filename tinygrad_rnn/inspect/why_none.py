"""`why none X`: why `X.grad` is None, as exactly as the engine can tell.

A tensor knows what it was computed from, and nothing of what was computed from it. So what X fed is looked
for among the nodes that are still there: those of the graph that is looked at, those behind the user's
tensors, and those that were watched while the user computed them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.node import Node
from ..engine.tensor import Tensor
from . import address
from .operands import called, cut_after, input_names, norm
from .tape import behind
from .view import Block, Facts, Text, View, number

if TYPE_CHECKING:
    from .session import Session

SHOWN = 4  # names in a list


def why_none(session: Session, name: str) -> View:
    """The reason, and what to do. UsageError for a name that there is not."""
    x = _tensor(session, name)
    return _of_tensor(session, name, x) if x is not None else _of_node(session, name)


def _tensor(session: Session, name: str) -> Tensor | None:
    """The tensor of the user's or the parameter that has this name; None for what is a node only."""
    value = session.namespace.get(name)
    if isinstance(value, Tensor):
        return value
    named = dict(session.model.named_parameters())
    near = [key for key in named if key == name] or [key for key in named if key.endswith(name)]
    if len(near) == 1:
        return named[near[0]]
    return None


def _of_node(session: Session, name: str) -> View:
    node = address.find(session, name)
    if node.op is not None:
        return _no_leaf(session, name, node, 0)
    if node.grad is not None:
        return _it_is_there(name, node.grad)
    return _no_backward(session, name, node)


def _of_tensor(session: Session, name: str, x: Tensor) -> View:
    node = x.node
    if node is None:
        return _needs_none(session, name, x)
    if x.grad is not None:
        return _it_is_there(name, x.grad)
    retained = node.listeners is not None and x.output in node.listeners.retained
    if node.op is not None and not retained:
        return _no_leaf(session, name, node, x.output)
    if node in session.focus.gradients:
        return _no_backward(session, name, node)
    return _no_path(session, name, x)


# --- the reasons -----------------------------------------------------------------------------------


def _view(name: str, reason: str, text: str, facts: list[tuple[str, str]], cure: str, **data: Any) -> View:
    blocks: list[Block] = [Text(text)]
    shown = [*facts, *([("do", cure)] if cure else [])]
    if shown:
        blocks += [Text(""), Facts(shown)]
    return View(f"why none {name}: {TITLES[reason]}", blocks, {"reason": reason, "cure": cure, **data})


TITLES = {
    "there": "it is not None",
    "integers": "only floats have gradients",
    "detached": "it is cut off from its history",
    "constant": "it does not require a gradient",
    "no leaf": "it is no leaf, and was not told to retain it",
    "freed": "the graph was freed by an earlier backward()",
    "taken away": "backward() came here, and the gradient was taken away since",
    "no backward": "no backward() has come here yet",
    "unused": "nothing was computed from it",
    "no path": "the loss does not depend on it",
    "cut": "it was detached on the way to the loss",
    "truncated": "it is of another run, and the state was cut off since",
}


def _it_is_there(name: str, gradient: Tensor) -> View:
    size = norm(gradient.numpy())
    text = f"{name}.grad has the norm {number(size)}."
    if size == 0:
        text += f" It is exactly 0: `why zero {name}` says why."
    return _view(name, "there", text, [], "", norm=size)


def _needs_none(session: Session, name: str, x: Tensor) -> View:
    """Of a tensor without a node."""
    if x.dtype.kind != "f":
        text = f"It holds {x.dtype}. A gradient is for what can change a little."
        return _view(
            name, "integers", text, [], f"{name} = {name}.astype('float32'), then requires_grad = True"
        )
    for other, tensor in _named(session):
        if tensor.node is not None and _same_memory(tensor.array, x.array):
            text = f"It shares the memory of {other}, which has a history, and has none itself: detach()."
            return _view(name, "detached", text, [], f"use {other} itself", of=other)
    for node, value in session.observer.values.items():
        for part in value if isinstance(value, tuple) else (value,):
            if _same_memory(part, x.array):
                text = f"It shares the memory of what {_op(node)} computed, and has no history: detach()."
                return _view(name, "detached", text, _line(node), "do without detach()", of=_op(node))
    text = (
        "It has no node: it was made without requires_grad=True, or computed inside no_grad() or from "
        "tensors none of which requires a gradient, or its history was cut off by detach()."
    )
    return _view(
        name, "constant", text, [], f"{name}.requires_grad = True before it is used, if it is a leaf"
    )


def _no_leaf(session: Session, name: str, node: Node, output: int) -> View:
    facts = _line(node)
    gradient = session.focus.gradients.get(node)
    if gradient is not None:
        part = gradient[output] if isinstance(gradient, list) else gradient
        if part is not None:
            facts.append(("gradient", f"norm {number(norm(part))}: the tape that is looked at kept it"))
    elif node.inputs is None:
        facts.append(("graph", "freed by an earlier backward(): it has to be computed again"))
    facts += cut_after(session, node)
    text = f"{_op(node).capitalize()} made it. Only leaves, which no op made, keep their gradient unasked."
    own = isinstance(session.namespace.get(name), Tensor)
    cure = f"{name}.retain_grad() before backward()" if own else f"`cd {name}` shows it"
    return _view(name, "no leaf", text, facts, cure, op=_op(node))


def _no_backward(session: Session, name: str, node: Node) -> View:
    tape = session.focus
    root = called(session, tape.nodes[-1])
    gradient = tape.gradients[node]
    size = norm(gradient)
    found = f"the tape found the gradient, of norm {number(size)}"
    text = f"{root} depends on it, and {found}. Looking does not store it."
    leaves = [leaf for leaf in tape.nodes if leaf.op is None and leaf is not node]
    others = [called(session, leaf) for leaf in leaves if leaf.grad is not None]
    facts = []
    if others:
        shown = ", ".join(others[:SHOWN]) + (", …" if len(others) > SHOWN else "")
        facts = [("but", f"{shown} {'has' if len(others) == 1 else 'have'} one: from another backward()?")]
    return _view(name, "no backward", text, facts, f"call backward() on {root}", norm=size)


def _no_path(session: Session, name: str, x: Tensor) -> View:
    """Of a leaf, or a tensor that retains, that no gradient of the tape comes to."""
    node = x.node
    assert node is not None
    fed = _fed(session, node)
    root = called(session, session.focus.nodes[-1])
    if cut := _where_detached(session, x, fed):
        user, number_, source = cut
        where = f"{input_names(user)[number_]} of {called(session, user)}"
        used = "its numbers" if source == "X" else f"those of {source}, which was computed from it,"
        text = f"{root} used {used} as {where}, but without history: detach(), or a state that was cut off."
        return _view(name, "cut", text, _line(user), "", node=session.focus.numbers[user], source=source)
    if not fed:
        if session.at_window and node.time_step is not None:
            return _of_another_run(name, node)
        text = (
            "No node that is still there was computed from it. What is computed from its detach(), or inside "
            "no_grad(), leaves none."
        )
        return _view(name, "unused", text, [], "use it in the loss itself: no detach(), no no_grad()")
    freed = [one for one in fed if one.inputs is None]
    shown = _names_of(session, fed)
    facts = [("it fed", shown)]
    if freed:
        if _retains(x):
            text = "A backward() went through the graph before retain_grad(), and freed it."
            return _view(name, "freed", text, facts, "compute the forward pass again, then retain_grad()")
        text = "What it fed is freed, so backward() was there: zero_grad() or grad = None came after."
        return _view(name, "taken away", text, facts, "look at it before zero_grad()")
    if session.at_window and node.time_step is not None:
        return _of_another_run(name, node)
    text = f"{root} was not computed from it, and no backward() went through what was."
    return _view(name, "no path", text, facts, "call backward() on something that depends on it")


def _of_another_run(name: str, node: Node) -> View:
    text = (
        f"It belongs to another run of the model, time step {node.time_step} in {node.module}. Between "
        "windows the state is detached: that is truncated back-propagation through time."
    )
    return _view(name, "truncated", text, _line(node), "`window --truncate` sets the cuts within a window")


# --- what X fed ------------------------------------------------------------------------------------


def _named(session: Session) -> list[tuple[str, Tensor]]:
    return [(k, v) for k, v in session.namespace.items() if isinstance(v, Tensor) and not k.startswith("_")]


def _fed(session: Session, node: Node) -> list[Node]:
    """The nodes that were computed from this one, oldest first, among those that are known."""
    known = set(session.focus.nodes) | set(session.observer.values)
    for _, tensor in _named(session):
        if tensor.node is not None:
            known.update(behind(tensor.node))
    reached = {node}
    for one in sorted(known, key=lambda one: one.seq):
        if not reached.isdisjoint(one.parents):
            reached.add(one)
    return sorted(reached - {node}, key=lambda one: one.seq)


def _where_detached(session: Session, x: Tensor, fed: list[Node]) -> tuple[Node, int, str] | None:
    """A node of the tape that used, as a constant, the very numbers of X or of something that it fed: the
    node, the number of its input, and whose numbers they are."""
    sources: list[tuple[str, Any]] = [("X", x.array)]
    reached = {x.node, *fed}
    for name, tensor in _named(session):
        if tensor.node in reached:
            sources.append((name, tensor.array))
    for node, value in session.observer.values.items():
        if node in reached:
            sources += [(_op(node), part) for part in (value if isinstance(value, tuple) else (value,))]
    for node in session.focus.nodes:
        for number_, parent in enumerate(node.parents):
            saved = node.inputs[number_] if parent is None and node.inputs is not None else None
            for name, array in sources:
                if saved is not None and _same_memory(array, saved):
                    return node, number_, name
    return None


def _same_memory(a: Any, b: Any) -> bool:
    """Whether two arrays are the same numbers in memory, or one a part of the other."""
    if a is b:
        return True
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and bool(np.may_share_memory(a, b))


def _names_of(session: Session, fed: list[Node]) -> str:
    names = [name for name, tensor in _named(session) if tensor.node in fed]
    shown = names or [_op(node) for node in fed]
    return ", ".join(shown[:SHOWN]) + (", …" if len(shown) > SHOWN else "")


def _retains(x: Tensor) -> bool:
    return x.node is not None and x.node.op is not None


def _op(node: Node) -> str:
    return "a leaf" if node.op is None else node.op.name


def _line(node: Node) -> list[tuple[str, str]]:
    return [("made at", node.location.rpartition("/")[2])] if node.location else []
