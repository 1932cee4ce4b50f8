"""What a person can see of a network while it learns: each command a function (session, arguments) -> View.

    >>> from tinygrad_rnn.inspect import Session, run
    >>> print(run(Session.small(), "flow"))

Nothing here prints or knows of a terminal: `trnn repl`, `trnn inspect` and notebooks are fronts over this.
The commands: look.py, through_time.py, debugger.py, derive.py, why.py, do.py; what they stand on: recording.py
(a window run both ways), tape.py (any graph, walked), address.py (names of nodes), view.py, command.py.
"""

from . import (  # noqa: F401 - each enters its commands
    card,
    check,
    compare,
    debugger,
    derive,
    do,
    export,
    flow,
    gates,
    graph,
    help,
    lesson,
    look,
    what_if,
    why,
)
from .command import COMMANDS, Command, completions, find, run, split
from .recording import Recording
from .session import Session
from .tape import Tape
from .view import View

__all__ = [
    "COMMANDS",
    "Command",
    "Recording",
    "Session",
    "Tape",
    "View",
    "completions",
    "find",
    "run",
    "split",
]
