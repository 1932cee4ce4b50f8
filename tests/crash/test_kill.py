"""SIGKILL at drawn moments of a training: no file is ever lost, and it ends as if it had not been killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time

import pytest

from .runs import IMAGES, TINY, intact, litter, outcome

# So many checkpoints that most moments fall into the writing of one.
OFTEN = ["--checkpoint-every", "2", "--eval-every", "3", "--max-steps", "25"]
OF_TEXTS = ["train", "text.txt", *TINY, *OFTEN, "--sample-every", "9"]
OF_IMAGES = ["train-image", "images", *IMAGES, *OFTEN]


def check_kills(server, folder, figures, training, kills, seed):
    draw = random.Random(seed)
    began = time.monotonic()
    assert server.start([*training, "--run", "whole"], folder).wait() == 0
    duration = time.monotonic() - began
    expected = outcome(folder / "whole")
    killed = 0
    while killed < kills:
        shutil.rmtree(folder / "run", ignore_errors=True)
        process = server.start([*training, "--run", "run"], folder)
        while True:
            if killed < kills:
                time.sleep(draw.uniform(0, 0.7 * duration))
                os.kill(process.pid, signal.SIGKILL)
            code = process.wait()
            if code == 0:
                break
            assert code == -signal.SIGKILL, process.err
            killed += 1
            figures["kills"] += 1
            intact(folder / "run", figures)
            begun = (folder / "run" / "config.toml").exists()
            again = [training[0], "--resume", "run"] if begun else [*training, "--run", "run"]
            process = server.start(again, folder)
        figures["trainings"] += 1
        assert process.err == ""
        assert outcome(folder / "run") == expected
        assert not litter(folder / "run")


def test_a_few_moments(server, folder, figures):
    check_kills(server, folder, figures, OF_TEXTS, 4, seed=1)


def test_a_few_moments_of_a_training_on_images(server, folder, figures):
    check_kills(server, folder, figures, OF_IMAGES, 4, seed=3)


@pytest.mark.slow
def test_many_moments(server, folder, figures):
    check_kills(server, folder, figures, OF_TEXTS, 300, seed=2)


@pytest.mark.slow
def test_many_moments_of_a_training_on_images(server, folder, figures):
    check_kills(server, folder, figures, OF_IMAGES, 300, seed=4)
