"""IDX files: what is read, and what is told of files that are damaged or do not belong together."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from tinygrad_rnn.errors import DataError
from tinygrad_rnn.vision import idx as reader
from tinygrad_rnn.vision import load_images

from .files import idx, random_images, write_idx

IMAGES, LABELS = random_images(6, 5, 4), np.array([7, 3, 7, 3, 7, 3])
HELD_IMAGES, HELD_LABELS = random_images(2, 5, 4, seed=1), np.array([3, 7])


@pytest.fixture
def folder(tmp_path):
    """A set of two parts, in a folder of its own."""
    write_idx(tmp_path / "own", "train", IMAGES, LABELS)
    write_idx(tmp_path / "own", "t10k", HELD_IMAGES, HELD_LABELS)
    return tmp_path / "own"


def check(found):
    assert np.array_equal(found.images, IMAGES[:, None]) and found.images.dtype == np.uint8
    assert found.labels.tolist() == [1, 0, 1, 0, 1, 0] and found.labels.dtype == np.int64
    assert np.array_equal(found.held_out_images, HELD_IMAGES[:, None])
    assert found.held_out_labels.tolist() == [0, 1]
    assert found.classes == ("3", "7") and found.shape == (1, 5, 4)


def test_both_parts_as_they_are(folder):
    found = load_images(folder)
    check(found)
    assert found.name == "own"


def test_compressed_and_with_dots(folder, tmp_path):
    write_idx(tmp_path / "packed", "train", IMAGES, LABELS, packed=True)
    write_idx(tmp_path / "packed", "test", HELD_IMAGES, HELD_LABELS, packed=True)
    check(load_images(tmp_path / "packed"))
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    check(load_images(str(folder)))


def test_of_two_copies_the_uncompressed_one_counts(folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"not even gzip")
    check(load_images(folder))


def test_a_single_pair_is_split(tmp_path):
    write_idx(tmp_path / "one", "letters", IMAGES, LABELS)
    found = load_images(tmp_path / "one", val_fraction=0.34)
    assert (len(found.labels), len(found.held_out_labels)) == (4, 2)
    assert sorted(found.held_out_labels) == [0, 1]


IMAGE_FILE, LABEL_FILE = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    "name, content, message",
    [
        (IMAGE_FILE, b"", "it begins with nothing, not 00 00 08 03"),
        (IMAGE_FILE, idx(LABELS), "no IDX file of unsigned bytes with 3 axes: it begins with 00 00 08 01"),
        (LABEL_FILE, b"\0\0\x0d\x01" + bytes(28), "with 1 axis: it begins with 00 00 0d 01, not 00 00 08 01"),
        (IMAGE_FILE, idx(IMAGES)[:9], "ends in its header, after 9 of 16 bytes"),
        (IMAGE_FILE, idx(IMAGES)[:-1], r"shape \(6, 5, 4\) in 136 bytes, it says, and has 135"),
        (IMAGE_FILE, idx(IMAGES) + b"x", r"shape \(6, 5, 4\) in 136 bytes, it says, and has 137"),
        (IMAGE_FILE, idx(IMAGES[:5]), "train-images-idx3-ubyte has 5 images, .* has 6 labels"),
        (IMAGE_FILE, idx(IMAGES[:, :0]), r"shape \(6, 0, 4\): 0 bytes, of 1 to"),
        (
            IMAGE_FILE,
            struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3),
            r"shape \(4294967295, 4294967295, 4294967295\): 79,\S+ bytes",
        ),
        (LABEL_FILE, idx(np.array([7, 3, 7, 3, 200, 3])), "label 200 occurs only once, at image 4;"),
        (LABEL_FILE, idx(np.array([7] * 6)), "image 0 has the label 3, which no image to train on has"),
        ("t10k-images-idx3-ubyte", idx(HELD_IMAGES[:, 1:]), "images of 4x4; those to train on are 5x4"),
    ],
)
def test_a_damaged_file_is_named(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        load_images(folder)
    assert "\n" not in str(raised.value) and "own" in str(raised.value)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda packed: packed[:-9], "no whole gzip file: Compressed file ended"),
        (lambda packed: packed[:-8] + b"\0\0\0\0" + packed[-4:], "no whole gzip file: CRC"),
        (lambda packed: packed[:10] + b"\xff" * 8 + packed[18:], "no whole gzip file: Error -3 while decomp"),
        (lambda packed: b"PK" + packed, "no whole gzip file: Not a gzipped file"),
        (lambda packed: gzip.compress(idx(IMAGES) + b"x"), "in 136 bytes, it says, and has more"),
        (lambda packed: gzip.compress(idx(IMAGES)[:-1]), "in 136 bytes, it says, and has 135"),
    ],
)
def test_a_damaged_compressed_file(folder, damage, message):
    (folder / IMAGE_FILE).unlink()
    (folder / f"{IMAGE_FILE}.gz").write_bytes(damage(gzip.compress(idx(IMAGES))))
    with pytest.raises(DataError, match=message):
        load_images(folder)


def test_a_file_that_is_missing(folder):
    (folder / LABEL_FILE).unlink()
    with pytest.raises(DataError, match="own has train-images-idx3-ubyte and no labels to go with it"):
        load_images(folder)


def test_several_sets_in_a_folder(folder):
    write_idx(folder, "more", IMAGES, LABELS)
    with pytest.raises(
        DataError, match="IDX files of more, t10k, train; a folder may have train, and one of"
    ):
        load_images(folder)


def test_a_file_that_is_not_as_published_lies_with_others_that_are(folder, monkeypatch):
    digests = {
        path.name.replace("-idx3-ubyte", "").replace("-idx1-ubyte", ""): hashlib.sha256(path.read_bytes())
        for path in folder.iterdir()
    }
    monkeypatch.setattr(reader, "MNIST", {name: digest.hexdigest() for name, digest in digests.items()})
    assert load_images(folder).name == "mnist"
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(HELD_IMAGES ^ 1))
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is damaged or of another set: t"):
        load_images(folder)
    for path in folder.glob("t10k*"):  # a test of one's own for the published training
        path.rename(path.with_name(path.name.replace("t10k", "test")))
    assert load_images(folder).name == "own"


def test_the_digests_are_whole():
    assert {len(bytes.fromhex(digest)) for digest in reader.MNIST.values()} == {32}
