"""Completion: what the shell is told when it asks the command, as the installed script asks."""

import pytest

from trnn_cli.main import main


@pytest.fixture(autouse=True)
def runs_and_a_text(folder):
    for run in ("second", "first", "other"):
        (folder / "runs" / run).mkdir(parents=True)
        (folder / "runs" / run / "config.toml").touch()
    (folder / "runs" / "fig").mkdir()
    (folder / "harvest.txt").touch()


@pytest.fixture
def complete(monkeypatch, capfd):
    """What the shell offers for the last word of a line, which may be empty."""

    def ask(line):
        words = line.split(" ")
        monkeypatch.setenv("_TRNN_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code == 0
        return capfd.readouterr().out.split()

    return ask


def test_commands(complete):
    assert complete("trnn runs ") == ["list", "compare"]
    assert complete("trnn runs c") == ["compare"]
    assert complete("trnn corpus s") == ["stats"]


@pytest.mark.parametrize("command", ["sample", "eval", "score", "info", "runs compare"])
def test_runs(complete, command):
    assert complete(f"trnn {command} ") == ["first", "other", "second"]
    assert complete(f"trnn {command} f") == ["first"]
    assert complete(f"trnn {command} x") == [], "the shell goes on to its own files"
    assert complete("trnn runs compare first s") == ["second"]


def test_texts(complete):
    assert complete("trnn corpus get ") == ["tinyshakespeare"]
    assert complete("trnn corpus stats har") == ["harbour", "harvest.txt"]
    assert "runs" in complete("trnn corpus stats ")
    assert complete("trnn corpus stats runs/") == [], "the shell goes on to its own files"


def test_values_of_options(complete):
    assert complete("trnn sample first --checkpoint ") == ["best", "last"]
    assert complete("trnn eval first --unknown s") == ["skip"]
    assert complete("trnn corpus make ") == ["python", "dyck", "arithmetic", "reber"]


def test_without_runs_there_are_none(complete, folder, monkeypatch):
    monkeypatch.chdir(folder / "runs")
    assert complete("trnn sample ") == []
