"""Novelty: which stretches of a text occur literally in a corpus, to tell a model that writes from one that
recites.

The texts become a suffix automaton (Blumer et al., 1985), whose states stand for their stretches. Reading the
corpus symbol by symbol, it always knows the longest stretch that ends here (the matching statistics of Chang
and Lawler, 1994). Each transition is a table entry, so that thousands of places in the corpus are read side
by side, and the time is proportional to its length, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import UsageError

_CHUNK = 2**20  # symbols of the corpus in memory at once
_LANES = 2**12  # of them read side by side
_LARGEST_TABLE = 2**26  # entries


class Stretch(NamedTuple):
    """`length` symbols from `start` on, of the text with that number."""

    text: int
    start: int
    length: int


def copied(texts: Sequence[np.ndarray], corpus: np.ndarray) -> list[np.ndarray]:
    """For each symbol of each text, the length of the longest stretch ending with it that is in `corpus`.

    Texts and corpus: one-dimensional arrays of symbols of the same vocabulary; the corpus may be
    memory-mapped and is read once, in pieces. UsageError for texts too long for the automaton's table.
    """
    lengths = [len(text) for text in texts]
    symbols, local = np.unique(np.concatenate(texts), return_inverse=True)
    # Numbered from 1; 0 is any other symbol of the corpus, and the last one, between texts, is never in it.
    pieces = np.split(local + 1, np.cumsum(lengths)[:-1])
    between = len(symbols) + 1
    joined = np.concatenate([part for piece in pieces for part in (piece, [between])])
    number = np.zeros(int(symbols.max(initial=0)) + 2, np.min_scalar_type(between))
    number[symbols] = np.arange(1, between)

    automaton = _Automaton(joined.tolist(), between + 1)
    for start in range(0, len(corpus), _CHUNK):
        # A stretch that begins in this chunk ends at most as far behind it as it is long.
        piece = corpus[start : start + _CHUNK + max(lengths)]
        automaton.read(np.take(number, piece, mode="clip"), min(_CHUNK, len(corpus) - start))
    matched = np.split(automaton.matched(), np.cumsum([length + 1 for length in lengths]))
    return [of_text[:-1] for of_text in matched[: len(texts)]]


def longest_stretches(matched: Sequence[np.ndarray], count: int) -> list[Stretch]:
    """Of what copied() found, the longest stretches, at most `count`, none overlapping another."""
    maximal = [stretch for text, lengths in enumerate(matched) for stretch in _maximal(text, lengths)]
    found: list[Stretch] = []
    for new in sorted(maximal, key=lambda stretch: (-stretch.length, stretch)):
        if len(found) == count:
            break
        if not any(
            new.text == old.text and new.start < old.start + old.length and old.start < new.start + new.length
            for old in found
        ):
            found.append(new)
    return found


def half_covered(matched: Sequence[np.ndarray]) -> int:
    """The largest length such that at least half of all symbols lie in stretches as long or longer."""
    lengths = np.sort(covering(matched))
    return int(lengths[len(lengths) // 2])


def covering(matched: Sequence[np.ndarray]) -> np.ndarray:
    """Of what copied() found, for each symbol of all texts the length of the longest stretch it lies in."""
    longest = [np.zeros(len(lengths), np.intp) for lengths in matched]
    for text, lengths in enumerate(matched):
        for stretch in sorted(_maximal(text, lengths), key=lambda stretch: stretch.length):
            longest[text][stretch.start : stretch.start + stretch.length] = stretch.length
    return np.concatenate(longest)


def _maximal(text: int, lengths: np.ndarray) -> list[Stretch]:
    """The stretches that are part of no longer one."""
    ends = np.flatnonzero(np.append(lengths[1:], 0) <= lengths)
    return [Stretch(text, int(end + 1 - lengths[end]), int(lengths[end])) for end in ends if lengths[end]]


class _Automaton:
    """The suffix automaton of `symbols`, numbers below `kinds`.

    A state stands for the stretches that end at the same places: the `longest` of them, and its suffixes down
    to one symbol more than the longest of the state that `link` names. State 0 is the empty stretch.
    """

    def __init__(self, symbols: list[int], kinds: int) -> None:
        if 2 * len(symbols) * kinds > _LARGEST_TABLE:
            most = _LARGEST_TABLE // (2 * kinds)
            raise UsageError(
                f"{len(symbols):,} symbols, {kinds - 2} different, are too many to look for; {most:,} can be"
            )
        following: list[dict[int, int]] = [{}]
        link, longest = [-1], [0]
        self.ends = []  # the state of all that ends at each symbol
        last = 0
        for symbol in symbols:
            new, state, last = len(following), last, len(following)
            following.append({})
            longest.append(longest[state] + 1)
            link.append(0)
            while state >= 0 and symbol not in following[state]:
                following[state][symbol] = new
                state = link[state]
            if state >= 0:
                other = following[state][symbol]
                if longest[other] == longest[state] + 1:
                    link[new] = other
                else:  # the shorter stretches of `other` end here as well: they become a state of their own
                    clone = len(following)
                    following.append(dict(following[other]))
                    longest.append(longest[state] + 1)
                    link.append(link[other])
                    link[new] = link[other] = clone
                    while state >= 0 and following[state].get(symbol) == other:
                        following[state][symbol] = clone
                        state = link[state]
            self.ends.append(new)
        self.link, self.longest = link, longest
        self.by_length = np.argsort(longest, kind="stable").tolist()[1:]
        self.best = np.zeros(len(link), np.int32)  # the longest stretch of a state that was read
        self.kinds = kinds
        # From a state, after a symbol: the next state, and the longest part of what was matched that remains.
        self._next = np.zeros((len(link), kinds), np.int32)
        self._kept = np.full((len(link), kinds), -1, np.int32)
        for state in [0, *self.by_length]:
            if state:
                self._next[state], self._kept[state] = self._next[link[state]], self._kept[link[state]]
            known = list(following[state])
            self._next[state, known] = list(following[state].values())
            self._kept[state, known] = longest[state]

    def read(self, symbols: np.ndarray, owned: int) -> None:
        """Note all matches that begin in the first `owned` of `symbols`; those after it let them end."""
        each = -(-owned // _LANES)
        place = np.arange(0, owned, each)
        end = place + each
        padded = np.zeros(int(end[-1]) + len(self.ends) + 1, symbols.dtype)
        padded[: len(symbols)] = symbols[: len(padded)]
        next_state, kept = self._next.ravel(), self._kept.ravel()
        state = np.zeros(len(place), np.intp)
        length = np.zeros(len(place), np.int32)
        while len(place):
            at = state * self.kinds + padded[place]
            state = next_state[at].astype(np.intp)
            length = np.minimum(length, kept[at]) + 1
            place += 1
            better = np.flatnonzero(length > self.best[state])
            np.maximum.at(self.best, state[better], length[better])
            if place[0] >= end[0]:  # behind its own part, a lane goes on while its match began in it
                going = np.flatnonzero(place - length < end)
                place, end, state, length = place[going], end[going], state[going], length[going]

    def matched(self) -> np.ndarray:
        """For each symbol, the length of the longest stretch ending with it that was read."""
        best = self.best.tolist()
        for state in reversed(self.by_length):  # with a stretch its suffixes were read
            if best[state]:
                best[self.link[state]] = self.longest[self.link[state]]
        for state in self.by_length:  # and what ends where it ends
            best[state] = max(best[state], best[self.link[state]])
        return np.array(best)[self.ends]
