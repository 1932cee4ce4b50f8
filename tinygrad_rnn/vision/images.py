"""A set of images with their classes, a part to train on and a part held out: from a name or a folder."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError, SettingError
from . import cifar, folder, idx
from .collection import INSTALL, MAX_BYTES, Collection, Labelled, file_names, folder_names, shown
from .counted import check_seed
from .shapes import SHAPES, make_shapes
from .split import split

NAMES = ("digits", "shapes")
_MADE = 4000  # images of "shapes"
_SHAPES_SIZE = 32
_MAX_SIZE = 4096
_BLOCK = 2**20  # pixels of a channel that are counted, or made gray, at a time


@dataclass(frozen=True, eq=False)
class ImageSet:
    """What load_images() returns. The arrays are read-only.

    name             of the source: digits, shapes, mnist, cifar-10, or the folder's
    images           uint8 (N, C, H, W), to train on
    labels           int64 (N,), the place of each image's class in `classes`
    held_out_images  the same, to validate with; of length 0 where nothing is held out
    held_out_labels
    classes          their names
    skipped          files that were left out because they are broken, and why
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    held_out_images: np.ndarray
    held_out_labels: np.ndarray
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for array in (self.images, self.labels, self.held_out_images, self.held_out_labels):
            array.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def sha256(self) -> str:
        """In hexadecimal, over all that a training depends on: pixels, labels, classes, what is held out."""
        parts = [self.images, self.labels, self.held_out_images, self.held_out_labels]
        header = {"classes": self.classes, "shapes": [part.shape for part in parts]}
        digest = hashlib.sha256(json.dumps(header).encode("ascii"))
        for part in parts:
            digest.update(np.ascontiguousarray(part, part.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    @property
    def mean(self) -> np.ndarray:
        """Of each channel of the images to train on, as numbers of 0 to 1: float32 (C,)"""
        return self._statistics[0]

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of each channel, likewise; 1 for a channel that is constant."""
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        counts = np.zeros((self.shape[0], 256), np.int64)  # how often each channel has each value
        for part in _parts(self.images):
            for count, pixels in zip(counts, self.images[part].swapaxes(0, 1), strict=True):
                count += np.bincount(pixels.reshape(-1), minlength=256)
        values = np.arange(256) / 255
        share = counts / counts.sum(1, keepdims=True)
        mean = share @ values
        std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
        std[(counts > 0).sum(1) == 1] = 1
        return mean.astype(np.float32), std.astype(np.float32)


def load_images(
    source: str | Path,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    size: int | None = None,
    gray: bool = False,
    broken: Literal["refuse", "skip"] = "refuse",
) -> ImageSet:
    """The set of images that `source` stands for.

    source        - `digits`: the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn, made to
                    bytes by the factor 15
                  - `shapes`: 4,000 images of make_shapes(), the same for every seed
                  - a folder with MNIST's IDX files, or others of the format (idx.py)
                  - a folder with CIFAR-10's binary files (cifar.py)
                  - a folder with a sub-folder of images for each class (folder.py)
                  A folder called as one of the two names comes before it.
    val_fraction  how much of each class is held out, at random (see split()), where the source does not say
                  what to hold out. 0 for nothing.
    seed          of that choice, 0 to 2**64 - 1
    size          all images are resized to size x size; None: as they are
    gray          one channel instead of three, with the weights of ITU-R BT.601
    broken        what becomes of a file in a folder of images that cannot be read: "refuse" raises a
                  DataError that names it, "skip" leaves it out

    Raises DataError for what is missing, damaged or in no form that is known, SettingError for an argument
    that makes no sense.
    """
    if not 0 <= val_fraction < 1:
        raise SettingError("val_fraction", f"must be at least 0 and below 1, not {val_fraction}")
    if size is not None and not 1 <= size <= _MAX_SIZE:
        raise SettingError("size", f"must be from 1 to {_MAX_SIZE}, not {size}")
    if broken not in ("refuse", "skip"):
        raise SettingError("broken", f"must be refuse or skip, not {broken!r}")
    check_seed(seed)

    found = _collection(source, size, gray, broken == "skip")
    if len(found.classes) < 2:
        raise DataError(f"{source} has images of one class only, {found.classes[0]}; it takes two at least")
    if found.held_out is None:
        places = split(found.train.labels, val_fraction, seed, found.classes)
        train, held_out = (Labelled(found.train.images[at], found.train.labels[at]) for at in places)
    else:
        train, held_out = found.train, found.held_out
    train_images, held_out_images = (_as_asked(part.images, size, gray) for part in (train, held_out))
    return ImageSet(
        found.name, train_images, train.labels, held_out_images, held_out.labels, found.classes, found.skipped
    )


def holds_images(source: str | Path) -> bool:
    """Whether images may be what a person meant by `source`: by names alone, nothing is read."""
    path = Path(source)
    if not os.path.lexists(path):
        return str(source) in NAMES
    if not os.path.isdir(path):
        return folder.is_image(path.name)
    try:
        if idx.find(path) or cifar.find(path):
            return True
    except DataError:  # it cannot be read
        return False
    return any(folder.is_image(name) for _, _, names in os.walk(path) for name in names)


def _collection(source: str | Path, size: int | None, gray: bool, skip: bool) -> Collection:
    path = Path(source)
    if not os.path.lexists(path):
        if source == "digits":
            return _digits()
        if source == "shapes":
            channels, size = 1 if gray else 3, size or _SHAPES_SIZE
            _check_room(_MADE, (channels, size, size))
            made = make_shapes(_MADE, size, channels=channels)
            return Collection("shapes", SHAPES, Labelled(*made))
        raise _missing(source)
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise DataError(f"{shown(path)} is a link that leads nowhere")
        raise DataError(f"{shown(path)} is a file; name the folder that images are in{_unpacking(path.name)}")
    if idx.find(path):
        return idx.load(path)
    if cifar.find(path):
        return cifar.load(path)
    inside = folder_names(path)
    for name in inside:
        if idx.find(path / name) or cifar.find(path / name):
            raise DataError(f"{shown(path)} has no images itself; did you mean {shown(path / name)}?")
    if not inside:
        raise _unknown(path)
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise DataError(f"reading a folder of images takes Pillow: {INSTALL}") from None
    return folder.load(path, size, gray, skip)


def _digits() -> Collection:
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(f"the digits come with scikit-learn, which is not installed: {INSTALL}") from None
    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8)[:, None]  # whole numbers, 0 to 16
    return Collection(
        "digits",
        tuple(str(name) for name in digits.target_names),
        Labelled(images, digits.target.astype(np.int64)),
    )


def _missing(source: str | Path) -> DataError:
    name = str(source)
    if os.path.basename(name) == name and (near := difflib.get_close_matches(name.lower(), NAMES, n=1)):
        return DataError(f"no folder {name!r}; did you mean {near[0]}?")
    return DataError(f"no folder {name!r}, and no images of that name come along ({', '.join(NAMES)})")


def _unpacking(name: str) -> str:
    return f", after unpacking it: tar -xf {name}" if name.endswith((".tar.gz", ".tgz", ".tar")) else ""


def _unknown(path: Path) -> DataError:
    files = file_names(path)
    if "data_batch_1" in files:
        return DataError(
            f"{shown(path)} has CIFAR-10 as Python pickles, which are not read; get its binary version"
        )
    if any(map(folder.is_image, files)):
        raise DataError(
            f"{shown(path)} has images, but no folders; give each class, at least two, a folder of its "
            "images, and name the folder that has those in it"
        )
    listed = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
    found = f"{len(files):,} file{'' if len(files) == 1 else 's'} ({listed})" if files else "no files"
    return DataError(
        f"{shown(path)} has {found} and no folders; known are "
        "IDX files (train-images-idx3-ubyte, ...), CIFAR-10's binary files (data_batch_1.bin, ...), and a "
        "folder of images for each class"
    )


def _check_room(count: int, shape: tuple[int, int, int]) -> None:
    if (total := count * math.prod(shape)) > MAX_BYTES:
        raise DataError(
            f"{count:,} images of {shape[2]}x{shape[1]} take {total / 2**30:,.0f} GiB, of {MAX_BYTES >> 30} "
            "possible; use a smaller --size"
        )


def _as_asked(images: np.ndarray, size: int | None, gray: bool) -> np.ndarray:
    """The images in gray and resized, where that is asked for and they are not so yet."""
    if gray and images.shape[1] == 3:
        images = _gray(images)
    if size is None or images.shape[2:] == (size, size):
        return images
    try:
        from PIL import Image
    except ImportError:
        raise DataError(f"resizing images takes Pillow: {INSTALL}") from None
    _check_room(len(images), (images.shape[1], size, size))
    resized = np.empty((*images.shape[:2], size, size), np.uint8)
    for image, channels in zip(images, resized, strict=True):
        for pixels, out in zip(image, channels, strict=True):
            out[...] = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return resized


def _parts(images: np.ndarray) -> Iterator[slice]:
    """Of (N, C, H, W) at most _BLOCK pixels of a channel, but an image at least."""
    count = max(1, _BLOCK // math.prod(images.shape[2:]))
    return (slice(start, start + count) for start in range(0, len(images), count))


def _gray(images: np.ndarray) -> np.ndarray:
    weights = np.array([19595, 38470, 7471], np.uint32)[:, None, None]  # of 2**16, as Pillow has them
    result = np.empty((len(images), 1, *images.shape[2:]), np.uint8)
    for part in _parts(images):
        result[part] = ((images[part] * weights).sum(1, keepdims=True) + 2**15) >> 16
    return result
