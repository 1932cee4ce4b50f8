"""Reading run folders: every whole line of a history, nothing of a broken one, and how a run stands."""

import json
import math
import os
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import DataError, UsageError
from tinygrad_rnn.models import CharLM, save
from tinygrad_rnn.text.vocabulary import Vocabulary
from tinygrad_rnn.training.history import Evaluation, losses_at, read_history, read_run, runs_in

MEASURE = st.none() | st.floats(0, 20)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"step": st.integers(0, 10**6), "epoch": st.integers(1, 100)},
        optional={"train_loss": MEASURE, "val_loss": MEASURE, "seconds": MEASURE, "a note": st.text()},
    )
)


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "history.jsonl"


def write_run(folder, records=(), settings="", **limits):
    folder.mkdir(parents=True)
    limits = "".join(f"{name} = {value}\n" for name, value in limits.items())
    (folder / "config.toml").write_text(
        'corpus = ["a.txt", "b.txt"]\nkind = "gru"\nlayers = 2\nhidden_size = 8\nclip = inf\n'
        f"{limits}{settings}"
    )
    (folder / "history.jsonl").write_bytes(lines(records))
    return folder


def record(step, val_loss=None, epoch=1, seconds=1.0):
    return {"step": step, "epoch": epoch, "val_loss": val_loss, "seconds": seconds}


@given(RECORDS)
def test_what_was_written_is_read(history, records):
    history.write_bytes(lines(records))
    assert read_history(history) == records


@given(RECORDS, st.data())
def test_a_crash_in_the_last_line_loses_that_line_alone(history, records, data):
    whole = lines(records)
    cut = data.draw(st.integers(0, len(whole)))
    history.write_bytes(whole[:cut])
    survived = records[: whole[:cut].count(b"\n")]
    assert read_history(history) == survived
    history.write_bytes(whole[:cut] + b"\n")  # as an editor leaves it, too
    assert read_history(history) in (survived, records[: len(survived) + 1])


@pytest.mark.parametrize(
    "torn", [b'{"step": 3, "epo', b'{"step": 3, "epo\n', b"\n", b"\0" * 50 + b"\n", b"{}\n"]
)
def test_a_torn_last_line_is_no_damage(tmp_path, torn):
    run = write_run(tmp_path / "run", [record(1, 2.0), record(2, 1.5)])
    with open(run / "history.jsonl", "ab") as file:
        file.write(torn)
    found = read_run(run)
    assert (found.state, found.steps, found.problem) == ("interrupted", 2, None)


@given(st.binary())
def test_any_bytes_are_records_or_a_data_error(history, data):
    history.write_bytes(data)
    try:
        found, lines = len(read_history(history)), data.count(b"\n")
        assert found in (lines, max(lines - 1, 0))
    except DataError as error:
        assert str(history) in str(error)


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"\x00", b"[]", b"{}", b"null", b"[" * 100_000, b'{"step": 1}', b'{"step": true, "epoch": 1}'),
        *(b'{"step": -1, "epoch": 1}', b'{"step": 1.0, "epoch": 1}'),
        *(b'{"step": 1' + b"0" * zeros + b', "epoch": 1}' for zeros in (400, 5000)),
        *(
            b'{"step": 1, "epoch": 1, "val_loss": %s}' % value
            for value in (b"NaN", b"Infinity", b"1e999", b'"1.5"', b"true", b"[]", b"1" + b"0" * 400)
        ),
    ],
)
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "history.jsonl"
    path.write_bytes(lines([record(1)]) + line + b"\n" + lines([record(2)]))
    with pytest.raises(DataError, match=r"line 2 of .*history.jsonl is not a record"):
        read_history(path)


def test_no_history_is_an_empty_one(tmp_path):
    assert read_history(tmp_path / "history.jsonl") == []


def test_a_run_says_what_it_is(tmp_path):
    records = [record(10, 2.0), record(20, 1.5, seconds=2.5), record(25), record(30, 1.5, seconds=7.25)]
    run = read_run(write_run(tmp_path / "2026-01-02_030405_a_gru", records))
    assert (run.corpus, run.model) == ("a.txt, b.txt", "gru 2x8")
    assert (run.steps, run.seconds) == (30, 7.25)
    assert run.best == Evaluation(step=20, seconds=2.5, loss=1.5)
    assert run.started == datetime(2026, 1, 2, 3, 4, 5)
    assert run.parameters is None and run.problem is None
    shown = run.as_json()
    assert shown["best"]["bits"] == pytest.approx(1.5 / math.log(2))
    assert shown["settings"]["kind"] == "gru"


def test_of_images_the_most_accurate_comes_first_and_bits_say_nothing(tmp_path):
    found = [(0.2, 0.5), (0.9, 0.75), (0.8, 0.75), (0.8, 0.75)]
    records = [record(10 * i, loss) | {"val_accuracy": part} for i, (loss, part) in enumerate(found, 1)]
    run = read_run(write_run(tmp_path / "run", records))
    assert run.best is not None and (run.best.step, run.best.accuracy) == (30, 0.75)
    shown = run.as_json()["best"]
    assert (shown["loss"], shown["accuracy"], shown["bits"]) == (0.8, 0.75, None)


