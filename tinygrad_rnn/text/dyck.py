"""Dyck words: well nested brackets, one word a line. What a model must learn here is a stack.

A word is one or more bracket pairs in a row; inside a pair there are none or more of them. The kind of a
pair is drawn evenly from KINDS. A fair coin says whether another pair follows, but a pair at depth DEPTH
stays empty. So the depth is a random walk between 0 and DEPTH, whose excursions from 0 have 2 * DEPTH
brackets on average; a word has two of them, 4 * DEPTH brackets. This is the language Dyck-(k, m) of Hewitt
et al. (2020), "RNNs can generate bounded hierarchical languages with optimal memory".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

KINDS = (("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"))
DEPTH = 8

# A word draws 2 * DEPTH kinds and tosses 4 * DEPTH - 2 coins: one before every character but the first
# bracket and the two that leave depth DEPTH. With its line end it has 4 * DEPTH + 1 characters.
ENTROPY = ((4 * DEPTH - 2) * math.log(2) + 2 * DEPTH * math.log(len(KINDS))) / (4 * DEPTH + 1)


def words(draw: Callable[[], float]) -> Iterator[str]:
    """Dyck words without end, each with its line end. `draw` gives uniform numbers from [0, 1)."""
    while True:
        word = _pair(draw)
        while draw() < 0.5:
            word += _pair(draw)
        yield word + "\n"


def _pair(draw: Callable[[], float]) -> str:
    opening, closing = KINDS[int(len(KINDS) * draw())]
    return opening + _inside(draw, 1) + closing


def _inside(draw: Callable[[], float], depth: int) -> str:
    if depth == DEPTH:
        return ""
    text = ""
    while (choice := int(2 * len(KINDS) * draw())) < len(KINDS):  # coin and kind in one draw
        opening, closing = KINDS[choice]
        text += opening + _inside(draw, depth + 1) + closing
    return text
