"""The lab gradient-by-depth: its norms against finite differences, its margins against its norms."""

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.labs import gradient_by_depth as lab
from tinygrad_rnn.labs.networks import first_batch, in_float64, initialise
from tinygrad_rnn.nn import Conv2d
from tinygrad_rnn.vision import load_images

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.mark.parametrize("name", ["plain", "ResNet, batch norm"])
@pytest.mark.parametrize("layer", [0, -1])
def test_norms_are_those_of_finite_differences(digits, name, layer):
    how, seed, batch = "he", 1, 2
    outputs, weights = lab.norms(name, 8, how, seed, digits, 1, batch)
    assert len(outputs) == len(weights) == 7

    tg.manual_seed(seed)
    kind, batch_norm = lab.NETWORKS[name]
    model = kind(8, classes=10, in_channels=1, width=1, batch_norm=batch_norm)
    initialise(model, how)
    in_float64(model)
    inputs, labels = first_batch(digits, batch, seed)
    conv = [module for _, module in model.named_modules() if isinstance(module, Conv2d)][layer]
    forward, shape = conv.forward, []

    def loss(added):
        def shifted(x):
            y = forward(x)
            shape[:] = y.shape
            return y if added is None else y + tg.tensor(added.reshape(y.shape))

        conv.forward = shifted
        with tg.no_grad():
            return tg.cross_entropy(model(inputs), tg.tensor(labels)).item()

    loss(None)
    gradient = []
    for place in range(int(np.prod(shape))):
        added = np.zeros(int(np.prod(shape)))
        added[place] = 1e-6
        gradient.append((loss(added) - loss(-added)) / 2e-6)
    assert outputs[layer] == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


def test_without_normalisation_weights_and_their_gradients_have_one_product_in_all_layers(digits):
    """Euler's theorem, which is why the lab does not look at the gradients of weights."""
    tg.manual_seed(0)
    model = lab.NETWORKS["plain"][0](20, classes=10, in_channels=1, width=4, batch_norm=False)
    initialise(model, "glorot")
    in_float64(model)
    inputs, labels = first_batch(digits, 8, 0)
    tg.cross_entropy(model(inputs), tg.tensor(labels)).backward()
    products = [(w.numpy() * w.grad.numpy()).sum() for _, w in model.weights_by_depth()]
    np.testing.assert_allclose(products, products[0], rtol=1e-6)


@pytest.fixture(scope="module")
def found():
    return lab.run(seeds=[0, 1], depths=(8, 14), width=2, batch_size=4)


def test_orders_are_of_the_norms_that_are_given(found):
    numbers = found.numbers
    for case in lab.CASES:
        for name in lab.NETWORKS:
            norms = numbers["norms_of_outputs"][case][name]
            orders = [[np.log10(of[0]) - np.log10(of[-1]) for of in run] for run in norms]
            np.testing.assert_allclose(numbers["log10_first_over_last"][case][name], orders, atol=1e-12)
    assert [len(of) for of in numbers["norms_of_outputs"]["uniform"]["ResNet"][0]] == [7, 13]
    assert numbers["depths"] == {"uniform": [8, 14], "he": [8, 14], "he, 32x32": [14]}


def test_the_gradient_of_each_layer_is_drawn(found):
    *_, panel = found.panels
    assert panel.title == "Each layer of 14, PyTorch's default"
    for curve in panel.curves:
        norms = [run[1] for run in found.numbers["norms_of_outputs"]["uniform"][curve.label]]
        expected = [np.log10(np.array(of) / of[-1]) for of in norms]
        np.testing.assert_allclose(curve.runs, expected, atol=1e-12)
        assert list(curve.x) == list(range(1, 14))
    text = found.view().text(80)
    assert "Across: convolution, the first one first, 1 to 13." in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_the_margin_decides(found, monkeypatch):
    ratios = found.numbers["log10_first_over_last"]["uniform"]
    margins = [
        abs(ratios["plain"][i][1]) - max(abs(ratios["ResNet"][i][1]), abs(ratios["ResNet, batch norm"][i][1]))
        for i in range(2)
    ]
    np.testing.assert_allclose(found.numbers["margin"]["uniform"], margins)
    assert min(margins) >= 2 and found.holds
    assert f"margin {min(margins):.1f} (asked: 2)" in found.verdict
    monkeypatch.setattr(lab, "LIMIT", min(margins) + 0.01)
    assert not lab.run(seeds=[0, 1], depths=(8, 14), width=2, batch_size=4).holds


def test_a_margin_that_is_no_number_decides_nothing():
    assert np.isnan(lab.least([5.0, np.nan])) and lab.least([5.0, 3.0]) == 3


def test_a_gradient_that_is_gone_is_no_error():
    assert lab.orders([0.0, 1.0]) == -np.inf
    assert lab.orders([1e-3, 1.0]) == pytest.approx(-3)
