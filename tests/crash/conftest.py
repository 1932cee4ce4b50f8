"""What the tests of crashes share: processes that start at once, in a folder with a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tinygrad_rnn.vision import make_shapes

from ..vision.files import write_idx
from .forks import Server
from .runs import TEXT


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a text in it, and one of images."""
    (tmp_path / "text.txt").write_text(TEXT)
    images, labels = make_shapes(30, 8, channels=1)
    write_idx(tmp_path / "images", "train", images[:, 0], labels % 3)
    return tmp_path
