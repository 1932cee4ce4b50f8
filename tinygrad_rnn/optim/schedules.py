"""Learning-rate schedules: what to multiply the rate by.

Most are functions from progress, 0 at the first step and 1 at the last, to a factor. `Plateau` is called like
them, but goes by the losses it is shown. `warmup` counts steps and goes with any of them: the factors are
multiplied.

    optimizer.lr = lr * warmup(step, 200) * schedule(progress)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UsageError


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def linear(progress: float, final: float = 0.0) -> float:
    """1 + (final - 1) progress: from 1 straight down to `final`."""
    return 1 + (final - 1) * _within(progress)


def cosine(progress: float, final: float = 0.0) -> float:
    """final + (1 - final) (1 + cos(pi progress)) / 2: from 1 to `final` along half a cosine, slowly, fast,
    slowly (Loshchilov & Hutter, 2017)."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * _within(progress)))


def exponential(progress: float, final: float = 0.01) -> float:
    """final^progress: from 1 to `final`, smaller by the same ratio with every step."""
    return final ** _within(progress)


def warmup(step: int, steps: int) -> float:
    """min((step + 1) / steps, 1): rises through the first `steps` steps, of which `step` counts from 0, and
    stays at 1. Adam's means are poor at first, and large steps by them do harm (Goyal et al., 2017; Liu et
    al., 2020)."""
    return min((step + 1) / steps, 1.0) if steps else 1.0


class Plateau:
    """Starts at 1, times `factor` whenever the loss has not improved for `patience` evaluations, never below
    `final`.

    Show it each validation loss with step(); one that is not finite is no improvement. PyTorch's
    ReduceLROnPlateau waits for one evaluation more than its `patience`.
    """

    def __init__(self, factor: float = 0.5, patience: int = 3, final: float = 0.0) -> None:
        if not 0 < factor < 1:
            raise UsageError(f"plateau: the factor must be between 0 and 1, not {factor}")
        if patience < 1:
            raise UsageError(f"plateau: the patience must be at least 1 evaluation, not {patience}")
        self.factor, self.patience, self.final = factor, patience, final
        self.scale = 1.0
        self.best: float | None = None
        self.waited = 0  # evaluations since the best one, or since the last change

    def __call__(self, progress: float) -> float:
        """The factor now, however far training is."""
        return self.scale

    def step(self, loss: float) -> None:
        """Take note of an evaluation."""
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited == self.patience:
            self.scale, self.waited = max(self.scale * self.factor, self.final), 0

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as numbers that JSON can hold; `best` is None before the first evaluation."""
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what state_dict() gave. UsageError, and no change, for anything else."""
        if set(state) != {"scale", "best", "waited"}:
            raise UsageError(f"plateau: a state holds scale, best and waited, not {', '.join(state)}")
        scale, best, waited = state["scale"], state["best"], state["waited"]
        if not (
            type(scale) in (int, float)
            and 0 <= scale <= 1
            and (best is None or (type(best) in (int, float) and math.isfinite(best)))
            and type(waited) is int
            and 0 <= waited < self.patience
        ):
            raise UsageError(f"plateau: no state of one with patience {self.patience}: {dict(state)}")
        self.scale, self.best, self.waited = scale, best, waited


Schedule = Callable[[float], float]
SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "cosine": lambda: cosine,
    "linear": lambda: linear,
    "exponential": lambda: exponential,
    "constant": lambda: constant,
    "plateau": Plateau,
}


def by_name(name: str) -> Schedule:
    """The schedule of that name; for "plateau" a new one. UsageError lists the known ones."""
    try:
        return SCHEDULES[name]()
    except KeyError:
        raise UsageError(f"no schedule is called {name!r}; there are {', '.join(SCHEDULES)}") from None


def _within(progress: float) -> float:
    return min(max(progress, 0.0), 1.0)
