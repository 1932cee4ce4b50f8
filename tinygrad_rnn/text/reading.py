"""A text of any length, read in pieces: decoded, normalised, hashed and counted without ever being whole.

What comes out does not depend on where one piece ends and the next begins.
"""

from __future__ import annotations

import codecs
import hashlib
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np

from ..errors import DataError
from .sources import Source
from .vocabulary import Vocabulary, code_points, not_utf8

BLOCK = 2**18  # bytes read at once: what is made of them fits the processor's cache


class Text:
    """The contents of `sources`, one after the other as if they were one file.

    encoding   "utf-8" or "bytes": whether pieces are str or bytes
    normalize  "nfc" for Unicode's composed form, None for the characters as they are
    advice     what to do with a text that is not UTF-8
    """

    def __init__(
        self,
        sources: Sequence[Source],
        encoding: str,
        normalize: str | None,
        block: int = BLOCK,
        advice: str = "or read it byte by byte: --encoding bytes",
    ) -> None:
        self.sources, self.encoding, self.normalize = sources, encoding, normalize
        self._block, self._advice = block, advice
        self._digest: bytes | None = None

    @property
    def shown(self) -> str:
        """What an error calls it."""
        more = f" and {len(self.sources) - 3} more" if len(self.sources) > 3 else ""
        return ", ".join(source.shown for source in self.sources[:3]) + more

    def digest(self) -> bytes:
        """SHA-256 of the bytes as they are on disk."""
        if self._digest is None:
            for _ in self._blocks():
                pass
        assert self._digest is not None
        return self._digest

    def pieces(self) -> Iterator[str] | Iterator[bytes]:
        """The text in pieces of any length.

        Raises DataError for what cannot be read or is not UTF-8, and at the end if this was not what
        digest() was computed from.
        """
        blocks = self._blocks()
        if self.encoding == "bytes":
            return (block for _, block in blocks)
        pieces = self._decoded(blocks)
        return composed(pieces) if self.normalize == "nfc" else pieces

    def counts(self) -> np.ndarray:
        """How often each character (by code point) or byte value occurs."""
        counts = np.zeros(256 if self.encoding == "bytes" else sys.maxunicode + 1, np.int64)
        for piece in self.pieces():
            found = np.bincount(code_points(piece))
            counts[: len(found)] += found
        return counts

    def _blocks(self) -> Iterator[tuple[Source, bytes]]:
        sha256 = hashlib.sha256()
        for source in self.sources:
            for block in source.blocks(self._block):
                sha256.update(block)
                yield source, block
        before, self._digest = self._digest, sha256.digest()
        if before not in (None, self._digest):
            raise DataError(f"{self.shown} changed while being read; try again when nothing writes to it")

    def _decoded(self, blocks: Iterator[tuple[Source, bytes]]) -> Iterator[str]:
        decoder = Decoder()
        try:
            for source, block in blocks:
                yield decoder.decode(source, block)
            yield decoder.end()
        except NotUTF8Error as error:
            raise DataError(f"{error}; {self._advice}") from None


class NotUTF8Error(DataError):
    """A text that is not UTF-8."""


class Decoder:
    """UTF-8 to text, block after block of one source after the other, as if they were one file.

    NotUTF8Error names the source of a bad byte and its place there.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._begun: list[tuple[Source, int]] = []  # each source so far, and where in the whole it begins
        self._read = 0

    def decode(self, source: Source, block: bytes) -> str:
        """The characters that end in this block."""
        if not self._begun or self._begun[-1][0] is not source:
            self._begun.append((source, self._read))
        text = self._decoded(block)
        self._read += len(block)
        return text

    def end(self) -> str:
        """Nothing, or NotUTF8Error if the last character is not whole."""
        return self._decoded(b"", final=True)

    def _decoded(self, block: bytes, final: bool = False) -> str:
        waiting = len(self._decoder.getstate()[0])  # bytes of a character that the block before began
        try:
            return self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            offset = self._read - waiting + error.start
            source, start = self._begun[bisect_right(self._begun, offset, key=lambda pair: pair[1]) - 1]
            raise NotUTF8Error(f"{source.shown} is {not_utf8(error, offset - start)}") from None


class EncodedText:
    """What `sources` hold, in pieces, as the symbols of a model's vocabulary, which need not know all of it.

    normalize  as the model's training text was
    unknown    what becomes of characters that the vocabulary lacks: see Vocabulary.encode()
    """

    def __init__(
        self,
        sources: Sequence[Source],
        vocabulary: Vocabulary,
        normalize: str | None = None,
        unknown: str = "error",
    ) -> None:
        advice = "as it is, it takes a model trained with --encoding bytes"
        self.text = Text(sources, vocabulary.encoding, normalize, advice=advice)
        self.vocabulary, self.unknown = vocabulary, unknown
        self.lacking = 0  # characters skipped or replaced, the last time it was read

    def __iter__(self) -> Iterator[np.ndarray]:
        self.lacking = 0
        for piece in self.text.pieces():
            try:
                symbols = self.vocabulary.encode(piece, self.unknown)
            except DataError as error:
                hint = "; --unknown skip or replace takes the text without them"
                raise DataError(
                    f"{self.text.shown} has {error}{hint if self.unknown == 'error' else ''}"
                ) from None
            if self.unknown != "error":
                self.lacking += len(piece) - len(self.vocabulary.encode(piece, "skip"))
            yield symbols


def composed(pieces: Iterable[str]) -> Iterator[str]:
    """The NFC of the whole text (Unicode Standard Annex 15), in pieces.

    A piece is cut where what follows can neither join nor pass what is before, and the rest waits.
    """
    waiting = ""
    for piece in pieces:
        seen = max(len(waiting), 1)
        waiting += piece
        cut = next(
            (place for place in range(len(waiting) - 1, seen - 1, -1) if _stands_apart(waiting[place])), 0
        )
        yield unicodedata.normalize("NFC", waiting[:cut])
        waiting = waiting[cut:]
    yield unicodedata.normalize("NFC", waiting)


def _stands_apart(character: str) -> bool:
    """Whether no text before `character` changes, or is changed by, the normal form of what begins with it.

    Its decomposition begins with a starter, across which no mark is moved, and that starter is never the
    second of two characters that compose.
    """
    first = unicodedata.normalize("NFD", character)[0]
    return unicodedata.combining(first) == 0 and first not in _second_characters()


@cache
def _second_characters() -> frozenset[str]:
    """What composes with the character before it: the vowels and final consonants of Hangul, which compose
    by arithmetic, and the second character of each canonical decomposition."""
    second = {chr(code) for block in (range(0x1161, 0x1176), range(0x11A8, 0x11C3)) for code in block}
    for code in range(sys.maxunicode + 1):
        match unicodedata.decomposition(chr(code)).split():
            case [first, other] if not first.startswith("<"):
                second.add(chr(int(other, 16)))
    return frozenset(second)
