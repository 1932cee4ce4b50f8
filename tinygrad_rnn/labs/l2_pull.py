"""Where does L2 regularisation pull a network: to the identity, or to zero?

First the pull alone: steps of SGD without momentum and with a gradient of zero, which make each weight w of a
block into (1 - lr * weight_decay) w. A branch without biases and normalisations becomes c times as large when
one of its layers does, for c > 0 (it is linear in the last one, and ReLUs commute with such factors), so that
after t steps with k layers decaying it is exactly (1 - lr * weight_decay)^(k t) times what it was. That is
the distance of a residual block from the identity, ||block(x) - x|| / ||x||, and of a plain block from zero,
||block(x)|| / ||x||. It is measured in float64 and compared with the prediction.

Then the pull against data: plain and residual networks without normalisation (which would undo the scale of
the weights before it) and without biases learn the digits under ever more weight decay. How large are the
residual branches beside their inputs, ||branch(x)|| / ||x|| (blocks that change the shape left out; the
geometric mean over the others), what is left of the signal in plain blocks, ||block(x)|| / ||x||, and what do
the networks still recognise? (Sizes were chosen by trainings with seeds 100 to 102, such that the plain
network learns well without decay; the decays go from none to where nothing is learnt.)

The claim holds if
(1) what is measured of the pull alone differs from what is predicted by a millionth at most;
(2) in each seed the residual branches are at most a tenth as large at the strongest decay as without any;
(3) without decay both networks recognise 80 % or more in each seed, and there is a decay at which in each
    seed the residual one still does, and the plain one is at chance, 20 % or less.
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
from .finding import Curve, Finding, Panel, Report, percent, seeds_named, silent
from .networks import INITIALISATIONS, accuracy, computing, in_float64, train, without_biases

NAME = "l2-pull"
QUESTION = "Does weight decay pull residual networks to the identity, and plain ones to zero?"
SHAPE = (2, 4, 5, 5)  # images, channels, height, width, of the pull alone
PURE_STEPS, PURE_LR, PURE_DECAY = 200, 0.1, 0.1
STACKED = 10  # plain blocks
DECAYS = (0.0, 1e-3, 1e-2, 3e-2, 6e-2, 3e-1)
DEPTH, STEPS, WIDTH, BATCH, LEARNING_RATE = 14, 250, 16, 64, 0.01
EXACT, SMALLER, CHANCE, RECOGNISES = 1e-6, 0.1, 0.2, 0.8
BLOCKS = "||branch(x)|| / ||x|| (ResNet), ||block(x)|| / ||x|| (plain)"
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


# What is pulled: how it is made, whether all of its layers decay or only the last one, how many do.
PULLED: dict[str, tuple[Callable[[], Module], bool, int]] = {
    "residual block": (_residual, True, 2),
    "residual, last layer only": (_residual, False, 1),
    "plain block": (_plain, True, 2),
    f"{STACKED} plain blocks": (lambda: Sequential(*(_plain() for _ in range(STACKED))), True, 2 * STACKED),
}


def pull(name: str, steps: int, seed: int) -> list[float]:
    """||block(x) - x|| / ||x||, of a plain one ||block(x)|| / ||x||, before the first step and after each."""
    manual_seed(seed)
    make, wholly, _ = PULLED[name]
    block = without_biases(in_float64(make()))
    pulled = list(block.parameters()) if wholly else [block.conv2.weight]  # type: ignore[attr-defined]
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
    accuracies: dict[str, Any] = {name: np.array(of["accuracy"]) for name, of in results.items()}
    learns = {name: values.min(0) >= RECOGNISES for name, values in accuracies.items()}
    apart = [
        i
        for i in range(len(decays))
        if accuracies["plain"][:, i].max() <= CHANCE and learns["ResNet"][i] and learns["plain"][0]
    ]
    holds = max(errors.values()) <= EXACT and shrunk <= SMALLER and bool(apart)
    # Where they are furthest apart, for the verdict.
    at = apart[0] if apart else int(np.argmax(accuracies["ResNet"].min(0) - accuracies["plain"].max(0)))
    at_the_end = max(float(values[:, -1].max()) for values in accuracies.values())
    return Finding(
        NAME,
        QUESTION,
        [
            (
                "alone",
                f"blocks of two 3x3 convolutions, {SHAPE} normal numbers, lr {PURE_LR:g}, decay "
                f"{PURE_DECAY:g}",
            ),
            ("data", f"the digits, 8x8, {steps} steps of {batch_size} images, a fifth held out"),
            (
                "networks",
                f"of {depth} layers, {width}, {2 * width} and {4 * width} channels, without normalisation "
                "and biases",
            ),
            ("initialisation", INITIALISATIONS["he"]),
            ("training", f"SGD, momentum 0.9, learning rate {LEARNING_RATE:g}, cosine"),
            ("seeds", seeds_named(seeds)),
        ],
        f"(1) the pull alone is as predicted to {EXACT:g}; (2) with the strongest decay residual branches "
        f"are {SMALLER:g} times as large as with none, or smaller, in each seed; (3) both networks "
        f"recognise {100 * RECOGNISES:g} % or more without decay, and at some decay the residual one still "
        f"does where the plain one recognises {100 * CHANCE:g} % or less, in each seed",
        holds,
        f"(1) alone the pull is geometric to {max(errors.values()):.0e}; (2) weight decay {decays[-1]:g} "
        f"makes residual branches {shrunk:.0e} times as large (asked: {SMALLER:g}), though no network "
        f"recognises more than {100 * at_the_end:.0f} % then; (3) at weight decay {decays[at]:g} the plain "
        f"network recognises {percent(accuracies['plain'][:, at])} %, and the residual one "
        f"{percent(accuracies['ResNet'][:, at])} % (without decay {percent(accuracies['plain'][:, 0])} and "
        f"{percent(accuracies['ResNet'][:, 0])}).",
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
            f"{errors[name]:.0e}",
        ]
        for name, runs in pure.items()
    ]
    header = ["pulled", "a step", "before", "after", "predicted", "off by"]
    against: list[list] = [
        [f"{decay:g}"]
        + [
            said
            for of in (results["ResNet"], results["plain"])
            for said in (
                float(np.median([run[i] for run in of["size"]])),
                percent([run[i] for run in of["accuracy"]]),
            )
        ]
        for i, decay in enumerate(decays)
    ]
    columns = ["weight decay", "branch / input", "ResNet (%)", "block / input", "plain (%)"]
    steps = len(next(iter(pure.values()))[0]) - 1
    return [
        (
            f"The pull alone, {steps} steps, the first seed; off by: the largest in any seed",
            Table(header, alone, spare=["before", "predicted"]),
        ),
        (
            "Against data: norms (medians), and images held out that are recognised (from the lowest of the "
            "seeds to the highest)",
            Table(columns, against, spare=["block / input", "branch / input"]),
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
                    line="-" if "residual" in name else "--",
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
                ("size", "Against data: size of the blocks", BLOCKS, 1),
                ("accuracy", "Against data: what is learnt", "images held out that are recognised (%)", 100),
            )
        ),
    ]
