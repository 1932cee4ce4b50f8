"""Can a residual block compute the identity, and how far from it does a stack of them begin?

Stacks of 1, 10, 100 and 1,000 blocks of two 3x3 convolutions, in float64. First their weights are zero: the
largest difference of the output from the input, and of the gradient at the input from that at the output, is
to be exactly 0 for each kind of block. Of post-activation blocks, which end in a ReLU, the input is the
output of a ReLU, and the gradient is compared where that is positive; of a projecting block followed by
others, the output is compared with the projection of the input, and the gradient with what the projection
makes of it. A stack of plain blocks makes 0 of both.

Then the weights are those of He et al. (2015) times sigma: how fast does the residual stack leave the
identity, and how fast does the plain one vanish?

The claim holds if every one of the differences is 0, and so are the plain stack's output and gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engine.random import manual_seed
from ..engine.tensor import Tensor, no_grad, tensor
from ..inspect.view import Table
from ..nn import Module, PlainBlock, ResidualBlock, Sequential
from .finding import Curve, Finding, Panel, Report, seeds_named, silent
from .networks import computing, in_float64

NAME = "residual-identity"
QUESTION = "Does a stack of residual blocks with zero weights compute the identity, at any depth?"
KINDS = ("pre-activation", "post-activation", "projection", "plain")
DEPTHS, SIGMAS = (1, 10, 100, 1000), (0.0, 1e-3, 1e-2, 1e-1, 0.3, 1.0)
SHAPE = (2, 4, 5, 5)  # images, channels, height, width
PROJECTED = 6  # channels
LOWEST = 1e-30  # that is drawn
DEEPEST = 100  # blocks of a stack whose weights are not zero


def run(
    seeds: Sequence[int] = (0, 1, 2),
    report: Report = silent,
    depths: Sequence[int] = DEPTHS,
    sigmas: Sequence[float] = SIGMAS,
    deepest: int = DEEPEST,
) -> Finding:
    """depths: blocks of a stack. sigmas: factors of the weights. deepest: of the stacks with such weights."""
    small = [depth for depth in depths if depth <= deepest]
    work = len(seeds) * (len(KINDS) * sum(depths) + 2 * len(sigmas) * sum(small))
    done = 0

    def went_on(blocks: int, doing: str) -> None:
        nonlocal done
        done += blocks
        report(done / work, doing)

    zero: dict[str, dict[str, list]] = {kind: {"output": [], "gradient": []} for kind in KINDS}
    away: dict[str, list] = {"residual": [], "plain": []}  # seed, sigma, depth
    with computing():
        for seed in seeds:
            for kind in KINDS:
                found = []
                for depth in depths:
                    found.append(differences(kind, depth, seed))
                    went_on(depth, f"{kind}, depth {depth}")
                for name, values in zip(zero[kind], zip(*found, strict=True), strict=True):
                    zero[kind][name].append(list(values))
            for kind, runs in away.items():
                rows = []
                for sigma in sigmas:
                    rows.append([distance(kind, depth, sigma, seed) for depth in small])
                    went_on(sum(small), f"{kind}, weights times {sigma:g}")
                runs.append(rows)
    return _finding(seeds, depths, sigmas, small, zero, away)


def differences(kind: str, depth: int, seed: int) -> tuple[float, float]:
    """The largest differences in output and in gradient of a stack with zero weights, as above."""
    manual_seed(seed)
    draw = np.random.default_rng(seed)
    channels = SHAPE[1]
    blocks: list[Module] = [_block(kind, channels, PROJECTED if kind == "projection" else channels)]
    made = PROJECTED if kind == "projection" else channels
    blocks += [_block(kind, made, made) for _ in range(depth - 1)]
    for block in blocks:
        scale_branch(block, 0.0)
    stack = in_float64(Sequential(*blocks))
    x = draw.standard_normal(SHAPE)
    if kind == "post-activation":
        x = np.maximum(x, 0)
    g = draw.standard_normal((SHAPE[0], made, *SHAPE[2:]))
    y, dx = _both_ways(stack, x, g)
    if kind == "plain":
        return float(np.abs(y).max()), float(np.abs(dx).max())
    if kind == "projection":
        expected_y, expected_dx = _both_ways(blocks[0].shortcut, x, g)  # type: ignore[attr-defined]
    else:
        expected_y, expected_dx = x, g
    heard = x > 0 if kind == "post-activation" else np.ones_like(x, bool)
    return float(np.abs(y - expected_y).max()), float(np.abs(dx - expected_dx)[heard].max())


def distance(kind: str, depth: int, sigma: float, seed: int) -> float:
    """||stack(x) - x|| / ||x|| of pre-activation residual blocks, ||stack(x)|| / ||x|| of plain ones."""
    manual_seed(seed)
    made = "pre-activation" if kind == "residual" else "plain"
    blocks = [in_float64(_block(made, SHAPE[1], SHAPE[1])) for _ in range(depth)]
    for block in blocks:
        scale_branch(block, sigma)
    x = np.random.default_rng(seed).standard_normal(SHAPE)
    with no_grad():
        y = Sequential(*blocks)(tensor(x)).numpy()
    return float(np.linalg.norm(y - x if kind == "residual" else y) / np.linalg.norm(x))


def scale_branch(block: Module, factor: float) -> None:
    """Multiply the weights of a block's convolutions but for the shortcut's."""
    with no_grad():
        for name, weight in block.named_parameters():
            if not name.startswith("shortcut"):
                weight.copy_(weight * factor)


def _block(kind: str, channels: int, made: int) -> Module:
    """Without normalisation; its biases are zero."""
    if kind == "plain":
        return PlainBlock(channels, made, batch_norm=False, preactivation=True)
    return ResidualBlock(channels, made, batch_norm=False, preactivation=kind != "post-activation")


def _both_ways(module: Module, x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inputs: Tensor = tensor(x, requires_grad=True)
    y = module(inputs)
    y.backward(tensor(g))
    assert inputs.grad is not None
    return y.numpy(), inputs.grad.numpy()


def _finding(
    seeds: Sequence[int],
    depths: Sequence[int],
    sigmas: Sequence[float],
    small: Sequence[int],
    zero: dict[str, dict[str, list]],
    away: dict[str, list],
) -> Finding:
    largest = {kind: {name: np.max(runs, axis=0) for name, runs in of.items()} for kind, of in zero.items()}
    worst = max(float(values.max()) for of in largest.values() for values in of.values())
    rows = [
        [kind, name, *(float(value) for value in of[name])] for kind, of in largest.items() for name in of
    ]
    numbers, fewer = ([f"{depth:,}" for depth in of] for of in (depths, small))
    compared = Table(["blocks", "of the", *numbers], rows, spare=numbers[1:-1])
    distances = {kind: np.array(runs) for kind, runs in away.items()}
    left = [
        [f"{sigma:g}", kind, *(float(np.median(runs[:, i, j])) for j in range(len(small)))]
        for i, sigma in enumerate(sigmas)
        for kind, runs in distances.items()
    ]
    drawn = [i for i, sigma in enumerate(sigmas) if sigma > 0]
    panels = [
        Panel(
            title,
            "sigma: weights are He's times this",
            y,
            [
                Curve(
                    f"{depth:,} block{'s' * (depth > 1)}",
                    [sigmas[i] for i in drawn],
                    distances[kind][:, drawn, j].tolist(),
                    colour=j,
                )
                for j, depth in enumerate(small)
            ],
            log_x=True,
            log_y=True,
            lowest=LOWEST,
        )
        for kind, title, y in (
            ("residual", "Residual: how far from the identity", "||stack(x) - x|| / ||x||"),
            ("plain", "Plain: how much is left", "||stack(x)|| / ||x||"),
        )
    ]
    if worst == 0:
        verdict = (
            "with zero weights the largest difference from the identity is 0, in value and in gradient, "
            f"for 1 to {max(depths):,} blocks (post-activation: on a ReLU's outputs; projection: from the "
            "projection). The plain stack gives 0 for both."
        )
    else:
        verdict = f"with zero weights the largest of the differences is {worst:.3g}, and should be 0."
    return Finding(
        NAME,
        QUESTION,
        [
            ("data", f"normal numbers {SHAPE}, float64"),
            ("blocks", "two 3x3 convolutions without normalisation, biases zero"),
            ("initialisation", "zero; then He et al. (2015), times sigma"),
            ("seeds", seeds_named(seeds)),
        ],
        "with zero weights output minus input and the gradients' difference are exactly 0 at every depth; "
        "the plain stack's output and gradient are 0",
        worst == 0,
        verdict,
        [
            (
                "With zero weights, the largest difference (plain: the largest value) by number of blocks",
                compared,
            ),
            (
                "With small weights: ||stack(x) - x|| / ||x|| of the residual stack, ||stack(x)|| / ||x|| "
                "of the plain one, by number of blocks; medians (below 5e-324 float64 has only 0)",
                Table(["sigma", "stack", *fewer], left, spare=fewer[:-1]),
            ),
        ],
        panels,
        {
            "depths": list(depths),
            "zero_weights": zero,
            "sigmas": list(sigmas),
            "small_weights_depths": list(small),
            "small_weights": away,
            "largest_difference": worst,
        },
    )
