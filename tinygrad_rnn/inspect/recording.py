"""`Recording`: one window of text, read by a model forward and backward, with every gate at hand."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.annotate import annotate, scope, time_steps_from
from ..engine.node import Node
from ..engine.ops.elementwise import where
from ..engine.ops.loss import cross_entropy
from ..engine.ops.shape import concatenate
from ..engine.tensor import Tensor, enable_grad, no_grad, tensor
from ..models import CharLM, detach_state
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

    def applied(self, x: Tensor) -> Tensor:
        """x (B, H) with this change."""
        chosen = np.zeros(x.shape[-1], bool)
        chosen[slice(None) if self.unit is None else self.unit] = True
        if self.value is not None:
            held = np.full(x.shape, self.value, x.dtype)
            x = where(tensor(chosen, backend=x.backend), tensor(held, backend=x.backend), x)
        if self.scale is not None and x.requires_grad:
            factors = tensor(np.where(chosen, self.scale, 1.0).astype(x.dtype), backend=x.backend)
            x.register_hook(lambda gradient: gradient.detach() * factors)
        return x


class Observer:
    """Keeps the value of every node for as long as the node lives, and finds named values by their place."""

    def __init__(self, changes: Sequence[Change] = ()) -> None:
        self.values: weakref.WeakKeyDictionary[Node, Any] = weakref.WeakKeyDictionary()
        self.places: dict[Place, Tensor] = {}
        self.changes = changes

    def made(self, node: Node, out: Any) -> None:
        self.values[node] = out

    def named(self, name: str, value: Any) -> Any:
        place = current_place(name)
        if place is not None:
            for change in self.changes:
                if change.concerns(*place):
                    value = change.applied(value)
            self.places[place] = value
        return value


def current_place(name: str) -> Place | None:
    """Where in a recurrent stack a value of that name is being computed; None outside of one."""
    path, step = scope.module or "", scope.time_step
    layer = path.rpartition(".l")[2]
    if name not in LETTERS or step is None or not layer.isdigit():
        return None
    return LETTERS[name], int(layer), step


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
        self.symbols, self.targets, self.state = symbols, targets, state
        self.length = len(symbols)
        inner = range(truncate, self.length, truncate) if truncate else ()
        self.cuts = sorted({0, *inner, *(cut for cut in cuts if 0 < cut < self.length)})
        self._observer = Observer(changes)
        parts = []
        with by_equations(model), enable_grad(), annotate(self._observer, inside=True):
            for start, end in zip(self.cuts, [*self.cuts[1:], self.length], strict=True):
                with time_steps_from(start):
                    logits, state = model(symbols[start:end, None], state)
                state = detach_state(state)
                parts.append(logits)
            together = parts[0] if len(parts) == 1 else concatenate(parts, axis=0)
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

    def gradients(self, letter: str, layer: int, among: Any = None) -> np.ndarray:
        """(T, H), dL/d(letter) at each time step: zeros where none arrives. among: what gradients_of() gave,
        for another loss than that of the window."""
        found = self.tape.gradients if among is None else among
        nodes = [self.node(letter, layer, t) for t in range(self.length)]
        zero = np.zeros(self.model.rnn.hidden_size, self.logits.dtype)
        return np.array([found[n][0] if n is not None and n in found else zero for n in nodes])

    def loss_at(self, step: int) -> Tensor:
        """The loss of the prediction at that step alone, nats, in the graph of this recording."""
        target = tensor(self.targets[step : step + 1], backend=self._logits.backend)
        return cross_entropy(self._logits[step], target)

    def score_at(self, step: int) -> Tensor:
        """The score of the symbol that did come next, in the graph of this recording."""
        return self._logits[step, 0, int(self.targets[step])]

    def gradients_of(self, root: Tensor) -> dict[Node, Any]:
        """The gradient of another tensor than the loss in each node of this graph."""
        return Tape(root, self._observer.values).gradients

    def embedded(self, among: dict[Node, Any]) -> np.ndarray:
        """(T, E): the gradient in what the embedding gave for each symbol."""
        parts = [n for n in self.tape.nodes if n.op is not None and n.module == "embedding"]
        made = [np.zeros(n.shape, self.logits.dtype) if n not in among else among[n] for n in parts]
        return np.concatenate(made)[:, 0]


@contextmanager
def by_equations(model: CharLM) -> Iterator[None]:
    """In this block the recurrent layers are computed step by step, every gate a node of the graph."""
    before = model.rnn.fused
    model.rnn.fused = False
    try:
        yield
    finally:
        model.rnn.fused = before


def read_states(model: CharLM, symbols: np.ndarray, state: Any = None) -> dict[tuple[str, int], np.ndarray]:
    """(letter, layer) -> (T, H): every state and gate while the model reads (T,) symbols; nothing is recorded."""
    observer = Observer()
    with by_equations(model), no_grad(), annotate(observer):
        model(symbols[:, None], state)
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for (letter, layer, _), value in observer.places.items():
        found.setdefault((letter, layer), []).append(value.numpy()[0])
    return {place: np.array(rows) for place, rows in found.items()}
