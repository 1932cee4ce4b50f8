"""CIFAR-10's binary files: what is read, and what is told of damaged ones."""

import hashlib

import numpy as np
import pytest

from tinygrad_rnn.errors import DataError
from tinygrad_rnn.vision import cifar as reader
from tinygrad_rnn.vision import load_images

from .files import cifar, random_images

IMAGES, LABELS = random_images(20, 3, 32, 32), np.arange(20) % 10
NAMES = [f"class {number}" for number in range(10)]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(cifar(IMAGES[:8], LABELS[:8]))
    (folder / "data_batch_2.bin").write_bytes(cifar(IMAGES[8:], LABELS[8:]))
    (folder / "test_batch.bin").write_bytes(cifar(IMAGES[:3], LABELS[:3]))
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def test_all_files(folder):
    found = load_images(folder)
    assert np.array_equal(found.images, IMAGES) and np.array_equal(found.labels, LABELS)
    assert np.array_equal(found.held_out_images, IMAGES[:3]) and found.held_out_labels.tolist() == [0, 1, 2]
    assert found.classes == tuple(NAMES) and found.name == "small" and found.shape == (3, 32, 32)


def test_without_test_and_names(folder):
    (folder / "test_batch.bin").unlink()
    (folder / "batches.meta.txt").unlink()
    found = load_images(folder, val_fraction=0.5)
    assert found.classes == tuple("0123456789")
    assert sorted(found.held_out_labels) == sorted(found.labels) == list(range(10))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("data_batch_2.bin", b"", "has 0 bytes, which are no whole images of 3,073 bytes"),
        ("test_batch.bin", cifar(IMAGES, LABELS)[:-1], "has 61,459 bytes, which are no whole"),
        ("data_batch_1.bin", cifar(IMAGES, LABELS + 5), "image 5 has the label 10, of 0 to 9 possible"),
        ("batches.meta.txt", b"cat\ndog\n", "10 different names, a line each; it has 2 lines"),
        ("batches.meta.txt", b"\xff", "batches.meta.txt is no text"),
    ],
)
def test_a_damaged_file_is_named(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        load_images(folder)
    assert name in str(raised.value)


def test_a_file_between_is_missing(folder):
    (folder / "data_batch_2.bin").rename(folder / "data_batch_3.bin")
    with pytest.raises(DataError, match=r"has data_batch_3.bin and no data_batch_2.bin"):
        load_images(folder)


def test_published_files(folder, monkeypatch):
    digests = {path.name: hashlib.sha1(path.read_bytes()).hexdigest() for path in folder.glob("*.bin")}
    monkeypatch.setattr(reader, "CIFAR10", digests)
    (folder / "batches.meta.txt").unlink()
    found = load_images(folder)
    assert found.name == "cifar-10" and found.classes[-1] == "truck"
    (folder / "data_batch_2.bin").write_bytes(cifar(IMAGES[:8], LABELS[:8]))
    with pytest.raises(DataError, match=r"data_batch_2.bin is damaged or of another set"):
        load_images(folder)


def test_the_digests_are_whole():
    assert {len(bytes.fromhex(digest)) for digest in reader.CIFAR10.values()} == {20}


def test_pickles_are_not_read(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}")
    with pytest.raises(DataError, match="Python pickles, which are not read; get its binary version"):
        load_images(tmp_path)
