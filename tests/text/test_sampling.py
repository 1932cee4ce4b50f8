"""Sampling: seeded, greedy at temperature 0, true to the model's distribution, and without side effects."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import CheckpointError, UsageError
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.text import Vocabulary, sample
from tinygrad_rnn.text.sampling import ENDED, choose, likeliest, log_odds, opening, sample_streams

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


def drawn(logits, count, **options):
    """How often each symbol is drawn."""
    scores = np.repeat(log_odds(np.array([logits], np.float32)), count, axis=0)
    points = np.random.default_rng(0).random(count)
    return np.bincount(choose(scores, points, **options), minlength=len(logits)) / count


def test_draws_follow_the_softmax():
    logits = np.array([0.0, 1.0, 2.0, -np.inf])
    wanted = np.exp(logits / 0.5) / np.exp(logits / 0.5).sum()
    frequencies = drawn(logits, 20_000, temperature=0.5)
    np.testing.assert_allclose(frequencies, wanted, atol=0.015)
    assert frequencies[3] == 0


def test_filtered_draws_keep_their_proportions():
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    np.testing.assert_allclose(
        drawn(logits, 20_000, temperature=1, top_k=2), [0, 4 / 7, 0, 3 / 7], atol=0.015
    )
    np.testing.assert_allclose(
        drawn(logits, 20_000, temperature=1, top_p=0.65), [0, 4 / 7, 0, 3 / 7], atol=0.015
    )
    # Of the three that top_k leaves, two make up 7/9.
    both = drawn(logits, 20_000, temperature=1, top_k=3, top_p=0.75)
    np.testing.assert_allclose(both, [0, 4 / 7, 0, 3 / 7], atol=0.015)


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5).filter(any), min_size=1, max_size=3),
    st.none() | st.integers(1, 7),
    st.none() | st.integers(1, 16),
)
def test_the_likeliest_are_the_fewest_that_make_up_p_of_k(rows, top_k, sixteenths):
    top_p = None if sixteenths is None else sixteenths / 16
    for row, kept in zip(rows, likeliest(np.array(rows, float), top_k, top_p), strict=True):
        ranked = sorted(range(5), key=lambda symbol: (-row[symbol], symbol))[:top_k]
        if sixteenths is not None:
            total = sum(row[symbol] for symbol in ranked)
            enough = next(
                n for n in range(1, 6) if 16 * sum(row[symbol] for symbol in ranked[:n]) >= sixteenths * total
            )
            ranked = ranked[:enough]
        assert kept.tolist() == [row[symbol] if symbol in ranked else 0 for symbol in range(5)]


def test_one_candidate_is_the_likeliest(model):
    greedy = list(sample(model, PRIME, 20, temperature=0))
    assert list(sample(model, PRIME, 20, top_k=1, seed=5)) == greedy
    assert list(sample(model, PRIME, 20, top_p=1e-9, seed=5)) == greedy
    assert list(sample(model, PRIME, 20, top_k=6, top_p=1.0)) == list(sample(model, PRIME, 20))


@pytest.mark.parametrize("offset", [-1e30, 0.0, 1e30])
def test_large_logits_do_not_overflow(offset):
    assert drawn(np.array([0.0, 1e30]) + offset, 1, temperature=1.0)[1] == 1


def test_predictions_that_are_not_finite_are_refused():
    for bad in (np.nan, np.inf):
        with pytest.raises(CheckpointError, match="not finite"):
            log_odds(np.array([[0.0, 1.0], [bad, 0.0]]))


@pytest.mark.parametrize(
    "options",
    [
        *({"temperature": value} for value in (-0.1, float("nan"), float("inf"))),
        *({"top_k": value} for value in (0, -1)),
        *({"top_p": value} for value in (0.0, -0.5, 1.5, float("nan"))),
        {"count": 0},
        {"until": PRIME[:0]},
    ],
)
def test_options_that_make_no_sense(model, options):
    [name] = options
    with pytest.raises(UsageError, match=name.replace("count", "number of texts")):
        sample_streams(model, PRIME, 1, **{"count": 1} | options)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_stream_does_not_depend_on_how_many_there_are(model, temperature):
    streams = np.array(list(sample_streams(model, PRIME, 30, 4, temperature, seed=1)))
    assert streams.shape == (30, 4)
    fewer = np.array(list(sample_streams(model, PRIME, 30, 2, temperature, seed=1)))
    np.testing.assert_array_equal(streams[:, :2], fewer)
    assert streams[:, 0].tolist() == list(sample(model, PRIME, 30, temperature, seed=1))
    assert len(set(map(tuple, streams.T.tolist()))) == (1 if temperature == 0 else 4)


@pytest.mark.parametrize("until", [[2], [4, 1], [3, 3]])
def test_a_text_ends_after_the_first_occurrence_of_what_ends_it(model, until):
    whole = np.array(list(sample_streams(model, PRIME, 120, 5, 1.5)))
    ended = np.array(list(sample_streams(model, PRIME, 120, 5, 1.5, until=np.array(until))))
    for text, cut in zip(whole.T.tolist(), ended.T.tolist(), strict=True):
        ends = (at + len(until) for at in range(120) if text[at : at + len(until)] == until)
        end = next(ends, 120)
        assert cut[:end] == text[:end]
        assert set(cut[end:]) <= {ENDED}
    assert (ended[-1] != ENDED).any()  # not a step longer than the longest
    assert (ended == ENDED).any()


def test_what_ends_a_text_is_not_looked_for_in_the_prime(model):
    assert len(list(sample(model, PRIME, 1, until=PRIME[-1:]))) == 1
    first = next(sample(model, PRIME, 1, temperature=0))
    across = np.array([PRIME[-1], first])
    assert len(list(sample(model, PRIME, 2, temperature=0, until=across))) == 2


def test_an_excluded_symbol_is_never_written(model):
    for temperature in (0, 1, 1e300):
        written = list(sample(model, PRIME, 100, temperature))
        excluded = written[0]
        assert excluded not in list(sample(model, PRIME, 100, temperature, exclude=excluded))
    with pytest.raises(CheckpointError, match="nothing to write"):
        sample(CharLM(1, embedding_size=2, hidden_size=2), PRIME[:1], 1, exclude=0)


def test_a_long_prime_is_read_to_its_end(model):
    prime = np.random.default_rng(0).integers(0, 6, 700)
    written = list(sample(model, prime, 5, temperature=0))
    model.eval()
    logits, _ = model(np.array([*prime, *written])[:, None])
    assert logits.numpy()[699:-1, 0].argmax(axis=1).tolist() == written


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
