"""`trnn classify`: what the model says, and files that are no images."""

import json

import numpy as np
import pytest
from PIL import Image

from tinygrad_rnn.models import load_classifier

from .conftest import SMALL


def test_classify_says_what_the_model_says(trnn, here):
    trnn("train-image", "photos", *SMALL, "--run", "run")
    files = sorted((here / "photos" / "class-1").glob("*.png"))[:3]
    code, out, _ = trnn("classify", "run", *files, "--json", "--top", 2)
    assert code == 0
    model, notes, _ = load_classifier("run")
    for file, said in zip(files, json.loads(out), strict=True):
        pixels = np.asarray(Image.open(file)).transpose(2, 0, 1)[None]
        logits = model(notes.normalised(pixels)).numpy()[0].astype(np.float64)
        chances = np.exp(logits) / np.exp(logits).sum()
        wanted = sorted(zip(-chances, notes.classes, strict=True))[:2]
        assert list(said["classes"]) == [name for _, name in wanted]
        assert list(said["classes"].values()) == pytest.approx([-chance for chance, _ in wanted], rel=1e-4)
    code, out, _ = trnn("classify", "run", *files, "--top", 1)
    assert code == 0 and out.count("%") == out.count("\n") == 3


def test_classify_makes_any_image_as_those_it_learnt_from(trnn, here):
    trnn("train-image", "photos", *SMALL, "--run", "run")
    large = Image.fromarray(np.full((40, 30), 200, np.uint8))
    large.save(here / "large.png")
    large.convert("RGB").resize((8, 8), Image.Resampling.BILINEAR).save(here / "small.png")
    first, second = json.loads(trnn("classify", "run", "large.png", "small.png", "--json")[1])
    assert first["classes"] == second["classes"]


def test_classify_refuses_in_one_line(trnn, here):
    trnn("train-image", "photos", *SMALL, "--run", "run")
    (here / "text.png").write_text("no image")
    for argument in ("text.png", "gone.png", "photos"):
        code, out, err = trnn("classify", "run", argument)
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert argument in err
    code, _, err = trnn("classify", "gone", "text.png")
    assert code == 4 and "gone does not exist" in err


def test_classify_tells_what_it_can(trnn, here):
    trnn("train-image", "photos", *SMALL, "--run", "run")
    (here / "text.png").write_text("no image")
    good = ["photos/class-1/1.png", "photos/class-1/4.png"]
    given = [good[0], "text.png", good[1], "gone.png"]
    code, out, err = trnn("classify", "run", *given)
    assert code == 3
    assert [line.split()[0] for line in out.splitlines()] == good
    first, second = err.splitlines()
    assert first.startswith("trnn: error: text.png is no image that can be read")
    assert second == "trnn: error: gone.png is no image that can be read (No such file or directory)"
    code, out, again = trnn("classify", "run", *given, "--json")
    assert (code, again, [found["file"] for found in json.loads(out)]) == (3, err, good)


def test_classify_takes_a_classifier(trnn, here):
    (here / "text.txt").write_text("the cat sat on the mat. " * 40)
    tiny = "--embedding-size 5 --hidden-size 8 --layers 1 --batch-size 4 --seq-length 10 --max-steps 1"
    trnn("train", "text.txt", *tiny.split(), "--run", "text", "--quiet")
    code, out, err = trnn("classify", "text", "photos/class-1/1.png")
    assert (code, out) == (4, "")
    assert err == (
        "trnn: error: text/best.safetensors holds a character model, and it takes an image classifier here\n"
    )
