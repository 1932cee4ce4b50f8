"""The loss of a window computed apart from the inspector, step by step by the fast kernels, and with any
parameter changed for one step alone: what derivatives are measured from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn.inspect import Session


def losses(session: Session, step: int = -1, name: str = "", change: np.ndarray | None = None) -> np.ndarray:
    """(T,), nats; with `change` added to the parameter `name` while the model reads the symbol at `step`."""
    recording, model = session.recording, session.model
    parameter = dict(model.named_parameters()).get(name)
    state, found = recording.state, []
    for t in range(recording.length):
        held = None
        if t == step and parameter is not None:
            held, parameter.array = parameter.array, parameter.array + change
        with tg.no_grad():
            scores, state = model(recording.symbols[t : t + 1, None], state)
            loss = tg.cross_entropy(scores[0], tg.tensor(recording.targets[t : t + 1]))
        if held is not None:
            parameter.array = held  # type: ignore[union-attr]
        found.append(loss.item())
    return np.array(found)


def slope(function: Callable[[float], float], eps: float = 1e-6) -> float:
    """The derivative at 0, by a central difference."""
    return (function(eps) - function(-eps)) / (2 * eps)
