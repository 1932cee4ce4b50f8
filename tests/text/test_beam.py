"""Beam search: wide, as good as looking at every text; of width 1, the likeliest symbol each time."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.text import sample
from tinygrad_rnn.text.beam import beam_search

SYMBOLS, LENGTH = 3, 5
PRIME = np.array([1, 2, 0])

seeds = st.integers(0, 10_000)
kinds = st.sampled_from(["rnn", "lstm", "gru"])
ends = st.none() | st.lists(st.integers(0, SYMBOLS - 1), min_size=1, max_size=2)


def model_of(kind, seed):
    """A model whose predictions are far from even."""
    tg.manual_seed(seed)
    model = CharLM(SYMBOLS, kind, embedding_size=4, hidden_size=5, num_layers=1)
    with tg.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter * 4.0)
    return model.eval()


def log_probability(model, text, exclude=None):
    logits, _ = model(np.array([*PRIME, *text])[:-1, None])
    scores = logits.numpy()[len(PRIME) - 1 :, 0].astype(float)
    if exclude is not None:
        scores[:, exclude] = -np.inf
    return sum(row[s] - np.logaddexp.reduce(row) for row, s in zip(scores, text, strict=True))


def complete_texts(until, exclude):
    """All texts of LENGTH symbols, cut after the first `until`."""
    texts = set()
    for text in itertools.product([s for s in range(SYMBOLS) if s != exclude], repeat=LENGTH):
        cuts = (
            [] if until is None else [n for n in range(LENGTH + 1) if list(text[:n][-len(until) :]) == until]
        )
        texts.add(text[: min(cuts, default=LENGTH)])
    return texts


@given(kinds, seeds, ends, st.none() | st.integers(0, SYMBOLS - 1))
def test_a_wide_beam_finds_the_best_of_all_texts(kind, seed, until, exclude):
    model = model_of(kind, seed)
    found = beam_search(
        model, PRIME, LENGTH, SYMBOLS ** (LENGTH - 1), None if until is None else np.array(until), exclude
    )
    texts = complete_texts(until, exclude)
    assert tuple(found.symbols.tolist()) in texts
    best = max(log_probability(model, text, exclude) / len(text) for text in texts)
    np.testing.assert_allclose(found.log_probability / len(found.symbols), best, rtol=1e-4, atol=1e-5)
    own = log_probability(model, found.symbols.tolist(), exclude)
    np.testing.assert_allclose(found.log_probability, own, rtol=1e-4, atol=1e-5)


@given(kinds, seeds, ends)
def test_a_beam_of_one_takes_the_likeliest_symbol_each_time(kind, seed, until):
    model = model_of(kind, seed)
    until = None if until is None else np.array(until)
    greedy = list(sample(model, PRIME, 12, temperature=0, until=until))
    assert beam_search(model, PRIME, 12, 1, until).symbols.tolist() == greedy


@given(kinds, seeds, st.integers(2, 30))
def test_a_text_once_complete_is_left_alone(kind, seed, width):
    until = np.array([0])
    symbols = beam_search(model_of(kind, seed), PRIME, 20, width, until).symbols.tolist()
    assert 0 not in symbols[:-1]
    assert symbols[-1] == 0 or len(symbols) == 20


def test_what_makes_no_sense_is_refused():
    model = model_of("gru", 0)
    with pytest.raises(UsageError, match="width of a beam must be at least 1, not 0"):
        beam_search(model, PRIME, 5, 0)
    with pytest.raises(UsageError, match="length must be at least 1, not 0"):
        beam_search(model, PRIME, 0, 5)
    with pytest.raises(UsageError, match="at least one symbol to start from"):
        beam_search(model, PRIME[:0], 5, 5)
