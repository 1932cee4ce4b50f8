"""Batches: a text cut into B parallel streams, read a window at a time.

The text is cut into B pieces of equal length, and batch entry b reads piece b from its start to its end,
so that the hidden state carried from one window to the next belongs to the text that came just before:

    text     a b c d e f g h i j k l m          B = 2 streams, windows of T = 3

    stream 0   inputs   a b c | d e f           targets  b c d | e f g
    stream 1   inputs   g h i | j k l           targets  h i j | k l m

Every symbol but the first is a target once an epoch, as far as it divides: fewer than B at the end of the
text are left over. A stream that is no multiple of T is cut into windows as even as possible, none longer
than T, instead of leaving a stub: the longer ones come first, and lengths differ by one at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import DataError

Window = tuple[np.ndarray, np.ndarray]


class Windows(Sequence[Window]):
    """The windows of one epoch, in order: `(inputs, targets)`, integer arrays of shape (T, B).

    A text too short for `batch_size` streams of one full window gets fewer streams (`batch_size` tells
    how many). One too short for a single window of `seq_length` is a DataError, unless `partial`, which
    needs two symbols only: for scoring a text rather than training on it.
    """

    def __init__(self, symbols: np.ndarray, batch_size: int, seq_length: int, partial: bool = False) -> None:
        targets = len(symbols) - 1
        needed = 1 if partial else seq_length
        if targets < needed:
            raise DataError(
                f"too short: a window of {needed} and its targets need {needed + 1} symbols, "
                f"found {len(symbols)}"
            )
        self.batch_size = min(batch_size, max(targets // seq_length, 1))
        self.stream_length = targets // self.batch_size
        covered = self.stream_length * self.batch_size
        # As (stream, place) arrays, so that a window is a slice of columns.
        self._inputs = symbols[:covered].reshape(self.batch_size, self.stream_length)
        self._targets = symbols[1 : covered + 1].reshape(self.batch_size, self.stream_length)
        count = -(-self.stream_length // seq_length)
        shorter, longer_ones = divmod(self.stream_length, count)
        self._starts = [number * shorter + min(number, longer_ones) for number in range(count + 1)]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> Window:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(f"window {number} of {len(self)}")
        place = slice(self._starts[number], self._starts[number + 1])
        # Whole integers and time first, as models take them; the corpus itself stays small.
        return (
            np.ascontiguousarray(self._inputs[:, place].T, dtype=np.intp),
            np.ascontiguousarray(self._targets[:, place].T, dtype=np.intp),
        )

    def __iter__(self) -> Iterator[Window]:
        return (self[number] for number in range(len(self)))
