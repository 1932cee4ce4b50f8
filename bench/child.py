"""A contestant in a process of its own, which works only when it is asked: both ends of the pipe.

Libraries in one process would fight over the threads. A question and its answer are a line of JSON each.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_rnn.training.bench import Work, limit, times
from tinygrad_rnn.training.doctor import matrix_rate
from tinygrad_rnn.training.machine import usable_cores

from . import images

ROOT = Path(__file__).parents[1]
REST = 0.1  # seconds in which the threads of the one who worked last stop looking for more, and sleep
COPIED = 1 << 26  # numbers: more than any cache holds
TANHS = 50 * 512  # numbers: the gates of a step, in the cache


class MissingError(Exception):
    """A library that a contestant needs is not installed."""


class Child:
    """The parent's end. threads: of the child; None: its own choice."""

    def __init__(self, module: str, threads: int | None = None) -> None:
        self.threads = threads
        environment = dict(os.environ)
        if threads is not None:
            environment |= {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")}
            if threads == 1:
                environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.child", module, str(threads or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        if "missing" in (answer := self._answer()):
            self.close()
            raise MissingError(answer["missing"])

    def ask(self, do: str, work: Work | images.Work | None = None, **details: Any) -> Any:
        """What the child answers, after a short rest for the one asked before. The work is of the kind that
        its contestant does: its module's own Work."""
        time.sleep(REST)
        question = {"do": do, "work": work and asdict(work), **details}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()["answer"]

    def close(self) -> None:
        """It ends when nobody can ask it any more."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self._process.args)} ended with {self._process.wait()}")  # type: ignore[arg-type]
        return json.loads(line)


class Answers:
    """The child's end: a method for each question."""

    def __init__(self, contestant: Any, threads: int | None) -> None:
        self._contestant, self._threads = contestant, threads
        self._training: Any = None
        self._write: Any = None

    def train(self, work: Work, start: str) -> int | None:
        """Make ready for steps, from the weights in the file `start`; the threads that they will use."""
        self._training = self._write = None
        gc.collect()  # what was there before
        self._training = self._contestant.Training(work, read_start(start), self._threads)
        return self._training.threads

    def sample(self, work: Work, start: str) -> int | None:
        """Make ready for writing."""
        self._training = self._write = None
        gc.collect()
        self._write = self._contestant.Sampling(work, read_start(start), self._threads)
        return self._write.threads

    def losses(self, count: int) -> list[float]:
        """Of the next so many steps."""
        return [self._training.step() for _ in range(count)]

    def gradients(self, file: str) -> float:
        """The loss of the first window, whose gradients go into the file; no step."""
        loss, gradients = self._training.gradients()
        np.savez(file, **gradients)
        return loss

    def steps(self, seconds: float) -> list[float]:
        """How long each step took."""
        return times(self._training.step, seconds)

    def write(self, length: int, seconds: float) -> list[float]:
        """How long it took, each time, to write so many symbols."""
        return times(lambda: self._write(length), seconds)

    def memory(self, work: Work, start: str) -> int:
        """Bytes that the process grew by at most, for the network, its optimiser and two steps."""
        reset_peak()
        before = status("VmRSS")
        self.train(work, start)
        self.losses(2)
        return status("VmHWM") - before

    def rate(self) -> float:
        """GFLOP/s of large matrix products at their best."""
        return limit()

    def limits(self) -> dict[str, float]:
        """What this machine can do: GFLOP/s of matrix products with one core and with all, bytes read and
        written a second in copying a large array, seconds for the tanh of an element; the best of several."""
        a, b = np.ones(COPIED, np.float32), np.empty(COPIED, np.float32)
        gates = np.random.default_rng(0).standard_normal(TANHS, dtype=np.float32)
        return {
            "matrix_rate_one": matrix_rate(1),
            "matrix_rate_all": matrix_rate(usable_cores()),
            "copied_per_second": 2 * a.nbytes / min(times(lambda: np.copyto(b, a), 0.5, 3)),
            "tanh": min(times(lambda: np.tanh(gates, out=gates), 0.2)) / TANHS,
        }


def read_start(file: str) -> dict[str, np.ndarray]:
    """Weights under PyTorch's names, and `inputs` and `targets`: windows (N, T, B)."""
    with np.load(file) as arrays:
        return dict(arrays)


def status(name: str) -> int:
    """Bytes, from what Linux says of this process: VmRSS is its memory now, VmHWM the most it ever was.

    (getrusage() will not do: what a process starts with there is the peak of the one that started it.)
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def reset_peak() -> None:
    """Let VmHWM begin at what it is now."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is for the parent to speak of
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(**said: Any) -> None:
        pipe.write(json.dumps(said) + "\n")
        pipe.flush()

    try:
        contestant = import_module(sys.argv[1])
    except ModuleNotFoundError as error:
        return answer(missing=str(error))
    answer(ready=True)
    answers = Answers(contestant, int(sys.argv[2]) or None)
    for line in sys.stdin:
        question = json.loads(line)
        work = question.pop("work")
        do = getattr(answers, question.pop("do"))
        answer(answer=do(contestant.Work(**work), **question) if work else do(**question))


if __name__ == "__main__":
    main()
