"""Dynamic evaluation: its formula, causal, static at rate zero, a fair race. It leaves no trace."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
import tinygrad_rnn.training.dynamic as dynamic
from tinygrad_rnn.errors import DataError, DivergedError, UsageError
from tinygrad_rnn.models import CharLM, detach_state
from tinygrad_rnn.text.scoring import score
from tinygrad_rnn.training.dynamic import EPSILON, RATES, SEGMENTS, STRETCHES, DynamicEvaluation

V = 7
TRAINING = np.random.default_rng(0).integers(0, V, 90).astype(np.uint8)
TEXT = np.random.default_rng(1).integers(0, V, 50).astype(np.uint8)
KINDS = pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])


def model_of(kind="lstm", **options):
    tg.manual_seed(1)
    return CharLM(V, kind, embedding_size=5, hidden_size=5, num_layers=2, dropout=0.5, **options)


def nats_of(scored):
    return np.concatenate([window.nats for window in scored])


@KINDS
@pytest.mark.parametrize("tie_weights", [False, True])
@pytest.mark.parametrize("decay", [0, 0.5])
def test_at_rate_zero_it_is_the_static_evaluation(kind, tie_weights, decay):
    model = model_of(kind, tie_weights=tie_weights)
    static = nats_of(score(model, [TEXT]))
    for segment in (1, 6, 80):
        evaluation = DynamicEvaluation(model, TRAINING, lr=0, decay=decay, segment=segment)
        assert np.array_equal(nats_of(evaluation.score([TEXT])), static)


@given(
    head=st.integers(2, 49),
    tail=st.lists(st.integers(0, V - 1), min_size=1, max_size=30),
    rates=st.lists(st.sampled_from([0.0, 0.03, 0.3, 3.0, 1e3, 1e38]), max_size=3, unique=True),
    lag=st.sampled_from([0.0, 0.5, math.inf]),
)
def test_no_loss_depends_on_what_comes_later(head, tail, rates, lag):
    other = np.concatenate((TEXT[:head], np.array(tail, np.uint8)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic, "RATES", sorted({0.0, *rates}))
        patch.setattr(dynamic, "LAG", lag)
        for lr in (0.1, None):
            evaluation = DynamicEvaluation(model_of(), TRAINING, lr=lr, segment=6)
            before, after = nats_of(evaluation.score([TEXT])), nats_of(evaluation.score([other]))
            assert np.array_equal(before[: head - 1], after[: head - 1])


def test_it_does_depend_on_what_came_before_the_segment():
    evaluation = DynamicEvaluation(model_of(), TRAINING, lr=0.1, segment=6)
    static = nats_of(score(model_of(), [TEXT]))
    dynamic = nats_of(evaluation.score([TEXT]))
    assert np.array_equal(dynamic[:6], static[:6])
    assert (dynamic[6:] != static[6:]).all()


@KINDS
def test_the_model_stays_as_it_is(kind):
    model = model_of(kind).train()
    before = copy.deepcopy(model.state_dict())
    evaluation = DynamicEvaluation(model, TRAINING, lr=0.1, segment=6)
    first = nats_of(evaluation.score([TEXT]))
    for _ in evaluation.score([TEXT]):
        assert all(np.array_equal(model.state_dict()[name], array) for name, array in before.items())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    with tg.no_grad():  # what the caller records is no matter
        assert np.array_equal(nats_of(evaluation.score([TEXT])), first)


def gradients(model, symbols, state=None):
    loss, state = model.loss(symbols[:-1, None], symbols[1:, None], state)
    return [g.numpy() for g in tg.grad(loss, list(model.parameters()))], detach_state(state)


def statistics(model, segment):
    """RMS_g, its mean, and E."""
    squares, state = [], None
    for start in range(0, len(TRAINING) - 1, segment):
        found, state = gradients(model, TRAINING[start : start + segment + 1], state)
        squares.append([g**2 for g in found])
    rms = [np.sqrt(np.mean(of_one, axis=0)) for of_one in zip(*squares, strict=True)]
    every = np.concatenate([r.ravel() for r in rms])
    return rms, every.mean(), np.sum(every**2 / (every + EPSILON * every.mean()))


@KINDS
@pytest.mark.parametrize("decay", [0.0, 0.3, 1e6])
def test_the_weights_change_as_the_formula_says(kind, decay):
    lr, segment = 0.2, 10
    model = model_of(kind).eval()
    rms, mean, decrease = statistics(model, segment)
    learner, wanted, state = copy.deepcopy(model), [], None
    for start in range(0, len(TEXT) - 1, segment):
        symbols = TEXT[start : start + segment + 1]
        wanted.append(learner.loss(symbols[:-1, None], symbols[1:, None], state)[0].item())
        found, state = gradients(learner, symbols, state)
        with tg.no_grad():
            for theta, start_at, g, r in zip(
                learner.parameters(), model.parameters(), found, rms, strict=True
            ):
                norm = r / mean
                if decay:
                    norm = np.minimum(norm, 1 / decay)
                pull = decay * (start_at.numpy() - theta.numpy()) * norm
                theta.copy_(theta.numpy() - lr / decrease * g / (r + EPSILON * mean) + pull)

    evaluation = DynamicEvaluation(model, TRAINING, lr, decay, segment)
    assert [scored.nats.mean() for scored in evaluation.score([TEXT])] == pytest.approx(wanted, rel=1e-4)
    assert wanted[-1] != pytest.approx(nats_of(score(model, [TEXT]))[-9:].mean(), rel=1e-3)


@KINDS
def test_the_rate_is_the_decrease_of_the_loss(kind):
    """A step on the one segment of the training text: read again at once, it costs lr nats less."""
    text = TRAINING[:31]
    model = model_of(kind)
    loss = nats_of(score(model, [text])).mean()
    for lr in (0.001, 0.01):
        evaluation = DynamicEvaluation(model, text, lr=lr, decay=0, segment=30)
        learner = dynamic._Learner(model, lr)
        evaluation._read(learner, text[:-1, None], text[1:, None])
        learnt = nats_of(score(learner._model, [text])).mean()
        assert loss - learnt == pytest.approx(lr, rel=0.1)


# --- the race -----------------------------------------------------------------------------------------


def race(text, segment=5):
    """A race, its losses, and for each rate those of a learner alone."""
    evaluation, alone = DynamicEvaluation(model_of(), TRAINING, segment=segment), {}
    for rate in RATES:
        evaluation.rates = (rate,)
        alone[rate] = nats_of(evaluation.score([text]))
    evaluation.rates = dynamic.RATES
    return evaluation, nats_of(evaluation.score([text])), alone


@settings(max_examples=8)
@given(text=st.lists(st.integers(0, V - 1), min_size=2, max_size=60))
def test_a_segment_is_counted_by_the_leader_over_all_before_it(text):
    text = np.array(text, np.uint8)
    evaluation, raced, alone = race(text)
    for start in range(0, len(raced), 5):
        here = slice(start, start + 5)
        leader = min(RATES, key=lambda rate: sum(alone[rate][i : i + 5].sum() for i in range(0, start, 5)))
        assert np.array_equal(raced[here], alone[leader][here])
    assert evaluation.leader == min(
        RATES, key=lambda rate: sum(alone[rate][i : i + 5].sum() for i in range(0, len(raced), 5))
    )
    assert evaluation.read == dict.fromkeys(RATES, len(raced))


def test_those_far_behind_give_up_but_for_the_model_as_it_was_trained(monkeypatch):
    monkeypatch.setattr(dynamic, "LAG", 10.0)
    text = np.tile(np.array([1, 5, 2, 0, 3], np.uint8), 100)
    evaluation, raced, alone = race(text)
    totals = {rate: nats.cumsum()[4::5] for rate, nats in alone.items()}
    best = np.min(list(totals.values()), axis=0)
    assert raced.sum() < alone[0.0].sum() / 2
    assert evaluation.read[0.0] == evaluation.read[evaluation.leader] == len(raced)
    given_up = [rate for rate in RATES if rate and evaluation.read[rate] < len(raced)]
    assert len(given_up) >= 3
    for rate in given_up:
        segments = evaluation.read[rate] // 5
        assert totals[rate][segments - 1] - best[segments - 1] > 10
        assert (totals[rate] - best)[: segments - 1].max() <= 10


@pytest.mark.parametrize("wild", [1e3, 1e38])
def test_a_learner_that_diverges_drops_out(monkeypatch, wild):
    monkeypatch.setattr(dynamic, "LAG", 1e9)
    _, tame, _ = race(TEXT)
    monkeypatch.setattr(dynamic, "RATES", (*RATES, wild))
    evaluation, raced, _ = race(TEXT)
    assert np.isfinite(raced).all()
    assert evaluation.leader != wild
    if wild == 1e38:
        assert np.array_equal(raced, tame)
        assert evaluation.read[wild] <= 15 < evaluation.read[1.0]


# --- and else -----------------------------------------------------------------------------------------


def test_it_learns_what_the_model_does_not_know():
    text = np.tile(np.array([1, 5, 2, 0, 3], np.uint8), 100)
    model = model_of()
    static = nats_of(score(model, [text]))
    dynamic = nats_of(DynamicEvaluation(model, TRAINING, lr=0.3, segment=20).score([text]))
    assert dynamic[-100:].mean() < 0.7 * static[-100:].mean()


def test_of_a_long_training_text_parts_are_read_from_its_beginning_to_its_end():
    segment = 2
    length = SEGMENTS * segment + 1
    text = np.zeros(4 * STRETCHES * length, np.uint8)
    starts = np.linspace(0, len(text) - length, STRETCHES).astype(int)
    read = np.zeros(len(text), bool)
    for start in starts:
        read[start : start + length] = True
    elsewhere = text.copy()
    elsewhere[~read] = 3
    model = model_of("rnn")

    def losses(training):
        return nats_of(DynamicEvaluation(model, training, lr=0.1, segment=segment).score([TEXT]))

    same = losses(text)
    assert read[0] and read[-1] and 0.2 < read.mean() < 0.3
    assert np.array_equal(losses(elsewhere), same)
    for place in (0, -1):
        changed = text.copy()
        changed[place] = 3
        assert not np.array_equal(losses(changed), same)


def test_another_array_library_evaluates_alike(hostile):
    here = DynamicEvaluation(model_of(), TRAINING, lr=0.1, segment=10)
    there = DynamicEvaluation(model_of().to(hostile.name), TRAINING, lr=0.1, segment=10)
    np.testing.assert_allclose(nats_of(there.score([TEXT])), nats_of(here.score([TEXT])), rtol=1e-4)


def test_rates_that_are_too_high_are_told():
    evaluation = DynamicEvaluation(model_of(), TRAINING, lr=1e38, segment=6)
    with pytest.raises(DivergedError, match=r"diverged after \d+ symbols.*1e\+38"):
        list(evaluation.score([TEXT]))


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"lr": math.nan}, {"decay": -0.1}, {"decay": math.inf}, {"segment": 0}]
)
def test_rates_that_make_no_sense(wrong):
    with pytest.raises(UsageError, match=r"at least"):
        DynamicEvaluation(model_of(), TRAINING, **wrong)


def test_without_a_training_text():
    with pytest.raises(DataError, match="training text"):
        DynamicEvaluation(model_of(), TRAINING[:1])
