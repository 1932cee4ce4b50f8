"""The installed command as a process: Ctrl-C, a reader that leaves, a terminal, and no terminal."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_rnn.models import load

TRNN = str(Path(sys.executable).with_name("trnn"))
TEXT = "the cat sat on the mat, and the dog sat on the log.\n" * 12
TINY = "--embedding-size 5 --hidden-size 8 --layers 1 --batch-size 4 --seq-length 10".split()
LONG = ["train", "text.txt", *TINY, "--max-steps", "50000", "--eval-every", "100", "--run", "run"]


@pytest.fixture(autouse=True)
def text(folder):
    (folder / "text.txt").write_text(TEXT)


def start(folder, *arguments, **streams):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.Popen([TRNN, *arguments], cwd=folder, **streams)


def wait_for_output(process, pattern):
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise AssertionError(process.stderr.read())


def test_ctrl_c_saves_and_exits_130(folder):
    with start(folder, *LONG, "--checkpoint-every", "50000") as process:
        wait_for_output(process, rb"step 200 ")
        assert not list((folder / "run" / "checkpoints").iterdir())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b"\rfinishing this step, then saving; Ctrl-C again ends at once\n"
    [line] = [line for line in out.decode().splitlines() if line.startswith("interrupted at step")]
    step = int(re.search(r"step (\d+)", line)[1])
    [checkpoint] = (folder / "run" / "checkpoints").iterdir()
    assert str(checkpoint.relative_to(folder)) in line
    assert load(checkpoint).meta["step"] == step >= 200


def test_training_outlives_whoever_reads_its_output(folder):
    with start(folder, "train", "text.txt", *TINY, "--max-steps", "3000", "--run", "run") as process:
        wait_for_output(process, rb"run: run")
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, b"")
    assert load(folder / "run" / "checkpoints" / "step-00003000.safetensors").meta["step"] == 3000


def test_a_sample_ends_quietly_when_its_reader_leaves(folder):
    with start(folder, "train", "text.txt", *TINY, "--max-steps", "5", "--quiet") as process:
        assert process.communicate() == (b"", b"")
    with start(folder, "sample", "--length", "100000000") as process:
        assert len(process.stdout.read(20)) == 20  # streamed: long before the end
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, b"")


PRINTS = [
    ["--help"],
    ["train", "text.txt", "--dry-run"],
    ["sample", "run", "--output", "-"],
    ["info", "run", "--json"],
]


def test_what_prints_ends_quietly_without_a_reader_and_names_a_full_disk(folder):
    with start(folder, "train", "text.txt", *TINY, "--max-steps", "5", "--run", "run", "--quiet") as process:
        assert process.communicate() == (b"", b"")
    full = b"trnn: error: standard output: No space left on device\n"
    for arguments in PRINTS:
        theirs, ours = os.pipe()
        os.close(theirs)
        with start(folder, *arguments, stdout=ours) as process:
            os.close(ours)
            assert (process.stderr.read(), process.wait(), arguments) == (b"", 0, arguments)
        if os.path.exists("/dev/full"):
            with open("/dev/full", "wb") as disk, start(folder, *arguments, stdout=disk) as process:
                assert (process.stderr.read(), process.wait(), arguments) == (full, 1, arguments)


def test_an_error_leaves_with_its_exit_code(folder):
    with start(folder, "sample", "nowhere") as process:
        said = b"trnn: error: nowhere does not exist, neither here nor in runs/\n"
        assert process.communicate() == (b"", said)
    assert process.returncode == 4


def on_a_terminal(folder, *arguments, **environment):
    """What the command shows on a terminal, and its exit code."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [TRNN, *arguments],
        cwd=folder,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"} | environment,
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 10_000)
            except OSError:  # Linux says so when the other side is closed
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    return shown.decode(), process.returncode


def test_a_terminal_has_a_live_line_and_colours(folder):
    arguments = ["train", "text.txt", *TINY, "--max-steps", "1500"]
    shown, code = on_a_terminal(folder, *arguments, "--run", "a")
    assert code == 0
    assert re.search(r"epoch \d+/\d+  loss \d\.\d+  \d\.\d+ bits/char  [\d,]+ char/s  0:\d\d left", shown)
    assert "\x1b[1m" in shown

    shown, code = on_a_terminal(folder, *arguments, "--run", "b", NO_COLOR="1")
    assert code == 0
    assert "\x1b[32m" not in shown

    shown, code = on_a_terminal(folder, *arguments, "--run", "c", TERM="dumb")
    assert code == 0
    assert "\x1b" not in shown
    assert "done: 1,500 steps" in shown


