"""Where a corpus comes from: files, folders, standard input, texts that come along; all read in blocks."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from .catalogue import CATALOGUE, cached

STDIN = "-"
RUN_MARK = "run.lock"  # a file that every run folder has
_PROVIDED = "tinygrad_rnn.corpora"
_LOOKED_AT = 8192  # bytes of a file, to see whether it is text


@dataclass(frozen=True)
class Source:
    """Bytes that can be read as often as needed. shown: what an error calls them."""

    shown: str
    content: Path | BinaryIO

    def blocks(self, size: int) -> Iterator[bytes]:
        """The bytes from the first to the last, at most `size` at a time."""
        try:
            if isinstance(self.content, Path):
                with open(self.content, "rb", buffering=0) as file:
                    yield from iter(lambda: file.read(size), b"")
            else:
                self.content.seek(0)
                yield from iter(lambda: self.content.read(size), b"")  # type: ignore[union-attr]
        except OSError as error:
            raise unreadable(self.shown, error) from None


def find_sources(names: Iterable[str | Path], spools: ExitStack, folder: Path) -> list[Source]:
    """The sources that `names` stand for, in their order.

    A name is that of a file, of a text that comes along, of a folder, or "-" for standard input. A folder
    stands for the text files in it and below, in the order of their paths; left out are hidden files and
    folders, folders of runs, and files with a zero byte near their beginning, which are no text.

    What can be read only once (standard input, a named pipe) is first copied to a file in `folder`, or
    where temporary files go if that does not work. The file has no name and lives until `spools` is closed.
    """
    sources: list[Source] = []
    for name in names:
        if str(name) == STDIN:
            sources.append(_spooled("standard input", _stdin(), spools, folder))
            continue
        path = resolve(name)
        if os.path.isdir(path):
            sources += [Source(shortened(str(file)), file) for file in text_files(path)]
        elif os.path.isfile(path):
            sources.append(Source(shortened(str(name)), path))
        else:
            try:
                with open(path, "rb") as pipe:
                    sources.append(_spooled(str(name), pipe, spools, folder))
            except OSError as error:
                raise unreadable(str(name), error) from None
    return sources


def resolve(name: str | Path) -> Path:
    """The path of a corpus: the file `name`, else the provided, else the fetched text of that name."""
    path = Path(name)
    if os.path.lexists(name):
        return path
    provided = names()
    if path.name == str(name) and path.stem in provided and path.suffix in ("", ".txt"):
        with resources.as_file(resources.files(_PROVIDED) / f"{path.stem}.txt") as file:
            return file
    if path.name == str(name) and path.stem in CATALOGUE and path.suffix in ("", ".txt"):
        if fetched := cached(path.stem):
            return fetched
        raise DataError(f"{path.stem} is not here yet; fetch it with: trnn corpus get {path.stem}")
    near = (
        difflib.get_close_matches(path.stem, [*provided, *CATALOGUE], n=1) if path.name == str(name) else []
    )
    if not near:
        known = ", ".join(provided)
        raise DataError(f"no file {str(name)!r}, and no text of that name comes along ({known})")
    get = "" if near[0] in provided or cached(near[0]) else f" fetch it with: trnn corpus get {near[0]}"
    raise DataError(f"no file {str(name)!r}; did you mean {near[0]}?{get}")


def names() -> list[str]:
    """The texts that come with the project."""
    files = resources.files(_PROVIDED).iterdir()
    return sorted(file.name.removesuffix(".txt") for file in files if file.name.endswith(".txt"))


def holds_text(name: str | Path) -> bool:
    """Whether find_sources() would find text there; nothing but the beginnings of files is read."""
    try:
        path = resolve(name)
        return bool(text_files(path)) if os.path.isdir(path) else os.path.isfile(path) and _is_text(path)
    except DataError:
        return False


def text_files(folder: Path) -> list[Path]:
    """The text files in a folder and below, as find_sources() describes. DataError if there are none."""

    def fail(error: OSError) -> None:
        raise unreadable(error.filename, error)

    files: list[Path] = []
    for at, folders, found in os.walk(folder, onerror=fail):
        if RUN_MARK in found:  # what a training left behind is no text
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(at, name) for name in found if not name.startswith(".")]
    texts = [file for file in files if os.path.isfile(file) and _is_text(file)]
    if not texts:
        raise DataError(f"no text file in {folder} or below, hidden ones aside ({len(files)} of other kinds)")
    return sorted(texts, key=lambda file: file.relative_to(folder).as_posix())


def shortened(source: str) -> str:
    """A path as seen from here, where that is shorter."""
    try:
        return min(source, str(Path(source).relative_to(Path.cwd())), key=len)
    except ValueError:
        return source


def vanishing_file(folder: Path) -> BinaryIO:
    """An open file without a name, gone when it is closed; in `folder`, or else where temporary files go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)  # type: ignore[return-value]
    except OSError:
        return tempfile.TemporaryFile()  # type: ignore[return-value]


def unreadable(shown: str, error: OSError) -> DataError:
    return DataError(f"cannot read {shown}: {error.strerror or error}")


def _is_text(file: Path) -> bool:
    try:
        with open(file, "rb") as opened:
            return b"\0" not in opened.read(_LOOKED_AT)
    except OSError as error:
        raise unreadable(str(file), error) from None


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise DataError("cannot read standard input: it is closed")
    return sys.stdin.buffer


def _spooled(shown: str, pipe: BinaryIO, spools: ExitStack, folder: Path) -> Source:
    try:
        spool = spools.enter_context(vanishing_file(folder))
        shutil.copyfileobj(pipe, spool, 2**20)
        spool.flush()
    except OSError as error:
        raise DataError(f"cannot keep what {shown} says: {error.strerror or error}") from None
    return Source(shown, spool)
