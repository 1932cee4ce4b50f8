"""On the way to standard output: text without anything that a terminal obeys, and readers that leave."""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import IO, Any, TextIO, cast

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # a full disk, one that fails
JOINERS = "\u200c\u200d"  # format characters that spell words and join emoji, and move nothing


def printable(text: str) -> str:
    """`text` without control and format characters: those that a terminal obeys, or that turn text around
    or hide it. Line ends, tabs and joiners stay."""
    kept = "\n\t" + JOINERS
    return "".join(c for c in text if c in kept or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def one_line(text: str) -> str:
    """`text` on one line, `printable`."""
    return printable(" ".join(text.split()))


def say_error(message: str) -> None:
    """One line on standard error."""
    with suppress(OSError):  # nobody may be there to read it
        print(f"trnn: error: {one_line(message)}", file=sys.stderr)


def busy(doing: str) -> AbstractContextManager[object]:
    """In this block a terminal shows what is being done; standard error, since it is nothing to keep."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=unfailing(sys.stderr), highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return nullcontext()
    return console.status(Text(one_line(doing)))


def say_if_compiling(*functions: str) -> None:
    """One line on standard error before what takes long the first time; see must_compile()."""
    from tinygrad_rnn.engine.ops.fused import must_compile

    if must_compile(*functions):
        print(
            "compiling the kernels for this machine, which takes some 10 seconds and is done once",
            file=unfailing(sys.stderr),
        )


def counted(number: int, singular: str) -> str:
    """A number and what it is of: 1 file, 1,200 files."""
    return f"{number:,} {singular}{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """A duration as 0:42 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Around a command that prints: with `trnn ... | head` it ends quietly when head has seen enough.

    An OSError of standard output names it.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except SystemExit as error:  # so rich ends a program when a pipe breaks
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        discard(sys.stdout)
    except OSError as error:
        if error.filename is None and error.errno in UNWRITABLE:  # every file names itself
            discard(sys.stdout)
            error.filename = "standard output"
        raise


def unfailing(stream: TextIO) -> IO[str]:
    """`stream`, which sends everything nowhere from the first write on that fails.

    For a training, which outlives the reader of its output, its terminal, and the disk its output goes to.
    """
    return cast(IO[str], _Unfailing(stream))


class _Unfailing:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._discarding():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._discarding():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            discard(self._stream)


def discard(stream: TextIO) -> None:
    """Send the stream nowhere, also what is still in its buffer when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
