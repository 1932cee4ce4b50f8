"""Does more depth make a network worse, and does it still do so with shortcuts?

PlainNet and ResNet of 20 and 56 layers with batch normalisation, as published (He et al., 2016, "Deep
residual learning for image recognition", figures 1 and 6), but narrow and on the digits: the same batches,
steps and learning rate for all. (0.03: a third of the published one, with which ResNet-56 is slow to begin.
The paper warms its ResNet-110 up for the same reason.) What counts is the training loss, averaged over the
last epoch: it is about what can be optimised, not about overfitting.

The claim holds if in each seed the deeper plain network's loss is larger than the other's by 0.1 nats or
more, and the deeper residual one's by 0.02 at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..engine.random import manual_seed
from ..inspect.view import Table
from ..models import ImageClassifier, PlainNet, ResNet
from ..vision import load_images
from .finding import Curve, Finding, Panel, Report, percent, seeds_named, silent, span
from .networks import INITIALISATIONS, accuracy, computing, smoothed, train

NAME = "residual-depth"
QUESTION = "Does a deeper network train worse, and do shortcuts change that?"
DEPTHS = (20, 56)
STEPS, WIDTH, BATCH = 300, 8, 64
LEARNING_RATE, DECAY = 0.03, 1e-4
WORSE, NO_WORSE = 0.1, 0.02  # nats
NETWORKS: dict[str, type[ImageClassifier]] = {"plain": PlainNet, "ResNet": ResNet}


def run(
    seeds: Sequence[int] = (0, 1, 2),
    report: Report = silent,
    depths: tuple[int, int] = DEPTHS,
    steps: int = STEPS,
    width: int = WIDTH,
    batch_size: int = BATCH,
) -> Finding:
    """depths: layers, fewer and more. width: channels of the first stage."""
    images = load_images("digits")
    work, done = len(NETWORKS) * len(seeds) * steps * sum(depths), 0
    results: dict[str, dict[str, Any]] = {}
    with computing():
        for name, kind in NETWORKS.items():
            for depth in depths:
                of: dict[str, Any] = {
                    key: [] for key in ("losses", "last_loss", "train_accuracy", "accuracy")
                }
                results[f"{name}-{depth}"] = of
                for seed in seeds:

                    def stepped(depth: int = depth, doing: str = f"{name}-{depth}, seed {seed}") -> None:
                        nonlocal done
                        done += depth
                        report(done / work, doing)

                    manual_seed(seed)
                    model = kind(depth=depth, classes=len(images.classes), in_channels=1, width=width)
                    training = train(model, images, steps, LEARNING_RATE, seed, batch_size, DECAY, stepped)
                    of["losses"].append(training.losses.tolist())
                    of["last_loss"].append(training.last_loss)
                    of["train_accuracy"].append(accuracy(model, images, held_out=False))
                    of["accuracy"].append(accuracy(model, images))
    epoch = math.ceil(len(images.images) / batch_size)
    return _finding(seeds, depths, steps, width, batch_size, epoch, results)


def margins(results: dict[str, dict[str, Any]], name: str, depths: Sequence[int]) -> list[float]:
    """For each seed: the loss of the deeper network minus that of the other."""
    shallow, deep = (results[f"{name}-{depth}"]["last_loss"] for depth in depths)
    return [below - above for below, above in zip(deep, shallow, strict=True)]


def _finding(
    seeds: Sequence[int],
    depths: tuple[int, int],
    steps: int,
    width: int,
    batch_size: int,
    epoch: int,
    results: dict[str, dict[str, Any]],
) -> Finding:
    plain, residual = margins(results, "plain", depths), margins(results, "ResNet", depths)
    holds = min(plain) >= WORSE and max(residual) <= NO_WORSE
    rows = [
        [
            name,
            span(of["last_loss"]),
            *(percent(of[key]) for key in ("train_accuracy", "accuracy")),
        ]
        for name, of in results.items()
    ]
    shallow, deep = depths
    panels = [
        Panel(
            "Training",
            "step",
            "training loss, mean over an epoch (nats)",
            [
                Curve(
                    name,
                    range(1, steps + 1),
                    [smoothed(np.array(losses), epoch).tolist() for losses in of["losses"]],
                    colour="ResNet" in name,
                    line="--" if name.endswith(f"-{deep}") else "-",
                )
                for name, of in results.items()
            ],
            log_y=True,
        ),
        Panel(
            "At the end",
            "layers of the network",
            "images recognised (%)",
            [
                Curve(
                    f"{name}, {said}",
                    depths,
                    [
                        [100 * results[f"{name}-{depth}"][key][i] for depth in depths]
                        for i in range(len(seeds))
                    ],
                    colour=name == "ResNet",
                    line="--" if key == "accuracy" else "-",
                )
                for name in NETWORKS
                for key, said in (("train_accuracy", "trained on"), ("accuracy", "held out"))
            ],
        ),
    ]
    verdict = (
        f"from {shallow} to {deep} layers the training loss changes by {span(plain, '+.2f')} nats in the "
        f"plain network (asked: {WORSE:+g} or more in each seed) and by {span(residual, '+.4f')} in the "
        f"residual one (asked: {NO_WORSE:+g} at most)."
    )
    return Finding(
        NAME,
        QUESTION,
        [
            ("data", f"the digits, 8x8, {steps} steps of {batch_size} images, a fifth held out"),
            ("networks", f"of {width}, {2 * width} and {4 * width} channels, batch normalisation in all"),
            ("initialisation", INITIALISATIONS["he"]),
            (
                "training",
                f"SGD, momentum 0.9, learning rate {LEARNING_RATE:g}, cosine, weight decay {DECAY:g}",
            ),
            ("seeds", seeds_named(seeds)),
        ],
        f"training loss over the last epoch: plain-{deep} above plain-{shallow} by {WORSE:g} nats or more in "
        f"each seed, ResNet-{deep} above ResNet-{shallow} by {NO_WORSE:g} at most",
        holds,
        verdict,
        [
            (
                "At the end, from the lowest of the seeds to the highest",
                Table(
                    ["network", "training loss (nats)", "trained on (%)", "held out (%)"],
                    rows,
                    ["trained on (%)"],
                ),
            )
        ],
        panels,
        {
            "depths": list(depths),
            "steps": steps,
            "results": results,
            "plain_margin": plain,
            "residual_margin": residual,
        },
    )
