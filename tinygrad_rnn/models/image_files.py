"""A trained image classifier in a file: `save` and `load`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, ShapeError, TinygradError
from . import files
from .image_classifiers import IMAGE_MODELS, ImageClassifier, fewest_numbers

LARGEST = 2**16  # of a size or a number of classes


@dataclass(frozen=True)
class ImageNotes:
    """What it takes to use a classifier: the names of its classes, and how it wants to see images.

    shape      (C, H, W) of those it learnt from
    mean, std  of each channel, as numbers of 0 to 1: a pixel becomes (pixel / 255 - mean) / std
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, C, H, W) as the model takes them: float32. ShapeError for other shapes."""
        if images.ndim != 4 or images.shape[1:] != self.shape:
            raise ShapeError(f"the model is for images of shape {self.shape}, not {images.shape[1:]}")
        mean, std = (np.array(of, np.float32)[:, None, None] for of in (self.mean, self.std))
        return (images / np.float32(255) - mean) / std

    def to_json(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return {name: list(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ImageNotes:
        """The inverse. TypeError or ValueError for what to_json() has not made."""
        if set(record) != {"classes", "shape", "mean", "std"}:
            raise TypeError(f"images are described by {sorted(record)}")
        if not all(type(value) in (list, tuple) for value in record.values()):
            raise TypeError("images are described by what is no list")
        notes = cls(**{name: tuple(value) for name, value in record.items()})
        channels = len(notes.mean)
        if not all(type(name) is str for name in notes.classes) or len(notes.classes) < 1:
            raise TypeError("the classes have no names")
        if len(set(notes.classes)) < len(notes.classes):
            raise ValueError("two classes have the same name")
        if len(notes.shape) != 3 or not all(type(n) is int and 1 <= n <= LARGEST for n in notes.shape):
            raise TypeError(f"images have the shape {notes.shape}")
        numbers = [*notes.mean, *notes.std]
        if not all(type(n) in (int, float) and abs(n) < 1e30 for n in numbers) or min(notes.std) < 1e-30:
            raise TypeError("mean and standard deviation are no numbers")
        if channels != notes.shape[0] or len(notes.std) != channels:
            raise ValueError(f"{notes.shape[0]} channels have {channels} means, {len(notes.std)} deviations")
        return notes


class LoadedClassifier(NamedTuple):
    """What a file holds: the model in evaluation mode, how it sees images, and notes such as the step."""

    model: ImageClassifier
    images: ImageNotes
    meta: dict[str, Any]


def save(
    path: str | os.PathLike,
    model: ImageClassifier,
    images: ImageNotes,
    meta: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write the model as files.save() writes a character model."""
    name = next(name for name, kind in IMAGE_MODELS.items() if type(model) is kind)
    described = {"images": images.to_json(), "model": {"name": name, **model.config()}}
    files.write(Path(path), model, described, meta, training, arrays)


def load(path: str | os.PathLike) -> LoadedClassifier:
    """Open a classifier's file, or the best one (else the newest) of a run folder.

    Raises CheckpointError for anything that is not one, saying why.
    """
    return classifier_of(*files.read(files.find_checkpoint(Path(path))))


def _kind_of(name: Any, config: Mapping[str, Any]) -> type[ImageClassifier]:
    """The class of a header's model. CheckpointError for options that are not its own."""
    if not isinstance(name, str) or name not in IMAGE_MODELS:
        raise CheckpointError(f"it is called {name!r}, and known are {', '.join(IMAGE_MODELS)}")
    known = inspect.signature(IMAGE_MODELS[name]).parameters
    if set(config) != set(known):
        raise CheckpointError(f"a {name} is described by {', '.join(known)}, not {', '.join(config)}")
    for option, value in config.items():
        wanted = type(known[option].default)
        if type(value) is not wanted:
            raise CheckpointError(f"{option} must be of type {wanted.__name__}, not {type(value).__name__}")
    return IMAGE_MODELS[name]


def classifier_of(file: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> LoadedClassifier:
    """The classifier in what files.read() returned; what belongs to its training is left aside."""
    files.refuse_other_task(file, header, "images")
    try:
        notes = ImageNotes.from_json(header["images"])
        config = dict(header["model"])
        kind = _kind_of(config.pop("name"), config)
        weights = {name: array for name, array in arrays.items() if "/" not in name}
        numbers = sum(array.size for array in weights.values())
        sizes = {name: config[name] for name in ("depth", "width", "classes", "in_channels")}
        for name, size in sizes.items():  # before memory is asked for
            if not 1 <= size <= min(numbers, LARGEST):
                raise CheckpointError(f"{name} is {size!r}, and there are {numbers} numbers in all")
        if (fewest := fewest_numbers(**sizes)) > numbers:
            raise CheckpointError(f"it would have {fewest} numbers at least, and there are {numbers} in all")
        if (config["classes"], config["in_channels"]) != (len(notes.classes), notes.shape[0]):
            raise CheckpointError("the model has other inputs or outputs than its images")
        model = kind(**config)
        model.load_state_dict(weights)
        meta = dict(header["meta"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, MemoryError, TinygradError) as error:
        raise CheckpointError(f"{file} does not hold a model of this program: {error}") from None
    return LoadedClassifier(model.eval(), notes, meta)
