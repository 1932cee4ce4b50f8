"""`window`, `focus`, `train`, `sample`, `load`, `save`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine import random
from tinygrad_rnn.errors import CheckpointError, DataError, StorageError, UsageError
from tinygrad_rnn.inspect import Session, View, run
from tinygrad_rnn.models import CharLM, detach_state, files
from tinygrad_rnn.optim import SGD, Adam, clip_grad_norm_
from tinygrad_rnn.text import Corpus, Windows, sample
from tinygrad_rnn.training import CharTrainer, RunFolder, TrainConfig

from .conftest import TEXT, small


def learning(kind: str = "lstm", **settings: object) -> Session:
    """A session whose model can be trained: float32, with a text to learn from."""
    session = small(kind)
    symbols = session.symbols
    corpus = Corpus("sentences", symbols, symbols[:0], session.vocabulary, "")
    tg.manual_seed(0)
    model = CharLM(len(session.vocabulary), kind, embedding_size=4, hidden_size=6)
    config = TrainConfig(corpus=("sentences",), **settings) if settings else None  # type: ignore[arg-type]
    return Session(model, session.vocabulary, symbols, f"a small {kind}", corpus, config, 20)


@pytest.fixture
def pupil() -> Session:
    return learning()


def weights(session: Session) -> dict[str, np.ndarray]:
    return session.model.state_dict()


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


# --- window ---------------------------------------------------------------------------------------


def test_window_shows_where_one_is(session: Session, say: Callable[[str], View]) -> None:
    data = say("window").data
    assert data["text"] == TEXT[:20] and data["targets"] == TEXT[1:21]
    assert (data["position"], data["length"], data["truncate"]) == (0, 20, None)


def test_window_goes_elsewhere(each: Session) -> None:
    data = run(each, "window --at 31 --length 12 --truncate 5").data
    assert data["text"] == TEXT[31:43] and data["cuts"] == [0, 5, 10]
    with tg.no_grad():  # what the model says of the text when it has read all that comes before
        logits, _ = each.model(np.asarray(each.symbols[:43], np.intp)[:, None])
    scores = logits.numpy()[31:, 0]
    likelihood = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    losses = -np.log(likelihood[np.arange(12), each.symbols[32:44]])
    np.testing.assert_allclose(data["losses"], losses, rtol=1e-6)
    assert data["loss"] == pytest.approx(losses.mean())
    assert data["guessing"] == pytest.approx(np.log(len(set(TEXT))))
    assert run(each, "window --truncate 0").data["truncate"] is None
    assert run(each, "window").data["length"] == 12


def test_window_runs_by_the_weights_as_they_are_now(session: Session, say: Callable[[str], View]) -> None:
    session.model.output.bias.array[0] = 5.0  # behind everybody's back
    data = say("window").data
    fresh = Session(session.model, session.vocabulary, session.symbols, length=20)
    np.testing.assert_array_equal(data["losses"], fresh.recording.losses)


def test_the_map_of_the_losses_is_from_the_least_to_the_greatest(
    session: Session, say: Callable[[str], View]
) -> None:
    view = say("window")
    losses = view.data["losses"]
    assert f". {losses.min():.3g} to @ {losses.max():.3g}" in view.text()
    [row] = [line for line in view.text().splitlines() if line.startswith("loss |")]
    cells = row.partition("|")[2]
    assert cells[losses.argmin()] == "." and cells[losses.argmax()] == "@"
    session.model.output.bias.array[:] = np.nan
    assert "!" * 20 in say("window").text()


@pytest.mark.parametrize(
    "line, word",
    [
        ("--at -1", "begins at 0 to"),
        ("--at 100000", "begins at 0 to"),
        ("--length 0", "a window has 1 to"),
        ("--length 100000", "a window has 1 to"),
        ("--truncate -2", "every 1 or more steps"),
        ("--at here", "invalid int value"),
    ],
)
def test_no_such_window(session: Session, line: str, word: str) -> None:
    recording = session.recording
    with pytest.raises(UsageError, match=word):
        run(session, f"window {line}")
    assert session.recording is recording and run(session, "window").data["position"] == 0


# --- focus ----------------------------------------------------------------------------------------


def test_focus_on_a_number(session: Session, say: Callable[[str], View]) -> None:
    x = session.namespace["x"] = tg.tensor([1.0, -2.0], requires_grad=True)
    data = say("focus (x * x * 3).sum()").data
    assert not session.at_window and not data["summed"]
    np.testing.assert_allclose(session.focus.gradients[x.node], 6 * x.numpy())
    assert session.focus.value(session.focus.nodes[-1]) == 15
    assert x.grad is None
    say("focus")
    assert session.at_window


def test_focus_on_several_numbers_is_on_their_sum(session: Session, say: Callable[[str], View]) -> None:
    x = session.namespace["x"] = tg.tensor([1.0, -2.0], requires_grad=True)
    view = say("focus x * x")
    assert view.data["summed"] and "sum of its 2 elements" in view.text()
    np.testing.assert_allclose(session.focus.gradients[x.node], 2 * x.numpy())


@pytest.mark.parametrize(
    "expression, word",
    [
        ("y", "NameError: name 'y' is not defined"),
        ("x +", "SyntaxError"),
        ("x.numpy()", "gives no tensor but ndarray"),
        ("x.detach()", "needs no gradient"),
        ("x @ x @ x", "matmul"),
    ],
)
def test_no_such_tensor(session: Session, expression: str, word: str) -> None:
    session.namespace["x"] = tg.tensor([1.0, -2.0], requires_grad=True)
    with pytest.raises(tg.errors.TinygradError) as caught:
        run(session, f"focus {expression}")
    assert word in str(caught.value) and "\n" not in str(caught.value)
    assert session.at_window


def test_what_runs_the_window_again_says_that_the_focus_was_elsewhere(pupil: Session) -> None:
    x = pupil.namespace["x"] = tg.tensor([1.0, -2.0], requires_grad=True)
    for line in ("window", "window --at 3", "train 1", "what-if --keep f=1", "what-if --clear"):
        assert "back at the window" not in run(pupil, line).text(200)
        pupil.namespace["y"] = (x * x).sum()
        run(pupil, "what-if --keep f=1") if line == "what-if --clear" else None
        run(pupil, "focus y")
        assert "back at the window; it was on y" in run(pupil, line).text(200), line
        run(pupil, "focus (x * 3).sum()")
        run(pupil, "what-if f=1")  # a trial leaves the focus where it is
        assert not pupil.at_window
        assert "it was on (x * 3).sum(), as it was then" in run(pupil, "window").text(200)


def test_a_focus_that_fails_says_where_one_still_is(session: Session) -> None:
    x = session.namespace["x"] = tg.tensor([1.0, -2.0], requires_grad=True)
    session.namespace["y"] = x * x
    run(session, "focus y")
    tape = session.focus
    with pytest.raises(UsageError, match=r"NameError.*; still at y$"):
        run(session, "focus z")
    session.namespace["y"] = x * 2
    for expression in ("z", "x.detach()", "5"):
        with pytest.raises(UsageError, match=r"; still at y, as it was then$"):
            run(session, f"focus {expression}")
    y = session.namespace["y"]
    y.sum().backward()
    with pytest.raises(UsageError, match=r"freed.*; still at y, as it was then$"):
        run(session, "focus y")
    assert session.focus is tape
    run(session, "focus")
    with pytest.raises(UsageError, match=r"; still at the window$"):
        run(session, "focus z")


def test_the_line_of_a_focus_is_its_expression(session: Session) -> None:
    session.namespace["x"] = tg.tensor([1.0, -2.0], requires_grad=True)
    run(session, "focus (x * x).sum()")
    run(session, "restart")
    with pytest.raises(UsageError):
        run(session, "focus y")
    assert "<focus>:1  (x * x).sum()" in run(session, "step").text()


def test_the_window_tells_of_what_is_kept(session: Session, say: Callable[[str], View]) -> None:
    assert "what-if" not in say("window").text(200)
    say("what-if --keep cut 4, f=1")
    assert "2 of `what-if --keep` stay" in say("window").text(200)


# --- train ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_train_takes_the_steps_of_a_loop_by_hand(kind: str) -> None:
    session = learning(kind)
    losses = run(session, "train 3").data["losses"] + run(session, "train 2 --lr 1e-3").data["losses"]
    model = learning(kind).model
    optimizer, state, by_hand = Adam(model.parameters(), lr=3e-3), None, []
    windows = Windows(session.corpus.train, 16, 50)  # type: ignore[union-attr]
    for step in range(5):
        inputs, targets = windows[step % len(windows)]
        state = None if step % len(windows) == 0 else state
        optimizer.lr = 3e-3 if step < 3 else 1e-3
        optimizer.zero_grad()
        logits, state = model(inputs, state)
        loss = tg.cross_entropy(logits, tg.tensor(targets))
        loss.backward()
        clip_grad_norm_([*model.parameters()], 5.0)
        optimizer.step()
        by_hand.append(loss.item())
        state = detach_state(state)
    np.testing.assert_allclose(losses, by_hand, rtol=1e-5)
    for name, array in weights(session).items():
        np.testing.assert_allclose(array, model.state_dict()[name], atol=2e-6)


def test_after_training_nothing_is_stale(pupil: Session) -> None:
    model, tape, recording = pupil.model, pupil.focus, pupil.recording
    pupil.memory["anything"] = 1
    data = run(pupil, "train 4").data
    assert pupil.model is model and pupil.recording is not recording and pupil.focus is not tape
    assert pupil.at_window and not pupil.memory and not model.training
    assert data["before"] == recording.loss.item() and data["after"] == pupil.recording.loss.item()
    assert data["after"] < data["before"]
    fresh = Session(model, pupil.vocabulary, pupil.symbols, length=20)  # the same weights, computed anew
    np.testing.assert_array_equal(fresh.recording.losses, pupil.recording.losses)
    for name, parameter in model.named_parameters():
        value = pupil.focus.value(parameter.node)  # type: ignore[arg-type]
        np.testing.assert_array_equal(value, parameter.numpy())
        np.testing.assert_array_equal(
            parameter.grad.numpy(), pupil.focus.gradients[parameter.node], err_msg=name
        )


def test_a_weight_changed_at_the_prompt_counts(pupil: Session) -> None:
    run(pupil, "train 1")
    with tg.no_grad():
        pupil.model.output.bias[:] = 2.0
    run(pupil, "train 1")
    assert abs(weights(pupil)["output.bias"] - 2).max() < 0.01


def test_progress_is_told(pupil: Session) -> None:
    told: list[tuple[int, int, float]] = []
    pupil.progress = lambda *what: told.append(what)
    losses = run(pupil, "train 3").data["losses"]
    assert told == [(step, 3, loss) for step, loss in enumerate(losses, 1)]


def test_ctrl_c_keeps_what_was_learnt(pupil: Session) -> None:
    def interrupt(step: int, steps: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    pupil.progress = interrupt
    view = run(pupil, "train 50")
    other = learning()
    run(other, "train 2")
    assert_same(weights(pupil), weights(other))
    assert "interrupted after 2 of 50 steps" in view.text() and len(view.data["losses"]) == 2
    np.testing.assert_array_equal(pupil.recording.losses, other.recording.losses)
    pupil.progress = lambda *what: None
    run(pupil, "train 1")
    run(other, "train 1")
    assert_same(weights(pupil), weights(other))


def test_ctrl_c_waits_for_the_step_that_is_running(pupil: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    one_step = CharTrainer.train_step

    def interrupted(trainer: CharTrainer) -> object:
        if trainer.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return one_step(trainer)

    monkeypatch.setattr(CharTrainer, "train_step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert len(run(pupil, "train 5").data["losses"]) == 2
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    other = learning()
    run(other, "train 2")
    assert_same(weights(pupil), weights(other))


def test_a_training_that_diverges_says_so(pupil: Session) -> None:
    with tg.no_grad():
        pupil.model.output.weight *= np.inf
    pupil.record()
    view = run(pupil, "train 5")
    assert view.data["losses"] == [] and "at step 1; the weights are those before it" in view.data["ended"]
    assert "`why nan`" in view.data["ended"] and "--lr" not in view.data["ended"]


def test_after_good_steps_a_smaller_rate_may_help(pupil: Session) -> None:
    view = run(pupil, "train 50 --lr 1e30")
    assert view.data["losses"] and "a smaller --lr may help" in view.data["ended"]
    assert "`why nan`" not in view.data["ended"]


def test_a_loaded_model_learns_by_its_own_settings() -> None:
    session = learning(
        optimizer="sgd", lr=0.5, batch_size=3, seq_length=10, schedule="cosine", val_fraction=0.0
    )
    view = run(session, "train 2")
    assert "sgd, lr 0.5" in view.text() and "anew, at a constant rate" in view.text()
    model = learning().model
    optimizer, state = SGD(model.parameters(), lr=0.5), None
    for inputs, targets in list(Windows(session.symbols, 3, 10))[:2]:
        optimizer.zero_grad()
        loss, state = model.loss(inputs, targets, state)
        loss.backward()
        clip_grad_norm_([*model.parameters()], 5.0)
        optimizer.step()
        state = detach_state(state)
    for name, array in weights(session).items():
        np.testing.assert_allclose(array, model.state_dict()[name], atol=1e-6)
    assert "anew" not in run(session, "train 1").text()


def test_training_leaves_the_random_numbers_alone(pupil: Session) -> None:
    tg.manual_seed(5)
    before = random.snapshot()
    run(pupil, "train 1")
    assert random.snapshot() == before


def test_a_session_without_a_text_to_learn_from(session: Session) -> None:
    with pytest.raises(UsageError, match="`load` a run whose text still is"):
        run(session, "train")
    assert session.trainer is None


@pytest.mark.parametrize("line", ["0", "-3", "2 --lr 0", "2 --lr nan", "2 --lr -1", "many"])
def test_no_such_training(pupil: Session, line: str) -> None:
    before = weights(pupil)
    with pytest.raises(UsageError):
        run(pupil, f"train {line}")
    assert_same(weights(pupil), before)


# --- sample ---------------------------------------------------------------------------------------


def test_sample_is_what_the_model_writes(session: Session, say: Callable[[str], View]) -> None:
    data = say("sample 40 --prime 'He said' --temperature 0.5 --seed 3").data
    prime = session.vocabulary.encode("He said")
    written = session.vocabulary.decode(list(sample(session.model, prime, 40, 0.5, seed=3)))
    assert data["text"] == written and len(written) == 40 and data["prime"] == "He said"
    assert (
        say("sample 40").data["text"]
        == say("sample 40").data["text"]
        != say("sample 40 --seed 1").data["text"]
    )


def test_sample_shows_every_character(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.vocabulary, "decode", lambda symbols: "  two  spaces\n\n" + "x" * 50)
    lines = run(session, "sample 40 --prime He").text(40).splitlines()[1:]
    assert lines == ["He  two  spaces", "", "x" * 40, "x" * 10]


@pytest.mark.parametrize(
    "line, error",
    [
        ("0", UsageError),
        ("--seed -1", UsageError),
        ("--temperature -1", UsageError),
        ("--temperature nan", UsageError),
        ("--prime é", DataError),
        ("--prime 'open", UsageError),
    ],
)
def test_nothing_to_write(session: Session, line: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        run(session, f"sample {line}")
    assert "\n" not in str(caught.value)


# --- load and save --------------------------------------------------------------------------------


def test_save_and_load(pupil: Session, tmp_path: Path) -> None:
    run(pupil, "train 3")
    file = tmp_path / "learnt.safetensors"
    run(pupil, f"save {file}")
    loaded = files.load(file)
    assert_same(weights(pupil), loaded.model.state_dict())
    assert loaded.vocabulary == pupil.vocabulary and loaded.meta == {"step": 3, "corpus": "sentences"}

    other = small("gru")
    namespace, observer = other.namespace, other.observer
    other.namespace["kept"] = 1
    other.corpus = pupil.corpus
    run(other, f"load {file}")
    assert_same(weights(other), weights(pupil))
    assert other.namespace is namespace and other.observer is observer and namespace["kept"] == 1
    np.testing.assert_array_equal(other.recording.losses, pupil.recording.losses)
    assert other.at_window and other.trainer is None and not other.memory
    assert "it begins anew" not in run(other, "train 1").text()  # there was none


def test_load_a_run(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 3)
    config = TrainConfig(
        corpus=(str(text),), kind="gru", layers=1, hidden_size=5, embedding_size=3, batch_size=2,
        seq_length=10, max_steps=3,
    )  # fmt: skip
    corpus = tg.text.load_corpus(str(text))
    with RunFolder.create(tmp_path / "run", config) as folder:
        CharTrainer(config, corpus).train(folder)
    session = small()
    view = run(session, f"load {tmp_path / 'run'}")
    assert session.model.kind == "gru" and view.data["config"]["hidden_size"] == 5
    assert session.text == corpus.vocabulary.decode(corpus.held_out[:20])
    assert session.config is not None and replace(session.config) == config
    assert len(run(session, "train 2").data["losses"]) == 2


def test_what_cannot_be_loaded_changes_nothing(session: Session, tmp_path: Path) -> None:
    before = dict(vars(session))
    (tmp_path / "text.txt").write_text("no checkpoint")
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "text.txt"):
        with pytest.raises(CheckpointError) as caught:
            run(session, f"load {path}")
        assert "\n" not in str(caught.value)
    assert all(vars(session)[name] is value for name, value in before.items())


def test_save_writes_over_nothing(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "here"
    file.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        run(session, f"save {file}")
    assert file.read_text() == "mine"
    with pytest.raises(UsageError, match="there is no folder"):
        run(session, f"save {tmp_path / 'no' / 'folder'}")

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        run(session, f"save {tmp_path / 'new'}")


# --- how it looks ---------------------------------------------------------------------------------


def test_a_window_looks(session: Session, golden: Callable[[View], None]) -> None:
    run(session, "what-if --keep f=1")
    golden(run(session, "window --at 7 --length 60 --truncate 20"))


def test_a_focus_looks(session: Session, golden: Callable[[View], None]) -> None:
    session.namespace["x"] = tg.tensor([1.0, -2.0], requires_grad=True)
    golden(run(session, "focus x * x"))
