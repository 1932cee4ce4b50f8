"""What was tried for each promise of the README: counted while the tests run, shown at their end.

A line a test file that the README's table of promises names: how its tests ended, what they have counted, and
how many examples Hypothesis drew for them. FIGURES.md keeps what the exhaustive forms have shown.
"""

from __future__ import annotations

import functools
import platform
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
_tried: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by test file


def promised() -> list[str]:
    """The test files that the README's table of promises names, in its order."""
    after = (ROOT / "README.md").read_text(encoding="utf-8").split("\n### What is promised", 1)[1]
    table = after.split("\n#", 1)[0]
    return [*dict.fromkeys(re.findall(r"`(tests/\S+\.py)`", table))]


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Counter[str]:
    """What the tests of a file have tried, in words: figures["bits flipped"] += 1."""
    return _tried[request.path.relative_to(ROOT).as_posix()]


def count_examples(items: Iterable[pytest.Item]) -> None:
    """Have the examples counted that Hypothesis draws for these tests."""
    tests = {item.obj: item for item in items if getattr(item.obj, "is_hypothesis_test", False)}
    for test, item in tests.items():
        tried = _tried[item.path.relative_to(ROOT).as_posix()]
        test.hypothesis.inner_test = _counted(test.hypothesis.inner_test, tried)


def _counted(law: Callable[..., None], tried: Counter[str]) -> Callable[..., None]:
    @functools.wraps(law)
    def counted(*arguments: object, **named: object) -> None:
        law(*arguments, **named)
        tried["examples"] += 1

    return counted


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Where tests run in several processes, each of them tells the first one what it has tried."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tried"] = {file: dict(counts) for file, counts in _tried.items()}
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for file, counts in getattr(node, "workeroutput", {}).get("tried", {}).items():
        _tried[file].update(counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ended: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for how in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(how, []):
            ended[report.nodeid.partition("::")[0]][how] += 1
    if shown := [file for file in promised() if file in ended]:
        terminalreporter.section("figures")
        system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        terminalreporter.line(f"{date.today()}, {system}, NumPy {np.__version__}")
    for file in shown:
        how = ", ".join(f"{count} {how}" for how, count in {"failed": 0, **ended[file]}.items())
        tried = ", ".join(f"{count:,} {what}" for what, count in _tried[file].items())
        terminalreporter.line(f"{file}: {how}{tried and '; '}{tried}")
