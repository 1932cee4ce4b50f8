"""The lock of a run folder: one holder at a time, named to the others, freed when it dies."""

import os
import signal
import subprocess
import sys

import pytest

from tinygrad_rnn.errors import InUseError
from tinygrad_rnn.training.lock import Lock

HOLD = """
import sys, time
from pathlib import Path
from tinygrad_rnn.training.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_one_holder_at_a_time(tmp_path):
    lock = Lock(tmp_path / "run.lock")
    with pytest.raises(InUseError, match=rf"is in use by process {os.getpid()} on .*, since 2\d\d\d-"):
        Lock(tmp_path / "run.lock")
    lock.release()
    Lock(tmp_path / "run.lock").release()


def test_a_process_that_is_killed_frees_it(tmp_path):
    path = tmp_path / "run.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InUseError, match=f"process {process.pid} on"):
            Lock(path)
        process.send_signal(signal.SIGKILL)
    Lock(path).release()


def test_a_holder_that_has_not_written_its_name_yet(tmp_path):
    lock = Lock(tmp_path / "run.lock")
    os.truncate(tmp_path / "run.lock", 3)
    with pytest.raises(InUseError, match="in use by another process"):
        Lock(tmp_path / "run.lock")
    lock.release()
