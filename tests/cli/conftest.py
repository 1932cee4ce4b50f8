"""What the tests of the command share: a folder to work in, the command run there, how a failure looks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygrad_rnn.vision import make_shapes
from trnn_cli.main import main

SMALL = "--depth 8 --width 2 --batch-size 8 --max-steps 6 --lr 0.05".split()  # of an image classifier
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


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small images in three classes."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos") / "photos"
    images, labels = make_shapes(30, 8, 0)
    for number, (image, label) in enumerate(zip(images, labels % 3, strict=True)):
        place = folder / f"class-{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{number}.png")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path) -> Path:
    """A folder to be in, with the images in it."""
    shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(result: tuple[int, str | bytes, str], exit_code: int, *said: str) -> None:
    """Nothing on standard output, one line on standard error that says so much, and the exit code."""
    code, out, err = result
    assert not out
    assert err.startswith("trnn: error: ") and err.endswith("\n") and err.count("\n") == 1
    for part in said:
        assert part in err
    assert code == exit_code
