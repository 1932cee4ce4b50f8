"""Files that the tests read: tiny ones, of each form that there is."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return (
        struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_idx(folder: Path, part: str, images: np.ndarray, labels: np.ndarray, packed: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


def cifar(images: np.ndarray, labels: np.ndarray) -> bytes:
    return (
        np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1).astype(np.uint8).tobytes()
    )


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_image(path: Path, pixels: np.ndarray, **options: object) -> np.ndarray:
    """Write (H, W) or (H, W, 3) pixels as a file of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def write_classes(folder: Path, counts: dict[str, int], size: int = 6) -> dict[str, np.ndarray]:
    """PNG files `CLASS/N.png` in colour; gives what they hold by their names."""
    written = {}
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            pixels = random_images(size, size, 3, seed=100 * label + number)
            written[f"{name}/{number}.png"] = write_image(folder / name / f"{number}.png", pixels)
    return written
