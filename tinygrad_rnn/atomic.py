"""Files that are either the old one or the new one, whole, whatever happens while they are written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write to a temporary name in the same folder, flush to disk, rename. Permissions are the umask's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Have the disk hold the names in `folder`: a rename changes the folder, not the file."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what writers that died left in `folder`. Only for one who knows that none is at work there."""
    for litter in folder.glob(".*.tmp"):
        with suppress(OSError):
            litter.unlink()
