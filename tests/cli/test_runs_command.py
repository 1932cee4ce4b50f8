"""`trnn runs`, `trnn runs compare`, `trnn info`: what they show, and that nothing in a file upsets them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tinygrad_rnn.models import CharLM, load, save
from tinygrad_rnn.text.vocabulary import Vocabulary
from trnn_cli import evaluate, info, layout, runs, sample, score
from trnn_cli.main import app
from trnn_cli.runs import find_run


def write_run(folder, losses, kind="lstm", lr=0.01, every=10):
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        f'corpus = "text.txt"\nkind = "{kind}"\nlayers = 1\nhidden_size = 8\nlr = {lr}\n'
        "clip = inf\nseed = 3\n"
    )
    records = [
        {"step": every * i, "epoch": 1, "val_loss": loss, "seconds": float(i)}
        for i, loss in enumerate(losses, 1)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def two(folder):
    write_run(folder / "runs" / "a", [3.0, 2.0, 1.5])
    write_run(folder / "runs" / "b", [2.5, 1.25], kind="gru", lr=0.5, every=20)


def words(out):
    return [line.split() for line in out.splitlines()]


def test_a_table_of_runs(trnn, two):
    code, out, err = trnn("runs")
    assert (code, err) == (0, "")
    header, *rows = words(out)
    assert header == "run data model parameters steps nats bits started trained state".split()
    assert sorted(row[:7] for row in rows) == [
        ["a", "text.txt", "lstm", "1x8", "-", "30", "1.5000"],
        ["b", "text.txt", "gru", "1x8", "-", "40", "1.2500"],
    ]
    assert trnn("runs", "runs") == trnn("runs", "list") == (code, out, err)


NAMES = ["2026-11-23_085117_harbour_gru", "2026-11-23_085117_tinyshakespeare_lstm-2"]


@pytest.mark.parametrize("columns", [80, 200])
def test_at_80_columns_runs_of_default_names_are_a_table(trnn, folder, monkeypatch, columns):
    for name in NAMES:
        write_run(folder / "runs" / name, [3.0, 2.0, 1.5], every=33_333)
    monkeypatch.setattr(layout, "width", lambda: columns)
    header, *rows = words(trnn("runs")[1])
    assert [row[0] for row in rows] == NAMES
    assert {"run", "steps", "nats", "state"} <= set(header)
    assert all(row[-1] == "interrupted" and "99,999" in row and "1.5000" in row for row in rows)
    assert columns == 80 or len(header) == 10, "where there is room, all is shown"


def test_a_run_without_a_checkpoint_says_how_to_go_on(trnn, two, folder):
    for command in (["sample"], ["eval"], ["score"], ["info"]):
        for name in ("a", "runs/a"):
            text = ["text"] if command == ["score"] else []
            code, out, err = trnn(*command, name, *text)
            assert (code, out) == (4, "")
            assert err == (
                f"trnn: error: {name} has no checkpoint yet; train it further: trnn train --resume {name}\n"
            )
    fcntl = pytest.importorskip("fcntl")
    with open(folder / "runs" / "a" / "run.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert trnn("info", "a")[2] == "trnn: error: a has no checkpoint yet; wait for it\n"


@pytest.mark.parametrize("module", [evaluate, info, runs, sample, score])
def test_what_the_examples_show_exists(module):
    first, *examples = module.EXAMPLES.split("\n\n")
    assert first == "Try:" and 2 <= len(examples) <= 3
    for example in examples:
        program, command, *options = example.split()
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        assert program == "trnn"
        assert all(option in shown for option in options if option.startswith("--"))


def test_no_runs(trnn, folder):
    assert trnn("runs") == (0, "no runs in runs/; train one: trnn train harbour\n", "")
    assert trnn("runs", "--json") == (0, "[]\n", "")
    assert trnn("runs", "nowhere")[0] == 2


def test_a_damaged_run_spoils_no_table_but_a_comparison(trnn, two, folder):
    (folder / "runs" / "b" / "history.jsonl").write_text("{}\n{}\n")
    code, out, _ = trnn("runs")
    assert code == 0
    assert "damaged" in out and "line 1 of runs/b/history.jsonl" in out
    code, _, err = trnn("runs", "compare", "a", "b")
    assert (code, err.count("\n")) == (3, 1)


def test_runs_compared(trnn, two):
    code, out, err = trnn("runs", "compare", "runs/a", "b")
    assert (code, err) == (0, "")
    shown = words(out)
    for line in [
        *(["A", "runs/a"], ["B", "runs/b"], ["kind", "lstm", "gru"], ["lr", "0.01", "0.5"]),
        *(["layers", "1", "1"], ["best", "nats", "1.5000", "1.2500"], ["at", "step", "30", "40"]),
        *(["10", "3.0000"], ["20", "2.0000", "2.5000"], ["30", "1.5000"], ["40", "1.2500"]),
    ]:
        assert line in shown
    # Measured by one of the two alone: the other's cell is empty.
    assert "\n  20  2.0000  2.5000\n  30  1.5000\n  40          1.2500\n" in out
    assert ["seed", "3", "3"] not in shown, "only the main settings are shown where they are equal"
    assert re.search(r"^A +█+▆", out, re.M) is None  # one scale for both: 3.0 is the highest
    assert re.search(r"^A +█+▄+▂$", out, re.M)
    assert re.search(r"^B +▆+▁$", out, re.M)


def test_a_comparison_takes_two_runs(trnn, two):
    assert trnn("runs", "compare", "a")[0] == 2
    code, _, err = trnn("runs", "compare", "a", "nowhere")
    assert code == 2 and "nowhere holds no run" in err


def test_a_run_is_found_by_its_path_or_by_its_name_in_runs(two, folder):
    for name in ("a", "runs/a", folder / "runs" / "a"):
        assert find_run(Path(name)).samefile("runs/a")
    write_run(folder / "a", [1.0])
    assert find_run(Path("a")).samefile("a")
    assert find_run(Path("nowhere")) == Path("nowhere")


def test_a_run_without_validation_is_compared_too(trnn, two, folder):
    write_run(folder / "runs" / "c", [None])
    code, out, _ = trnn("runs", "compare", "a", "c")
    assert code == 0
    assert ["best", "nats", "1.5000", "-"] in words(out)
    assert trnn("runs", "compare", "c", "c")[0] == 0


def test_json_of_runs(trnn, two):
    def strict(text):
        return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))

    listed = strict(trnn("runs", "--json")[1])
    assert [run["settings"]["clip"] for run in listed] == ["Infinity"] * 2
    compared = strict(trnn("runs", "compare", "a", "b", "--json")[1])
    assert [evaluation["loss"] for evaluation in compared[0]["curve"]] == [3.0, 2.0, 1.5]


@pytest.mark.parametrize("columns", [1, 20, 50, 80])
@pytest.mark.parametrize(
    "arguments", [["runs"], ["runs", "compare", "a", "b"], ["info", "m.safetensors", "--all"]]
)
def test_no_line_is_wider_than_the_terminal(trnn, two, monkeypatch, columns, arguments):
    save("m.safetensors", CharLM(3, hidden_size=4), Vocabulary.of("abc"), {"note": "long " * 100})
    monkeypatch.setattr(layout, "width", lambda: columns)
    code, out, _ = trnn(*arguments)
    assert code == 0
    widest = max(map(len, out.splitlines()))
    assert widest <= max(columns, 20)


def test_a_terminal_without_block_characters_gets_letters(trnn, two, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    _, out, _ = trnn("runs", "compare", "a", "b")
    assert out.isascii()
    assert re.search(r"^B +\++_$", out, re.M)


def test_what_a_checkpoint_holds(trnn, folder):
    model = CharLM(4, "gru", embedding_size=5, hidden_size=6, num_layers=2)
    meta = {
        "step": 7,
        "fingerprint": {"numpy": "2.3"},
        "list": [1],
        "none": None,
        "\x1b[31m": "\x1b]0;title\x07",
    }
    save("m.safetensors", model, Vocabulary.of("a\n\x1b "), meta)
    code, out, err = trnn("info", "m.safetensors", "--all")
    assert (code, err) == (0, "")
    assert "\x1b" not in out and "\x07" not in out
    shown = words(out)
    for line in [["step", "7"], ["fingerprint.numpy", "2.3"], ["list", "[1]"], ["none", "null"]]:
        assert line in shown
    assert ["parameters", f"{model.num_parameters():,}"] in shown
    assert r"4 symbols, utf-8: '\n\x1b a'" in out
    assert ["rnn.weight_hh_l1", "18", "x", "6", "float32"] in [line[:5] for line in shown]

    found = json.loads(trnn("info", "m.safetensors", "--json")[1])
    assert found["meta"] == meta | {"format": 2}
    arrays = load("m.safetensors").model.state_dict()
    for array in found["arrays"]:
        assert array["norm"] == pytest.approx(np.sqrt((arrays[array["name"]].astype(float) ** 2).sum()))
        assert tuple(array["shape"]) == arrays[array["name"]].shape
    assert found["vocabulary"] == {"size": 4, **Vocabulary.of("a\n\x1b ").to_json()}


def test_of_a_run_the_best_checkpoint_is_shown(trnn, two):
    model, vocabulary = CharLM(3, hidden_size=8), Vocabulary.of("abc")
    save("runs/a/best.safetensors", model, vocabulary, {"step": 20})
    save("runs/a/checkpoints/step-00000030.safetensors", model, vocabulary, {"step": 30})
    assert ["step", "20"] in words(trnn("info", "runs/a")[1])


def test_a_checkpoint_in_a_few_lines(trnn, two):
    model, vocabulary = CharLM(3, hidden_size=8), Vocabulary.of("abc")
    meta = {"step": 1200, "epoch": 3, "val_loss": 0.5, "corpus": "text", "finished": False}
    training = {
        "config": {"lr": 0.1},
        "time": {"elapsed": 61.0},
        "fingerprint": {"numpy": "2.3", "blas": "x"},
    }
    save("runs/a/best.safetensors", model, vocabulary, meta, training)
    code, out, err = trnn("info", "a")
    assert (code, err) == (0, "")
    facts = dict(re.split("  +", line, maxsplit=1) for line in out.splitlines())
    assert facts.pop("file").startswith("runs/a/best.safetensors, ")
    assert facts == {
        "run": "interrupted at step 1,200, trained for 1:01",
        "model": f"lstm 2x8, embedding {model.config()['embedding_size']}",
        "parameters": f"{model.num_parameters():,}",
        "vocabulary": "3 symbols, utf-8: 'abc'",
        "corpus": "text",
        "step": "1,200, epoch 3",
        "validation loss": "0.5000 nats = 0.7213 bits/char",
        "trained for": "1:01",
        "fingerprint": "numpy 2.3, blas x",
    }
    everything = trnn("info", "a", "--all")[1]
    assert everything.startswith(out)
    assert ["config.lr", "0.1"] in words(everything) and ["array", "shape", "dtype", "norm"] in words(
        everything
    )
    assert "False" not in everything and ["model.tie_weights", "false"] in words(everything)
    assert "finished" not in everything, "the best checkpoint cannot know"
    found = json.loads(trnn("info", "a", "--json")[1])
    assert (found["run"]["state"], found["meta"]["config"]) == ("interrupted", {"lr": 0.1})
    assert trnn("info", "runs/a/best.safetensors")[1] == re.sub("(?m)^run .*\n", "", out)


@pytest.mark.parametrize("nonsense", [None, "x\x1b", 10**400, float("inf"), float("nan"), [], {"a": 1}, True])
def test_nonsense_in_a_checkpoint_is_shown_or_left_out(trnn, nonsense):
    meta = dict.fromkeys(["step", "epoch", "val_loss", "corpus", "finished"], nonsense)
    flat = dict.fromkeys(["time", "fingerprint"], nonsense)
    deep = {"time": {"elapsed": nonsense}, "fingerprint": {"numpy": nonsense}}
    for training in (flat, deep):
        save("m.safetensors", CharLM(3, hidden_size=4), Vocabulary.of("abc"), meta, training)
        code, out, err = trnn("info", "m.safetensors", "--all")
        assert (code, err) == (0, "")
        assert "\x1b" not in out


def test_bytes_are_shown_as_numbers(trnn):
    save("m.safetensors", CharLM(2), Vocabulary.of(b"\x00\xff"), {})
    assert "2 symbols, bytes: 00 ff" in trnn("info", "m.safetensors")[1]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:100], lambda data: b"", lambda data: b"\xff" * 99]
)
def test_a_damaged_checkpoint_is_one_line(trnn, folder, damage):
    save("m.safetensors", CharLM(3, hidden_size=4), Vocabulary.of("abc"), {})
    (folder / "m.safetensors").write_bytes(damage((folder / "m.safetensors").read_bytes()))
    for arguments in (["info", "m.safetensors"], ["info", "m.safetensors", "--json"]):
        code, out, err = trnn(*arguments)
        assert (code, out, err.count("\n")) == (4, "", 1)
        assert "m.safetensors" in err


@pytest.mark.parametrize("depth", [10, 300, 600, 850])
def test_notes_nested_deeply_are_shown_or_refused(trnn, depth):
    meta = {}
    for _ in range(depth):
        meta = {"a": meta}
    save("m.safetensors", CharLM(3, hidden_size=4), Vocabulary.of("abc"), meta)
    code, _, err = trnn("info", "m.safetensors")
    assert (code, err.count("\n")) in [(0, 0), (4, 1)]
