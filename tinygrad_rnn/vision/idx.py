"""IDX files, the format of MNIST (LeCun, Cortes and Burges): big-endian, a header and then the numbers.

    byte 0-1   zero
    byte 2     the type of the numbers: 8 for unsigned bytes, the only one read here
    byte 3     how many dimensions
    then       each dimension, four bytes

A part of a set is a pair of files, `PART-images-idx3-ubyte` of shape (N, H, W) and `PART-labels-idx1-ubyte`
of shape (N,), as they are or compressed (.gz); some copies have a dot before `idx`.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..text.sources import unreadable
from .collection import MAX_BYTES, Collection, Labelled, are_published, file_names, folder_name, shown

_NAME = re.compile(r"(?P<part>.*?)-?(?P<what>images(?=.idx3)|labels(?=.idx1))[-.]idx\d-ubyte(\.gz)?")
_AXES = {"images": 3, "labels": 1}
_UNSIGNED_BYTES = 8
_BLOCK = 2**20

Files = dict[tuple[str, str], Path]  # by part and what it has, images or labels

# SHA-256 of MNIST's files, uncompressed.
MNIST = {
    "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def find(folder: Path) -> Files:
    """The IDX files of a folder by part and content; of several copies the uncompressed one."""
    found: Files = {}
    for name in file_names(folder):  # sorted: NAME comes before NAME.gz
        if match := _NAME.fullmatch(name):
            found.setdefault((match["part"], match["what"]), folder / name)
    return found


def load(folder: Path) -> Collection:
    """The set in the IDX files of `folder`: `train` to train on, `t10k` or `test` held out, or a single pair.

    Classes are the labels that occur in what is trained on. DataError for a file that is missing or damaged.
    """
    found = find(folder)
    names = sorted({part for part, _ in found})
    train, held_out = _roles(folder, names)
    digests: dict[Path, str] = {}
    parts = [_part(folder, name, found, digests) for name in (train, held_out) if name is not None]
    published = are_published(digests, {path: MNIST.get("-".join(key)) for key, path in found.items()})

    labels = parts[0].labels
    values, counts = np.unique(labels, return_counts=True)
    if (once := values[counts == 1]).size:
        place = int(np.flatnonzero(labels == once[0])[0])
        raise DataError(
            f"{shown(found[train, 'labels'])}: label {once[0]} occurs only once, at image {place:,}; "
            "a class needs at least two images"
        )
    if held_out is not None:
        _check_held_out(parts, values, found[held_out, "images"], found[held_out, "labels"])
    whole, *rest = (Labelled(part.images, np.searchsorted(values, part.labels)) for part in parts)
    name = "mnist" if published else folder_name(folder)
    return Collection(name, tuple(str(value) for value in values), whole, rest[0] if rest else None)


def _roles(folder: Path, names: list[str]) -> tuple[str, str | None]:
    if len(names) == 1:
        return names[0], None
    train = [name for name in names if name.endswith("train")]
    held_out = [name for name in names if name.endswith(("t10k", "test"))]
    if len(names) != 2 or len(train) != 1 or len(held_out) != 1:
        raise DataError(
            f"{shown(folder)} has IDX files of {', '.join(names)}; "
            "a folder may have train, and one of t10k and test"
        )
    return train[0], held_out[0]


def _part(folder: Path, name: str, found: Files, digests: dict[Path, str]) -> Labelled:
    for what, other in (("images", "labels"), ("labels", "images")):
        if (name, what) not in found:
            raise DataError(f"{shown(folder)} has {found[name, other].name} and no {what} to go with it")
    images, labels = (read(found[name, what], _AXES[what], digests) for what in ("images", "labels"))
    if len(images) != len(labels):
        raise DataError(
            f"{shown(folder)}: {found[name, 'images'].name} has {len(images):,} images, "
            f"{found[name, 'labels'].name} has {len(labels):,} labels"
        )
    return Labelled(images[:, None], labels.astype(np.int64))


def _check_held_out(parts: list[Labelled], values: np.ndarray, images: Path, labels: Path) -> None:
    (_, _, height, width), (_, _, held_height, held_width) = (part.images.shape for part in parts)
    if (height, width) != (held_height, held_width):
        raise DataError(
            f"{shown(images)} has images of {held_height}x{held_width}; "
            f"those to train on are {height}x{width}"
        )
    if (unknown := np.flatnonzero(~np.isin(parts[1].labels, values))).size:
        raise DataError(
            f"{shown(labels)}: image {unknown[0]:,} has the label {parts[1].labels[unknown[0]]}, "
            f"which no image to train on has; there the labels are {values[0]} to {values[-1]}"
        )


def read(path: Path, axes: int, digests: dict[Path, str]) -> np.ndarray:
    """The numbers of one file, of the shape that its header says, and into `digests` its SHA-256.

    What the header says is compared with what the file holds before there is memory for it.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            header = file.read(4 + 4 * axes)
            shape = _shape(path, header, axes)
            expected = len(header) + math.prod(shape)
            if not packed and (size := os.fstat(file.fileno()).st_size) != expected:
                raise _size(path, shape, expected, f"{size:,}")
            blocks, left = [header], expected - len(header)
            while left and (block := file.read(min(left, _BLOCK))):
                blocks.append(block)
                left -= len(block)
            if left:
                raise _size(path, shape, expected, f"{expected - left:,}")
            if file.read(1):
                raise _size(path, shape, expected, "more")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{shown(path)} is no whole gzip file: {error}") from None
    except OSError as error:
        raise unreadable(shown(path), error) from None
    content = b"".join(blocks)
    digests[path] = hashlib.sha256(content).hexdigest()
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _shape(path: Path, header: bytes, axes: int) -> tuple[int, ...]:
    expected = bytes([0, 0, _UNSIGNED_BYTES, axes])
    if header[:4] != expected:
        raise DataError(
            f"{shown(path)} is no IDX file of unsigned bytes with {axes} {'axes' if axes > 1 else 'axis'}: "
            f"it begins with {header[:4].hex(' ') or 'nothing'}, not {expected.hex(' ')}"
        )
    if len(header) != 4 + 4 * axes:
        raise DataError(f"{shown(path)} ends in its header, after {len(header)} of {4 + 4 * axes} bytes")
    shape = tuple(int(length) for length in np.frombuffer(header, ">u4", offset=4))
    if not 0 < math.prod(shape) <= MAX_BYTES:
        raise DataError(
            f"{shown(path)} says it has the shape {shape}: {math.prod(shape):,} bytes, "
            f"of 1 to {MAX_BYTES:,} possible"
        )
    return shape


def _size(path: Path, shape: tuple[int, ...], expected: int, seen: str) -> DataError:
    return DataError(f"{shown(path)} has the shape {shape} in {expected:,} bytes, it says, and has {seen}")
