"""Blocks of deep networks: a few convolutions in a row, and the same with a shortcut around them."""

from __future__ import annotations

from ..engine.ops.elementwise import relu
from ..engine.ops.shape import pad
from ..engine.tensor import Tensor, no_grad
from ..errors import ShapeError, UsageError
from .activations import Identity
from .convolution import Conv2d
from .layers import kaiming_normal_
from .module import Module, Sequential
from .normalization import BatchNorm2d

SHORTCUTS = ("projection", "padding")


def he_convolution(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = False
) -> Conv2d:
    """A convolution that keeps the image's size, but for the stride. It starts as He et al. (2015) have it:
    kaiming_normal_, and a bias of zero."""
    conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=bias)
    kaiming_normal_(conv.weight)
    if conv.bias is not None:
        with no_grad():
            conv.bias.copy_(0)
    return conv


class PlainBlock(Module):
    """Convolutions, batch normalisations and ReLUs: (N, in_channels, H, W) -> (N, out_channels, H', W'),
    H' = ceil(H / stride) and W' likewise.

    Two 3x3 convolutions, the first with the stride; bottleneck=True: 1x1, 3x3 with the stride and 1x1, inside
    with a quarter of out_channels. After each come a normalisation and a ReLU, or before each with
    preactivation=True. batch_norm=False: none is normalised, and each convolution has a bias, zero at first.

    Raises ShapeError for a bottleneck whose out_channels cannot be divided by 4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        bottleneck: bool = False,
        preactivation: bool = False,
        batch_norm: bool = True,
    ) -> None:
        if bottleneck and out_channels % 4:
            raise ShapeError(f"a bottleneck has a quarter of its out_channels inside, not of {out_channels}")
        inside = out_channels // 4
        sizes = [(in_channels, out_channels, 3, stride), (out_channels, out_channels, 3, 1)]
        if bottleneck:
            sizes = [(in_channels, inside, 1, 1), (inside, inside, 3, stride), (inside, out_channels, 1, 1)]
        self.preactivation, self.depth = preactivation, len(sizes)
        for number, (channels, made, kernel, step) in enumerate(sizes, 1):
            conv = he_convolution(channels, made, kernel, step, bias=not batch_norm)
            norm = BatchNorm2d(channels if preactivation else made) if batch_norm else Identity()
            setattr(self, f"conv{number}", conv)
            setattr(self, f"bn{number}", norm)

    def branch(self, x: Tensor) -> Tensor:
        """The convolutions with all that is between them."""
        for i in range(1, self.depth + 1):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
            x = conv(relu(norm(x))) if self.preactivation else norm(conv(relu(x) if i > 1 else x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) if self.preactivation else relu(self.branch(x))


class ResidualBlock(PlainBlock):
    """relu(shortcut(x) + branch(x)), where branch(x) is a PlainBlock's convolutions (He et al., 2016, "Deep
    residual learning for image recognition"); with preactivation=True shortcut(x) + branch(x) (He et al.,
    2016, "Identity mappings in deep residual networks").

    shortcut: what x goes through where channels or size change; elsewhere it is x itself. "projection" is a
    1x1 convolution, normalised if the block is a post-activation one with batch_norm (option B of the paper);
    "padding" drops rows and columns and adds channels of zeros, without parameters (option A).
    zero_init: the branch is zero at first, by its last scale (Goyal et al., 2017, "Accurate, large minibatch
    SGD"), or where it does not end with one, by its last convolution. (In a pre-activation branch a ReLU
    follows each scale and would keep one that is zero from ever learning.)

    Raises ShapeError and UsageError for channels and shortcuts that do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        bottleneck: bool = False,
        preactivation: bool = False,
        batch_norm: bool = True,
        shortcut: str = "projection",
        zero_init: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, bottleneck, preactivation, batch_norm)
        if shortcut not in SHORTCUTS:
            raise UsageError(f"no shortcut is called {shortcut!r}; there are {', '.join(SHORTCUTS)}")
        normalized = batch_norm and not preactivation
        self.shortcut: Module
        if stride == 1 and in_channels == out_channels:
            self.shortcut = Identity()
        elif shortcut == "padding":
            self.shortcut = PaddingShortcut(in_channels, out_channels, stride)
        else:
            projection = he_convolution(in_channels, out_channels, 1, stride)
            self.shortcut = Sequential(projection, BatchNorm2d(out_channels)) if normalized else projection
        if zero_init:
            last = getattr(self, f"bn{self.depth}" if normalized else f"conv{self.depth}")
            with no_grad():
                last.weight.copy_(0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.shortcut(x) + self.branch(x)
        return y if self.preactivation else relu(y)


class PaddingShortcut(Module):
    """Each `stride`-th row and column, and channels of zeros after those of x."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        if out_channels < in_channels:
            raise ShapeError(
                f"the padding shortcut adds channels and cannot make {out_channels} of {in_channels}; use "
                "shortcut='projection'"
            )
        self.stride, self.added = stride, out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.transpose(0, 2, 3, 1)[:, :: self.stride, :: self.stride]  # as x lies in memory
        return pad(channels_last, ((0, 0), (0, 0), (0, 0), (0, self.added))).transpose(0, 3, 1, 2)

    def _describe(self) -> str:
        return f"{self.added} channels of zeros, stride {self.stride}"
