"""`Recording`: one window of text, read by a model forward and backward, with every gate at hand."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ..engine.annotate import annotate, scope, time_steps_from
from ..engine.node import Node
from ..engine.op import TABLE
from ..engine.ops.elementwise import where
from ..engine.ops.loss import cross_entropy
from ..engine.ops.shape import concatenate
from ..engine.tensor import Tensor, apply, enable_grad, no_grad, tensor
from ..engine.walk import grad
from ..models import CharLM, detach_state
from ..nn.recurrent import Stack
from ..text.sampling import repeated
from .tape import Tape, on_host

LETTERS = {
    "hidden state": "h",
    "cell state": "c",
    "input gate": "i",
    "forget gate": "f",
    "cell candidate": "g",
    "output gate": "o",
    "reset gate": "r",
    "update gate": "z",
    "candidate": "n",
}
"""What the equations call a value -> the letter it has in a lecture, and in every view."""

STATES = {"lstm": "hc", "gru": "h", "rnn": "h"}
GATES = {"lstm": "ifog", "gru": "rzn", "rnn": ""}

Place = tuple[str, int, int]  # letter, layer, time step


@dataclass(frozen=True)
class Change:
    """An intervention: what if this gate were open, this gradient half as large?

    letter   whose value or gradient is changed
    layer, steps, unit   where; None: everywhere
    value    what the value is held at, or None
    scale    what its gradient is multiplied by, or None
    """

    letter: str
    layer: int | None = None
    steps: range | None = None
    unit: int | None = None
    value: float | None = None
    scale: float | None = None

    def concerns(self, letter: str, layer: int, step: int) -> bool:
        return (
            letter == self.letter
            and (self.layer is None or layer == self.layer)
            and (self.steps is None or step in self.steps)
        )

    def chosen(self, x: Tensor) -> np.ndarray:
        """(H,): which units of x (B, H) are changed. They are numbered within a layer."""
        chosen = np.zeros(x.shape[-1], bool)
        chosen[slice(None) if self.unit is None else self.unit] = True
        return chosen

    def held(self, x: Tensor) -> Tensor:
        """x (B, H) with these units held at the value, through which no gradient goes back."""
        if self.value is None:
            return x
        held = np.full(x.shape, self.value, x.dtype)
        chosen = tensor(self.chosen(x), backend=x.backend)
        return where(chosen, tensor(held, backend=x.backend), x)

    def scaled(self, x: Tensor) -> Tensor:
        """x (B, H) itself, but the gradient that comes back through what is returned is scaled on arrival."""
        if self.scale is None or not x.requires_grad:
            return x
        through = apply(TABLE["identity"], (x,))
        through.node.noted().name = f"gradient times {self.scale:g}"
        factors = np.where(self.chosen(x), self.scale, 1.0).astype(x.dtype)
        scale = tensor(factors, backend=x.backend)
        through.register_hook(lambda gradient: gradient.detach() * scale)
        return through


class Observer:
    """Keeps the value of every node for as long as the node lives, and finds named values by their place."""

    def __init__(self, changes: Sequence[Change] = ()) -> None:
        self.values: weakref.WeakKeyDictionary[Node, Any] = weakref.WeakKeyDictionary()
        self.places: dict[Place, Tensor] = {}
        self.changes = changes

    def made(self, node: Node, out: Any) -> None:
        self.values[node] = out

    def named(self, name: str, value: Any) -> Any:
        place = place_of(name, scope.module, scope.time_step)
        if place is not None:
            changes = [change for change in self.changes if change.concerns(*place)]
            computed = value
            for change in changes:
                value = change.held(value)
            if value is not computed and computed.node is not None:  # it is what the name stands for now
                computed.node.noted().name, value.node.noted().name = None, name
            # What is looked at lies behind the scaling: its gradient is the scaled one.
            self.places[place] = value
            for change in changes:
                value = change.scaled(value)
        return value


def place_of(name: str | None, module: str | None, time_step: int | None) -> Place | None:
    """Where in a recurrent stack a value of that name is computed; None for what is no gate and no state."""
    layer = (module or "").rpartition(".l")[2]
    if name not in LETTERS or time_step is None or not layer.isdecimal():
        return None
    return LETTERS[name], int(layer), time_step


class Recording:
    """`model` reading `symbols` (T,), predicting `targets` (T,), by its equations, forward and backward.

    state      before the first symbol, as the model takes it; None for zeros
    truncate   the state is cut off from its history every so many steps
    changes    interventions

    tape       of the loss: every node, its value, its gradient
    logits     (T, V)
    losses     (T,), nats: what the mean in the loss is of
    cuts       time steps that no gradient goes back from
    """

    @np.errstate(all="ignore")  # what is not finite is there to be looked at
    def __init__(
        self,
        model: CharLM,
        symbols: np.ndarray,
        targets: np.ndarray,
        state: Any = None,
        truncate: int | None = None,
        changes: Sequence[Change] = (),
        cuts: Sequence[int] = (),
    ) -> None:
        self.model, self.kind, self.layers = model, model.kind, model.rnn.num_layers
        self.symbols, self.targets, self.state, self.changes = symbols, targets, state, changes
        self.length = len(symbols)
        inner = range(truncate, self.length, truncate) if truncate else ()
        self.cuts = sorted({0, *inner, *(cut for cut in cuts if 0 < cut < self.length)})
        self._observer = Observer(changes)
        with by_equations(), enable_grad(), annotate(self._observer, inside=True):
            together = _read(model, symbols[:, None], state, self.cuts)
            self.loss = cross_entropy(together, tensor(targets[:, None], backend=together.backend))
        self._logits = together
        self.logits = on_host(together.node, together.array)[:, 0]  # type: ignore[arg-type]
        values = self._observer.values
        for _, parameter in model.named_parameters():
            if parameter.node is not None:
                values[parameter.node] = parameter.array
        self.tape = Tape(self.loss, values)
        shifted = self.logits - self.logits.max(axis=1, keepdims=True)
        self.losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(self.length), targets]

    # --- what is where ---------------------------------------------------------------------------

    def tensor(self, letter: str, layer: int, step: int) -> Tensor:
        """KeyError where there is none."""
        return self._observer.places[letter, layer, step]

    def node(self, letter: str, layer: int, step: int) -> Node | None:
        """Of h at step 3: tape.nodes knows it. None for a value that is held and so needs no gradient."""
        return self.tensor(letter, layer, step).node

    def values(self, letter: str, layer: int) -> np.ndarray:
        """(T, H)"""
        places = (self.tensor(letter, layer, t) for t in range(self.length))
        return np.array([x.numpy()[0] for x in places])

    def start(self, letter: str, layer: int) -> np.ndarray:
        """(H,): h or c of a layer before the first step."""
        if self.state is None:
            return np.zeros(self.model.rnn.hidden_size, self.logits.dtype)
        states = self.state if isinstance(self.state, tuple) else (self.state,)
        return states[STATES[self.kind].index(letter)].numpy()[layer, 0]

    def inputs(self, layer: int) -> np.ndarray:
        """(T, D): what a layer reads at each step: embeddings, or the outputs of the layer below."""
        if layer:
            return self.values("h", layer - 1)
        return self.model.embedding.weight.numpy()[self.symbols]

    def gradients(self, letter: str, layer: int, among: Any = None) -> np.ndarray:
        """(T, H), dL/d(letter) at each time step: zeros where none arrives. among: what gradients_of() gave,
        for another loss than that of the window."""
        found = self.tape.gradients if among is None else among
        nodes = [self.node(letter, layer, t) for t in range(self.length)]
        zero = np.zeros(self.model.rnn.hidden_size, self.logits.dtype)
        return np.array([found[n][0] if n is not None and n in found else zero for n in nodes])

    @np.errstate(all="ignore")  # what is not finite is there to be looked at
    def loss_at(self, step: int) -> Tensor:
        """The loss of the prediction at that step alone, nats, in the graph of this recording."""
        target = tensor(self.targets[step : step + 1], backend=self._logits.backend)
        return cross_entropy(self._logits[step], target)

    @np.errstate(all="ignore")  # what is not finite is there to be looked at
    def gradients_of(self, root: Tensor) -> dict[Node, Any]:
        """The gradient of another tensor than the loss in each h and c, and in what the embedding gave."""
        states = [x.node for (letter, *_), x in self._observer.places.items() if letter in "hc"]
        nodes = [node for node in [*states, *self._embeddings()] if node is not None]
        places = [Tensor(None, node, 0, node.backend) for node in nodes]
        found = grad(root, places, allow_unused=True, retain_graph=True)
        return {node: g.numpy() for node, g in zip(nodes, found, strict=True) if g is not None}

    def embedded(self, among: dict[Node, Any]) -> np.ndarray:
        """(T, E): the gradient in what the embedding gave for each symbol."""
        zeros = (np.zeros(node.shape, self.logits.dtype) for node in self._embeddings())
        parts = [among.get(node, zero) for node, zero in zip(self._embeddings(), zeros, strict=True)]
        return np.concatenate(parts)[:, 0]

    def _embeddings(self) -> list[Node]:
        """Of what the embedding gave, one for each part of the window."""
        return [n for n in self.tape.nodes if n.op is not None and n.module == "embedding"]


def _read(model: CharLM, symbols: np.ndarray, state: Any, cuts: Sequence[int]) -> Tensor:
    """(T, B, V), the scores after each of (T, B) symbols; the state is cut off from its history at `cuts`."""
    parts = []
    for start, end in zip(cuts, [*cuts[1:], len(symbols)], strict=True):
        with time_steps_from(start):
            logits, state = model(symbols[start:end], state)
        state = detach_state(state)
        parts.append(logits)
    return parts[0] if len(parts) == 1 else concatenate(parts, axis=0)


@np.errstate(all="ignore")  # what is not finite is there to be looked at
def triangle(recording: Recording, sources: Sequence[int] | np.ndarray, layer: int) -> dict[str, np.ndarray]:
    """letter -> (K, T, H): the gradient of the loss at each step of `sources` in the states of a layer.

    One backward pass: the window is read K times side by side, and from each only one prediction counts.
    """
    K, observer = len(sources), Observer(recording.changes)
    symbols = np.repeat(recording.symbols[:, None], K, axis=1)
    state = repeated(recording.state, np.zeros(K, int))
    with by_equations(), enable_grad(), annotate(observer):
        logits = _read(recording.model, symbols, state, recording.cuts)
        chosen = logits[np.array(sources), np.arange(K)]
        targets = tensor(recording.targets[list(sources)], backend=chosen.backend)
        loss = cross_entropy(chosen, targets, reduction="sum")
    letters = STATES[recording.kind]
    places = [*product(letters, range(recording.length))]
    wanted = [observer.places[letter, layer, t] for letter, t in places]
    shape = (recording.length, K, recording.model.rnn.hidden_size)
    gradients = {letter: np.zeros(shape, recording.logits.dtype) for letter in letters}
    for (letter, t), found in zip(places, grad(loss, wanted, allow_unused=True), strict=True):
        if found is not None:
            gradients[letter][t] = found.numpy()
    return {letter: rows.swapaxes(0, 1) for letter, rows in gradients.items()}


@contextmanager
def by_equations() -> Iterator[None]:
    """In this block recurrent layers are computed step by step, every gate a node of the graph."""
    before = Stack.fused
    Stack.fused = False
    try:
        yield
    finally:
        Stack.fused = before


@np.errstate(all="ignore")  # what is not finite is there to be looked at
def read_states(
    model: CharLM, symbols: np.ndarray, state: Any = None, changes: Sequence[Change] = ()
) -> dict[tuple[str, int], np.ndarray]:
    """(letter, layer) -> (T, H): every state and gate while the model reads (T,) symbols."""
    observer = Observer(changes)
    with by_equations(), no_grad(), annotate(observer):
        model(symbols[:, None], state)
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for (letter, layer, _), value in observer.places.items():
        found.setdefault((letter, layer), []).append(value.numpy()[0])
    return {place: np.array(rows) for place, rows in found.items()}
