"""Models that a user trains, and the files they are kept in."""

from .char_lm import KINDS, CharLM, detach_state, join_states, split_state
from .files import Loaded, find_checkpoint, load, save
from .image_classifiers import IMAGE_MODELS, VGG, ImageClassifier, PlainNet, ResNet
from .image_files import ImageNotes, LoadedClassifier
from .image_files import load as load_classifier

__all__ = [
    "IMAGE_MODELS",
    "KINDS",
    "VGG",
    "CharLM",
    "ImageClassifier",
    "ImageNotes",
    "Loaded",
    "LoadedClassifier",
    "PlainNet",
    "ResNet",
    "detach_state",
    "find_checkpoint",
    "join_states",
    "load",
    "load_classifier",
    "save",
    "split_state",
]
