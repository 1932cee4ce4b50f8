"""Augmentation: what changes in an image, and what never does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import SettingError, UsageError
from tinygrad_rnn.vision import Augmentation

from .files import random_images

SIZES = {
    "count": st.integers(1, 12),
    "channels": st.integers(1, 3),
    "height": st.integers(4, 9),
    "width": st.integers(4, 9),
}


def draw(seed=0):
    return np.random.default_rng(seed)


@given(**SIZES, reach=st.integers(1, 3), crop=st.booleans(), flip=st.booleans(), seed=st.integers(0, 2**32))
def test_each_image_is_moved_as_a_whole(count, channels, height, width, reach, crop, flip, seed):
    images = random_images(count, channels, height, width, seed=seed)
    before = images.copy()
    moves = {"crop": reach} if crop else {"shift": reach}
    changed = Augmentation(**moves, flip=flip).apply(images, draw(seed))
    assert changed.shape == images.shape and changed.dtype == np.uint8
    assert np.array_equal(images, before)
    assert np.array_equal(changed, Augmentation(**moves, flip=flip).apply(images, draw(seed)))
    for image, result in zip(images, changed, strict=True):
        sources = [image, image[..., ::-1]] if flip else [image]
        # By the definition, pixel after pixel: moved from somewhere within reach, or come in at a border.
        assert any(
            np.array_equal(result, moved(source, down, right, crop))
            for source in sources
            for down in range(-reach, reach + 1)
            for right in range(-reach, reach + 1)
        )


def moved(image, down, right, black):
    height, width = image.shape[1:]
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            from_y, from_x = y - down, x - right
            inside = 0 <= from_y < height and 0 <= from_x < width
            if inside or not black:
                result[:, y, x] = image[:, min(max(from_y, 0), height - 1), min(max(from_x, 0), width - 1)]
    return result


@given(**SIZES, seed=st.integers(0, 2**32))
def test_mirrored_twice_is_as_before(count, channels, height, width, seed):
    images = random_images(count, channels, height, width, seed=seed)
    flip = Augmentation(flip=True)
    once = flip.apply(images, draw(seed))
    assert np.array_equal(flip.apply(once, draw(seed)), images)
    # No pixel is lost: each row has those that it had.
    assert np.array_equal(np.sort(once, axis=3), np.sort(images, axis=3))


def test_nothing_asked_for_is_nothing_done():
    images = random_images(5, 3, 4, 4)
    assert Augmentation().apply(images, draw()) is images


def test_all_moves_and_both_sides_occur_about_equally_often():
    images = np.zeros((4000, 1, 5, 5), np.uint8)
    images[:, 0, 2, 1] = 255  # a dot, left of the middle
    changed = Augmentation(crop=1, flip=True).apply(images, draw())
    places = changed.reshape(len(images), -1).argmax(1)
    counts = np.bincount(places, minlength=25).reshape(5, 5)
    # Mirrored, the dot is in column 3: moved or not, column 2 is reached from both sides.
    assert (counts[[0, 4]] == 0).all()
    expected = np.outer([1, 1, 1], [1, 1, 2, 1, 1]) * len(images) / 18
    assert (abs(counts[1:4] - expected) < 6 * np.sqrt(expected)).all()


def test_moves_that_make_no_sense():
    with pytest.raises(SettingError, match="shift must be at least 0, not -1"):
        Augmentation(shift=-1)
    with pytest.raises(UsageError, match="shift and crop both move an image"):
        Augmentation(shift=1, crop=1)
    with pytest.raises(SettingError, match="crop must be less than the size of the images, 8x4, not 4"):
        Augmentation(crop=4).apply(random_images(2, 1, 8, 4), draw())
