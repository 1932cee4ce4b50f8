"""Optimisers: each step is its formula, and a parameter without a gradient stays as it is."""

import math

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import GraphError, UsageError

GRADIENTS = [np.array([0.5, -2.0]), np.array([-0.25, 1.0]), np.array([3.0, 0.0])]


def run(make):
    w = nn.Parameter(np.array([1.0, -1.0]))
    optimizer = make([w])
    for g in GRADIENTS:
        w.grad = tg.tensor(g)
        optimizer.step()
    return w.numpy()


def by_hand_adam(lr, decay, decoupled):
    w, m, v = np.array([1.0, -1.0]), np.zeros(2), np.zeros(2)
    for t, g in enumerate(GRADIENTS, start=1):
        if decoupled:
            w = w - lr * decay * w
        else:
            g = g + decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def test_sgd_with_momentum_and_weight_decay():
    w, v = np.array([1.0, -1.0]), np.zeros(2)
    for g in GRADIENTS:
        v = 0.9 * v + g + 0.1 * w
        w = w - 0.01 * v
    ours = run(lambda p: optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1))
    np.testing.assert_allclose(ours, w, rtol=1e-12)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_and_adamw(decoupled):
    kind = optim.AdamW if decoupled else optim.Adam
    ours = run(lambda p: kind(p, lr=0.1, weight_decay=0.05))
    np.testing.assert_allclose(ours, by_hand_adam(0.1, 0.05, decoupled), rtol=1e-10)


def test_adagrad_and_rmsprop():
    w, s = np.array([1.0, -1.0]), np.zeros(2)
    for g in GRADIENTS:
        s = s + g**2
        w = w - 0.1 * g / (np.sqrt(s) + 1e-10)
    np.testing.assert_allclose(run(lambda p: optim.Adagrad(p, lr=0.1)), w, rtol=1e-12)
    w, s = np.array([1.0, -1.0]), np.zeros(2)
    for g in GRADIENTS:
        s = 0.99 * s + 0.01 * g**2
        w = w - 0.1 * g / (np.sqrt(s) + 1e-8)
    np.testing.assert_allclose(run(lambda p: optim.RMSprop(p, lr=0.1)), w, rtol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad", "rmsprop"])
def test_every_optimiser_goes_down_a_bowl(name):
    w = nn.Parameter(np.array([1.0, -1.0]))
    optimizer = optim.by_name(name)([w], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
    assert np.abs(w.numpy()).max() < 0.2


def test_without_a_gradient_nothing_moves():
    w = nn.Parameter(np.ones(2))
    optim.SGD([w], lr=1.0).step()
    np.testing.assert_array_equal(w.numpy(), 1)


def test_a_step_on_a_graph_that_is_still_needed_is_noticed():
    w = nn.Parameter(np.ones(2))
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(GraphError, match="written to in place"):
        loss.backward()


def test_bad_arguments():
    with pytest.raises(UsageError, match="at least one parameter"):
        optim.SGD([], lr=0.1)
    with pytest.raises(UsageError, match="must not be negative: -1"):
        optim.SGD([nn.Parameter(np.ones(1))], lr=-1)
    with pytest.raises(UsageError, match="'adm'; there are sgd, adam"):
        optim.by_name("adm")


def with_gradients(*arrays):
    params = [nn.Parameter(np.zeros(a.shape)) for a in arrays]
    for p, a in zip(params, arrays, strict=True):
        p.grad = tg.tensor(a)
    return params


def test_clipping_scales_all_gradients_to_the_common_norm():
    params = with_gradients(np.array([3.0, 0.0]), np.array([[4.0]]))
    assert optim.clip_grad_norm_(params, 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(params[0].grad.numpy(), [0.6, 0.0])
    np.testing.assert_allclose(params[1].grad.numpy(), [[0.8]])


def test_a_small_gradient_is_not_clipped_and_a_broken_one_left_alone():
    params = with_gradients(np.array([0.3, 0.4]))
    assert optim.clip_grad_norm_(params, 1.0) == pytest.approx(0.5)
    np.testing.assert_array_equal(params[0].grad.numpy(), [0.3, 0.4])
    params = with_gradients(np.array([1.0, np.nan]))
    assert math.isnan(optim.clip_grad_norm_(params, 1.0))
    assert params[0].grad.numpy()[0] == 1.0


def test_schedules_start_at_one_and_end_at_final():
    s = optim.schedules
    for schedule in (s.linear, s.cosine):
        assert schedule(0.0) == 1 and schedule(1.0) == pytest.approx(0) and schedule(2.0) == pytest.approx(0)
        assert schedule(1.0, final=0.1) == pytest.approx(0.1)
        values = [schedule(p / 10) for p in range(11)]
        assert values == sorted(values, reverse=True)
    assert s.cosine(0.5) == pytest.approx(0.5)
