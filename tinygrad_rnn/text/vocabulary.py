"""The vocabulary: which characters, or bytes, a model knows, and the small integers that stand for them.

Two encodings:

- "utf-8": a symbol is a character (a Unicode code point), numbered in the order of the code points;
- "bytes": a symbol is a byte, numbered in the order of the byte values. Any file can be read so.

Rare ones may share one symbol more, the unknown symbol, which has the last number.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import CheckpointError, DataError, UsageError

ENCODINGS = ("utf-8", "bytes")
_LISTED = 20  # how many unknown characters an error names
_REPLACEMENT = 0xFFFD  # what an unknown character is shown as
_STAND_INS = (_REPLACEMENT, ord("?"), ord(" "))


class Vocabulary:
    """The symbols of a text, in a fixed order.

    encoding  "utf-8" or "bytes"
    codes     the code points or byte values, sorted and distinct; the symbol i stands for codes[i]
    unknown   the symbol of all that are not among them, len(codes); None if there is no such symbol
    """

    def __init__(self, encoding: str, codes: Iterable[int] | np.ndarray, unknown: bool = False) -> None:
        self.encoding = encoding
        self.codes = np.unique(np.asarray(codes, dtype=np.uint32))
        self.unknown = len(self.codes) if unknown else None

    @classmethod
    def of(cls, text: str | bytes) -> Vocabulary:
        """The vocabulary of exactly what occurs in `text`: characters of a str, byte values of bytes."""
        encoding = "utf-8" if isinstance(text, str) else "bytes"
        return cls(encoding, code_points(text))

    @classmethod
    def counted(cls, encoding: str, counts: np.ndarray, min_count: int = 1) -> Vocabulary:
        """The vocabulary of what occurs at least `min_count` times; counts: by code point or byte value.

        It has an unknown symbol if, and only if, something occurs less often.
        """
        frequent = counts >= max(min_count, 1)
        return cls(encoding, np.flatnonzero(frequent), unknown=bool(counts[~frequent].any()))

    def __len__(self) -> int:
        return len(self.codes) + (self.unknown is not None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        same = self.encoding == other.encoding and self.unknown == other.unknown
        return same and np.array_equal(self.codes, other.codes)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({self.encoding}, {len(self)} symbols)"

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned integer dtype that holds every symbol."""
        return np.min_scalar_type(max(len(self) - 1, 0))

    def encode(self, text: str | bytes, unknown: str = "error") -> np.ndarray:
        """The symbols of `text`, one-dimensional.

        unknown  what becomes of characters that are not known:
                 "error"    a DataError lists them
                 "skip"     they are left out
                 "replace"  each becomes the unknown symbol; if there is none, then U+FFFD, a question mark or
                            a space, the first of them that is known; if none is, a DataError
        """
        if unknown not in ("error", "skip", "replace"):
            raise UsageError(f"unknown characters can be error, skip or replace, not {unknown!r}")
        codes = code_points(self._as_own(text))
        symbols = np.take(self._symbols, codes, mode="clip")
        if symbols.min(initial=0) < 0:
            lacking = symbols < 0
            if unknown == "skip":
                symbols = symbols[~lacking]
            elif unknown == "replace":
                symbols[lacking] = self._stand_in()
            else:
                raise DataError(f"{self._lacks()}: {self._listed(np.unique(codes[lacking]))}")
        return symbols.astype(self.dtype)

    @cached_property
    def _symbols(self) -> np.ndarray:
        """The symbol of each code, -1 where there is none; the last entry is for all codes above."""
        table = np.full(int(self.codes.max(initial=0)) + 2, -1, np.int32)
        table[self.codes] = np.arange(len(self.codes))
        return table

    def _stand_in(self) -> int:
        if self.unknown is not None:
            return self.unknown
        for code in _STAND_INS:
            if code < len(self._symbols) and self._symbols[code] >= 0:
                return int(self._symbols[code])
        raise DataError(
            f"{self._lacks()} cannot be replaced: it has no unknown symbol, no U+FFFD, no ? and no space"
        )

    def _lacks(self) -> str:
        what = "characters" if self.encoding == "utf-8" else "bytes"
        return f"{what} that the vocabulary of {len(self)} symbols lacks"

    def _listed(self, codes: np.ndarray) -> str:
        listed = ", ".join(self._shown(code) for code in codes[:_LISTED].tolist())
        return listed + (f" and {len(codes) - _LISTED} more" if len(codes) > _LISTED else "")

    def decode(self, symbols: Iterable[int] | np.ndarray) -> str:
        """The text of `symbols`. Bytes that are not UTF-8 become U+FFFD, and so does the unknown symbol."""
        return self.decoder().feed(symbols, final=True)

    def decoder(self) -> Decoder:
        """A decoder for symbols that arrive a few at a time."""
        return Decoder(self)

    def to_json(self) -> dict[str, Any]:
        """As an object for JSON: the characters as one string, the bytes as a list of numbers."""
        codes = self.codes.tolist()
        symbols = "".join(map(chr, codes)) if self.encoding == "utf-8" else codes
        return {"encoding": self.encoding, "symbols": symbols, "unknown": self.unknown is not None}

    @classmethod
    def from_json(cls, record: Any) -> Vocabulary:
        """The inverse of to_json(). CheckpointError for anything that it cannot have written."""
        match record:
            case {"encoding": "utf-8", "symbols": str(symbols)}:
                codes = code_points(symbols)
            case {"encoding": "bytes", "symbols": list(symbols)} if all(
                type(code) is int and 0 <= code < 256 for code in symbols
            ):
                codes = np.array(symbols, np.uint8)
            case _:
                raise CheckpointError("the record of the vocabulary is not one")
        unknown = record.get("unknown", False)
        if type(unknown) is not bool:
            raise CheckpointError(f"the vocabulary's unknown symbol is {unknown!r}, not true or false")
        vocabulary = cls(record["encoding"], codes, unknown)
        if len(vocabulary.codes) != len(symbols) or vocabulary.to_json()["symbols"] != symbols:
            raise CheckpointError("the symbols of the vocabulary are not sorted and distinct")
        return vocabulary

    def _as_own(self, text: str | bytes) -> str | bytes:
        """`text` as what the encoding counts in: a str for utf-8, bytes for bytes."""
        if self.encoding == "bytes" and isinstance(text, str):
            try:  # an argument of the command line that is not UTF-8 holds its bytes as surrogates
                return text.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                raise DataError(f"{text[error.start]!a} is half a character and has no bytes") from None
        if self.encoding == "utf-8" and isinstance(text, bytes):
            return decode_utf8(text)
        return text

    def _shown(self, code: int) -> str:
        return repr(chr(code)) if self.encoding == "utf-8" else f"0x{code:02x}"


