"""The extension of IPython: `%load_ext tinygrad_rnn`, then `%trnn flow` in a notebook, or a cell of `%%trnn`.

The commands look at the notebook's variable `session`, if it is a Session; else at a small one, made when it
is first needed. The prompt of `trnn repl` has the same magic, and the same completion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from IPython.core.completer import SimpleCompletion, context_matcher
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from IPython.display import display

from .errors import TinygradError
from .inspect import Session, View, completions, run, split

NAME = "tinygrad_rnn"  # of the completion, among IPython's own
MAGIC, CELL_MAGIC = "%trnn ", "%%trnn"


@magics_class
class Commands(Magics):
    """The magic.

    show    puts a view before the user's eyes
    typed   whether what was typed of a line so far, without `%trnn`, is the beginning of a command
    session where the user has none; None: a small one
    """

    shell: Any

    def __init__(
        self,
        shell: Any,
        show: Callable[[View], Any] = display,
        typed: Callable[[str], bool] = lambda line: False,
        session: Session | None = None,
    ) -> None:
        super().__init__(shell)
        self.show, self.typed = show, typed
        self._own = session
        shell.Completer.custom_matchers.append(self._matcher())

    @property
    def session(self) -> Session:
        """What the commands look at."""
        given = self.shell.user_ns.get("session")
        if isinstance(given, Session):
            session = given
        else:
            session = self._own = self._own or Session.small()
        session.namespace = self.shell.user_ns
        return session

    @no_var_expand
    @line_cell_magic
    def trnn(self, line: str, cell: str | None = None) -> None:
        """Look into a recurrent network.

            %trnn help      the commands
            %trnn flow      one of them
            %trnn flow; gates

        As %%trnn at the head of a cell it runs each of the cell's lines.
        """
        lines = [line, *(cell or "").splitlines()]
        commands = [one for text in lines if not text.lstrip().startswith("#") for one in split(text)]
        try:
            for one in commands or ["help"]:
                self.show(run(self.session, one))
        except TinygradError as error:
            message = " ".join(str(error).split())
            # So IPython shows one line in place of a traceback through itself.
            error._render_traceback_ = lambda: [f"error: {message}"]  # type: ignore[attr-defined]
            raise

    def _matcher(self) -> Any:
        @context_matcher(identifier=NAME)  # type: ignore[untyped-decorator]
        def complete(context: Any) -> dict[str, Any]:
            line = context.text_until_cursor
            inside = context.cursor_line > 0 and context.full_text.startswith(CELL_MAGIC)
            if line.startswith(MAGIC):
                line, inside = line.removeprefix(MAGIC), True
            words: list[str] = []
            if inside or self.typed(line):
                line = line.rpartition(";")[2].lstrip()
                words = completions(self.session, line)
            return {
                "completions": [SimpleCompletion(word, type="command") for word in words],
                "matched_fragment": line.rpartition(" ")[2],
                # A first word may as well be Python's.
                "suppress": inside or " " in line,
                "ordered": True,
            }

        return complete


def load(shell: Any) -> None:
    """What `%load_ext tinygrad_rnn` does."""
    shell.register_magics(Commands(shell))


def unload(shell: Any) -> None:
    """What `%unload_ext tinygrad_rnn` does."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("trnn", None)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [one for one in matchers if getattr(one, "matcher_identifier", None) != NAME]
