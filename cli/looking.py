"""What `trnn repl` and `trnn inspect` have in common: which network to look at, and how a view is printed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .corpus import complete_text
from .runs import find_checkpoint, find_run

if TYPE_CHECKING:
    from tinygrad_rnn.inspect import Session, View

PLAIN_WIDTH = 80  # columns, where there is no terminal to say
NEW, WINDOW = "A new model, where none is named", "What it reads"

Kind = Annotated[
    Literal["lstm", "gru", "rnn"],
    typer.Option(help="The recurrent network.", rich_help_panel=NEW),
]
HiddenSize = Annotated[int, typer.Option(help="Units of a layer.", min=1, rich_help_panel=NEW)]
Layers = Annotated[int, typer.Option(help="Recurrent layers.", min=1, rich_help_panel=NEW)]
Seed = Annotated[int, typer.Option(help="Of its weights.", min=0, rich_help_panel=NEW)]
Text = Annotated[
    str | None,
    typer.Option(
        help="A text file, or the name of a text that comes along.",
        show_default="what was held out from the training, or harbour",
        autocompletion=complete_text,
        rich_help_panel=WINDOW,
    ),
]
Length = Annotated[int, typer.Option(help="Symbols in the window.", min=1, rich_help_panel=WINDOW)]
OF_A_NEW_MODEL = ("kind", "hidden_size", "layers", "seed")


def open_session(context: typer.Context, run: Path | None) -> Session:
    """What the options of the command ask for. UsageError for those that do not go together."""
    from tinygrad_rnn.errors import UsageError
    from tinygrad_rnn.inspect import Session
    from tinygrad_rnn.inspect.session import CORPUS

    options: dict[str, Any] = context.params
    text, length = options["text"], options["length"]
    if run is None:
        return Session.small(
            text or CORPUS,
            options["seed"],
            length,
            kind=options["kind"],
            hidden_size=options["hidden_size"],
            num_layers=options["layers"],
        )
    by_hand = context.get_parameter_source("run")
    given = [name for name in OF_A_NEW_MODEL if context.get_parameter_source(name) == by_hand]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{run} is what it is; leave out {names}, which describe a new model")
    find_checkpoint(run)  # says what is wrong with the name
    return Session.load(find_run(run), text, length)


def print_view(view: View, columns: int | None = None, plainly: bool = False) -> None:
    """In colours on a terminal, else or `plainly` as text.

    columns: how wide; None: as the terminal, and without one what COLUMNS says, or 80
    """
    if sys.stdout.isatty() and not plainly:
        from rich.console import Console

        Console(width=columns, highlight=False).print(view)
    else:
        columns = columns or shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        print(view.text(columns, ascii=not unicode), end="")
