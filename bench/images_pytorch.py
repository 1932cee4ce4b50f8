"""PyTorch as its users write it: modules, SGD with momentum, clip_grad_norm_."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from .images import CHANNELS, CLASSES, Work


def conv(inputs: int, outs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outs, 3, stride, padding=1, bias=False)


class Block(nn.Module):
    def __init__(self, inputs: int, outs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outs, stride), nn.BatchNorm2d(outs)
        self.conv2, self.bn2 = conv(outs, outs), nn.BatchNorm2d(outs)
        self.stride, self.added = stride, outs - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.added:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return F.relu(x + y)


class Model(nn.Module):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.conv, self.bn = conv(CHANNELS, work.width), nn.BatchNorm2d(work.width)
        blocks, made = [], work.width
        for stage in range(3):
            for number in range(work.blocks):
                outs = work.width * 2**stage
                blocks.append(Block(made, outs, 2 if stage and not number else 1))
                made = outs
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(made, CLASSES)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.output(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Training:
    memory_format = torch.contiguous_format

    def __init__(self, work: Work, start: dict[str, np.ndarray], threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self._clip = work.clip
        self._model = Model(work).to(memory_format=self.memory_format)
        self._model.load_state_dict(
            {name: torch.from_numpy(array) for name, array in start.items() if "." in name}, strict=False
        )
        self._optimizer = torch.optim.SGD(
            self._model.parameters(), lr=work.lr, momentum=work.momentum, weight_decay=work.weight_decay
        )
        self._batches = [torch.from_numpy(start[name]) for name in ("inputs", "targets")]
        self._done = 0

    def _loss(self, number: int) -> torch.Tensor:
        images, labels = (batches[number] for batches in self._batches)
        return F.cross_entropy(self._model(images.contiguous(memory_format=self.memory_format)), labels)

    def step(self) -> float:
        loss = self._loss(self._done % len(self._batches[0]))
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        self._optimizer.step()
        self._done += 1
        return loss.item()

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        loss = self._loss(0)
        loss.backward()
        return loss.item(), {name: p.grad.numpy() for name, p in self._model.named_parameters()}
