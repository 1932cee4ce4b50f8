"""What is not finite: no checkpoint ever holds it, and --on-nan stop, skip and rewind do what they say."""

import json
import math
import os
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_rnn.errors import DivergedError
from tinygrad_rnn.models import KINDS, CharLM, archive
from tinygrad_rnn.models.files import numbered, step_of
from tinygrad_rnn.optim.optimizers import OPTIMIZERS
from tinygrad_rnn.training import CharTrainer, RunFolder, characters, events
from tinygrad_rnn.training.divergence import DivergenceError
from tinygrad_rnn.training.trainer import MOST_REWOUND, MOST_SKIPPED

from .interrupted import Training, at

MOMENTS = [events.Stepped, events.Evaluated, events.Sampled, events.Saved, events.Rewound]
OFTEN = {"max_steps": 20, "checkpoint_every": 4, "eval_every": 6, "sample_every": 5, "keep": 10}
HARM = {
    "loss": lambda value: value * math.nan,
    "gradient": lambda value: value + (value - value).sqrt(),  # whose slope at 0 is infinite
    "absurd": lambda value: value * 1e6,
}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Nothing here is about the length of samples, or a disk that loses power; both take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(characters, "SAMPLE_LENGTH", 10)
        yield


def install(patch, what, when):
    """The loss of every step for which when(trainer) holds comes to harm."""
    gradient, loss, computing = CharTrainer.gradient, CharLM.loss, []

    def watched(self, *window):
        computing.append(self)
        try:
            return gradient(self, *window)
        finally:
            computing.pop()

    def harmed(self, *arguments):
        value, state = loss(self, *arguments)
        return (HARM[what](value) if computing and when(computing[-1]) else value), state

    patch.setattr(CharTrainer, "gradient", watched)
    patch.setattr(CharLM, "loss", harmed)


@pytest.fixture
def harm(monkeypatch):
    """harm(what, when), see install()."""
    return partial(install, monkeypatch)


def check_files(folder):
    """Every number in every checkpoint is finite, and so is every one in the history, whose steps rise."""
    for file in folder.rglob("*.safetensors"):
        header, arrays = archive.read(file)
        header["training"]["config"].pop("clip")  # which may be infinite
        json.dumps(header, allow_nan=False)
        for name, array in arrays.items():
            assert np.isfinite(array).all(), f"{name} in {file.name}"
    history = folder / "history.jsonl"
    records = [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []
    steps = [record["step"] for record in records]
    assert steps == sorted(set(steps))
    reasons = [record.pop("diverged") for record in records if "diverged" in record]
    assert len(reasons) <= 1
    assert all(math.isfinite(value) for record in records for value in record.values() if value is not None)


# --- stop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("loss", "the loss is nan (multiply gives nan"),
        ("gradient", "the norm of the gradient is nan (sqrt gives inf"),
        ("absurd", "e+06 (the weights reach "),
    ],
)
def test_stop_names_the_step_and_the_op(tmp_path, harm, kind, what, said):
    harm(what, lambda trainer: trainer.step >= 7)
    training = Training(tmp_path, kind=kind, **OFTEN)
    with pytest.raises(DivergedError) as raised:
        training.begin()
    assert raised.value.exit_code == 6
    message = str(raised.value)
    assert message.startswith("at step 7, ") and said in message and "\n" not in message
    assert "step-00000006.safetensors" in message or "best.safetensors" in message
    assert [event.step for event in training.of(events.Stepped)] == [1, 2, 3, 4, 5, 6]
    check_files(training.folder)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_what_an_optimiser_remembers_is_never_written_if_it_is_not_finite(tmp_path, monkeypatch, average):
    """A gradient of 1e30 is finite, and so is what Adam makes of it; its square is not."""
    loss = CharLM.loss

    def steep(self, *arguments):
        value, state = loss(self, *arguments)
        return value + (value - value.detach()) * 1e30, state

    monkeypatch.setattr(CharLM, "loss", steep)
    training = Training(tmp_path, clip=math.inf, average=average, checkpoint_every=1)
    with pytest.raises(DivergedError, match=r"at step 1, the array optimizer/square/\S+ is inf; "):
        training.begin()
    check_files(training.folder)
    assert not numbered(training.folder)


