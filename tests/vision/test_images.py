"""Sets of images: from names, split, digested; what is told of a source that is none."""

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tinygrad_rnn.errors import DataError, SettingError
from tinygrad_rnn.vision import ImageSet, holds_images, load_images, make_shapes
from tinygrad_rnn.vision import images as reading
from tinygrad_rnn.vision.split import split

from .files import cifar, random_images, write_classes, write_idx

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(
    lambda drawn: np.array([label for label in drawn for _ in range(2)])
)
FRACTIONS = st.floats(0.01, 0.99)


def names(labels):
    return tuple("abcde"[: labels.max() + 1])


@given(labels=LABELS, fraction=FRACTIONS, seed=st.integers(0, 2**64 - 1))
def test_a_split_is_disjoint_whole_and_stratified(labels, fraction, seed):
    labels = np.unique(labels, return_inverse=True)[1]
    train, held_out = split(labels, fraction, seed, names(labels))
    assert sorted([*train, *held_out]) == list(range(len(labels)))
    assert list(train) == sorted(train) and list(held_out) == sorted(held_out)
    counts, held = np.bincount(labels), np.bincount(labels[held_out], minlength=labels.max() + 1)
    assert (held >= 1).all() and (held < counts).all()
    assert (abs(held - counts * fraction) <= 1).all()
    again = split(labels.copy(), fraction, seed, names(labels))
    assert np.array_equal(train, again[0]) and np.array_equal(held_out, again[1])


@given(counts=st.lists(st.integers(20, 200), min_size=2, max_size=6), fraction=st.floats(0.1, 0.9))
def test_as_many_are_held_out_as_asked(counts, fraction):
    labels = np.repeat(np.arange(len(counts)), counts)
    assert len(split(labels, fraction, 0, ("",) * len(counts))[1]) == round(len(labels) * fraction)


def test_a_split_depends_on_the_seed():
    labels = np.arange(100) % 5
    assert not np.array_equal(split(labels, 0.2, 0, ())[1], split(labels, 0.2, 1, ())[1])
    # The same with every version of NumPy.
    assert split(labels, 0.1, 0, ())[1].tolist() == [16, 21, 29, 32, 35, 63, 65, 77, 79, 93]


def test_nothing_is_held_out_unless_asked_for():
    train, held_out = split(np.array([0, 1, 1]), 0, 0, ("a", "b"))
    assert train.tolist() == [0, 1, 2] and held_out.tolist() == []
    few = "class a has too few images, 1; it takes two, one to train on and one to hold out, "
    with pytest.raises(DataError, match=f"^{few}or --val-fraction 0$"):
        split(np.array([0, 1, 1]), 0.2, 0, ("a", "b"))


def test_digits():
    found = load_images("digits")
    assert (len(found.labels), len(found.held_out_labels)) == (1797 - 359, 359)
    assert found.classes == tuple("0123456789") and found.shape == (1, 8, 8) and found.name == "digits"
    assert set(np.unique(found.images)) == set(range(0, 241, 15))
    assert np.ptp(np.bincount(found.held_out_labels)) <= 2
    again, other = load_images("digits"), load_images("digits", seed=1)
    assert found.sha256 == again.sha256 != other.sha256
    both = np.concatenate([found.images, found.held_out_images]).sum(dtype=int)
    assert both == np.concatenate([other.images, other.held_out_images]).sum(dtype=int)


def test_shapes(monkeypatch):
    monkeypatch.setattr("tinygrad_rnn.vision.images._MADE", 40)
    found = load_images("shapes", size=12)
    assert found.shape == (3, 12, 12) and len(found.labels) == 32 and len(found.classes) == 8
    other = load_images("shapes", size=12, seed=5)
    images, _ = make_shapes(40, 12)
    for each in (found, other):  # the seed says only which are held out
        together = np.concatenate([each.images, each.held_out_images])
        assert {image.tobytes() for image in together} == {image.tobytes() for image in images}
    assert load_images("shapes", size=12, gray=True).shape == (1, 12, 12)


