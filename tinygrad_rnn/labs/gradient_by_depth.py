"""How much smaller or larger is the gradient at the first layer than at the last one, by depth?

Plain and residual networks of 8 to 110 layers, with and without batch normalisation, before any training: a
batch of the digits goes forward and back. Of each convolution the norm of the gradient with respect to what
it puts out is taken (its Frobenius norm over the batch, before any normalisation or ReLU), and log10 of the
first one's over the last one's. In float64, since float32 has no numbers so small.
The norms of all layers are in the JSON, and drawn for one depth.

Why not the gradient with respect to the weights: without normalisation and biases a plain ReLU network is
homogeneous of degree one in each of its weights, so that sum(W * dL/dW) is the same for all layers, whatever
happens to the gradient on its way (Euler's theorem). A vanishing gradient meets activations that vanish the
other way, and their product looks level, as Glorot & Bengio (2010) saw. (With biases, as below in what
decides, activations do not vanish, and both gradients say the same.) Its norms are in the JSON as well.

Two initialisations. The one that decides is PyTorch's default, uniform within 1 / sqrt(fan-in), weights and
biases, which its layers, and those of nn, have where none is asked for. The other one is that of He et al.
(2015), with which this library's models are made: it keeps the size of the signals in a plain ReLU network,
and makes their mean square double with each block of a residual one without normalisation. It counts on
inputs for each weight, though, and at the borders of an image some are zeros: of 2x2 pixels, as the last
stage has here, more than half. So the networks of 56 layers are looked at with images of 32x32 pixels (the
shapes) as well. What comes of the claim there is said in the verdict.

The claim holds if, in each seed, |log10| of plain-56 without batch normalisation is larger than that of
ResNet-56, with and without it, by 2 or more: a hundred times. (Of the deepest networks, where 56 is not among
the depths.)
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
from .finding import Curve, Finding, Panel, Report, seeds_named, silent, span
from .networks import INITIALISATIONS, computing, first_batch, in_float64, initialise

NAME = "gradient-by-depth"
QUESTION = "Does the gradient reach the first layer of a deep network?"
DEPTHS, DECIDES = (8, 20, 32, 44, 56, 110), 56
WIDTH, BATCH = 8, 64
LIMIT = 2.0  # powers of ten
CASES = {  # initialisation, images
    "uniform": ("uniform", "digits"),
    "he": ("he", "digits"),
    "he, 32x32": ("he", "shapes"),
}
LARGE_BATCH = 16  # of the larger images, of which one counts for more
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
    decides = DECIDES if DECIDES in depths else max(depths)
    depths_of = {
        case: list(depths) if images == "digits" else [decides] for case, (_, images) in CASES.items()
    }
    work, done = len(NETWORKS) * len(seeds) * sum(map(sum, depths_of.values())), 0
    outputs: dict[str, dict[str, list]] = {case: {name: [] for name in NETWORKS} for case in CASES}
    weights: dict[str, dict[str, list]] = {case: {name: [] for name in NETWORKS} for case in CASES}
    with computing():
        for case, (how, source) in CASES.items():
            images = load_images(source, gray=True)
            batch = batch_size if source == "digits" else min(batch_size, LARGE_BATCH)
            for name in NETWORKS:
                for seed in seeds:
                    found = []
                    for depth in depths_of[case]:
                        report(done / work, f"{case}: {name}, {depth} layers, seed {seed}")
                        found.append(norms(name, depth, how, seed, images, width, batch))
                        done += depth
                    outputs[case][name].append([of_outputs for of_outputs, _ in found])
                    weights[case][name].append([of_weights for _, of_weights in found])
    return _finding(seeds, decides, depths_of, width, batch_size, outputs, weights)


def norms(
    name: str, depth: int, how: str, seed: int, images: ImageSet, width: int, batch_size: int
) -> tuple[list[float], list[float]]:
    """Norms of the gradients with respect to each convolution's output and to its weight, first layer
    first."""
    manual_seed(seed)
    kind, batch_norm = NETWORKS[name]
    model: ImageClassifier = kind(
        depth, classes=len(images.classes), in_channels=images.shape[0], width=width, batch_norm=batch_norm
    )
    initialise(model, how)
    in_float64(model)
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
    return float(np.linalg.norm(gradient.numpy()))


def orders(norms: Sequence[float]) -> float:
    """log10 of the first layer's norm over the last one's; minus infinity for a gradient that is gone."""
    first, last = norms[0], norms[-1]
    return math.log10(first / last) if first > 0 and last > 0 else -math.inf


def by_layer(norms: Sequence[float]) -> list[float]:
    """The same for each layer, first layer first."""
    return [orders(norms[layer:]) for layer in range(len(norms))]


def _finding(
    seeds: Sequence[int],
    decides: int,
    depths_of: dict[str, list[int]],
    width: int,
    batch_size: int,
    outputs: dict[str, dict[str, list]],
    weights: dict[str, dict[str, list]],
) -> Finding:
    ratios = {
        case: {name: [[orders(norms) for norms in run] for run in runs] for name, runs in of.items()}
        for case, of in outputs.items()
    }
    at_decides = {  # case -> network -> seeds
        case: {name: [run[depths_of[case].index(decides)] for run in runs] for name, runs in of.items()}
        for case, of in ratios.items()
    }
    margins = {case: [margin(of, i) for i in range(len(seeds))] for case, of in at_decides.items()}
    depths = depths_of["uniform"]
    of_layers = {  # network -> seeds -> layers
        name: [by_layer(run[depths.index(decides)]) for run in runs]
        for name, runs in outputs["uniform"].items()
    }
    panels = [
        Panel(
            title,
            label,
            "log10(gradient norm / that of the last layer)",
            [
                Curve(name, x, runs, "ResNet" in name, "--" if "norm" in name else "-")
                for name, runs in shown.items()
            ],
            limit=(0.0, "the last layer's"),
        )
        for title, label, x, shown in (
            ("The first layer, PyTorch's default", "layers of the network", depths, ratios["uniform"]),
            ("The first layer, He initialisation", "layers of the network", depths, ratios["he"]),
            (
                f"Each layer of {decides}, PyTorch's default",
                "convolution, the first one first",
                range(1, decides),
                of_layers,
            ),
        )
    ]
    return Finding(
        NAME,
        QUESTION,
        [
            (
                "data",
                f"a batch of {batch_size} of the digits, 8x8; of {min(batch_size, LARGE_BATCH)} shapes, "
                "32x32",
            ),
            ("networks", f"PlainNet and ResNet of {width}, {2 * width} and {4 * width} channels, untrained"),
            ("initialisation", f"{INITIALISATIONS['uniform']} (decides); {INITIALISATIONS['he']}"),
            (
                "measured",
                "norm of dL/d(output of a convolution) over the batch, in float64; the JSON has that of each "
                "layer, and of the weights",
            ),
            ("seeds", seeds_named(seeds)),
        ],
        f"|log10(first / last)| of plain-{decides} without batch normalisation exceeds that of "
        f"ResNet-{decides}, with and without it, by {LIMIT:g} or more in each seed, initialised as PyTorch "
        "does",
        least(margins["uniform"]) >= LIMIT,
        _verdict(at_decides, margins, decides),
        [_table(case, depths_of[case], of) for case, of in ratios.items()],
        panels,
        {
            "depths": depths_of,
            "log10_first_over_last": ratios,
            "margin": margins,
            "norms_of_outputs": outputs,
            "norms_of_weights": weights,
        },
        given="with PyTorch's initialisation",
    )


def margin(ratios: dict[str, list[float]], seed: int) -> float:
    """How much further from 0 the plain network's number is than both residual ones', of that seed."""
    plain, *others = (abs(ratios[name][seed]) for name in ("plain", "ResNet", "ResNet, batch norm"))
    return plain - max(others)


def least(margins: Sequence[float]) -> float:
    """Of all seeds; no number, if one is none."""
    return float(np.min(margins))


def _table(case: str, depths: Sequence[int], ratios: dict[str, list]) -> tuple[str, Table]:
    """A row for each network: medians over the seeds."""
    rows = []
    for name, runs in ratios.items():
        middle = np.median(runs, axis=0)
        away = np.abs(np.array(runs) - middle).max()
        rows.append([name, *(f"{value:+.1f}" for value in middle), f"{away:.1f}"])
    how, images = CASES[case]
    label = (
        f"{INITIALISATIONS[how]}; {images}. log10(gradient norm of the first layer / of the last one) by "
        "number of layers, medians; seeds: the furthest from its median"
    )
    numbers = [str(depth) for depth in depths]
    return label, Table(["network", *numbers, "seeds"], rows, spare=["seeds", *numbers[1:-1]])


def _verdict(
    at_decides: dict[str, dict[str, list[float]]], margins: dict[str, list[float]], decides: int
) -> str:
    def said(case: str) -> str:
        plain, without, normalised = (
            span(at_decides[case][name], "+.1f") for name in ("plain", "ResNet", "ResNet, batch norm")
        )
        return f"plain-{decides} {plain}, ResNet-{decides} {without}, with batch norm {normalised}"

    def holds(case: str) -> str:
        number = least(margins[case])
        return f"{'holds' if number >= LIMIT else 'does not hold'} (margin {number:.1f}; {said(case)})"

    return (
        f"log10(first / last): {said('uniform')}: margin "
        f"{least(margins['uniform']):.1f} (asked: {LIMIT:g}). With He's it {holds('he')}; with He's and "
        f"images of 32x32 it {holds('he, 32x32')}."
    )
