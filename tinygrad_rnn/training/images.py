"""Training an image classifier on batches of images in a random order, all of them once in each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.ops.loss import cross_entropy
from ..engine.tensor import tensor
from ..errors import DataError, ShapeError, UsageError
from ..models import IMAGE_MODELS, ImageClassifier, ImageNotes, image_files
from ..nn.module import evaluating
from ..vision import Batches, ImageSet, load_images
from . import events
from .config import ImageConfig
from .estimate import EVALUATED_TOGETHER, check_image_memory
from .evaluation import StoppedError
from .trainer import Trainer, Validation, read_from


def images_of(config: ImageConfig) -> ImageSet:
    """The images that the settings name. Raises what load_images() does."""
    return load_images(
        config.images,
        val_fraction=config.val_fraction,
        size=config.size,
        gray=config.gray,
        broken=config.broken,  # type: ignore[arg-type]
    )


class ImageTrainer(Trainer[ImageConfig]):
    """Trains a classifier on `images`."""

    model: ImageClassifier
    other_data = "other images"
    refusal = (
        "the images are not those that {} was trained on; bring the old ones back, or go on with these: "
        "--force"
    )
    speed_name = "images_per_second"

    def __init__(
        self,
        config: ImageConfig,
        images: ImageSet,
        emit: Callable[[events.Event], None] = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.images = config, images
        if not len(images.held_out_images) and config.needs_validation:
            raise DataError(f"nothing is held out of {images.name}, and {config.needs_validation}")
        self.batches = Batches(
            images.images,
            images.labels,
            config.batch_size,
            config.seed,
            config.augmentation,
            images.mean,
            images.std,
        )
        check_image_memory(config, images)
        if max(config.shift, config.crop):
            self.batches[0]  # that the images are large enough is better said now
        self._check_parts()
        steps = len(self.batches)
        super().__init__(config, images.name, images.sha256, len(images.classes), steps, emit, clock)

    def _check_parts(self) -> None:
        """UsageError if batch normalisation would find but one value of a channel in a part of some batch.

        It is tried, where there is a part of a single image: whether that is too little, the layers know.
        """
        config = self.config
        if not config.batch_norm or self._smallest_part(config.accumulate) > 1:
            return
        try:
            self.new_model()(np.zeros((1, *self.images.shape), np.float32))
        except ShapeError:
            fits = [parts for parts in range(1, config.accumulate) if self._smallest_part(parts) > 1]
            instead = f"--accumulate {fits[-1]}" if fits else "--batch-size 2 or more"
            height, width = self.images.shape[1:]
            raise UsageError(
                "batch normalisation needs two values of each channel at least, and of a single image of "
                f"{height}x{width} the deepest layers have one; use {instead}, a larger --size, or "
                "--no-batch-norm"
            ) from None

    def _smallest_part(self, parts: int) -> int:
        """Images in it, where batches are computed in so many parts."""
        return min(count // min(parts, count) for count in self.batches.sizes)

    def new_model(self) -> ImageClassifier:
        config, channels = self.config, self.images.shape[0]
        return IMAGE_MODELS[config.model](
            classes=len(self.images.classes), in_channels=channels, **config.model_options
        )

    def about(self) -> dict[str, int]:
        channels, height, width = self.images.shape
        return {
            "classes": len(self.images.classes),
            "train_images": len(self.images.images),
            "val_images": len(self.images.held_out_images),
            "channels": channels,
            "height": height,
            "width": width,
        }

    # --- a step -------------------------------------------------------------------------------------

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Images (B, C, H, W), normalised, and their labels (B,)."""
        return self.batches[step]

    def losses(self, inputs: np.ndarray, targets: np.ndarray) -> Iterator[tuple[float, Any]]:
        count = len(targets)
        parts = min(self.config.accumulate, count)
        for start, end in pairwise(count * part // parts for part in range(parts + 1)):
            logits = self.model(inputs[start:end])
            labels = tensor(targets[start:end], backend=logits.backend)
            yield (end - start) / count, cross_entropy(logits, labels)

    # --- after a step -------------------------------------------------------------------------------

    def validate(self) -> Validation | None:
        images = self.images
        if not len(images.held_out_images):
            return None
        nats, right, seen = 0.0, 0, 0
        of_evaluation = Batches.evaluation(
            images.held_out_images, images.held_out_labels, EVALUATED_TOGETHER, images.mean, images.std
        )
        with evaluating(self.model):
            for inputs, labels in of_evaluation:
                logits = self.model(inputs)
                nats += cross_entropy(logits, tensor(labels, backend=logits.backend), reduction="sum").item()
                right += int((logits.numpy().argmax(-1) == labels).sum())
                seen += len(labels)
                if not self.going_on(seen / len(images.held_out_labels)):
                    raise StoppedError
        return Validation(nats / seen, {"val_accuracy": right / seen})

    def is_best(self, found: Validation) -> bool:
        """By accuracy, and by the loss where that is the same: the loss alone may rise while a network
        recognises more and more, since it grows more certain of its last mistakes as well."""
        before = self.standing
        if before.best_loss is None:
            return True
        accuracy, best = (of.get("val_accuracy", 0.0) for of in (found.measures, before.best_measures))
        return (accuracy, -found.loss) > (best, -before.best_loss)

    # --- checkpoints --------------------------------------------------------------------------------

    def save(self, path: Path, **of_training: Any) -> None:
        images = self.images
        mean, std = (tuple(of.tolist()) for of in (images.mean, images.std))
        notes = ImageNotes(images.classes, images.shape, mean, std)
        image_files.save(path, self.model, notes, **of_training)

    def refuse_other_kind(self, header: Mapping[str, Any], file: Path) -> None:
        with read_from(file):
            notes = ImageNotes.from_json(header["images"])
        here, there = self.images, notes
        if (len(there.classes), there.shape) != (len(here.classes), here.shape):
            ours, theirs = (
                f"{len(of.classes)} classes of images of shape {of.shape}" for of in (here, there)
            )
            raise DataError(f"{here.name} has {ours}, and the model of {file} is for {theirs}")
        for ours, theirs in zip(here.classes, there.classes, strict=True):
            if ours != theirs:
                raise DataError(f"{here.name} has a class {ours} where the model of {file} has {theirs}")
