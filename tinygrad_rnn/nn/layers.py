"""Layers without memory: Linear, Embedding, Dropout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..engine.ops.elementwise import dropout
from ..engine.ops.indexing import take
from ..engine.random import generator
from ..engine.tensor import DEFAULT_DTYPE, Tensor, no_grad, tensor
from ..errors import DataError
from .module import Module, Parameter


def uniform(bound: float, *shape: int) -> Parameter:
    """A parameter drawn uniformly from -bound..bound."""
    return Parameter(generator().uniform(-bound, bound, shape).astype(DEFAULT_DTYPE))


def kaiming_normal_(weight: Tensor) -> None:
    """Draw the weight of a Linear, Conv1d or Conv2d anew: normal, of variance 2 / (inputs of an output). It
    keeps the size of activations from layer to layer, where ReLUs halve their mean square (He et al., 2015,
    "Delving deep into rectifiers")."""
    fan_in = weight.size // weight.shape[0]
    _overwrite(weight, math.sqrt(2 / fan_in) * generator().standard_normal(weight.shape))


def fan_in_uniform_(weight: Tensor) -> None:
    """Draw the weight of a Linear, Conv1d or Conv2d anew as it starts: uniform within 1 / sqrt(inputs of an
    output), PyTorch's default. With ReLUs between, each layer leaves a sixth of their mean square."""
    bound = math.sqrt(weight.shape[0] / weight.size)
    _overwrite(weight, generator().uniform(-bound, bound, weight.shape))


def _overwrite(weight: Tensor, drawn: np.ndarray) -> None:
    with no_grad():
        weight.copy_(tensor(drawn, dtype=weight.dtype, backend=weight.backend))


class Linear(Module):
    """x W^T + b: (..., in_features) -> (..., out_features).

    weight (out_features, in_features) and bias (out_features,) start uniform within
    1 / sqrt(in_features), as in PyTorch.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = uniform(bound, out_features, in_features)
        self.bias = uniform(bound, out_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        product = x @ self.weight.T
        return product if self.bias is None else product + self.bias

    def _describe(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"


class Embedding(Module):
    """A learnt vector for each symbol: integers (...) -> (..., embedding_dim).

    weight (num_embeddings, embedding_dim) starts standard normal. Raises DataError for a symbol outside
    0..num_embeddings-1.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = Parameter(
            generator().standard_normal((num_embeddings, embedding_dim)).astype(DEFAULT_DTYPE)
        )

    def forward(self, symbols: Any) -> Tensor:
        array = symbols.array if isinstance(symbols, Tensor) else np.asarray(symbols)
        if array.size:
            low, high = int(array.min().item()), int(array.max().item())
            if low < 0 or high >= self.weight.shape[0]:
                raise DataError(
                    f"symbol {low if low < 0 else high} is outside the table of {self.weight.shape[0]} "
                    "embeddings"
                )
        return take(self.weight, symbols if isinstance(symbols, Tensor) else array, axis=0)

    def _describe(self) -> str:
        return f"{self.weight.shape[0]} -> {self.weight.shape[1]}"


class Dropout(Module):
    """In training, zero each element with probability p and scale the others by 1 / (1 - p).

    variational: what is zeroed in one time step of an input (T, B, features) is so in all of them, and each
    call draws anew (Gal & Ghahramani, 2016, "A theoretically grounded application of dropout in recurrent
    neural networks").
    """

    def __init__(self, p: float = 0.5, variational: bool = False) -> None:
        self.p, self.variational = p, variational

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training, shared_axis=0 if self.variational else None)

    def _describe(self) -> str:
        return f"p={self.p}" + (", variational" if self.variational else "")
