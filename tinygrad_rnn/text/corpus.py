"""A corpus: a text as an array of symbols, with its vocabulary; a part to train on and a held-out tail.

Byte-order marks and carriage returns are kept as they are: they are symbols like any other. The
vocabulary is that of the whole text, so that the held-out part can be scored; nothing else of that part
is seen in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from ..errors import DataError, UsageError
from .catalogue import CATALOGUE, cached
from .vocabulary import ENCODINGS, Vocabulary, decode_utf8

_PROVIDED = "tinygrad_rnn.corpora"


@dataclass(frozen=True, eq=False)
class Corpus:
    """name: of the file, without its ending. symbols: one-dimensional, of the vocabulary's smallest dtype."""

    name: str
    symbols: np.ndarray
    vocabulary: Vocabulary

    def split(self, val_fraction: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
        """The part to train on, and the held-out tail of `val_fraction` of the symbols (0: none)."""
        held_out = math.ceil(len(self.symbols) * val_fraction)
        cut = len(self.symbols) - held_out
        return self.symbols[:cut], self.symbols[cut:]


def load_corpus(name: str | Path, encoding: str = "utf-8") -> Corpus:
    """The corpus in a file, or of the text that comes with the project under that name.

    Raises DataError for a file that is missing, empty, a folder, unreadable, or not UTF-8.
    """
    if encoding not in ENCODINGS:
        raise UsageError(f"unknown encoding {encoding!r}; there are {' and '.join(ENCODINGS)}")
    path = resolve(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}") from None
    if not data:
        raise DataError(f"{name} is empty; a corpus needs text")
    text: str | bytes = data
    if encoding == "utf-8":
        try:
            text = decode_utf8(data)
        except DataError as error:
            raise DataError(f"{name} is {error}; use --encoding bytes to read it byte by byte") from None
    vocabulary = Vocabulary.of(text)
    return Corpus(Path(name).stem, vocabulary.encode(text), vocabulary)


def resolve(name: str | Path) -> Path:
    """The path of a corpus: the file `name`, else the provided, else the fetched text of that name."""
    path = Path(name)
    if path.is_dir():
        raise DataError(f"{name} is a folder; a corpus is one text file")
    if path.exists():
        return path
    provided = names()
    if path.name == str(name) and path.stem in provided and path.suffix in ("", ".txt"):
        with resources.as_file(resources.files(_PROVIDED) / f"{path.stem}.txt") as file:
            return file
    if path.name == str(name) and path.stem in CATALOGUE and path.suffix in ("", ".txt"):
        if fetched := cached(path.stem):
            return fetched
        raise DataError(f"{path.stem} is not here yet; fetch it with: trnn corpus get {path.stem}")
    raise DataError(f"no file {str(name)!r}, and no text of that name comes along ({', '.join(provided)})")


def names() -> list[str]:
    """The texts that come with the project."""
    files = resources.files(_PROVIDED).iterdir()
    return sorted(file.name.removesuffix(".txt") for file in files if file.name.endswith(".txt"))
