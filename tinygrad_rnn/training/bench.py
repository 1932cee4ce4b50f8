"""What a training step and a sampled symbol cost on this machine, and how near that comes to its limit.

The limit is the matrix products: they are most of the work, and a BLAS library at its best computes large
ones at nearly the processor's own rate. What is measured is what a training does: steps of the trainer, on
made-up symbols.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np

from ..errors import UsageError
from ..models import CharLM
from ..text import Corpus, Vocabulary, Windows, sample
from .characters import CharTrainer
from .config import TrainConfig
from .doctor import matrix_rate
from .estimate import Estimate
from .machine import usable_cores
from .threads import limited_threads, with_threads

WINDOWS = 8
CODES = 0x4E00  # a block of characters large enough for any vocabulary
SECONDS = 1.0  # for which a thing is repeated
PIECE = 200  # symbols sampled at a time


@dataclass(frozen=True, kw_only=True)
class Work:
    """A training step: a network, and windows (seq_length, batch_size) of so many different symbols.

    threads: of the matrix products; None: the trainer's choice.
    """

    kind: str
    layers: int
    hidden_size: int
    embedding_size: int = 64
    batch_size: int = 50
    seq_length: int = 50
    symbols: int = 65
    optimizer: str = "adam"
    lr: float = 2e-3
    clip: float = 5.0
    threads: int | None = None
    backend: str = "numpy"

    def __str__(self) -> str:
        return (
            f"{self.kind.upper()} {self.layers}x{self.hidden_size}, batch {self.batch_size}, "
            f"T {self.seq_length}"
        )

    @property
    def config(self) -> TrainConfig:
        """The settings of a training that makes such steps."""
        return TrainConfig(
            corpus=("made-up symbols",),
            val_fraction=0.0,
            kind=self.kind,
            layers=self.layers,
            hidden_size=self.hidden_size,
            embedding_size=self.embedding_size,
            batch_size=self.batch_size,
            seq_length=self.seq_length,
            optimizer=self.optimizer,
            lr=self.lr,
            clip=self.clip,
            schedule="constant",
            threads=self.threads,
            backend=self.backend,
        )

    @property
    def flop(self) -> int:
        """Floating-point operations of a step's matrix products: for each symbol and weight one
        multiplication and one addition, three times: forward, for the gradient of the weight, and for that
        of what it is multiplied with. The embedding table is only looked up."""
        windows = Windows(self.text, self.batch_size, self.seq_length)
        learnt = Estimate.of(self.config, self.symbols, windows).parameters
        return 6 * (learnt - self.symbols * self.embedding_size) * self.batch_size * self.seq_length

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary("utf-8", range(CODES, CODES + self.symbols))

    @property
    def text(self) -> np.ndarray:
        """Symbols for WINDOWS windows, drawn at random, always the same."""
        length = self.batch_size * self.seq_length * WINDOWS + 1
        return np.random.default_rng(0).integers(self.symbols, size=length).astype(self.vocabulary.dtype)

    def trainer(self) -> CharTrainer:
        """Ready for its first step."""
        text = self.text
        return CharTrainer(self.config, Corpus("made-up", text, text[:0], self.vocabulary, sha256=""))


DEFAULTS = TrainConfig(corpus=("any",))
WORKS = {
    "default": Work(
        kind=DEFAULTS.kind,
        layers=DEFAULTS.layers,
        hidden_size=DEFAULTS.hidden_size,
        embedding_size=DEFAULTS.embedding_size,
        batch_size=DEFAULTS.batch_size,
        seq_length=DEFAULTS.seq_length,
    ),
    "small": Work(kind="lstm", layers=2, hidden_size=128),
    "medium": Work(kind="lstm", layers=2, hidden_size=512),
    "large": Work(kind="lstm", layers=3, hidden_size=512, batch_size=64, seq_length=128),
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one thing costs: `seconds`, the median, for so many `symbols`.

    threads: that it was computed with. rate: the limit(), measured right after it; share: of that rate, what
    was reached. None for sampling.
    """

    name: str
    seconds: float
    symbols: int
    threads: int
    rate: float | None = None
    share: float | None = None


def measure() -> Iterator[Measured]:
    """Steps of each of WORKS that fits into memory, and one stream of text written by the default model."""
    for name, work in WORKS.items():
        try:
            trainer = work.trainer()
        except UsageError:  # it would not
            continue
        config = with_threads(work.config)
        with limited_threads(config):
            seconds = median(times(trainer.train_step, SECONDS))
        rate = limit()
        yield Measured(
            name=f"{name}: step of {work}",
            seconds=seconds,
            symbols=work.batch_size * work.seq_length,
            threads=config.threads or 1,
            rate=rate,
            share=work.flop / seconds / rate / 1e9,
        )
    model = WORKS["default"].trainer().model
    seconds = median(times(lambda: write(model, PIECE), SECONDS))
    yield Measured(
        name=f"sampling: {model.kind.upper()} {model.rnn.num_layers}x{model.rnn.hidden_size}, one stream",
        seconds=seconds,
        symbols=PIECE,
        threads=1,
    )


def limit() -> float:
    """GFLOP/s of large matrix products at their best: with all cores, or with one where others are busy."""
    return max(map(matrix_rate, {1, usable_cores()}))


def milliseconds(seconds: float) -> str:
    """Three digits, or as many as there are before the point."""
    number = seconds * 1e3
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def write(model: CharLM, length: int) -> None:
    """Sample one stream of so many symbols."""
    for _ in sample(model, np.zeros(1, np.intp), length):
        pass


def times(do: Callable[[], object], seconds: float, least: int = 1) -> list[float]:
    """How long `do` took, each time: repeated for about so many seconds, but at least `least` times, after
    once that does not count."""
    do()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < least or time.perf_counter() < until:
        began = time.perf_counter()
        do()
        taken.append(time.perf_counter() - began)
    return taken
