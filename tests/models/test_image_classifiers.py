"""PlainNet, ResNet, VGG: their sizes as published, their shapes, and that they can be made again."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.models import IMAGE_MODELS, VGG, PlainNet, ResNet
from tinygrad_rnn.models.image_classifiers import VGG_STAGES, fewest_numbers

SMALLEST = {"resnet": 8, "plain": 8, "vgg": 8}
each_model = pytest.mark.parametrize("kind", IMAGE_MODELS)


def tiny(kind, **options):
    return IMAGE_MODELS[kind](SMALLEST[kind], **{"classes": 3, "in_channels": 2, "width": 4, **options})


def some_images(size, count=4, channels=2):
    return np.random.default_rng(0).standard_normal((count, channels, *size)).astype(np.float32)


@pytest.mark.parametrize("depth, millions", [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_residual_networks_have_the_published_numbers_of_parameters(depth, millions):
    """Table 6 of He et al. (2016), Deep residual learning for image recognition."""
    count = ResNet(depth).num_parameters()
    assert count == pytest.approx(millions * 1e6, rel=0.02)
    assert PlainNet(depth).num_parameters() == count


def test_the_published_bottleneck_network():
    """ResNet-164 of He et al. (2016), Identity mappings: 1.7 million."""
    net = ResNet(164, bottleneck=True, preactivation=True, shortcut="projection")
    assert net.num_parameters() == pytest.approx(1.7e6, rel=0.02)


def test_the_published_vgg_convolutions():
    """VGG-16 has 14.7 million parameters in its convolutions; what made it 138 are its linear layers."""
    named = VGG(16, batch_norm=False).named_parameters()
    assert sum(p.size for name, p in named if name.startswith("stages")) == 14_714_688


@each_model
def test_each_layer_with_weights_counts(kind):
    depths = list(VGG_STAGES) if kind == "vgg" else [8, 14, 20, 56]
    for depth in depths:
        net = IMAGE_MODELS[kind](depth, width=2)
        weights = net.weights_by_depth()
        assert len(weights) == depth
        assert weights[-1][1].shape[0] == 10 and weights[0][1].shape[1] == 3
        assert all(first.shape[0] == then.shape[1] for (_, first), (_, then) in pairwise(weights))
    if kind != "vgg":
        options = {"shortcut": "projection"} if kind == "resnet" else {}
        net = IMAGE_MODELS[kind](20, width=2, bottleneck=True, **options)
        assert len(net.weights_by_depth()) == 20


@each_model
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (28, 28), (9, 21), (1, 1), (224, 224)])
def test_images_of_any_size(kind, batch_norm, size):
    net = tiny(kind, batch_norm=batch_norm, width=1)
    logits = net(some_images(size, 2))
    assert logits.shape == (2, 3) and np.isfinite(logits.numpy()).all()


@pytest.mark.parametrize("kind", ["resnet", "plain"])
@pytest.mark.parametrize("bottleneck", [True, False])
def test_stages_double_the_channels_and_halve_the_image(kind, bottleneck):
    net = IMAGE_MODELS[kind](20, width=2, bottleneck=bottleneck, preactivation=True)
    x, seen = net.conv(tg.tensor(some_images((32, 9), 2, 3))), []
    for block in net.blocks:
        x = block(x)
        seen.append(x.shape[1:])
    wide = 4 if bottleneck else 1
    each = len(seen) // 3
    expected = [(2 * wide, 32, 9), (4 * wide, 16, 5), (8 * wide, 8, 3)]
    assert seen == [shape for shape in expected for _ in range(each)]


@pytest.mark.parametrize("size, expected", [(1, 1), (8, 1), (16, 1), (28, 1), (32, 1), (64, 2), (224, 7)])
def test_vgg_halves_as_often_as_the_image_allows(size, expected):
    features = tiny("vgg", width=1).features(tg.tensor(some_images((size, size), 2)))
    assert features.shape == (2, 8, expected, expected)


def test_vgg_spares_the_first_stages_of_a_small_image():
    net = tiny("vgg", width=1)
    seen = []
    for number, stage in enumerate(net.stages):
        setattr(net.stages, str(number), lambda x, stage=stage: seen.append(x.shape[2]) or stage(x))
    net(some_images((8, 8)))
    assert seen == [8, 8, 8, 4, 2]


@st.composite
def models(draw):
    kind = draw(st.sampled_from(list(IMAGE_MODELS)))
    options = {"batch_norm": draw(st.booleans()), "width": draw(st.integers(1, 3))}
    options |= {"classes": draw(st.integers(1, 4)), "in_channels": draw(st.integers(1, 3))}
    if kind == "vgg":
        return kind, {"depth": draw(st.sampled_from([8, 11])), **options}
    bottleneck = draw(st.booleans())
    options |= {"bottleneck": bottleneck, "preactivation": draw(st.booleans())}
    if kind == "resnet":
        options["shortcut"] = draw(st.sampled_from(["projection", "padding"]))
        options["zero_init"] = draw(st.booleans())
    return kind, {"depth": draw(st.sampled_from([11, 20] if bottleneck else [8, 14])), **options}


@given(models())
def test_config_makes_the_model_again(drawn):
    kind, options = drawn
    net = IMAGE_MODELS[kind](**options)
    assert {name: net.config()[name] for name in options} == options
    net(some_images((8, 8), 2, options["in_channels"]))  # the running statistics move
    again = type(net)(**json.loads(json.dumps(net.config())))
    again.load_state_dict(net.state_dict())
    x = some_images((8, 8), 2, options["in_channels"])
    np.testing.assert_array_equal(again.eval()(x).numpy(), net.eval()(x).numpy())


@given(models())
def test_no_model_has_fewer_numbers_than_the_fewest(drawn):
    kind, options = drawn
    sizes = {name: options[name] for name in ("depth", "width", "classes", "in_channels")}
    found = IMAGE_MODELS[kind](**options).num_parameters()
    assert fewest_numbers(**sizes) <= found
    wide = fewest_numbers(**sizes | {"width": 1000})
    assert wide > found, "and not so few that a header could lie"


@given(models())
def test_every_parameter_gets_a_gradient(drawn):
    kind, options = drawn
    net = IMAGE_MODELS[kind](**options)
    x = some_images((8, 8), 3, options["in_channels"])
    tg.cross_entropy(net(x), np.zeros(3, np.int64)).backward()
    assert all(p.grad is not None for p in net.parameters())
    if kind == "resnet" and options["zero_init"]:
        last = [
            n
            for n, p in net.named_parameters()
            if "blocks" in n and not p.numpy().any() and n.endswith("weight")
        ]
        assert len(last) == len(net.blocks)


def test_a_plain_net_and_a_residual_one_start_from_the_same_weights():
    tg.manual_seed(3)
    plain = PlainNet(14, width=4)
    tg.manual_seed(3)
    residual = ResNet(14, width=4)
    for (name, ours), (same, theirs) in zip(
        plain.named_parameters(), residual.named_parameters(), strict=True
    ):
        assert name == same
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_convolutions_start_as_he_et_al_have_it():
    for net in (ResNet(20), PlainNet(20), VGG(11, width=16), VGG(11, width=16, batch_norm=False)):
        for name, weight in net.weights_by_depth()[1:-1]:
            variance = 2 / (weight.size // weight.shape[0])
            assert weight.numpy().var() == pytest.approx(variance, rel=0.15), name


@pytest.mark.parametrize("preactivation", [True, False])
def test_a_residual_net_starts_shallow_with_zero_init(preactivation):
    net = tiny("resnet", preactivation=preactivation, zero_init=True)
    x = tg.tensor(some_images((8, 8)))
    start = net.conv(x) if preactivation else tg.relu(net.bn(net.conv(x)))
    through = start
    for block in net.blocks:
        through = block.shortcut(through)
    np.testing.assert_array_equal(net.blocks(start).numpy(), through.numpy())


@each_model
@pytest.mark.parametrize("batch_norm", [True, False])
def test_it_learns_what_it_is_shown(kind, batch_norm):
    net = tiny(kind, batch_norm=batch_norm)
    x, labels = some_images((8, 8), 12), np.arange(12) % 3
    descent = optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = tg.cross_entropy(net(x), labels)
        loss.backward()
        descent.step()
        descent.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_refused():
    for depth, said in [(21, "20 and 26"), (9, "8 and 14"), (7, "8"), (1, "8"), (19, "14 and 20")]:
        with pytest.raises(
            UsageError, match=rf"a ResNet of basic blocks has 6n \+ 2 layers, not {depth}; .*{said}$"
        ):
            ResNet(depth)
    with pytest.raises(
        UsageError, match=r"PlainNet of bottleneck blocks has 9n \+ 2 layers, not 14; .*11 and 20$"
    ):
        PlainNet(14, bottleneck=True)
    with pytest.raises(UsageError, match="a VGG has 8, 11, 13, 16, 19, 20 layers, not 12"):
        VGG(12)
    for name in ("depth", "classes", "in_channels", "width"):
        with pytest.raises(UsageError, match=f"{name} must be at least 1, not 0"):
            ResNet(**{name: 0})
    with pytest.raises(UsageError, match="no shortcut is called 'identity'; there are projection, padding"):
        ResNet(8, shortcut="identity")
    with pytest.raises(tg.errors.ShapeError, match="cannot make 4 of 8"):
        nn.ResidualBlock(8, 4, shortcut="padding")
    with pytest.raises(tg.errors.ShapeError, match="a quarter of its out_channels inside, not of 6"):
        nn.ResidualBlock(8, 6, bottleneck=True)
    with pytest.raises(tg.errors.ShapeError):
        ResNet(8)(np.zeros((2, 1, 8, 8), np.float32))
