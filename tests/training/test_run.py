"""Run folders: what is in them, what they are called, which is the newest."""

import os
import re
import tomllib
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import CheckpointError, UsageError
from tinygrad_rnn.training import RunFolder, TrainConfig, newest
from tinygrad_rnn.training.settings import FORMAT, to_toml

CONFIG = TrainConfig(corpus="text.txt", clip=float("inf"), epochs=3)


def test_the_configuration_is_written_in_full(tmp_path):
    RunFolder.create(tmp_path / "run", CONFIG)
    text = (tmp_path / "run" / "config.toml").read_text()
    read = tomllib.loads(text)
    assert read == {"format": FORMAT, **CONFIG.to_json()}
    for name, value in asdict(CONFIG).items():
        assert re.search(
            rf"^# {name} =  # \S" if value is None else rf"^{name} = .+  # \S", text, re.MULTILINE
        )
    assert RunFolder(tmp_path / "run").config() == CONFIG


@given(st.text(st.characters()))
def test_any_name_of_a_corpus_can_be_written_down(name):
    assert tomllib.loads(to_toml(TrainConfig(corpus=name)))["corpus"] == [name]


def test_a_folder_with_a_run_is_refused(tmp_path):
    RunFolder.create(tmp_path, CONFIG).release()  # an existing folder without one is fine
    with pytest.raises(
        UsageError, match=f"holds a run already; to go on with it: trnn train --resume {tmp_path}"
    ):
        RunFolder.create(tmp_path, CONFIG)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        RunFolder.create(tmp_path / "file", CONFIG)


def test_new_runs_are_named_by_date_corpus_and_model(tmp_path):
    runs = [RunFolder.create_new(tmp_path / "runs", "a text/ö", CONFIG).path for _ in range(3)]
    assert len(set(runs)) == 3
    for run in runs:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}_a-text-ö_gru(-\d)?", run.name)


def test_the_last_checkpoints_are_kept(tmp_path):
    run = RunFolder.create(tmp_path, CONFIG)
    for step in (5, 10, 100, 20):
        run.checkpoint(step).touch()
    run.best.touch()
    run.drop_old_checkpoints(3)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "step-00000010.safetensors",
        "step-00000020.safetensors",
        "step-00000100.safetensors",
    ]
    assert run.best.exists()


def test_the_newest_run_is_the_one_saved_last(tmp_path):
    with pytest.raises(CheckpointError, match="no run with a checkpoint"):
        newest(tmp_path / "nowhere")
    for name, time in [("b", 20), ("a", 30), ("c", 10), ("d", None)]:
        run = RunFolder.create(tmp_path / name, CONFIG)
        if time is not None:  # d died before its first checkpoint
            run.checkpoint(1).touch()
            os.utime(run.checkpoint(1), (time, time))
    (tmp_path / "notes.txt").touch()
    assert newest(tmp_path) == tmp_path / "a"
