"""Normalisation: of each channel over a batch, of groups of channels, of whole layers.

They differ in what mean and variance are taken over. One op of the table does the work for all of them;
`equations` is its definition, what higher derivatives differentiate and what anomaly detection replays.
layer_norm and group_norm are this op on x in another shape, and need no derivative of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import BackendError, DtypeError, ShapeError, UsageError
from ..backend import library_of
from ..node import mode, writes
from ..op import TABLE, op
from ..tensor import DEFAULT_DTYPE, Tensor, apply, tensor
from .elementwise import sqrt
from .fused import is_compiled, normalization
from .options import integer, integers, number, said


def equations(F: Any, x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> tuple[Any, Any, Any]:
    """(x - mean) / sqrt(var + eps) * weight + bias, with mean and var over all axes but 1, and these two
    (Ioffe & Szegedy, 2015)."""
    axes = (0, *range(2, len(x.shape)))
    mean = F.mean(x, axis=axes, keepdims=True)
    var = F.var(x, axis=axes, keepdims=True)
    out = (x - mean) / F.sqrt(var + eps)
    if weight is not None:
        out = out * F.reshape(weight, mean.shape[1:])
    if bias is not None:
        out = out + F.reshape(bias, mean.shape[1:])
    return out, F.reshape(mean, mean.shape[1]), F.reshape(var, mean.shape[1])


def _kernels(xp: Any, dtype: Any) -> ModuleType:
    if is_compiled(xp, dtype):
        from .fused import compiled_normalization

        return compiled_normalization
    return normalization


def _batch_norm_vjp(
    F: Any, g: Any, out: Any, x: Any, weight: Any, bias: Any, needs: Any, residuals: Any, eps: float
) -> tuple:
    """with y = (x - mean) inverse_std and averages over the n values of a channel:
    dx = weight inverse_std (g - average(g) - y average(g y)) + (g_mean + 2 (x - mean) g_var) / n
    dweight = sum(g y)
    dbias = sum(g)
    """
    kernels, statistics = residuals
    g_out, g_mean, g_var = g
    gradients: tuple = (None, None, None)
    if g_out is not None:
        gradients = kernels.backward(F.backend.xp, g_out, x, weight, statistics, needs)
    if not needs[0] or (g_mean is None and g_var is None):
        return gradients
    dx, *others = gradients
    shape, count = _spread_shape(x), x.size // x.shape[1]
    if g_mean is not None:
        share = F.backend.xp.array(F.broadcast_to((g_mean / count).reshape(shape), x.shape))
        dx = share if dx is None else dx + share
    if g_var is not None:
        mean, rest = (values.reshape(shape) for values in statistics[:2])
        share = (x - mean - rest) * (g_var * (2 / count)).reshape(shape)
        dx = share if dx is None else dx + share
    return dx, *others


@op(
    inputs=3,
    joint=_batch_norm_vjp,
    reference=equations,
    name="batch_norm",
    saves="*",
    has_residuals=True,
    gives_away=True,
    promotes=True,
    floating=True,
)
def _normalized(xp: Any, x: Any, weight: Any, bias: Any, eps: float = 1e-5, keep: bool = True) -> Any:
    """x (N, C, ...) normalised by mean and variance over all axes but 1, times weight (C,), plus bias (C,),
    either of which may be None; then that mean and that variance (of the population), both (C,)."""
    kernels = _kernels(xp, x.dtype)
    out, var, statistics = kernels.forward(xp, x, weight, bias, eps)
    mean, rest, _ = statistics
    return (out, mean + rest, var), (kernels, statistics)


# --- what users call ------------------------------------------------------------------------------


def batch_norm(
    x: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch normalisation (Ioffe & Szegedy, 2015): (x - mean) / sqrt(var + eps) * weight + bias, a channel.

    x: (N, C) or (N, C, ...). running_mean, running_var, weight, bias: (C,) or None.
    training: mean and var are those of the batch, over all axes but 1, and the running ones move towards
    them in place, by the fraction `momentum` of the way: running_var towards the variance of a sample
    (divided by n - 1). Otherwise mean and var are the running ones, and the result is affine in x.
    eps: at least 0. With 0, which PyTorch refuses in training, a channel of equal values becomes NaN.

    Raises ShapeError for shapes that do not fit, or one value a channel in training; UsageError without
    running statistics out of training, or for such as cannot be written to in training; DtypeError for
    options that are no numbers, or running statistics that are no floats.
    """
    x, eps = _checked("batch_norm", x, eps, 2)
    channels = x.shape[1]
    for name, values in (("weight", weight), ("bias", bias)):
        _check_fits("batch_norm", x, name, values, (channels,))
    for name, values in (("running_mean", running_mean), ("running_var", running_var)):
        _check_fits("batch_norm", x, name, values, (channels,))
        _check_running(x, name, values, training)
    momentum = number("batch_norm", "momentum", momentum)
    if not math.isfinite(momentum):
        raise UsageError(f"batch_norm: momentum is a part of the way, such as 0.1, and cannot be {momentum}")
    if not training:
        if running_mean is None or running_var is None:
            raise UsageError(
                "batch_norm: out of training it needs running_mean and running_var; training=True "
                "normalises by the batch's own mean and variance"
            )
        return _by_running_statistics(x, running_mean, running_var, weight, bias, eps)
    count = math.prod(x.shape) // channels if channels else 0
    if count == 1:
        raise ShapeError(
            "batch_norm: in training it needs more than one value a channel, and x of shape "
            f"{x.shape} has one: its variance is 0, and every output would be the bias; use a larger batch, "
            "or training=False"
        )
    if not count:  # an empty batch has no statistics
        return _scaled(x, weight, bias, _spread_shape(x))
    out, mean, var = apply(TABLE["batch_norm"], (x, weight, bias), {"eps": eps})
    if not mode.repeating:
        _move(running_mean, mean.array, momentum)
        _move(running_var, var.array * (count / (count - 1)), momentum)
    return out


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer normalisation (Ba, Kiros & Hinton, 2016): each example by its own mean and variance, over the
    last axes, whose sizes are normalized_shape. weight and bias have that shape, or are None. In the graph
    it is the op batch_norm, each example a channel.

    Raises ShapeError for shapes that do not fit, UsageError for an eps below 0 (which PyTorch lets pass).
    """
    x, eps = _checked("layer_norm", x, eps, 1)
    last = integers("layer_norm", "normalized_shape", normalized_shape)
    if not last or x.shape[x.ndim - len(last) :] != last:
        raise ShapeError(f"layer_norm: normalized_shape {last} is not how the shape of x {x.shape} ends")
    _check_fits("layer_norm", x, "weight", weight, last)
    _check_fits("layer_norm", x, "bias", bias, last)
    rows = math.prod(x.shape[: x.ndim - len(last)])
    return _scaled(_normalized_rows(x, rows, eps), weight, bias, last)


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Group normalisation (Wu & He, 2018): the channels of each example in num_groups groups, each by its own
    mean and variance. x: (N, C, ...); weight, bias: (C,) or None. In the graph it is the op batch_norm, each
    group a channel.

    Raises ShapeError for shapes that do not fit, or channels that do not divide into the groups; UsageError
    for an eps below 0 (which PyTorch lets pass).
    """
    x, eps = _checked("group_norm", x, eps, 2)
    channels, num_groups = x.shape[1], integer("group_norm", "num_groups", num_groups, 1)
    if channels % num_groups:
        raise ShapeError(
            f"group_norm: {channels} channels of x of shape {x.shape} do not divide into {num_groups} groups"
        )
    _check_fits("group_norm", x, "weight", weight, (channels,))
    _check_fits("group_norm", x, "bias", bias, (channels,))
    return _scaled(_normalized_rows(x, x.shape[0] * num_groups, eps), weight, bias, _spread_shape(x))


