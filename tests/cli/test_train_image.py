"""`trnn train-image`, and what the other commands make of its runs."""

import json
import shutil
import tomllib

import numpy as np
import pytest
from PIL import Image

from tinygrad_rnn.models import load_classifier
from tinygrad_rnn.training.config import ImageConfig
from tinygrad_rnn.vision import make_shapes

SMALL = ["--depth", 8, "--width", 2, "--batch-size", 8, "--max-steps", 6, "--lr", 0.05]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of small images in three classes."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    images, labels = make_shapes(30, 8, 0)
    for number, (image, label) in enumerate(zip(images, labels % 3, strict=True)):
        place = folder / f"class-{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{number}.png")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, photos):
    """A folder to be in, with the images in it."""
    shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_from_its_beginning_to_its_end(trnn, here):
    code, out, _ = trnn("train-image", "photos", *SMALL, "--run", "run")
    assert code == 0
    first, second, where, *_, last = out.splitlines()
    assert first.endswith("photos: 24 images of 3 x 8 x 8 to train on, 6 held out, 3 classes")
    assert second.startswith("resnet-8: ") and "for 6 steps" in second
    assert where == "run: run"
    assert last.startswith("done: 6 steps in ") and "; best accuracy " in last
    _, notes, meta = load_classifier(here / "run")
    assert notes.classes == ("class-0", "class-1", "class-2")
    assert meta["corpus"] == "photos"
    assert tomllib.loads((here / "run" / "config.toml").read_text())["task"] == "images"

    code, out, _ = trnn("train-image", "--resume", "run", "--max-steps", 9, "--require-exact")
    assert code == 0
    assert "resume: exact, after step 6" in out and "done: 9 steps" in out
    assert trnn("train-image", "--resume", "run") == (
        0,
        "nothing left to do: at step 9 of 9; raise --max-steps\n",
        "",
    )


def test_other_commands_know_it_for_what_it_is(trnn, here):
    assert trnn("train-image", "photos", *SMALL, "--run", "runs/run", "--quiet") == (0, "", "")
    code, out, _ = trnn("runs")
    assert code == 0 and "resnet-8" in out and "photos" in out and "finished" in out
    assert "accuracy" in out and " % " in out and "bits" not in out
    code, out, _ = trnn("runs", "compare", "run", "runs/run")
    assert code == 0 and "\naccuracy " in out and "best nats" in out and "bits" not in out
    code, out, _ = trnn("info", "run")
    assert code == 0
    assert "model            ResNet-8, width 2" in out
    assert "classes          3: class-0, class-1, class-2" in out
    assert "accuracy" in out and "images           photos, 3 x 8 x 8\n" in out and "corpus" not in out
    described = json.loads(trnn("info", "run", "--json")[1])
    assert described["images"]["shape"] == [3, 8, 8] and described["model"]["depth"] == 8
    shown = json.loads(trnn("runs", "--json")[1])[0]
    assert (
        shown["parameters"] == described["parameters"] == load_classifier("runs/run").model.num_parameters()
    )
    for command in (["sample", "run"], ["eval", "run"], ["score", "run", "abc"]):
        code, out, err = trnn(*command)
        assert (code, out) == (4, "")
        assert err == (
            "trnn: error: runs/run/best.safetensors holds an image classifier, and it takes a character "
            "model here\n"
        )
    code, _, err = trnn("train", "--resume", "run")
    assert code == 2
    assert err == (
        "trnn: error: run is a run that trains images; to go on with it: trnn train-image --resume run\n"
    )
    code, _, err = trnn("train-image", "--resume", "runs/run/config.toml")
    assert code == 4 and err.endswith("to go on with the run: trnn train-image --resume runs/run\n")
    code, _, err = trnn("train", "runs/run")
    assert (code, err) == (
        2,
        "trnn: error: runs/run is a run; to go on with it: trnn train-image --resume runs/run\n",
    )
    code, _, err = trnn("train-image", "photos", "--run", "runs/run")
    assert code == 2 and err.endswith("to go on with it: trnn train-image --resume runs/run\n")


