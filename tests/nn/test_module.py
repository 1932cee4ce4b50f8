"""Modules: what they find inside, and that their states travel whole."""

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import DataError, GraphError, ShapeError


class Shared(nn.Module):
    def __init__(self):
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


def test_parameters_have_dotted_names_and_each_appears_once():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.1), nn.Linear(3, 1, bias=False))
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias", "2.weight"]
    assert model.num_parameters() == 2 * 3 + 3 + 3
    assert [n for n, _ in Shared().named_parameters()] == ["first.weight", "first.bias", "second.bias"]


def test_a_shared_parameter_gets_both_gradients():
    model = Shared()
    x = tg.randn(4, 3)
    model(x).sum().backward()
    with tg.no_grad():
        hidden = model.first(x).numpy()
    ones = np.ones((4, 3), np.float32)
    w = model.first.weight.numpy()
    expected = ones.T @ hidden + (ones @ w).T @ x.numpy()
    np.testing.assert_allclose(model.first.weight.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_state_dict_round_trip_and_what_it_refuses():
    one, two = nn.LSTM(3, 4, 2), nn.LSTM(3, 4, 2)
    two.load_state_dict(one.state_dict())
    x = tg.randn(5, 2, 3)
    np.testing.assert_array_equal(one(x)[0].numpy(), two(x)[0].numpy())
    state = one.state_dict()
    state["weight_ih_l0"] = np.zeros((2, 2), np.float32)
    del state["bias_hh_l1"]
    state["extra"] = np.zeros(1)
    before = two.state_dict()
    with pytest.raises(ShapeError) as caught:
        two.load_state_dict(state)
    for part in ("bias_hh_l1 is missing", "extra is not part", "(2, 2) instead of (16, 3)"):
        assert part in str(caught.value)
    assert all((before[k] == v).all() for k, v in two.state_dict().items()), "nothing was half loaded"


def test_state_dict_is_a_copy():
    layer = nn.Linear(2, 2)
    layer.state_dict()["weight"][:] = 7
    assert not (layer.weight.numpy() == 7).any()


def test_train_and_eval_reach_every_module_and_switch_dropout():
    model = nn.Sequential(nn.Sequential(nn.Dropout(0.5)))
    x = tg.ones(100, 10)
    assert (model.eval()(x).numpy() == 1).all()
    dropped = model.train()(x).numpy()
    assert set(np.unique(dropped)) == {0.0, 2.0}


def test_variational_dropout_zeroes_the_same_features_in_all_time_steps():
    layer = nn.Dropout(0.5, variational=True)
    x = tg.ones(50, 3, 40)
    first, second = layer(x).numpy(), layer(x).numpy()
    assert set(np.unique(first)) == {0.0, 2.0}
    assert (first == first[0]).all() and (second == second[0]).all()
    assert (first != second).any(), "each call draws anew"
    assert (first[0, 0] != first[0, 1]).any(), "and each stream has its own"
    np.testing.assert_array_equal(layer.eval()(x).numpy(), x.numpy())


def test_zero_grad_forgets():
    layer = nn.Linear(2, 1)
    layer(tg.ones(1, 2)).sum().backward()
    layer.zero_grad()
    assert layer.weight.grad is None and layer.bias.grad is None


def test_annotated_nodes_know_their_module():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    with tg.annotate():
        out = model(tg.ones(1, 2))
    assert out.node.module == "1.0"
    assert out.node.parents[0].parents[0].module == "0"
    assert "test_module.py" in out.node.location
    assert model(tg.ones(1, 2)).node.module is None, "and only when asked for"


def test_embedding_refuses_symbols_outside_its_table():
    layer = nn.Embedding(5, 2)
    for bad in ([5], [-1]):
        with pytest.raises(DataError, match=rf"symbol {bad[0]} is outside the table of 5"):
            layer(np.array(bad))


def test_repr_shows_the_tree():
    text = repr(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Dropout(0.1, True)))
    assert "0: Linear(2 -> 3)" in text and "1: Dropout(p=0.5)" in text
    assert "2: Dropout(p=0.1, variational)" in text


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_loss_modules_equal_the_functions(reduction):
    x, t = tg.randn(4, 3), tg.rand(4, 3)
    classes = np.array([0, 2, 1, 1])
    for module, function, target in (
        (nn.MSELoss, tg.mse, t),
        (nn.BCEWithLogitsLoss, tg.binary_cross_entropy_with_logits, t),
        (nn.CrossEntropyLoss, tg.cross_entropy, classes),
    ):
        ours = module(reduction=reduction)(x, target)
        np.testing.assert_array_equal(ours.numpy(), function(x, target, reduction=reduction).numpy())


class Counting(nn.Module):
    def __init__(self):
        self.scale = nn.Parameter(np.ones(2, np.float32))
        self.register_buffer("seen", np.zeros((), np.int64))
        self.inner = nn.Sequential(nn.BatchNorm1d(2))


def test_buffers_are_state_but_not_learnt():
    model = Counting()
    inner = ["inner.0.running_mean", "inner.0.running_var", "inner.0.num_batches_tracked"]
    assert [n for n, _ in model.named_buffers()] == ["seen", *inner]
    assert len(list(model.buffers())) == 4 and not any(b.requires_grad for b in model.buffers())
    assert [n for n, _ in model.named_parameters()] == ["scale", "inner.0.weight", "inner.0.bias"]
    assert list(model.state_dict()) == ["scale", "seen", "inner.0.weight", "inner.0.bias", *inner]


def test_buffers_travel_with_the_state_and_are_checked():
    one, two = Counting(), Counting()
    one.seen.copy_(7)
    two.load_state_dict(one.state_dict())
    assert two.seen.item() == 7 and two.seen.dtype == np.int64 and isinstance(two.seen, nn.Buffer)
    state = one.state_dict()
    del state["seen"]
    state["inner.0.running_mean"] = np.zeros(3, np.float32)
    with pytest.raises(ShapeError) as caught:
        two.load_state_dict(state)
    for part in ("seen is missing", "inner.0.running_mean has shape (3,) instead of (2,)"):
        assert part in str(caught.value)


def test_a_buffer_is_not_lost_by_assignment():
    model = Counting()
    with pytest.raises(GraphError, match=r"seen is a buffer and would be lost; assign an nn\.Buffer"):
        model.seen = model.seen + 1
    with pytest.raises(GraphError, match=r"scale is a parameter and would be lost; assign an nn\.Parameter"):
        model.scale = model.scale * 2
    model.seen = nn.Buffer(np.ones((), np.int64))
    assert "seen" in model.state_dict()


def test_buffers_move_to_another_backend(hostile):
    model = Counting().to("hostile")
    assert all(held.backend is hostile for held in (*model.parameters(), *model.buffers()))
    out = model.inner(tg.randn(4, 2, backend="hostile"))
    assert out.backend is hostile
    back = model.to("numpy").state_dict()
    assert back["inner.0.num_batches_tracked"] == 1 and back["inner.0.running_mean"].any()
