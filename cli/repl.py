"""`trnn repl`: a prompt at which a network that has just read a text can be asked about its gradients."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .looking import WINDOW, HiddenSize, Kind, Layers, Length, Seed, Text, open_session
from .runs import RUNS, complete_run
from .terminal import reader_may_leave

EXAMPLES = """Try:

trnn repl

trnn repl --kind rnn --hidden-size 64

trnn repl --model runs/first --text letter.txt

trnn repl < script.txt"""


def repl(
    context: typer.Context,
    run: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help=f"A run folder, the name of a run in {RUNS}/, or a checkpoint file.",
            show_default="a new small model",
            autocompletion=complete_run,
            rich_help_panel=WINDOW,
        ),
    ] = None,
    text: Text = None,
    length: Length = 50,
    kind: Kind = "lstm",
    hidden_size: HiddenSize = 32,
    layers: Layers = 2,
    seed: Seed = 0,
) -> None:
    """See the gradient: a prompt for questions to a recurrent network, and for Python.

    The network has read a window of text and gone back through it, so that every question has an answer.

    `flow`: how far the gradient reaches back. `gates`: which are open. `step`: one step of the backward pass.

    `help` lists all of them. Whatever else is typed is Python, on tensors that they can look at as well.

    Without a terminal a script is read, a line after the other; the exit code is 1 if one fails.
    """
    from tinygrad_rnn.errors import TinygradError, UsageError
    from tinygrad_rnn.text.sources import STDIN

    if text == STDIN:
        raise UsageError("--text -: standard input is what the commands come from")
    try:
        from . import prompt
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "IPython":
            raise
        raise TinygradError("the prompt is IPython's, which is not installed: pip install ipython") from None
    session = open_session(context, run)
    with reader_may_leave():
        if sys.stdin is None:
            return
        if sys.stdin.isatty():
            prompt.converse(session)
        else:
            sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
            prompt.read(session, iter(sys.stdin.readline, ""))
