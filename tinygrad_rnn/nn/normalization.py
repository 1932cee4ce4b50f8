"""Normalisation layers: BatchNorm1d, BatchNorm2d, LayerNorm, GroupNorm. Arguments and names are PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..engine.node import mode
from ..engine.ops.normalization import batch_norm, group_norm, layer_norm
from ..engine.ops.options import integer, integers
from ..engine.tensor import DEFAULT_DTYPE, Tensor
from ..errors import ShapeError
from .module import Module, Parameter


class _BatchNorm(Module):
    """What BatchNorm1d and BatchNorm2d do; they differ in the shapes they take."""

    dimensions: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        num_features = integer(type(self).__name__, "num_features", num_features, 1)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight, self.bias = _scale_and_shift((num_features,), affine, affine)
        self.running_mean: Any = None
        self.running_var: Any = None
        self.num_batches_tracked: Any = None
        if track_running_stats:
            self.register_buffer("running_mean", np.zeros(num_features, DEFAULT_DTYPE))
            self.register_buffer("running_var", np.ones(num_features, DEFAULT_DTYPE))
            self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in self.dimensions or x.shape[1] != self.num_features:
            needed = " or ".join(f"{n} dimensions" for n in self.dimensions)
            raise ShapeError(
                f"{type(self).__name__}({self.num_features}) takes {needed}, the second of size "
                f"{self.num_features}, and x has shape {x.shape}"
            )
        counted = self.num_batches_tracked if self.training else None
        batches = None if counted is None else counted.item() + 1
        momentum = (1 / batches if batches else 0.0) if self.momentum is None else self.momentum
        out = batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training or self.running_mean is None,
            momentum=momentum,
            eps=self.eps,
        )
        if counted is not None and not mode.repeating:
            counted.copy_(batches)
        return out

    def _describe(self) -> str:
        return f"{self.num_features}"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L); options and formula as of BatchNorm2d.

    Raises ShapeError for other shapes, and for one value a channel in training.
    """

    dimensions = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W): each channel to mean 0 and variance 1, then times `weight` plus
    `bias` (Ioffe & Szegedy, 2015, "Batch normalization: accelerating deep network training by reducing
    internal covariate shift"); see tg.batch_norm.

    In training, mean and variance are the batch's, and running_mean and running_var move towards them by
    `momentum` (None: they are the mean over all batches so far, which num_batches_tracked counts); in
    evaluation the running ones are used.
    affine: whether there are weight and bias, both (C,), ones and zeros at first.
    track_running_stats=False: nothing is remembered, and the batch's own are used in evaluation too.

    Raises ShapeError for other shapes, and for one value a channel in training.
    """

    dimensions = (4,)


class LayerNorm(Module):
    """Each example by its own mean and variance over the last axes, of sizes normalized_shape, then times
    `weight` plus `bias`, both of that shape (Ba, Kiros & Hinton, 2016, "Layer normalization").

    (..., *normalized_shape) -> the same. Raises ShapeError for other shapes.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        shape = integers("LayerNorm", "normalized_shape", normalized_shape, least=1)
        self.normalized_shape, self.eps = shape, eps
        self.weight, self.bias = _scale_and_shift(shape, elementwise_affine, elementwise_affine and bias)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def _describe(self) -> str:
        return "x".join(map(str, self.normalized_shape))


class GroupNorm(Module):
    """The channels of each example in num_groups groups, each by its own mean and variance, then times
    `weight` plus `bias`, both (num_channels,) (Wu & He, 2018, "Group normalization").

    (N, num_channels, ...) -> the same. Raises ShapeError where the groups do not divide the channels.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        num_groups = integer("GroupNorm", "num_groups", num_groups, 1)
        num_channels = integer("GroupNorm", "num_channels", num_channels, 1)
        if num_channels % num_groups:
            raise ShapeError(
                f"GroupNorm: {num_channels} channels cannot be divided into {num_groups} groups of one size"
            )
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight, self.bias = _scale_and_shift((num_channels,), affine, affine)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(
                f"GroupNorm({self.num_groups}, {self.num_channels}) takes (N, {self.num_channels}, ...), and "
                f"x has shape {x.shape}"
            )
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def _describe(self) -> str:
        return f"{self.num_channels} in {self.num_groups} groups"


def _scale_and_shift(
    shape: tuple[int, ...], scale: bool, shift: bool
) -> tuple[Parameter | None, Parameter | None]:
    return (
        Parameter(np.ones(shape, DEFAULT_DTYPE)) if scale else None,
        Parameter(np.zeros(shape, DEFAULT_DTYPE)) if shift else None,
    )
