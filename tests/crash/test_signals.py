"""Signals: what each of them does to a training, at any moment; and two trainers in one folder."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinygrad_rnn.models import load, load_classifier

from .runs import IMAGES, TINY, intact, litter, outcome

TRNN = str(Path(sys.executable).with_name("trnn"))
ENDLESS = ["train", "text.txt", *TINY, "--max-steps", "10000000", "--checkpoint-every", "9999999"]
ENDLESS += ["--run", "run"]
# A step of it takes long enough for a second signal to come in the middle of it.
SLOW = "--kind lstm --embedding-size 64 --hidden-size 512 --layers 3 --batch-size 50 --seq-length 100".split()


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def is_training(folder):
    history = folder / "run" / "history.jsonl"
    return lambda: history.exists() and history.stat().st_size > 0


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_request_to_end_is_a_checkpoint_and_an_exit_code(server, folder, name, code):
    process = server.start(ENDLESS, folder)
    wait_until(is_training(folder))
    os.kill(process.pid, getattr(signal, name))
    assert process.wait() == code
    note = "\rfinishing this step, then saving; Ctrl-C again ends at once\n"
    assert process.err == (note if name == "SIGINT" else "")
    [checkpoint] = (folder / "run" / "checkpoints").iterdir()
    step = load(checkpoint).meta["step"]
    assert f"interrupted at step {step}; saved {checkpoint.relative_to(folder)}\n" in process.out
    assert process.out.endswith("to go on: trnn train --resume run\n")
    assert checkpoint.name == f"step-{step:08d}.safetensors"


def test_a_training_on_images_that_was_interrupted_goes_on_as_if_it_had_not_been(server, folder, figures):
    training = ["train-image", "images", *IMAGES, "--max-steps", "150", "--checkpoint-every", "9999"]
    assert server.start([*training, "--run", "whole"], folder).wait() == 0
    process = server.start([*training, "--run", "run"], folder)
    wait_until(is_training(folder))
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130
    assert process.err == "\rfinishing this step, then saving; Ctrl-C again ends at once\n"
    [checkpoint] = (folder / "run" / "checkpoints").iterdir()
    step = load_classifier(checkpoint).meta["step"]
    assert step < 150 and checkpoint.name == f"step-{step:08d}.safetensors"
    assert process.out.endswith("to go on: trnn train-image --resume run\n")
    process = server.start(["train-image", "--resume", "run", "--require-exact"], folder)
    assert process.wait() == 0 and f"resume: exact, after step {step}\n" in process.out
    assert outcome(folder / "run") == outcome(folder / "whole")
    intact(folder / "run", figures)
    assert not litter(folder / "run")


def test_a_second_ctrl_c_does_not_wait_for_the_step(server, folder):
    process = server.start(["train", "harbour", *SLOW, "--run", "run"], folder)
    wait_until(lambda: "run: run" in process.out)
    time.sleep(0.2)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        wait_until(lambda: "Ctrl-C again" in process.err)
    assert process.wait() == 130
    assert process.err == "\rfinishing this step, then saving; Ctrl-C again ends at once\n"
    assert list((folder / "run" / "checkpoints").iterdir()) == []
    assert not litter(folder / "run")


def check_ctrl_c_twice(server, folder, figures, times, seed):
    """The second one anywhere, also in the middle of saving: quickly, quietly, and nothing is lost."""
    draw = random.Random(seed)
    run = ["train", "text.txt", *TINY, "--max-steps", "10000000", "--checkpoint-every", "1"]
    for number in range(times):
        process = server.start([*run, "--run", f"run{number}"], folder)
        wait_until(lambda run=folder / f"run{number}": list(run.glob("checkpoints/*.safetensors")))
        os.kill(process.pid, signal.SIGINT)
        time.sleep(draw.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130, process.err
        assert "Traceback" not in process.err and "ignored" not in process.err, process.err
        intact(folder / f"run{number}", figures)
        assert not litter(folder / f"run{number}")
        figures["times Ctrl-C twice"] += 1


def test_two_ctrl_c_at_a_few_moments(server, folder, figures):
    check_ctrl_c_twice(server, folder, figures, 3, seed=1)


@pytest.mark.slow
def test_two_ctrl_c_at_many_moments(server, folder, figures):
    check_ctrl_c_twice(server, folder, figures, 100, seed=2)


# Ctrl-C at the n-th event that Python reports to auditors: an import, a file opened, ...; else their number.
COUNTING = """
import os, signal, sys
n, events = int(sys.argv.pop(1)), 0
def count(event, arguments):
    global events
    events += 1
    if events == n:
        os.kill(os.getpid(), signal.SIGINT)
