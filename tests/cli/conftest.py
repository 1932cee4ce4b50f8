"""What the tests of the command share: a folder to work in, the command run there, how a failure looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trnn_cli.main import main

Result = tuple[int, str, str]  # exit code, standard output, standard error


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, in which it works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trnn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Run the command in the folder."""
    monkeypatch.chdir(folder)  # where a module has one for all its tests

    def run(*arguments: object) -> Result:
        code = main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return run


def fails(result: tuple[int, str | bytes, str], exit_code: int, *said: str) -> None:
    """Nothing on standard output, one line on standard error that says so much, and the exit code."""
    code, out, err = result
    assert not out
    assert err.startswith("trnn: error: ") and err.endswith("\n") and err.count("\n") == 1
    for part in said:
        assert part in err
    assert code == exit_code
