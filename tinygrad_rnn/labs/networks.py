"""What the labs share: initialisations, a training, what is measured of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..engine.ops.loss import cross_entropy
from ..engine.tensor import no_grad, tensor
from ..errors import UsageError
from ..models import ImageClassifier
from ..nn import Conv2d, Linear, Module, Parameter
from ..nn.layers import fan_in_uniform_, kaiming_normal_, uniform
from ..nn.module import evaluating
from ..optim import SGD, schedules
from ..training.config import ImageConfig
from ..training.threads import limited_threads
from ..vision import Augmentation, Batches, ImageSet

Kind = TypeVar("Kind", bound=Module)
EVALUATED_TOGETHER = 256  # images
MOMENTUM = 0.9
# What the labs call them. "he" is how the models are made. Biases are zero, but for those of "uniform".
INITIALISATIONS = {
    "he": "He et al. (2015): normal, variance 2 / fan-in",
    "glorot": "Glorot & Bengio (2010): normal, variance 2 / (fan-in + fan-out)",
    "uniform": "PyTorch's default: uniform within 1 / sqrt(fan-in)",
}


def initialise(model: Module, how: str) -> None:
    """Draw the weights of convolutions and linear layers anew, as INITIALISATIONS[how] says."""
    if how not in INITIALISATIONS:
        raise UsageError(f"no initialisation is called {how!r}; there are {', '.join(INITIALISATIONS)}")
    for _, layer in model.named_modules():
        if not isinstance(layer, (Conv2d, Linear)):
            continue
        weight = layer.weight
        fan_out, fan_in = weight.size // weight.shape[1], weight.size // weight.shape[0]
        if how == "he":
            kaiming_normal_(weight)
        elif how == "glorot":
            kaiming_normal_(weight)
            with no_grad():
                weight.copy_(weight * math.sqrt(fan_in / (fan_in + fan_out)))
        else:
            fan_in_uniform_(weight)
        if layer.bias is not None:
            with no_grad():
                bound = 1 / math.sqrt(fan_in)
                layer.bias.copy_(uniform(bound, *layer.bias.shape) if how == "uniform" else 0)


def without_biases(model: Kind) -> Kind:
    """The model itself, its convolutions made so."""
    for _, layer in model.named_modules():
        if isinstance(layer, Conv2d):
            layer.bias = None
    return model


def in_float64(model: Kind) -> Kind:
    """The model itself, its parameters made float64."""
    for _, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Parameter):
                setattr(module, name, Parameter(value.numpy().astype(np.float64)))
    return model


@contextmanager
def computing() -> Iterator[None]:
    """In this block networks are computed with all cores, and numbers may cease to be finite."""
    with np.errstate(all="ignore"), limited_threads(ImageConfig(images="digits")):
        yield


@dataclass(frozen=True)
class Training:
    """losses: of each step's batch, in nats; from the first on that is not finite, NaN.
    last_loss: their mean over the last epoch, infinity where the training diverged."""

    losses: np.ndarray
    last_loss: float


def train(
    model: ImageClassifier,
    images: ImageSet,
    steps: int,
    lr: float,
    seed: int,
    batch_size: int,
    weight_decay: float = 0.0,
    stepped: Callable[[], None] = lambda: None,
) -> Training:
    """Stochastic gradient descent with momentum 0.9 and a learning rate that falls along a cosine, on images
    as they are, in an order by the seed. It ends early when the loss is no number any more. `stepped` is
    called for every step, also for those that are left out then."""
    batches = _batches(images, batch_size, seed)
    optimizer = SGD(model.parameters(), lr, momentum=MOMENTUM, weight_decay=weight_decay)
    losses = np.full(steps, math.nan)
    diverged = False
    for step in range(steps):
        if not diverged:
            inputs, labels = batches[step]
            optimizer.lr = lr * schedules.cosine(step / steps)
            optimizer.zero_grad()
            loss = cross_entropy(model(inputs), tensor(labels))
            diverged = not math.isfinite(loss.item())
        if not diverged:
            losses[step] = loss.item()
            loss.backward()
            optimizer.step()
        stepped()
    last = float(losses[-min(len(batches), steps) :].mean())
    return Training(losses, last if math.isfinite(last) else math.inf)


def accuracy(model: ImageClassifier, images: ImageSet, held_out: bool = True) -> float:
    """The part of the images held out, or of those trained on, that the network recognises in evaluation."""
    part = (images.held_out_images, images.held_out_labels) if held_out else (images.images, images.labels)
    right = 0
    with no_grad(), evaluating(model):
        for inputs, labels in Batches.evaluation(*part, EVALUATED_TOGETHER, images.mean, images.std):
            right += int((model(inputs).numpy().argmax(-1) == labels).sum())
    return right / len(part[1])


def first_batch(images: ImageSet, batch_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some of the images, normalised, and their labels."""
    return _batches(images, batch_size, seed)[0]


def _batches(images: ImageSet, batch_size: int, seed: int) -> Batches:
    pixels, labels = images.images, images.labels
    return Batches(pixels, labels, batch_size, seed, Augmentation(), images.mean, images.std)


def smoothed(losses: np.ndarray, steps: int) -> np.ndarray:
    """The mean of each value and those before it, of so many at most."""
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(losses) + 1)
    begins = np.maximum(ends - steps, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)