def a_set(**changes):
    fields = {
        "name": "x",
        "images": random_images(4, 2, 3, 3),
        "labels": np.array([0, 1, 0, 1]),
        "held_out_images": random_images(2, 2, 3, 3, seed=1),
        "held_out_labels": np.array([0, 1]),
        "classes": ("a", "b"),
    }
    return ImageSet(**{**fields, **changes})


def test_the_digest_is_over_all_that_decides_and_over_nothing_else():
    digest = a_set().sha256
    assert len(bytes.fromhex(digest)) == 32
    assert a_set(name="y", skipped=("z",)).sha256 == digest
    assert a_set(images=np.asfortranarray(random_images(4, 2, 3, 3))).sha256 == digest
    changed = random_images(4, 2, 3, 3)
    changed[3, 1, 2, 2] ^= 1
    others = [
        a_set(images=changed),
        a_set(images=random_images(4, 2, 3, 3).reshape(4, 3, 2, 3)),
        a_set(labels=np.array([0, 1, 1, 0])),
        a_set(held_out_labels=np.array([1, 0])),
        a_set(held_out_images=random_images(0, 2, 3, 3), held_out_labels=np.zeros(0, np.int64)),
        a_set(classes=("a", "c")),
        a_set(classes=("a", "\udcff")),  # a folder's name that is not UTF-8
    ]
    assert len({digest, *(each.sha256 for each in others)}) == len(others) + 1


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**32))
def test_statistics_are_those_of_each_channel(count, channels, seed):
    images = random_images(count, channels, 2, 5, seed=seed)
    found = a_set(images=images)
    scaled = images / 255
    assert found.mean.dtype == found.std.dtype == np.float32
    np.testing.assert_allclose(found.mean, scaled.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found.std, scaled.std((0, 2, 3)), rtol=1e-6)


