"""TrainConfig and Plan: what makes no sense is refused by name, and limits and intervals follow the rules."""

import json

import pytest

from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.training import TrainConfig
from tinygrad_rnn.training.plan import Plan
from tinygrad_rnn.training.settings import read_toml, to_toml


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("kind", "cnn", "kind must be lstm, gru or rnn, not 'cnn'"),
        ("optimizer", "adamm", "optimizer must be sgd, adam, adamw, adagrad or rmsprop, not 'adamm'"),
        ("encoding", "latin-1", "encoding must be utf-8 or bytes, not 'latin-1'"),
        ("backend", "abacus", "'abacus'; there are"),
        ("layers", 0, "layers must be at least 1, not 0"),
        ("hidden_size", -1, "hidden_size must be at least 1, not -1"),
        ("embedding_size", 0, "embedding_size"),
        ("batch_size", 0, "batch_size"),
        ("seq_length", 0, "seq_length"),
        ("epochs", 0, "epochs must be"),
        ("max_steps", 0, "max_steps must be"),
        ("eval_every", 0, "eval_every must be"),
        ("sample_every", 0, "sample_every must be"),
        ("checkpoint_every", 0, "checkpoint_every must be"),
        ("dropout", 1.0, "dropout must be at least 0 and below 1, not 1.0"),
        ("dropout", float("nan"), "dropout"),
        ("val_fraction", -0.1, "val_fraction"),
        ("lr", 0.0, "lr must be a positive number, not 0.0"),
        ("lr", float("nan"), "lr"),
        ("lr", float("inf"), "lr"),
        ("clip", 0.0, "clip must be a positive number"),
        ("minutes", float("inf"), "minutes"),
        ("minutes", -1.0, "minutes"),
        ("minutes", 1e308, "minutes must be at most"),
        ("seed", -1, "seed"),
        ("seed", 2**64, "seed"),
    ],
)
def test_what_makes_no_sense_is_refused(setting, value, said):
    with pytest.raises(UsageError) as raised:
        TrainConfig(corpus="text", **{setting: value})
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seq_length": 0}, "seq_length must be at least 1, not 0"),
        ({"hidden-size": 3}, "no setting is called 'hidden-size'; did you mean hidden_size?"),
        ({"zzz": 3}, "no setting is called 'zzz'; trnn train --help tells of those there are"),
        ({"layers": "two"}, "layers must be an integer, not 'two'"),
        ({"corpus": [1]}, "corpus must be a string or a list of strings, not [1]"),
        ({"val_fraction": 0, "patience": 2}, "val_fraction 0 holds nothing out, and patience goes by"),
    ],
)
def test_what_a_file_says_wrong_is_said_of_the_file(settings, said):
    with pytest.raises(UsageError) as raised:
        TrainConfig.of({"corpus": "text", **settings}, "mine.toml")
    assert str(raised.value).startswith(f"mine.toml: {said}")
    with pytest.raises(UsageError) as raised:
        TrainConfig.of({"corpus": "text", **settings})
    assert str(raised.value).startswith(said)


def test_settings_without_a_text_are_refused():
    for settings in ({}, {"lr": 1.0}, {"corpus": []}):
        with pytest.raises(UsageError, match=r"^mine\.toml: a training needs a text"):
            TrainConfig.of(settings, "mine.toml")


def test_one_source_needs_no_list():
    assert TrainConfig.of({"corpus": "text"}) == TrainConfig.of({"corpus": ["text"]})


def plan(steps_per_epoch, **settings):
    return Plan.of(TrainConfig(corpus="text", **settings), steps_per_epoch)


def test_limits():
    assert plan(1000).steps == 10_000  # ten epochs
    assert plan(113).steps == 36 * 113  # on a small text about 4000 steps
    assert plan(1).steps == 4000
    assert plan(100, epochs=3).steps == 300
    assert plan(100, max_steps=70).steps == 70
    assert plan(100, epochs=3, max_steps=70).steps == 70
    assert plan(100, epochs=3, max_steps=1000).steps == 300
    assert plan(100, minutes=2).steps is None
    assert plan(100, minutes=2).seconds == 120
    assert plan(100, minutes=2, epochs=3).steps == 300


def test_intervals_are_about_an_epoch():
    assert (plan(400).eval_every, plan(400).checkpoint_every) == (400, 400)
    assert (plan(30).eval_every, plan(30).checkpoint_every) == (120, 120)
    assert (plan(5000).eval_every, plan(5000).checkpoint_every) == (5000, 1000)
    asked = plan(400, eval_every=7, checkpoint_every=9, sample_every=11)
    assert (asked.eval_every, asked.checkpoint_every, asked.sample_every) == (7, 9, 11)


def test_progress_goes_by_the_nearer_limit():
    assert plan(100, epochs=1).progress(25, 1e9) == 0.25
    assert plan(100, minutes=1).progress(10**9, 15.0) == 0.25
    both = plan(100, epochs=1, minutes=1)
    assert both.progress(25, 30.0) == 0.5
    assert both.progress(75, 30.0) == 0.75
    assert both.progress(200, 0.0) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "lr = 1" + "0" * 400,
        "epochs = 1" + "0" * 5000,
        "seed = 0x" + "F" * 5000,
        "max_steps = 0x" + "F" * 5000,
        "minutes = 1e999",
        "corpus = [" * 5000,
        "corpus = 3",
        "layers = true",
        "tie_weights = 1",
        "[lr]",
        "lr = 2026-01-01",
        'kind = ["lstm"]',
    ],
)
def test_files_of_settings_that_nobody_would_write(tmp_path, text):
    (tmp_path / "wild.toml").write_text(text)
    with pytest.raises(UsageError):
        TrainConfig.of({"corpus": ["text"], **read_toml(tmp_path / "wild.toml")}, "wild.toml")


@pytest.mark.parametrize("version", ["2", "0", "'1'", "0x" + "f" * 5000, "1979-05-27"])
def test_a_format_that_is_not_known_is_refused(tmp_path, version):
    file = tmp_path / "later.toml"
    file.write_text(f"format = {version}\nlr = 1.0\n")
    with pytest.raises(UsageError, match=r"later\.toml says another format than 1"):
        read_toml(file)
    file.write_text("lr = 1.0\n")
    assert read_toml(file) == {"lr": 1.0}


def test_settings_go_through_a_file_and_json(tmp_path):
    config = TrainConfig(corpus=["a", "b"], clip=float("inf"), variational=True, minutes=3)
    assert TrainConfig.of(json.loads(json.dumps(config.to_json()))) == config
    (tmp_path / "config.toml").write_text(to_toml(config))
    assert TrainConfig.of(read_toml(tmp_path / "config.toml")) == config
