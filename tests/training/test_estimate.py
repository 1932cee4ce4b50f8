"""The estimate of a training's memory is near what it then takes; what does not fit is refused beforehand."""

import os
import tracemalloc
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_rnn.engine.ops.fused import use_kernels
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.models import KINDS
from tinygrad_rnn.optim.optimizers import OPTIMIZERS
from tinygrad_rnn.text import load_corpus
from tinygrad_rnn.training import CharTrainer, RunFolder, TrainConfig, characters, estimate, evaluate
from tinygrad_rnn.training.estimate import Estimate
from tinygrad_rnn.training.machine import usable_cores
from tinygrad_rnn.training.threads import limited_threads

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="needs Numba")
FACTOR = 1.5  # either way
OBJECTS = 2**16  # bytes of what is no array, such as names and the graph's nodes
SIZES = {"embedding_size": 48, "hidden_size": 64, "layers": 2, "batch_size": 12, "seq_length": 32}


def corpus_of(folder, config, symbols):
    """A text of so many different symbols to train on, and one window held out; all windows are full."""
    read = config.batch_size * config.seq_length
    for name, windows in [("text", -(-symbols // read)), ("held-out", 1)]:
        characters = (chr(0x4E00 + number % symbols) for number in range(windows * read + 1))
        (folder / name).write_text("".join(characters), encoding="utf-8")
    return load_corpus(folder / "text", val_file=str(folder / "held-out"))


class Moments:
    """The largest memory in use at each moment of a training that an estimate tells of, in bytes."""

    def __init__(self, folder, symbols=60, **chosen):
        folder.mkdir(exist_ok=True)
        config = TrainConfig(corpus=str(folder / "text"), val_file=str(folder / "held-out"), **chosen)
        corpus = corpus_of(folder, config, symbols)
        self.threads, self.compiled = config.threads or usable_cores(), config.is_compiled
        with limited_threads(config):
            trainer = self._measure(config, corpus, folder)
        self.estimate = Estimate.of(config, symbols, trainer.windows, trainer.val_windows)
        assert self.estimate.parameters == trainer.model.num_parameters()

    def _measure(self, config, corpus, folder):
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        try:
            trainer = CharTrainer(config, corpus)
            self.step = self._peak(trainer.train_step)
            trainer._fingerprint = {}
            with trainer._averaged():
                self.validation = self._peak(lambda: evaluate(trainer.model, trainer.val_windows))
            self.checkpoint = self._peak(
                lambda: trainer._write(folder / "a.safetensors", None, finished=False)
            )
            return trainer
        finally:
            tracemalloc.stop()

    def _peak(self, work):
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - self._before

    def check(self):
        """Of several threads' arrays those are there at once whose threads run at once."""
        threads = self.threads if self.compiled else 1
        for moment in ("step", "validation", "checkpoint"):
            estimated, taken = getattr(self.estimate, moment), getattr(self, moment)
            assert (taken - OBJECTS) / FACTOR < estimated < taken * FACTOR * threads, moment


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What is imported at its first use has been, and is not taken for a training's."""
    folder = tmp_path_factory.mktemp("estimate")
    Moments(folder, **SIZES)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"layers": 1, "dropout": 0.5},  # nothing between layers
        {"layers": 3, "dropout": 0.3, "variational": True, "embedding_dropout": 0.1},
        {"weight_dropout": 0.3},
        {"embedding_size": 64, "tie_weights": True},
        {"accumulate": 5},
        {"optimizer": "sgd"},
        {"average": 0.9},
        {"embedding_size": 256},
        {"symbols": 3000, "batch_size": 3},
        {"symbols": 3000, "accumulate": 4},  # a validation reads all streams at once
        {"symbols": 3000, "hidden_size": 128, "batch_size": 64, "seq_length": 64},  # a large table
        {"hidden_size": 192, "batch_size": 1, "seq_length": 10},  # hardly anything but weights
        {"hidden_size": 192, "batch_size": 1, "seq_length": 10, "optimizer": "sgd", "average": 0.9},
        {"hidden_size": 16, "batch_size": 32, "seq_length": 100},  # hardly any weights
    ],
    ids=str,
)
@pytest.mark.parametrize("kernels", ["numpy", pytest.param("numba", marks=needs_numba)])
def test_each_setting_is_counted(folder, kind, chosen, kernels):
    settings = SIZES | chosen | {"kind": kind, "kernels": kernels}
    for threads in (1, 2) if kernels == "numba" else (1,):
        with use_kernels(kernels):
            if kernels == "numba":
                Moments(folder, threads=threads, **settings)  # what is compiled has been
            Moments(folder, threads=threads, **settings).check()


