"""Convolution layers: Conv1d, Conv2d, ConvTranspose2d. Arguments, names and shapes are PyTorch's."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..engine.ops.convolution import conv1d, conv2d, conv_transpose2d
from ..engine.ops.options import integer, integers
from ..engine.tensor import Tensor
from ..errors import ShapeError
from .layers import uniform
from .module import Module


class _Convolution(Module):
    """Weight and bias start uniform within 1 / sqrt(fan_in), fan_in = weight[0].size, as in PyTorch;
    kaiming_normal_ draws the weight of a deep network anew."""

    dimensions: ClassVar[int] = 2
    transposed: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        name = type(self).__name__
        in_channels = integer(name, "in_channels", in_channels, 1)
        out_channels = integer(name, "out_channels", out_channels, 1)
        kernel = integers(name, "kernel_size", kernel_size, self.dimensions, 1)
        groups = integer(name, "groups", groups, 1)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{name}: groups must divide both in_channels and out_channels, and {groups} does not divide "
                f"{in_channels if in_channels % groups else out_channels}"
            )
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *kernel)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = uniform(bound, *shape)
        self.bias = uniform(bound, out_channels) if bias else None
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def _describe(self) -> str:
        said = [f"{self.in_channels} -> {self.out_channels}", "x".join(map(str, self.kernel_size))]
        said += [f"stride {self.stride}"] if self.stride != 1 else []
        said += [f"groups {self.groups}"] if self.groups != 1 else []
        return ", ".join(said)


class Conv1d(_Convolution):
    """tg.conv1d with weight (out_channels, in_channels / groups, kernel_size) and bias (out_channels,):
    (N, in_channels, L) -> (N, out_channels, L').

    Raises ShapeError where groups do not divide the channels.
    """

    dimensions = 1

    def forward(self, x: Tensor) -> Tensor:
        return conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv2d(_Convolution):
    """tg.conv2d with weight (out_channels, in_channels / groups, height, width) and bias (out_channels,):
    (N, in_channels, H, W) -> (N, out_channels, H', W').

    Raises ShapeError where groups do not divide the channels.
    """

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(_Convolution):
    """tg.conv_transpose2d with weight (in_channels, out_channels / groups, height, width) and bias
    (out_channels,): (N, in_channels, H, W) -> (N, out_channels, H', W').

    Raises ShapeError where groups do not divide the channels.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.output_padding = output_padding

    def forward(self, x: Tensor) -> Tensor:
        options = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return conv_transpose2d(x, self.weight, self.bias, *options)
