"""The loss of a text: a mean over all symbols, whatever comes at once, beside the entropy of frequencies."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.text import Windows
from tinygrad_rnn.text.scoring import Scored, score
from tinygrad_rnn.training import evaluate
from tinygrad_rnn.training.evaluation import Tally

LOSSES = st.lists(st.tuples(st.integers(0, 4), st.floats(0, 100, width=32)), min_size=1, max_size=50)


def scored(losses):
    symbols, nats = zip(*losses, strict=True) if losses else ((), ())
    nothing = np.zeros((len(losses), 0))
    return Scored(np.array(symbols, np.intp), np.array(nats, np.float64), nothing, nothing)


def tally_of(*windows):
    tally = Tally(5)
    for window in windows:
        tally.add(window)
    return tally


@given(losses=LOSSES, cut=st.integers(0, 50))
def test_a_tally_is_the_mean_whatever_comes_at_once(losses, cut):
    tally = tally_of(scored(losses))
    in_parts = tally_of(scored(losses[:cut]), scored(losses[cut:]))
    assert tally.symbols == in_parts.symbols == len(losses)
    assert tally.nats == in_parts.nats == pytest.approx(np.mean([nats for _, nats in losses]))
    assert tally.bits == pytest.approx(tally.nats / math.log(2))
    assert tally.perplexity == pytest.approx(math.exp(tally.nats))
    frequencies = np.unique([symbol for symbol, _ in losses], return_counts=True)[1] / len(losses)
    assert tally.entropy == in_parts.entropy
    assert tally.entropy == pytest.approx(-(frequencies * np.log(frequencies)).sum(), abs=1e-12)


def test_a_perplexity_beyond_all_floats_is_infinite():
    assert tally_of(scored([(0, 1e30)])).perplexity == math.inf


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_one_stream_is_what_the_trainer_evaluates_with_a_batch_of_one(kind):
    model = CharLM(6, kind, embedding_size=4, hidden_size=5, num_layers=2, dropout=0.5)
    text = np.random.default_rng(0).integers(0, 6, 101).astype(np.uint8)
    tally = Tally(6)
    for window in score(model, [text], window=30):
        tally.add(window)
    for length in (1, 7, 100):
        assert evaluate(model, Windows(text, 1, length)) == pytest.approx(tally.nats, rel=1e-6)


def test_who_predicts_frequencies_has_their_entropy_as_loss():
    text = np.random.default_rng(0).choice(4, 1001, p=[0.5, 0.3, 0.15, 0.05])
    model = CharLM(4, "rnn", embedding_size=2, hidden_size=3, num_layers=1)
    with tg.no_grad():
        model.output.weight[...] = 0.0
        model.output.bias[...] = np.log(np.bincount(text[1:]) / 1000).astype(np.float32)
    tally = Tally(4)
    for window in score(model, [text]):
        tally.add(window)
    assert tally.nats == pytest.approx(tally.entropy, rel=1e-6)
