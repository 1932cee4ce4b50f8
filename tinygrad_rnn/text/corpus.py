"""A corpus: texts as symbols, however many, with their vocabulary; a part to train on and a part held out.

Nothing is ever in memory whole. A text is read in pieces, once to hash it, and unless its encoded form is in
the cache (see cache.py), once to count its characters and once to encode them into a file there, which is
then memory-mapped.

Byte-order marks and carriage returns are kept as they are: they are symbols like any other.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError, SettingError, UsageError
from . import cache as cached
from .cache import Encoded, Key
from .reading import Text
from .sources import STDIN, find_sources, vanishing_file
from .vocabulary import ENCODINGS, Vocabulary

CACHED_FROM = 2**20  # bytes of symbols; encoding fewer takes no time
IN_MEMORY = 2**26  # bytes of symbols that are kept in memory where the cache cannot be written


@dataclass(frozen=True, eq=False)
class Corpus:
    """What load_corpus() returns.

    name        of the first source, without its ending; "stdin" for standard input
    train       symbols to train on: one-dimensional, read-only, of the vocabulary's smallest dtype; of all
                but small corpora a memory map
    held_out    the same, to validate with; of length 0 where nothing is held out
    vocabulary  of both parts, so that the held-out one can be scored. Nothing else of it is in what training
                sees.
    sha256      of the content as it is on disk, in hexadecimal; of sources without a validation file what
                `cat SOURCES... | sha256sum` prints
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray
    vocabulary: Vocabulary
    sha256: str


def load_corpus(
    sources: str | Path | Sequence[str | Path],
    *,
    encoding: str = "utf-8",
    normalize: str | None = None,
    min_count: int = 1,
    val_fraction: float = 0.1,
    val_file: str | Path | None = None,
    cache: Path | None = None,
) -> Corpus:
    """The corpus that one or several sources make, one after the other as if `cat` had joined them.

    sources       files, folders (all text files in them and below), texts that come along, by name, and "-"
                  for standard input: see sources.py
    encoding      "utf-8": a symbol is a character; "bytes": a symbol is a byte, of any files
    normalize     "nfc": characters in Unicode's composed form; None: as they are
    min_count     what occurs less often in all of the text, held-out part included, becomes the vocabulary's
                  unknown symbol
    val_fraction  part of the symbols, at the end, that is held out: 0 for none
    val_file      a source to hold out instead; then all of `sources` is trained on
    cache         folder of encoded corpora; None: the user's. Where it cannot be written, a large corpus is
                  encoded into a temporary file at each start.

    Raises DataError for what is missing, empty, unreadable, or not UTF-8, and UsageError for options that
    make no sense.
    """
    named = [sources] if isinstance(sources, str | Path) else list(sources)
    piped = [str(name) for name in (*named, val_file)].count(STDIN)
    _check(named, piped, encoding, normalize, min_count, val_fraction)
    folder = cached.user_folder() if cache is None else cache
    with ExitStack() as spools:
        texts = [
            Text(find_sources(names, spools, folder), encoding, normalize)
            for names in ([named] if val_file is None else [named, [val_file]])
        ]
        key = Key(_digest(texts), encoding, normalize, min_count)
        encoded = cached.find(folder, key) or _encoded(texts, key, folder, piped)
    return _corpus(_name(named[0]), key, encoded, val_fraction)


def load_cached(
    sha256: str,
    *,
    name: str,
    encoding: str = "utf-8",
    normalize: str | None = None,
    min_count: int = 1,
    val_fraction: float = 0.1,
    cache: Path | None = None,
) -> Corpus | None:
    """The corpus of that digest as load_corpus() made it, out of the cache alone; None if it is not there.

    For what cannot be read a second time: a corpus from standard input is always kept in the cache.
    """
    key = Key(sha256, encoding, normalize, min_count)
    encoded = cached.find(cached.user_folder() if cache is None else cache, key)
    return None if encoded is None else _corpus(name, key, encoded, val_fraction)


