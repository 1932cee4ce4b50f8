"""What the tests of crashes share: processes that start at once, in a folder with a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .forks import Server
from .runs import TEXT


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a text in it."""
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path
