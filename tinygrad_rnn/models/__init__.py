"""Models that a user trains, and the files they are kept in."""

from .char_lm import KINDS, CharLM, detach_state, join_states, split_state
from .files import Loaded, find_checkpoint, load, save

__all__ = [
    "KINDS",
    "CharLM",
    "Loaded",
    "detach_state",
    "find_checkpoint",
    "join_states",
    "load",
    "save",
    "split_state",
]
