"""The cache of encoded corpora: one file each in the user's cache folder, memory-mapped when it is used.

A file holds a mark, the length of a description, the description (JSON), the symbols, and a CRC-32 of all
before it. It is named after what it was made of and how, and is believed only if all of that agrees: what is
damaged, cut off or of another kind is as good as missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import unicodedata
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..atomic import replacing
from ..errors import CheckpointError
from .vocabulary import Vocabulary

_HEAD = struct.Struct("<8sQ")  # the mark, the length of the description
_TAIL = struct.Struct("<I")
_MARK = b"trnntxt1"
_ALIGNMENT = 64  # of the symbols in the file
_LITTER_AGE = 86400  # seconds since the last write, after which a temporary file has nobody
_BLOCK = 2**20


@dataclass(frozen=True)
class Key:
    """All that the encoded form depends on. sha256: of the content, in hexadecimal."""

    sha256: str
    encoding: str
    normalize: str | None
    min_count: int

    @property
    def file_name(self) -> str:
        # Another version of Unicode knows more characters that compose.
        form = f"{self.normalize}{unicodedata.unidata_version}" if self.normalize else "plain"
        return f"{self.sha256}-{self.encoding}-{form}-{self.min_count}.symbols"


@dataclass(frozen=True, eq=False)
class Encoded:
    """symbols: those to train on, then those of the validation file. train: how many the first are; None
    if there was no such file."""

    symbols: np.ndarray
    train: int | None
    vocabulary: Vocabulary


def user_folder(part: str = "encoded") -> Path:
    """`tinygrad_rnn/PART` where this system keeps what can be made again, such as ~/.cache."""
    from platformdirs import user_cache_path

    return user_cache_path("tinygrad_rnn", appauthor=False) / part


def find(folder: Path, key: Key) -> Encoded | None:
    """What was kept under `key`, the symbols as a memory map; None if nothing intact is there."""
    try:
        with open(folder / key.file_name, "rb") as file:
            return _read(file, key)
    except (OSError, ValueError, KeyError, TypeError, struct.error, CheckpointError):
        return None


def keep(
    folder: Path, key: Key, vocabulary: Vocabulary, train: int | None, symbols: Iterable[np.ndarray]
) -> None:
    """Write what find() reads, so that at any moment all of it is there or nothing. OSError if that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    with replacing(folder / key.file_name) as file:
        checksum = 0
        for part in chain([_header(key, vocabulary, train)], (piece.tobytes() for piece in symbols)):
            checksum = zlib.crc32(part, checksum)
            file.write(part)
        file.write(_TAIL.pack(checksum))


def _header(key: Key, vocabulary: Vocabulary, train: int | None) -> bytes:
    description = json.dumps(
        {
            "key": asdict(key),
            "vocabulary": vocabulary.to_json(),
            "train": train,
            "dtype": vocabulary.dtype.str,
        }
    ).encode()
    description += b" " * (-(_HEAD.size + len(description)) % _ALIGNMENT)
    return _HEAD.pack(_MARK, len(description)) + description


def _read(file: BinaryIO, key: Key) -> Encoded:
    """What find() returns. Raises one of the errors listed there for anything that keep() did not write."""
    size = os.fstat(file.fileno()).st_size
    mark, length = _HEAD.unpack(file.read(_HEAD.size))
    start = _HEAD.size + length
    if mark != _MARK or start + _TAIL.size > size:
        raise ValueError("not of this kind, or cut off")
    _verify(file, size)
    file.seek(_HEAD.size)
    description = json.loads(file.read(length))
    vocabulary = Vocabulary.from_json(description["vocabulary"])
    if description["key"] != asdict(key) or description["dtype"] != vocabulary.dtype.str:
        raise ValueError("of another corpus or machine")
    count = (size - start - _TAIL.size) // vocabulary.dtype.itemsize
    symbols = np.memmap(file, vocabulary.dtype, "r", offset=start, shape=(count,))
    return Encoded(symbols, description["train"], vocabulary)


def _verify(file: BinaryIO, size: int) -> None:
    """Compare the checksum at the end of the file with that of all before it."""
    file.seek(0)
    checksum, left = 0, size - _TAIL.size
    while left and (block := file.read(min(left, _BLOCK))):
        checksum = zlib.crc32(block, checksum)
        left -= len(block)
    if _TAIL.unpack(file.read()) != (checksum,):
        raise ValueError("damaged")


def _sweep(folder: Path) -> None:
    """Delete what processes that were killed left behind."""
    for litter in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - litter.stat().st_mtime > _LITTER_AGE:
                litter.unlink()
