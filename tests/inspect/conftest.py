"""A small session in float64, so that four digits are the same on every machine; texts to compare with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.tensor import leaf_node
from tinygrad_rnn.inspect import Session, View, run
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.text import Vocabulary

TEXT = 'He said: "no (not yet)."\n"Why?" she asked, and (again) he said "no".\n' * 3
WIDTHS = (40, 80, 200)
REWRITE = "TRNN_GOLDEN"  # in the environment: write the golden files instead of comparing with them


def small(
    kind: str = "lstm", layers: int = 2, length: int = 20, hidden_size: int = 6, seed: int = 0
) -> Session:
    """A session on a few sentences with quotation marks and brackets."""
    tg.manual_seed(seed)
    vocabulary = Vocabulary.of(TEXT)
    model = CharLM(len(vocabulary), kind, embedding_size=4, hidden_size=hidden_size, num_layers=layers)
    for parameter in model.parameters():
        parameter.array = parameter.array.astype(np.float64)
        parameter.node = leaf_node(parameter.array, parameter.backend)
    return Session(model, vocabulary, vocabulary.encode(TEXT), f"a small {kind}", length=length)


@pytest.fixture
def session() -> Session:
    return small()


@pytest.fixture(params=["lstm", "gru", "rnn"])
def each(request: pytest.FixtureRequest) -> Session:
    """A session of each kind."""
    return small(request.param)


PLACE = re.compile(r"\.py:\d+")  # where a node was made, of which nobody wants to hear when a line moves


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[View], None]:
    """Compare a view's text, at three widths, with what lies in golden/ under the test's name."""

    def compare(view: View) -> None:
        for width in WIDTHS:
            name = re.sub(r"\W+", "_", request.node.name.removeprefix("test_")).strip("_")
            folder = Path(__file__).parent / "golden" / request.module.__name__.rpartition(".test_")[2]
            file = folder / f"{name}.{width}.txt"
            text = PLACE.sub(lambda found: re.sub(r"\d", "#", found[0]), view.text(width))
            assert all(len(line) <= width for line in text.splitlines()), "a line is too long"
            if os.environ.get(REWRITE):
                folder.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
            assert file.exists(), f"no {file.name}: look at the text, then run with {REWRITE}=1\n{text}"
            assert text == file.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def say(session: Session) -> Callable[[str], View]:
    """Run a command line in the session."""
    return lambda line: run(session, line)