# --- what they are made of ------------------------------------------------------------------------


def _by_running_statistics(
    x: Tensor, running_mean: Any, running_var: Any, weight: Any, bias: Any, eps: float
) -> Tensor:
    """One scale and one shift a channel, so that there are two passes over x."""
    mean, var = (_constant(values, x) for values in (running_mean, running_var))
    scale = 1 / sqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    # The graph keeps -mean, var + eps: what training writes to later is none of its arrays.
    shift = -mean * scale
    return _scaled(x, scale, shift if bias is None else shift + bias, _spread_shape(x))


def _normalized_rows(x: Tensor, rows: int, eps: float) -> Tensor:
    """x, which is that many rows one after another, each normalised: as channels of a single example."""
    if not x.size:
        return x
    flat = x.reshape(1, rows, x.size // rows)
    return apply(TABLE["batch_norm"], (flat, None, None), {"eps": eps})[0].reshape(x.shape)


def _scaled(x: Tensor, weight: Any, bias: Any, shape: tuple[int, ...]) -> Tensor:
    if weight is not None:
        x = x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _spread_shape(x: Any) -> tuple[int, ...]:
    """A shape in which values a channel broadcast to x."""
    return (x.shape[1],) + (1,) * (len(x.shape) - 2)


def _move(running: Any, towards: Any, momentum: float) -> None:
    """running += momentum (towards - running), in place."""
    if running is None:
        return
    array = running.array if isinstance(running, Tensor) else running
    array *= 1 - momentum
    array += momentum * towards
    writes.note(array)


def _constant(values: Any, x: Tensor) -> Tensor:
    values = values if isinstance(values, Tensor) else tensor(values, backend=x.backend)
    return values if values.dtype == x.dtype else values.astype(x.dtype)


def _checked(name: str, x: Any, eps: Any, least: int) -> tuple[Tensor, float]:
    """x as a tensor of floats, and eps as a Python number, which changes no dtype."""
    x = x if isinstance(x, Tensor) else tensor(x)
    if x.ndim < least:
        raise ShapeError(
            f"{name}: x must have at least {least} dimensions{', (N, C, ...)' * (least > 1)}; its shape is "
            f"{x.shape}"
        )
    eps = number(name, "eps", eps)
    if not 0 <= eps < math.inf:
        raise UsageError(f"{name}: eps is added to a variance: it must be at least 0, and cannot be {eps}")
    return x if x.dtype.kind == "f" else x.astype(DEFAULT_DTYPE), eps


def _check_fits(name: str, x: Tensor, what: str, values: Any, shape: tuple[int, ...]) -> None:
    if values is None:
        return
    if not isinstance(values, Tensor) and library_of(values) is None:
        raise DtypeError(f"{name}: {what} must be a tensor or an array of shape {shape}, not {said(values)}")
    if values.shape != shape:
        raise ShapeError(f"{name}: {what} has shape {values.shape}; x of shape {x.shape} needs {shape}")


def _check_running(x: Tensor, what: str, values: Any, training: bool) -> None:
    """That running statistics are floats, and can be written to in training."""
    if values is None:
        return
    tracked = getattr(values, "node", None) is not None
    if values.dtype.kind != "f" or tracked:
        raise DtypeError(
            f"batch_norm: {what} is written to in training: it must be floats without gradient, not "
            f"{values.dtype}{' with a gradient' * tracked}"
        )
    array = values.array if isinstance(values, Tensor) else values
    if training and isinstance(array, np.ndarray) and not array.flags.writeable:
        raise UsageError(f"batch_norm: {what} is written to in training, and is read-only: give a copy of it")
    if training and library_of(array) is not x.backend:
        raise BackendError(
            f"batch_norm: {what} is written to in training, and must be an array of {x.backend.name}, as x is"
        )
