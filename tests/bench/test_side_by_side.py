"""The benchmark's judges: contestants that differ are found out, goals are judged by the numbers."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import check, classic, environment, images_ours, measure, ours, works
from bench.__main__ import main
from bench.child import read_start
from bench.measure import Bench
from bench.report import report
from tinygrad_rnn.engine.backend import get_backend
from tinygrad_rnn.errors import BackendError
from tinygrad_rnn.training.bench import Work


@pytest.fixture
def bench():
    made = Bench(rounds=2, seconds=0.0, say=lambda line: None)
    yield made
    made.close()


def begun(work, tmp_path, contestant):
    file = tmp_path / "start.npz"
    check.write_start(work, file)
    return contestant.Training(work, read_start(str(file)), None)


@pytest.mark.parametrize("hidden_size", [1, 24])
def test_the_classic_program_computes_what_we_do(tmp_path, hidden_size):
    work = replace(check.CLASSIC, hidden_size=hidden_size)
    here, there = (begun(work, tmp_path, contestant).gradients() for contestant in (ours, classic))
    assert list(check.differences(here, there)) == []


def test_the_classic_program_learns_and_carries_its_state_on(tmp_path):
    work = replace(check.CLASSIC, hidden_size=40, symbols=5)
    training = begun(work, tmp_path, classic)
    losses = [training.step() for _ in range(40 * 8)]
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:8])


def test_pytorch_computes_what_we_do_on_images(tmp_path):
    pytest.importorskip("torch")
    from bench import images_pytorch

    here, there = (begun(check.RESNET, tmp_path, contestant) for contestant in (images_ours, images_pytorch))
    assert list(check.differences(here.gradients(), there.gradients())) == []
    here, there = (begun(check.RESNET, tmp_path, contestant) for contestant in (images_ours, images_pytorch))
    losses = [[one.step() for _ in range(check.STEPS)] for one in (here, there)]
    assert list(check.later_differences(*losses)) == []


def test_a_network_of_images_trains_on_what_the_contestants_are_given(tmp_path):
    training = begun(check.RESNET, tmp_path, images_ours)
    losses = [training.step() for _ in range(40)]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    start = check.RESNET.start()
    loss, gradients = begun(check.RESNET, tmp_path, images_ours).gradients()
    assert loss == pytest.approx(losses[0], rel=1e-6)
    assert {name: g.shape for name, g in gradients.items()} == {
        name: array.shape for name, array in start.items() if "." in name
    }


def test_the_work_of_a_step_on_images():
    """Each number of a kernel is multiplied once for each place of its layer's result."""
    work, products = check.RESNET, 0
    for name, array in work.start().items():
        if array.ndim == 4:
            stage = int(name.split(".")[1]) // work.blocks if name.startswith("blocks") else 0
            products += (2 if name == "conv.weight" else 3) * array.size * (work.size // 2**stage) ** 2
        elif name == "output.weight":
            products += 3 * array.size
    assert work.flop == 2 * work.batch_size * products


ARRAYS = {"a": np.arange(1.0, 7.0).reshape(2, 3), "b": np.ones(4)}


@given(
    name=st.sampled_from(list(ARRAYS)), place=st.integers(0, 3), error=st.floats(0.01, 1e6) | st.just(np.nan)
)
def test_a_gradient_that_is_wrong_in_one_place_is_noticed(name, place, error):
    broken = {n: a.copy() for n, a in ARRAYS.items()}
    broken[name].flat[place] += error
    assert list(check.differences((1.0, ARRAYS), (1.0, ARRAYS))) == []
    [said] = check.differences((1.0, broken), (1.0, ARRAYS))
    assert f"gradient of {name}" in said


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ((1.001, ARRAYS), "the loss"),
        ((np.nan, ARRAYS), "the loss"),
        ((1.0, {"a": ARRAYS["a"]}), "only one of them has a gradient of b"),
        ((1.0, ARRAYS | {"b": np.ones(1)}), "shape"),
    ],
)
def test_other_losses_and_missing_gradients_are_noticed(theirs, said):
    [piece] = check.differences((1.0, ARRAYS), theirs)
    assert said in piece


def test_gradients_that_are_all_zero_prove_nothing():
    zeros = {"a": np.zeros(3)}
    assert len(list(check.differences((1.0, zeros), (1.0, zeros)))) == 1


@pytest.fixture
def alone(monkeypatch):
    """PyTorch and JAX are not installed, wherever this runs."""
    for modules in (works.MODULES, works.IMAGE_MODULES):
        for name in {works.PYTORCH, works.JAX, works.CHANNELS_LAST} & {*modules}:
            monkeypatch.setitem(modules, name, "bench.no_such_contestant")


def test_a_race_between_processes(bench, alone):
    assert bench.check() == ["RNN with NumPy program"]
    row = works.Row(name="tiny", work=check.CLASSIC, peers=(works.JAX, works.PROGRAM), goal=1e-9)
    found = json.loads(json.dumps(bench.race(row)))
    assert list(found["contestants"]) == [works.OURS, works.PROGRAM]
    assert all(len(one["rounds"]) == 2 for one in found["contestants"].values())
    assert found["factor"] > 0 and found["share"] > 0


