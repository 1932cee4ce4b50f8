"""Training a character model: configuration, the trainer and its events, the run folder."""

from . import events
from .characters import CharTrainer
from .config import ImageConfig, TrainConfig
from .evaluation import evaluate
from .run import RunFolder, newest
from .trainer import Trainer

__all__ = [
    "CharTrainer",
    "ImageConfig",
    "RunFolder",
    "TrainConfig",
    "Trainer",
    "evaluate",
    "events",
    "newest",
]
