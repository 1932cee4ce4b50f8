"""Is batch normalisation what lets a network of 16 or 20 layers learn?

VGG-style networks of 8, 16 and 20 layers on the digits: with batch normalisation and without it, on the same
batches, for as many steps. Each of them is trained with every learning rate of a grid, and has the one with
the least loss at the end (the median over the seeds of the last epoch's): the best that can be said of it. A
network has learnt if it recognises 90 % of the images held out. The step at which the loss, averaged over an
epoch, first falls below half of that of guessing says how fast.

The initialisation that decides is that of Glorot & Bengio (2010), the one there was when such networks were
published. Simonyan & Zisserman (2015) write that theirs, far larger, can be trained from it without
normalisation; here 16 layers could not with seed 100, nor in four times the steps, with four times the
channels, with rates up to 1, or on images of 32x32 pixels (the shapes).

Without batch normalisation two others are tried besides: that of He et al. (2015), made for just such
networks, which may do without the normalisation, and PyTorch's default, with which signals shrink so fast
that 8 layers may be too many. (That is why it does not decide: trainings with seed 100, before, showed it,
and where no network learns nothing is said about depth.)

The claim holds if with batch normalisation the networks of 16 and more layers learn in each seed, and without
it they do in none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine.random import manual_seed
from ..inspect.view import Table
from ..models import VGG
from ..vision import load_images
from .finding import Curve, Finding, Panel, Report, percent, seeds_named, silent, span
from .networks import INITIALISATIONS, Training, accuracy, computing, initialise, smoothed, train

NAME = "batchnorm-depth"
QUESTION = "Is batch normalisation what lets a network of 16 to 20 layers learn?"
DEPTHS, DEEP = (8, 16, 20), 16
STEPS, WIDTH, BATCH = 250, 4, 64
LEARNING_RATES = (0.1, 0.03, 0.01)
LEARNT = 0.9  # accuracy
CLASSES = 10


class Variant(NamedTuple):
    batch_norm: bool
    initialisation: str


VARIANTS = {
    "batch norm": Variant(True, "glorot"),
    "without, Glorot": Variant(False, "glorot"),
    "without, He": Variant(False, "he"),
    "without, PyTorch": Variant(False, "uniform"),
}


def run(
    seeds: Sequence[int] = (0, 1, 2),
    report: Report = silent,
    depths: Sequence[int] = DEPTHS,
    steps: int = STEPS,
    width: int = WIDTH,
    batch_size: int = BATCH,
    learning_rates: Sequence[float] = LEARNING_RATES,
) -> Finding:
    """depths: layers, each one that a VGG can have. width: channels of the first stage."""
    images = load_images("digits")
    work = len(VARIANTS) * sum(depths) * steps * len(learning_rates) * len(seeds)
    done = 0
    results: dict[str, dict[int, dict[str, Any]]] = {}

    def trained(name: str, depth: int, seed: int, lr: float) -> tuple[Training, float]:
        def stepped() -> None:
            nonlocal done
            done += depth
            report(done / work, f"VGG-{depth}, {name}, learning rate {lr:g}, seed {seed}")

        manual_seed(seed)
        variant = VARIANTS[name]
        model = VGG(depth, CLASSES, 1, width, batch_norm=variant.batch_norm)
        initialise(model, variant.initialisation)
        training = train(model, images, steps, lr, seed, batch_size, stepped=stepped)
        return training, accuracy(model, images)

    epoch = math.ceil(len(images.images) / batch_size)
    with computing():
        for name in VARIANTS:
            results[name] = {}
            for depth in depths:
                tried = {lr: [trained(name, depth, seed, lr) for seed in seeds] for lr in learning_rates}
                losses = {lr: float(np.median([t.last_loss for t, _ in of])) for lr, of in tried.items()}
                lr = min(losses, key=lambda lr: losses[lr])
                found = tried[lr]
                results[name][depth] = {
                    "lr": lr,
                    "median_loss_by_lr": {str(lr): loss for lr, loss in losses.items()},
                    "losses": [training.losses.tolist() for training, _ in found],
                    "last_loss": [training.last_loss for training, _ in found],
                    "accuracy": [recognised for _, recognised in found],
                    "half_at": [half_at(training.losses, epoch, CLASSES) for training, _ in found],
                }
    return _finding(seeds, depths, steps, width, batch_size, learning_rates, epoch, results)


def half_at(losses: np.ndarray, epoch: int, classes: int) -> int | None:
    """The first step at which the mean over an epoch is below half the loss of guessing; None if there is
    none."""
    below = np.flatnonzero(smoothed(losses, epoch) < math.log(classes) / 2)
    return int(below[0]) + 1 if below.size else None


def _finding(
    seeds: Sequence[int],
    depths: Sequence[int],
    steps: int,
    width: int,
    batch_size: int,
    learning_rates: Sequence[float],
    epoch: int,
    results: dict[str, dict[int, dict[str, Any]]],
) -> Finding:
    deep = [depth for depth in depths if depth >= DEEP] or [max(depths)]

    def accuracies(name: str) -> list[float]:
        return [value for depth in deep for value in results[name][depth]["accuracy"]]

    least, most = min(accuracies("batch norm")), max(accuracies("without, Glorot"))
    holds = least >= LEARNT > most
    rows = [
        [
            f"VGG-{depth}",
            name,
            f"{of[depth]['lr']:g}",
            span(of[depth]["last_loss"], ".2g"),
            percent(of[depth]["accuracy"]),
            _steps(of[depth]["half_at"]),
        ]
        for depth in depths
        for name, of in results.items()
    ]
    panels = [
        Panel(
            f"{depth} layers",
            "step",
            "training loss, mean over an epoch (nats)",
            [
                Curve(
                    name,
                    range(1, steps + 1),
                    [smoothed(np.array(losses), epoch).tolist() for losses in results[name][depth]["losses"]],
                    colour=number,
                    line="-" if VARIANTS[name].batch_norm else ":" if "PyTorch" in name else "--",
                )
                for number, name in enumerate(VARIANTS)
            ],
            log_y=True,
            limit=(math.log(CLASSES), "guessing"),
        )
        for depth in depths
    ]
    layers = " and ".join(map(str, deep))
    of_he = accuracies("without, He")
    learnt = sum(value >= LEARNT for value in of_he)
    verdict = (
        f"with batch normalisation networks of {layers} layers recognise {100 * least:.1f} % or more of the "
        f"images held out, without it {100 * most:.1f} % at best (asked: {100 * LEARNT:g} % or more with "
        "it, and less without). "
    ) + (
        f"But He initialisation without it brings {learnt} of {len(of_he)} such networks that far as well "
        f"(all of them: {percent(of_he)} %): the normalisation is one way there, and not the only one."
        if learnt
        else f"He initialisation without it brings them to {percent(of_he)} %."
    )
    return Finding(
        NAME,
        QUESTION,
        [
            ("data", f"the digits, 8x8, {steps} steps of {batch_size} images, a fifth held out"),
            ("networks", f"VGG of {width} to {8 * width} channels, three halvings"),
            (
                "initialisation",
                f"{INITIALISATIONS['glorot']} (decides); without: also He's and PyTorch's default",
            ),
            (
                "training",
                "SGD, momentum 0.9, cosine; for each network the best learning rate of "
                + ", ".join(map("{:g}".format, learning_rates)),
            ),
            ("seeds", seeds_named(seeds)),
        ],
        f"networks of {layers} layers reach {100 * LEARNT:g} % on what is held out with batch normalisation "
        "in each seed, and without it in none (Glorot initialisation)",
        holds,
        verdict,
        [
            (
                "lr: learning rate; loss: over the last epoch, in nats; half at: the step at which it was "
                "half that of guessing; from the lowest of the seeds to the highest",
                Table(
                    ["network", "normalisation", "lr", "loss", "held out (%)", "half at"],
                    rows,
                    spare=["half at", "lr"],
                ),
            )
        ],
        panels,
        {"depths": list(depths), "steps": steps, "learning_rates": list(learning_rates), "results": results},
        given="with Glorot's initialisation",
    )


def _steps(values: Sequence[int | None]) -> str:
    reached = [value for value in values if value is not None]
    if not reached:
        return "never"
    return span(reached, ".0f") + (
        "" if len(reached) == len(values) else f", {len(values) - len(reached)} never"
    )
