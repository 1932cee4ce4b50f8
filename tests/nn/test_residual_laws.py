"""What is claimed of residual blocks: where it is true, and where it ends.

Equalities are exact: what is added to x is zero, and a zero changes no number (-0.0 equals 0.0).
"""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim

seeds = st.integers(0, 2**32 - 1)
strengths = st.floats(0.01, 0.9)  # lr * weight_decay: what a step of pure decay takes away


def images(seed, shape, scale=1.0, dtype=np.float32):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def silence(block, how):
    """Make the branch zero."""
    with tg.no_grad():
        if how == "scale":
            getattr(block, f"bn{block.depth}").weight.copy_(0)
        elif how == "weights":
            for i in range(1, block.depth + 1):
                getattr(block, f"conv{i}").weight.copy_(0)


def forward_backward(module, x, g):
    x = tg.tensor(x, requires_grad=True)
    y = module(x)
    y.backward(tg.tensor(g(y.shape)))
    return y.numpy(), x.grad.numpy()


@st.composite
def silent_blocks(draw, **fixed):
    """Options of a block, how its branch is made zero, and the shape of its input."""
    options = {name: draw(st.booleans()) for name in ("bottleneck", "preactivation", "batch_norm")} | fixed
    how = draw(st.sampled_from(["weights", "zero_init", *["scale"] * options["batch_norm"]]))
    channels = draw(st.integers(1, 3)) * (4 if options["bottleneck"] else 1)
    shape = (draw(st.integers(1, 3)), channels, draw(st.integers(1, 5)), draw(st.integers(2, 5)))
    return options, how, shape


def silent(options, how, channels, made=None, stride=1, **more):
    block = nn.ResidualBlock(
        channels, made or channels, stride, **options, zero_init=how == "zero_init", **more
    )
    silence(block, how)
    return block


# --- a zero branch leaves the shortcut alone -------------------------------------------------------


@given(silent_blocks(preactivation=True), st.integers(1, 4), seeds, st.sampled_from([1e-3, 1.0, 1e3]))
def test_preactivation_blocks_with_a_zero_branch_are_the_identity_in_value_and_gradient(
    drawn, stacked, seed, scale
):
    options, how, shape = drawn
    blocks = nn.Sequential(*[silent(options, how, shape[1]) for _ in range(stacked)])
    x, g = images(seed, shape, scale), images(seed + 1, shape)
    for mode in (blocks.train, blocks.eval):
        mode()
        y, dx = forward_backward(blocks, x, lambda _: g)
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(dx, g)


@given(silent_blocks(preactivation=False), seeds)
def test_postactivation_blocks_with_a_zero_branch_are_relu_which_keeps_its_own_outputs(drawn, seed):
    options, how, shape = drawn
    block = silent(options, how, shape[1])
    x, g = images(seed, shape), images(seed + 1, shape)
    y, dx = forward_backward(block, x, lambda _: g)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(dx, np.where(x > 0, g, 0))
    again, _ = forward_backward(block, y, lambda _: g)
    np.testing.assert_array_equal(again, y)


@given(
    silent_blocks(), st.integers(1, 2), st.integers(0, 2), st.sampled_from(["projection", "padding"]), seeds
)
def test_with_another_shortcut_such_a_block_is_exactly_that(drawn, stride, growth, shortcut, seed):
    options, how, shape = drawn
    assume(stride > 1 or growth)
    made = shape[1] + 4 * growth
    block = silent(options, how, shape[1], made, stride, shortcut=shortcut)
    x, g = images(seed, (2, *shape[1:])), lambda size: images(seed + 1, size)

    def alone(x):
        y = block.shortcut(x)
        return y if options["preactivation"] else tg.relu(y)

    for ours, expected in zip(forward_backward(block, x, g), forward_backward(alone, x, g), strict=True):
        np.testing.assert_array_equal(ours, expected)


