"""`trnn bench`: what training steps and sampling cost on this machine, and how near that is to its limit."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import busy, reader_may_leave, say_if_compiling

if TYPE_CHECKING:
    from tinygrad_rnn.training.bench import Measured

FACTS = ("NumPy", "BLAS", "matrix rate", "Numba", "cores")
HEADER = ["what", "ms", "symbols/s", "threads", "of the limit"]


def bench(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure training steps, small and large, and sampling.

    The limit is the rate of this machine's matrix products. It takes about 15 seconds; run it when nothing
    else does.
    """
    from tinygrad_rnn.training.allocator import keep_freed_memory
    from tinygrad_rnn.training.bench import measure
    from tinygrad_rnn.training.doctor import advice, examine
    from tinygrad_rnn.training.machine import processor

    from .doctor import facts
    from .layout import print_facts, print_json, print_paragraph, print_table

    keep_freed_memory()
    say_if_compiling("gru_backward", "lstm_backward", "cross_entropy", "write")
    with busy("looking at this machine"):
        found = examine()
    with busy("measuring steps and sampling"):
        measured = list(measure())
    with reader_may_leave():
        if as_json:
            machine = {"processor": processor(), **found.as_json()}
            print_json({"machine": machine, "measured": [asdict(one) for one in measured]})
            return
        known = [fact for fact in facts(found) if fact[0] in FACTS]
        print_facts([("processor", processor()), *known])
        print()
        print_table(HEADER, [_row(one) for one in measured], right=HEADER[1:], spare=["threads", "ms"])
        for piece in advice(found):
            print()
            print_paragraph(piece, "* ", "  ")


def _row(one: Measured) -> list[str]:
    from tinygrad_rnn.training.bench import milliseconds

    return [
        one.name,
        milliseconds(one.seconds),
        f"{one.symbols / one.seconds:,.0f}",
        str(one.threads),
        "" if one.share is None else f"{100 * one.share:.0f} %",
    ]
