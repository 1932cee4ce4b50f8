"""Training a character model: configuration, the trainer and its events, the run folder."""

from . import events
from .config import TrainConfig
from .evaluation import evaluate
from .run import RunFolder, newest
from .trainer import Trainer

__all__ = ["RunFolder", "TrainConfig", "Trainer", "evaluate", "events", "newest"]
