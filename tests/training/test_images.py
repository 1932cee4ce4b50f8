"""Training an image classifier: the trainer is the one of texts, and what is said of that one holds here."""

import json
import os
import re
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import CheckpointError, DataError, DivergedError, UsageError
from tinygrad_rnn.models import ResNet, archive, image_files, load, load_classifier
from tinygrad_rnn.models.files import numbered
from tinygrad_rnn.optim.optimizers import OPTIMIZERS
from tinygrad_rnn.training import ImageConfig, ImageTrainer, RunFolder, events
from tinygrad_rnn.training.trainer import Validation
from tinygrad_rnn.vision import ImageSet, make_shapes

from .interrupted import Killed, at, no_time

TINY = {"depth": 8, "width": 2, "batch_size": 8, "lr": 0.05, "max_steps": 8, "val_fraction": 0.25}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Nothing here is about a disk that loses power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def few(count=28, size=8, classes=3, seed=0) -> ImageSet:
    """Shapes in a few classes."""
    images, labels = make_shapes(count, size, seed)
    held = count // 4
    names = tuple("abcdefghij"[:classes])
    return ImageSet(
        "few", images[held:], labels[held:] % classes, images[:held], labels[:held] % classes, names
    )


class Training:
    """A training of few() images in `folder`, begun or gone on with as often as one likes."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.config = ImageConfig(images="few", **(TINY | settings))
        self.events = []

    def trainer(self, config, kill=None, images=None):
        self.events = []

        def emit(event):
            self.events.append(event)
            if kill is not None and kill(event):
                raise Killed

        return ImageTrainer(config, images or few(), emit, no_time)

    def begin(self, kill=None):
        trainer = self.trainer(self.config, kill)
        with suppress(Killed), RunFolder.create(self.folder, self.config) as run:
            trainer.train(run)
        return self

    def go_on(self, kill=None, images=None, **options):
        with suppress(Killed), RunFolder.open(self.folder) as run:
            trainer = self.trainer(run.config(), kill, images)
            trainer.resume(run, **options)
            trainer.train(run)
        return self

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def outcome(self):
        names = [numbered(self.folder)[-1], self.folder / "best.safetensors", self.folder / "history.jsonl"]
        return {path.name: path.read_bytes() for path in names}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "model", [{"model": "resnet"}, {"model": "plain", "batch_norm": False}, {"model": "vgg"}]
)
def test_an_end_without_warning_changes_nothing(tmp_path, optimizer, model):
    settings = {
        "optimizer": optimizer,
        "checkpoint_every": 2,
        "eval_every": 3,
        "flip": True,
        "shift": 1,
        **model,
    }
    whole = Training(tmp_path / "whole", **settings).begin()
    parts = Training(tmp_path / "parts", **settings).begin(kill=at(events.Stepped, 5)).go_on()
    assert whole.outcome == parts.outcome


@given(
    st.fixed_dictionaries(
        {
            "average": st.sampled_from([0.0, 0.8]),
            "accumulate": st.sampled_from([1, 3]),
            "preactivation": st.booleans(),
            "schedule": st.sampled_from(["cosine", "plateau", "constant"]),
            "seed": st.integers(0, 2**64 - 1),
            "eval_every": st.integers(1, 5),
            "checkpoint_every": st.integers(1, 5),
            "crop": st.integers(0, 2),
        }
    ),
    st.sampled_from([events.Stepped, events.Evaluated, events.Saved]),
    st.integers(1, 8),
)
def test_whatever_the_settings(tmp_path_factory, settings, kind, step):
    folder = tmp_path_factory.mktemp("deaths")
    whole = Training(folder / "whole", **settings).begin()
    parts = Training(folder / "parts", **settings).begin(kill=at(kind, step)).go_on()
    assert whole.outcome == parts.outcome


def test_it_learns_and_says_so(tmp_path):
    training = Training(tmp_path / "run", max_steps=60, width=4, eval_every=20).begin()
    seen = training.of(events.Evaluated)
    assert seen[-1].train_loss < 0.5 * seen[0].train_loss
    started = training.of(events.Started)[0].about
    assert started == {
        "classes": 3,
        "train_images": 21,
        "val_images": 7,
        "channels": 3,
        "height": 8,
        "width": 8,
    }
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    evaluated = [record for record in records if "val_accuracy" in record]
    assert [record["val_accuracy"] for record in evaluated] == [e.measures["val_accuracy"] for e in seen]
    finished = training.of(events.Finished)[0]
    best = next(e for e in seen if e.step == finished.val_step)
    assert (finished.val_loss, finished.measures) == (best.val_loss, best.measures)


def test_the_best_is_the_most_accurate_and_then_the_one_of_lower_loss(tmp_path, monkeypatch):
    found = [(0.9, 0.5), (0.5, 0.75), (0.6, 0.75), (0.4, 0.75), (0.3, 0.5), (0.4, 0.75)]
    trainer = ImageTrainer(ImageConfig(images="few", **TINY), few())
    bests = []
    for loss, accuracy in found:
        monkeypatch.setattr(trainer, "validate", lambda: Validation(loss, {"val_accuracy": accuracy}))  # noqa: B023
        trainer.standing.step += 1
        trainer._evaluate()
        bests.append(trainer.standing.best_step)
    assert bests == [1, 2, 2, 4, 4, 4]
    assert (trainer.standing.best_loss, trainer.standing.evaluations_waiting) == (0.4, 2)


def test_loss_and_accuracy_are_those_of_the_kept_model(tmp_path):
    """Computed once more with what load_classifier() gives, in one batch, by NumPy."""
    Training(tmp_path / "run", max_steps=12, eval_every=4).begin()
    model, notes, meta = load_classifier(tmp_path / "run")
    images = few()
    assert notes.classes == images.classes and notes.shape == images.shape
    logits = model(notes.normalised(images.held_out_images)).numpy().astype(np.float64)
    top = logits.max(1, keepdims=True)
    chances = np.exp(logits - top) / np.exp(logits - top).sum(1, keepdims=True)
    labels = images.held_out_labels
    assert meta["val_loss"] == pytest.approx(
        -np.log(chances[np.arange(len(labels)), labels]).mean(), rel=1e-5
    )
    assert meta["val_accuracy"] == (logits.argmax(1) == labels).mean()


def test_parts_of_a_batch_add_up(tmp_path):
    """Without batch normalisation, which looks at each part alone."""
    found = []
    for parts in (1, 3):
        config = ImageConfig(images="few", **TINY, model="plain", batch_norm=False, accumulate=parts)
        trainer = ImageTrainer(config, few())
        trainer.standing.step = 1
        loss = trainer.gradient(*trainer.batch(0))
        found.append([loss, *(p.grad.numpy() for p in trainer.parameters)])
    for whole, parts in zip(*found, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)


def test_a_skipped_step_leaves_the_running_statistics_as_they_were(tmp_path, monkeypatch):
    config = ImageConfig(images="few", **TINY, on_nan="skip")
    trainer = ImageTrainer(config, few())
    trainer.train_step()
    before = trainer.model.state_dict()
    inputs, targets = trainer.batch(1)
    monkeypatch.setattr(trainer, "batch", lambda step: (np.full_like(inputs, np.nan), targets))
    with np.errstate(all="ignore"):
        stepped = trainer.train_step()
    assert stepped.skipped is not None
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_rewinding_takes_the_running_statistics_back_to_the_checkpoint(tmp_path, monkeypatch, average):
    """Bit for bit, as the weights: what went wrong has left no trace in them."""
    whole, rewound = [], []
    forward, spoiled = ResNet.forward, []

    def spoil(self, images):
        """Once, in the fifth step, all is so large that what comes out is no number."""
        harm = self.training and len(seen) == 4 and not spoiled
        if harm:
            spoiled.append(True)
        return forward(self, images * np.float32(1e30) if harm else images)

    monkeypatch.setattr(ResNet, "forward", spoil)
    settings = {"on_nan": "rewind", "average": average, "checkpoint_every": 3, "eval_every": 3}
    training, seen = Training(tmp_path / "run", **settings), []

    def listen(event):
        if isinstance(event, events.Stepped):
            seen.append(event)
        if isinstance(event, events.Rewound):
            assert (event.at, event.to) == (5, 3)
            rewound.append(trainer.model.state_dict())
        if isinstance(event, events.Saved) and event.step == 3:
            whole.append(archive.read(event.path)[1])

    trainer = ImageTrainer(training.config, few(), listen, no_time)
    with RunFolder.create(training.folder, training.config) as run, np.errstate(all="ignore"):
        trainer.train(run)
    [kept], [back] = whole, rewound
    assert any("running_mean" in name for name in back)
    for name, array in back.items():
        np.testing.assert_array_equal(array, kept[f"weights/{name}" if average else name], err_msg=name)
    for name, buffer in trainer.model.named_buffers():  # and later ones have not heard of it either
        assert np.isfinite(buffer.array).all(), name


def test_a_loss_that_is_not_finite_is_said_where_it_came_from(tmp_path):
    with pytest.raises(DivergedError, match="--lr"), np.errstate(all="ignore"):
        training = Training(tmp_path / "run", lr=1e30, optimizer="sgd", clip=1e30, batch_norm=False)
        training.begin()


def test_other_images_are_refused(tmp_path):
    training = Training(tmp_path / "run").begin(kill=at(events.Stepped, 5))
    training.go_on()
    with pytest.raises(DataError, match=r"the images are not those that .* was trained on"):
        training.go_on(images=few(seed=1))
    training.go_on(images=few(seed=1), force=True)
    assert training.of(events.Resumed)[0].reasons == ("other images",)
    for force in (True, False):  # which would not help, and is not offered
        with pytest.raises(DataError, match=r"has 2 classes of images of shape \(3, 8, 8\), and the model"):
            training.go_on(images=few(classes=2), force=force)
    renamed = replace(few(), classes=("a", "b", "d"))
    with pytest.raises(DataError, match=r"^few has a class d where the model of .* has c$"):
        training.go_on(images=renamed, force=True)
    with pytest.raises(DataError, match=r"shape \(3, 9, 9\)"):
        training.go_on(images=few(size=9), force=True)


def test_another_architecture_is_refused(tmp_path):
    training = Training(tmp_path / "run").begin()
    with RunFolder.open(tmp_path / "run") as run:
        for name, value in {"model": "plain", "depth": 14, "width": 3, "batch_norm": False}.items():
            with pytest.raises(UsageError, match=f"{name} cannot change when a run goes on: it is .*, not"):
                training.trainer(replace(run.config(), **{name: value})).resume(run)


def test_a_character_model_is_no_classifier(tmp_path):
    Training(tmp_path / "run").begin()
    with pytest.raises(
        CheckpointError, match="holds an image classifier, and it takes a character model here"
    ):
        load(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h["images"].update(classes=["a", "b"]), "other inputs or outputs"),
        (lambda h: h["images"].update(std=[0, 1, 1]), "no numbers"),
        (lambda h: h["images"].update(mean=[1]), "3 channels have 1 means, 3 deviations"),
        (lambda h: h["images"].update(shape=[3, 8]), "images have the shape"),
        (lambda h: h["images"].pop("mean"), "images are described by"),
        (lambda h: h["model"].update(width=10**9), "width is 1000000000"),
        (lambda h: h["model"].update(width=500), "it would have [0-9]+ numbers at least"),
        (lambda h: h["model"].update(depth=14), "do not fit the model"),
        (lambda h: h["model"].update(depth=9), "has 6n"),
        (lambda h: h["model"].update(name="mlp"), "it is called 'mlp', and known are resnet, plain, vgg"),
        (lambda h: h["model"].update(name=["resnet"]), "it is called"),
        (lambda h: h["model"].update(depth=8.0), "depth must be of type int, not float"),
        (lambda h: h["model"].update(width=True), "width must be of type int, not bool"),
        (lambda h: h["model"].update(classes="3"), "classes must be of type int, not str"),
        (lambda h: h["model"].update(batch_norm=1), "batch_norm must be of type bool, not int"),
        (lambda h: h["model"].update(zero_init="no"), "zero_init must be of type bool, not str"),
        (lambda h: h["model"].update(shortcut=None), "shortcut must be of type str, not NoneType"),
        (lambda h: h["model"].update(shortcut="none"), "shortcut"),
        (lambda h: h["model"].update(dropout=0.5), "a resnet is described by .*, not .*dropout"),
        (lambda h: h["model"].pop("preactivation"), "a resnet is described by .*preactivation"),
        (lambda h: h["images"].update(classes=["a", "b", "a"]), "two classes have the same name"),
        (lambda h: h["images"].update(classes="abc"), "images are described by what is no list"),
        (lambda h: h["images"].update(std=[1e-300, 1, 1]), "no numbers"),
        (lambda h: h.update(sounds=h.pop("images")), "its header has neither vocabulary nor images"),
        (lambda h: h.update(model=3), "does not hold a model"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, change, said):
    Training(tmp_path / "run", max_steps=2).begin()
    header, arrays = archive.read(tmp_path / "run" / "best.safetensors")
    del header["digest"], header["format"]
    change(header)
    archive.write(tmp_path / "lie.safetensors", header, arrays)
    with pytest.raises(CheckpointError, match=said):
        image_files.load(tmp_path / "lie.safetensors")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"depth": 9}, "6n + 2"),
        ({"width": 0}, "width must be at least 1"),
        ({"width": 2**16 + 1}, "width must be at most 65536"),
        ({"depth": 2**16 + 1}, "depth must be at most 65536"),
        ({"shift": 1, "crop": 1}, "give one of them"),
        ({"model": "vgg", "depth": 16, "preactivation": True}, "vgg has no preactivation"),
        ({"optimizer": "adam", "momentum": 0.5}, "adam has no momentum"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"broken": "ignore"}, "broken must be refuse or skip"),
        ({"val_fraction": 1.0}, "val_fraction must be"),
        ({"shift": 8}, "less than the size of the images"),
    ],
)
def test_settings_that_make_no_sense(settings, said):
    with pytest.raises(UsageError) as raised:
        ImageTrainer(ImageConfig(images="few", **(TINY | settings)), few())
    assert said in str(raised.value)


def smallest(training: Training, images: ImageSet) -> int:
    """Images in the smallest part of a batch, as it is in two epochs."""
    trainer = training.trainer(training.config, images=images)
    parts = []
    for step in range(2 * len(trainer.batches)):
        inputs, targets = trainer.batch(step)
        parts += [round(share * len(targets)) for share, _ in trainer.losses(inputs, targets)]
    return min(parts)


@pytest.mark.parametrize("model", [{}, {"model": "plain", "preactivation": True}, {"model": "vgg"}])
@given(st.integers(8, 24), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_too_few_values_to_normalise_are_found_before_the_first_step(
    tmp_path_factory, model, count, batch_size, accumulate, size
):
    """And nothing else is: what is not refused goes through all its batches, what is helps as it says."""
    settings = {"batch_size": batch_size, "accumulate": min(accumulate, batch_size), **model}
    found = few(count, 8, 2)
    found = replace(found, images=found.images[..., :size, :size].copy())
    found = replace(found, held_out_images=found.held_out_images[..., :size, :size].copy())
    training = Training(tmp_path_factory.getbasetemp() / "no run", **settings)
    try:
        smallest(training, found)
    except UsageError as error:
        said = str(error)
        assert f"of a single image of {size}x{size} the deepest layers have one" in said
        assert smallest(Training(training.folder, **settings, batch_norm=False), found) == 1
        if "--batch-size 2 or more" in said:
            helps = {"batch_size": 2}
        else:
            helps = {"accumulate": int(re.search(r"use --accumulate (\d+),", said)[1])}
        assert smallest(Training(training.folder, **settings | helps), found) > 1


def test_momentum_is_nine_tenths_unless_said():
    found = [ImageConfig(images="few", **settings).optimizer_options for settings in ({}, {"momentum": 0.5})]
    assert [options["momentum"] for options in found] == [0.9, 0.5]
    assert "momentum" not in ImageConfig(images="few", optimizer="adam").optimizer_options


def test_patience_needs_images_held_out():
    images = few()
    nothing = replace(images, held_out_images=images.images[:0], held_out_labels=images.labels[:0])
    with pytest.raises(DataError, match="nothing is held out of few, and patience goes by"):
        ImageTrainer(ImageConfig(images="few", **TINY, patience=2), nothing)
