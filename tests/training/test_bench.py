"""The benchmark that is installed: what it says a step computes, and how it measures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.training import bench, doctor
from tinygrad_rnn.training.bench import Work, measure, times

SIZES = st.integers(1, 6)


@given(
    kind=st.sampled_from(["rnn", "lstm", "gru"]),
    layers=SIZES,
    hidden_size=SIZES,
    embedding_size=SIZES,
    batch_size=SIZES,
    seq_length=SIZES,
    symbols=st.integers(1, 300),
)
def test_a_step_multiplies_all_weights_but_the_table_three_times(**sizes):
    work = Work(**sizes)
    trainer = work.trainer()
    multiplied = sum(p.size for name, p in trainer.model.named_parameters() if name != "embedding.weight")
    inputs, targets = trainer.windows[0]
    assert inputs.shape == targets.shape == (work.seq_length, work.batch_size)
    assert len(trainer.windows) == bench.WINDOWS
    assert trainer.model.vocab_size == work.symbols > inputs.max()
    assert work.flop == 6 * multiplied * inputs.size


def test_a_work_is_always_the_same():
    work = Work(kind="lstm", layers=2, hidden_size=5, batch_size=3, seq_length=4)
    first, second = (work.trainer() for _ in range(2))
    losses = [[trainer.train_step().loss for _ in range(3)] for trainer in (first, second)]
    assert losses[0] == losses[1]
    assert losses[0][0] == pytest.approx(np.log(work.symbols), rel=0.1)


@given(least=st.integers(1, 5))
def test_what_is_timed_is_done_once_before(least):
    done = []
    assert len(times(lambda: done.append(1), 0.0, least)) == least
    assert len(done) == least + 1


def test_a_rate_and_a_share_of_it_for_every_step(monkeypatch):
    tiny = Work(kind="gru", layers=1, hidden_size=4, batch_size=2, seq_length=3)
    monkeypatch.setattr(bench, "WORKS", {"default": tiny})
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "PIECE", 3)
    monkeypatch.setattr(doctor, "SECONDS", 0.0)
    monkeypatch.setattr(doctor, "SIZE", 64)
    step, sampling = measure()
    assert step.symbols == 6 and step.seconds > 0
    assert step.share * step.rate * 1e9 * step.seconds == pytest.approx(tiny.flop)
    assert sampling.symbols == 3 and sampling.share is None
