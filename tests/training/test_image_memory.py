"""The estimate of what a training on images needs, as test_estimate.py has it of texts."""

import tracemalloc

import numpy as np
import pytest

from tinygrad_rnn.engine.ops.fused import use_kernels
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.training import ImageConfig, ImageTrainer, estimate
from tinygrad_rnn.training.estimate import Estimate
from tinygrad_rnn.vision import ImageSet

FACTOR = 1.5  # either way
OBJECTS = 2**19  # bytes of what is no array; a graph of 20 layers has some 500 nodes


def images(size=8, channels=3, count=256, held_out=100) -> ImageSet:
    shape = (channels, size, size)
    pixels = np.random.default_rng(0).integers(0, 256, (count + held_out, *shape), dtype=np.uint8)
    labels = np.arange(count + held_out) % 4
    return ImageSet("few", pixels[:count], labels[:count], pixels[count:], labels[count:], tuple("abcd"))


def peaks(config, found) -> dict[str, int]:
    """The largest memory in use by a step and by a validation, in bytes."""
    ImageTrainer(config, found).train_step()  # what is imported at its first use has been
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        trainer, taken = ImageTrainer(config, found), {}
        for moment, work in {"step": trainer.train_step, "validation": trainer.validate}.items():
            tracemalloc.reset_peak()
            work()
            taken[moment] = tracemalloc.get_traced_memory()[1] - before
        return taken
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"batch_norm": False},
        {"preactivation": True},
        {"model": "plain", "depth": 32},
        {"model": "vgg", "depth": 8},
        {"model": "vgg", "depth": 16, "batch_norm": False},
        {"width": 32, "depth": 8, "optimizer": "adam", "average": 0.9, "momentum": None},
        {"batch_size": 64, "accumulate": 4, "width": 24},
        {"batch_size": 1000},  # more than there are
    ],
    ids=str,
)
def test_each_setting_is_counted(chosen):
    config = ImageConfig(images="few", kernels="numpy", **{"batch_size": 64, "width": 12} | chosen)
    found = images(16 if "accumulate" in chosen else 12)
    with use_kernels("numpy"):
        taken = peaks(config, found)
    foreseen = Estimate.of_images(config, found)
    for moment, bytes_taken in taken.items():
        estimated = getattr(foreseen, moment)
        assert (bytes_taken - OBJECTS) / FACTOR < estimated < bytes_taken * FACTOR, moment


def test_the_statistics_of_a_network_are_left_alone():
    config = ImageConfig(images="few", depth=8)
    trainer = ImageTrainer(config, images())
    buffers = {name: buffer.array.copy() for name, buffer in trainer.model.named_buffers()}
    assert estimate._of_one_image(trainer.model, (3, 8, 8))[0] > 0
    assert trainer.model.training
    for name, buffer in trainer.model.named_buffers():
        np.testing.assert_array_equal(buffer.array, buffers[name])


@pytest.mark.parametrize(
    ("settings", "helps"),
    [
        ({"width": 9000, "depth": 1100}, "use a smaller --width or --depth"),
        ({"batch_size": 2000, "width": 64}, "use a smaller --batch-size, --width or --size, or --accumulate"),
        ({"batch_size": 1, "width": 50, "depth": 8}, "use a smaller --width or --size"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(monkeypatch, settings, helps):
    found = images(16, count=2000, held_out=256)
    config = ImageConfig(images="few", **settings)
    monkeypatch.setattr(estimate, "memory", lambda: (10**9, 60 * 10**6))
    with pytest.raises(UsageError) as raised:
        ImageTrainer(config, found)
    said = str(raised.value)
    assert said.startswith("this training needs about ") and said.endswith(helps)
    assert " of memory, and 60 MB are free; " in said
    monkeypatch.setattr(estimate, "memory", lambda: (None, None))  # a system that does not say
    estimate.check_image_memory(ImageConfig(images="few", batch_size=2000, width=64), found)
