"""`trnn inspect`: the commands of `trnn repl` without its prompt, for pipes and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .looking import HiddenSize, Kind, Layers, Length, Seed, Text, open_session, print_view
from .runs import RUNS, Json, complete_run
from .terminal import reader_may_leave

EXAMPLES = """Try:

trnn inspect -c help

trnn inspect runs/first -c "flow; gates 12"

trnn inspect runs/first -c grads --json"""


def inspect(
    context: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            help=f"A run folder, the name of a run in {RUNS}/, or a checkpoint file.",
            show_default="a new small model",
            autocompletion=complete_run,
        ),
    ] = None,
    commands: Annotated[
        list[str],
        typer.Option(
            "--command",
            "-c",
            help="What to look at, as at the prompt of `trnn repl`; several stand with semicolons between "
            "them, or have a -c each.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer copies it
    columns: Annotated[
        int | None,
        typer.Option("--width", help="Columns.", min=20, show_default="as the terminal; without one 80"),
    ] = None,
    as_json: Json = False,
    text: Text = None,
    length: Length = 50,
    kind: Kind = "lstm",
    hidden_size: HiddenSize = 32,
    layers: Layers = 2,
    seed: Seed = 0,
) -> None:
    """Look into a recurrent network that has read a window of text forward and backward.

    The first command that fails ends it, with its error and exit code.

    --json prints one array, an object for each command, once all of them have worked.
    """
    from tinygrad_rnn.errors import UsageError
    from tinygrad_rnn.inspect import run as look
    from tinygrad_rnn.inspect import split

    from .layout import print_json

    lines = [line for command in commands for line in split(command)]
    if not lines:
        raise UsageError('say what to look at: -c flow, or -c "flow; gates"; -c help lists what there is')
    session = open_session(context, run)
    with reader_may_leave():
        if as_json:
            print_json([look(session, line).to_dict() for line in lines])
            return
        for number, line in enumerate(lines):
            view = look(session, line)
            if number:
                print()
            print_view(view, columns)
