"""Dynamic evaluation: the loss of a model that goes on learning from the text it has already read.

Krause, Kahembwe, Murray & Renals, 2018, "Dynamic evaluation of neural sequence models". The text is read a
segment at a time. Its loss is counted first, and only then is the gradient of that loss used to change the
weights, so that no symbol is predicted by weights that have seen it:

    theta <- theta - lr g / (RMS_g + epsilon) + decay (theta_0 - theta) RMS_norm

g is the gradient of the segment's mean loss; RMS_g, element by element, the root of the mean square that such
gradients have on the training text; RMS_norm is RMS_g divided by its mean over all weights, and clipped at
1 / decay, beyond which a weight would be pulled further than back to what was learnt in training, theta_0.
epsilon is a part of that mean, so that the rates mean the same for gradients of any size.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.node import writes
from ..engine.tensor import enable_grad
from ..engine.walk import grad
from ..errors import DataError, DivergedError, UsageError
from ..models import detach_state
from ..text.scoring import Scored, score_window, stream

if TYPE_CHECKING:
    from ..models import CharLM

LR, DECAY, SEGMENT = 8e-4, 3e-3, 20
EPSILON = 0.1  # of the mean of RMS_g
STRETCHES, SEGMENTS = 10, 50  # of the training text, spread over it; segments in each


class DynamicEvaluation:
    """Dynamic evaluation of `model`, which stays as it is: a copy of it learns.

    training_text  symbols that the model was trained on; a few hundred segments spread over it are read
    lr, decay      rate of learning, and of forgetting what was learnt here; 0 and 0 leave the weights alone
    segment        symbols from one change of the weights to the next, and how far back the gradient flows
    """

    def __init__(
        self,
        model: CharLM,
        training_text: np.ndarray,
        lr: float = LR,
        decay: float = DECAY,
        segment: int = SEGMENT,
    ) -> None:
        for name, rate in [("learning rate", lr), ("decay", decay)]:
            if not 0 <= rate < math.inf:
                raise UsageError(f"the {name} of dynamic evaluation must be at least 0, not {rate}")
        if segment < 1:
            raise UsageError(f"a segment needs at least 1 symbol, not {segment}")
        self.model, self.lr, self.decay, self.segment = model, lr, decay, segment
        rms = _rms(model, training_text, segment)
        mean = sum(r.sum().item() for r in rms) / sum(r.size for r in rms) or 1.0
        with np.errstate(all="ignore"):  # what is too large shows in the losses
            self._steps = [lr / (r + EPSILON * mean) for r in rms]
            self._pulls = [
                p.backend.xp.minimum(r * (decay / mean), 1.0)
                for p, r in zip(model.parameters(), rms, strict=True)
            ]

    def score(self, pieces: Iterable[np.ndarray]) -> Iterator[Scored]:
        """As text.scoring.score() does, a segment at a time, by weights that learn. Each call begins anew.

        DivergedError for predictions that are not finite.
        """
        learner, count = _Learner(self.model), 0
        for inputs, targets in stream(pieces, self.segment):
            with np.errstate(all="ignore"):
                scored, gradients = learner.read(inputs, targets)
            if not np.isfinite(scored.nats).all():
                raise DivergedError(
                    f"dynamic evaluation diverged after {count:,} symbols; a smaller learning rate (it is "
                    f"{self.lr:g}) may help"
                )
            count += len(scored.symbols)
            yield scored
            with np.errstate(all="ignore"):
                self._learn(learner.parameters, gradients)

    def _learn(self, parameters: list[Any], gradients: tuple[Any, ...]) -> None:
        for parameter, start, g, step, pull in zip(
            parameters, self.model.parameters(), gradients, self._steps, self._pulls, strict=True
        ):
            theta = parameter.array
            theta += pull * (start.array - theta) - step * g.array
            writes.note(theta)


class _Learner:
    """A copy of the model without dropout, and the state it is in."""

    def __init__(self, model: CharLM) -> None:
        self._model = copy.deepcopy(model).eval()
        self.parameters = list(self._model.parameters())
        self._state: Any = None

    def read(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[Scored, tuple[Any, ...]]:
        """A segment scored, and the gradients of its mean loss."""
        with enable_grad():
            scored, losses, state = score_window(self._model, inputs, targets, self._state)
            self._state = detach_state(state)
            return scored, grad(losses.mean(), self.parameters)


def _rms(model: CharLM, text: np.ndarray, segment: int) -> list[Any]:
    """The root mean square of the gradients of segments of `text`, for each parameter an array."""
    length = min(SEGMENTS * segment + 1, len(text))
    if length < 2:
        raise DataError("dynamic evaluation needs a training text of two symbols at least")
    stretches = min(STRETCHES, len(text) // length)
    squares, count = [parameter.backend.xp.zeros_like(parameter.array) for parameter in model.parameters()], 0
    for start in np.linspace(0, len(text) - length, stretches).astype(int):
        learner = _Learner(model)
        for inputs, targets in stream([text[start : start + length]], segment):
            _, gradients = learner.read(inputs, targets)
            for square, g in zip(squares, gradients, strict=True):
                square += g.array * g.array
            count += 1
    return [p.backend.xp.sqrt(square / count) for p, square in zip(model.parameters(), squares, strict=True)]
