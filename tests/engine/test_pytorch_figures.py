"""Convolution, pooling, normalisation and resampling give PyTorch's values and gradients, also where there is
no PyTorch: its numbers are in pytorch_figures.json.

`TRNN_GOLDEN=1 pytest tests/engine/test_pytorch_figures.py` writes them anew with the PyTorch at hand. Each
call's inputs are `filled`, in the order of their shapes; the gradients are of sum(weights * out * out).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops.fused import use_kernels

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # PyTorch's, about its speed

FIGURES = Path(__file__).with_name("pytorch_figures.json")
REWRITE = "TRNN_GOLDEN"  # as in tests/inspect
PRECISION = {"float64": 1e-10, "float32": 1e-5}  # of the largest number
IMAGES = (2, 2, 5, 4)

CALLS: dict[str, tuple[str, list[tuple[int, ...]], dict[str, Any]]] = {
    "conv2d": ("conv2d", [(2, 2, 4, 3), (3, 2, 3, 2), (3,)], {}),
    "conv2d with all options": (
        "conv2d",
        [(1, 4, 6, 7), (4, 2, 3, 2), (4,)],
        {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2},
    ),
    "conv2d, same size": ("conv2d", [(2, 4, 3), (3, 2, 3, 4)], {"padding": "same"}),
    "conv2d, depthwise": ("conv2d", [(1, 3, 4, 4), (3, 1, 3, 3), (3,)], {"padding": 1, "groups": 3}),
    "conv1d": ("conv1d", [(2, 4, 7), (2, 2, 3), (2,)], {"stride": 2, "padding": 1, "groups": 2}),
    "conv_transpose2d": (
        "conv_transpose2d",
        [(1, 4, 3, 2), (4, 1, 3, 3), (2,)],
        {"stride": (1, 3), "padding": (1, 0), "output_padding": (1, 2), "groups": 2, "dilation": (2, 1)},
    ),
    "max_pool2d": ("max_pool2d", [IMAGES], {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1}),
    "max_pool2d, rounded up": (
        "max_pool2d",
        [IMAGES[1:]],
        {"kernel_size": 2, "stride": 2, "dilation": (1, 2), "ceil_mode": True},
    ),
    **{
        f"avg_pool2d, {ceil_mode=}, {count_include_pad=}": (
            "avg_pool2d",
            [IMAGES],
            {
                "kernel_size": (2, 3),
                "stride": 2,
                "padding": 1,
                "ceil_mode": ceil_mode,
                "count_include_pad": count_include_pad,
            },
        )
        for ceil_mode in (False, True)
        for count_include_pad in (False, True)
    },
    "batch_norm in training": (
        "batch_norm",
        [(3, 2, 2, 3), (2,), (2,)],
        {"training": True, "momentum": 0.3, "eps": 1e-3},
    ),
    "batch_norm in evaluation": ("batch_norm", [(3, 2, 2, 3), (2,), (2,)], {"training": False}),
    "batch_norm of rows": ("batch_norm", [(5, 3)], {"training": True}),
    "layer_norm": ("layer_norm", [(2, 3, 4), (3, 4), (3, 4)], {"normalized_shape": (3, 4), "eps": 1e-3}),
    "group_norm": ("group_norm", [(2, 4, 2, 3), (4,), (4,)], {"num_groups": 2}),
    "interpolate, nearest": ("interpolate", [(1, 2, 3, 5)], {"size": (5, 3), "mode": "nearest"}),
    "interpolate, nearest by factors": ("interpolate", [(1, 2, 3, 5)], {"scale_factor": (1.7, 0.7)}),
    "interpolate, bilinear": ("interpolate", [(1, 2, 3, 5)], {"size": (5, 3), "mode": "bilinear"}),
    "interpolate, bilinear by factors": (
        "interpolate",
        [(1, 2, 3, 5)],
        {"scale_factor": (1.7, 0.7), "mode": "bilinear"},
    ),
    "interpolate, corners aligned": (
        "interpolate",
        [(1, 2, 3, 5)],
        {"size": (5, 3), "mode": "bilinear", "align_corners": True},
    ),
}


def filled(shape: tuple[int, ...], number: int) -> np.ndarray:
    """Numbers between -1 and 1 without a pattern that an op could share."""
    return np.sin(np.arange(1, 1 + np.prod(shape)) ** 2 * 0.7 + number).reshape(shape)


def running() -> list[np.ndarray]:
    """A mean and a variance to begin with, for two channels or for three."""
    return [np.array([0.2, -0.3, 0.1]), np.array([0.5, 2.0, 1.0])]


def by(library: Any, functions: Any, gradients: Any, name: str, dtype: str) -> dict[str, np.ndarray]:
    """What a library computes: the result, the gradient of each input, the running statistics."""
    function, shapes, options = CALLS[name]
    options = dict(options)
    inputs = [
        library.tensor(filled(shape, n).astype(dtype), requires_grad=True) for n, shape in enumerate(shapes)
    ]
    x, *affine = inputs
    moved = []
    if function == "batch_norm":
        moved = [library.tensor(values[: x.shape[1]].astype(dtype)) for values in running()]
        out = functions.batch_norm(x, *moved, *affine, **options)
    elif affine and "norm" in function:
        named = dict(zip(("weight", "bias"), affine, strict=True))
        out = getattr(functions, function)(x, **named, **options)
    else:
        out = getattr(functions, function)(*inputs, **options)
    weights = library.tensor(filled(tuple(out.shape), 9).astype(dtype))
    found = [out, *gradients((weights * out * out).sum(), inputs), *moved]
    names = ["out", *(f"gradient {n}" for n in range(len(inputs))), "running mean", "running var"]
    return {name: value.detach().numpy() for name, value in zip(names, found, strict=False)}


def by_pytorch(torch: Any, name: str) -> dict[str, np.ndarray]:
    return by(torch, torch.nn.functional, torch.autograd.grad, name, "float64")


def assert_same(found: np.ndarray, wanted: np.ndarray, precision: float, message: str) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=precision * np.abs(wanted).max(), err_msg=message)


@pytest.fixture(scope="module")
def pinned() -> dict[str, dict[str, Any]]:
    if os.environ.get(REWRITE):
        torch = pytest.importorskip("torch")
        calls = {
            name: {k: v.round(12).tolist() for k, v in by_pytorch(torch, name).items()} for name in CALLS
        }
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in calls.items())
        FIGURES.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def test_every_call_has_figures(pinned: dict) -> None:
    assert list(pinned) == list(CALLS)


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_pytorchs(pinned: dict, name: str, kernels: str, dtype: str) -> None:
    if kernels == "numba":
        pytest.importorskip("numba")
    with use_kernels(kernels):
        found = by(tg, tg, tg.grad, name, dtype)
    assert list(found) == list(pinned[name])
    for what, value in found.items():
        assert value.dtype == dtype
        assert_same(value, np.array(pinned[name][what]), PRECISION[dtype], what)


@pytest.mark.parametrize("name", CALLS)
def test_the_figures_are_those_of_the_pytorch_at_hand(pinned: dict, name: str) -> None:
    torch = pytest.importorskip("torch")
    found = by_pytorch(torch, name)
    assert list(found) == list(pinned[name])
    for what, value in found.items():
        assert_same(value, np.array(pinned[name][what]), 1e-11, what)
