"""How much smaller or larger is the gradient at the first layer than at the last one, by depth?

Plain and residual networks of 8 to 110 layers, with and without batch normalisation, before any training: a
batch of the digits goes forward and back. Of each convolution the norm of the gradient with respect to what it
puts out is taken (its Frobenius norm over the batch, before any normalisation or ReLU), and log10 of the first
one's over the last one's.

Why not the gradient with respect to the weights: without normalisation and biases a ReLU network is homogeneous
of degree one in each of its weights, so that sum(W * dL/dW) is the same for all layers, whatever happens to the
gradient on its way (Euler's theorem). A vanishing gradient meets activations that vanish the other way, and
their product looks level (Glorot & Bengio, 2010, saw it so). Its norms are in the JSON.

Two initialisations. The one that decides is PyTorch's default, uniform within 1 / sqrt(fan-in), weights and
biases, which a user gets who asks for none. The other one is that of He et al. (2015), which was made so that
a plain ReLU network keeps its gradient; what it does to the claim is said in the verdict.

The claim holds if, in each seed, |log10| of the deepest plain network for which a residual one of that depth
was asked (56 layers, unless other depths are asked for) without batch normalisation is larger than that of
the residual one, with and without batch normalisation, by 2 or more: a hundred times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..engine.ops.loss import cross_entropy
from ..engine.random import manual_seed
from ..engine.tensor import Tensor, tensor
from ..inspect.view import Table
from ..models import ImageClassifier, PlainNet, ResNet
from ..nn import Conv2d
from ..vision import ImageSet, load_images
from .finding import Curve, Finding, Panel, Report, seeds_named, silent, spread
from .networks import INITIALISATIONS, computing, first_batch, initialise

NAME = "gradient-by-depth"
QUESTION = "Does the gradient reach the first layer of a deep network?"
DEPTHS, DECIDES = (8, 20, 32, 44, 56, 110), 56
WIDTH, BATCH = 8, 64
LIMIT = 2.0  # powers of ten
HOWS = ("uniform", "he")
NETWORKS = {  # class, batch normalisation
    "plain": (PlainNet, False),
    "plain, batch norm": (PlainNet, True),
    "ResNet": (ResNet, False),
    "ResNet, batch norm": (ResNet, True),
}


def run(
    seeds: Sequence[int] = (0, 1, 2),
    report: Report = silent,
    depths: Sequence[int] = DEPTHS,
    width: int = WIDTH,
    batch_size: int = BATCH,
) -> Finding:
    """depths: layers. width: channels of the first stage. batch_size: images that go through."""
    images = load_images("digits")
    work, done = len(HOWS) * len(NETWORKS) * len(seeds) * sum(depths), 0
    outputs: dict[str, dict[str, list]] = {how: {name: [] for name in NETWORKS} for how in HOWS}
    weights: dict[str, dict[str, list]] = {how: {name: [] for name in NETWORKS} for how in HOWS}
    with computing():
        for how in HOWS:
            for name in NETWORKS:
                for seed in seeds:
                    found = []
                    for depth in depths:
                        report(done / work, f"{name}, {depth} layers, seed {seed}")
                        found.append(norms(name, depth, how, seed, images, width, batch_size))
                        done += depth
                    outputs[how][name].append([of_outputs for of_outputs, _ in found])
                    weights[how][name].append([of_weights for _, of_weights in found])
    return _finding(seeds, depths, width, batch_size, outputs, weights)


def norms(
    name: str, depth: int, how: str, seed: int, images: ImageSet, width: int, batch_size: int
) -> tuple[list[float], list[float]]:
    """Norms of the gradients with respect to each convolution's output, and to its weight, first layer first."""
    manual_seed(seed)
    kind, batch_norm = NETWORKS[name]
    model: ImageClassifier = kind(
        depth, classes=len(images.classes), in_channels=images.shape[0], width=width, batch_norm=batch_norm
    )
    initialise(model, how)
    layers = [layer for _, layer in model.named_modules() if isinstance(layer, Conv2d)]
    heard = [_listen(layer) for layer in layers]
    inputs, labels = first_batch(images, batch_size, seed)
    cross_entropy(model(inputs), tensor(labels)).backward()
    return [_norm(output[0].grad) for output in heard], [_norm(layer.weight.grad) for layer in layers]


def _listen(layer: Conv2d) -> list[Tensor]:
    """What the layer will put out, with its gradient."""
    outputs: list[Tensor] = []
    forward = layer.forward

    def hear(x: Tensor) -> Tensor:
        y = forward(x)
        y.retain_grad()
        outputs.append(y)
        return y

    layer.forward = hear  # type: ignore[method-assign]
    return outputs


