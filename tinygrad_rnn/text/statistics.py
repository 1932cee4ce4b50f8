"""What is in a text, before a model reads it: `measure`, in one pass over a text of any size.

The entropies are yardsticks for a model's loss. One that knows only how frequent each character is has the
loss H(x_t); one that sees only the character before, at best H(x_t | x_t-1) (Shannon, 1951, "Prediction and
entropy of printed English"). One below what a compressor needs has learnt more about the text than that.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from .reading import Decoder, NotUTF8Error
from .sources import Source
from .vocabulary import ENCODINGS, code_points

_CHUNK = 1 << 21  # bytes read at a time
COMPRESSED = 16 * _CHUNK  # bytes, from the beginning, that the compressors are given: they are slow
MAX_PAIRS = 1 << 21  # different pairs of neighbours that are counted; a text with more goes without


@dataclass(frozen=True, eq=False)
class Statistics:
    """A text in numbers. Entropies are in nats, and what is said of a symbol is meant of a character or byte.

    encoding       "utf-8"; "bytes" if the text is not UTF-8, and then a symbol is a byte
    not_utf8       which byte of it shows that, and what may help
    size, symbols  in bytes, in symbols
    lines          as a person counts them: the last one need not have an end
    codes, counts  the code points or byte values that occur, and how often; the commonest first
    entropy        of a symbol
    after_one      of a symbol, given the one before; None where there are too many different pairs
    compressed     by the name of the compressor, bits a symbol of the first COMPRESSED bytes
    marked         whether it begins with a byte-order mark
    """

    encoding: str
    not_utf8: str | None
    size: int
    symbols: int
    lines: int
    codes: np.ndarray
    counts: np.ndarray
    entropy: float
    after_one: float | None
    compressed: dict[str, float]
    marked: bool

    def count(self, symbol: str) -> int:
        """How often the character occurs."""
        return int(self.counts[self.codes == ord(symbol)].sum())


def measure(sources: Sequence[Source]) -> Statistics:
    """The statistics of what the sources hold, one after the other as if they were one file.

    A second pass is made only if it turns out not to be UTF-8. Memory is bounded by the number of different
    pairs, not by the size of the text. DataError if it is empty or cannot be read.
    """
    try:
        return _measure(sources, None)
    except NotUTF8Error as error:
        return _measure(sources, str(error))


def _measure(sources: Sequence[Source], not_utf8: str | None) -> Statistics:
    decoder = None if not_utf8 else Decoder()
    counts = np.zeros(0, np.int64)
    pairs: _Pairs | None = _Pairs()
    compressors: dict[str, Any] = {"gzip": zlib.compressobj(wbits=31), "bzip2": bz2.BZ2Compressor()}
    written = dict.fromkeys(compressors, 0)
    size = symbols = symbols_compressed = 0
    last = np.zeros(0, np.uint32)
    marked = False
    for source, chunk in ((each, chunk) for each in sources for chunk in each.blocks(_CHUNK)):
        beginning = chunk[: max(COMPRESSED - size, 0)]
        symbols_compressed += len(beginning) if decoder is None else _characters(beginning)
        for name, compressor in compressors.items():
            written[name] += len(compressor.compress(beginning))
        codes = code_points(chunk if decoder is None else decoder.decode(source, chunk)).astype(np.uint32)
        if symbols == 0:
            marked = decoder is not None and codes[:1].tolist() == [0xFEFF]
        size += len(chunk)
        symbols += len(codes)
        counts = _sum(counts, np.bincount(codes))
        codes = np.concatenate([last, codes])
        last = codes[-1:]
        if pairs is not None:
            pairs.add(codes)
            if len(pairs.keys) > MAX_PAIRS:
                pairs = None
    if decoder is not None:
        decoder.end()  # for its error, if the text ends in the middle of a character
    if size == 0:
        raise DataError(f"{', '.join(source.shown for source in sources)} is empty")

    occurring = np.flatnonzero(counts)
    commonest = occurring[np.argsort(-counts[occurring], kind="stable")]
    line_ends = int(counts[ord("\n")]) if len(counts) > ord("\n") else 0
    for name, compressor in compressors.items():
        written[name] += len(compressor.flush())
    return Statistics(
        encoding=ENCODINGS[decoder is None],
        not_utf8=not_utf8,
        size=size,
        symbols=symbols,
        lines=line_ends + (int(last[0]) != ord("\n")),
        codes=commonest,
        counts=counts[commonest],
        entropy=entropy(counts),
        after_one=None if pairs is None else pairs.conditional_entropy(),
        compressed={name: 8 * length / symbols_compressed for name, length in written.items()},
        marked=marked,
    )


def _characters(utf8: bytes) -> int:
    """How many begin here: all bytes of a character but its first have the form 10xxxxxx."""
    return int(np.count_nonzero(np.frombuffer(utf8, np.uint8) & 0xC0 != 0x80))


class _Pairs:
    """How often each symbol follows each other one: sorted keys, and their counts."""

    def __init__(self) -> None:
        self.keys = self.counts = np.zeros(0, np.int64)

    def add(self, codes: np.ndarray) -> None:
        """Count the neighbours in `codes`."""
        keys, counts = np.unique(codes[:-1].astype(np.int64) << 21 | codes[1:], return_counts=True)
        merged, place = np.unique(np.concatenate([self.keys, keys]), return_inverse=True)
        total = np.zeros(len(merged), np.int64)
        total[place[: len(self.keys)]] = self.counts
        total[place[len(self.keys) :]] += counts
        self.keys, self.counts = merged, total

    def conditional_entropy(self) -> float:
        """H(second | first) = H(pair) - H(first)."""
        _, first = np.unique(self.keys >> 21, return_inverse=True)
        return max(0.0, entropy(self.counts) - entropy(np.bincount(first, self.counts)))


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum of two counts of different lengths."""
    total = np.zeros(max(len(a), len(b)), np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def entropy(counts: np.ndarray) -> float:
    """In nats, of a draw from what was counted."""
    occurring = counts[counts > 0].astype(np.float64)
    total = occurring.sum()
    return float(np.log(total) - occurring @ np.log(occurring) / total) if len(occurring) > 1 else 0.0