# --- skip -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", HARM)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_step_changes_nothing_and_is_told(tmp_path, harm, what, accumulate):
    seen = {}
    harm(what, lambda trainer: trainer.step in (3, 9, 10))
    training = Training(tmp_path, on_nan="skip", accumulate=accumulate, average=0.9, **OFTEN)

    def remember(event):
        if isinstance(event, events.Stepped):
            seen[event.step] = [*trainer.model.state_dict().values(), *state_of(trainer)]

    def state_of(trainer):
        states = trainer.state if isinstance(trainer.state, tuple) else (trainer.state,)
        slots = [array for own in trainer.optimizer.state for array in own.values()]
        return [s.numpy() for s in states if s is not None] + [array.copy() for array in slots]

    trainer = training.trainer(training.config, kill=remember)
    with RunFolder.create(training.folder, training.config) as run:
        trainer.train(run)
    stepped = training.of(events.Stepped)
    assert [event.step for event in stepped if event.skipped] == [3, 9, 10]
    assert all(math.isnan(event.grad_norm) == bool(event.skipped) for event in stepped)
    for step in (3, 10):
        for before, after in zip(seen[step - 1], seen[step], strict=True):
            assert np.array_equal(before, after)
    assert not all(map(np.array_equal, seen[10], seen[11]))
    assert training.events[-1].reason == "steps" and trainer.optimizer.steps == OFTEN["max_steps"] - 3
    check_files(training.folder)


def test_skipping_ends_where_nothing_else_comes(tmp_path, harm):
    harm("loss", lambda trainer: trainer.step > 6)
    training = Training(tmp_path, on_nan="skip", max_steps=100, checkpoint_every=5)
    with pytest.raises(DivergedError, match=f"at step {6 + MOST_SKIPPED}, .*the {MOST_SKIPPED}th step in a"):
        training.begin()
    assert len([event for event in training.of(events.Stepped) if event.skipped]) == MOST_SKIPPED - 1
    check_files(training.folder)


def test_steps_in_a_row_are_counted_through_a_resume(tmp_path, harm):
    harm("loss", lambda trainer: trainer.step > 6)
    training = Training(tmp_path, on_nan="skip", max_steps=100, checkpoint_every=5)
    training.begin(kill=at(events.Saved, 10))
    with pytest.raises(DivergedError, match=f"at step {6 + MOST_SKIPPED}, "):
        training.go_on()


# --- rewind -----------------------------------------------------------------------------------------


def test_rewinding_goes_back_to_the_last_checkpoint_with_half_the_rate(tmp_path, harm):
    harm("gradient", lambda trainer: trainer.step == 11 and not trainer.standing.rewound)
    training = Training(tmp_path, on_nan="rewind", schedule="constant", **OFTEN).begin()
    [rewound] = training.of(events.Rewound)
    assert (rewound.at, rewound.to, rewound.lr) == (11, 8, 0.01)
    stepped = [(event.step, event.lr) for event in training.of(events.Stepped)]
    assert stepped == [(n, 0.02) for n in range(1, 11)] + [(n, 0.01) for n in range(9, 21)]
    assert [json.loads(line)["step"] for line in training.history] == [6, 10, 12, 18, 20]
    samples = (training.folder / "samples.txt").read_text()
    assert [samples.count(f"--- step {step}, ") for step in (5, 10, 15, 20)] == [1, 1, 1, 1]
    check_files(training.folder)


@pytest.mark.parametrize("first", [1, 3, 10])
def test_rewinding_ends_though_it_diverges_for_ever(tmp_path, harm, first):
    harm("loss", lambda trainer: trainer.step >= first)
    training = Training(tmp_path, on_nan="rewind", **OFTEN)
    with pytest.raises(DivergedError, match=f"at step {first} after {MOST_REWOUND} rewinds, ") as raised:
        training.begin()
    assert len(training.of(events.Rewound)) == MOST_REWOUND
    assert ("there is no checkpoint yet" in str(raised.value)) == (first <= 4)
    check_files(training.folder)


def test_a_checkpoint_that_nothing_comes_back_from_is_left_behind(tmp_path, harm):
    """Weights that are finite and ruined: the checkpoint of step 12 leads to the same end every time."""
    ruined = lambda trainer: trainer.step > 12 and trainer.standing.rewound < 2  # noqa: E731
    harm("loss", ruined)
    training = Training(tmp_path, on_nan="rewind", **(OFTEN | {"eval_every": 100})).begin()
    assert [(event.at, event.to) for event in training.of(events.Rewound)] == [(13, 12), (13, 8)]
    assert training.events[-1].step == 20
    assert [step_of(file) for file in numbered(training.folder)] == [4, 8, 12, 16, 20]
    check_files(training.folder)


