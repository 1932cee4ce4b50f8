"""Optimisers, gradient clipping, and learning-rate schedules."""

from . import schedules
from .clip import clip_grad_norm_
from .optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, by_name

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "by_name",
    "clip_grad_norm_",
    "schedules",
]
