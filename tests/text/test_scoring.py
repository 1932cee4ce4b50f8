"""Scoring: the model's own log-probabilities, one stream however the text arrives, and no side effects."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.text import scoring
from tinygrad_rnn.text.scoring import most_surprising, score, stream

V = 7
KINDS = st.sampled_from(["lstm", "gru", "rnn"])
TEXTS = st.lists(st.integers(0, V - 1), max_size=60).map(lambda symbols: np.array(symbols, np.uint8))


def model_of(kind="lstm", **options):
    tg.manual_seed(1)
    return CharLM(V, kind, embedding_size=4, hidden_size=5, num_layers=2, dropout=0.5, **options)


def nats_of(scored):
    return np.concatenate([np.zeros(0), *(window.nats for window in scored)])


@st.composite
def in_pieces(draw, texts=TEXTS):
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    return text, np.split(text, cuts)


@given(kind=KINDS, cut=in_pieces(), window=st.integers(1, 70))
def test_no_loss_depends_on_how_the_text_is_cut(kind, cut, window):
    text, pieces = cut
    model = model_of(kind)
    windows = list(score(model, pieces, window=window))
    assert np.concatenate([text[:0], *(scored.symbols for scored in windows)]).tolist() == text[1:].tolist()
    assert all(len(scored.symbols) <= window for scored in windows)
    assert np.array_equal(nats_of(windows), nats_of(score(model, [text])))


@given(cut=in_pieces(), length=st.integers(1, 70))
def test_a_stream_is_the_text_and_what_follows(cut, length):
    text, pieces = cut
    windows = list(stream(pieces, length))
    for inputs, targets in windows:
        assert inputs.shape == targets.shape == (len(inputs), 1)
        assert inputs[1:].tolist() == targets[:-1].tolist()
    assert [len(inputs) for inputs, _ in windows[:-1]] == [length] * (len(windows) - 1)
    assert [s for inputs, _ in windows for s in inputs[:, 0]] == text[:-1].tolist()
    assert [s for _, targets in windows for s in targets[:, 0]] == text[1:].tolist()


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_a_loss_is_minus_the_logarithm_of_the_probability(kind):
    model, text = model_of(kind).eval(), np.random.default_rng(0).integers(0, V, 40)
    [scored] = score(model, [text])
    logits = model(text[:-1, None])[0].numpy()[:, 0].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scored.nats, -np.log(probabilities[np.arange(39), text[1:]]), rtol=1e-5)
    assert scored.bits == pytest.approx(scored.nats / np.log(2))

    assert scored.likeliest.shape == scored.probabilities.shape == (39, 0)

    [every] = score(model, [text], likeliest=V)
    assert np.array_equal(every.nats, scored.nats)
    assert np.sort(every.likeliest, axis=1).tolist() == [list(range(V))] * 39
    expected = np.take_along_axis(probabilities, every.likeliest, axis=1)
    np.testing.assert_allclose(every.probabilities, expected, rtol=1e-5)
    assert (np.diff(every.probabilities, axis=1) <= 0).all()
    [best] = score(model, [text], likeliest=3)
    assert np.array_equal(best.likeliest, every.likeliest[:, :3])
    assert np.array_equal(best.probabilities, every.probabilities[:, :3])


def test_a_large_vocabulary_has_shorter_windows_and_the_same_losses(monkeypatch):
    model, text = model_of(), np.random.default_rng(0).integers(0, V, 40)
    before = nats_of(score(model, [text]))
    monkeypatch.setattr(scoring, "_LARGEST", 3 * V)
    windows = list(score(model, [text]))
    assert {len(scored.symbols) for scored in windows} == {3}
    assert np.array_equal(nats_of(windows), before)


def test_no_more_is_read_than_is_scored():
    read = []

    def pieces():
        for number in range(1000):
            read.append(number)
            yield np.zeros(10, np.uint8)

    scored = score(model_of(), pieces(), window=25)
    for _ in range(4):
        next(scored)
    assert len(read) == 11


def test_between_two_windows_the_world_is_as_before():
    model = model_of().train()
    for _ in score(model, [np.zeros(30, np.intp)], window=10):
        assert model.training and model.rnn.training
        assert (tg.ones(2) * next(model.parameters()).sum()).requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_predictions_that_are_not_finite_are_refused():
    model = model_of()
    with tg.no_grad():
        model.output.bias[0] = np.nan
    with pytest.raises(CheckpointError, match="not finite"):
        next(score(model, [np.zeros(3, np.intp)]))


@given(
    nats=st.lists(st.integers(0, 5), max_size=30).map(np.array),
    count=st.integers(0, 6),
    apart=st.integers(1, 8),
)
def test_the_most_surprising_places_are_the_highest_that_keep_apart(nats, count, apart):
    places = most_surprising(nats, count, apart)
    assert len(places) <= count
    assert all(abs(a - b) >= apart for i, a in enumerate(places) for b in places[:i])
    assert [nats[p] for p in places] == sorted((nats[p] for p in places), reverse=True)
    if len(places) < count:  # no other place would have done
        assert all(any(abs(a - p) < apart for p in places) for a in range(len(nats)))
    for a in set(range(len(nats))) - set(places):  # one that is higher was too near to one as high
        higher = [p for p in places if nats[p] >= nats[a]]
        assert len(higher) == len(places) or any(abs(a - p) < apart for p in higher)
