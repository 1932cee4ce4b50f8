"""Training character models and image classifiers: settings, the trainer and its events, the run folder."""

from . import events
from .characters import CharTrainer
from .config import ImageConfig, TrainConfig
from .evaluation import evaluate
from .images import ImageTrainer
from .run import RunFolder, newest
from .trainer import Trainer

__all__ = [
    "CharTrainer",
    "ImageConfig",
    "ImageTrainer",
    "RunFolder",
    "TrainConfig",
    "Trainer",
    "evaluate",
    "events",
    "newest",
]
