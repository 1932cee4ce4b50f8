"""Texts that are made, by name, to a size, from a seed: `make`.

The same seed gives the same bytes on every platform and with every version of Python and NumPy: the only
source of chance is `random.Random(seed).random`, the one method whose numbers Python promises not to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from ..atomic import replacing
from ..errors import UsageError
from . import arithmetic, dyck, reber
from .python_source import python_source

_PIECE = 1 << 16  # bytes, about


class Recipe(NamedTuple):
    """lines: ASCII lines without end from uniform numbers. entropy: of the text, in nats a character.

    The entropy is the loss of a model that has understood everything: on new lines none can stay below it.
    """

    lines: Callable[[Callable[[], float]], Iterator[str]]
    entropy: float


RECIPES = {
    "arithmetic": Recipe(arithmetic.sums, arithmetic.ENTROPY),
    "dyck": Recipe(dyck.words, dyck.ENTROPY),
    "reber": Recipe(reber.strings, reber.ENTROPY),
}


def make(source: str, size: int, seed: int | None = None) -> Iterator[bytes]:
    """A text of whole lines, at most `size` bytes, in pieces. A larger one begins with the smaller one.

    `source` is "python" or one of RECIPES. Seed 0 unless given; python has none. Raises UsageError if
    not a single line fits.
    """
    if source == "python":
        if seed is not None:
            raise UsageError("python takes no --seed: it is the source code of this interpreter's library")
        pieces = python_source(size)
    elif source in RECIPES:
        pieces = _up_to(size, RECIPES[source].lines(Random(seed or 0).random))
    else:
        raise UsageError(f"no text {source!r} to make; there are python, {', '.join(RECIPES)}")
    empty = True
    for piece in pieces:
        empty = False
        yield piece
    if empty:
        raise UsageError(f"not even the first line of {source} fits into {size:,} bytes; ask for more")


def _up_to(size: int, lines: Iterator[str]) -> Iterator[bytes]:
    """The lines before the first one that `size` bytes have no room for."""
    piece: list[str] = []
    length = 0
    for line in lines:
        if length + len(line) > size:
            break
        piece.append(line)
        length += len(line)
        if length >= _PIECE:
            yield "".join(piece).encode("ascii")
            size -= length
            piece, length = [], 0
    if piece:
        yield "".join(piece).encode("ascii")


def write(path: Path, pieces: Iterable[bytes]) -> int:
    """Write the pieces as they come, all or nothing. Gives the size."""
    with replacing(path) as file:
        for piece in pieces:
            file.write(piece)
        return file.tell()
