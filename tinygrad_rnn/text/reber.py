"""Strings of the embedded Reber grammar, one a line. What a model must learn here is to remember.

Reber's grammar (1967) is a small graph: a step along an edge writes its letter, and of the two edges that
leave a node either is as likely. The embedded grammar puts such a string between two letters T, or two
letters P:

    B T B TSSXSE T E        B P B PTVVE P E        (without the spaces)

The last letter but one is the second one again. A model that does not remember it over what stands between,
of any length, is wrong half the time: the first test in Hochreiter and Schmidhuber (1997), "Long short-term
memory".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

# Of each node the two edges that leave it: a letter, and the node it leads to.
GRAPH = {
    0: (("T", 1), ("P", 2)),
    1: (("S", 1), ("X", 3)),
    2: (("T", 2), ("V", 4)),
    3: (("X", 2), ("S", 5)),
    4: (("P", 3), ("V", 5)),
}
_END = 5

# On average 6 edges lead from node 0 to the end, each of two; one more choice is between T and P outside.
ENTROPY = 7 * math.log(2) / 13


def strings(draw: Callable[[], float]) -> Iterator[str]:
    """Embedded Reber strings without end, each with its line end. `draw` gives uniform numbers of [0, 1)."""
    while True:
        outer = "TP"[draw() < 0.5]
        inner = ""
        node = 0
        while node != _END:
            letter, node = GRAPH[node][draw() < 0.5]
            inner += letter
        yield f"B{outer}B{inner}E{outer}E\n"
