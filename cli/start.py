"""The entry point of the installed command. Ctrl-C ends it without a traceback, from its first import on."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def run() -> None:
    """Run `trnn` with the arguments of the process."""
    # One that is ignored stays so: a shell's background jobs are not to hear of Ctrl-C.
    hears = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hears:
        signal.signal(signal.SIGINT, _leave)
    from .main import main

    try:
        try:
            if hears:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            code = main(sys.argv[1:])
        finally:
            if hears:
                signal.signal(signal.SIGINT, _leave)
    except KeyboardInterrupt:  # it may also come as main returns
        code = 130
    sys.exit(code)


def _leave(number: int, frame: FrameType | None) -> None:
    """At once, where there is nothing to clean up: an exception might become a traceback, or get lost."""
    os._exit(128 + number)
