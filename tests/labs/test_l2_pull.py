"""The lab l2-pull: the pull alone against its formula, sizes of blocks against NumPy, and what decides."""

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.labs import figure
from tinygrad_rnn.labs import l2_pull as lab
from tinygrad_rnn.labs.networks import without_biases
from tinygrad_rnn.vision import load_images

pytest.importorskip("sklearn")


@pytest.mark.parametrize("name", lab.PULLED)
def test_alone_the_pull_is_geometric(name):
    measured = lab.pull(name, 12, seed=3)
    layers = {"residual block": 2, "residual, last layer only": 1, "plain block": 2}.get(name, 20)
    expected = [measured[0] * 0.99 ** (layers * step) for step in range(13)]
    np.testing.assert_allclose(measured, expected, rtol=1e-10)
    np.testing.assert_allclose(lab.predicted(name, measured), expected, rtol=1e-12)


def test_a_pull_that_is_not_so_would_be_noticed(monkeypatch):
    def half_as_strong(parameters, lr, weight_decay):
        return tg.optim.SGD(parameters, lr, weight_decay=weight_decay / 2)

    monkeypatch.setattr(lab, "SGD", half_as_strong)
    measured = lab.pull("plain block", 3, seed=0)
    assert np.abs(measured / lab.predicted("plain block", measured) - 1).max() > 1e3 * lab.EXACT


@pytest.mark.parametrize("name", lab.NETWORKS)
def test_sizes_of_blocks(name):
    """Against the blocks' inputs and outputs, taken from the network as it runs."""
    images = load_images("digits")
    tg.manual_seed(0)
    model = without_biases(lab.NETWORKS[name](depth=14, classes=10, in_channels=1, width=3, batch_norm=False))
    mean, std = (of[:, None, None] for of in (images.mean, images.std))
    x = tg.relu(model.conv(tg.tensor((images.held_out_images / np.float32(255) - mean) / std)))
    ratios = []
    for block in model.blocks:
        before = x.numpy()
        inside = block.conv2(tg.relu(block.conv1(x))).numpy()
        x = block(x)
        if x.shape == before.shape:
            after = inside if name == "ResNet" else np.maximum(inside, 0)
            ratios.append(np.sqrt((after**2).sum() / (before**2).sum()))
    assert len(ratios) == 4
    expected = np.prod(ratios) ** (1 / 4)
    assert lab.size_of_blocks(model, images) == pytest.approx(expected, rel=1e-4)


def test_nothing_left_is_a_size_of_zero():
    images = load_images("digits")
    model = lab.NETWORKS["plain"](depth=8, classes=10, in_channels=1, width=2, batch_norm=False)
    with tg.no_grad():
        for _, weight in model.named_parameters():
            weight.copy_(0)
    assert lab.size_of_blocks(model, images) == 0


def test_a_small_run_has_all_its_numbers():
    shares = []
    found = lab.run(
        seeds=[0, 1],
        report=lambda share, doing: shares.append(share),
        decays=(0.0, 0.5),
        depth=8,
        steps=3,
        width=2,
        pure_steps=4,
    )
    assert shares == sorted(shares) and shares[-1] == 1
    numbers = found.numbers
    assert np.shape(numbers["results"]["plain"]["accuracy"]) == (2, 2)
    assert max(numbers["pull_alone"]["largest_relative_error"].values()) < 1e-12
    sizes = np.array(numbers["results"]["ResNet"]["size"])
    assert numbers["branches_at_strongest_decay"] == (sizes[:, 1] / sizes[:, 0]).max()
    assert not found.holds  # three steps teach nothing
    assert max(map(len, found.view().text(80).splitlines())) <= 80


def test_decays_stand_side_by_side_in_the_picture():
    pytest.importorskip("matplotlib")
    _, size, learnt = figure.draw(judged([[0.9, 0.15, 0.1]], [[0.95, 0.9, 0.1]])).axes
    for axes in (size, learnt):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.1", "0.3"]
    assert learnt.get_yscale() == "linear" and max(learnt.lines[-1].get_ydata()) == 95


def judged(plain, residual, sizes=((1.0, 1.0, 0.05),)):
    decays = (0.0, 0.1, 0.3)
    results = {
        "plain": {"size": [[1.0, 1.0, 0.1]], "accuracy": plain},
        "ResNet": {"size": sizes, "accuracy": residual},
    }
    pure = {name: [lab.predicted(name, [0.5, 0.0]).tolist()] for name in lab.PULLED}
    return lab._finding([0], decays, 8, 3, 2, 4, pure, results)


def test_each_condition_decides():
    good = [[0.95, 0.9, 0.1]]
    assert judged([[0.9, 0.15, 0.1]], good).holds
    assert (
        "at weight decay 0.1 the plain network recognises 15.0 %" in judged([[0.9, 0.15, 0.1]], good).verdict
    )
    assert not judged([[0.9, 0.3, 0.1]], good).holds  # nowhere at chance where the residual one is good
    assert not judged([[0.5, 0.15, 0.1]], good).holds  # never learnt
    assert not judged([[0.9, 0.15, 0.1]], [[0.95, 0.7, 0.1]]).holds
    assert not judged([[0.9, 0.15, 0.1]], good, sizes=[[1.0, 1.0, 0.2]]).holds
    assert not judged([[0.9, 0.15, 0.1], [0.9, 0.3, 0.1]], good * 2).holds  # in one seed only
