"""Images of shapes: balanced, the same everywhere, and nothing for a linear classifier."""

import hashlib

import numpy as np
import pytest

from tinygrad_rnn.errors import SettingError
from tinygrad_rnn.vision import make_shapes
from tinygrad_rnn.vision.shapes import SHAPES


def test_what_is_made():
    images, labels = make_shapes(200, 16)
    assert images.shape == (200, 3, 16, 16) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and (np.bincount(labels) == 200 // len(SHAPES)).all()
    assert make_shapes(3, 9, channels=1)[0].shape == (3, 1, 9, 9)


def test_they_are_a_function_of_the_seed_and_larger_sets_go_on():
    images, labels = make_shapes(300, 12, seed=3)
    fewer, fewer_labels = make_shapes(130, 12, seed=3)
    assert np.array_equal(images[:130], fewer) and np.array_equal(labels[:130], fewer_labels)
    assert not np.array_equal(fewer, make_shapes(130, 12, seed=4)[0])
    assert len({image.tobytes() for image in images}) == 300


def test_they_are_the_same_everywhere():
    assert (
        hashlib.sha256(make_shapes(64)[0].tobytes()).hexdigest()
        == "c9329770f9b07cad3e3fce97ae7e94d534ccb75ac578751ba2ea679b8c051dc4"
    )


def test_a_linear_classifier_fails():
    """Ridge regression on the pixels, in its dual form: X^T (X X^T + lambda)^-1 y."""
    images, labels = make_shapes(2000, 16, channels=1)
    x = images.reshape(len(images), -1) / 255 - 0.5
    targets = np.eye(len(SHAPES))[labels[:1600]] - 1 / len(SHAPES)
    for ridge in (1.0, 100.0):
        weights = x[:1600].T @ np.linalg.solve(x[:1600] @ x[:1600].T + ridge * np.eye(1600), targets)
        assert ((x[1600:] @ weights).argmax(1) == labels[1600:]).mean() < 0.3  # chance: 0.125


@pytest.mark.parametrize("seed", [0, 1])
def test_a_shape_stands_out_of_its_ground(seed):
    """Averages over 8x8 pixels, which take the noise away, are not all alike where a circle is."""
    images, labels = make_shapes(160, 48, seed=seed, channels=1)
    circles = images[labels == 0, 0] / 255
    blocks = circles.reshape(len(circles), 6, 8, 6, 8).mean((2, 4))
    assert (np.ptp(blocks.reshape(len(circles), -1), axis=1) > 0.15).all()


@pytest.mark.parametrize("setting, value", [("count", 0), ("size", 7), ("channels", 2), ("seed", -1)])
def test_settings_out_of_range(setting, value):
    with pytest.raises(SettingError, match=f"^{setting} must be"):
        make_shapes(**{"count": 1, setting: value})
