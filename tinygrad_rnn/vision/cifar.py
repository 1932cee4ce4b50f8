"""CIFAR-10's binary files (Krizhevsky, 2009): no header; records of a label and an image of 3x32x32 bytes."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..text.sources import unreadable
from .collection import MAX_BYTES, Collection, Labelled, are_published, file_names, folder_name, shown

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
CLASSES = 10
_TRAIN = re.compile(r"data_batch_([1-9])\.bin")
_TEST = "test_batch.bin"
_META = "batches.meta.txt"
_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# SHA-1 of the published files, as Apache MXNet's gluon.data.vision.CIFAR10 checks them.
CIFAR10 = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}


def find(folder: Path) -> list[Path]:
    """The files to train on in a folder, in the order of their numbers."""
    return [folder / name for name in file_names(folder) if _TRAIN.fullmatch(name)]


def load(folder: Path) -> Collection:
    """The set in `data_batch_1.bin` and on, to train on, and `test_batch.bin`, held out if it is there.

    The names of the classes are those of `batches.meta.txt`. DataError for a file that is missing or damaged.
    """
    files = find(folder)
    for number, path in enumerate(files, 1):
        if path.name != f"data_batch_{number}.bin":
            raise DataError(f"{shown(folder)} has {path.name} and no data_batch_{number}.bin")
    digests: dict[Path, str] = {}
    train = [read(path, digests) for path in files]
    test = read(folder / _TEST, digests) if _TEST in file_names(folder) else None
    published = are_published(digests, {path: CIFAR10.get(path.name) for path in digests})
    together = Labelled(*(np.concatenate(arrays) for arrays in zip(*train, strict=True)))
    names = _class_names(folder, published)
    return Collection("cifar-10" if published else folder_name(folder), names, together, test)


def read(path: Path, digests: dict[Path, str]) -> Labelled:
    """The images and labels of one file, and into `digests` its SHA-1."""
    try:
        size = os.path.getsize(path)
        if size == 0 or size % RECORD or size > MAX_BYTES:
            raise DataError(
                f"{shown(path)} has {size:,} bytes, which are no whole images of {RECORD:,} bytes "
                f"(a label and 3x32x32); CIFAR-10's files have {10_000 * RECORD:,}"
            )
        content = np.fromfile(path, np.uint8, size)
    except OSError as error:
        raise unreadable(shown(path), error) from None
    if len(content) != size:
        raise DataError(f"{shown(path)} changed while being read; try again when nothing writes to it")
    records = content.reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    if (wrong := np.flatnonzero(labels >= CLASSES)).size:
        raise DataError(
            f"{shown(path)}: image {wrong[0]:,} has the label {labels[wrong[0]]}, of 0 to 9 possible"
        )
    digests[path] = hashlib.sha1(content.data, usedforsecurity=False).hexdigest()
    return Labelled(records[:, 1:].reshape(-1, *SHAPE), labels)


def _class_names(folder: Path, published: bool) -> tuple[str, ...]:
    path = folder / _META
    if not path.is_file():
        return _NAMES if published else tuple(str(label) for label in range(CLASSES))
    try:
        with open(path, "rb") as file:
            text = file.read(2**16).decode("utf-8")
    except OSError as error:
        raise unreadable(shown(path), error) from None
    except UnicodeDecodeError:
        raise DataError(f"{shown(path)} is no text") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) != CLASSES or len(set(names)) != CLASSES:
        raise DataError(
            f"{shown(path)} must have {CLASSES} different names, a line each; it has {len(names)} lines"
        )
    return names
