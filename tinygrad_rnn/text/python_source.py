"""A corpus of Python: the standard library's own source, of the interpreter that runs this."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

# Tests, other people's packages, and what the build of this interpreter left behind.
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_SKIPPED_PREFIXES = ("_sysconfigdata", "test_")


def python_source(size: int) -> Iterator[bytes]:
    """At most `size` bytes of source, files in the order of their paths, the last one cut at a line's end.

    Less if the standard library is smaller. The same interpreter always gives the same bytes.
    """
    for path in _source_files(Path(sysconfig.get_path("stdlib"))):
        source = path.read_bytes()
        try:
            source.decode("utf-8")
        except UnicodeDecodeError:
            continue
        fitting = source if len(source) <= size else source[: source.rfind(b"\n", 0, size) + 1]
        if fitting:
            yield fitting
        if fitting is not source:
            break
        size -= len(source)


def _source_files(folder: Path) -> Iterator[Path]:
    files = [path.relative_to(folder) for path in folder.rglob("*.py")]
    for file in sorted(files, key=lambda path: path.as_posix()):
        if _SKIPPED_FOLDERS.isdisjoint(file.parts) and not file.name.startswith(_SKIPPED_PREFIXES):
            yield folder / file