from trnn_cli import start
sys.addaudithook(count)
try:
    start.run()
finally:
    print(events)
"""
SHORT = ["train", "text.txt", *TINY, "--max-steps", "2", "--run", "run"]


def counting(folder, n):
    command = [sys.executable, "-c", COUNTING, str(n), *SHORT]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def check_start(folder, figures, moments):
    events = int(counting(folder, 0).stdout.split()[-1])
    for n in moments(events):
        subprocess.run(["rm", "-rf", str(folder / "run")], check=True)
        done = counting(folder, n)
        assert done.returncode in (130, 0), (n, done.stderr)  # 0: it was the last step
        lines = set(done.stderr.strip().splitlines())
        assert lines <= {"finishing this step, then saving; Ctrl-C again ends at once"}, (n, done.stderr)
        figures["times Ctrl-C while the command starts"] += 1


def test_ctrl_c_while_the_command_starts(folder, figures):
    check_start(folder, figures, lambda events: random.Random(4).sample(range(1, events), 3))


@pytest.mark.slow
def test_ctrl_c_at_many_moments_of_the_start(folder, figures):
    check_start(folder, figures, lambda events: range(1, events, max(events // 100, 1)))


# Ctrl-C at the n-th instruction of the entry point, since it first says what is to become of one.
STEPPING = """
import os, signal, sys
from trnn_cli import main, start
sys.argv[1:] = ["--version"]
def interrupted_at(n):
    count = 0
    def instruction(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode" and (count > 0 or signal.getsignal(signal.SIGINT) is start._leave)
        if count == n:
            count += 1
            os.kill(os.getpid(), signal.SIGINT)
        return instruction
    sys.settrace(lambda frame, event, argument: instruction if frame.f_code is start.run.__code__ else None)
    start.run()
for n in range(1, 1000):
    if not (child := os.fork()):
        interrupted_at(n)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(n, code, flush=True)
    if code == 0:
        break
"""


def test_ctrl_c_at_every_instruction_of_the_entry_point(folder, figures):
    done = subprocess.run([sys.executable, "-c", STEPPING], cwd=folder, capture_output=True, text=True)
    assert done.stderr == "", done.stderr
    codes = [int(line.split()[1]) for line in done.stdout.splitlines() if not line.startswith("trnn")]
    assert len(codes) > 30 and codes == [*[130] * (len(codes) - 1), 0]
    figures["Ctrl-Cs in the entry point"] += len(codes) - 1


def test_ctrl_c_while_the_text_is_read(server, folder):
    os.mkfifo(folder / "pipe")
    process = server.start(["train", "pipe", *TINY, "--run", "run"], folder)
    with open(folder / "pipe", "wb") as pipe:  # opens once the other side does
        pipe.write(b"the cat")
        pipe.flush()
        time.sleep(0.3)  # by then it waits for more
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130
    assert process.err == ""
    assert not (folder / "run").exists()


def test_nohup_lets_a_training_outlive_its_terminal(folder):
    with subprocess.Popen(
        ["nohup", TRNN, "train", "text.txt", *TINY, "--max-steps", "300", "--run", "run"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        wait_until(is_training(folder))
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert b"done: 300 steps" in out


def test_a_second_trainer_in_a_folder_names_the_first(server, folder):
    first = server.start(ENDLESS, folder)
    wait_until(is_training(folder))
    before = first.out
    for arguments in (["train", "--resume", "run"], ENDLESS):
        second = server.start(arguments, folder, out="out2", err="err2")
        assert second.wait() == 5
        said = (folder / "err2").read_text()
        assert re.fullmatch(rf"trnn: error: run is in use by process {first.pid} on .*\n", said)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait() == 143
    assert first.out.startswith(before) and first.err == ""
