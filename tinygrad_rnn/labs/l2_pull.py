"""Where does L2 regularisation pull a network: to the identity, or to zero?

First the pull alone: the optimiser's steps with a gradient of zero, which make each weight w of a block into
(1 - lr * weight_decay) w. A branch without biases and normalisations is linear in each of its layers (ReLUs
between them commute with positive factors), so that after t steps with k layers decaying it is exactly
(1 - lr * weight_decay)^(k t) times what it was. That is the distance of a residual block from the identity,
||block(x) - x|| / ||x||, and of a plain block from zero, ||block(x)|| / ||x||. Measured in float64 and compared
with the prediction.

Then the pull against data: plain and residual networks without normalisation (which would undo the scale of
the weights before it) and without biases learn the digits under ever more weight decay. How large are the
residual branches beside their inputs, ||branch(x)|| / ||x|| (blocks that change the shape left out; the
geometric mean over the others), what is left of the signal in plain blocks, ||block(x)|| / ||x||, and what do
the networks still recognise?

The claim holds if (1) what is measured differs from what is predicted by a millionth at most; (2) in each seed
the branches are at most a tenth as large at the strongest decay as without any; (3) there is a decay at which
in each seed the plain network is at chance, 20 % or less, and the residual one recognises 80 % or more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine.ops.elementwise import relu
from ..engine.random import manual_seed
from ..engine.tensor import no_grad, tensor
from ..inspect.view import Table
from ..models import ImageClassifier, PlainNet, ResNet
from ..nn import Module, PlainBlock, ResidualBlock, Sequential
from ..optim import SGD
from ..vision import Batches, ImageSet, load_images
from .finding import Curve, Finding, Panel, Report, seeds_named, silent, spread
from .networks import INITIALISATIONS, accuracy, computing, in_float64, train, without_biases

NAME = "l2-pull"
QUESTION = "Does weight decay pull a residual network towards the identity, and a plain one towards zero?"
SHAPE = (2, 4, 5, 5)  # images, channels, height, width, of the pull alone
PURE_STEPS, PURE_LR, PURE_DECAY = 200, 0.1, 0.1
STACKED = 10  # plain blocks
DECAYS = (0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
DEPTH, STEPS, WIDTH, BATCH, LEARNING_RATE = 14, 250, 8, 64, 0.01
EXACT, SMALLER, CHANCE, RECOGNISES = 1e-6, 0.1, 0.2, 0.8
NETWORKS: dict[str, type[ImageClassifier]] = {"plain": PlainNet, "ResNet": ResNet}


def run(
    seeds: Sequence[int] = (0, 1, 2),
    report: Report = silent,
    decays: Sequence[float] = DECAYS,
    depth: int = DEPTH,
    steps: int = STEPS,
    width: int = WIDTH,
    batch_size: int = BATCH,
    pure_steps: int = PURE_STEPS,
) -> Finding:
    """decays: from none to the strongest. depth: layers, 6n + 2. steps: of training, pure_steps: of the pull
    alone. width: channels of the first stage."""
    images = load_images("digits")
    work, done = len(NETWORKS) * len(decays) * len(seeds) * steps, 0
    results: dict[str, dict[str, list]] = {}
    with computing():
        pure = {name: [pull(name, pure_steps, seed) for seed in seeds] for name in PULLED}
        for name, kind in NETWORKS.items():
            results[name] = {"size": [], "accuracy": []}
            for seed in seeds:
                row = []
                for decay in decays:

                    def stepped(doing: str = f"{name}-{depth}, weight decay {decay:g}, seed {seed}") -> None:
                        nonlocal done
                        done += 1
                        report(done / work, doing)

                    manual_seed(seed)
                    model = without_biases(
                        kind(
                            depth=depth,
                            classes=len(images.classes),
                            in_channels=1,
                            width=width,
                            batch_norm=False,
                        )
                    )
                    train(model, images, steps, LEARNING_RATE, seed, batch_size, decay, stepped)
                    row.append((size_of_blocks(model, images), accuracy(model, images)))
                for key, values in zip(results[name], zip(*row, strict=True), strict=True):
                    results[name][key].append(list(values))
    return _finding(seeds, decays, depth, steps, width, batch_size, pure, results)


# --- the pull alone -----------------------------------------------------------------------------------


def _residual() -> Module:
    return ResidualBlock(SHAPE[1], SHAPE[1], preactivation=True, batch_norm=False)


def _plain() -> Module:
    return PlainBlock(SHAPE[1], SHAPE[1], preactivation=True, batch_norm=False)


# What is pulled: how it is made, whether all of its layers decay or only the last, layers in a row that decay.
PULLED: dict[str, tuple[Callable[[], Module], bool, int]] = {
    "residual block": (_residual, True, 2),
    "residual block, last layer only": (_residual, False, 1),
    "plain block": (_plain, True, 2),
    f"{STACKED} plain blocks": (lambda: Sequential(*(_plain() for _ in range(STACKED))), True, 2 * STACKED),
}


def pull(name: str, steps: int, seed: int) -> list[float]:
    """||block(x) - x|| / ||x||, or of a plain one ||block(x)|| / ||x||, before the first step and after each."""
    manual_seed(seed)
    make, wholly, _ = PULLED[name]
    block = without_biases(in_float64(make()))
    pulled = list(block.parameters()) if wholly else [block.conv2.weight]
    optimizer = SGD(pulled, PURE_LR, weight_decay=PURE_DECAY)
    x = tensor(np.random.default_rng(seed).standard_normal(SHAPE))
    found = []
    for step in range(steps + 1):
        if step:
            for parameter in pulled:
                parameter.grad = tensor(np.zeros(parameter.shape))
            optimizer.step()
        with no_grad():
            y = block(x).numpy()
        away = y - x.numpy() if "residual" in name else y
        found.append(float(np.linalg.norm(away) / np.linalg.norm(x.numpy())))
    return found


def predicted(name: str, measured: Sequence[float]) -> np.ndarray:
    """What the first number becomes by the geometric factor."""
    _, _, layers = PULLED[name]
    return measured[0] * (1 - PURE_LR * PURE_DECAY) ** (layers * np.arange(len(measured)))


# --- the pull against data ----------------------------------------------------------------------------


def size_of_blocks(model: ImageClassifier, images: ImageSet) -> float:
    """||branch(x)|| / ||x|| of residual blocks, ||block(x)|| / ||x|| of plain ones, over the images held out:
    the geometric mean over the blocks that keep the shape. 0 if nothing is left of one's input or output."""
    count = len(images.held_out_images)
    [(inputs, _)] = Batches.evaluation(
        images.held_out_images, images.held_out_labels, count, images.mean, images.std
    )
    logs = []
    with no_grad():
        x = relu(model.conv(tensor(inputs)))  # type: ignore[attr-defined]
        for block in model.blocks:  # type: ignore[attr-defined]
            y = block(x)
            if y.shape == x.shape:
                made = block.branch(x) if isinstance(block, ResidualBlock) else y
                before, after = (float(np.linalg.norm(t.numpy().astype(np.float64))) for t in (x, made))
                logs.append(math.log(after / before) if after and before else -math.inf)
            x = y
    return math.exp(float(np.mean(logs)))