def test_lines_on_a_terminal_end_between_words(folder):
    run = "a-run-whose-name-is-wider-than-the-terminal"
    arguments = ["train", "text.txt", *TINY, "--max-steps", "300", "--sample-every", "300"]
    with start(folder, *arguments, "--run", "piped") as process:
        piped = process.communicate()[0].decode()
    for terminal in ("xterm", "dumb"):
        shown, code = on_a_terminal(
            folder, *arguments, "--run", f"{run}-{terminal}", TERM=terminal, COLUMNS="40"
        )
        assert code == 0
        plain = re.sub(r"[^\n]*\r(?!\n)", "", re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", shown))
        lines = plain.replace("\r\n", "\n").split("\n")
        assert f"{run}-{terminal}" in lines  # in one piece
        assert max(len(line) for line in lines if run not in line) <= 40
        # Nothing is lost: the words are those of the same training in a pipe.
        wanted = piped.replace("piped", f"{run}-{terminal}").replace("reading the text", "")
        assert set(wanted.split()) - set(plain.split()) <= {"0:00;", "0:01;"}


def test_a_pipe_beside_a_terminal_is_not_written_over(folder):
    ours, theirs = pty.openpty()
    arguments = ["train", "text.txt", *TINY, "--max-steps", "1500", "--run", "run"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "FORCE_COLOR": "1"}
    with start(folder, *arguments, stderr=theirs, env=environment) as process:
        os.close(theirs)
        out = process.stdout.read().decode()
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert process.returncode == 0
    assert "done: 1,500 steps" in out
    assert "loss" not in shown
    assert "reading the text" not in out


def test_ctrl_c_on_a_terminal_takes_the_place_of_the_live_line(folder):
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with start(folder, *LONG, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while b" left" not in shown:
            shown += os.read(ours, 10_000)
        process.send_signal(signal.SIGINT)
        while b"interrupted at step" not in shown:
            shown += os.read(ours, 10_000)
        process.wait()
    os.close(ours)
    assert process.returncode == 130
    assert b"\r\x1b[2Kfinishing this step, then saving" in shown


def test_a_narrow_terminal_gets_a_short_line(folder):
    shown, code = on_a_terminal(
        folder, "train", "text.txt", *TINY, "--max-steps", "1500", "--run", "run", COLUMNS="20"
    )
    assert code == 0
    assert re.search(r"loss \d\.\d+\r", shown)
    assert "left" not in shown


def test_on_a_terminal_a_sample_obeys_nothing(folder):
    (folder / "text.txt").write_text("\x1b]0;title\x07 text\x1b[2J" * 40)
    with start(folder, "train", "text.txt", *TINY, "--max-steps", "60", "--quiet", "--lr", "0.02") as process:
        assert process.communicate() == (b"", b"")
    with start(folder, "sample", "--seed", "1", "--length", "300") as process:
        piped = process.communicate()[0].decode()
    shown, code = on_a_terminal(folder, "sample", "--seed", "1", "--length", "300")
    assert code == 0
    assert "\x1b" in piped and "\x07" in piped  # a pipe gets the text as it is
    assert "\x1b" not in shown and "\x07" not in shown


def test_a_scored_text_is_coloured_where_there_are_colours(folder):
    (folder / "text.txt").write_text("the cät\tsat on the mat,\n" * 30)
    for encoding in ("utf-8", "bytes"):
        options = ["--encoding", encoding, *TINY, "--max-steps", "5", "--quiet", "--run", encoding]
        with start(folder, "train", "text.txt", *options) as process:
            assert process.communicate() == (b"", b"")
        score = ["score", encoding, "the cät\tsat\n"]
        shown, code = on_a_terminal(folder, *score, TERM="xterm-256color")
        assert code == 0
        assert "\x1b[38;5;16;48;5;" in shown
        plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
        assert plain.startswith("the cät→sat⏎\r\nbits 0-2 2-4 4-6 6-8 8-10 10+\r\nmean ")

    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        shown, code = on_a_terminal(folder, *score, **environment)
        assert code == 0
        assert shown.startswith("t\t-\r\nh\t") and "\x1b" not in shown

    narrow, code = on_a_terminal(folder, *score, TERM="xterm-256color", COLUMNS="20")
    assert code == 0
    assert max(map(len, re.sub(r"\x1b\[[\d;]*m", "", narrow).split("\r\n"))) <= 20


def test_scores_and_evaluations_end_quietly_when_their_reader_leaves(folder):
    with start(folder, "train", "text.txt", *TINY, "--max-steps", "5", "--quiet", "--run", "run") as process:
        assert process.communicate() == (b"", b"")
    (folder / "long.txt").write_text(TEXT * 1000)
    with start(folder, "score", "run", "@long.txt") as process:
        assert process.stdout.readline() == b"t\t-\n"  # streamed: long before the end
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, b"")
