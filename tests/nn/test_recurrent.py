"""Cells and stacks: a stack is its cells applied in turn, fused or not; truncation cuts the gradient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import ShapeError
from tinygrad_rnn.models import detach_state

STACKS = {"rnn": (nn.RNN, nn.RNNCell), "lstm": (nn.LSTM, nn.LSTMCell), "gru": (nn.GRU, nn.GRUCell)}
kinds = pytest.mark.parametrize("kind", STACKS)


def in_float64(module):
    """The same module with float64 weights."""
    for _, part in list(module.named_modules()):
        for name, value in list(vars(part).items()):
            if isinstance(value, nn.Parameter):
                setattr(part, name, nn.Parameter(value.numpy().astype(np.float64)))
    return module


def states(state):
    return state if isinstance(state, tuple) else (state,)


@kinds
@given(data=st.data())
def test_fused_equals_cells_in_values_and_gradients(kind, data):
    T, B, D, H, layers = (data.draw(st.integers(1, 4), label=n) for n in ("T", "B", "D", "H", "layers"))
    options = {
        "bias": data.draw(st.booleans(), label="bias"),
        "dropout": data.draw(st.sampled_from([0.0, 0.4]), label="dropout"),
        "variational": data.draw(st.booleans(), label="variational"),
        "weight_dropout": data.draw(st.sampled_from([0.0, 0.5]), label="weight_dropout"),
    }
    fused = in_float64(STACKS[kind][0](D, H, layers, **options))
    plain = in_float64(STACKS[kind][0](D, H, layers, **options))
    plain.load_state_dict(fused.state_dict())
    plain.fused = False
    x = [tg.randn(T, B, D, dtype="float64", requires_grad=True)]
    x.append(tg.tensor(x[0], requires_grad=True))
    results = []
    for module, inputs in zip((fused, plain), x, strict=True):
        tg.manual_seed(3)  # the same masks
        outputs, state = module(inputs)
        results.append([outputs, *states(state)])
        sum((r * r).sum() for r in results[-1]).backward()
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(x[0].grad.numpy(), x[1].grad.numpy(), rtol=1e-8, atol=1e-10)
    for (name, p), q in zip(fused.named_parameters(), plain.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-8, atol=1e-10, err_msg=name)


@kinds
def test_a_stack_of_one_layer_is_its_cell_in_a_loop(kind):
    Stack, Cell = STACKS[kind]
    stack, cell = Stack(3, 4), Cell(3, 4)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in stack.state_dict().items()})
    x = tg.randn(5, 2, 3)
    outputs, last = stack(x)
    state = None
    for t in range(5):
        state = cell(x[t], state)
        np.testing.assert_allclose(outputs[t].numpy(), states(state)[0].numpy(), rtol=1e-5, atol=1e-6)
    for ours, cells in zip(states(last), states(state), strict=True):
        np.testing.assert_allclose(ours[0].numpy(), cells.numpy(), rtol=1e-5, atol=1e-6)


@kinds
def test_two_windows_with_the_state_carried_equal_one_long_window(kind):
    stack = STACKS[kind][0](3, 4, 2)
    x = tg.randn(6, 2, 3)
    whole, _ = stack(x)
    first, state = stack(x[:2])
    second, _ = stack(x[2:], detach_state(state))
    joined = np.concatenate([first.numpy(), second.numpy()])
    np.testing.assert_allclose(joined, whole.numpy(), rtol=1e-5, atol=1e-6)


@kinds
def test_no_gradient_leaks_across_the_truncation(kind):
    stack = STACKS[kind][0](3, 4)
    first, second = (tg.randn(2, 1, 3, requires_grad=True) for _ in range(2))
    _, state = stack(first)
    outputs, _ = stack(second, detach_state(state))
    outputs.sum().backward()
    assert first.grad is None and second.grad is not None
    _, state = stack(first)  # without the cut it does flow
    stack(second, state)[0].sum().backward()
    assert np.abs(first.grad.numpy()).max() > 0


@kinds
def test_batch_first_exchanges_the_first_two_axes(kind):
    one = STACKS[kind][0](3, 4, 2)
    two = STACKS[kind][0](3, 4, 2, batch_first=True)
    two.load_state_dict(one.state_dict())
    x = tg.randn(5, 2, 3)
    a, state_a = one(x)
    b, state_b = two(x.swapaxes(0, 1))
    np.testing.assert_array_equal(a.numpy(), b.swapaxes(0, 1).numpy())
    for p, q in zip(states(state_a), states(state_b), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


@kinds
def test_second_derivatives_go_through_a_stack(kind):
    stack = in_float64(STACKS[kind][0](2, 2, 2))
    x = tg.randn(3, 1, 2, dtype="float64", requires_grad=True)
    assert tg.gradcheck(lambda x: stack(x)[0], [x], order=2)


def test_dropout_between_layers_only_in_training_and_reproducible():
    lstm = nn.LSTM(3, 8, 2, dropout=0.5)
    x = tg.randn(4, 2, 3)
    tg.manual_seed(1)
    first = lstm(x)[0].numpy()
    second = lstm(x)[0].numpy()
    tg.manual_seed(1)
    np.testing.assert_array_equal(lstm(x)[0].numpy(), first)
    assert (first != second).any(), "each pass draws its own mask"
    lstm.eval()
    np.testing.assert_array_equal(lstm(x)[0].numpy(), lstm(x)[0].numpy())


@kinds
@pytest.mark.parametrize("variational", [False, True])
def test_dropout_between_layers_is_the_layer_of_that_name(kind, variational):
    stack = STACKS[kind][0](3, 4, 2, dropout=0.5, variational=variational)
    lower, upper = STACKS[kind][0](3, 4), STACKS[kind][0](4, 4)
    own = stack.state_dict()
    lower.load_state_dict({k: v for k, v in own.items() if k.endswith("_l0")})
    upper.load_state_dict({k.replace("_l1", "_l0"): v for k, v in own.items() if k.endswith("_l1")})
    x = tg.randn(5, 2, 3)
    tg.manual_seed(1)
    outputs, _ = stack(x)
    tg.manual_seed(1)
    composed, _ = upper(nn.Dropout(0.5, variational)(lower(x)[0]))
    np.testing.assert_array_equal(outputs.numpy(), composed.numpy())


@kinds
@pytest.mark.parametrize("fused", [True, False])
def test_weight_dropout_is_a_mask_on_the_recurrent_weights_of_a_call(kind, fused):
    """A call is that of a stack without the weights lost, which get no gradient; and only in training."""
    stack = STACKS[kind][0](3, 8, 2, weight_dropout=0.5)
    plain = STACKS[kind][0](3, 8, 2)
    stack.fused = plain.fused = fused
    x = tg.randn(4, 2, 3)
    tg.manual_seed(1)
    outputs, _ = stack(x)
    outputs.sum().backward()
    tg.manual_seed(1)
    weights = stack.state_dict()
    masks = {f"weight_hh_l{n}": tg.dropout(tg.ones(stack.gates * 8, 8), 0.5).numpy() for n in range(2)}
    plain.load_state_dict(weights | {name: weights[name] * mask for name, mask in masks.items()})
    np.testing.assert_array_equal(outputs.numpy(), plain(x)[0].numpy())
    for name, mask in masks.items():
        gradient = getattr(stack, name).grad.numpy()
        assert 0 < (mask == 0).sum() < mask.size
        assert not gradient[mask == 0].any() and gradient[mask != 0].any()
    assert (stack(x)[0].numpy() != outputs.numpy()).any(), "each call draws its own masks"
    plain.load_state_dict(weights)
    np.testing.assert_array_equal(stack.eval()(x)[0].numpy(), plain(x)[0].numpy())


@kinds
def test_dropout_of_all_kinds_goes_through_recomputation_and_second_derivatives(kind):
    stack = in_float64(STACKS[kind][0](2, 3, 2, dropout=0.5, variational=True, weight_dropout=0.5))
    x = tg.randn(3, 1, 2, dtype="float64", requires_grad=True)

    def gradients(run):
        tg.manual_seed(5)
        stack.zero_grad()
        run(x).sum().backward()
        return [p.grad.numpy() for p in stack.parameters()]

    direct = gradients(lambda x: stack(x)[0])
    again = gradients(lambda x: tg.checkpoint(lambda v: stack(v)[0], x))
    for a, b in zip(direct, again, strict=True):
        np.testing.assert_array_equal(a, b)

    def same_masks(x):
        tg.manual_seed(5)
        return stack(x)[0]

    assert tg.gradcheck(same_masks, [x], order=2)


@kinds
def test_dropout_of_all_kinds_is_the_same_on_every_backend(kind, hostile):
    stack = STACKS[kind][0](3, 4, 2, dropout=0.5, variational=True, weight_dropout=0.5)
    x = tg.randn(4, 2, 3)
    results = []
    for backend in ("numpy", "hostile"):
        tg.manual_seed(5)
        stack.to(backend)
        outputs, _ = stack(x.to(backend))
        outputs.sum().backward()
        results.append([outputs.numpy(), *(p.grad.numpy() for p in stack.parameters())])
        stack.zero_grad()
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_relu_is_a_nonlinearity_of_the_rnn():
    outputs, _ = nn.RNN(3, 4, nonlinearity="relu")(tg.randn(5, 2, 3))
    assert outputs.numpy().min() == 0.0
    with pytest.raises(ShapeError, match="'tanh' or 'relu', not 'gelu'"):
        nn.RNN(3, 4, nonlinearity="gelu")(tg.randn(5, 2, 3))


def test_wrong_shapes_are_named():
    lstm = nn.LSTM(3, 4, 2)
    with pytest.raises(ShapeError, match=r"x must be \(T, B, D\) with D = 3, not of shape \(5, 2, 7\)"):
        lstm(tg.randn(5, 2, 7))
    with pytest.raises(ShapeError, match=r"2 of shape \(2, 2, 4\)"):
        lstm(tg.randn(5, 2, 3), (tg.zeros(1, 2, 4), tg.zeros(1, 2, 4)))
    with pytest.raises(ShapeError, match="hidden_size=0"):
        nn.GRU(3, 0)