def test_a_broken_file_is_named_refused_or_skipped(trnn, here):
    (here / "photos" / "class-1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")
    code, out, err = trnn("train-image", "photos", *SMALL)
    assert (code, out) == (3, "")
    assert "class-1/broken.png" in err and err.count("\n") == 1
    code, out, _ = trnn("train-image", "photos", *SMALL, "--broken", "skip")
    assert code == 0
    assert "skipped: " in out and "broken.png" in out
    (here / "photos" / "class-1" / "new\nline.png").write_bytes(b"no image")
    code, out, err = trnn("train-image", "photos", *SMALL)
    assert code == 3 and "; so is 1 more; " in err and err.count("\n") == 1
    code, out, _ = trnn("train-image", "photos", *SMALL, "--broken", "skip")
    assert code == 0 and "skipped: class-1/new line.png is broken" in out


def test_a_run_without_a_checkpoint_says_how_to_go_on(trnn, here):
    trnn("train-image", "photos", *SMALL, "--run", "run", "--quiet")
    for file in [here / "run" / "best.safetensors", *(here / "run" / "checkpoints").iterdir()]:
        file.unlink()
    code, _, err = trnn("info", "run")
    assert code == 4
    assert err.endswith("run has no checkpoint yet; train it further: trnn train-image --resume run\n")


def test_nothing_held_out(trnn, here):
    code, out, _ = trnn("train-image", "photos", *SMALL, "--val-fraction", 0, "--run", "run")
    assert code == 0 and "30 images of 3 x 8 x 8 to train on, nothing held out, 3 classes" in out
    assert trnn("classify", "run", here / "photos" / "class-1" / "1.png")[0] == 0
    code, _, err = trnn("train-image", "photos", *SMALL, "--val-fraction", 0, "--patience", 1)
    assert code == 3 and "nothing is held out of photos, and patience goes by the validation" in err


def test_images_of_different_sizes(trnn, here):
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(here / "photos" / "class-2" / "other.png")
    code, _, err = trnn("train-image", "photos", *SMALL)
    assert code == 3
    assert "other.png" in err and "--size" in err and err.count("\n") == 1
    assert trnn("train-image", "photos", *SMALL, "--size", 8)[0] == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["digit"], 3, "no folder 'digit'; did you mean digits?"),
        (["nowhere"], 3, "no folder 'nowhere'"),
        ([], 2, "a training needs images: digits, shapes, or a folder"),
        (["photos", "--depth", 21], 2, "nearest are 20 and 26"),
        (["photos", "--model", "vgg"], 0, ""),
        (["photos", "--model", "vgg", "--depth", 12], 2, "a VGG has 8, 11, 13, 16, 19, 20 layers, not 12"),
        (["photos", "--model", "mlp"], 2, "--model must be resnet, plain or vgg, not 'mlp'"),
        (["photos", "--shift", 1, "--crop", 1], 2, "shift and crop both move an image"),
        (["photos", "--crop", 8], 2, "--crop must be less than the size of the images, 8x8, not 8"),
        (["photos", "--hidden-size", 8], 2, "No such option: --hidden-size"),
        (["photos", "--force"], 2, "--force is for --resume"),
        (
            ["photos", "--config", "text.toml"],
            2,
            "text.toml: these are settings to train characters, not images",
        ),
    ],
)
def test_bad_input_is_one_line(trnn, here, options, code, said):
    (here / "text.toml").write_text('task = "characters"\n')
    found, _, err = trnn("train-image", *options, "--dry-run")
    assert found == code
    assert said in err
    assert err.count("\n") == (code != 0)
    assert not (here / "runs").exists()


def test_a_plan_as_text_and_json(trnn, here):
    code, out, _ = trnn("train-image", "photos", *SMALL, "--dry-run")
    assert code == 0 and out.endswith("nothing is trained: --dry-run\n")
    plan = json.loads(trnn("train-image", "photos", *SMALL, "--dry-run", "--json")[1])
    assert (plan["classes"], plan["plan"]["steps"], plan["settings"]["depth"]) == (3, 6, 8)
    assert not (here / "runs").exists()


def test_records_as_json(trnn, here):
    code, out, _ = trnn("train-image", "photos", *SMALL, "--json")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert found[0]["event"] == "started" and found[0]["train_images"] + found[0]["val_images"] == 30
    evaluated = [record for record in found if record["event"] == "evaluated"]
    assert evaluated and all(0 <= record["val_accuracy"] <= 1 for record in evaluated)
    assert not any({"about", "measures"} & set(record) for record in found), "each thing is said once"


def test_every_setting_is_an_option(trnn):
    code, out, _ = trnn("train-image", "--help")
    assert code == 0
    for name in ImageConfig.settings():
        if name != "images":
            assert f"--{name.replace('_', '-')}" in out


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
