"""Is batch normalisation what lets a network of 16 or 20 layers learn?

VGG-style networks of 8, 16 and 20 layers on the digits: with batch normalisation and without it, on the same
batches, for as many steps. The learning rate is fair: each of the networks has the one of a grid that leads to
the least loss at the end with a seed that does not count. A network has learnt if it recognises 90 % of the
images held out; the step at which the loss, averaged over an epoch, first falls below half of that of guessing
says how fast.

The initialisation that decides is that of Glorot & Bengio (2010), the one there was when such networks were
published, which Simonyan & Zisserman (2015) recommend. Without batch normalisation two others are tried
besides: that of He et al. (2015), made for just such networks, which may do without the normalisation, and
PyTorch's default, with which signals shrink so fast that 8 layers may be too many.

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
from .finding import Curve, Finding, Panel, Report, seeds_named, silent, spread
from .networks import INITIALISATIONS, accuracy, computing, initialise, smoothed, train

NAME = "batchnorm-depth"
QUESTION = "Is batch normalisation what lets a network of 16 to 20 layers learn?"
DEPTHS, DEEP = (8, 16, 20), 16
STEPS, WIDTH, BATCH = 250, 4, 64
LEARNING_RATES = (0.3, 0.1, 0.03, 0.01)
TUNING_SEED = 1000  # of the trainings that choose the learning rate
LEARNT = 0.9  # accuracy


class Variant(NamedTuple):
    batch_norm: bool
    initialisation: str


VARIANTS = {
    "batch norm": Variant(True, "glorot"),
    "without": Variant(False, "glorot"),
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
    work = len(VARIANTS) * sum(depths) * steps * (len(learning_rates) + len(seeds))
    done = 0
    results: dict[str, dict[int, dict[str, Any]]] = {}

    def trained(name: str, depth: int, seed: int, lr: float, doing: str) -> tuple[Any, VGG]:
        def stepped() -> None:
            nonlocal done
            done += depth
            report(done / work, f"VGG-{depth}, {name}: {doing}")

        manual_seed(seed)
        variant = VARIANTS[name]
        model = VGG(depth, len(images.classes), images.shape[0], width, batch_norm=variant.batch_norm)
        initialise(model, variant.initialisation)
        return train(model, images, steps, lr, seed, batch_size, stepped=stepped), model

    epoch = math.ceil(len(images.images) / batch_size)
    with computing():
        for name in VARIANTS:
            results[name] = {}
            for depth in depths:
                tried = [
                    trained(name, depth, TUNING_SEED, lr, f"learning rate {lr:g}")[0].last_loss
                    for lr in learning_rates
                ]
                lr = learning_rates[int(np.argmin(tried))]
                found = [trained(name, depth, seed, lr, f"seed {seed}") for seed in seeds]
                results[name][depth] = {
                    "lr": lr,
                    "loss_by_lr": dict(zip(map(str, learning_rates), tried, strict=True)),
                    "losses": [training.losses.tolist() for training, _ in found],
                    "last_loss": [training.last_loss for training, _ in found],
                    "accuracy": [accuracy(model, images) for _, model in found],
                    "half_at": [
                        half_at(training.losses, epoch, len(images.classes)) for training, _ in found
                    ],
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

    least, most = min(accuracies("batch norm")), max(accuracies("without"))
    holds = least >= LEARNT > most
    rows = [
        [
            f"VGG-{depth}",
            name,
            f"{of[depth]['lr']:g}",
            spread(of[depth]["last_loss"]),
            _percent(of[depth]["accuracy"]),
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
                    dashed=not VARIANTS[name].batch_norm,
                )
                for number, name in enumerate(VARIANTS)
            ],
            log_y=True,
        )
        for depth in depths
    ]
    layers = " and ".join(map(str, deep))
    of_he = accuracies("without, He")
    learnt = sum(value >= LEARNT for value in of_he)
    verdict = (
        f"with batch normalisation networks of {layers} layers recognise {100 * least:.1f} % or more of the images "
        f"held out, without it {100 * most:.1f} % at best (asked: {100 * LEARNT:g} % or more, and less). "
        f"But He initialisation alone brings {learnt} of {len(of_he)} such networks that far, "
        f"{_percent(of_he)}: the normalisation is one way there, and not the only one."
        if learnt
        else f"with batch normalisation networks of {layers} layers recognise {100 * least:.1f} % or more of the "
        f"images held out, without it {100 * most:.1f} % at best (asked: {100 * LEARNT:g} % or more, and less). "
        f"With He initialisation and no normalisation it is {_percent(of_he)} in as many steps."
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
                f"SGD, momentum 0.9, cosine; learning rate: the best of {', '.join(map('{:g}'.format, learning_rates))} "
                "for each network",
            ),
            ("seeds", f"{seeds_named(seeds)}; {TUNING_SEED} to choose the learning rate"),
        ],
        f"networks of {layers} layers reach {100 * LEARNT:g} % on what is held out with batch normalisation in each "
        "seed, and without it in none (Glorot initialisation)",
        holds,
        verdict,
        [
            (
                "loss: over the last epoch, in nats; half at: the step at which it was half that of guessing",
                Table(
                    ["network", "normalisation", "lr", "loss", "held out", "half at"],
                    rows,
                    spare=["half at", "lr"],
                ),
            )
        ],
        panels,
        {"depths": list(depths), "steps": steps, "learning_rates": list(learning_rates), "results": results},
    )


def _percent(values: Sequence[float]) -> str:
    return f"{spread([100 * value for value in values], '.1f')} %"


def _steps(values: Sequence[int | None]) -> str:
    reached = [value for value in values if value is not None]
    if not reached:
        return "never"
    return spread(reached, ".0f") + (
        "" if len(reached) == len(values) else f", {len(values) - len(reached)} never"
    )
