"""Does more depth make a network worse, and does it still do so with shortcuts?

PlainNet and ResNet of 20 and 56 layers with batch normalisation, as published (He et al., 2016, "Deep
residual learning for image recognition", figures 1 and 6), but narrow and on the digits: the same batches,
steps and learning rate for all. What counts is the training loss, averaged over the last epoch: it is about
what can be optimised, not about overfitting, and here about the first dozen epochs.

The learning rate that decides is 0.03, a third of the published one, with which ResNet-56 is slow to begin,
and with some seeds too slow for so few steps. (The paper warms its ResNet-110 up for the same reason.) So the
residual networks are trained with the published one as well, and the verdict says what comes of it.

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
LEARNING_RATE, PUBLISHED_RATE, DECAY = 0.03, 0.1, 1e-4
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
    work, done = (len(NETWORKS) + 1) * len(seeds) * steps * sum(depths), 0

    def trained(name: str, depth: int, lr: float) -> dict[str, Any]:
        of: dict[str, Any] = {key: [] for key in ("losses", "last_loss", "train_accuracy", "accuracy")}
        for seed in seeds:

            def stepped(doing: str = f"{name}-{depth}, learning rate {lr:g}, seed {seed}") -> None:
                nonlocal done
                done += depth
                report(done / work, doing)

            manual_seed(seed)
            model = NETWORKS[name](depth=depth, classes=len(images.classes), in_channels=1, width=width)
            training = train(model, images, steps, lr, seed, batch_size, DECAY, stepped)
            of["losses"].append(training.losses.tolist())
            of["last_loss"].append(training.last_loss)
            of["train_accuracy"].append(accuracy(model, images, held_out=False))
            of["accuracy"].append(accuracy(model, images))
        return of

    with computing():
        results = {
            f"{name}-{depth}": trained(name, depth, LEARNING_RATE) for name in NETWORKS for depth in depths
        }
        published = {f"ResNet-{depth}": trained("ResNet", depth, PUBLISHED_RATE) for depth in depths}
    epoch = math.ceil(len(images.images) / batch_size)
    return _finding(seeds, depths, steps, width, batch_size, epoch, results, published)


def margins(results: dict[str, dict[str, Any]], name: str, depths: Sequence[int]) -> list[float]:
    """For each seed: the loss of the deeper network minus that of the other."""
    shallow, deep = (results[f"{name}-{depth}"]["last_loss"] for depth in depths)
    return [below - above for below, above in zip(deep, shallow, strict=True)]


def no_worse(changes: Sequence[float]) -> bool:
    """Whether that can be said of the deeper network, in each seed."""
    return all(change <= NO_WORSE for change in changes)


def _finding(
    seeds: Sequence[int],
    depths: tuple[int, int],
    steps: int,
    width: int,
    batch_size: int,
    epoch: int,
    results: dict[str, dict[str, Any]],
    published: dict[str, dict[str, Any]],
) -> Finding:
    plain, residual = margins(results, "plain", depths), margins(results, "ResNet", depths)
    faster = margins(published, "ResNet", depths)
    holds = all(change >= WORSE for change in plain) and no_worse(residual)
    rated = results | {f"{name}, rate {PUBLISHED_RATE:g}": of for name, of in published.items()}
    rows = [
        [
            name,
            span(of["last_loss"]),
            *(percent(of[key]) for key in ("train_accuracy", "accuracy")),
        ]
        for name, of in rated.items()
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
                    colour=("ResNet" in name) + ("rate" in name),
                    line="--" if f"-{deep}" in name else "-",
                )
                for name, of in rated.items()
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
        f"residual one (asked: {NO_WORSE:+g} at most). With the published rate of {PUBLISHED_RATE:g} "
        f"the residual one's changes by {span(faster, '+.4f')}: there the claim "
        f"{'holds of it as well' if no_worse(faster) else 'does not hold'}."
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
                f"SGD, momentum 0.9, learning rate {LEARNING_RATE:g} (decides; {PUBLISHED_RATE:g} is the "
                f"published one), cosine, weight decay {DECAY:g}",
            ),
            ("seeds", seeds_named(seeds)),
        ],
        f"training loss over the last epoch, with learning rate {LEARNING_RATE:g}: plain-{deep} above "
        f"plain-{shallow} by {WORSE:g} nats or more in each seed, ResNet-{deep} above ResNet-{shallow} by "
        f"{NO_WORSE:g} at most",
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
            "results_at_published_rate": published,
            "residual_margin_at_published_rate": faster,
        },
        given=f"with learning rate {LEARNING_RATE:g}",
    )
