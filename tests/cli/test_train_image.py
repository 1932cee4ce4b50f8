"""`trnn train-image`, and what the other commands make of its runs."""

import json
import os
import shutil
import sys
import tomllib

import numpy as np
import pytest
from PIL import Image

from tinygrad_rnn.models import load_classifier
from tinygrad_rnn.training.config import ImageConfig

from .conftest import SMALL


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
    code, out, err = trnn("train-image", "photos", *SMALL, "--broken", "skip")
    assert code == 0 and "skipped" not in out
    assert err.startswith("skipped: class-1/broken.png is broken (") and err.count("\n") == 1
    (here / "photos" / "class-1" / "new\nline.png").write_bytes(b"no image")
    code, out, err = trnn("train-image", "photos", *SMALL)
    assert code == 3 and "; so is 1 more; " in err and err.count("\n") == 1
    code, _, err = trnn("train-image", "photos", *SMALL, "--broken", "skip")
    assert code == 0 and "\nskipped: class-1/new line.png is broken" in err


def test_what_is_skipped_is_told_whatever_else_is(trnn, here):
    for number in range(13):
        (here / "photos" / "class-1" / f"broken-{number:02d}.png").write_bytes(b"no image")
    skipping = ["photos", *SMALL, "--broken", "skip"]
    begun = ["train-image", *skipping, "--run", "run"]
    for command in (begun, ["train-image", *skipping, "--dry-run"], ["train-image", "--resume", "run"]):
        code, _, err = trnn(*command)
        lines = err.splitlines()
        assert (code, len(lines)) == (0, 11) and "skipped: class-1/broken-09.png is broken" in lines[9]
        assert lines[10] == "skipped: 3 more files"
    code, out, err = trnn("train-image", *skipping, "--json")
    first = json.loads(out.splitlines()[0])
    assert (code, err, first["event"], len(first["files"])) == (0, "", "skipped", 13)
    assert first["files"][12].startswith("class-1/broken-12.png is broken")
    code, out, err = trnn("train-image", *skipping, "--json", "--dry-run")
    assert (code, err, json.loads(out)["skipped"]) == (0, "", first["files"])
    assert trnn("train-image", *skipping, "--quiet") == (0, "", "")


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
        (["nowhere", "--depth", 21], 2, "nearest are 20 and 26"),  # before any image is read
        (["nowhere", "--model", "vgg", "--depth", 12], 2, "a VGG has 8, 11, 13, 16, 19, 20 layers, not 12"),
        (["photos", "--model", "vgg"], 0, ""),
        (["photos", "--model", "mlp"], 2, "--model must be resnet, plain or vgg, not 'mlp'"),
        (["photos", "--shift", 1, "--crop", 1], 2, "shift and crop both move an image"),
        (["photos", "--crop", 8], 2, "--crop must be less than the size of the images, 8x8, not 8"),
        (["photos", "--hidden-size", 8], 2, "No such option: --hidden-size"),
        (["photos", "--force"], 2, "--force is for --resume"),
        (
            ["text.txt"],
            3,
            ": text.txt is a file; name the folder that images are in; for a text: trnn train text.txt",
        ),
        (["texts"], 3, "texts has 1 file (text.txt) and no folders; known are"),
        (["texts"], 3, "for a text: trnn train texts"),
        (["harbour"], 3, "for a text: trnn train harbour"),
        (["photos/class-1/1.png"], 3, "1.png is a file; name the folder that images are in"),
        (
            ["photos", "--batch-size", 1, "--size", 4],
            2,
            "have one; use --batch-size 2 or more, a larger --size, or",
        ),
        (
            ["photos", "--config", "odd.toml"],
            2,
            "odd.toml: these are settings to train something else, not images",
        ),
        (
            ["photos", "--config", "text.toml"],
            2,
            "text.toml: these are settings to train characters, not images",
        ),
    ],
)
def test_bad_input_is_one_line(trnn, here, options, code, said):
    (here / "text.toml").write_text('task = "characters"\n')
    (here / "odd.toml").write_text(f"task = 0x{'f' * 9000}\n")
    (here / "texts").mkdir()
    for folder in (here, here / "texts"):
        (folder / "text.txt").write_text("the cat sat on the mat")
    found, _, err = trnn("train-image", *options, "--dry-run")
    assert found == code
    assert said in err
    assert err.count("\n") == (code != 0)
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("photos", "for images: trnn train-image photos"),
        ("digits", "for images: trnn train-image digits"),
        ("photos/class-1/1.png", "for images: trnn train-image FOLDER"),
        ("nothing", None),
    ],
)
def test_images_that_are_given_to_train(trnn, here, source, said):
    (here / "nothing").mkdir()
    code, out, err = trnn("train", source, "--max-steps", 2)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert err.endswith(f"; {said}\n") if said else "trnn train-image" not in err


def test_a_run_of_something_else_is_damaged_and_hides_no_other(trnn, here):
    trnn("train-image", "photos", *SMALL, "--run", "runs/good", "--quiet")
    for name, task in {"word": '"sounds"', "list": '["images"]', "huge": f"0x{'f' * 9000}"}.items():
        shutil.copytree("runs/good", here / "runs" / name)
        file = here / "runs" / name / "config.toml"
        file.write_text(file.read_text().replace('task = "images"', f"task = {task}"))
        said = f"runs/{name}/config.toml: task must be characters or images, not "
        for command in (
            ["train-image", "--resume", name],
            ["train", "--resume", name],
            ["train", f"runs/{name}"],
        ):
            code, out, err = trnn(*command)
            assert (code, out, err.count("\n")) == (2, "", 1) and said in err
        code, out, err = trnn("info", name)
        assert (code, err) == (0, "") and "damaged" in out and said in out
        code, out, _ = trnn("runs")
        assert code == 0 and said in out and "good" in out and "resnet-8" in out
        for checkpoint in (here / "runs" / name).rglob("*.safetensors"):
            checkpoint.unlink()
        code, _, err = trnn("info", name)
        assert (code, err.count("\n")) == (4, 1) and said in err


def test_what_is_not_installed_is_said_how_to_get(trnn, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    code, out, err = trnn("train-image", "digits", *SMALL)
    assert (code, out) == (3, "")
    assert err == (
        "trnn: error: the digits come with scikit-learn, which is not installed: "
        "pip install 'tinygrad-rnn[vision]'\n"
    )


def test_a_plan_as_text_and_json(trnn, here):
    code, out, _ = trnn("train-image", "photos", *SMALL, "--dry-run")
    assert code == 0 and out.endswith("nothing is trained: --dry-run\n")
    assert "\nan epoch: 3 steps of 8 images\n" in out
    code, out, _ = trnn("train-image", "photos", *SMALL, "--val-fraction", 0.99, "--dry-run")
    assert code == 0 and "\nan epoch: 1 step of 3 images\n" in out  # no more than there are
    os.chdir("photos")
    assert trnn("train-image", ".", *SMALL, "--dry-run")[1].startswith("photos: 24 images of ")
    os.chdir("..")
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
