"""Losses as modules, for those who compose networks of modules. The functions are in engine/ops/loss.py."""

from __future__ import annotations

from typing import Any

from ..engine.ops import loss
from ..engine.tensor import Tensor
from .module import Module


class CrossEntropyLoss(Module):
    """-log(softmax(logits)[target]): logits (..., V), integer targets (...); see tg.cross_entropy."""

    def __init__(self, ignore_index: int | None = None, reduction: str = "mean") -> None:
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, logits: Tensor, targets: Any) -> Tensor:
        return loss.cross_entropy(logits, targets, self.ignore_index, self.reduction)


class MSELoss(Module):
    """(input - target)**2; see tg.mse."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Tensor, target: Any) -> Tensor:
        return loss.mse(input, target, self.reduction)


class BCEWithLogitsLoss(Module):
    """Binary cross-entropy from logits; see tg.binary_cross_entropy_with_logits."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Any) -> Tensor:
        return loss.binary_cross_entropy_with_logits(logits, targets, self.reduction)
