"""What the tests of crashes share: processes that start at once, and figures to show at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .forks import Server
from .runs import TEXT

_figures: list[str] = []


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a text in it."""
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def figures() -> Callable[[str], None]:
    """Takes a line that is shown at the end of all tests: how much was tried."""
    return _figures.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("crashes")
        for line in _figures:
            terminalreporter.line(line)
