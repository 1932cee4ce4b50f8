"""Convolution, pooling and what learns nothing: layers hold the arguments, the ops compute."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import DtypeError, ShapeError

small = st.integers(1, 3)


@given(small, small, small, st.tuples(small, small), st.booleans())
def test_shapes_and_first_values_of_the_weights(groups, ins, outs, kernel, bias):
    ins, outs = groups * ins, groups * outs
    layers = {
        nn.Conv1d(ins, outs, kernel[0], groups=groups, bias=bias): (outs, ins // groups, kernel[0]),
        nn.Conv2d(ins, outs, kernel, groups=groups, bias=bias): (outs, ins // groups, *kernel),
        nn.ConvTranspose2d(ins, outs, kernel, groups=groups, bias=bias): (ins, outs // groups, *kernel),
    }
    for layer, shape in layers.items():
        assert layer.weight.shape == shape
        assert layer.bias is None if not bias else layer.bias.shape == (outs,)
        for p in layer.parameters():
            assert np.abs(p.numpy()).max() <= 1 / math.sqrt(math.prod(shape[1:]))


def test_first_values_fill_their_range():
    layer = nn.Conv2d(8, 64, 3)
    bound = 1 / math.sqrt(8 * 9)
    for p in (layer.weight, layer.bias):
        values = p.numpy()
        assert values.max() > 0.9 * bound and values.min() < -0.9 * bound
    assert layer.weight.numpy().std() == pytest.approx(bound / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize("layer", [nn.Conv2d(8, 64, 3), nn.Conv1d(16, 64, 9), nn.Linear(72, 64)])
def test_drawn_anew(layer):
    fan_in = layer.weight.size // 64
    nn.kaiming_normal_(layer.weight)
    drawn = layer.weight.numpy()
    assert drawn.std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05) and abs(drawn.mean()) < 0.02
    assert np.abs(drawn).max() > 2.5 * drawn.std(), "normal, not uniform"
    nn.fan_in_uniform_(layer.weight)
    drawn = layer.weight.numpy()
    assert 0.95 < np.abs(drawn).max() * math.sqrt(fan_in) <= 1
    tg.manual_seed(5)
    nn.kaiming_normal_(layer.weight)
    once = layer.weight.numpy()
    tg.manual_seed(5)
    nn.kaiming_normal_(layer.weight)
    np.testing.assert_array_equal(layer.weight.numpy(), once)


def test_layers_are_the_functions():
    x, row = tg.randn(2, 4, 7, 6), tg.randn(2, 4, 9)
    flat = nn.Conv1d(4, 6, 3, 2, 1, 1, 2)
    conv = nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2)
    back = nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, True, 1)
    pairs = [
        (flat(row), tg.conv1d(row, flat.weight, flat.bias, stride=2, padding=1, groups=2)),
        (
            conv(x),
            tg.conv2d(x, conv.weight, conv.bias, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        ),
        (
            back(x),
            tg.conv_transpose2d(
                x, back.weight, back.bias, stride=2, padding=1, output_padding=1, groups=2, dilation=1
            ),
        ),
        (nn.MaxPool2d(3, 2, 1)(x), tg.max_pool2d(x, 3, stride=2, padding=1)),
        (nn.MaxPool2d(2, 2, 0, 2, True)(x), tg.max_pool2d(x, 2, stride=2, dilation=2, ceil_mode=True)),
        (
            nn.AvgPool2d(3, 2, 1, True, False)(x),
            tg.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        ),
        (nn.GlobalAvgPool2d()(x), tg.mean(x, axis=(2, 3))),
        (nn.ReLU()(x), tg.relu(x)),
        (nn.Flatten()(x), x.reshape(2, -1)),
        (nn.Identity()(x), x),
    ]
    for ours, expected in pairs:
        np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-6, atol=1e-7)
    assert conv(x).shape == (2, 6, 4, 4) and flat(row).shape == (2, 6, 5) and back(x).shape == (2, 6, 14, 12)
    without = nn.Conv2d(4, 6, 3, bias=False)
    np.testing.assert_array_equal(without(x).numpy(), tg.conv2d(x, without.weight).numpy())


def test_flatten_takes_an_empty_batch():
    assert nn.Flatten()(tg.zeros(0, 2, 3)).shape == (0, 6)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d])
def test_refused(kind):
    for arguments, groups, error, said in [
        ((4, 6, 3), 4, ShapeError, "4 does not divide 6"),
        ((5, 6, 3), 3, ShapeError, "3 does not divide 5"),
        ((0, 6, 3), 1, ShapeError, "in_channels must be at least 1, not 0"),
        ((4, 0, 3), 1, ShapeError, "out_channels must be at least 1, not 0"),
        ((4, 6, 0), 1, ShapeError, "kernel_size must be at least 1, not 0"),
        ((4, 6, 3), 0, ShapeError, "groups must be at least 1, not 0"),
        ((4, 6, (3, 3, 3)), 1, ShapeError, r"kernel_size must be an integer.*, not \(3, 3, 3\)"),
        ((4.0, 6, 3), 1, DtypeError, "in_channels must be an integer, not 4.0"),
        ((4, "6", 3), 1, DtypeError, "out_channels must be an integer, not '6'"),
        ((4, 6, "33"), 1, DtypeError, "kernel_size must be an integer.*, not '33'"),
        ((4, 6, 3), True, DtypeError, "groups must be an integer, not True"),
    ]:
        with pytest.raises(error, match=rf"^{kind.__name__}: .*{said}"):
            kind(*arguments, groups=groups)


def test_repr_says_what_a_layer_is():
    text = repr(nn.Sequential(nn.Conv2d(4, 8, (3, 1), 2, groups=2), nn.MaxPool2d(2), nn.ReLU()))
    assert "0: Conv2d(4 -> 8, 3x1, stride 2, groups 2)" in text and "1: MaxPool2d(2)" in text
