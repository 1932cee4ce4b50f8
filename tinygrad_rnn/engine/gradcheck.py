"""`gradcheck`: analytic gradients against central differences, over the full Jacobian in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import DtypeError, GradcheckError
from .tensor import Tensor, no_grad, tensor
from .walk import grad


class KinkWarning(UserWarning):
    """A function has a kink between the two points of a central difference."""


def gradcheck(
    fn: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    order: int = 1,
) -> bool:
    """Compare the gradients of `fn` with central differences, (f(x + eps) - f(x - eps)) / (2 eps).

    fn: takes the inputs, returns a tensor or a tuple of them. It must be deterministic.
    inputs: float64 tensors; those that require a gradient are checked, over the full Jacobian.
    order: 2 checks the second derivatives as well, by checking the gradient's own gradient.

    Where the slopes to the left and right differ (a kink, as of relu at 0), a KinkWarning is given, and
    the analytic value must lie between the two.

    Returns True, or raises GradcheckError naming the worst element; DtypeError for inputs not in float64.
    """
    points = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    names = [f"input {i}" for i in range(len(points))]
    _check_order(fn, points, names, None, eps, rtol, atol, order)
    return True


def _check_order(
    fn: Callable,
    points: list[Tensor],
    names: list[str],
    results: list[str] | None,
    eps: float,
    rtol: float,
    atol: float,
    order: int,
) -> None:
    """Check fn, then its gradient. `names` and `results` say in messages what the inputs and outputs are."""
    checked = [i for i, x in enumerate(points) if x.requires_grad]
    if not checked:
        raise GradcheckError("gradcheck: no input requires a gradient, so there is nothing to check")
    for i in checked:
        if points[i].dtype != np.float64:
            raise DtypeError(
                f"gradcheck needs float64: {names[i]} is {points[i].dtype}, in which differences over "
                f"{eps} are mostly rounding error"
            )
    leaves = [
        tensor(x.numpy(), requires_grad=x.requires_grad, backend=x.backend) if x.dtype.kind == "f" else x
        for x in points
    ]
    results = results or [f"output {number}" for number in range(len(_outputs(fn, leaves)))]
    for number, result in enumerate(results):
        titles = [f"{result}, {name}" for name in names]
        _check_output(fn, leaves, checked, number, titles, eps, rtol, atol)
    if order > 1:
        _check_next_order(fn, leaves, checked, names, results, eps, rtol, atol, order)


def _outputs(fn: Callable, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    outs = fn(*inputs)
    return (outs,) if isinstance(outs, Tensor) else tuple(outs)


def _check_output(
    fn: Callable,
    leaves: list[Tensor],
    checked: list[int],
    number: int,
    titles: list[str],
    eps: float,
    rtol: float,
    atol: float,
) -> None:
    out = _outputs(fn, leaves)[number]
    if out.dtype.kind != "f":
        return
    here = out.numpy()
    analytic = [np.zeros((here.size, leaves[i].size)) for i in checked]
    for row in range(here.size):
        one = np.zeros(here.shape)
        one.reshape(-1)[row] = 1.0
        if not out.requires_grad:
            break
        found = grad(
            out,
            [leaves[i] for i in checked],
            tensor(one, dtype=out.dtype, backend=out.backend),
            allow_unused=True,
            retain_graph=True,
        )
        for jacobian, gradient in zip(analytic, found, strict=True):
            if gradient is not None:
                jacobian[row] = gradient.numpy().reshape(-1)
    for i, jacobian in zip(checked, analytic, strict=True):
        _compare(fn, leaves, i, number, titles[i], here, jacobian, eps, rtol, atol)


def _compare(
    fn: Callable,
    leaves: list[Tensor],
    i: int,
    number: int,
    title: str,
    here: np.ndarray,
    analytic: np.ndarray,
    eps: float,
    rtol: float,
    atol: float,
) -> None:
    host = leaves[i].numpy()
    at = [np.zeros((here.size, host.size)) for _ in range(2)]
    for column in range(host.size):
        for side, sign in ((0, -1), (1, 1)):
            moved = host.copy()
            moved.reshape(-1)[column] += sign * eps
            there = list(leaves)
            there[i] = tensor(moved, requires_grad=True, backend=leaves[i].backend)
            value = _outputs(fn, there)[number].numpy()
            at[side][:, column] = value.reshape(-1)
    middle = here.reshape(-1, 1)
    left, right = (middle - at[0]) / eps, (at[1] - middle) / eps
    numeric = (at[1] - at[0]) / (2 * eps)
    error, tolerance, kink = judge(analytic, numeric, left, right, rtol, atol)
    if kink.any():
        column = int(np.argwhere(kink)[0][1])
        index = tuple(int(k) for k in np.unravel_index(column, host.shape))
        warnings.warn(
            f"{title}: a kink lies within {eps} of the value at index {index} ({host[index]}), slopes "
            f"{left[:, column][kink[:, column]][0]:.6g} and {right[:, column][kink[:, column]][0]:.6g}; "
            "checked only that the gradient lies between them",
            KinkWarning,
            stacklevel=6,
        )
    if error.any():
        # The worst is the one furthest beyond what is allowed, in units of what is allowed.
        worst = int(np.argmax(error / tolerance))
        row, column = divmod(worst, error.shape[1])
        a, n = analytic[row, column], numeric[row, column]
        relative = abs(a - n) / max(abs(a), abs(n), 1e-300)
        index = tuple(int(k) for k in np.unravel_index(column, host.shape))
        result = tuple(int(k) for k in np.unravel_index(row, here.shape))
        raise GradcheckError(
            f"{title}: d out{list(result)} / d in{list(index)} is {a:.10g} by the VJP and {n:.10g} "
            f"numerically, relative error {relative:.3g} ({int((error > 0).sum())} of {error.size} "
            "elements are wrong)"
        )


def judge(
    analytic: np.ndarray, numeric: np.ndarray, left: np.ndarray, right: np.ndarray, rtol: float, atol: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far each derivative is beyond what is allowed, what is allowed, and where a kink is.

    numeric: the central difference. left, right: the slopes on either side. Where these differ, between them
    the function has a kink, and the analytic derivative may be anything from the one to the other.
    """
    tolerance = atol + rtol * np.abs(numeric)
    kink = np.abs(right - left) > 1e-3 * (1 + np.maximum(np.abs(left), np.abs(right)))
    low, high = np.minimum(left, right) - tolerance, np.maximum(left, right) + tolerance
    error = np.where(
        kink,
        np.maximum(np.maximum(low - analytic, analytic - high), 0),
        np.maximum(np.abs(analytic - numeric) - tolerance, 0),
    )
    error[~np.isfinite(analytic) | ~np.isfinite(numeric)] = np.inf
    return error, tolerance, kink


