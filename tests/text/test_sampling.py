"""Sampling: seeded, greedy at temperature 0, true to the model's distribution, and without side effects."""

import itertools

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import CheckpointError, UsageError
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.text import Vocabulary, sample
from tinygrad_rnn.text.sampling import choose, opening

PRIME = np.array([1, 2, 3])


@pytest.fixture(params=["rnn", "lstm", "gru"])
def model(request):
    return CharLM(6, request.param, embedding_size=4, hidden_size=5, num_layers=2, dropout=0.5)


def test_the_same_seed_gives_the_same_text(model):
    first = list(sample(model, PRIME, 40, seed=1))
    assert list(sample(model, PRIME, 40, seed=1)) == first
    assert list(sample(model, PRIME, 40, seed=2)) != first
    assert len(first) == 40


def test_at_temperature_zero_the_likeliest_every_time(model):
    written = list(sample(model, PRIME, 10, temperature=0, seed=1))
    assert list(sample(model, PRIME, 10, temperature=0, seed=2)) == written
    model.eval()
    text = [*PRIME, *written]
    logits, _ = model(np.array(text)[:, None])  # all at once: what each symbol was chosen from
    assert logits.numpy()[2:-1, 0].argmax(axis=1).tolist() == written


def test_a_tiny_temperature_is_greedy_and_a_huge_one_uniform(model):
    greedy = list(sample(model, PRIME, 20, temperature=0))
    assert list(sample(model, PRIME, 20, temperature=1e-300)) == greedy
    assert set(sample(model, PRIME, 200, temperature=1e300)) == set(range(6))


def test_draws_follow_the_softmax():
    logits = np.array([0.0, 1.0, 2.0, -np.inf], np.float32)
    draws = np.random.default_rng(0)
    counts = np.bincount([choose(logits, 0.5, draws) for _ in range(20_000)], minlength=4)
    wanted = np.exp(logits / 0.5) / np.exp(logits / 0.5).sum()
    np.testing.assert_allclose(counts / 20_000, wanted, atol=0.015)
    assert counts[3] == 0


@pytest.mark.parametrize("offset", [-1e30, 0.0, 1e30])
def test_large_logits_do_not_overflow(offset):
    logits = np.array([0.0, 1e30]) + offset
    assert choose(logits, 1.0, np.random.default_rng(0)) == 1


def test_predictions_that_are_not_finite_are_refused():
    for bad in (np.nan, np.inf):
        with pytest.raises(CheckpointError, match="not finite"):
            choose(np.array([bad, 0.0]), 1.0, np.random.default_rng(0))


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf")])
def test_a_temperature_that_makes_no_sense(model, temperature):
    with pytest.raises(UsageError, match="temperature"):
        sample(model, PRIME, 1, temperature=temperature)


def test_without_a_prime(model):
    with pytest.raises(UsageError, match="at least one symbol"):
        sample(model, PRIME[:0], 1)
    assert opening(Vocabulary.of("a b\n")).tolist() == [0]
    assert opening(Vocabulary.of("a b")).tolist() == [0]
    assert opening(Vocabulary.of("!ab")).tolist() == [0]
    assert opening(Vocabulary.of("\tab\n")).tolist() == [1]


def test_between_two_symbols_the_world_is_as_before(model):
    model.train()
    for _ in itertools.islice(sample(model, PRIME, 5), 3):
        assert model.training and model.rnn.training
        x = tg.ones(2) * next(model.parameters()).sum()
        assert x.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
