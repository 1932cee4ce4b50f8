"""When numbers stop being numbers: what is said of it, and where it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..engine.annotate import detect_anomaly
from ..engine.tensor import Tensor
from ..errors import AnomalyError


class DivergenceError(Exception):
    """A loss, gradient or weight that is not finite, or so large that nothing comes back from there.

    Between the parts of the trainer only: it skips, rewinds or raises DivergedError.
    """


def finite(value: float, what: str) -> float:
    """`value`, unless it is NaN or infinite."""
    if not math.isfinite(value):
        raise DivergenceError(f"{what} is {value}")
    return value


def check_arrays(named: Iterable[tuple[str, np.ndarray]]) -> None:
    """DivergenceError names the first array in which something is not finite."""
    for name, array in named:
        for extreme in (array.max(), array.min()):  # both are NaN if one element is
            finite(float(extreme), name)


def check_weights(named: Iterable[tuple[str, Tensor]]) -> None:
    """DivergenceError names the first weight that is not finite."""
    check_arrays((f"the weight {name}", parameter.numpy()) for name, parameter in named)


def worst_weight(named: Sequence[tuple[str, Tensor]]) -> str:
    """The first weight that is not finite, or such as "the weights reach 2.1e+09, in output.weight"."""
    try:
        check_weights(named)
    except DivergenceError as error:
        return str(error)
    size, name = max((float(np.abs(parameter.numpy()).max()), name) for name, parameter in named)
    return f"the weights reach {size:.3g}, in {name}"


def cause(named: Sequence[tuple[str, Tensor]], compute_again: Callable[[], object]) -> str:
    """Where it came from, in a few words: a weight, the op that a second, watched computation of the step
    names, or a gradient; of a loss that is finite and absurd the largest weight; empty if none of them tells.
    """
    try:
        check_weights(named)
        with detect_anomaly():
            compute_again()
    except AnomalyError as error:
        return _place(error)
    except DivergenceError as error:
        return worst_weight(named) if "the loss" in str(error) else str(error)
    for name, parameter in named:
        if parameter.grad is not None and not np.isfinite(parameter.grad.numpy()).all():
            return f"the gradient of {name}"
    return ""


def _place(anomaly: AnomalyError) -> str:
    """Such as "matmul gives nan, module rnn, time step 3"."""
    seen = vars(anomaly)
    where = [f"{seen['op']} gives {seen['value']}"]
    if seen["module"]:
        where.append(f"module {seen['module']}")
    if seen["time_step"] is not None:
        where.append(f"time step {seen['time_step']}")
    return ", ".join(where)