def _finding(
    seeds: Sequence[int],
    decays: Sequence[float],
    depth: int,
    steps: int,
    width: int,
    batch_size: int,
    pure: dict[str, list[list[float]]],
    results: dict[str, dict[str, list]],
) -> Finding:
    errors = {
        name: max(float(np.abs(np.array(run) / predicted(name, run) - 1).max()) for run in runs)
        for name, runs in pure.items()
    }
    sizes = np.array(results["ResNet"]["size"])
    shrunk = float((sizes[:, -1] / sizes[:, 0]).max())
    accuracies = {name: np.array(of["accuracy"]) for name, of in results.items()}
    apart = [
        i
        for i in range(len(decays))
        if accuracies["plain"][:, i].max() <= CHANCE and accuracies["ResNet"][:, i].min() >= RECOGNISES
    ]
    holds = max(errors.values()) <= EXACT and shrunk <= SMALLER and bool(apart)
    # Where they are furthest apart, for the verdict.
    at = apart[0] if apart else int(np.argmax(accuracies["ResNet"].min(0) - accuracies["plain"].max(0)))
    return Finding(
        NAME,
        QUESTION,
        [
            (
                "alone",
                f"blocks of two 3x3 convolutions, {SHAPE} normal numbers, lr {PURE_LR:g}, decay {PURE_DECAY:g}",
            ),
            ("data", f"the digits, 8x8, {steps} steps of {batch_size} images, a fifth held out"),
            (
                "networks",
                f"of {depth} layers, {width}, {2 * width} and {4 * width} channels, no normalisation, no biases",
            ),
            ("initialisation", INITIALISATIONS["he"]),
            ("training", f"SGD, momentum 0.9, learning rate {LEARNING_RATE:g}, cosine"),
            ("seeds", seeds_named(seeds)),
        ],
        f"(1) the pull alone is as predicted to {EXACT:g}; (2) the strongest decay makes residual branches {SMALLER:g} "
        f"times as large as none does, or smaller, in each seed; (3) at some decay the plain network recognises "
        f"{100 * CHANCE:g} % or less and the residual one {100 * RECOGNISES:g} % or more, in each seed",
        holds,
        f"(1) alone the pull is geometric to {max(errors.values()):.1g}; (2) weight decay {decays[-1]:g} leaves "
        f"residual branches {shrunk:.2g} times as large as none does, or smaller: the identity; (3) at weight decay "
        f"{decays[at]:g} the plain network recognises {_percent(accuracies['plain'][:, at])}, where chance is "
        f"10 %, and the residual one {_percent(accuracies['ResNet'][:, at])}.",
        _tables(decays, pure, errors, results),
        _panels(decays, pure, results),
        {
            "pull_alone": {
                "runs": pure,
                "largest_relative_error": errors,
                "lr": PURE_LR,
                "weight_decay": PURE_DECAY,
            },
            "weight_decays": list(decays),
            "results": results,
            "branches_at_strongest_decay": shrunk,
        },
    )