@given(seeds, st.integers(1, 3), st.integers(0, 3), st.integers(1, 3))
def test_the_padding_shortcut_drops_rows_and_columns_and_adds_zeros(seed, channels, added, stride):
    x = images(seed, (2, channels, 5, 4))
    expected = np.zeros((2, channels + added, -(-5 // stride), -(-4 // stride)), np.float32)
    expected[:, :channels] = x[:, :, ::stride, ::stride]
    block = nn.residual.PaddingShortcut(channels, channels + added, stride)
    np.testing.assert_array_equal(block(tg.tensor(x)).numpy(), expected)


def test_the_gradient_crosses_1000_blocks_unchanged_and_not_one_plain_one():
    shape = (2, 2, 3, 3)
    blocks = nn.Sequential(*[nn.ResidualBlock(2, 2, preactivation=True, zero_init=True) for _ in range(1000)])
    x, g = images(0, shape), images(1, shape)
    y, dx = forward_backward(blocks, x, lambda _: g)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(dx, g)
    plain = nn.PlainBlock(2, 2, preactivation=True)
    silence(plain, "weights")
    for value in forward_backward(plain, x, lambda _: g):
        assert not value.any()


# --- and where that ends ----------------------------------------------------------------------------


@given(silent_blocks(preactivation=True), seeds)
def test_a_block_whose_branch_is_not_zero_is_not_the_identity(drawn, seed):
    options, how, shape = drawn
    first = silent(options, how, shape[1])
    other = nn.ResidualBlock(shape[1], shape[1], **options).eval()  # in training it might meet a batch of one
    with tg.no_grad():
        for i in range(1, other.depth + 1):
            getattr(other, f"conv{i}").weight.copy_(1)
    x = np.abs(images(seed, shape)) + 0.1
    y, _ = forward_backward(nn.Sequential(first.eval(), other), x, lambda size: images(seed, size))
    assert (y > x).all()


@given(silent_blocks(preactivation=False), seeds)
def test_a_postactivation_block_does_not_keep_negative_inputs(drawn, seed):
    options, how, shape = drawn
    x = -np.abs(images(seed, shape)) - 0.1
    y, dx = forward_backward(silent(options, how, shape[1]), x, lambda size: images(seed, size))
    assert not y.any() and not dx.any()


@given(silent_blocks(preactivation=True, batch_norm=False), st.floats(0.5, 2), seeds)
def test_a_bias_in_the_branch_moves_the_values_but_not_the_gradient(drawn, bias, seed):
    options, how, shape = drawn
    block = silent(options, how, shape[1])
    with tg.no_grad():
        getattr(block, f"conv{block.depth}").bias.copy_(bias)
    x, g = images(seed, shape), images(seed + 1, shape)
    y, dx = forward_backward(block, x, lambda _: g)
    np.testing.assert_array_equal(y, x + np.float32(bias))
    if how == "weights":
        np.testing.assert_array_equal(dx, g)


def test_zero_weights_before_a_normalisation_that_remembers_a_mean_are_not_a_zero_branch():
    x = tg.tensor(images(0, (2, 3, 4, 4)))
    blocks = {how: nn.ResidualBlock(3, 3) for how in ("weights", "scale")}
    for how, block in blocks.items():
        for _ in range(3):
            block(x)
        silence(block, how)
        block.eval()
    assert (blocks["weights"](x).numpy() != tg.relu(x).numpy()).any()
    np.testing.assert_array_equal(blocks["scale"](x).numpy(), tg.relu(x).numpy())


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("preactivation", [True, False])
@pytest.mark.parametrize("bottleneck", [True, False])
def test_what_zero_init_zeroes_learns_and_a_zero_scale_before_a_relu_never_would(
    bottleneck, preactivation, batch_norm
):
    def learning(block):
        x = tg.tensor(images(0, (2, 4, 4, 4)))
        (block(x) * tg.tensor(images(1, (2, 4, 4, 4)))).sum().backward()
        return {name for name, p in block.named_parameters() if p.grad.numpy().any()}

    options = {"bottleneck": bottleneck, "preactivation": preactivation, "batch_norm": batch_norm}
    block = nn.ResidualBlock(4, 4, **options, zero_init=True)
    zero = [n for n, p in block.named_parameters() if n.endswith("weight") and not p.numpy().any()]
    assert zero == [f"{'bn' if batch_norm and not preactivation else 'conv'}{block.depth}.weight"]
    assert zero[0] in learning(block)
    if batch_norm:
        assert (not learning(silent(options, "scale", 4))) == preactivation


# --- what a block is -----------------------------------------------------------------------------------


@given(st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 2), seeds)
def test_a_block_is_what_the_papers_draw(residual, bottleneck, preactivation, batch_norm, stride, seed):
    """The figures of He et al. (2016), both papers, line by line, in eight channels from four."""
    tg.manual_seed(seed)
    kind = nn.ResidualBlock if residual else nn.PlainBlock
    block = kind(4, 8, stride, bottleneck=bottleneck, preactivation=preactivation, batch_norm=batch_norm)
    with tg.no_grad():
        for _, p in block.named_parameters():  # no scale is one, no bias is zero
            p.copy_(p + tg.randn(*p.shape) * 0.3)
    x = tg.tensor(images(seed, (3, 4, 5, 4)))

    def conv(name, x, **options):
        layer = getattr(block, name)
        return tg.conv2d(x, layer.weight, layer.bias, **options)

    def norm(layer, x):
        return tg.batch_norm(x, None, None, layer.weight, layer.bias, training=True) if batch_norm else x

    steps = [("conv1", 3, stride), ("conv2", 3, 1)]
    if bottleneck:
        steps = [("conv1", 1, 1), ("conv2", 3, stride), ("conv3", 1, 1)]
    y = x
    for number, (name, kernel, step) in enumerate(steps):
        scale = getattr(block, f"bn{number + 1}")
        if preactivation:
            y = tg.relu(norm(scale, y))
        y = conv(name, y, stride=step, padding=kernel // 2)
        if not preactivation:
            y = norm(scale, y)
            if number < len(steps) - 1:
                y = tg.relu(y)
    if residual and (preactivation or not batch_norm):
        y = y + tg.conv2d(x, block.shortcut.weight, stride=stride)
    elif residual:
        projection, scale = block.shortcut
        y = y + norm(scale, tg.conv2d(x, projection.weight, stride=stride))
    expected = y if preactivation else tg.relu(y)
    np.testing.assert_allclose(block(x).numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


# --- L2 decay pulls a residual block to the identity, a plain one to zero --------------------------------


def in_double(module):
    for _, part in module.named_modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, (nn.Parameter, nn.Buffer)) and value.dtype == np.float32:
                setattr(part, name, type(value)(value.numpy().astype(np.float64)))
    return module


def decay(parameters, strength, steps, optimizer=optim.SGD):
    """Pure weight decay by an optimiser: the loss has no gradient."""
    parameters = list(parameters)
    descent = optimizer(parameters, lr=0.1, weight_decay=strength / 0.1)
    for _ in range(steps):
        for p in parameters:
            p.grad = tg.zeros(p.shape, dtype=p.dtype)
        descent.step()


def size(x):
    return float(np.sqrt((x.numpy() ** 2).sum()))


def bias_free(bottleneck, kind=nn.ResidualBlock):
    return in_double(nn.Sequential(kind(4, 4, bottleneck=bottleneck, preactivation=True, batch_norm=False)))


@given(st.booleans(), strengths, st.integers(1, 5), seeds, st.sampled_from([optim.SGD, optim.AdamW]))
def test_pure_decay_shrinks_a_branch_and_its_distance_to_the_identity_by_exact_factors(
    bottleneck, strength, steps, seed, optimizer
):
    tg.manual_seed(seed)
    net, x = bias_free(bottleneck), tg.tensor(images(seed, (2, 4, 3, 3), dtype=np.float64))
    block = getattr(net, "0")
    factor = (1 - strength) ** steps

    before = size(block(x) - x)
    assume(before > 1e-6)
    last = getattr(block, f"conv{block.depth}")
    decay(last.parameters(), strength, steps, optimizer)  # the branch is linear in its last layer,
    after = size(block(x) - x)
    assert after == pytest.approx(factor * before, rel=1e-9) and after < before

    weights = {name: size(p) for name, p in block.named_parameters()}
    decay(block.parameters(), strength, steps, optimizer)  # and homogeneous in each
    for name, p in block.named_parameters():
        assert size(p) == pytest.approx(factor * weights[name], rel=1e-9)
    assert size(block(x) - x) == pytest.approx(factor**block.depth * after, rel=1e-9)


@given(st.booleans(), strengths, seeds)
def test_where_pure_decay_ends_a_residual_net_is_the_identity_and_a_plain_one_zero(
    bottleneck, strength, seed
):
    tg.manual_seed(seed)
    x = tg.tensor(images(seed, (2, 4, 3, 3), dtype=np.float64))
    residual, plain = bias_free(bottleneck), bias_free(bottleneck, nn.PlainBlock)
    for net in (residual, plain):
        decay(net.parameters(), strength, round(10 / strength))
    assert size(residual(x) - x) < 1e-6 * size(x)
    assert size(plain(x)) < 1e-6 * size(x)
    assert size(plain(x) - x) == pytest.approx(size(x), rel=1e-5)


@given(strengths)
def test_with_a_bias_decay_may_lead_away_from_the_identity(strength):
    block = getattr(bias_free(False), "0")
    x = tg.ones(1, 4, 1, 1, dtype=np.float64)
    with tg.no_grad():
        for conv in (block.conv1, block.conv2):
            conv.weight.copy_(np.eye(4)[:, :, None, None] * np.ones((3, 3)))
        block.conv2.bias.copy_(-1)
    assert size(block(x) - x) == 0, "what the last layer makes of this x, its bias takes away"
    decay(block.parameters(), strength, 1)
    assert size(block(x) - x) > 0


@given(strengths, st.integers(1, 5), seeds)
def test_a_normalisation_hides_the_decay_of_the_convolution_before_it_but_not_that_of_its_scale(
    strength, steps, seed
):
    tg.manual_seed(seed)
    block = in_double(nn.ResidualBlock(3, 3))
    block.bn1.eps = block.bn2.eps = 0.0  # else it is hidden in the limit of eps to 0
    x = tg.tensor(images(seed, (4, 3, 3, 3), dtype=np.float64))
    before = block.branch(x).numpy()
    decay([block.conv1.weight, block.conv2.weight], strength, steps)
    np.testing.assert_allclose(block.branch(x).numpy(), before, rtol=1e-7, atol=1e-9)
    decay([block.bn2.weight], strength, steps)
    factor = (1 - strength) ** steps
    np.testing.assert_allclose(block.branch(x).numpy(), factor * before, rtol=1e-7, atol=1e-9)
