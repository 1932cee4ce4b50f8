"""A folder of images with a sub-folder for each class, read by Pillow."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import DataError
from ..text.sources import unreadable
from .collection import INSTALL, MAX_BYTES, Collection, Labelled, folder_name, folder_names, shown

if TYPE_CHECKING:
    from PIL import Image

# What Pillow may take a file for, whatever its name: no format that starts another program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_SUFFIXES = tuple(".png .jpg .jpeg .bmp .gif .webp .tif .tiff .ppm .pgm .pbm .pnm".split())
_HELD_OUT = ("val", "valid", "validation", "test")
_GRAY = ("1", "L", "LA")
_GRAY_16 = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT = ("LA", "PA", "RGBA")


class _File(NamedTuple):
    path: Path
    shown: str  # from the folder on
    label: int


def load(folder: Path, size: int | None, gray: bool, skip: bool) -> Collection:
    """The images of `folder`, whose sub-folders are the classes, or else `train` and one of `val`, `valid`,
    `validation` and `test`, whose sub-folders are.

    Read are the files with the ending of an image in a class's folder and below it, in the order of their
    paths; hidden ones and linked folders below it are left out. The camera's turn is undone; what is
    transparent is laid on white; of an animation the first frame counts; 16 bits become 8. If all images are
    gray, or `gray` says so, they have one channel, else three.

    size  all are resized to size x size, whatever their proportions (Pillow's bilinear filter, which averages
          where it shrinks). Without it, images of different sizes are a DataError.
    skip  leave broken files out instead of raising DataError for them
    """
    train, held_out = _parts(folder)
    classes = _class_folders(train)
    files = _files(folder, train, classes, required=True)
    held_files: list[_File] = []
    if held_out is not None:
        if extra := sorted(set(folder_names(held_out)) - set(classes)):
            raise DataError(f"{shown(held_out)} has a class {extra[0]}, which {shown(train)} has not")
        held_files = _files(folder, held_out, classes, required=False)
        if not held_files:
            raise DataError(f"{shown(held_out)} has no images in folders called as those of {shown(train)}")

    reader = _Reader(size, gray, len(files) + len(held_files))
    read, held_read = reader.images(files), reader.images(held_files)
    if reader.broken and not skip:
        others = len(reader.broken) - 1
        more = f"; so {'is' if others == 1 else 'are'} {others:,} more" if others else ""
        raise DataError(f"{shown(folder)}: {reader.broken[0]}{more}; --broken skip leaves them out")
    lost = [
        train / name for label, name in enumerate(classes) if all(file.label != label for file, _ in read)
    ]
    if held_out is not None and not held_read:
        lost.append(held_out)
    if lost:
        raise DataError(f"all images in {shown(lost[0])} are broken; {reader.broken[0]}")

    channels = max(len(image) for _, image in read + held_read)
    return Collection(
        folder_name(folder),
        tuple(classes),
        _stacked(read, channels),
        _stacked(held_read, channels) if held_read else None,
        tuple(reader.broken),
    )


def _parts(folder: Path) -> tuple[Path, Path | None]:
    """The folder of what to train on, and of what to hold out. A class may be called train as well."""
    inside = folder_names(folder)
    if "train" not in inside or not folder_names(folder / "train"):
        return folder, None
    held_out = [name for name in _HELD_OUT if name in inside]
    return folder / "train", folder / held_out[0] if held_out else None


def _class_folders(folder: Path) -> list[str]:
    classes = folder_names(folder)
    if len(classes) == 1 and len(folder_names(folder / classes[0])) > 1:
        raise DataError(
            f"{shown(folder)} has one folder only, {classes[0]}; did you mean {shown(folder / classes[0])}?"
        )
    if len(classes) < 2:
        raise DataError(
            f"{shown(folder)} has {f'one folder only, {classes[0]}' if classes else 'no folders'}; "
            "give each class, at least two, a folder of its images"
        )
    return classes


def _files(folder: Path, part: Path, classes: list[str], required: bool) -> list[_File]:
    """The files with images in the folders of the classes; required: in each of them."""

    def fail(error: OSError) -> None:
        raise unreadable(shown(Path(error.filename)), error)

    files: list[_File] = []
    for label, name in enumerate(classes):
        found: list[Path] = []
        if required or os.path.isdir(part / name):
            for at, inside, names in os.walk(part / name, onerror=fail):
                inside[:] = [each for each in inside if not each.startswith(".")]
                found += [Path(at, each) for each in names if _is_there(at, each)]
        if required and not found:
            raise DataError(f"{shown(part / name)} has no images; each folder in {shown(part)} is a class")
        as_shown = sorted((path.relative_to(folder).as_posix(), path) for path in found)
        files += [_File(path, name, label) for name, path in as_shown]
    return files


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def _is_there(at: str, name: str) -> bool:
    """Whether it is an image, by its name. A link that leads nowhere is a broken image, a pipe is none."""
    path = os.path.join(at, name)
    return is_image(name) and (os.path.isfile(path) or not os.path.exists(path))


class _Reader:
    """Reads files, all to one size. broken: those that could not be read, and why."""

    def __init__(self, size: int | None, gray: bool, count: int) -> None:
        self.broken: list[str] = []
        self._size, self._gray, self._count = size, gray, count
        self._first: tuple[_File, tuple[int, ...]] | None = None

    def images(self, files: list[_File]) -> list[tuple[_File, np.ndarray]]:
        """The images that are not broken, (C, H, W) each."""
        images = []
        for file in files:
            try:
                size = None if self._size is None else (self._size, self._size)
                image = _read(file.path, size, self._gray)
            except Exception as error:  # Pillow raises whatever it stumbles over in a damaged file
                self.broken.append(f"{file.shown} is broken ({_reason(file.path, error)})")
                continue
            self._check(file, image)
            images.append((file, image))
        return images

    def _check(self, file: _File, image: np.ndarray) -> None:
        height, width = image.shape[1:]
        if self._first is None:
            self._first = file, image.shape
            if (total := image.nbytes * self._count) > MAX_BYTES:
                raise DataError(
                    f"{self._count:,} images as large as {file.shown}, {width}x{height}, take "
                    f"{total / 2**30:,.0f} GiB, of {MAX_BYTES >> 30} possible; resize all with --size N"
                )
        other, shape = self._first
        if shape[1:] != (height, width):
            raise DataError(
                f"images of different sizes: {other.shown} is {shape[2]}x{shape[1]}, {file.shown} is "
                f"{width}x{height}; resize all with --size N"
            )


def _stacked(read: list[tuple[_File, np.ndarray]], channels: int) -> Labelled:
    images = np.empty((len(read), channels, *read[0][1].shape[1:]), np.uint8)
    for place, (_, image) in enumerate(read):
        images[place] = image  # a gray one into each channel
    return Labelled(images, np.array([file.label for file, _ in read], np.int64))


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """One image made as load() makes it, and of this shape: uint8 (C, H, W). DataError for a broken file."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise DataError(f"reading an image takes Pillow: {INSTALL}") from None
    channels, height, width = shape
    try:
        pixels = _read(path, (width, height), gray=channels == 1)
    except Exception as error:  # Pillow raises whatever it stumbles over in a damaged file
        raise DataError(f"{shown(path)} is no image that can be read ({_reason(path, error)})") from None
    return np.ascontiguousarray(np.broadcast_to(pixels, shape))  # a gray one into each channel


def _read(path: Path, size: tuple[int, int] | None, gray: bool) -> np.ndarray:
    """size: (width, height)"""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=_FORMATS) as file:
            image = as_bytes(ImageOps.exif_transpose(file), gray)
    if size is not None:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def as_bytes(image: Image.Image, gray: bool) -> Image.Image:
    """The image in the mode L or RGB."""
    from PIL import Image

    if image.mode in _GRAY_16:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("its pixels have 32 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    is_gray = gray or image.mode in _GRAY
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if is_gray else "RGB")


def _reason(path: Path, error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no image of a kind that is read" if os.path.getsize(path) else "it is empty"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too many pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
