"""`trnn bench`: a table that fits any terminal, one JSON object, advice where something slows it down."""

import json

import pytest

from tinygrad_rnn.training import bench, doctor
from trnn_cli import layout
from trnn_cli.main import main


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    tiny = bench.Work(kind="lstm", layers=1, hidden_size=4, batch_size=2, seq_length=3)
    monkeypatch.setattr(bench, "WORKS", {"default": tiny, "large": tiny})
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "PIECE", 3)
    monkeypatch.setattr(doctor, "SECONDS", 0.0)
    monkeypatch.setattr(doctor, "SIZE", 64)
    monkeypatch.setattr(doctor, "_without_coretype", lambda: ("SkylakeX", 1e6))
    monkeypatch.setenv(doctor.CORETYPE, "Haswell")
    # The command keeps freed memory for the whole of its process, and this one has more to do.
    monkeypatch.setattr("tinygrad_rnn.training.allocator.keep_freed_memory", lambda: False)


def test_the_machine_then_the_measurements_then_advice(capsys):
    assert main(["bench"]) == 0
    facts, table, *advice = capsys.readouterr().out.split("\n\n")
    assert facts.startswith("processor") and "GFLOP/s" in facts
    assert [line.split(":")[0] for line in table.splitlines()[1:]] == ["default", "large", "sampling"]
    if doctor.blas_library().get("internal_api") == "openblas":
        assert any("OPENBLAS_CORETYPE=Haswell is set" in piece for piece in advice)


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_no_line_is_wider_than_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setattr(layout, "width", lambda: columns)
    assert main(["bench"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= columns


def test_json(capsys):
    assert main(["bench", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["coretype"] == "Haswell"
    assert isinstance(found["machine"]["advice"], list)
    assert len(found["measured"]) == 3
    for one in found["measured"]:
        assert one["seconds"] > 0 and one["symbols"] > 0
