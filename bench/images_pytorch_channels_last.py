"""The same, with the channels last in memory, as PyTorch's users write it who have read its page on that."""

from __future__ import annotations

import torch

from . import images_pytorch
from .images import Work as Work


class Training(images_pytorch.Training):
    memory_format = torch.channels_last
