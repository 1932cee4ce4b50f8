"""How large a training is going to be, before anything of it is made: the arrays that are alive at its peak.

A number is a float32. What grows with the text read at a time is counted for each symbol of a window, that is
for each time step and stream; the rest is counted in whole arrays as large as the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.ops.fused.convolution import CACHE
from ..engine.ops.fused.shards import CHUNK, STREAMS, parts_of
from ..engine.ops.language_model import GATES
from ..errors import UsageError
from ..models import IMAGE_MODELS, ImageClassifier
from ..models.image_classifiers import fewest_numbers
from ..optim.optimizers import OPTIMIZERS
from ..text import Windows
from ..vision import ImageSet
from .config import ImageConfig, TrainConfig
from .machine import memory, usable_cores

NUMBER = 4  # bytes

# Arrays of one number for each unit of a layer and symbol, as engine/ops/fused/sequence.py makes them.
KEPT = {  # from a layer's forward pass until its backward pass
    "rnn": 1,  # outputs
    "lstm": 1 + 4 + 2,  # outputs; gates; cells and their tanh
    "gru": 1 + 3 + 1,  # outputs; gates; W_hn h + b_hn
}
BACKWARD = {  # besides, at the end of its backward pass
    "rnn": 2 + 2 + 2,  # gradient of the outputs, h_before and da, each in two orders
    "lstm": 2 + 2 + 2 * 4,  # the same, da of four gates
    "gru": 2 + 2 + 2 * 3 + 2 * 3,  # the same, da_x and da_h of three gates each
}
COMPILED = {  # from the forward pass until the backward pass, as fused/window.py makes them
    "rnn": 1,  # outputs
    "lstm": 1 + 4 + 1,  # outputs; gates; cells
    "gru": 1 + 3 + 1,  # outputs; gates; W_hn h + b_hn
}
PACKED = 2  # copies of the weights that are there packed

FORWARD_ONLY = {  # in a validation
    "rnn": 1,  # outputs
    "lstm": 4 + 1,  # gates, outputs
    "gru": 3 + 1,  # the same
}

# Arrays of one number for each symbol of the vocabulary and symbol read, as made by engine/ops/loss.py and
# fused/sequence.py.
SCORES = {
    True: 4,  # with dropout: logits, one-hot targets, softmax less those, that times the upstream gradient
    False: 3,  # without, in one op: softmax less targets, that times the gradient, and a comparison
}
SCORES_ONLY = 1  # logits, which their exponentials replace

# Copies of the largest matrix while an optimiser computes its formula: one that remembers arrays, and sgd.
UPDATE = {True: 3, False: 1}

# Copies of all that a checkpoint holds while models/archive.py writes it: in host memory; as bytes, an array
# each; and the file.
WRITTEN = 3

# Arrays as large as the largest one in a network that are there besides: at the peak of a step on images, in
# two layers of the backward pass; in a validation, where nothing is kept, in a block of the forward pass.
BESIDES = 1
VALIDATED = {"resnet": 6, "plain": 6, "vgg": 3}
EVALUATED_TOGETHER = 256  # images


@dataclass(frozen=True)
class Estimate:
    """parameters: how many numbers are learnt. The rest is bytes in use at a training's largest moments: in a
    step, in a validation (0 without one), and while a checkpoint is written."""

    parameters: int
    step: int
    validation: int
    checkpoint: int

    @property
    def bytes(self) -> int:
        """What the training needs at its most, beyond the program itself."""
        return max(self.step, self.validation, self.checkpoint)

    @classmethod
    def of(
        cls, config: TrainConfig, symbols: int, windows: Windows, val_windows: Windows | None = None
    ) -> Estimate:
        """symbols: in the vocabulary. windows: to train on, and those held out if any."""
        H, E, V = config.hidden_size, config.embedding_size, symbols
        kind, gates = config.kind, GATES[config.kind]
        inputs = [E] + [H] * (config.layers - 1)  # features of each layer
        layers = [gates * H * (features + H + 2) for features in inputs]
        embedding, output = V * E, V + (0 if config.tie_weights else V * H)
        parameters = embedding + sum(layers) + output
        slots, averages = len(OPTIMIZERS[config.optimizer].slots), bool(config.average)
        lasting = parameters * (1 + slots + averages)

        # A step: at the loss, at the end of each layer's backward pass, and while the weights are changed.
        # Gradients come into being from the output on, unless there are some of an earlier part of the batch.
        parts = min(config.accumulate, windows.batch_size)
        read = _longest(windows) * -(-windows.batch_size // parts)
        dropout = bool(config.dropout or config.embedding_dropout or config.weight_dropout)
        a_unit = (COMPILED if config.is_compiled else KEPT)[kind]
        kept = read * (a_unit + bool(config.dropout)) * H  # a layer's; its outputs after dropout as well
        kept += gates * H * H if config.weight_dropout else 0  # and its recurrent weights
        base = lasting + read * E
        gradients = parameters if parts > 1 else output
        shards = config.threads or usable_cores()  # each has gradients
        if config.is_compiled and not dropout:  # all layers at once, for a part of the streams of each shard
            before = parameters if parts > 1 else 0
            room = _rooms(config, V, _longest(windows), -(-windows.batch_size // parts), shards)
            step = [lasting + before + (PACKED + shards) * parameters + room]
        else:
            step = [base + config.layers * kept + gradients + read * SCORES[dropout] * V]
            for n in reversed(range(config.layers)):
                gradients += 0 if parts > 1 else layers[n]
                own = shards * layers[n] + 2 * read * H if config.is_compiled else read * BACKWARD[kind] * H
                step.append(base + (n + 1) * kept + gradients + own + read * inputs[n])
        step.append(lasting + parameters + UPDATE[slots > 0] * max(embedding, output, gates * H * max(E, H)))

        # Between steps the gradients are still there, and the weights themselves beside their mean.
        between = lasting + parameters * (1 + averages)
        validation = 0
        if val_windows is not None:
            read = _longest(val_windows) * val_windows.batch_size
            a_layer = E + FORWARD_ONLY[kind] * H + (H if config.layers > 1 else 0)
            if config.is_compiled:
                room = _rooms(config, V, _longest(val_windows), val_windows.batch_size, shards, back=False)
                validation = between + parameters + room
            else:
                validation = between + read * max(a_layer, H + SCORES_ONLY * V)
        checkpoint = between + WRITTEN * parameters * (1 + slots + 2 * averages)
        return cls(parameters, NUMBER * max(step), NUMBER * validation, NUMBER * checkpoint)

    @classmethod
    def of_images(cls, config: ImageConfig, images: ImageSet) -> Estimate:
        classes, shape = len(images.classes), images.shape
        model = IMAGE_MODELS[config.model](classes=classes, in_channels=shape[0], **config.model_options)
        parameters, (kept, largest) = model.num_parameters(), _of_one_image(model, shape)
        of_one = OPTIMIZERS[config.optimizer](
            [*model.parameters()][:1], config.lr, **config.optimizer_options
        )
        slots, averages = len(of_one.slots), bool(config.average)
        lasting = parameters * (2 + slots + averages)  # with the gradients
        together = -(-min(config.batch_size, len(images.images)) // config.accumulate)
        patches = 0 if config.is_compiled else 2 * CACHE // NUMBER  # of NumPy's convolutions
        step = lasting + together * (kept + BESIDES * largest) + patches
        seen = min(len(images.held_out_images), EVALUATED_TOGETHER)
        validation = seen and lasting + seen * VALIDATED[config.model] * largest + patches
        checkpoint = lasting + parameters * averages + WRITTEN * parameters * (1 + slots + 2 * averages)
        return cls(parameters, *(NUMBER * numbers for numbers in (step, validation, checkpoint)))


def _of_one_image(model: ImageClassifier, shape: tuple[int, ...]) -> tuple[int, int]:
    """How many numbers a network keeps of an image until its backward pass, and how many its largest array
    has: of the graph of a batch of no images, whose arrays have their shapes without taking any room."""
    model.eval()  # the statistics of a batch of nothing are of no use, the arrays are the same
    root = model(np.empty((0, *shape), np.float32)).node
    model.train()
    found, waiting, largest = {root}, [root], 0
    arrays: dict[int, Any] = {}
    while waiting:
        node = waiting.pop()
        largest = max(largest, math.prod(node.shape[1:]) if node.shape[:1] == (0,) else 0)
        for kept in (node.inputs, node.out, node.residuals):
            for array in kept if isinstance(kept, (tuple, list)) else (kept,):
                if isinstance(array, np.ndarray) and array.shape[:1] == (0,):
                    arrays[id(array)] = array
        for parent in node.parents or ():
            if parent is not None and parent not in found:
                found.add(parent)
                waiting.append(parent)
    size = sum(math.prod(kept.shape[1:]) * kept.itemsize for kept in arrays.values())
    return -(-size // NUMBER), largest


def _rooms(config: TrainConfig, V: int, steps: int, streams: int, shards: int, back: bool = True) -> int:
    """Numbers that fused/window.py works with: for every shard a part of its streams, and what a chunk of
    their rows needs; and where the text is longer than the vocabulary, a table and its gradients."""
    H, E, layers = config.hidden_size, config.embedding_size, config.layers
    shards = max(1, min(shards, streams // STREAMS))
    largest = max(last - first for first, last in parts_of(0, -(-streams // shards)))
    rows, chunk = steps * largest, min(CHUNK, steps * largest)
    kept = layers * COMPILED[config.kind] + 1 if back else 2
    gates = GATES[config.kind] + max(E, H) / H + 1 if back else 0
    folded = steps * streams >= V
    table, inputs = (V * GATES[config.kind] * H, 0) if folded else (0, E)
    return shards * int(rows * (kept * H + inputs) + chunk * (V + gates * H)) + (1 + back * shards) * table


def _longest(windows: Windows) -> int:
    """Time steps of the longest window."""
    return -(-windows.stream_length // len(windows))


def check_memory(
    config: TrainConfig, symbols: int, windows: Windows, val_windows: Windows | None = None
) -> None:
    """UsageError if the training would not fit into the memory that is free."""
    if config.backend == "numpy":
        _refuse_what_does_not_fit(
            Estimate.of(config, symbols, windows, val_windows),
            step="use a smaller --hidden-size, --batch-size or --seq-length, or --accumulate",
            validation="use a smaller --hidden-size, --batch-size or --seq-length",
            checkpoint="use a smaller --hidden-size or fewer --layers",
        )


def check_image_memory(config: ImageConfig, images: ImageSet) -> None:
    """The same of images; a network that is too large by its weights alone is not even made."""
    if config.backend == "numpy":
        helps = {
            "step": "use a smaller --batch-size, --width or --size, or --accumulate",
            "validation": "use a smaller --width or --size",
            "checkpoint": "use a smaller --width or --depth",
        }
        weights = fewest_numbers(config.depth, config.width, len(images.classes), images.shape[0])
        at_least = NUMBER * weights * (1 + WRITTEN)
        _refuse_what_does_not_fit(Estimate(weights, 0, 0, at_least), **helps)
        _refuse_what_does_not_fit(Estimate.of_images(config, images), **helps)


def _refuse_what_does_not_fit(estimate: Estimate, **helps: str) -> None:
    """helps: what to do about the moment that takes the most."""
    free = memory()[1]
    if free is None or estimate.bytes <= free:
        return
    moment = next(name for name in helps if getattr(estimate, name) == estimate.bytes)
    raise UsageError(
        f"this training needs about {gigabytes(estimate.bytes)} of memory, and {gigabytes(free)} are free; "
        f"{helps[moment]}"
    )


def gigabytes(size: int) -> str:
    """1.2 GB, or 34 MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 1):.0f} MB"