class Decoder:
    """Turns symbols into text as they come; the bytes of an unfinished character wait for the rest."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        in_bytes = vocabulary.encoding == "bytes"
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace") if in_bytes else None
        self._codes = vocabulary.codes
        if vocabulary.unknown is not None:  # no UTF-8 has the byte 0xff, so that it becomes U+FFFD as well
            self._codes = np.append(self._codes, np.uint32(0xFF if in_bytes else _REPLACEMENT))

    def feed(self, symbols: Iterable[int] | np.ndarray, final: bool = False) -> str:
        """The text that `symbols` complete. `final` says that nothing follows."""
        codes = self._codes[np.asarray(symbols, dtype=np.intp)]
        if self._bytes is None:
            return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        return self._bytes.decode(codes.astype(np.uint8).tobytes(), final)


def decode_utf8(data: bytes) -> str:
    """`data` as text, byte-order mark and line ends as they are. DataError gives the offset of a bad byte."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, error.start) from None


def not_utf8(error: UnicodeDecodeError, offset: int) -> DataError:
    """What to tell a reader whose text has the bad byte at `offset`, and how it may become UTF-8."""
    bad = error.object[error.start :]
    marked = offset == 0 and bad[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    other, name = ("UTF-16", "utf-16") if marked else ("Latin-1", "latin1")
    return DataError(
        f"not UTF-8: byte 0x{bad[0]:02x} at offset {offset:,} ({error.reason}); "
        f"if it is {other}, convert it: iconv -f {name} -t utf-8 FILE > NEW_FILE"
    )


def code_points(text: str | bytes) -> np.ndarray:
    """Code points of a str, byte values of bytes; read-only, of whatever unsigned dtype is quick to get."""
    if isinstance(text, str) and text.isascii():
        text = text.encode("ascii")
    if isinstance(text, bytes):
        return np.frombuffer(text, np.uint8)
    native = f"utf-32-{'le' if sys.byteorder == 'little' else 'be'}"
    return np.frombuffer(text.encode(native, "surrogatepass"), np.uint32)