@given(st.integers(1, 60))
def test_a_part_at_a_time_gives_what_all_at_once_gives(pixels):
    images = random_images(7, 3, 4, 5)
    whole, whole_gray = a_set(images=images), reading._gray(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK", pixels)
        assert len({part.stop - part.start for part in reading._parts(images)}) == 1
        assert next(reading._parts(images)).stop == max(1, pixels // 20)
        parted = a_set(images=images)
        np.testing.assert_array_equal(parted.mean, whole.mean)
        np.testing.assert_array_equal(parted.std, whole.std)
        np.testing.assert_array_equal(reading._gray(images), whole_gray)


def test_more_than_there_is_room_for(tmp_path, monkeypatch):
    write_idx(tmp_path, "train", random_images(4, 2, 2), np.array([0, 1, 0, 1]))
    monkeypatch.setattr(reading, "MAX_BYTES", 2 * 5 * 5)
    assert load_images(tmp_path, size=5).shape == (1, 5, 5)
    with pytest.raises(DataError, match=r"^2 images of 6x6 take .* possible; use a smaller --size$"):
        load_images(tmp_path, size=6)
    with pytest.raises(DataError, match=r"^4,000 images of 8x8 take .* possible; use a smaller --size$"):
        load_images("shapes", size=8)


def test_a_constant_channel_has_deviation_one():
    images = random_images(4, 2, 3, 3)
    images[:, 1] = 77
    found = a_set(images=images)
    assert found.std[1] == 1 != found.std[0]
    assert found.mean[1] == np.float32(77 / 255)


def test_the_arrays_cannot_be_written_to():
    found = a_set()
    for array in (found.images, found.labels, found.held_out_images, found.held_out_labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_files_in_gray_and_resized(tmp_path):
    images = random_images(20, 3, 32, 32)
    (tmp_path / "data_batch_1.bin").write_bytes(cifar(images, np.arange(20) % 10))
    found = load_images(tmp_path, gray=True, size=16, val_fraction=0)
    assert found.shape == (1, 16, 16) and found.held_out_images.shape == (0, 1, 16, 16)
    expected = (
        Image.fromarray(images[7].transpose(1, 2, 0)).convert("L").resize((16, 16), Image.Resampling.BILINEAR)
    )
    assert np.array_equal(found.images[7, 0], expected)
    write_idx(tmp_path / "idx", "train", images[:, 0], np.arange(20) % 2)
    assert load_images(tmp_path / "idx", gray=True, size=40).shape == (1, 40, 40)


@pytest.mark.parametrize(
    "source, message",
    [
        ("digit", "no folder 'digit'; did you mean digits?"),
        ("Shapes", "no folder 'Shapes'; did you mean shapes?"),
        ("photos", "no folder 'photos', and no images of that name come along (digits, shapes)"),
        ("a/shape", "no folder 'a/shape', and no images of that name come along (digits, shapes)"),
        ("link", "link is a link that leads nowhere"),
        ("class", "class has images, but no folders; give each class, at least two, a folder of its images"),
        ("file.bin", "file.bin is a file; name the folder that images are in"),
        ("cifar.tar.gz", "name the folder that images are in, after unpacking it: tar -xf cifar.tar.gz"),
        ("empty", "empty has no files and no folders; known are IDX files"),
        ("texts", "texts has 4 files (0.txt, 1.txt, 2.txt, ...) and no folders; known are IDX files"),
        (".", "has no images itself; did you mean raw?"),
    ],
)
def test_a_source_that_is_none(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "texts"):
        (tmp_path / folder).mkdir()
    write_classes(tmp_path, {"class": 2})
    for name in ("file.bin", "cifar.tar.gz", *(f"texts/{number}.txt" for number in range(4))):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("nowhere")
    write_idx(tmp_path / "raw", "train", random_images(4, 2, 2), np.array([0, 1, 0, 1]))
    with pytest.raises(DataError, match=re.escape(message)):
        load_images(source)


def test_what_may_be_meant_for_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "photos", {"a": 1})
    write_idx(tmp_path / "idx", "train", random_images(4, 2, 2), np.array([0, 1, 0, 1]))
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "data_batch_1.bin").touch()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    for meant in ("digits", "shapes", "photos", "photos/a", "photos/a/0.png", "idx", "cifar"):
        assert holds_images(meant) and holds_images(tmp_path / meant) == (tmp_path / meant).exists()
    for other in ("harbour", "texts", "texts/a.txt", "gone.png"):
        assert not holds_images(other)
    (tmp_path / "digits").write_text("one two three")  # a file comes before a name
    assert not holds_images("digits")


def test_a_folder_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "digits", {"a": 2, "b": 2})
    assert load_images("digits", val_fraction=0).classes == ("a", "b")


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    write_idx(tmp_path / "one", "train", random_images(4, 2, 2), np.zeros(4, int))
    with pytest.raises(DataError, match="one class only, 0; it takes two at least"):
        load_images(tmp_path / "one")


@pytest.mark.parametrize(
    "setting, value",
    [
        ("val_fraction", 1.0),
        ("val_fraction", -0.1),
        ("size", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("broken", "x"),
    ],
)
def test_settings_out_of_range(setting, value):
    with pytest.raises(SettingError, match=f"^{setting} must be"):
        load_images("digits", **{setting: value})


@pytest.mark.parametrize(
    "module, call, message",
    [
        ("sklearn", "load_images('digits')", "scikit-learn, which is not installed"),
        ("PIL", "load_images(folder)", "reading a folder of images takes Pillow"),
        ("PIL", "load_images(folder + '/idx', size=3)", "resizing images takes Pillow"),
    ],
)
def test_what_is_not_installed_is_said_how_to_get(tmp_path, module, call, message):
    write_classes(tmp_path, {"a": 2, "b": 2})
    write_idx(tmp_path / "a" / "idx", "train", random_images(4, 2, 2), np.array([0, 1, 0, 1]))
    program = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from tinygrad_rnn.vision import load_images\n"
        "assert not {'sklearn', 'PIL', 'scipy'} & {name for name, module in sys.modules.items() if module}\n"
        f"folder = {str(tmp_path / 'a' if 'idx' in call else tmp_path)!r}\n"
        f"try: {call}\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.startswith("DataError") and message in said
    assert said.endswith("pip install 'tinygrad-rnn[vision]'\n")
