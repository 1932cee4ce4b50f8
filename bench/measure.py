"""The measurements. Each contestant works in turn, round after round, and what counts is the median.

Peers run with one thread and with all cores, whichever a trial shows to be faster; tinygrad_rnn chooses for
itself. The matrix rate is measured in every round too, since what a machine gives changes from minute to
minute. All times are in seconds, of a step, a symbol or an op.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tinygrad_rnn.training.bench import Work
from tinygrad_rnn.training.machine import usable_cores

from . import check, images, works
from .child import ROOT, Child, MissingError
from .works import MODULES, OURS, PROGRAM, PYTORCH, Row

TRIALS = 3  # rounds that decide how many threads a peer gets
START_ROUNDS = 7


class Bench:
    """Runs what is asked for, and says on standard error what it does.

    rounds   of each race
    seconds  for which a contestant works in a round; at least one step
    """

    def __init__(self, rounds: int, seconds: float, say: Callable[[str], None]) -> None:
        self.rounds, self.seconds, self._say = rounds, seconds, say
        self._children: dict[tuple[str, str, int | None], Child] = {}
        self._missing: set[str] = set()
        self._folder = TemporaryDirectory()
        self._start = Path(self._folder.name) / "start.npz"

    def close(self) -> None:
        for child in self._children.values():
            child.close()
        self._folder.cleanup()

    def check(self) -> list[str]:
        """That all compute the same. Raises DifferentError; returns who took part in which comparison."""
        compared = []
        for work in check.NETWORKS:
            compared += [self._compare(work, peer) for peer in (works.PYTORCH, works.JAX)]
        compared += [self._compare(check.RESNET, peer) for peer in works.RESNET_PEERS]
        compared.append(self._compare(check.CLASSIC, PROGRAM))
        return [one for one in compared if one]

    def _compare(self, work: Work | images.Work, peer: str) -> str:
        if not self._available([peer], work):
            return ""
        check.write_start(work, self._start)
        found: list[tuple[float, dict[str, np.ndarray]]] = []
        losses = []
        for name in (OURS, peer):
            child = self._child(name, None, work)
            child.ask("train", work, start=str(self._start))
            file = self._start.with_name("gradients.npz")
            loss = child.ask("gradients", file=str(file))
            with np.load(file) as gradients:
                found.append((loss, dict(gradients)))
            losses.append(child.ask("losses", count=check.STEPS))
        wrong = list(check.differences(*found))
        if work.optimizer != "adagrad":
            wrong += check.later_differences(*losses)
        if wrong:
            raise check.DifferentError(f"{work}: {OURS} (here) and {peer} (there) differ: {'; '.join(wrong)}")
        self._say(f"{work}: {OURS} and {peer} compute the same")
        return f"{work.kind.upper()} with {peer}"

    def race(self, row: Row) -> dict[str, Any]:
        """A row of the table."""
        self._say(row.name)
        check.write_start(row.work, self._start)
        first = "sample" if row.length else "train"
        runners: dict[str, Child] = {}
        threads = {}
        for name in self._available([OURS, *row.peers], row.work):
            children = [self._child(name, count, row.work) for count in self._choices(name)]
            used = [child.ask(first, row.work, start=str(self._start)) for child in children]
            if not row.length:
                self._same_loss(row, name, children)
            best = self._fastest(row, name, children)
            runners[name], threads[name] = children[best], used[best]
        rounds: dict[str, list[float]] = {name: [] for name in runners}
        rates = []
        machine, on_gpu = self._child("machine", None), row.work.backend != "numpy"
        for number in range(self.rounds):
            names = list(runners) if number % 2 == 0 else list(runners)[::-1]
            for name in names:
                rounds[name].append(self._turn(row, runners[name], self.seconds))
            if not on_gpu:
                rates.append(machine.ask("rate"))
        result = summary(row, rounds, threads)
        if rates and not row.length:
            result["matrix_rate"] = median(rates)
            result["share"] = row.work.flop / result["contestants"][OURS]["median"] / 1e9 / median(rates)
        for name, found in result["contestants"].items():
            self._say(f"    {name:14s} {found['median'] * 1e3:10.3f} ms, threads {found['threads']}")
        return result

    def _same_loss(self, row: Row, name: str, children: Iterable[Child]) -> None:
        """Warms up, and makes sure that at this size too the work is the same."""
        for child in children:
            loss = child.ask("losses", count=1)[0]
            if name == OURS:
                self._expected = loss
            elif wrong := list(check.later_differences([self._expected], [loss])):
                raise check.DifferentError(f"{row.name}: {OURS} (here) and {name} (there): {wrong[0]}")

    def _fastest(self, row: Row, name: str, children: Sequence[Child]) -> int:
        """Which of the same contestant with other threads it is."""
        if len(children) == 1:
            return 0
        trials = [[self._turn(row, child, self.seconds) for child in children] for _ in range(TRIALS)]
        medians = [median(column) for column in zip(*trials, strict=True)]
        shown = (f"{s * 1e3:.3f} ({c.threads})" for s, c in zip(medians, children, strict=True))
        self._say(f"    {name:14s} ms on trial, with so many threads: {', '.join(shown)}")
        return medians.index(min(medians))

    def _turn(self, row: Row, child: Child, seconds: float) -> float:
        if row.length:
            return median(child.ask("write", length=row.length, seconds=seconds)) / row.length
        return median(child.ask("steps", seconds=seconds))

    def per_op(self) -> dict[str, Any]:
        """Engines op by op, which bench.per_op measures in one process with one thread."""
        self._say(works.PER_OP)
        run = [sys.executable, "-m", "bench.per_op", "--json", "--rounds", str(self.rounds)]
        engines = json.loads(subprocess.run(run, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout)
        for name, found in engines.items():
            self._say(f"    {name:14s} {found['together'] * 1e6:10.2f} us")
        return {"goal": works.PER_OP_GOAL, "engines": engines}

    def start(self) -> dict[str, float]:
        """Of a Python that imports something: the median of several, the first not counted."""
        self._say(works.START)
        programs = {"Python alone": "pass", OURS: "import tinygrad_rnn"}
        programs |= {PYTORCH: "import torch", works.JAX: "import jax"}
        taken: dict[str, list[float]] = {name: [] for name in programs if name not in self._missing}
        for _ in range(START_ROUNDS + 1):
            for name in list(taken):
                began = time.perf_counter()
                run = subprocess.run([sys.executable, "-c", programs[name]], stderr=subprocess.DEVNULL)
                taken[name].append(time.perf_counter() - began)
                if run.returncode:
                    del taken[name]
        return {name: median(seconds[1:]) for name, seconds in taken.items()}

    def memory(self) -> dict[str, Any]:
        """Bytes by which processes grow for a network, its optimiser and two steps; see Answers.memory()."""
        self._say(works.MEMORY)
        taken = {}
        for name in self._available([OURS, PYTORCH]):
            child = Child(MODULES[name])
            tiny = check.NETWORKS[1]
            check.write_start(tiny, self._start)
            child.ask("train", tiny, start=str(self._start))  # so that all is loaded and compiled
            child.ask("losses", count=2)
            check.write_start(works.LARGE, self._start)
            taken[name] = child.ask("memory", works.LARGE, start=str(self._start))
            child.close()
        return {"work": str(works.LARGE), "goal": works.MEMORY_GOAL, "bytes": taken}

    def growth(self) -> dict[str, Any]:
        """How the time of a step of ours grows with each size, and the exponents that fit it."""
        found = {}
        child = self._child(OURS, None)
        for size, steps in works.GROWTHS.items():
            self._say(f"growth with {size}")
            for work in steps:
                check.write_start(work, self._start)
                child.ask("train", work, start=str(self._start))
                seconds = [median(child.ask("steps", seconds=self.seconds)) for _ in range(TRIALS)]
                found.setdefault(size, []).append((getattr(work, size), median(seconds)))
        return {
            "base": str(works.BASE),
            "sizes": {
                size: {"seconds": points, "exponent": exponent(points)} for size, points in found.items()
            },
        }

    def limits(self) -> dict[str, float]:
        """Of the machine; see Answers.limits()."""
        self._say("the machine's limits")
        return self._child("machine", None).ask("limits")

    def _available(self, names: Sequence[str], work: Work | images.Work = works.SMALL) -> list[str]:
        for name in names:
            if name not in self._missing:
                try:
                    self._child(name, self._choices(name)[0], work)
                except MissingError as error:
                    self._missing.add(name)
                    self._say(f"without {name}: {error}")
        return [name for name in names if name not in self._missing]

    def _choices(self, name: str) -> list[int | None]:
        """Threads to try."""
        return [None] if name == OURS else sorted({1, usable_cores()})

    def _child(self, name: str, threads: int | None, work: Work | images.Work = works.SMALL) -> Child:
        """The one that does such work."""
        modules = works.IMAGE_MODULES if isinstance(work, images.Work) else MODULES
        key = name, modules.get(name, MODULES[OURS]), threads
        if key not in self._children:
            self._children[key] = Child(key[1], threads)
        return self._children[key]


def summary(row: Row, rounds: dict[str, list[float]], threads: dict[str, int | None]) -> dict[str, Any]:
    """What goes into the results: times of a step, or of a symbol if the row is of sampling."""
    contestants = {
        name: {"median": median(seconds), "threads": threads[name], "rounds": seconds}
        for name, seconds in rounds.items()
    }
    peers = {name: found["median"] for name, found in contestants.items() if name != OURS}
    best = min(peers, key=peers.__getitem__, default=None)
    return {
        "name": row.name,
        "work": asdict(row.work),
        "sampling": bool(row.length),
        "goal": row.goal,
        "share_goal": row.share_goal,
        "contestants": contestants,
        "best_peer": best,
        "factor": peers[best] / contestants[OURS]["median"] if best else None,
    }


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Of the power law that fits (size, seconds) best, in logarithms."""
    sizes, seconds = np.log(np.asarray(points, float)).T
    return float(np.polyfit(sizes, seconds, 1)[0])