@st.composite
def trainings(draw):
    """Settings that change what a training needs of memory, of which something is not tiny."""
    chosen = {
        "kind": draw(st.sampled_from(list(KINDS))),
        "hidden_size": draw(st.integers(48, 160)),
        "embedding_size": draw(st.integers(8, 160)),
        "layers": draw(st.integers(1, 3)),
        "batch_size": draw(st.integers(1, 24)),
        "seq_length": draw(st.integers(10, 64)),
        "optimizer": draw(st.sampled_from(list(OPTIMIZERS))),
        "symbols": draw(st.integers(2, 400)),
        "dropout": draw(st.sampled_from([0.0, 0.4])),
        "weight_dropout": draw(st.sampled_from([0.0, 0.4])),
        "average": draw(st.sampled_from([0.0, 0.9])),
        "tie_weights": draw(st.booleans()),
    }
    if chosen["tie_weights"]:
        chosen["embedding_size"] = chosen["hidden_size"]
    return chosen | {"accumulate": draw(st.integers(1, min(chosen["batch_size"], 4)))}


@given(chosen=trainings())
def test_whatever_the_settings(folder, chosen):
    Moments(folder, **chosen).check()


@pytest.mark.slow
@given(chosen=trainings())
@settings(max_examples=500)
def test_whatever_the_settings_at_length(folder, chosen):
    Moments(folder, **chosen).check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden_size", [128, 512])
def test_large_ones_are_estimated_better(folder, kind, hidden_size, monkeypatch):
    monkeypatch.setattr(f"{__name__}.FACTOR", 1.25)
    sizes = {
        "hidden_size": hidden_size,
        "embedding_size": 64,
        "layers": 3,
        "batch_size": 64,
        "seq_length": 64,
    }
    Moments(folder, kind=kind, **sizes).check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_run_takes_what_was_estimated(folder, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(characters, "SAMPLE_LENGTH", 10)
    settings = {**SIZES, "kind": kind, "max_steps": 3, "average": 0.9, "checkpoint_every": 1}
    config = TrainConfig(corpus=str(tmp_path / "text"), val_file=str(tmp_path / "held-out"), **settings)
    corpus = corpus_of(tmp_path, config, 60)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        trainer = CharTrainer(config, corpus)
        with RunFolder.create(tmp_path / "run", config) as run:
            trainer.train(run)
        taken = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    estimated = Estimate.of(config, 60, trainer.windows, trainer.val_windows).bytes
    assert taken / FACTOR < estimated < taken * FACTOR


def test_windows_are_as_long_as_the_text_makes_them(folder):
    """A text a symbol longer than a window is read in two halves."""
    config = TrainConfig(corpus="text", **(SIZES | {"batch_size": 1}))
    (folder / "longer").write_text("ab" * 17)
    corpus = load_corpus(folder / "longer", val_fraction=0)
    windows, _ = characters.split_windows(corpus, config)
    assert [len(inputs) for inputs, _ in windows] == [17, 16]
    half = TrainConfig(corpus="text", **(SIZES | {"batch_size": 1, "seq_length": 17}))
    assert Estimate.of(config, 2, windows) == Estimate.of(half, 2, windows)


LARGE = {"hidden_size": 2**16, "embedding_size": 2**16, "layers": 2**10}


@pytest.mark.parametrize(
    ("settings", "helps"),
    [
        (LARGE, "use a smaller --hidden-size or fewer --layers"),
        ({"batch_size": 4000, "seq_length": 60}, "--batch-size or --seq-length, or --accumulate"),
        ({"batch_size": 4000, "seq_length": 60, "accumulate": 2000}, "--batch-size or --seq-length"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(folder, monkeypatch, settings, helps):
    config = TrainConfig(corpus="text", **settings)
    (folder / "long").write_text("abcdefghij" * 27_000)
    corpus = load_corpus(folder / "long")
    monkeypatch.setattr(estimate, "memory", lambda: (10**9, 50 * 10**6))
    tracemalloc.start()
    try:
        with pytest.raises(UsageError) as raised:
            CharTrainer(config, corpus)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 10**6
    assert str(raised.value).startswith("this training needs about ")
    assert " of memory, and 50 MB are free; " in str(raised.value)
    assert str(raised.value).endswith(helps)
    monkeypatch.setattr(
        estimate, "memory", lambda: (None, None)
    )  # a system that does not say refuses nothing
    windows, val_windows = characters.split_windows(corpus, config)
    estimate.check_memory(config, len(corpus.vocabulary), windows, val_windows)
