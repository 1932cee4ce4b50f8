"""The vocabulary: which characters, or bytes, a model knows, and the small integers that stand for them.

Two encodings:

- "utf-8": a symbol is a character (a Unicode code point), numbered in the order of the code points;
- "bytes": a symbol is a byte, numbered in the order of the byte values. Any file can be read so.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import CheckpointError, DataError

ENCODINGS = ("utf-8", "bytes")
_LISTED = 20  # how many unknown characters an error names


class Vocabulary:
    """The symbols of a text, in a fixed order.

    encoding  "utf-8" or "bytes"
    codes     the code points or byte values, sorted and distinct; the symbol i stands for codes[i]
    """

    def __init__(self, encoding: str, codes: Iterable[int] | np.ndarray) -> None:
        self.encoding = encoding
        self.codes = np.unique(np.asarray(codes, dtype=np.uint32))

    @classmethod
    def of(cls, text: str | bytes) -> Vocabulary:
        """The vocabulary of exactly what occurs in `text`: characters of a str, byte values of bytes."""
        encoding = "utf-8" if isinstance(text, str) else "bytes"
        return cls(encoding, _codes(text))

    def __len__(self) -> int:
        return len(self.codes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.encoding == other.encoding and np.array_equal(self.codes, other.codes)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({self.encoding}, {len(self)} symbols)"

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned integer dtype that holds every symbol."""
        return np.min_scalar_type(max(len(self) - 1, 0))

    def encode(self, text: str | bytes) -> np.ndarray:
        """The symbols of `text`, one-dimensional. DataError lists the characters that are not known."""
        text = self._as_own(text)
        codes = _codes(text)
        if len(self) == 0:
            symbols = np.zeros(len(codes), np.intp)
            known = np.zeros(len(codes), bool)
        else:
            symbols = np.searchsorted(self.codes, codes).clip(max=len(self) - 1)
            known = self.codes[symbols] == codes
        if not known.all():
            unknown = np.unique(codes[~known])
            listed = ", ".join(self._shown(code) for code in unknown[:_LISTED].tolist())
            more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
            what = "characters" if self.encoding == "utf-8" else "bytes"
            raise DataError(f"{what} that the vocabulary of {len(self)} symbols lacks: {listed}{more}")
        return symbols.astype(self.dtype)

    def decode(self, symbols: Iterable[int] | np.ndarray) -> str:
        """The text of `symbols`. Bytes that are not UTF-8 become U+FFFD."""
        return self.decoder().feed(symbols, final=True)

    def decoder(self) -> Decoder:
        """A decoder for symbols that arrive a few at a time."""
        return Decoder(self)

    def to_json(self) -> dict[str, Any]:
        """As an object for JSON: the characters as one string, the bytes as a list of numbers."""
        codes = self.codes.tolist()
        symbols = "".join(map(chr, codes)) if self.encoding == "utf-8" else codes
        return {"encoding": self.encoding, "symbols": symbols}

    @classmethod
    def from_json(cls, record: Any) -> Vocabulary:
        """The inverse of to_json(). CheckpointError for anything that it cannot have written."""
        match record:
            case {"encoding": "utf-8", "symbols": str(symbols)}:
                vocabulary = cls("utf-8", _codes(symbols))
            case {"encoding": "bytes", "symbols": list(symbols)} if all(
                type(code) is int and 0 <= code < 256 for code in symbols
            ):
                vocabulary = cls("bytes", symbols)
            case _:
                raise CheckpointError("the record of the vocabulary is not one")
        if len(vocabulary) != len(symbols) or vocabulary.to_json()["symbols"] != symbols:
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
        self._codes = vocabulary.codes
        self._bytes = (
            codecs.getincrementaldecoder("utf-8")("replace") if vocabulary.encoding == "bytes" else None
        )

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
        raise DataError(
            f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start:,} ({error.reason})"
        ) from None


def _codes(text: str | bytes) -> np.ndarray:
    """Code points or byte values, as uint32."""
    if isinstance(text, bytes):
        return np.frombuffer(text, np.uint8).astype(np.uint32)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)
