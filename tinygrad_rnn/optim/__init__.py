"""Optimisers, gradient clipping, learning-rate schedules, and averages of the parameters."""

from . import schedules
from .average import Average
from .clip import clip_grad_norm_
from .optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, by_name

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Average",
    "Optimizer",
    "RMSprop",
    "by_name",
    "clip_grad_norm_",
    "schedules",
]
