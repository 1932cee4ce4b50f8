"""Images: sets of them from files and folders, what is held out, augmentation, and batches."""

from .augment import Augmentation
from .batches import Batches
from .folder import read_image
from .images import NAMES, ImageSet, holds_images, load_images
from .shapes import make_shapes

__all__ = [
    "NAMES",
    "Augmentation",
    "Batches",
    "ImageSet",
    "holds_images",
    "load_images",
    "make_shapes",
    "read_image",
]
