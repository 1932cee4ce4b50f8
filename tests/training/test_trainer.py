"""The trainer: it learns, repeats itself exactly, cuts the graph between windows, and stops when it must."""

import json
import math

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import CheckpointError, DataError, DivergedError
from tinygrad_rnn.models import CharLM, find_checkpoint, load
from tinygrad_rnn.text import Windows, load_corpus
from tinygrad_rnn.training import CharTrainer, RunFolder, TrainConfig, evaluate, events

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 12
TINY = {
    "kind": "lstm",
    "embedding_size": 5,
    "hidden_size": 8,
    "layers": 1,
    "batch_size": 4,
    "seq_length": 10,
    "lr": 0.02,
    "max_steps": 12,
}


class Training:
    """A trainer on TEXT, all its events, and its folder."""

    def __init__(self, folder, text=TEXT, clock=None, **settings):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "text.txt"
        path.write_text(text, encoding="utf-8")
        self.config = TrainConfig(corpus=str(path), **(TINY | settings))
        self.events = []
        self.folder = folder / "run"
        arguments = {} if clock is None else {"clock": clock}
        self.trainer = CharTrainer(
            self.config,
            load_corpus(path, encoding=self.config.encoding, val_fraction=self.config.val_fraction),
            self.events.append,
            **arguments,
        )

    def run(self):
        return self.trainer.train(RunFolder.create(self.folder, self.config))

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def losses(self):
        return [event.loss for event in self.of(events.Stepped)]

    @property
    def weights(self):
        return self.trainer.model.state_dict()


def trained(folder, **settings):
    training = Training(folder, **settings)
    training.run()
    return training


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_training_lowers_the_loss(tmp_path, kind):
    training = trained(tmp_path, kind=kind, max_steps=150, layers=2)
    assert training.losses[0] == pytest.approx(math.log(len(set(TEXT))), abs=0.3)
    assert np.mean(training.losses[-5:]) < 0.6 * training.losses[0]
    validation = [event.val_loss for event in training.of(events.Evaluated)]
    assert validation[-1] < 0.6 * training.losses[0]


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adagrad", "rmsprop"])
def test_the_same_seed_gives_the_same_training(tmp_path, kind, optimizer):
    settings = {"kind": kind, "optimizer": optimizer, "dropout": 0.3, "layers": 2, "max_steps": 5}
    first = trained(tmp_path / "a", **settings)
    second = trained(tmp_path / "b", **settings)
    other = trained(tmp_path / "c", **settings, seed=1)
    assert first.losses == second.losses != other.losses
    for name, weight in first.weights.items():
        assert np.array_equal(weight, second.weights[name])


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_another_array_library_trains_alike(tmp_path, hostile, kind):
    here = trained(tmp_path / "numpy", kind=kind, sample_every=6)
    there = trained(tmp_path / "other", kind=kind, sample_every=6, backend=hostile.name)
    assert there.losses == pytest.approx(here.losses, rel=1e-5)
    assert len(there.of(events.Sampled)) == 2
    assert load(there.folder).model.state_dict().keys() == here.weights.keys()


def test_looking_does_not_change_the_training(tmp_path):
    """Evaluation, samples and checkpoints leave state, masks and weights as they are."""
    settings = {"dropout": 0.3, "max_steps": 30}
    plain = trained(tmp_path / "a", **settings)
    watched = trained(tmp_path / "b", **settings, eval_every=1, sample_every=1, checkpoint_every=1)
    assert plain.losses == watched.losses
    for name, weight in plain.weights.items():
        assert np.array_equal(weight, watched.weights[name])


