"""The doctor: what it finds is what is there, and advice is given where it holds and nowhere else."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.engine.blas import blas_library
from tinygrad_rnn.training import doctor
from tinygrad_rnn.training.doctor import CORETYPE, Findings, advice, examine

WELL = Findings(
    python="3.11.7",
    tinygrad_rnn="0.1.0",
    numpy="2.4.6",
    blas="openblas 0.3.31",
    blas_kernel="SkylakeX",
    blas_threads=4,
    rate=100.0,
    rate_all=350.0,
    coretype=None,
    other_kernel=None,
    other_rate=None,
    thread_variables={},
    numba=None,
    cupy=None,
    gpu=None,
    gpu_memory=None,
    gpu_problem="CuPy is not installed",
    nvidia=False,
    memory=8 << 30,
    memory_available=4 << 30,
    cores=4,
    load=0.5,
)


@pytest.fixture
def hasty(monkeypatch):
    """Measures once, small."""
    monkeypatch.setattr(doctor, "SECONDS", 0.0)
    monkeypatch.setattr(doctor, "SIZE", 64)


def test_a_healthy_machine_needs_no_advice():
    assert advice(WELL) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"coretype": "Haswell", "other_kernel": "Zen", "other_rate": 200.0},
            "OPENBLAS_CORETYPE=Haswell is set and halves your matrix speed on this processor: "
            "100 GFLOP/s, without it 200",
        ),
        ({"coretype": "Atom", "other_kernel": "Zen", "other_rate": 400.0}, "costs 75 % of your matrix speed"),
        ({"blas_threads": 1, "thread_variables": {"OMP_NUM_THREADS": "1"}}, "OMP_NUM_THREADS=1 is set"),
        ({"blas_threads": 64}, "start 64 threads, but this process may use 4 cores"),
        ({"blas": None, "blas_kernel": None, "blas_threads": None, "rate": 1.25}, "at 1.2 GFLOP/s"),
        ({"load": 4.5}, "load average 4.5 on 4 cores"),
        ({"memory_available": 300_000_000}, "Only 300 MB"),
        ({"nvidia": True}, "cannot be used: CuPy is not installed"),
    ],
)
def test_each_hindrance_has_its_advice(found, said):
    [piece] = advice(replace(WELL, **found))
    assert said in piece


@pytest.mark.parametrize(
    "found",
    [
        {"coretype": "Haswell", "other_kernel": "Haswell", "other_rate": 110.0},
        {"coretype": "Haswell", "other_kernel": None, "other_rate": None},
        {"thread_variables": {"OMP_NUM_THREADS": "4"}},
        {"blas": "accelerate", "blas_kernel": None, "blas_threads": None, "rate_all": None, "rate": 900.0},
        {"load": None, "memory": None, "memory_available": None},
        {"nvidia": True, "gpu": "a GPU", "cupy": "13.0", "gpu_problem": None},
    ],
)
def test_what_hinders_nothing_is_not_spoken_of(found):
    assert advice(replace(WELL, **found)) == []


@given(with_it=st.floats(1, 1e4), without=st.floats(1, 1e4))
def test_a_kernel_is_blamed_only_for_what_was_measured(with_it, without):
    found = replace(WELL, rate=with_it, coretype="Haswell", other_kernel="Zen", other_rate=without)
    assert any(CORETYPE in piece for piece in advice(found)) == (without > 1.15 * with_it)


def test_what_is_found_is_what_is_there(hasty, monkeypatch):
    monkeypatch.delenv(CORETYPE, raising=False)
    found = examine()
    assert found.numpy == np.__version__
    assert found.rate > 0 and found.cores >= 1
    assert found.blas_kernel == blas_library().get("architecture")
    assert found.other_rate is None
    assert json.loads(json.dumps(found.as_json()))["advice"] == advice(found)


def test_a_kernel_set_by_hand_is_measured_against_the_librarys_own_choice(hasty, monkeypatch):
    if blas_library().get("internal_api") != "openblas":
        pytest.skip("NumPy does not use OpenBLAS here")
    monkeypatch.setenv(CORETYPE, "Prescott")
    found = examine()
    assert found.coretype == "Prescott"
    assert re.fullmatch(r"\w+", found.other_kernel) and found.other_kernel != "Prescott"
    assert found.other_rate > 0


def test_a_child_that_cannot_run_leaves_its_rate_unknown(hasty, monkeypatch):
    monkeypatch.setenv(CORETYPE, "Prescott")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert examine().other_rate is None


def test_a_library_that_nobody_can_hold(hasty, monkeypatch):
    monkeypatch.setattr(doctor, "blas_library", dict)
    found = examine()
    assert (found.blas_threads, found.rate_all) == (None, None)
    assert found.rate > 0


def test_a_broken_gpu_library_is_a_finding(monkeypatch):
    def broken(name):
        raise AttributeError("half an installation")

    monkeypatch.setattr(doctor, "get_backend", broken)
    assert doctor._gpu()["gpu_problem"] == "AttributeError: half an installation"