def test_parameters_are_those_of_the_model(tmp_path):
    model = CharLM(3, "gru", embedding_size=4, hidden_size=8)
    save(write_run(tmp_path / "run") / "best.safetensors", model, Vocabulary.of("abc"), {})
    assert read_run(tmp_path / "run").parameters == model.num_parameters()
    (tmp_path / "run" / "best.safetensors").write_bytes(b"\xff" * 1000)
    assert read_run(tmp_path / "run").parameters is None


@pytest.mark.parametrize("finished", [True, False, "yes", None])
def test_a_run_is_finished_if_its_last_checkpoint_says_so(tmp_path, finished):
    run = write_run(tmp_path / "run")
    assert read_run(run).state == "not begun"
    (run / "history.jsonl").write_bytes(lines([record(10, 2.0)]))
    assert read_run(run).state == "interrupted"
    model = CharLM(3, hidden_size=4)
    for step, meta in [(10, {"finished": finished}), (9, {"finished": True})]:
        save(run / f"checkpoints/step-{step:08d}.safetensors", model, Vocabulary.of("abc"), meta)
    save(run / "best.safetensors", model, Vocabulary.of("abc"), {"finished": True})
    assert read_run(run).state == ("finished" if finished is True else "interrupted")
    (run / "checkpoints/step-00000010.safetensors").write_bytes(b"damaged")
    assert read_run(run).state == "interrupted"


@given(recorded=st.integers(0, 99), saved=st.integers(0, 99))
def test_a_run_has_come_as_far_as_its_history_or_its_last_checkpoint(tmp_path_factory, recorded, saved):
    run = write_run(tmp_path_factory.mktemp("runs") / "run", [record(recorded, seconds=recorded / 2)])
    training = {"time": {"elapsed": saved / 2}}
    save(run / "best.safetensors", CharLM(3, hidden_size=4), Vocabulary.of("abc"), {"step": saved}, training)
    assert (read_run(run).steps, read_run(run).seconds) == (max(recorded, saved), max(recorded, saved) / 2)


@pytest.mark.parametrize("nonsense", [None, "7", -1, 2**70, 1.5, True, [], float("nan"), float("inf")])
def test_a_checkpoint_that_tells_nonsense_tells_nothing(tmp_path, nonsense):
    run = write_run(tmp_path / "run", [record(10)])
    model, vocabulary = CharLM(3, hidden_size=4), Vocabulary.of("abc")
    for time in (None, [nonsense], {"elapsed": [nonsense]}):
        training = {"time": time}
        save(run / "best.safetensors", model, vocabulary, {"step": nonsense}, training)
        assert (read_run(run).steps, read_run(run).seconds) == (10, 1.0)


def test_a_run_stopped_before_its_first_record_has_begun(tmp_path):
    run = write_run(tmp_path / "run")
    model, meta = CharLM(3, hidden_size=4), {"step": 3, "finished": False}
    save(run / "checkpoints/step-00000003.safetensors", model, Vocabulary.of("abc"), meta)
    assert (read_run(run).state, read_run(run).steps) == ("interrupted", 3)


def test_a_run_is_running_while_its_lock_is_held(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    run = write_run(tmp_path / "run", [record(10, 1.0)])
    with open(run / "run.lock", "a") as lock:
        assert read_run(run).state == "interrupted"
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(run).state == "running"
    assert read_run(run).state == "interrupted"


def test_runs_are_listed_by_age_and_damaged_ones_are_named(tmp_path):
    for name, time in [("b", 10), ("a", 30), ("c", 20)]:
        os.utime(write_run(tmp_path / name) / "config.toml", (time, time))
    write_run(tmp_path / "1970-01-01_000001", settings="broken")
    (tmp_path / "c" / "history.jsonl").write_text("{}\n{}\n")
    (tmp_path / "no run").mkdir()
    (tmp_path / "file").touch()
    runs = runs_in(tmp_path)
    assert [run.path.name for run in runs if run.path.name in "abc"] == ["b", "c", "a"]
    assert {run.path.name: run.state for run in runs} == {
        **{"a": "not begun", "b": "not begun", "c": "damaged", "1970-01-01_000001": "damaged"}
    }
    assert [run.path.name for run in runs_in(tmp_path / "a")] == ["a"]


@pytest.mark.parametrize(
    "settings", ["kind = 'lstm'\n", "x = 0x" + "f" * 5000, "x = " + "[" * 5000, "\x00", "x = " + "1" * 5000]
)
def test_settings_that_cannot_be_read_are_a_problem(tmp_path, settings):
    run = read_run(write_run(tmp_path / "run", settings=settings))
    assert "config.toml is not TOML" in run.problem


def test_the_format_is_no_setting_and_a_later_one_a_problem(tmp_path):
    run = read_run(write_run(tmp_path / "run", settings="lr = 1.0\nformat = 1\n"))
    assert "format" not in run.settings and (run.settings["lr"], run.problem) == (1.0, None)
    run = read_run(write_run(tmp_path / "later", settings="format = 2\n"))
    assert "config.toml says another format" in run.problem


def test_a_folder_that_holds_no_run(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        read_run(tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        runs_in(tmp_path / "nowhere")
    assert runs_in(tmp_path) == []


def test_a_curve_is_known_from_its_first_evaluation_to_its_last():
    curve = [Evaluation(10, 1.0, 3.0), Evaluation(20, 2.0, 2.0)]
    assert losses_at(curve, [9, 10, 15, 20, 21]) == [None, 3.0, 3.0, 2.0, None]
    assert losses_at([], [1]) == [None]
