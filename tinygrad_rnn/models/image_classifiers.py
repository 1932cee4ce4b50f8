"""Deep networks that say what is in an image: PlainNet, ResNet, VGG."""

from __future__ import annotations

from typing import Any

from ..engine.ops.elementwise import relu
from ..engine.ops.pooling import global_avg_pool2d, max_pool2d
from ..engine.tensor import Tensor, tensor
from ..errors import UsageError
from ..nn import BatchNorm2d, Identity, Linear, Module, Parameter, PlainBlock, ReLU, ResidualBlock, Sequential
from ..nn.layers import kaiming_normal_
from ..nn.residual import he_convolution


class ImageClassifier(Module):
    """What the networks below have in common: features, their mean over the image, the output from that."""

    output: Module

    def __init__(self, **config: Any) -> None:
        for name in ("depth", "classes", "in_channels", "width"):
            if config[name] < 1:
                raise UsageError(f"{name} must be at least 1, not {config[name]}")
        self._config = config

    @classmethod
    def check_depth(cls, depth: int) -> None:
        """UsageError for a depth that there is not, with its other arguments as they are by default."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The arguments that make this model again."""
        return dict(self._config)

    def weights_by_depth(self) -> list[tuple[str, Parameter]]:
        """Names and weights of the convolutions and linear layers, the first layer's first. What lies on a
        shortcut is left out: there are as many as the network is deep."""
        named = self.named_parameters()
        return [(name, p) for name, p in named if p.ndim > 1 and ".shortcut" not in name]

    def features(self, images: Tensor) -> Tensor:
        """What the last convolution or ReLU makes of the images: (N, channels, H', W')."""
        raise NotImplementedError

    def forward(self, images: Any) -> Tensor:
        """Logits (N, classes) of images (N, in_channels, H, W), an array or a tensor."""
        if not isinstance(images, Tensor):
            _, weight = next(self.named_parameters())
            images = tensor(images, dtype=weight.dtype, backend=weight.backend)
        return self.output(global_avg_pool2d(self.features(images)))


class _Staged(ImageClassifier):
    """A 3x3 convolution, three stages of blocks, the mean over the image, a linear layer."""

    def __init__(
        self,
        block: type[PlainBlock],
        depth: int,
        classes: int,
        in_channels: int,
        width: int,
        bottleneck: bool,
        preactivation: bool,
        batch_norm: bool,
        **shortcuts: Any,
    ) -> None:
        options = {
            "bottleneck": bottleneck,
            "preactivation": preactivation,
            "batch_norm": batch_norm,
            **shortcuts,
        }
        super().__init__(depth=depth, classes=classes, in_channels=in_channels, width=width, **options)
        self.check_depth(depth, bottleneck)
        blocks = (depth - 2) // _period(bottleneck)  # of a stage
        self.preactivation = preactivation
        self.conv = he_convolution(in_channels, width, 3, bias=not batch_norm)
        made, row = width, []
        for stage in range(3):
            channels = width * 2**stage * (4 if bottleneck else 1)
            for number in range(blocks):
                stride = 2 if stage and not number else 1
                row.append(block(made, channels, stride, **options))
                made = channels
        self.blocks = Sequential(*row)
        self.bn = BatchNorm2d(made if preactivation else width) if batch_norm else Identity()
        self.output = Linear(made, classes)

    @classmethod
    def check_depth(cls, depth: int, bottleneck: bool = False) -> None:
        period = _period(bottleneck)
        blocks = (depth - 2) // period
        if blocks < 1 or depth != period * blocks + 2:
            near = sorted({period * max(1, n) + 2 for n in (blocks, blocks + 1)})
            kind = f"{cls.__name__} of {'bottleneck' if bottleneck else 'basic'} blocks"
            raise UsageError(
                f"a {kind} has {period}n + 2 layers, not {depth}; nearest are {' and '.join(map(str, near))}"
            )

    def features(self, images: Tensor) -> Tensor:
        if self.preactivation:
            return relu(self.bn(self.blocks(self.conv(images))))
        return self.blocks(relu(self.bn(self.conv(images))))


def _period(bottleneck: bool) -> int:
    """Layers of three blocks, one of each stage."""
    return 9 if bottleneck else 6


