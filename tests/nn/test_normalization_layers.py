"""Normalisation layers: what they remember of the batches, and what they take."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import DtypeError, ShapeError

seeds = st.integers(0, 2**32 - 1)
BATCHES = {nn.BatchNorm1d: [(4, 3), (2, 3, 5)], nn.BatchNorm2d: [(2, 3, 4, 5), (5, 3, 1, 2)]}
each_kind = pytest.mark.parametrize("kind", BATCHES)


def over(shape):
    return (0, *range(2, len(shape)))


def spread(values, shape):
    return np.reshape(values, (-1, *[1] * (len(shape) - 2)))


@each_kind
@given(
    seed=seeds, momentum=st.one_of(st.none(), st.floats(0, 1)), steps=st.integers(0, 4), affine=st.booleans()
)
def test_what_is_remembered_of_the_batches_and_used_in_evaluation(kind, seed, momentum, steps, affine):
    rng = np.random.default_rng(seed)
    layer = kind(3, eps=1e-3, momentum=momentum, affine=affine)
    weight, bias = np.ones(3), np.zeros(3)
    if affine:
        weight, bias = rng.standard_normal((2, 3)).astype(np.float32)
        layer.load_state_dict({**layer.state_dict(), "weight": weight, "bias": bias})
    mean, var = np.zeros(3), np.ones(3)
    for step in range(steps):
        shape = BATCHES[kind][step % 2]
        x = (2 * rng.standard_normal(shape) + 1).astype(np.float32)
        m, v = x.mean(over(shape)), x.var(over(shape))
        expected = (x - spread(m, shape)) / np.sqrt(spread(v, shape) + 1e-3)
        expected = expected * spread(weight, shape) + spread(bias, shape)
        np.testing.assert_allclose(layer(tg.tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-4)
        part = 1 / (step + 1) if momentum is None else momentum
        mean += part * (m - mean)
        var += part * (x.var(over(shape), ddof=1) - var)
    assert layer.num_batches_tracked.item() == steps
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-4, atol=1e-5)

    layer.eval()
    state = layer.state_dict()
    shape = (1, *BATCHES[kind][0][1:])  # one value a channel serves here
    x = rng.standard_normal(shape).astype(np.float32)
    expected = (x - spread(mean, shape)) / np.sqrt(spread(var, shape) + 1e-3)
    expected = expected * spread(weight, shape) + spread(bias, shape)
    np.testing.assert_allclose(layer(tg.tensor(x)).numpy(), expected, rtol=1e-3, atol=1e-4)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, state[name], err_msg="evaluation changes nothing")


@each_kind
def test_without_running_statistics_evaluation_uses_the_batch(kind):
    layer = kind(3, track_running_stats=False)
    assert list(layer.state_dict()) == ["weight", "bias"] and not list(layer.buffers())
    x = tg.randn(*BATCHES[kind][0])
    trained = layer(x).numpy()
    np.testing.assert_array_equal(layer.eval()(x).numpy(), trained)


@each_kind
def test_running_statistics_are_part_of_the_state_and_not_learnt(kind):
    layer, other = kind(3), kind(3)
    names = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(layer.state_dict()) == names
    assert [n for n, _ in layer.named_parameters()] == names[:2] and layer.num_parameters() == 6
    x = tg.randn(*BATCHES[kind][0])
    descent = optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        (layer(x) * x).sum().backward()
        descent.step()
    other.load_state_dict(layer.state_dict())
    twin = copy.deepcopy(layer)
    expected = layer.eval()(x).numpy()
    layer.train()(x)
    for same in (other, twin):
        np.testing.assert_array_equal(same.eval()(x).numpy(), expected)
        assert same.num_batches_tracked.item() == 3
    assert layer.num_batches_tracked.item() == 4


@each_kind
def test_batch_norm_refuses(kind):
    layer = kind(3)
    name = kind.__name__
    for shape in [(2, 4, 5, 5), (2, 4), (3,), (2, 3, 4, 5, 6)]:
        with pytest.raises(ShapeError, match=rf"{name}\(3\) takes .*the second of size 3, and x has shape"):
            layer(tg.zeros(*shape))
    one = (1, 3, *[1] * (len(BATCHES[kind][0]) - 2))
    with pytest.raises(ShapeError, match="more than one value"):
        layer(tg.zeros(*one))
    assert layer.num_batches_tracked.item() == 0, "a batch that was refused does not count"
    assert layer.eval()(tg.zeros(*one)).shape == one


@given(seeds, st.sampled_from([3, (3,), (4, 3)]), st.booleans(), st.booleans())
def test_layer_norm_is_its_formula(seed, shape, affine, bias):
    rng = np.random.default_rng(seed)
    layer = nn.LayerNorm(shape, eps=1e-3, elementwise_affine=affine, bias=bias)
    x = rng.standard_normal((2, 4, 3)).astype(np.float32)
    axes = (-1,) if shape != (4, 3) else (-2, -1)
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3)
    for name, p in layer.named_parameters():
        values = rng.standard_normal(p.shape).astype(np.float32)
        with tg.no_grad():
            p.copy_(values)
        expected = expected * values if name == "weight" else expected + values
    assert [n for n, _ in layer.named_parameters()] == ["weight"] * affine + ["bias"] * (affine and bias)
    np.testing.assert_allclose(layer(tg.tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-4)


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.booleans(), st.sampled_from([(), (4,), (3, 2)]))
def test_group_norm_is_its_formula(seed, groups, of_group, affine, places):
    rng = np.random.default_rng(seed)
    layer = nn.GroupNorm(groups, groups * of_group, eps=1e-3, affine=affine)
    x = rng.standard_normal((2, groups * of_group, *places)).astype(np.float32)
    rows = x.reshape(2, groups, -1)
    rows = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-3)
    expected = rows.reshape(x.shape)
    for name, p in layer.named_parameters():
        values = rng.standard_normal(p.shape).astype(np.float32)
        with tg.no_grad():
            p.copy_(values)
        expected = (
            expected * spread(values, x.shape) if name == "weight" else expected + spread(values, x.shape)
        )
    assert layer.num_parameters() == 2 * affine * groups * of_group
    np.testing.assert_allclose(layer(tg.tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_group_and_layer_norm_refuse():
    with pytest.raises(ShapeError, match="6 channels cannot be divided into 4 groups"):
        nn.GroupNorm(4, 6)
    for shape in [(6,), (2, 4, 3)]:
        with pytest.raises(ShapeError, match=r"takes \(N, 6, \.\.\.\), and x has shape"):
            nn.GroupNorm(3, 6)(tg.zeros(*shape))
    with pytest.raises(ShapeError):
        nn.LayerNorm((4, 3))(tg.zeros(2, 3, 4))


def test_sizes_that_are_none_are_refused_when_a_layer_is_made():
    for make, error, said in [
        (lambda: nn.BatchNorm2d(0), ShapeError, "BatchNorm2d: num_features must be at least 1, not 0"),
        (lambda: nn.BatchNorm1d(2.5), DtypeError, "BatchNorm1d: num_features must be an integer, not 2.5"),
        (
            lambda: nn.LayerNorm((4, 2.0)),
            DtypeError,
            "LayerNorm: normalized_shape must be .* not \\(4, 2.0\\)",
        ),
        (lambda: nn.LayerNorm(-1), ShapeError, "LayerNorm: normalized_shape must be at least 1, not -1"),
        (lambda: nn.GroupNorm(0, 6), ShapeError, "GroupNorm: num_groups must be at least 1, not 0"),
        (lambda: nn.GroupNorm(True, 6), DtypeError, "GroupNorm: num_groups must be an integer, not True"),
        (lambda: nn.GroupNorm(1, None), DtypeError, "GroupNorm: num_channels must be an integer, not None"),
    ]:
        with pytest.raises(error, match=said):
            make()
    assert nn.LayerNorm(np.int64(4)).normalized_shape == (4,)


@each_kind
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_checkpoint_counts_a_batch_once(kind, momentum):
    """And leaves all that is remembered as it is without one, though it computes the batch twice."""
    twins = kind(3, momentum=momentum), kind(3, momentum=momentum)
    for step in range(3):
        x = tg.tensor(np.random.default_rng(step).normal(size=BATCHES[kind][step % 2]), requires_grad=True)
        for layer, out in zip(twins, (tg.checkpoint(twins[0], x), twins[1](x)), strict=True):
            assert layer.num_batches_tracked.item() == step + 1
            (out * out * out).sum().backward()
            assert layer.num_batches_tracked.item() == step + 1
        for name, value in twins[1].state_dict().items():
            np.testing.assert_array_equal(twins[0].state_dict()[name], value, err_msg=name)
