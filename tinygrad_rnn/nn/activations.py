"""Layers that learn nothing, for networks composed of modules: ReLU, Flatten, Identity."""

from __future__ import annotations

import math

from ..engine.ops.elementwise import relu
from ..engine.ops.shape import reshape
from ..engine.tensor import Tensor
from .module import Module


class ReLU(Module):
    """max(x, 0), of any shape; see tg.relu."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)


class Flatten(Module):
    """(N, ...) -> (N, features): all axes but the first become one."""

    def forward(self, x: Tensor) -> Tensor:
        return reshape(x, (x.shape[0], math.prod(x.shape[1:])))


class Identity(Module):
    """x itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x
