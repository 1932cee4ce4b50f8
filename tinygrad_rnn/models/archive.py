"""The file that everything trained is kept in: arrays and a header, under a digest over every byte.

It is a standard safetensors file, which holds arrays and text and cannot hold code. What is not an array is
one metadata entry of sorted JSON (the format writes several entries in no fixed order). The entry begins with
the SHA-256 of the whole file, taken with zeros in the digest's own place, so that a file that was cut short
or has a single bit changed is refused before anything in it is believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import write_atomically
from ..errors import CheckpointError

KEY = "tinygrad_rnn"
FORMAT = 2
_BLANK = b"0" * 64
_PREFIX = b'{"__metadata__":{"' + KEY.encode() + b'":"{\\"digest\\": \\"'
_DIGEST = slice(8 + len(_PREFIX), 8 + len(_PREFIX) + 64)  # after the length of the header, eight bytes
_LARGEST_HEADER = 1 << 25  # bytes; a vocabulary of all characters there are takes less than half of it
_DTYPES = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64"}


def write(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write so that at any moment either the old file or the new one is there whole.

    header: for JSON; its keys are words that sort after "digest".
    """
    from safetensors.numpy import save

    text = json.dumps({"digest": _BLANK.decode(), "format": FORMAT, **header}, sort_keys=True)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data = bytearray(save(arrays, {KEY: text}))
    if data[8 : _DIGEST.stop] != _PREFIX + _BLANK:
        raise CheckpointError(f"cannot write {path}: the header does not begin with the digest")
    data[_DIGEST] = hashlib.sha256(data).hexdigest().encode()
    write_atomically(path, data)


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays. CheckpointError for whatever write() has not written."""
    check(path)
    with _opened(path) as (header, file):
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_header(path: Path) -> dict[str, Any]:
    """The header alone; the arrays are checked, but not kept."""
    check(path)
    with _opened(path) as (header, _):
        return header


@contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()[KEY])
            if header["format"] != FORMAT:
                raise CheckpointError(
                    f"{path} has format {header['format']!r}; this version reads format {FORMAT}"
                )
            for name in file.keys():  # noqa: SIM118
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _DTYPES:
                    raise CheckpointError(f"{path}: {name} is of type {dtype}, which no checkpoint has")
            yield header, file
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}") from None


def check(path: Path) -> None:
    """Compare the digest, in a few megabytes of memory. CheckpointError says what is wrong."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_DIGEST.stop)
            header_size = int.from_bytes(start[:8], "little")
            if start[8 : _DIGEST.start] != _PREFIX or len(start) < _DIGEST.stop:
                raise CheckpointError(f"{path} is not a checkpoint of this program, or is damaged")
            if header_size > min(size - 8, _LARGEST_HEADER):
                raise CheckpointError(f"{path} is damaged: its header claims {header_size} bytes")
            digest = hashlib.sha256(start[: _DIGEST.start] + _BLANK)
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    # As text, to the letter: the same number in capitals is a changed file.
    if digest.hexdigest().encode() != start[_DIGEST]:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one written in it")
