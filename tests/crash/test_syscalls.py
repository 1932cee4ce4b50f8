"""Each system call on the files of a run fails once, or is the last that the process makes.

strace makes it so: it counts the calls of a training, and in the n-th of a kind delivers SIGKILL, or has it
fail for want of space or with an input/output error.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tinygrad_rnn.models import archive

from .runs import TINY, intact, litter, outcome

CALLS = "open openat write fsync close rename renameat renameat2 unlink unlinkat mkdir mkdirat".split()
CALLS += "truncate ftruncate".split()
TWO_SAVES = ["--max-steps", "4", "--checkpoint-every", "2", "--eval-every", "2", "--sample-every", "3"]
NEW = ["train", "text.txt", *TINY, *TWO_SAVES, "--keep", "1", "--run", "run"]
HOW = {"kill": "signal=SIGKILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO"}
SAID = {"ENOSPC": "No space left on device", "EIO": "Input/output error"}


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not strace_works(), reason="there is no strace that may trace here")


def traced(server, folder, arguments, *options) -> tuple[int, object]:
    """Run `trnn` under strace; its exit code, and the process."""
    process = server.start(arguments, folder, held=True)
    with subprocess.Popen(
        ["strace", "-p", str(process.pid), "-y", "-o", "trace", *options],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    ) as strace:
        assert "attached" in strace.stderr.readline()
        os.kill(process.pid, signal.SIGCONT)
        code = process.wait()
        strace.communicate(timeout=60)
    return code, process


def calls_on(run: Path, trace: Path) -> list[tuple[str, int, str]]:
    """The calls in a trace that concern a run folder: name, which of that name in the trace, the line."""
    counted: Counter[str] = Counter()
    found = []
    for line in trace.read_text().splitlines():
        if match := re.match(r"(\w+)\(", line):
            counted[match[1]] += 1
            if f"{run}/" in line or f"{run}>" in line or '"run' in line:
                found.append((match[1], counted[match[1]], line))
    return found


def expected(server, folder):
    """A training that nothing happens to: the calls it makes, and what it comes to."""
    code, _ = traced(server, folder, NEW, "-e", f"trace={','.join(CALLS)}")
    assert code == 0
    calls = calls_on(folder / "run", folder / "trace")
    found = outcome(folder / "run")
    shutil.rmtree(folder / "run")
    return calls, found


def check(server, folder, figures, found, name, number, line, how):
    """What a training may leave behind in which that happened."""
    code, process = traced(
        server, folder, NEW, "-e", f"trace={name}", "-e", f"inject={name}:{HOW[how]}:when={number}"
    )
    run, about = folder / "run", f"{how} in {name} number {number}: {line}\n{code} {process.err}"
    intact(run, figures)
    if how == "kill":
        assert code == -signal.SIGKILL, about
    else:
        check_error(folder, code, process.err, SAID[how], about)
    again = ["train", "--resume", "run"] if (run / "config.toml").exists() else NEW
    process = server.start(again, folder)
    assert process.wait() == 0, f"{about}\n{process.err}"
    assert not litter(run), about
    assert outcome(run) == found, about
    intact(run, figures)
    shutil.rmtree(run)


def check_error(folder, code, err, said, about):
    if code == 0:  # nothing depended on it
        assert err == "", about
        return
    assert code == 1, about
    assert err.startswith("trnn: error: ") and err.count("\n") == 1 and said in err, about
    assert not litter(folder / "run") or "unlink" in about, about
    if "at step" in err:
        match = re.search(
            r"cannot write (\S+) at step \d+: .*; (the last good checkpoint is (\S+)|there is)", err
        )
        assert match, about
        assert match[1].startswith("run"), about
        if match[3]:
            archive.check(folder / match[3])
    else:
        assert re.search(r"error: run/?\S*: ", err), about


def check_all(server, folder, figures, draw):
    calls, found = expected(server, folder)
    assert {"openat", "write", "fsync", "close", "rename", "unlink"} <= {name for name, *_ in calls}
    for name, number, line, how in draw([(*call, how) for call in calls for how in HOW]):
        check(server, folder, figures, found, name, number, line, how)
        figures[f"calls with {how}"] += 1


def test_some_calls(server, folder, figures):
    check_all(server, folder, figures, lambda cases: random.Random(3).sample(cases, 6))


@pytest.mark.slow
def test_all_calls(server, folder, figures):
    check_all(server, folder, figures, lambda cases: cases)