def test_the_state_is_carried_within_an_epoch_and_cut_off_from_its_history(tmp_path, monkeypatch):
    given, returned = [], []
    loss = CharLM.loss

    def watched(self, inputs, targets, state=None):
        value, new = loss(self, inputs, targets, state)
        if self.training:
            given.append(state)
            returned.append([part.numpy() for part in new])
        return value, new

    monkeypatch.setattr(CharLM, "loss", watched)
    training = trained(tmp_path, max_steps=25)
    steps_per_epoch = training.trainer.plan.steps_per_epoch
    assert 1 < steps_per_epoch < 25
    for step, state in enumerate(given):
        if step % steps_per_epoch == 0:
            assert state is None  # the streams jump back to their beginnings
        else:
            for part, before in zip(state, returned[step - 1], strict=True):
                assert np.array_equal(part.numpy(), before)
                assert not part.requires_grad


def test_no_gradient_flows_into_the_window_before(tmp_path):
    """The gradient of a step is that of its window alone, with the state before it a constant."""
    training = Training(tmp_path, max_steps=2, clip=math.inf, optimizer="sgd")
    training.run()
    trainer = training.trainer
    applied = {name: p.grad.numpy() for name, p in trainer.model.named_parameters()}

    again = Training(tmp_path / "again", max_steps=1, clip=math.inf, optimizer="sgd")
    again.run()
    model, windows = again.trainer.model, again.trainer.windows
    model.zero_grad()
    tg.engine.random.set_step(1)
    state = tuple(tg.tensor(part.numpy()) for part in again.trainer.state)
    loss, _ = model.loss(*windows[1], state)
    loss.backward()
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.grad.numpy(), applied[name])


def test_the_clipped_gradient_is_the_one_applied(tmp_path):
    clipped = trained(tmp_path, max_steps=1, clip=1e-3, optimizer="sgd", lr=1.0)
    before = Training(tmp_path / "before").weights
    change = math.sqrt(sum(np.sum((w - before[name]) ** 2.0) for name, w in clipped.weights.items()))
    assert change == pytest.approx(1e-3, rel=1e-4)
    assert clipped.of(events.Stepped)[0].grad_norm > 1e-2


def test_the_learning_rate_falls_along_a_cosine_over_the_steps(tmp_path):
    rates = [event.lr for event in trained(tmp_path, max_steps=10).of(events.Stepped)]
    assert rates == pytest.approx([0.02 * 0.5 * (1 + math.cos(math.pi * k / 10)) for k in range(10)])