def _check_next_order(
    fn: Callable,
    leaves: list[Tensor],
    checked: list[int],
    names: list[str],
    results: list[str],
    eps: float,
    rtol: float,
    atol: float,
    order: int,
) -> None:
    """Check the gradient as a function of the inputs and of the upstream gradients (arbitrary numbers)."""
    rng = np.random.default_rng(0)
    with no_grad():
        outs = _outputs(fn, leaves)
    upstream = [
        tensor(rng.uniform(0.5, 1.5, o.shape), o.dtype, o.dtype == np.float64, o.backend) for o in outs
    ]
    count = len(leaves)

    def gradient(*args: Tensor) -> tuple[Tensor, ...]:
        outs = zip(_outputs(fn, args[:count]), args[count:], strict=True)
        pairs = [(o, u) for o, u in outs if o.requires_grad]
        found = grad(
            [o for o, _ in pairs],
            [args[i] for i in checked],
            [u for _, u in pairs],
            create_graph=True,
            allow_unused=True,
        )
        return tuple(args[i] * 0 if f is None else f for i, f in zip(checked, found, strict=True))

    gradients = [f"gradient for {names[i]}" for i in checked]
    names = [*names, *(f"upstream gradient of {result}" for result in results)]
    _check_order(gradient, [*leaves, *upstream], names, gradients, eps, rtol, atol, order - 1)