class PlainNet(_Staged):
    """The plain network for small images of He et al. (2016), "Deep residual learning for image recognition",
    section 4.2: a 3x3 convolution, three stages of nn.PlainBlock, the mean over the image, a linear layer.

    depth: layers with weights, 6n + 2 for n blocks of two in each stage, or 9n + 2 with bottleneck=True.
    width: channels of the first stage; each further stage has twice as many and half the height and width.
    With bottleneck=True the blocks' results have four times as many.
    preactivation, batch_norm: see nn.PlainBlock.

    Raises UsageError for another depth, and names the nearest that there are.
    """

    def __init__(
        self,
        depth: int = 20,
        classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        bottleneck: bool = False,
        preactivation: bool = False,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(
            PlainBlock, depth, classes, in_channels, width, bottleneck, preactivation, batch_norm
        )


class ResNet(_Staged):
    """The residual network for small images of the same section: PlainNet with a shortcut around each block.

    shortcut, zero_init: see nn.ResidualBlock. The published networks (ResNet-20 of 0.27 million parameters,
    ResNet-110 of 1.7 million) have the padding ones. The rest is as of PlainNet.
    """

    def __init__(
        self,
        depth: int = 20,
        classes: int = 10,
        in_channels: int = 3,
        width: int = 16,
        bottleneck: bool = False,
        preactivation: bool = False,
        batch_norm: bool = True,
        shortcut: str = "padding",
        zero_init: bool = False,
    ) -> None:
        super().__init__(
            ResidualBlock,
            depth,
            classes,
            in_channels,
            width,
            bottleneck,
            preactivation,
            batch_norm,
            shortcut=shortcut,
            zero_init=zero_init,
        )


VGG_STAGES = {  # convolutions of each stage; three linear layers follow
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
    20: (2, 2, 4, 4, 5),
}


class VGG(ImageClassifier):
    """Five stages of 3x3 convolutions and ReLUs, halvings of height and width by max_pool2d, the mean over
    what is left of the image, three linear layers (Simonyan & Zisserman, 2015, "Very deep convolutional
    networks for large-scale image recognition"; depths 8 and 20 continue their table).

    depth: layers with weights, one of VGG_STAGES.
    width: channels of the first stage; the others have 2, 4, 8 and 8 times as many, linear layers 8 times.
    batch_norm: a normalisation after each convolution; without it, each has a bias, zero at first.

    A halving follows each stage, but for small images: one of 8x8 can be halved three times, and is so after
    the last three stages.

    Raises UsageError for another depth.
    """

    def __init__(
        self,
        depth: int = 16,
        classes: int = 10,
        in_channels: int = 3,
        width: int = 64,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(
            depth=depth, classes=classes, in_channels=in_channels, width=width, batch_norm=batch_norm
        )
        self.check_depth(depth)
        stages, made = [], in_channels
        for number, convolutions in enumerate(VGG_STAGES[depth]):
            steps: list[Module] = []
            for _ in range(convolutions):
                channels = width * min(2**number, 8)
                steps.append(he_convolution(made, channels, 3, bias=not batch_norm))
                steps += [BatchNorm2d(channels)] if batch_norm else []
                steps.append(ReLU())
                made = channels
            stages.append(Sequential(*steps))
        self.stages = Sequential(*stages)
        hidden = [Linear(made, made), Linear(made, made)]
        for layer in hidden:
            kaiming_normal_(layer.weight)
        self.output = Sequential(hidden[0], ReLU(), hidden[1], ReLU(), Linear(made, classes))

    @classmethod
    def check_depth(cls, depth: int) -> None:
        if depth not in VGG_STAGES:
            raise UsageError(f"a VGG has {', '.join(map(str, VGG_STAGES))} layers, not {depth}")

    def features(self, images: Tensor) -> Tensor:
        x = images
        spared = len(self.stages) - (min(images.shape[2:]).bit_length() - 1)  # first stages without a halving
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number >= spared:
                x = max_pool2d(x, 2)
        return x


def fewest_numbers(depth: int, width: int, classes: int, in_channels: int) -> int:
    """What a model of these sizes learns at the least, whatever its kind and its blocks.

    Each block has a 3x3 convolution within each stage's channels, and at most 9 layers are a block of each.
    """
    return width * (21 * width * (depth - 2) + 4 * classes + 9 * in_channels)


IMAGE_MODELS: dict[str, type[ImageClassifier]] = {"resnet": ResNet, "plain": PlainNet, "vgg": VGG}