class Clock:
    """A clock that goes on by a second whenever somebody looks."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_the_learning_rate_falls_over_the_time_where_time_is_the_limit(tmp_path):
    training = trained(tmp_path, max_steps=None, minutes=2.0, clock=Clock())
    rates = [event.lr for event in training.of(events.Stepped)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9 * 0.02
    assert rates[-1] < 0.1 * 0.02
    finished = training.events[-1]
    assert finished.reason == "minutes"
    assert 120 <= finished.elapsed < 140


def test_events_come_in_order(tmp_path):
    training = trained(tmp_path, max_steps=30, eval_every=10, checkpoint_every=15, sample_every=20)
    assert isinstance(training.events[0], events.Started)
    assert isinstance(training.events[-1], events.Finished)
    assert [event.step for event in training.of(events.Stepped)] == list(range(1, 31))
    assert [event.step for event in training.of(events.Evaluated)] == [10, 20, 30]
    assert [event.step for event in training.of(events.Saved)] == [15, 30]
    assert [event.step for event in training.of(events.Sampled)] == [20]
    progress = [event.progress for event in training.of(events.Stepped)]
    assert progress == pytest.approx([step / 30 for step in range(1, 31)])
    per_epoch = training.trainer.plan.steps_per_epoch
    assert [event.epoch for event in training.of(events.Stepped)] == [1 + n // per_epoch for n in range(30)]


def test_five_samples_over_a_run(tmp_path):
    sampled = trained(tmp_path, max_steps=50).of(events.Sampled)
    assert [event.step for event in sampled] == [10, 20, 30, 40, 50]
    assert all(event.text for event in sampled)


def test_the_best_and_the_last_are_kept(tmp_path):
    training = trained(tmp_path, lr=0.3, max_steps=60, eval_every=5)  # too fast, so that it gets worse
    evaluated = training.of(events.Evaluated)
    best = min(evaluated, key=lambda event: event.val_loss)
    assert best.step < 60
    assert [event.step for event in evaluated if event.best][-1] == best.step
    model, vocabulary, meta = load(training.folder)
    assert (meta["step"], meta["val_loss"]) == (best.step, best.val_loss)
    assert training.events[-1].val_loss == best.val_loss
    assert training.events[-1].val_step == best.step
    held_out = training.trainer.corpus.held_out
    assert evaluate(model, Windows(held_out, 4, 10, partial=True)) == best.val_loss

    last = load(find_checkpoint(training.folder, "last"))
    assert last.meta["step"] == 60
    assert last.vocabulary == vocabulary == training.trainer.corpus.vocabulary
    for name, weight in training.weights.items():
        assert np.array_equal(weight, last.model.state_dict()[name])


def test_without_a_held_out_part_the_last_is_the_one(tmp_path):
    training = trained(tmp_path, val_fraction=0.0)
    assert [event.val_loss for event in training.of(events.Evaluated)] == [None]
    assert not (training.folder / "best.safetensors").exists()
    assert load(training.folder).meta["step"] == 12


def test_stopping_finishes_the_step_and_saves(tmp_path):
    training = Training(tmp_path, max_steps=100)
    trainer = training.trainer
    listen = trainer._emit

    def stop_at_seven(event):
        listen(event)
        if isinstance(event, events.Stepped) and event.step == 7:
            trainer.stop()

    trainer._emit = stop_at_seven
    finished = training.run()
    assert (finished.reason, finished.step) == ("interrupted", 7)
    assert load(finished.checkpoint).meta["step"] == 7
    assert not training.of(events.Evaluated)


@pytest.mark.parametrize("what", ["the loss", "the norm of the gradient"])
def test_divergence_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, what):
    training = Training(tmp_path, max_steps=40, checkpoint_every=5, eval_every=5)
    loss = CharLM.loss

    def breaks_at_step_13(self, inputs, targets, state=None):
        value, state = loss(self, inputs, targets, state)
        if self.training and training.trainer.step == 13:
            # d/dx of sqrt at 0 is infinite: a finite loss with a gradient that is not
            value = value * math.nan if what == "the loss" else value + (value - value).sqrt()
        return value, state

    monkeypatch.setattr(CharLM, "loss", breaks_at_step_13)
    with pytest.raises(DivergedError) as raised:
        training.run()
    assert str(raised.value).startswith(f"at step 13, {what} is nan (")
    assert "; the last good checkpoint is" in str(raised.value)
    assert "step-00000010.safetensors" in str(raised.value)
    assert load(find_checkpoint(training.folder, "last")).meta["step"] == 10
    assert load(find_checkpoint(training.folder, "best")).meta["step"] == 10
    assert len(training.of(events.Stepped)) == 12


def test_divergence_before_the_first_checkpoint_says_so(tmp_path):
    training = Training(tmp_path, lr=1e38, optimizer="sgd", max_steps=50)
    with pytest.raises(DivergedError, match="there is no checkpoint yet"):
        training.run()
    with pytest.raises(CheckpointError):
        find_checkpoint(training.folder)


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    """The loss of a step is computed before its update; a bad update shows only in the weights."""
    training = Training(tmp_path, checkpoint_every=1, eval_every=1000)
    step = training.trainer.optimizer.step

    def bad_step():
        step()
        if training.trainer.step == 4:
            training.trainer.parameters[0].array[0, 0] = math.inf

    training.trainer.optimizer.step = bad_step
    with pytest.raises(DivergedError, match=r"at step 4, the weight embedding\.weight is inf"):
        training.run()
    assert load(training.folder).meta["step"] == 3


def test_history_and_samples_tell_what_happened(tmp_path):
    training = trained(tmp_path, max_steps=35, eval_every=15, sample_every=20)
    lines = (training.folder / "history.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines]
    assert [record["step"] for record in history] == [10, 15, 20, 30, 35]
    assert history[0]["train_loss"] == pytest.approx(np.mean(training.losses[:10]), rel=0.02)
    assert history[1]["val_loss"] == training.of(events.Evaluated)[0].val_loss
    for record in history:
        assert list(record) == [
            *("step", "epoch", "train_loss", "train_bits", "val_loss", "val_bits", "grad_norm", "lr"),
            *("chars_per_second", "seconds"),
        ]
        assert record["train_bits"] == pytest.approx(record["train_loss"] / math.log(2))
        assert (record["val_loss"] is None) == (record["step"] not in (15, 30, 35))
    samples = (training.folder / "samples.txt").read_text()
    assert "--- step 20, epoch 2 ---\n" + training.of(events.Sampled)[0].text in samples


def test_a_loss_that_is_finite_but_absurd_is_divergence(tmp_path):
    training = Training(tmp_path, lr=1e9, optimizer="adam", max_steps=50)
    with pytest.raises(DivergedError, match=r"at step \d+, the loss is .*; .*a smaller --lr"):
        training.run()


def test_predictions_that_overflow_are_divergence(tmp_path):
    """Weights that are finite, yet too large to draw a sample with: nothing else has noticed by then."""
    training = Training(tmp_path, sample_every=1, max_steps=1, val_fraction=0)
    output = training.trainer.model.output

    def blow_up(event):
        if isinstance(event, events.Stepped):
            with tg.no_grad():
                output.weight.copy_(np.full(output.weight.shape, 3e38))
                output.bias.copy_(np.full(output.bias.shape, 3e38))

    training.trainer._emit = blow_up
    with pytest.raises(
        DivergedError,
        match=r"at step 1, the model's prediction is not finite \(the weights reach 3e\+38, in output",
    ):
        training.run()


def test_dropout_drops_and_each_step_draws_its_own_mask(tmp_path):
    with_dropout = trained(tmp_path / "a", dropout=0.5, lr=1e-30)
    without = trained(tmp_path / "b", dropout=0.0, lr=1e-30)
    assert with_dropout.losses != without.losses
    text = "ab" * 300  # every window alike, and nothing is learnt: only the masks differ
    alike = trained(tmp_path / "c", text=text, dropout=0.5, lr=1e-30, batch_size=1, seq_length=500)
    assert len(set(alike.losses)) == len(alike.losses)


def test_a_short_text_says_so(tmp_path):
    assert trained(tmp_path, batch_size=1000).of(events.Started)[0].about["streams"] == 56
    with pytest.raises(DataError, match=r"needs? 701 symbols, found 561 \(624 symbols in all, 63 held out\)"):
        Training(tmp_path / "short", seq_length=700)
    with pytest.raises(DataError, match=r"held-out part of .* is too short: .* found 1; .*--val-fraction 0"):
        Training(tmp_path / "tail", val_fraction=0.001)


def test_any_text_can_be_trained_on(tmp_path):
    for encoding in ("utf-8", "bytes"):
        training = trained(tmp_path / encoding, text="日本語 🎈\r\n\x00\x1b" * 40, encoding=encoding)
        assert training.of(events.Sampled)


def test_evaluation_is_the_mean_over_the_whole_text():
    model = CharLM(7, "gru", embedding_size=3, hidden_size=4, num_layers=2, dropout=0.5)
    symbols = np.random.default_rng(0).integers(0, 7, 61)
    whole = evaluate(model, Windows(symbols, 1, 60))
    assert evaluate(model, Windows(symbols, 1, 7)) == pytest.approx(whole, rel=1e-6)
    assert model.training
    loss, _ = model.eval().loss(symbols[:-1, None], symbols[1:, None])
    assert whole == pytest.approx(loss.item(), rel=1e-6)
