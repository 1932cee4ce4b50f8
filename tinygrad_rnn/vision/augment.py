"""Augmentation: images changed at random in ways that leave their class as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import SettingError, UsageError


@dataclass(frozen=True)
class Augmentation:
    """What may happen to each image, drawn for each one by itself. Nothing, unless said.

    shift  it moves by -shift to shift pixels down and as many to the right; what comes in at a border repeats
           the pixels there
    crop   it gets a border of `crop` black pixels, and a part of the size it had is cut out: a move as well,
           but black comes in. With crop 4 and flip it is that of He et al. (2016), section 4.2, for CIFAR-10
    flip   it is mirrored, left to right, with probability 1/2
    """

    shift: int = 0
    flip: bool = False
    crop: int = 0

    def __post_init__(self) -> None:
        for name, pixels in (("shift", self.shift), ("crop", self.crop)):
            if pixels < 0:
                raise SettingError(name, f"must be at least 0, not {pixels}")
        if self.shift and self.crop:
            raise UsageError("shift and crop both move an image; give one of them")

    def apply(self, images: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """The changed images, (B, C, H, W) as before; they themselves where there is nothing to do.

        SettingError for a move by as much as the images' size.
        """
        count, _, height, width = images.shape
        if reach := max(self.shift, self.crop):
            if reach >= min(height, width):
                name = "shift" if self.shift else "crop"
                raise SettingError(
                    name, f"must be less than the size of the images, {height}x{width}, not {reach}"
                )
            borders = ((0, 0), (0, 0), (reach, reach), (reach, reach))
            padded = np.pad(images, borders, mode="edge" if self.shift else "constant")
            down, right = draw.integers(0, 2 * reach + 1, (2, count))
            windows = sliding_window_view(padded, (height, width), axis=(2, 3))
            images = windows[np.arange(count), :, down, right]
        if self.flip:
            mirrored = draw.integers(0, 2, count).astype(bool)
            images = np.where(mirrored[:, None, None, None], images[..., ::-1], images)
        return images