def _check(
    named: list[str | Path],
    piped: int,
    encoding: str,
    normalize: str | None,
    min_count: int,
    val_fraction: float,
) -> None:
    if not named:
        raise UsageError("a corpus needs at least one file, folder or name")
    if piped > 1:
        raise UsageError("standard input can be read only once; name - once")
    if encoding not in ENCODINGS:
        raise SettingError("encoding", f"must be {' or '.join(ENCODINGS)}, not {encoding!r}")
    if normalize not in (None, "nfc"):
        raise SettingError("normalize", f"must be nfc, not {normalize!r}")
    if normalize and encoding == "bytes":
        raise UsageError("bytes have no normal form; use nfc with the encoding utf-8")
    if min_count < 1:
        raise SettingError("min_count", f"must be at least 1, not {min_count}")
    if not 0 <= val_fraction < 1:
        raise SettingError("val_fraction", f"must be at least 0 and below 1, not {val_fraction}")


def _digest(texts: list[Text]) -> str:
    """Of one text its own; of a text and a validation file that of both digests, since it matters where the
    one ends and the other begins."""
    digests = [text.digest() for text in texts]
    return (digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()).hex()


def _encoded(texts: list[Text], key: Key, folder: Path, piped: int) -> Encoded:
    counts = [text.counts() for text in texts]
    for text, count in zip(texts, counts, strict=True):
        if not count.any():
            raise DataError(f"{text.shown} is empty; a corpus needs text")
    together = np.sum(counts, axis=0)
    vocabulary = Vocabulary.counted(key.encoding, together, key.min_count)
    if len(vocabulary.codes) == 0:
        raise DataError(f"nothing occurs {key.min_count} times, the commonest symbol {together.max()} times")
    train = None if len(texts) == 1 else int(counts[0].sum())

    def symbols() -> Iterator[np.ndarray]:
        # There is nothing to skip unless the text has changed by now, which pieces() tells at its end.
        unknown = "skip" if vocabulary.unknown is None else "replace"
        for text in texts:
            yield from (vocabulary.encode(piece, unknown) for piece in text.pieces())

    size = int(together.sum()) * vocabulary.dtype.itemsize
    if size >= CACHED_FROM or piped:
        try:
            cached.keep(folder, key, vocabulary, train, symbols())
        except OSError:
            pass
        else:
            if encoded := cached.find(folder, key):
                return encoded
    return Encoded(_uncached(symbols, size, vocabulary.dtype, folder), train, vocabulary)


def _uncached(
    symbols: Callable[[], Iterable[np.ndarray]], size: int, dtype: np.dtype, folder: Path
) -> np.ndarray:
    """All symbols, in memory if they take little of it, else in a temporary file that vanishes."""
    if size <= IN_MEMORY:
        return np.concatenate([*symbols()])
    try:
        with vanishing_file(folder) as file:
            for piece in symbols():
                file.write(piece.data)
            file.flush()
            return np.memmap(file, dtype, "r")
    except OSError as error:
        raise DataError(
            f"no room for the {size / 1e6:,.0f} MB of the encoded corpus in {folder} or "
            f"{tempfile.gettempdir()} ({error.strerror or error}); free some, or "
            "set TMPDIR to a folder that has it"
        ) from None


def _corpus(name: str, key: Key, encoded: Encoded, val_fraction: float) -> Corpus:
    symbols = encoded.symbols
    symbols.flags.writeable = False
    cut = encoded.train
    if cut is None:
        cut = len(symbols) - math.ceil(len(symbols) * val_fraction)
    return Corpus(name, symbols[:cut], symbols[cut:], encoded.vocabulary, key.sha256)


def _name(source: str | Path) -> str:
    if str(source) == STDIN:
        return "stdin"
    path = Path(source)
    return Path(os.path.abspath(path)).name if path.is_dir() else path.stem