def test_no_rewinding_goes_back_behind_the_best(tmp_path, harm):
    harm("loss", lambda trainer: trainer.step == 11 and trainer.standing.rewound < 4)
    training = Training(tmp_path, on_nan="rewind", **(OFTEN | {"lr": 1e-3})).begin()
    assert training.of(events.Evaluated)[0].best
    assert [event.to for event in training.of(events.Rewound)] == [8, 6, 8, 6]  # 8 was written anew
    check_files(training.folder)


# --- all of them ------------------------------------------------------------------------------------


def check_resumed(folder, on_nan, data):
    """N + M steps are N steps, an end without warning, and M steps, also where steps come to harm."""
    chosen = {
        "on_nan": on_nan,
        "kind": data.draw(st.sampled_from(list(KINDS))),
        "dropout": data.draw(st.sampled_from([0.0, 0.3])),
        "average": data.draw(st.sampled_from([0.0, 0.9])),
        **{"max_steps": 12, "checkpoint_every": 3, "eval_every": 4, "sample_every": 5},
    }
    step = st.integers(1, 12)
    steps = data.draw(st.sets(step, min_size=1, max_size=6), "steps that come to harm")
    times = data.draw(st.integers(1, 3), "rewinds until they do not")
    first, *others = data.draw(st.lists(st.tuples(st.sampled_from(MOMENTS), step), min_size=1, max_size=2))
    with pytest.MonkeyPatch.context() as patch:
        install(patch, "loss", lambda trainer: trainer.step in steps and trainer.standing.rewound < times)
        whole = Training(folder / "whole", **chosen).begin()
        parts = Training(folder / "parts", **chosen).begin(kill=at(*first))
        for other in others:
            parts.go_on(kill=at(*other))
        parts.go_on()
    assert whole.outcome == parts.outcome
    check_files(parts.folder)


@pytest.mark.parametrize("on_nan", ["skip", "rewind"])
@given(data=st.data())
@settings(max_examples=10)
def test_a_resumed_training_comes_to_the_same_harm(tmp_path_factory, on_nan, data):
    check_resumed(tmp_path_factory.mktemp("harmed"), on_nan, data)


@pytest.mark.slow
@pytest.mark.parametrize("on_nan", ["skip", "rewind"])
@given(data=st.data())
@settings(max_examples=200)
def test_a_resumed_training_comes_to_the_same_harm_at_length(tmp_path_factory, on_nan, data):
    check_resumed(tmp_path_factory.mktemp("harmed"), on_nan, data)


def check_diverged(folder, data):
    """Real divergence, by rates that nobody should use."""
    chosen = {
        "kind": data.draw(st.sampled_from(list(KINDS))),
        "optimizer": data.draw(st.sampled_from(list(OPTIMIZERS))),
        "on_nan": data.draw(st.sampled_from(["stop", "skip", "rewind"])),
        "lr": 10.0 ** data.draw(st.integers(-2, 38)),
        "clip": data.draw(st.sampled_from([5.0, math.inf])),
        "average": data.draw(st.sampled_from([0.0, 0.9])),
        "schedule": data.draw(st.sampled_from(["cosine", "constant", "plateau"])),
        "warmup": data.draw(st.sampled_from([0, 6])),
    }
    for name in ("checkpoint_every", "eval_every", "sample_every"):
        chosen[name] = data.draw(st.integers(1, 4))
    training = Training(folder, max_steps=8, **chosen)
    try:
        training.begin()
        assert isinstance(training.events[-1], events.Finished)
    except DivergedError as error:
        assert str(error).startswith("at step ")
    assert len(training.of(events.Rewound)) <= MOST_REWOUND
    check_files(training.folder)


@given(data=st.data())
def test_whatever_diverges_no_file_holds_it(tmp_path_factory, data):
    check_diverged(tmp_path_factory.mktemp("diverged"), data)


def test_a_sample_that_diverges_leaves_one_record_of_its_step(tmp_path, monkeypatch):
    def broken(trainer):
        raise DivergenceError("the model's prediction is not finite")

    monkeypatch.setattr(CharTrainer, "sample", broken)
    training = Training(tmp_path, max_steps=8, eval_every=1, sample_every=1)
    with pytest.raises(DivergedError, match="at step 1, the model's prediction"):
        training.begin()
    check_files(training.folder)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=300)
def test_whatever_diverges_no_file_holds_it_at_length(tmp_path_factory, data):
    check_diverged(tmp_path_factory.mktemp("diverged"), data)