def _norm(gradient: Tensor | None) -> float:
    assert gradient is not None
    return float(np.linalg.norm(gradient.numpy().astype(np.float64)))


def orders(norms: Sequence[float]) -> float:
    """log10 of the first layer's norm over the last one's; minus infinity for a gradient that is gone."""
    first, last = norms[0], norms[-1]
    return math.log10(first / last) if first > 0 and last > 0 else -math.inf


def _finding(
    seeds: Sequence[int],
    depths: Sequence[int],
    width: int,
    batch_size: int,
    outputs: dict[str, dict[str, list]],
    weights: dict[str, dict[str, list]],
) -> Finding:
    ratios = {
        how: {name: [[orders(norms) for norms in run] for run in runs] for name, runs in of.items()}
        for how, of in outputs.items()
    }
    decides = DECIDES if DECIDES in depths else max(depths)
    at = list(depths).index(decides)
    margins = {how: [margin(of, i, at) for i in range(len(seeds))] for how, of in ratios.items()}
    holds = min(margins["uniform"]) >= LIMIT
    tables = [
        (
            f"log10(gradient norm of the first layer / of the last one), {INITIALISATIONS[how]}",
            Table(
                ["network", *(f"{depth} layers" for depth in depths)],
                [
                    [name, *(spread([run[i] for run in runs], "+.1f") for i in range(len(depths)))]
                    for name, runs in of.items()
                ],
            ),
        )
        for how, of in ratios.items()
    ]
    panels = [
        Panel(
            title,
            "layers of the network",
            "log10(gradient norm of the first layer / of the last one)",
            [
                Curve(name, depths, runs, colour="ResNet" in name, dashed="batch norm" in name)
                for name, runs in ratios[how].items()
            ],
            limit=(0.0, "the gradient arrives as it was"),
        )
        for how, title in (("uniform", "PyTorch's default initialisation"), ("he", "He initialisation"))
    ]

    def said(how: str, name: str) -> str:
        return spread([run[at] for run in ratios[how][name]], "+.1f")

    verdict = (
        f"with PyTorch's default initialisation log10 of the first layer's gradient over the last one's is "
        f"{said('uniform', 'plain')} in plain-{decides} without batch normalisation, {said('uniform', 'ResNet')} "
        f"in ResNet-{decides} and {said('uniform', 'ResNet, batch norm')} in ResNet-{decides} with batch "
        f"normalisation: further from 0 by {min(margins['uniform']):.1f} at least (asked: {LIMIT:g}). "
        + _of_he(said, decides, min(margins["he"]))
    )
    return Finding(
        NAME,
        QUESTION,
        [
            ("data", f"a batch of {batch_size} of the digits, 8x8"),
            ("networks", f"PlainNet and ResNet of {width}, {2 * width} and {4 * width} channels, untrained"),
            ("initialisation", f"{INITIALISATIONS['uniform']} (decides); {INITIALISATIONS['he']}"),
            ("measured", "norm of dL/d(output of a convolution) over the batch"),
            ("seeds", seeds_named(seeds)),
        ],
        f"|log10(first / last)| of plain-{decides} without batch normalisation exceeds that of ResNet-{decides}, "
        f"with and without it, by {LIMIT:g} or more in each seed, initialised as PyTorch does",
        holds,
        verdict,
        tables,
        panels,
        {
            "depths": list(depths),
            "log10_first_over_last": ratios,
            "margin": margins,
            "norms_of_outputs": outputs,
            "norms_of_weights": weights,
        },
    )


def margin(ratios: dict[str, list], seed: int, at: int) -> float:
    """How much further from 0 the plain network's number is than both residual ones', of that seed and depth."""
    plain, *others = (abs(ratios[name][seed][at]) for name in ("plain", "ResNet", "ResNet, batch norm"))
    return plain - max(others)


def _of_he(said: object, decides: int, least: float) -> str:
    assert callable(said)
    plain, without = said("he", "plain"), said("he", "ResNet")
    with_norm = said("he", "ResNet, batch norm")
    begin = "With He initialisation, made to keep a plain network's gradient, "
    numbers = (
        f"plain-{decides} {plain}, ResNet-{decides} {without}, and {with_norm} with batch normalisation."
    )
    return begin + ("it holds as well: " if least >= LIMIT else "it does not hold: ") + numbers
