"""Dynamic evaluation: the loss of a model that goes on learning from the text it has already read.

Krause, Kahembwe, Murray & Renals, 2018, "Dynamic evaluation of neural sequence models". The text is read a
segment at a time. Its loss is counted first, and only then is the gradient of that loss used to change the
weights, so that no symbol is predicted by weights that have seen it:

    theta <- theta - lr / E g / (RMS_g + epsilon) + decay (theta_0 - theta) RMS_norm

g is the gradient of the segment's mean loss; RMS_g, element by element, the root of the mean square that such
gradients have on the training text; RMS_norm is RMS_g divided by its mean over all weights, and clipped at
1 / decay, beyond which a weight would be pulled further than back to what was learnt in training, theta_0.
epsilon is a part of that mean.

E is not in the paper. It is the sum of RMS_g^2 / (RMS_g + epsilon) over all weights: what a step with lr = E
would take, to first order, off the loss of a segment of the training text. Divided by it, lr is in nats, and
suits models of any size and segments of any length about equally well.

Which lr is best still depends on model and text, and must not be tuned on the text whose loss is reported.
So learners of several rates race. What counts for a segment is the loss of the one that has done best on all
segments before it (Dawid, 1984, "Statistical theory: the prequential approach"). One of the rates is 0, the
model as it was trained: on a text that teaches nothing, the race loses the few nats that changes of the lead
cost.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.node import writes
from ..engine.tensor import enable_grad, no_grad
from ..engine.walk import grad
from ..errors import DataError, DivergedError, UsageError
from ..models import detach_state
from ..text.scoring import Scored, score_window, stream

if TYPE_CHECKING:
    from ..models import CharLM

RATES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # that race, if none is given
LAG = 50.0  # nats behind the leader at which a learner gives up: its odds are e^-50
DECAY, SEGMENT = 1e-3, 50  # like RATES, chosen on tiny Shakespeare; segments of 20 gain 0.005 nats
EPSILON = 0.1  # of the mean of RMS_g
STRETCHES, SEGMENTS = 10, 10  # of the training text, spread over it; segments in each


class DynamicEvaluation:
    """Dynamic evaluation of `model`, which stays as it is: copies of it learn.

    training_text  symbols that the model was trained on; a hundred segments spread over it are read
    lr             rate of learning, see above; None lets RATES race
    decay          rate of forgetting what was learnt here; with lr 0 the weights stay as they are
    segment        symbols from one change of the weights to the next, and how far back the gradient flows

    After score(), or as far as it has come:

    leader         the rate that is ahead
    read           rate -> how many symbols its learner has read
    """

    def __init__(
        self,
        model: CharLM,
        training_text: np.ndarray,
        lr: float | None = None,
        decay: float = DECAY,
        segment: int = SEGMENT,
    ) -> None:
        for name, rate in [("learning rate", lr or 0.0), ("decay", decay)]:
            if not 0 <= rate < math.inf:
                raise UsageError(f"the {name} of dynamic evaluation must be at least 0, not {rate}")
        if segment < 1:
            raise UsageError(f"a segment needs at least 1 symbol, not {segment}")
        self.model, self.decay, self.segment = model, decay, segment
        self.rates = RATES if lr is None else (lr,)
        self.leader, self.read = min(self.rates), dict.fromkeys(self.rates, 0)
        rms = _rms(model, training_text, segment)
        mean = sum(r.sum().item() for r in rms) / sum(r.size for r in rms) or 1.0
        decrease = sum((r * r / (r + EPSILON * mean)).sum().item() for r in rms) or 1.0
        with np.errstate(all="ignore"):  # what is too large shows in the losses
            self._scales = [1 / (decrease * (r + EPSILON * mean)) for r in rms]
            self._pulls = [
                p.backend.xp.minimum(r * (decay / mean), 1.0)
                for p, r in zip(model.parameters(), rms, strict=True)
            ]

    def score(self, pieces: Iterable[np.ndarray]) -> Iterator[Scored]:
        """As text.scoring.score() does, a segment at a time, by weights that learn. Each call begins anew.

        DivergedError for predictions that are not finite.
        """
        learners = [_Learner(self.model, rate) for rate in self.rates]
        self.leader, self.read = self.rates[0], dict.fromkeys(self.rates, 0)
        for inputs, targets in stream(pieces, self.segment):
            scored = [self._read(learner, inputs, targets) for learner in learners]
            # The leader's losses; should it diverge, those of the best one that does not.
            nats = scored[-1].nats
            for better in reversed(scored[:-1]):
                nats = np.where(np.isfinite(better.nats), better.nats, nats)
            if not np.isfinite(nats).all():
                raise DivergedError(
                    f"dynamic evaluation diverged after {self.read[self.leader]:,} symbols; a smaller "
                    f"learning rate (it is {self.leader:g}) may help"
                )
            for learner in learners:
                self.read[learner.rate] += len(nats)
            learners.sort(key=lambda learner: (learner.nats, learner.rate))
            furthest = learners[0].nats + LAG
            learners = [learner for learner in learners if learner.nats <= furthest or learner.rate == 0]
            self.leader = learners[0].rate
            yield dataclasses.replace(scored[0], nats=nats)

    def _read(self, learner: _Learner, inputs: np.ndarray, targets: np.ndarray) -> Scored:
        """A segment scored, and only then learnt from."""
        with np.errstate(all="ignore"), enable_grad() if learner.rate else no_grad():
            scored, loss = learner.score(inputs, targets)
            total = learner.nats + scored.nats.sum()
            learner.nats = total if np.isfinite(total) else math.inf
            if learner.rate:
                self._learn(learner, grad(loss, learner.parameters))
        return scored

    def _learn(self, learner: _Learner, gradients: tuple[Any, ...]) -> None:
        for parameter, start, g, scale, pull in zip(
            learner.parameters, self.model.parameters(), gradients, self._scales, self._pulls, strict=True
        ):
            theta = parameter.array
            theta += pull * (start.array - theta) - learner.rate * scale * g.array
            writes.note(theta)


class _Learner:
    """A copy of the model without dropout, the state it is in, and the total of its losses."""

    def __init__(self, model: CharLM, rate: float = 0.0) -> None:
        self._model = copy.deepcopy(model).eval()
        self.parameters = list(self._model.parameters())
        self.rate, self.nats = rate, 0.0
        self._state: Any = None

    def score(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[Scored, Any]:
        """A segment scored, and its mean loss, to be differentiated."""
        scored, losses, state = score_window(self._model, inputs, targets, self._state)
        self._state = detach_state(state)
        return scored, losses.mean()


def _rms(model: CharLM, text: np.ndarray, segment: int) -> list[Any]:
    """The root mean square of the gradients of segments of `text`, for each parameter an array."""
    length = min(SEGMENTS * segment + 1, len(text))
    if length < 2:
        raise DataError("dynamic evaluation needs a training text of two symbols at least")
    stretches = min(STRETCHES, len(text) // length)
    squares, count = [parameter.backend.xp.zeros_like(parameter.array) for parameter in model.parameters()], 0
    for start in np.linspace(0, len(text) - length, stretches).astype(int):
        reader = _Learner(model)
        for inputs, targets in stream([text[start : start + length]], segment):
            with enable_grad():
                gradients = grad(reader.score(inputs, targets)[1], reader.parameters)
            for square, g in zip(squares, gradients, strict=True):
                square += g.array * g.array
            count += 1
    return [p.backend.xp.sqrt(square / count) for p, square in zip(model.parameters(), squares, strict=True)]
