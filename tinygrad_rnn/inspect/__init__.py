"""What a person can see of a network while it learns: each command a function (session, arguments) -> View.

    >>> from tinygrad_rnn.inspect import Session, run
    >>> print(run(Session.small(), "flow"))

Nothing here prints or knows of a terminal: `trnn repl`, `trnn inspect` and notebooks are fronts over this.

What the commands stand on: session.py (what is looked at), recording.py (a window run both ways), tape.py
(any graph, walked), address.py (names of nodes), view.py (what is shown), command.py (how one is declared).
Look: graph.py with folding.py, card.py, look.py. Through time: flow.py with jacobian_of_step.py, gates.py,
compare.py. The backward pass: debugger.py, derive.py, with visit.py, jacobian.py, rules.py, expression.py.
Why: why.py with a file a question, check.py, operands.py. Do: do.py, what_if.py, export.py, lesson.py.
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
