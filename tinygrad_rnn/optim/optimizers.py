"""Optimisers: each turns a parameter's gradient into a step, in place.

An optimiser is its formula (`_update`, on raw arrays) and the arrays it remembers for each parameter.
Parameters without a gradient are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..engine.node import writes
from ..engine.tensor import Tensor
from ..errors import UsageError
from .fused import FusedUpdate
from .per_parameter import PerParameter


class Optimizer(PerParameter):
    """What all have in common. `lr` may be set anew before every step; `steps` counts them."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params)
        if lr < 0:
            raise UsageError(f"the learning rate must not be negative: {lr}")
        self.lr = lr

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Change every parameter by its gradient."""
        self.steps += 1
        together = self._update_all()
        for p, state in zip(self.params, self.state, strict=True):
            if p.grad is not None:
                if not together:
                    self._update(p.backend.xp, p.array, p.grad.array, state)
                writes.note(p.array)

    def _update_all(self) -> bool:
        """Do what _update() does for all parameters at once, and return True; or nothing, and False."""
        return False

    def _update(self, xp: Any, w: Any, g: Any, state: dict[str, Any]) -> None:
        """Change w by its gradient g, both of one shape; `state` has an array for each of `slots`."""
        raise NotImplementedError


class SGD(Optimizer):
    """w -= lr v,  v = momentum v + g + weight_decay w"""

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay
        self.slots = ("velocity",) if momentum else ()
        super().__init__(params, lr)

    def _update(self, xp: Any, w: Any, g: Any, state: dict[str, Any]) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * w
        if self.momentum:
            velocity = state["velocity"]
            velocity *= self.momentum
            velocity += g
            g = velocity
        w -= self.lr * g


class Adam(Optimizer):
    """w -= lr m' / (sqrt(v') + eps): running means m of the gradient and v of its square, corrected for
    their start at zero (Kingma & Ba, 2015). weight_decay is added to the gradient."""

    slots = ("mean", "square")
    decoupled = False

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        super().__init__(params, lr)
        self._fused = FusedUpdate("adam", self.slots)

    def _update_all(self) -> bool:
        beta1, beta2 = self.betas
        factors = (
            self.lr / (1 - beta1**self.steps),
            math.sqrt(1 - beta2**self.steps),
            1 - beta1,
            1 - beta2,
            self.eps,
            self.lr * self.weight_decay if self.decoupled else self.weight_decay,
        )
        return self._fused(self.params, self.state, factors, self.decoupled)

    def _update(self, xp: Any, w: Any, g: Any, state: dict[str, Any]) -> None:
        mean, square = state["mean"], state["square"]
        beta1, beta2 = self.betas
        if self.weight_decay and self.decoupled:
            w *= 1 - self.lr * self.weight_decay
        elif self.weight_decay:
            g = g + self.weight_decay * w
        mean += (1 - beta1) * (g - mean)
        square += (1 - beta2) * (g * g - square)
        scale = self.lr / (1 - beta1**self.steps)
        w -= scale * mean / (xp.sqrt(square) / math.sqrt(1 - beta2**self.steps) + self.eps)


class AdamW(Adam):
    """Adam with the weight decay apart from the gradient: w *= 1 - lr weight_decay (Loshchilov & Hutter,
    2019)."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class Adagrad(Optimizer):
    """w -= lr g / (sqrt(sum of g^2 so far) + eps) (Duchi et al., 2011)"""

    slots = ("sum_of_squares",)

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-2, eps: float = 1e-10) -> None:
        self.eps = eps
        super().__init__(params, lr)
        self._fused = FusedUpdate("adagrad", self.slots)

    def _update_all(self) -> bool:
        return self._fused(self.params, self.state, (self.lr, self.eps))

    def _update(self, xp: Any, w: Any, g: Any, state: dict[str, Any]) -> None:
        sum_of_squares = state["sum_of_squares"]
        sum_of_squares += g * g
        w -= self.lr * g / (xp.sqrt(sum_of_squares) + self.eps)


class RMSprop(Optimizer):
    """w -= lr g / (sqrt(v) + eps), v the running mean of g^2 (Tieleman & Hinton, 2012)"""

    slots = ("square",)

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8
    ) -> None:
        self.alpha, self.eps = alpha, eps
        super().__init__(params, lr)

    def _update(self, xp: Any, w: Any, g: Any, state: dict[str, Any]) -> None:
        square = state["square"]
        square += (1 - self.alpha) * (g * g - square)
        w -= self.lr * g / (xp.sqrt(square) + self.eps)


OPTIMIZERS: dict[str, type[Any]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
}


def by_name(name: str) -> type[Any]:
    """The optimiser class of that name. UsageError lists the known ones."""
    try:
        return OPTIMIZERS[name.lower()]
    except KeyError:
        raise UsageError(f"no optimiser is called {name!r}; there are {', '.join(OPTIMIZERS)}") from None
