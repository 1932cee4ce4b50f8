"""Sums such as `37+48=85`, one a line. What a model must learn here is to carry.

The operation is +, - or *, each as likely. An operand has one, two or three digits, each as likely, and is
drawn evenly from the numbers of that many. The result is right, and may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

# Every number of up to three digits, as often as makes the three widths equally likely.
_OPERANDS = [*range(10)] * 90 + [*range(10, 100)] * 10 + [*range(100, 1000)]
_LINES = 3 * len(_OPERANDS) ** 2

_OPERAND_ENTROPY = math.log(3) + (math.log(10) + math.log(90) + math.log(900)) / 3
MEAN_LENGTH = 10.0617  # of a line with its end, over all of them
ENTROPY = (math.log(3) + 2 * _OPERAND_ENTROPY) / MEAN_LENGTH


def sums(draw: Callable[[], float]) -> Iterator[str]:
    """Sums without end, each with its line end. `draw` gives uniform numbers from [0, 1)."""
    while True:
        operation, operands = divmod(int(_LINES * draw()), len(_OPERANDS) ** 2)  # both in one draw
        left, right = divmod(operands, len(_OPERANDS))
        a, b = _OPERANDS[left], _OPERANDS[right]
        if operation == 0:
            yield f"{a}+{b}={a + b}\n"
        elif operation == 1:
            yield f"{a}-{b}={a - b}\n"
        else:
            yield f"{a}*{b}={a * b}\n"
