"""Training steps of an image classifier: what the contestants are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinygrad_rnn.training.config import ImageConfig
from tinygrad_rnn.training.images import ImageTrainer
from tinygrad_rnn.vision import ImageSet

BATCHES = 8
CHANNELS, CLASSES = 3, 10


@dataclass(frozen=True, kw_only=True)
class Work:
    """A training step of the ResNet for small images of He et al. (2016), "Deep residual learning for image
    recognition": of 6 n + 2 layers, with the padding shortcuts. Images are square."""

    depth: int = 20
    width: int = 16
    size: int = 32
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float = 5.0
    optimizer: str = "sgd"
    kind: str = "resnet"
    backend: str = "numpy"

    def __str__(self) -> str:
        return f"ResNet-{self.depth}, {self.size}x{self.size}, batch {self.batch_size}"

    @property
    def blocks(self) -> int:
        """Of a stage."""
        return (self.depth - 2) // 6

    @property
    def config(self) -> ImageConfig:
        """The settings of a training that makes such steps."""
        return ImageConfig(
            images="made up",
            model=self.kind,
            depth=self.depth,
            width=self.width,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            clip=self.clip,
            schedule="constant",
        )

    @property
    def flop(self) -> int:
        """Floating-point operations of a step's products: for each one multiplication and one addition, three
        times: forward, for the gradient of the weight, and for that of what it is multiplied with, but not
        for the images'."""
        first, products = 9 * CHANNELS * self.width * self.size**2, 0
        inputs, outs, places = self.width, self.width, self.size**2
        for _ in range(3):
            products += 9 * places * outs * (inputs + (2 * self.blocks - 1) * outs)
            inputs, outs, places = outs, 2 * outs, places // 4
        return 2 * self.batch_size * (2 * first + 3 * (products + inputs * CLASSES))

    def trainer(self) -> ImageTrainer:
        """Ready for its first step, on BATCHES batches of noise, always the same."""
        draw, count = np.random.default_rng(0), BATCHES * self.batch_size
        images = draw.integers(256, size=(count, CHANNELS, self.size, self.size), dtype=np.uint8)
        labels = draw.integers(CLASSES, size=count)
        classes = tuple(str(number) for number in range(CLASSES))
        return ImageTrainer(self.config, ImageSet("made up", images, labels, images[:0], labels[:0], classes))

    def start(self) -> dict[str, np.ndarray]:
        """The weights, under PyTorch's names, and the `inputs` and `targets` of the first BATCHES steps."""
        trainer = self.trainer()
        arrays = {name: parameter.numpy() for name, parameter in trainer.model.named_parameters()}
        batches = [trainer.batch(number) for number in range(BATCHES)]
        arrays["inputs"], arrays["targets"] = (np.stack(parts) for parts in zip(*batches, strict=True))
        return arrays