def test_nothing_is_measured_where_a_contestant_differs(alone, monkeypatch, capsys):
    monkeypatch.setitem(works.MODULES, works.PROGRAM, "tests.bench.wrong_program")
    monkeypatch.setattr(environment, "without_settings", lambda: None)
    monkeypatch.setattr(Bench, "race", lambda *_: pytest.fail("measured all the same"))
    monkeypatch.setattr("sys.argv", ["bench", "--quick", "--only", "classic"])
    assert main() == 1
    assert "the gradient of rnn.weight_hh_l0 differs by" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"), [(["--only", "nothing"], "'nothing'"), (["--rounds", "0"], "at least 1, not 0")]
)
def test_a_wrong_option_is_a_line(monkeypatch, capsys, given, said):
    monkeypatch.setattr("sys.argv", ["bench", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and said in capsys.readouterr().err


@given(
    power=st.floats(-1, 3),
    factor=st.floats(1e-6, 1e3),
    sizes=st.lists(st.integers(1, 10_000), min_size=2, max_size=6, unique=True),
)
def test_the_exponent_of_a_power_law_is_found(power, factor, sizes):
    found = measure.exponent([(size, factor * size**power) for size in sizes])
    assert found == pytest.approx(power, abs=1e-6)


def made_up(ours_seconds, peer_seconds, goal):
    row = works.Row(
        name="LSTM", work=Work(kind="lstm", layers=2, hidden_size=128), goal=goal, share_goal=0.75
    )
    times = {works.OURS: [ours_seconds] * 3, works.PYTORCH: [peer_seconds] * 3, works.JAX: [1e3] * 3}
    threads = dict.fromkeys(times, 2)
    step = measure.summary(row, times, threads) | {"matrix_rate": 400.0, "share": 0.5}
    writing = measure.summary(replace(row, name="sampling", length=10), times, dict.fromkeys(times, 1))
    images = works.Row(name="ResNet", work=works.RESNET, peers=(works.PYTORCH,), goal=goal)
    on_images = measure.summary(images, {n: t for n, t in times.items() if n != works.JAX}, threads)
    engine = {"forward": 1e-6, "backward": 2e-6, "together": ours_seconds}
    return {
        "machine": {
            "date": "1970-01-01 00:00 UTC",
            "processor": "Abacus",
            "cores": 1,
            "memory": None,
            "load": None,
            "system": "None",
            "blas": "openblas 0",
            "blas_kernel": "Wood",
            "blas_threads": None,
            "versions": {"torch": "9.9"},
        },
        "rounds": 3,
        "checked": ["LSTM with PyTorch"],
        "limits": {"matrix_rate_one": 1.0, "matrix_rate_all": 2.0, "copied_per_second": 3e9, "tanh": 4e-9},
        "rows": [step, writing, on_images],
        "per_op": {"goal": 4e-6, "engines": {works.OURS: engine}},
        "memory": {"work": "LSTM", "goal": 2.0, "bytes": {works.OURS: 1e8, works.PYTORCH: 1e9}},
        "start": {works.OURS: 0.1},
        "growth": {
            "base": "LSTM",
            "sizes": {"layers": {"seconds": [[1, 0.5], [2, 1.0]], "exponent": 1.0}},
        },
    }


@given(
    ours_seconds=st.floats(1e-6, 1e2),
    peer_seconds=st.floats(1e-6, 1e2),
    goal=st.floats(0.5, 20),
)
def test_a_goal_is_reached_where_the_best_peer_takes_so_many_times_longer(ours_seconds, peer_seconds, goal):
    results = json.loads(json.dumps(made_up(ours_seconds, peer_seconds, goal)))
    text = report(results)
    line = next(line for line in text.splitlines() if line.startswith("| LSTM "))
    assert line.endswith(f"| {'yes' if peer_seconds / ours_seconds >= goal else 'no'} |")
    assert results["rows"][0]["best_peer"] == works.PYTORCH
    assert ("The goal is less than 4: reached" in text) == (ours_seconds < 4e-6)


def test_every_table_is_as_wide_as_its_header():
    text = report(made_up(1.0, 2.0, 1.3))
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1
    for title in (
        "A training step",
        "A training step on images",
        "Sampling",
        "Memory",
        "Start-up",
        "The machine",
        "op by op",
        "grows",
    ):
        assert title in text
    assert "Abacus" in text and "kernel Wood" in text and "torch 9.9" in text


def test_of_what_was_not_measured_nothing_is_said():
    whole = made_up(1.0, 2.0, 1.3)
    text = report({name: whole[name] for name in ("machine", "rounds")} | {"rows": []})
    assert "##" not in text


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--gpu", "--quick"])
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(environment, "without_settings", lambda: None)
    monkeypatch.setenv(environment.TF32, "0")
    assert main() == 1
    assert capsys.readouterr() == ("", "error: " + backend_missing() + "\n")


def backend_missing():
    with pytest.raises(BackendError) as found:
        get_backend("cupy")
    return str(found.value)
