"""Optimisers: each turns a parameter's gradient into a step, in place.

An optimiser is its formula (`_update`, on raw arrays) and the arrays it remembers for each parameter.
Parameters without a gradient are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..engine.node import writes
from ..engine.tensor import Tensor
from ..errors import ShapeError, UsageError


class Optimizer:
    """What all have in common. `lr` may be set anew before every step; `steps` counts them."""

    slots: tuple[str, ...] = ()  # names of the arrays remembered for each parameter

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        if isinstance(params, Tensor):
            raise UsageError("an optimiser takes a list of parameters, such as model.parameters()")
        self.params = list(params)
        if len({id(p) for p in self.params}) != len(self.params):
            raise UsageError("a parameter is given to the optimiser twice")
        for i, p in enumerate(self.params):
            if not isinstance(p, Tensor) or not p.is_leaf:
                raise UsageError(f"parameter {i} is no leaf tensor, so a step could not change it: {p!r}")
        if not self.params:
            raise UsageError("an optimiser needs at least one parameter")
        if lr < 0:
            raise UsageError(f"the learning rate must not be negative: {lr}")
        self.lr = lr
        self.steps = 0
        self.state: list[dict[str, Any]] = [
            {slot: p.backend.xp.zeros_like(p.array) for slot in self.slots} for p in self.params
        ]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Change every parameter by its gradient."""
        self.steps += 1
        for p, state in zip(self.params, self.state, strict=True):
            if p.grad is not None:
                self._update(p.backend.xp, p.array, p.grad.array, state)
                writes.note(p.array)

    def state_dict(self) -> dict[str, Any]:
        """What has been remembered: {"steps": int, "slots": {slot: [an array per parameter, in order]}}.

        The arrays are copies in host memory. `lr` and the other options are not in it: they are the caller's.
        """
        slots = {
            slot: [p.backend.to_host(state[slot]) for p, state in zip(self.params, self.state, strict=True)]
            for slot in self.slots
        }
        return {"steps": self.steps, "slots": slots}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what state_dict() gave, of parameters on any backend.

        UsageError for other slots, or arrays for another number of parameters; ShapeError for arrays of
        another shape or dtype. Then nothing has been changed.
        """
        if set(state) != {"steps", "slots"}:
            raise UsageError(
                f"an optimiser's state holds steps and slots, not {', '.join(state) or 'nothing'}"
            )
        steps, slots = state["steps"], state["slots"]
        if type(steps) is not int or steps < 0:
            raise UsageError(f"the steps of an optimiser are counted from 0, not {steps!r}")
        if set(slots) != set(self.slots):
            raise UsageError(
                f"this is no state of {type(self).__name__}: it remembers {', '.join(slots) or 'nothing'} "
                f"instead of {', '.join(self.slots) or 'nothing'}"
            )
        for slot, arrays in slots.items():
            if len(arrays) != len(self.params):
                raise UsageError(f"{slot} has {len(arrays)} arrays for {len(self.params)} parameters")
            for i, (p, array) in enumerate(zip(self.params, arrays, strict=True)):
                if np.shape(array) != p.shape or np.asarray(array).dtype != p.dtype:
                    raise ShapeError(
                        f"{slot} of parameter {i} is {np.asarray(array).dtype} of shape {np.shape(array)} "
                        f"instead of {p.dtype} of shape {p.shape}"
                    )
        self.steps = steps
        for slot, arrays in slots.items():
            for p, own, array in zip(self.params, self.state, arrays, strict=True):
                own[slot][...] = p.backend.from_host(np.asarray(array))

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
