"""Folders of images: which files are images of which class, and what is told of those that are broken."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tinygrad_rnn.errors import DataError
from tinygrad_rnn.vision import collection, folder, load_images

from .files import random_images, write_classes, write_image


def load(path, **options):
    return load_images(path, val_fraction=0, **options)


def test_classes_are_folders_and_files_are_in_the_order_of_their_paths(tmp_path):
    written = write_classes(tmp_path, {"dog": 2, "Cat": 3, "ant": 2})
    written["ant/a b/0.PNG"] = write_image(tmp_path / "ant" / "a b" / "0.PNG", random_images(6, 6, 3, seed=9))
    found = load(tmp_path)
    assert found.classes == ("Cat", "ant", "dog") and found.shape == (3, 6, 6)
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    names = ["Cat/0", "Cat/1", "Cat/2", "ant/0", "ant/1", "ant/a b/0", "dog/0", "dog/1"]
    for image, name in zip(found.images, names, strict=True):
        pixels = written.get(f"{name}.png", written.get(f"{name}.PNG"))
        assert np.array_equal(image, pixels.transpose(2, 0, 1))
    assert found.skipped == () and found.name == tmp_path.name


def test_what_is_no_image_is_left_out(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    for name in ("a/README.txt", "a/.hidden.png", ".hidden/1.png", "a/.b/1.png", "stray.png", "a/x.svg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path)  # would be all images once more
    (tmp_path / "d").symlink_to(tmp_path / "d")
    assert load(tmp_path).labels.tolist() == [0, 0, 1, 1]


def test_linked_images_and_classes_count(tmp_path):
    write_classes(tmp_path / "there", {"a": 2, "b": 2})
    (tmp_path / "here" / "b").mkdir(parents=True)
    (tmp_path / "here" / "a").symlink_to(tmp_path / "there" / "a")
    (tmp_path / "here" / "b" / "one.png").symlink_to(tmp_path / "there" / "b" / "1.png")
    assert load(tmp_path / "here").labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_a_given_split(tmp_path, held_out):
    write_classes(tmp_path / "train", {"a": 2, "b": 1})
    write_classes(tmp_path / held_out, {"b": 3})
    write_classes(tmp_path / "test", {"b": 3})
    found = load_images(tmp_path)
    assert found.labels.tolist() == [0, 0, 1] and found.held_out_labels.tolist() == [1, 1, 1]
    write_classes(tmp_path / held_out, {"c": 1})
    with pytest.raises(DataError, match=f"{held_out} has a class c, which .*train has not"):
        load_images(tmp_path)


def test_train_alone_is_split_and_may_be_a_class(tmp_path):
    write_classes(tmp_path / "one" / "train", {"a": 5, "b": 5})
    found = load_images(tmp_path / "one")
    assert found.held_out_labels.tolist() == [0, 1] and found.classes == ("a", "b")
    write_classes(tmp_path / "two", {"car": 2, "train": 2})
    assert load(tmp_path / "two").classes == ("car", "train")


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "webp", "tif", "ppm"])
def test_kinds_of_files_without_loss(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    pixels = (
        random_images(8, 8, 3) if suffix != "gif" else np.repeat(random_images(8, 8, 1) // 128 * 255, 3, 2)
    )
    for name in ("a", "b"):
        write_image(tmp_path / name / f"0.{suffix}", pixels, **options)
    found = load(tmp_path)
    assert np.array_equal(
        found.images[0], np.broadcast_to(pixels.transpose(2, 0, 1), (3, 8, 8))[: found.shape[0]]
    )


def test_jpeg_is_read_and_turned_as_the_camera_says(tmp_path):
    picture = np.zeros((8, 16, 3), np.uint8)
    picture[:, :8] = 255  # left half white
    for name in ("a", "b"):
        write_image(tmp_path / name / "0.jpeg", picture, quality=95)
    assert load(tmp_path).images[0, :, :, :8].min() > 200
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    for name in ("a", "b"):
        write_image(tmp_path / name / "0.jpeg", picture, quality=95, exif=turned)
    found = load(tmp_path)
    assert (
        found.shape == (3, 16, 8) and found.images[0, :, :8].min() > 200 and found.images[0, :, 8:].max() < 50
    )


def test_gray_ones_have_one_channel_unless_one_has_colour(tmp_path):
    gray = write_image(tmp_path / "a" / "0.png", random_images(6, 6))
    deep = (random_images(6, 6).astype(np.uint16) << 8) + 200
    write_image(tmp_path / "b" / "0.png", deep)
    found = load(tmp_path)
    assert np.array_equal(found.images, [gray[None], (deep >> 8)[None]])
    colour = write_image(tmp_path / "b" / "1.png", random_images(6, 6, 3))
    found = load(tmp_path)
    assert found.shape == (3, 6, 6)
    assert np.array_equal(found.images[0], np.stack([gray] * 3))
    assert np.array_equal(found.images[2], colour.transpose(2, 0, 1))
    in_gray = load(tmp_path, gray=True)
    assert in_gray.shape == (1, 6, 6)
    assert np.array_equal(in_gray.images[2, 0], np.asarray(Image.fromarray(colour).convert("L")))


def test_transparent_is_laid_on_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    for name in ("a", "b"):
        write_image(tmp_path / name / "0.png", pixels)
    found = load(tmp_path)
    assert found.images[0, :, :2].max() == 0 and found.images[0, :, 2:].min() == 255


def broken_in_some_way(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 4}, size=64)
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "0.png").write_bytes(b"")
    (tmp_path / "b" / "1.png").write_text("a text")
    (tmp_path / "b" / "2.png").unlink()
    (tmp_path / "b" / "2.png").symlink_to("nowhere")


def test_broken_files_are_refused_by_name(tmp_path):
    broken_in_some_way(tmp_path)
    with pytest.raises(
        DataError, match=r"a/1.png is broken \(.+\); so are 3 more; --broken skip leaves"
    ) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_broken_files_are_left_out_and_listed(tmp_path):
    broken_in_some_way(tmp_path)
    found = load(tmp_path, broken="skip")
    assert found.labels.tolist() == [0, 0, 1]
    assert [line.split(" ")[0] for line in found.skipped] == ["a/1.png", "b/0.png", "b/1.png", "b/2.png"]
    for line, why in zip(found.skipped[1:], ("it is empty", "of a kind", "No such file"), strict=True):
        assert why in line


@pytest.mark.parametrize("place", range(8, 200, 16))
def test_a_changed_byte_is_an_image_or_a_broken_one(tmp_path, place):
    write_classes(tmp_path, {"a": 2, "b": 2})
    content = bytearray((tmp_path / "a" / "0.png").read_bytes())
    content[place % len(content)] ^= 0xFF
    (tmp_path / "a" / "0.png").write_bytes(content)
    try:
        found = load(tmp_path, broken="skip")
    except DataError as error:
        assert "different sizes" in str(error)
    else:
        assert len(found.labels) + len(found.skipped) == 4


def test_a_class_of_broken_files_only(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 1})
    (tmp_path / "b" / "0.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"all images in .*b are broken; b/0.png is broken"):
        load(tmp_path, broken="skip")
    (tmp_path / "a" / "0.png").write_bytes(b"x")
    (tmp_path / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"all images in .*a are broken"):
        load(tmp_path, broken="skip")


@pytest.mark.parametrize("limit", [20, 60])  # Pillow warns of more than the limit, and raises from twice it
def test_too_many_pixels(tmp_path, monkeypatch, limit):
    write_classes(tmp_path, {"a": 1, "b": 1}, size=10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"a/0.png is broken \(too many pixels\); so is 1 more"):
        load(tmp_path)


def test_images_of_different_sizes(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 1})
    pixels = write_image(tmp_path / "b" / "odd.png", random_images(7, 9, 3))
    with pytest.raises(
        DataError, match=r"sizes: a/0.png is 6x6, b/odd.png is 9x7; resize all with --size N$"
    ):
        load(tmp_path)
    found = load(tmp_path, size=5)
    assert found.shape == (3, 5, 5)
    resized = Image.fromarray(pixels).resize((5, 5), Image.Resampling.BILINEAR)
    assert np.array_equal(found.images[-1], np.asarray(resized).transpose(2, 0, 1))


def test_more_than_there_is_room_for(tmp_path, monkeypatch):
    write_classes(tmp_path, {"a": 2, "b": 1})
    monkeypatch.setattr(folder, "MAX_BYTES", 3 * 3 * 6 * 6 - 1)
    with pytest.raises(
        DataError, match=r"3 images as large as a/0.png, 6x6, take .* resize all with --size N"
    ):
        load(tmp_path)
    assert collection.MAX_BYTES == 2**33


def test_classes_without_images(tmp_path):
    write_classes(tmp_path, {"a": 2})
    with pytest.raises(DataError, match="has one folder only, a; give each class, at least two, a folder"):
        load(tmp_path)
    write_classes(tmp_path / "above" / "inside", {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"above has one folder only, inside; did you mean .*above/inside\?$"):
        load(tmp_path / "above")
    shutil.rmtree(tmp_path / "above")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"b has no images; each folder in .* is a class"):
        load(tmp_path)
    write_classes(tmp_path / "split" / "train", {"a": 2, "b": 2})
    (tmp_path / "split" / "val" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"val has no images in folders called as those of .*train"):
        load(tmp_path / "split")


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))

    write_classes(tmp_path, {"a": 2, "b": 2})
    monkeypatch.setattr(os, "scandir", scandir)  # what os.walk() uses; the tests may run as root
    with pytest.raises(DataError, match=r"cannot read .*a: Permission denied"):
        load(tmp_path)
    monkeypatch.setattr(os, "listdir", scandir)
    with pytest.raises(DataError, match=r"cannot read .*: Permission denied"):
        load(tmp_path)