def _tables(
    decays: Sequence[float],
    pure: dict[str, list[list[float]]],
    errors: dict[str, float],
    results: dict[str, dict[str, list]],
) -> list[tuple[str, Table]]:
    factor = 1 - PURE_LR * PURE_DECAY
    alone = [
        [
            name,
            f"{factor:g}^{PULLED[name][2]}",
            runs[0][0],
            runs[0][-1],
            predicted(name, runs[0])[-1],
            errors[name],
        ]
        for name, runs in pure.items()
    ]
    header = ["pulled", "a step", "before", "after", "predicted", "off by"]
    against = [
        [f"{decay:g}"]
        + [
            spread(
                [100 * run[i] if key == "accuracy" else run[i] for run in of[key]],
                ".1f" if key == "accuracy" else ".2g",
            )
            for of in (results["ResNet"], results["plain"])
            for key in ("size", "accuracy")
        ]
        for i, decay in enumerate(decays)
    ]
    columns = ["weight decay", "branch / input", "ResNet (%)", "block / input", "plain (%)"]
    steps = len(next(iter(pure.values()))[0]) - 1
    return [
        (
            f"The pull alone, {steps} steps, the first seed; off by: the largest in any seed",
            Table(header, alone),
        ),
        (
            "Against data: the size of residual branches and plain blocks, and what is recognised",
            Table(columns, against),
        ),
    ]


def _panels(
    decays: Sequence[float], pure: dict[str, list[list[float]]], results: dict[str, dict[str, list]]
) -> list[Panel]:
    names = [f"{decay:g}" for decay in decays]
    places = range(len(decays))
    return [
        Panel(
            "The pull alone",
            "step",
            "distance from the identity (residual), from zero (plain)",
            [
                Curve(
                    name,
                    range(len(runs[0])),
                    runs,
                    colour=("residual" in name) + 2 * ("last" in name or "10" in name),
                )
                for name, runs in pure.items()
            ],
            log_y=True,
            lowest=1e-6,
        ),
        *(
            Panel(
                title,
                "weight decay",
                label,
                [
                    Curve(
                        name,
                        places,
                        [[factor * value for value in run] for run in results[name][key]],
                        colour=name == "ResNet",
                    )
                    for name in NETWORKS
                ],
                log_y=key == "size",
                lowest=1e-6 if key == "size" else None,
                names=names,
            )
            for key, title, label, factor in (
                (
                    "size",
                    "Against data: what blocks add (ResNet) or keep (plain)",
                    "norm / norm of the input",
                    1,
                ),
                ("accuracy", "Against data: what is recognised", "images held out (%)", 100),
            )
        ),
    ]


def _percent(values: Sequence[float]) -> str:
    return f"{spread([100 * value for value in values], '.1f')} %"
