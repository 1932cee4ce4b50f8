"""Mistakes that were made once, each with the law it broke."""

import copy

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.engine.op import TABLE
from tinygrad_rnn.errors import DtypeError, GraphError, IndexingError, ShapeError, UsageError


def leaf(*values, dtype="float64"):
    return tg.tensor(list(values), dtype=dtype, requires_grad=True)


def test_any_number_of_inputs():
    parts = [leaf(float(i)) for i in range(100)]
    tg.stack(parts).sum().backward()
    assert all(p.grad.item() == 1 for p in parts)
    lstm = nn.LSTM(2, 2)
    lstm.fused = False
    assert lstm(tg.randn(70, 1, 2))[0].shape == (70, 1, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64])
def test_rows_are_picked_by_integers_of_any_size(dtype):
    table = nn.Embedding(300, 2)
    table(np.array([1, 100, 1], dtype)).sum().backward()
    gradient = table.weight.grad.numpy()
    assert gradient[1].tolist() == [2, 2] and gradient[100].tolist() == [1, 1] and gradient.sum() == 6


def test_a_frozen_parameter_stays_frozen_and_trains_with_the_rest():
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad = False
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    layer(tg.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    layer.zero_grad()
    assert not layer.weight.requires_grad and layer.bias.grad is None


def test_both_worlds_of_a_vjp_take_the_axis_by_position():
    op = tg.custom_op(lambda F, g, out, x: F.stack([g[0], g[1]], 1), name="regression_stack")(
        lambda xp, x: x.T.copy()
    )
    try:
        x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], dtype="float64", requires_grad=True)
        g = tg.tensor([[0.0, 1.0], [2.0, 3.0]], dtype="float64")
        plain = tg.grad(op(x), x, g).numpy()
        recorded = tg.grad(op(x), x, g, create_graph=True).numpy()
        assert plain.tolist() == recorded.tolist() == [[0, 2], [1, 3]]
    finally:
        del TABLE["regression_stack"]


def test_checkpoint_draws_the_same_random_numbers_again():
    x = leaf(1.0, 1.0, 1.0)
    y = tg.checkpoint(lambda x: x * tg.rand(3, dtype="float64"), x)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_gradients_under_create_graph_are_nobody_elses():
    a, b, g = leaf(1.0, 2.0), leaf(3.0, 4.0), tg.tensor([3.0, 4.0], dtype="float64")
    (a + b).backward(g, create_graph=True)
    optim.clip_grad_norm_([a, b], 1.0)
    np.testing.assert_allclose(a.grad.numpy(), np.array([3.0, 4.0]) / np.sqrt(50))
    np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())
    assert g.tolist() == [3.0, 4.0]


def test_stepping_in_place_keeps_a_parameter_a_parameter():
    layer = nn.Linear(2, 1)
    before = layer.weight.numpy()
    with tg.no_grad():
        layer.weight -= 0.5
    np.testing.assert_allclose(layer.weight.numpy(), before - 0.5)
    assert [n for n, _ in layer.named_parameters()] == ["weight", "bias"]
    with pytest.raises(GraphError, match="weight is a parameter and would be lost"):
        layer.weight = layer.weight * 2


def test_einsum_does_not_sum_over_an_ellipsis():
    with pytest.raises(ShapeError, match="name it in the result"):
        tg.einsum("...i->i", tg.ones(2, 3))


def test_lists_given_as_parameters_may_change_afterwards():
    x, widths = leaf(1.0, 2.0, 3.0, 4.0), [[1, 0]]
    y = tg.pad(x, widths)
    widths[0] = [0, 1]
    y.backward(np.arange(5.0))
    assert x.grad.tolist() == [1, 2, 3, 4]


def test_losses_of_many_elements_in_half_precision():
    x = tg.tensor(np.zeros((70_000, 2), np.float16), requires_grad=True)
    assert tg.cross_entropy(x, np.zeros(70_000, np.int64)).item() == pytest.approx(np.log(2), rel=1e-3)
    assert tg.mse(tg.ones(70_000, dtype="float16"), tg.zeros(70_000, dtype="float16")).item() == 1


@pytest.mark.parametrize(
    "function", [tg.relu, lambda x: tg.clip(x, 0.0, 5.0), lambda x: tg.maximum(x, 0.0 * x.detach())]
)
def test_what_is_switched_off_passes_nothing_on_not_even_infinity(function):
    x = leaf(-1.0, 1.0)
    function(x).backward(np.array([np.inf, 1.0]))
    assert x.grad.tolist() == [0, 1]


def test_an_ignored_row_passes_nothing_on_not_even_nan():
    x = tg.tensor([[np.nan, 0.0], [0.0, 0.0]], requires_grad=True)
    tg.cross_entropy(x, np.array([-1, 0]), ignore_index=-1).backward()
    assert x.grad.numpy()[0].tolist() == [0, 0]


def test_clipping_a_gradient_whose_square_leaves_its_dtype():
    for dtype, size in (("float16", 200.0), ("float32", 1e20)):
        w = tg.tensor([0.0, 0.0], dtype=dtype, requires_grad=True)
        w.grad = tg.tensor([size, 0.0], dtype=dtype)
        assert optim.clip_grad_norm_([w], 1.0) == pytest.approx(size, rel=1e-3)
        assert w.grad.numpy()[0] == pytest.approx(1, rel=1e-2)


def test_optimisers_refuse_what_they_could_not_train():
    x = leaf(1.0)
    for wrong in (x, [x * 2], [x, x]):
        with pytest.raises(UsageError):
            optim.SGD(wrong, lr=0.1)


def test_a_step_of_a_sequence_may_be_replaced():
    model = nn.Sequential(nn.Linear(1, 1), tg.tanh)
    setattr(model, "0", nn.Linear(1, 5))
    assert model(tg.ones(1, 1)).shape == (1, 5)


def test_a_tensor_is_no_limit_to_clip_at():
    with pytest.raises(DtypeError, match="a_min is a plain value"):
        tg.clip(tg.ones(2), tg.tensor(0.0), 1.0)


def test_models_can_be_copied():
    model = nn.LSTM(2, 3)
    twin = copy.deepcopy(model)
    twin.load_state_dict({n: v * 0 for n, v in twin.state_dict().items()})
    assert np.abs(model.weight_ih_l0.numpy()).max() > 0 and twin.weight_ih_l0.requires_grad


def test_an_index_out_of_range_is_an_index_error():
    with pytest.raises(IndexingError):
        tg.ones(2)[5]
    assert issubclass(IndexingError, IndexError) and issubclass(IndexingError, ShapeError)


def test_half_precision_uniform_numbers_stay_below_one():
    assert tg.rand(100_000, dtype="float16").numpy().max() < 1
