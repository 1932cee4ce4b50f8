"""Batches: an epoch has every image, and a batch is a function of the seed and the step alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import DataError, DtypeError, SettingError, ShapeError
from tinygrad_rnn.vision import Augmentation, Batches

from .files import random_images

MEAN, STD = np.array([0.4], np.float32), np.array([0.3], np.float32)
PLAIN = Augmentation()


def numbered(count):
    """Images that can be told from their first two pixels, and labels that can be told from the number."""
    images = np.zeros((count, 1, 3, 4), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return images, np.arange(count) * 7 % 5


def numbers(x):
    pixels = np.rint((x * STD + MEAN) * 255).astype(int)
    return pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 0, 1]


def epoch(batches, number):
    return [batches[number * len(batches) + step] for step in range(len(batches))]


@given(count=st.integers(2, 300), batch_size=st.integers(1, 40), number=st.integers(0, 2**40))
def test_an_epoch_has_each_image_once_with_its_label(count, batch_size, number):
    images, labels = numbered(count)
    batches = Batches(images, labels, batch_size, 0, PLAIN, MEAN, STD)
    seen = []
    sizes = []
    for x, y in epoch(batches, number):
        assert x.dtype == np.float32 and y.dtype == np.int64 and x.shape[1:] == (1, 3, 4)
        assert np.array_equal(labels[numbers(x)], y)
        seen += list(numbers(x))
        sizes.append(len(x))
    assert len(set(seen)) == len(seen)
    dropped = 1 if batch_size > 1 and count % batch_size == 1 else 0
    assert len(seen) == count - dropped
    assert set(sizes) == batches.sizes
    assert set(sizes[:-1]) <= {batch_size} and (batch_size == 1 or sizes[-1] >= 2)


@given(
    seed=st.integers(0, 2**64 - 1),
    steps=st.lists(st.integers(0, 200), min_size=1, max_size=8),
    augmentation=st.sampled_from([PLAIN, Augmentation(shift=1), Augmentation(flip=True, crop=2)]),
)
def test_a_batch_is_a_function_of_seed_and_step(seed, steps, augmentation):
    images, labels = random_images(50, 1, 5, 5), np.arange(50)
    one, other = (Batches(images, labels, 8, seed, augmentation, MEAN, STD) for _ in range(2))
    expected = {step: one[step] for step in range(201) if step in steps}  # in order
    for step in steps:  # in any order, as often as asked
        for array, again in zip(expected[step], other[step], strict=True):
            assert array.tobytes() == again.tobytes()


def test_order_and_augmentation_change_with_epoch_and_seed():
    images, labels = numbered(64)
    orders = {
        tuple(
            number
            for x, _ in epoch(Batches(images, labels, 16, seed, PLAIN, MEAN, STD), at)
            for number in numbers(x)
        )
        for seed in (0, 1, 2**64 - 1)
        for at in (0, 1, 2)
    }
    assert len(orders) == 9
    same = np.repeat(random_images(1, 1, 9, 9), 16, axis=0)
    seen = {
        Batches(same, labels[:16], 8, seed, Augmentation(shift=3), MEAN, STD)[step][0].tobytes()
        for seed in (0, 1)
        for step in (0, 1, 2)
    }
    assert len(seen) == 6


def test_the_order_is_the_same_with_every_version_of_numpy():
    images, labels = numbered(10)
    x, _ = Batches(images, labels, 10, 1, PLAIN, MEAN, STD)[3]
    assert numbers(x).tolist() == [6, 0, 8, 5, 4, 7, 9, 3, 2, 1]


@given(st.integers(0, 2**32))
def test_pixels_are_normalised(seed):
    images = random_images(6, 3, 4, 4, seed=seed)
    mean, std = np.array([0.1, 0.5, 0.9], np.float32), np.array([0.2, 0.3, 1], np.float32)
    [(x, _)] = Batches.evaluation(images, np.arange(6), 6, mean, std)
    expected = (images / 255 - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    assert x.dtype == np.float32 and x.flags.c_contiguous


@given(count=st.integers(0, 50), batch_size=st.integers(1, 20))
def test_evaluation_is_in_order_and_leaves_nothing_out(count, batch_size):
    images, labels = numbered(count)
    pairs = list(Batches.evaluation(images, labels, batch_size, MEAN, STD))
    assert [int(number) for x, _ in pairs for number in numbers(x)] == list(range(count))
    assert [int(label) for _, y in pairs for label in y] == labels.tolist()
    assert all(len(x) == batch_size for x, _ in pairs[:-1])


def test_what_makes_no_batches():
    images, labels = numbered(9)
    with pytest.raises(SettingError, match="batch_size must be at least 1, not 0"):
        Batches(images, labels, 0, 0, PLAIN, MEAN, STD)
    with pytest.raises(SettingError, match="seed must be"):
        Batches(images, labels, 4, -1, PLAIN, MEAN, STD)
    with pytest.raises(ShapeError, match=r"\(N, C, H, W\) and labels \(N,\), not \(9, 1, 3, 4\) and \(8,\)"):
        Batches(images, labels[:8], 4, 0, PLAIN, MEAN, STD)
    with pytest.raises(DtypeError, match="uint8, 0 to 255, not float64"):
        Batches(images / 255, labels, 4, 0, PLAIN, MEAN, STD)
    with pytest.raises(DataError, match="a single image makes no batch"):
        Batches(images[:1], labels[:1], 4, 0, PLAIN, MEAN, STD)
    assert len(Batches(images[:1], labels[:1], 1, 0, PLAIN, MEAN, STD)) == 1
    with pytest.raises(IndexError):
        Batches(images, labels, 4, 0, PLAIN, MEAN, STD)[-1]
