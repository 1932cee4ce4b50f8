"""What the readers of files and folders return, and what they share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..text.sources import shortened, unreadable

INSTALL = "pip install 'tinygrad-rnn[vision]'"
MAX_BYTES = 2**33  # of pixels in memory


class Labelled(NamedTuple):
    """images: uint8 (N, C, H, W). labels: int64 (N,), places in the tuple of classes."""

    images: np.ndarray
    labels: np.ndarray


class Collection(NamedTuple):
    """held_out: None where the source does not say what to hold out. skipped: files left out, and why."""

    name: str
    classes: tuple[str, ...]
    train: Labelled
    held_out: Labelled | None = None
    skipped: tuple[str, ...] = ()


def file_names(folder: Path) -> list[str]:
    """The regular files in a folder, hidden ones aside, sorted. DataError if it cannot be read."""
    return [name for name in _names(folder) if os.path.isfile(folder / name)]


def folder_names(folder: Path) -> list[str]:
    """The folders in a folder, hidden ones aside, sorted. A link to the folder itself or to one that holds it
    is not among them. DataError if it cannot be read."""
    here = folder.resolve()
    return [
        name
        for name in _names(folder)
        if os.path.isdir(folder / name) and not here.is_relative_to((folder / name).resolve())
    ]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise unreadable(shown(folder), error) from None


def shown(path: Path) -> str:
    """What an error calls it."""
    return shortened(str(path))


def folder_name(folder: Path) -> str:
    """Its name, also where it is called `.` or `..`."""
    return os.path.basename(os.path.abspath(folder))


def are_published(digests: Mapping[Path, str], published: Mapping[Path, str | None]) -> bool:
    """Whether all files have the digests of a well-known set's; published: None for a file that it has not.

    Many sets come in files of the same names, but one file of the well-known set beside one that has only the
    name of another is a DataError.
    """
    right = [path for path, digest in digests.items() if digest == published[path]]
    wrong = [path for path in digests if published[path] is not None and path not in right]
    if right and wrong:
        raise DataError(
            f"{shown(wrong[0])} is damaged or of another set: {right[0].name} beside it is as published, "
            f"and this should have the digest {published[wrong[0]]}, not {digests[wrong[0]]}"
        )
    return len(right) == len(digests)
