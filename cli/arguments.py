"""What the commands that take a trained model have in common: their options, and the word for a symbol."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from tinygrad_rnn.text import Vocabulary


class Which(StrEnum):
    best = "best"
    last = "last"


WHICH = "Of a run: the best validation, or the last written."

Checkpoint = Annotated[Which, typer.Option(help=WHICH)]

Unknown = Annotated[
    Literal["error", "skip", "replace"],
    typer.Option(help="What to do with characters that the model does not know."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def unit_of(vocabulary: Vocabulary) -> str:
    """What a symbol is called beside a number."""
    return "byte" if vocabulary.encoding == "bytes" else "char"
