"""`trnn doctor`: its facts fit a pipe and any terminal, its JSON is one object."""

import json

import pytest

from tinygrad_rnn.training import doctor
from trnn_cli import layout
from trnn_cli.main import main


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(doctor, "SECONDS", 0.0)
    monkeypatch.setattr(doctor, "SIZE", 64)
    monkeypatch.setattr(doctor, "_without_coretype", lambda: ("SkylakeX", 1e6))
    monkeypatch.setenv(doctor.CORETYPE, "Haswell")


def test_facts_then_advice(capsys):
    assert main(["doctor"]) == 0
    facts, advice = capsys.readouterr().out.split("\n\n")
    assert [line.split()[0] for line in facts.splitlines()] == (
        "trnn Python NumPy BLAS matrix Numba CuPy GPU memory cores terminal".split()
    )
    assert all(line.startswith("* ") for line in advice.splitlines())
    assert "GFLOP/s" in facts
    if doctor.blas_library().get("internal_api") == "openblas":
        assert "OPENBLAS_CORETYPE=Haswell is set and costs 100 %" in advice


@pytest.mark.parametrize("columns", [20, 39, 40, 80])
def test_no_line_is_wider_than_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setattr(layout, "width", lambda: columns)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    assert "GFLOP/s" in out


def test_json(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rate"] > 0 and isinstance(found["advice"], list)
    assert found["terminal"]["is_terminal"] is False
