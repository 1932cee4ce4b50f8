"""Batches of images: to train on, each a function of the seed and the step, and to evaluate on, in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import DataError, DtypeError, SettingError, ShapeError
from .augment import Augmentation
from .counted import AUGMENTATION, ORDER, check_seed, counted, permutation

Batch = tuple[np.ndarray, np.ndarray]


class Batches:
    """The batches of a training without end: `batches[step]`, for the step counted from 0 over all epochs.

    A batch is the normalised images, float32 (B, C, H, W), and their labels, int64 (B,). An epoch is all
    images in a random order, in `len(batches)` steps. Its last batch is smaller where the images do not
    divide; if it would be a single image, which batch normalisation cannot take, it is left out.

    images, labels  uint8 (N, C, H, W) and int64 (N,)
    batch_size      images in a batch; of fewer images a batch has all
    seed            of the order and the augmentation. batches[step] depends on nothing else, so that a
                    training that goes on from any step sees what it would have seen.
    augmentation    what happens to the images before they are normalised
    mean, std       of each channel, as numbers of 0 to 1: a pixel becomes (pixel / 255 - mean) / std
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        mean: np.ndarray,
        std: np.ndarray,
    ) -> None:
        _check(images, labels, batch_size)
        check_seed(seed)
        left_over = len(images) % batch_size
        used = len(images) - left_over if left_over == 1 else len(images)
        if used == 0:
            raise DataError("a single image makes no batch; it takes two at least, or a batch size of 1")
        self._images, self._labels = images, labels
        self._batch_size, self._steps = batch_size, -(-used // batch_size)
        self._seed, self._augmentation, self._normal = seed, augmentation, _Normal(mean, std)
        self._epoch, self._order = -1, np.zeros(0, np.intp)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self._steps

    @property
    def sizes(self) -> set[int]:
        """How many images a batch has: the first of an epoch, and the last."""
        starts = (0, (self._steps - 1) * self._batch_size)
        return {min(self._batch_size, len(self._images) - start) for start in starts}

    def __getitem__(self, step: int) -> Batch:
        if step < 0:
            raise IndexError(f"step {step}; the first is 0")
        epoch, number = divmod(step, self._steps)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = permutation(counted(self._seed, ORDER, epoch), len(self._images))
        chosen = self._order[number * self._batch_size : (number + 1) * self._batch_size]
        draw = np.random.Generator(counted(self._seed, AUGMENTATION, step))
        images = self._augmentation.apply(self._images[chosen], draw)
        return self._normal(images), self._labels[chosen]

    @staticmethod
    def evaluation(
        images: np.ndarray, labels: np.ndarray, batch_size: int, mean: np.ndarray, std: np.ndarray
    ) -> Iterator[Batch]:
        """All images once, in their order and as they are but for being normalised; no image is left out."""
        _check(images, labels, batch_size)
        normal = _Normal(mean, std)
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            yield normal(images[part]), labels[part]


class _Normal:
    def __init__(self, mean: np.ndarray, std: np.ndarray) -> None:
        self._mean = np.asarray(mean, np.float32)[:, None, None] * 255
        self._scale = 1 / (np.asarray(std, np.float32)[:, None, None] * 255)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        normalised = images - self._mean  # of float32
        normalised *= self._scale
        return normalised


def _check(images: np.ndarray, labels: np.ndarray, batch_size: int) -> None:
    if images.dtype != np.uint8:
        raise DtypeError(f"images are uint8, 0 to 255, not {images.dtype}")
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ShapeError(f"images are (N, C, H, W) and labels (N,), not {images.shape} and {labels.shape}")
    if batch_size < 1:
        raise SettingError("batch_size", f"must be at least 1, not {batch_size}")
