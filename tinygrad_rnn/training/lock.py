"""One trainer a run folder: a lock that the kernel frees when its holder dies, however it dies."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from ..atomic import naming
from ..errors import InUseError


class Lock:
    """Held from construction to release(). InUseError names the process that has it.

    The file stays behind; what counts is the kernel's lock on it (flock; where the system has none, on
    Windows, two trainers in one folder go unnoticed).
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            import fcntl

            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # perhaps only somebody who looks whether it is taken
                time.sleep(0.05)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except BlockingIOError:
            holder = _described(os.read(self._descriptor, 1000))
            self.release()
            raise InUseError(
                f"{path.parent} is in use by {holder}; one run folder takes one trainer"
            ) from None
        started = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        record = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
        with naming(path):
            os.truncate(self._descriptor, 0)
            os.write(self._descriptor, json.dumps(record).encode())

    def release(self) -> None:
        """Let others have the folder."""
        if self._descriptor is not None:
            with suppress(OSError):  # the kernel has freed it even so
                os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.release()


def _described(record: bytes) -> str:
    try:
        holder = json.loads(record)
        return f"process {holder['pid']} on {holder['host']}, since {holder['started']}"
    except (ValueError, KeyError, TypeError):  # it has the lock, but has not written yet
        return "another process"
