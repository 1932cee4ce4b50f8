"""That all contestants compute the same, before anybody measures how fast.

Each starts from the same weights and windows. Compared are the loss and every gradient of the first window,
and the losses of some steps after it, which follow from clipping, the optimiser, and the state carried on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tinygrad_rnn.training.bench import WINDOWS, Work

from . import images

LOSS, GRADIENT, LATER = 1e-5, 1e-3, 1e-4  # relative; of a gradient to its largest element
STEPS = 5

# The small clip makes sure that it clips; with Adagrad over an embedding the steps of the classic program,
# which has none, are others.
SMALL = {"embedding_size": 8, "hidden_size": 24, "seq_length": 7, "symbols": 11}
NETWORKS = [Work(kind=kind, layers=2, batch_size=5, clip=0.05, **SMALL) for kind in ("rnn", "lstm", "gru")]
RESNET = images.Work(depth=8, width=5, size=8, batch_size=6)
CLASSIC = Work(kind="rnn", layers=1, batch_size=1, optimizer="adagrad", lr=0.1, **SMALL)


class DifferentError(Exception):
    """Two contestants do not compute the same."""


def write_start(work: Work | images.Work, file: Path) -> None:
    """The weights and windows, or images, that all begin with: see child.read_start()."""
    np.savez(file, **(work.start() if isinstance(work, images.Work) else _start(work)))


def _start(work: Work) -> dict[str, np.ndarray]:
    trainer = work.trainer()
    windows = [trainer.windows[number] for number in range(WINDOWS)]
    arrays = {name: parameter.numpy() for name, parameter in trainer.model.named_parameters()}
    arrays["inputs"], arrays["targets"] = (np.stack(arrays_) for arrays_ in zip(*windows, strict=True))
    return arrays


def differences(
    ours: tuple[float, Mapping[str, np.ndarray]], theirs: tuple[float, Mapping[str, np.ndarray]]
) -> Iterator[str]:
    """Where the loss or a gradient is another, in words."""
    (loss, gradients), (their_loss, their_gradients) = ours, theirs
    if not abs(loss - their_loss) <= LOSS * abs(their_loss):
        yield f"the loss is {loss:.8g} here, {their_loss:.8g} there"
    for name in sorted({*gradients, *their_gradients}):
        if name not in gradients or name not in their_gradients:
            yield f"only one of them has a gradient of {name}"
            continue
        here, there = gradients[name], their_gradients[name]
        if here.shape != there.shape:
            yield f"the gradient of {name} is of shape {here.shape} here, {there.shape} there"
            continue
        error, size = float(np.abs(here - there).max()), float(np.abs(there).max())
        if not (size > 0 and error <= GRADIENT * size):
            yield f"the gradient of {name} differs by {error:.3g}; its largest element is {size:.3g}"


def later_differences(ours: list[float], theirs: list[float]) -> Iterator[str]:
    """Which of the losses of successive steps are others, in words."""
    for number, (loss, their_loss) in enumerate(zip(ours, theirs, strict=True), start=1):
        if not abs(loss - their_loss) <= LATER * abs(their_loss):
            yield f"the loss of step {number} is {loss:.8g} here, {their_loss:.8g} there"
