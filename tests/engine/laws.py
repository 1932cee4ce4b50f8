"""What several test files need to state a law about derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.testing import assert_allclose

import tinygrad_rnn as tg
from tinygrad_rnn.engine.backend import NUMPY, Backend
from tinygrad_rnn.engine.op import TABLE, Op
from tinygrad_rnn.engine.tensor import Tensor

from .samples import SAMPLES, Case, leaves_of, tensors


def as_function(op: Op, case: Case, backend: Backend = NUMPY) -> tuple[Callable, list[Tensor]]:
    """An op as a function of its inputs that require a gradient, and those inputs."""
    inputs, params = tensors(case, backend)
    places = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]

    def function(*points: Tensor) -> tuple[Tensor, ...]:
        arguments = list(inputs)
        for place, point in zip(places, points, strict=True):
            arguments[place] = point
        return SAMPLES[op.name].call(op, tuple(arguments), params)

    return function, [inputs[i] for i in places]


class Derivatives(NamedTuple):
    """Host arrays; None for an input on which nothing depends."""

    values: list[np.ndarray]
    first: list[np.ndarray | None]
    second: list[np.ndarray | None]

    def all(self) -> list[np.ndarray]:
        return [*self.values, *(g for g in (*self.first, *self.second) if g is not None)]


def derivatives(name: str, case: Case, backend: Backend = NUMPY) -> Derivatives:
    """An op's values on a backend, and the first and second gradients of a weighted sum of their squares.

    (Squares, so that the upstream gradient depends on the inputs also where the op is linear.)
    """
    inputs, params = tensors(case, backend)
    outs = SAMPLES[name].call(TABLE[name], inputs, params)
    values = [out.numpy() for out in outs]
    if not TABLE[name].differentiable:
        return Derivatives(values, [], [])
    leaves = leaves_of(inputs)
    first = tg.grad(weighted_sum([o * o for o in outs]), leaves, create_graph=True, allow_unused=True)
    second = tg.grad(weighted_sum([g for g in first if g is not None]), leaves, allow_unused=True)
    return Derivatives(values, _host(first), _host(second))


def weighted_sum(terms: list[Tensor]) -> Tensor:
    """A number that tells all elements of all terms apart."""
    total: Any = 0.0
    for number, term in enumerate(terms):
        weights = np.random.default_rng(number).uniform(0.5, 1.5, term.shape).astype(term.dtype)
        total = total + (term * tg.tensor(weights, backend=term.backend)).sum()
    return total


def _host(gradients: Any) -> list[np.ndarray | None]:
    return [None if g is None else g.numpy() for g in gradients]


def assert_close(found: Any, wanted: Any, dtype: Any = "float64", roundings: int = 100) -> None:
    """Equal to within so many roundings of the largest wanted number, or of 1."""
    precision = roundings * float(np.finfo(dtype).eps)
    largest = np.abs(np.asarray(wanted, float)).max(initial=1, where=np.isfinite(wanted))
    assert_allclose(found, wanted, rtol=precision, atol=precision * largest)
