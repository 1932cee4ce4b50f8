"""Pooling layers: MaxPool2d, AvgPool2d, GlobalAvgPool2d. Arguments and names are PyTorch's."""

from __future__ import annotations

from typing import Any

from ..engine.ops.pooling import avg_pool2d, global_avg_pool2d, max_pool2d
from ..engine.tensor import Tensor
from .module import Module


class MaxPool2d(Module):
    """The largest value of each window: (N, C, H, W) -> (N, C, H', W'), or one image's; see tg.max_pool2d."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def _describe(self) -> str:
        return f"{self.kernel_size}"


class AvgPool2d(Module):
    """The mean of each window: (N, C, H, W) -> (N, C, H', W'), or one image's; see tg.avg_pool2d."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )

    def _describe(self) -> str:
        return f"{self.kernel_size}"


class GlobalAvgPool2d(Module):
    """The mean of each channel over the whole image: (N, C, H, W) -> (N, C), or one image's."""

    def forward(self, x: Tensor) -> Tensor:
        return global_avg_pool2d(x)
