"""`trnn train --on-nan stop|skip|rewind`: exit codes, what is said, and what is left in the run folder."""

import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tinygrad_rnn.models import CharLM, archive
from tinygrad_rnn.training.history import read_run
from trnn_cli.main import main

TINY = "--embedding-size 5 --hidden-size 8 --layers 1 --batch-size 4 --seq-length 10 --seed 1".split()
OFTEN = "--max-steps 12 --checkpoint-every 3 --eval-every 4 --sample-every 6 --run run".split()
TOO_FAST = ["--optimizer", "sgd", "--lr", "1e38", "--clip", "inf"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of one's own, with a text in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the dog sat on the log.\n" * 12)
    return tmp_path


@pytest.fixture
def trnn(capfd):
    """Run the command; gives (exit code, standard output, standard error)."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def harm(monkeypatch):
    """harm(first, last): the loss is not a number in the calls of training from the first to the last, of
    which there is one a step, and one more for each that came to harm."""
    loss, calls = CharLM.loss, []

    def install(first, last):
        def harmed(self, *arguments):
            value, state = loss(self, *arguments)
            calls.append(None) if self.training else None
            harmed_now = self.training and first <= len(calls) <= last
            return (value * math.nan if harmed_now else value), state

        monkeypatch.setattr(CharLM, "loss", harmed)

    return install


def check_checkpoints(run):
    """All numbers in them are finite; how many there are."""
    files = [*run.rglob("*.safetensors")]
    for file in files:
        assert all(np.isfinite(array).all() for array in archive.read(file)[1].values()), file
    return len(files)


def steps_of_history(run):
    return [json.loads(line)["step"] for line in (run / "history.jsonl").read_text().splitlines()]


def test_stop(trnn, folder, harm):
    harm(8, 9)
    code, out, err = trnn("train", "text.txt", *TINY, *OFTEN)
    assert code == 6
    assert err.startswith("trnn: error: at step 8, the loss is nan (multiply gives nan); the last good check")
    assert "run/checkpoints/step-00000006.safetensors; " in err and err.count("\n") == 1
    assert "--on-nan skip or rewind" in err and "Traceback" not in out + err
    assert check_checkpoints(folder / "run") == 3
    assert read_run(folder / "run").state == "diverged"
    code, out, _ = trnn("train", "--resume", "run")  # the harm is over
    assert read_run(folder / "run").state == "finished"
    assert code == 0 and "resume: exact, after step 6" in out and "done: 12 steps" in out
    assert steps_of_history(folder / "run") == [4, 8, 10, 12]


def test_skip(trnn, folder, harm):
    harm(8, 9)
    code, out, err = trnn("train", "text.txt", *TINY, *OFTEN, "--on-nan", "skip")
    assert (code, err) == (0, "")
    assert out.count("the step is skipped") == 1
    assert "the loss is nan (multiply gives nan) at step 8; the step is skipped" in out
    assert steps_of_history(folder / "run") == [4, 8, 10, 12]
    assert check_checkpoints(folder / "run") == 4


def test_rewind(trnn, folder, harm):
    harm(8, 9)
    code, out, err = trnn("train", "text.txt", *TINY, *OFTEN, "--on-nan", "rewind", "--schedule", "constant")
    assert (code, err) == (0, "")
    assert "the loss is nan (multiply gives nan) at step 8; back to step 6, lr 0.003\n" in out
    assert steps_of_history(folder / "run") == [4, 8, 10, 12]
    samples = (folder / "run" / "samples.txt").read_text()
    assert [samples.count(f"--- step {step}, ") for step in (6, 12)] == [1, 1]
    assert check_checkpoints(folder / "run") == 4


@pytest.mark.parametrize(("on_nan", "skipped", "rewound"), [("stop", 0, 0), ("skip", 9, 0), ("rewind", 0, 5)])
def test_as_json(trnn, folder, harm, on_nan, skipped, rewound):
    harm(8, math.inf)
    options = [*TINY, *OFTEN, "--max-steps", 30, "--on-nan", on_nan, "--json"]
    code, out, err = trnn("train", "text.txt", *options)
    assert code == 6 and err.startswith("trnn: error: at step ") and err.count("\n") == 1

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    records = [json.loads(line, parse_constant=refuse) for line in out.splitlines()]
    told = [record["event"] for record in records]
    assert (told.count("stepped"), told.count("rewound")) == (skipped, rewound)
    assert all(record["skipped"] for record in records if record["event"] == "stepped")
    check_checkpoints(folder / "run")


@pytest.mark.parametrize("on_nan", ["stop", "skip", "rewind"])
def test_a_rate_that_is_far_too_high(folder, on_nan):
    """The real thing, in a process of its own."""
    command = "import sys; from trnn_cli.main import main; sys.exit(main(sys.argv[1:]))"
    options = [*TINY, *OFTEN, *TOO_FAST, "--on-nan", on_nan]
    done = subprocess.run(
        [sys.executable, "-c", command, "train", "text.txt", *options], capture_output=True, text=True
    )
    assert done.returncode == 6
    assert done.stderr.startswith("trnn: error: at step ") and done.stderr.count("\n") == 1
    assert re.search(r"\((\w+ gives (inf|nan)|the weights reach \S+, in output\.(weight|bias))", done.stderr)
    check_checkpoints(folder / "run")
