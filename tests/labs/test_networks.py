"""What the labs share: initialisations, the training against the trainer's, losses averaged."""

import math

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.labs import networks
from tinygrad_rnn.models import ResNet
from tinygrad_rnn.training import ImageConfig, ImageTrainer
from tinygrad_rnn.vision import load_images

pytest.importorskip("sklearn")


@pytest.mark.parametrize("how", networks.INITIALISATIONS)
def test_initialisations_have_the_variance_of_their_formulas(how):
    tg.manual_seed(0)
    conv, linear = tg.nn.Conv2d(32, 64, 3), tg.nn.Linear(300, 200)
    networks.initialise(tg.nn.Sequential(conv, linear), how)
    for layer, fan_in, fan_out in ((conv, 32 * 9, 64 * 9), (linear, 300, 200)):
        expected = {"he": 2 / fan_in, "glorot": 2 / (fan_in + fan_out), "uniform": 1 / (3 * fan_in)}[how]
        weight, bias = layer.weight.numpy(), layer.bias.numpy()
        assert weight.var() == pytest.approx(expected, rel=0.05) and abs(weight.mean()) < 1e-3
        if how == "uniform":
            assert 0 < np.abs(bias).max() <= 1 / math.sqrt(fan_in)
        else:
            assert not bias.any()


def test_no_such_initialisation():
    with pytest.raises(UsageError, match=r"'xavier'; there are he, glorot, uniform"):
        networks.initialise(tg.nn.Linear(2, 2), "xavier")


def test_it_trains_as_the_trainer_does():
    images, steps = load_images("digits"), 4
    config = ImageConfig(
        images="digits", depth=8, width=2, lr=0.05, weight_decay=1e-3, max_steps=steps, seed=5, clip=math.inf
    )
    trainer = ImageTrainer(config, images)
    expected = [trainer.train_step().loss for _ in range(steps)]
    tg.manual_seed(5)
    model = ResNet(8, classes=10, in_channels=1, width=2)
    trained = networks.train(model, images, steps, 0.05, 5, config.batch_size, 1e-3)
    np.testing.assert_allclose(trained.losses, expected, rtol=1e-5)
    assert trained.last_loss == pytest.approx(np.mean(expected))
    assert networks.accuracy(model, images) == trainer.validate().measures["val_accuracy"]


def test_a_training_that_diverges_ends_and_is_counted_to_its_end():
    images, stepped = load_images("digits"), []
    tg.manual_seed(0)
    model = ResNet(8, classes=10, in_channels=1, width=2, batch_norm=False)
    with networks.computing():
        trained = networks.train(model, images, 12, 1e20, 0, 64, stepped=lambda: stepped.append(1))
    assert math.isfinite(trained.losses[0]) and math.isnan(trained.losses[-1])
    assert trained.last_loss == math.inf and len(stepped) == 12


def test_smoothed():
    losses = np.random.default_rng(0).random(9)
    for steps in (1, 3, 20):
        expected = [losses[max(0, i + 1 - steps) : i + 1].mean() for i in range(9)]
        np.testing.assert_allclose(networks.smoothed(losses, steps), expected)


def test_parameters_and_nothing_else_become_float64():
    model = networks.in_float64(ResNet(8, classes=10, in_channels=1, width=2))
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    assert networks.without_biases(ResNet(8, batch_norm=False)).conv.bias is None
