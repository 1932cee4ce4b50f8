"""Losses, each one op from raw scores (logits): exact also where probabilities would round to 0 or 1.

`reduction` is "mean", "sum" or "none" (a loss for each element).
"""

from __future__ import annotations

import math
from typing import Any

from ...errors import DataError, DtypeError, ShapeError
from ..op import op


def _reduced(values: Any, reduction: str, count: Any = None) -> Any:
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum(dtype=_wide(values))
    if reduction == "mean":
        # Times 1/n: in float16 the number of elements itself may be too large.
        return values.sum(dtype=_wide(values)) * (1 / (max(values.size, 1) if count is None else count))
    raise ShapeError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")


def _wide(values: Any) -> Any:
    """What to add up in: a sum in float16 soon leaves its range."""
    return "float32" if values.dtype == "float16" else values.dtype


def _counted(xp: Any, targets: Any, ignore_index: int | None) -> Any:
    """How many targets count, without a division by 0 where none does."""
    if ignore_index is None:
        return max(targets.size, 1)
    return xp.maximum((targets != ignore_index).sum(), 1)


def _cross_entropy_vjp(
    F: Any, g: Any, out: Any, logits: Any, targets: Any, ignore_index: int | None, reduction: str
) -> Any:
    """softmax(logits) - one_hot(targets)"""
    hot = F.one_hot(targets, num_classes=logits.shape[-1], dtype=logits.dtype)
    gradient = F.softmax(logits, axis=-1) - hot
    if ignore_index is not None:
        gradient = F.where(F.expand_dims(targets != ignore_index, -1), gradient, 0.0)
    if reduction == "none":
        return gradient * F.expand_dims(g, -1)
    if reduction == "mean":
        if ignore_index is None:
            g = g * (1 / max(targets.size, 1))
        else:
            g = g / F.astype(F.maximum(F.sum(targets != ignore_index), 1), dtype=logits.dtype)
    return gradient * g


@op(_cross_entropy_vjp, None, inputs=2, saves="*")
def cross_entropy(
    xp: Any,
    logits: Any,
    targets: Any,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    """-log(softmax(logits)[target]), in nats.

    logits: (..., V), the classes last. targets: integers 0..V-1 of shape (...). Where a target equals
    ignore_index the loss is 0 and the mean does not count it.
    """
    if logits.dtype.kind != "f":
        raise DtypeError(f"cross_entropy: logits must be floats, not {logits.dtype}")
    if not hasattr(targets, "dtype"):
        raise DtypeError(f"cross_entropy: targets must be an integer tensor, not {targets!r}")
    if targets.dtype.kind not in "iu":
        raise DtypeError(f"cross_entropy: targets must be integers (classes), not {targets.dtype}")
    if not logits.ndim or targets.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy: logits of shape {logits.shape} need targets of shape {logits.shape[:-1]}, "
            f"not {targets.shape}"
        )
    ignored = None if ignore_index is None else targets == ignore_index
    chosen = targets if ignored is None else xp.where(ignored, 0, targets)
    if targets.size:
        low, high = int(chosen.min().item()), int(chosen.max().item())
        if low < 0 or high >= logits.shape[-1]:
            raise DataError(
                f"cross_entropy: target {low if low < 0 else high} is outside the {logits.shape[-1]} classes"
            )
    top = logits.max(axis=-1, keepdims=True)
    total = xp.log(xp.exp(logits - top).sum(axis=-1)) + top[..., 0]
    losses = total - xp.take_along_axis(logits, chosen[..., None], axis=-1)[..., 0]
    if ignored is not None:
        losses = xp.where(ignored, 0, losses).astype(logits.dtype)
    count = _counted(xp, targets, ignore_index)
    return xp.asarray(_reduced(losses, reduction, count)).astype(logits.dtype)


def _scaled(F: Any, g: Any, x: Any, reduction: str) -> Any:
    """The upstream gradient of each element's own loss."""
    if reduction == "mean":
        return g * (1 / max(math.prod(x.shape), 1))
    return g


def _same_shapes(name: str, a: Any, b: Any) -> None:
    shapes = [getattr(x, "shape", ()) for x in (a, b)]
    if shapes[0] != shapes[1] or not hasattr(b, "shape"):
        raise ShapeError(
            f"{name}: input of shape {shapes[0]} and target of shape {shapes[1]} must agree; a loss does not "
            "broadcast, since that is nearly always a mistake"
        )


def _mse_input(F: Any, g: Any, out: Any, input: Any, target: Any, reduction: str) -> Any:
    """2 (input - target)"""
    return _scaled(F, g, input, reduction) * (2 * (input - target))


def _mse_target(F: Any, g: Any, out: Any, input: Any, target: Any, reduction: str) -> Any:
    """2 (target - input)"""
    return _scaled(F, g, input, reduction) * (2 * (target - input))


@op(_mse_input, _mse_target, inputs=2, saves="*", promotes=True, floating=True)
def mse(xp: Any, input: Any, target: Any, reduction: str = "mean") -> Any:
    """(input - target)**2, for shapes that agree."""
    _same_shapes("mse", input, target)
    difference = input - target
    return xp.asarray(_reduced(difference * difference, reduction)).astype(difference.dtype)


def _bce_logits(F: Any, g: Any, out: Any, logits: Any, targets: Any, reduction: str) -> Any:
    """sigmoid(logits) - targets"""
    return _scaled(F, g, logits, reduction) * (F.sigmoid(logits) - targets)


def _bce_targets(F: Any, g: Any, out: Any, logits: Any, targets: Any, reduction: str) -> Any:
    """-logits"""
    return _scaled(F, g, logits, reduction) * -logits


@op(_bce_logits, _bce_targets, inputs=2, saves="*", promotes=True, floating=True)
def binary_cross_entropy_with_logits(xp: Any, logits: Any, targets: Any, reduction: str = "mean") -> Any:
    """-(t log(sigmoid(x)) + (1 - t) log(1 - sigmoid(x))) in nats, for targets between 0 and 1."""
    _same_shapes("binary_cross_entropy_with_logits", logits, targets)
    losses = xp.maximum(logits, 0) - logits * targets + xp.log1p(xp.exp(-xp.absolute(logits)))
    return xp.asarray(_reduced(losses, reduction)).astype(losses.dtype)
