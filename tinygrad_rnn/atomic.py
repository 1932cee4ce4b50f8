"""Files that are either the old one or the new one, whole, whatever happens while they are written."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """In this block an OSError names `path`: what write and flush raise knows only a number."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which at the end of the block becomes `path`, in place of what was there.

    It has a temporary name in the same folder until then, and is flushed to disk before it is renamed. If the
    block fails, nothing has happened. Permissions are as the umask says. An OSError names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise


def write_atomically(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write the whole file, or leave what was there."""
    with replacing(path) as file:
        file.write(data)


def flush_folder(folder: Path) -> None:
    """Have the disk hold the names in `folder`: a rename changes the folder, not the file."""
    if os.name != "posix":
        return
    with naming(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what writers that died left in `folder`. Only for one who knows that none is at work there."""
    for litter in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(litter.name):  # and nobody else's
            with suppress(OSError):
                litter.unlink()
