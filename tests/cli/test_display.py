"""What the display of a training says, when, and that no reader who leaves ends the training."""

import io
import json
import os
import sys
from dataclasses import replace

import pytest
from rich.text import Text

from tinygrad_rnn.training import ImageConfig, TrainConfig, events
from trnn_cli.display import Display, JsonLines


def stepped(elapsed, step=1):
    numbers = {"loss": 1.0, "grad_norm": 1.0, "lr": 0.1, "examples": 100, "duration": 1.0, "progress": 0.1}
    return events.Stepped(step=step, epoch=1, elapsed=elapsed, **numbers)


@pytest.mark.parametrize("before", [0, 100_000])  # seconds of the run until it was resumed
def test_without_a_live_line_a_plain_one_comes_now_and_then(capfd, before):
    display = Display(TrainConfig(corpus="text"))
    seen = []
    for second in range(1, 300):
        display(stepped(before + second, second))
        out, err = capfd.readouterr()
        assert out == ""
        if err:
            assert err.startswith(f"step {second}, epoch 1, loss 1.000") and err.endswith(" left\n")
            seen.append(second)
    assert seen == [10, 70, 130, 190, 250]


@pytest.mark.parametrize(("seconds", "said"), [(0.01, "10,000"), (200.0, "0.5")])
def test_a_speed_is_not_rounded_to_nothing(seconds, said):
    display = Display(ImageConfig(images="digits"))
    event = replace(stepped(seconds), duration=seconds)
    display(event)
    assert display._parts(event)["speed"] == f"{said} images/s"


def a_pipe_without_a_reader():
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", 1)


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_reader_that_leaves_one_output_leaves_the_other(monkeypatch, closed):
    other = {"stdout": "stderr", "stderr": "stdout"}[closed]
    kept = io.StringIO()
    monkeypatch.setattr(sys, other, kept)
    with a_pipe_without_a_reader() as broken:
        monkeypatch.setattr(sys, closed, broken)
        display = Display(TrainConfig(corpus="text"))
        for second in (1, 50, 200):
            display(stepped(second))
            display(
                events.Evaluated(step=1, epoch=1, train_loss=1.0, val_loss=1.0, best=True, elapsed=second)
            )
        assert kept.getvalue().count("loss" if other == "stderr" else "validation") >= 2


@pytest.mark.parametrize("columns", [100, 20])
def test_a_validation_is_seen_going_on(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    display = Display(TrainConfig(corpus="text"))
    display(stepped(1.0))

    def shown():
        with display.progress_console.capture() as captured:
            display.progress_console.print(display._live_line())
        return captured.get()

    assert "loss 1.000" in shown()
    display(events.Evaluating(step=1, done=0.34))
    assert "validating 34 %" in shown() and "loss" not in shown()
    display(events.Evaluating(step=1, done=1.0))
    assert "loss 1.000" in shown()
    assert max(map(len, shown().splitlines())) <= columns - len("^C")


def test_a_line_from_elsewhere_is_printable(capfd):
    Display(TrainConfig(corpus="text")).say("a\x1b[2Jb\u202ec")
    Display(TrainConfig(corpus="text")).say(Text("[red]"))
    assert capfd.readouterr().out == "a[2Jbc\n[red]\n"


def test_a_skipped_step_as_json_has_no_word_of_texts(capfd):
    JsonLines()(replace(stepped(1.0), skipped="the loss is nan"))
    record = json.loads(capfd.readouterr().out)
    assert (record["event"], record["examples"], record["skipped"]) == ("stepped", 100, "the loss is nan")
    assert "symbols" not in record
