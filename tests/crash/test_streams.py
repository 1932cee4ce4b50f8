"""A training outlives its output, its terminal and its disk, or says what happened in one line."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_rnn.models import archive, load
from trnn_cli import display
from trnn_cli.main import main

from .runs import IMAGES, TINY, intact, litter, outcome
from .test_signals import ENDLESS, TRNN, is_training, wait_until

SHORT = ["train", "text.txt", *TINY, "--max-steps", "60", "--eval-every", "10", "--run", "run"]
LAST = "run/checkpoints/step-00000060.safetensors"


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
@pytest.mark.parametrize("streams", [("/dev/full", "err"), ("out", "/dev/full"), ("/dev/full", "/dev/full")])
def test_a_full_disk_under_its_output(server, folder, options, streams):
    out, err = streams
    assert server.start([*SHORT, *options], folder, out=out, err=err).wait() == 0
    archive.check(folder / LAST)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_from_the_start(folder, closed):
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', TRNN, *SHORT]
    done = subprocess.run(command, cwd=folder, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    archive.check(folder / LAST)
    assert b"done" in done.stdout or ">&-" in closed.split()


def test_progress_that_nobody_reads_any_more(folder, monkeypatch):
    """A pipe on standard error whose reader is gone; standard output still gets its lines."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(display, "PLAIN_EVERY", 0.0)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as broken, open("out", "w") as out:
        monkeypatch.setattr(sys, "stderr", broken)
        monkeypatch.setattr(sys, "stdout", out)
        assert main(SHORT) == 0
    assert "done: 60 steps" in (folder / "out").read_text()
    archive.check(folder / LAST)


def test_signals_and_errors_that_nobody_reads(server, folder, figures):
    process = server.start(ENDLESS, folder, out="/dev/full", err="/dev/full")
    wait_until(is_training(folder))
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130
    assert intact(folder / "run", figures)
    assert server.start(["train", "missing.txt"], folder, err="/dev/full").wait() == 3
    assert server.start(["train", "--kind", "cnn"], folder, err="/dev/full").wait() == 2


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_terminal_that_goes_away(server, folder, options):
    """One that is not the process's own: no signal tells it."""
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    arguments = [*SHORT, *options]
    process = server.start(arguments, folder, held=True, out=name, err=name)
    os.close(theirs)
    os.close(ours)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait() == 0
    archive.check(folder / LAST)


def test_a_terminal_of_its_own_that_goes_away(folder, figures):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([TRNN, *ENDLESS], cwd=folder, preexec_fn=lambda: os.login_tty(theirs))
    os.close(theirs)
    with process:
        os.set_blocking(ours, False)
        wait_until(lambda: read(ours) is None or is_training(folder)())
        os.close(ours)
    assert process.returncode == 129
    assert intact(folder / "run", figures) >= 1
    assert not litter(folder / "run")


def read(descriptor):
    try:
        return os.read(descriptor, 100_000)
    except BlockingIOError:
        return b""


def test_no_room_for_a_larger_file(server, folder):
    """Too little for a checkpoint, then for the history; with enough it goes on as if nothing had been."""
    arguments = ["train", "text.txt", *TINY, "--embedding-size", "2", "--hidden-size", "2"]
    arguments += "--max-steps 60 --checkpoint-every 20 --eval-every 1".split()
    assert server.start([*arguments, "--run", "whole"], folder).wait() == 0
    size = (folder / LAST.replace("run", "whole")).stat().st_size

    process = server.start([*arguments, "--run", "run"], folder, largest_file=size - 1000)
    assert process.wait() == 1
    assert process.err == (
        "trnn: error: cannot write run/best.safetensors at step 1: File too large; "
        "there is no checkpoint yet\n"
    )
    resume = ["train", "--resume", "run"]
    process = server.start(resume, folder, largest_file=size + 1500)
    assert process.wait() == 1
    said = re.fullmatch(
        r"trnn: error: cannot write run/history\.jsonl at step (\d+): File too large; "
        r"the last good checkpoint is (run/best|run/checkpoints/step-000000\d\d)\.safetensors\n",
        process.err,
    )
    assert said and int(said[1]) > 20
    assert (folder / f"{said[2]}.safetensors").exists()
    assert server.start(resume, folder).wait() == 0
    assert not litter(folder / "run")
    assert outcome(folder / "run") == outcome(folder / "whole")


def test_a_full_disk_under_a_training_on_images(server, folder, figures):
    training = ["train-image", "images", *IMAGES, "--max-steps", "9", "--checkpoint-every", "3"]
    assert server.start([*training, "--run", "whole"], folder).wait() == 0
    size = (folder / "whole" / "checkpoints" / "step-00000009.safetensors").stat().st_size
    process = server.start([*training, "--run", "run"], folder, largest_file=size // 2)
    assert process.wait() == 1
    assert process.err == (
        "trnn: error: cannot write run/best.safetensors at step 3: File too large; "
        "there is no checkpoint yet\n"
    )
    assert server.start(["train-image", "--resume", "run"], folder).wait() == 0
    assert not litter(folder / "run")
    assert outcome(folder / "run") == outcome(folder / "whole")
    assert intact(folder / "run", figures) == 4


def test_a_folder_that_cannot_be_written(server, folder, figures):
    process = server.start([*SHORT[:-1], "/proc/run"], folder)
    assert process.wait() == 1
    assert re.fullmatch(r"trnn: error: /proc/run: .*\n", process.err)
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere: only /proc was tried")
    process = server.start([*SHORT, "--checkpoint-every", "20", "--max-steps", "1000000"], folder)
    wait_until(lambda: list(folder.glob("run/checkpoints/*")))
    (folder / "run" / "checkpoints").chmod(0o500)
    assert process.wait() == 1
    (folder / "run" / "checkpoints").chmod(0o700)
    assert "Permission denied; the last good checkpoint is run/checkpoints/step-" in process.err
    assert intact(folder / "run", figures)


def test_a_reader_that_leaves_early_ends_nothing(folder):
    command = f"{TRNN} {' '.join(SHORT)} | head -n 1"
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert load(folder / LAST).meta["step"] == 60


def test_json_is_json_to_the_letter(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    assert main([*SHORT, "--json"]) == 0
    out, err = capfd.readouterr()
    records = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert err == ""
    assert [record["event"] for record in records][:1] == ["started"]
    assert records[-1]["event"] == "finished"
    assert Path(records[-1]["checkpoint"]) == Path(LAST)
