"""Optimisers: each step is its formula, and a parameter without a gradient stays as it is."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.engine.backend import NUMPY
from tinygrad_rnn.errors import GraphError, ShapeError, UsageError

from ..engine.hostile import HOSTILE

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


# --- states ----------------------------------------------------------------------------------------

DECAYS, EPS = st.sampled_from([0.0, 0.1]), st.sampled_from([1e-8, 1e-3])
MOMENTA = st.sampled_from([0.0, 0.5, 0.9])
OPTIONS = {
    "sgd": {"momentum": MOMENTA, "weight_decay": DECAYS},
    "adam": {"betas": st.tuples(MOMENTA, MOMENTA), "eps": EPS, "weight_decay": DECAYS},
    "adamw": {"betas": st.tuples(MOMENTA, MOMENTA), "eps": EPS, "weight_decay": DECAYS},
    "adagrad": {"eps": EPS},
    "rmsprop": {"alpha": MOMENTA, "eps": EPS},
}
SHAPES = [(3, 2), (5,), ()]


def steps_on(optimizer, numbers, dtype):
    """A step for each number, of which gradients and rate are functions; at times a parameter has none."""
    for number in numbers:
        optimizer.lr = 0.1 / (1 + number)
        for i, p in enumerate(optimizer.params):
            g = np.random.default_rng([number, i]).standard_normal(p.shape).astype(dtype)
            skipped = (number + i) % 4 == 0
            p.grad = None if skipped else tg.tensor(g, backend=p.backend)
        optimizer.step()


@pytest.mark.parametrize("name", OPTIONS)
@given(data=st.data())
def test_a_state_that_travelled_goes_on_bit_for_bit(name, data):
    """k steps, saved, loaded beside equal parameters, m steps: as k + m steps, on any pair of backends."""
    options = data.draw(st.fixed_dictionaries(OPTIONS[name]), label="options")
    dtype = data.draw(st.sampled_from(["float32", "float64"]), label="dtype")
    k, m = (data.draw(st.integers(0, 5), label=n) for n in "km")
    there, back = (data.draw(st.sampled_from([NUMPY, HOSTILE])) for _ in range(2))

    def make(values, backend):
        params = [tg.tensor(v, backend=backend, requires_grad=True) for v in values]
        return optim.by_name(name)(params, lr=0.1, **options)

    begin = [np.random.default_rng(i).standard_normal(s).astype(dtype) for i, s in enumerate(SHAPES)]
    whole, first = make(begin, there), make(begin, there)
    steps_on(whole, range(k + m), dtype)
    steps_on(first, range(k), dtype)
    state = first.state_dict()
    second = make([p.numpy() for p in first.params], back)
    second.load_state_dict(state)
    first.step()  # what travelled is a copy
    steps_on(second, range(k, k + m), dtype)

    for p, q in zip(whole.params, second.params, strict=True):
        assert p.numpy().tobytes() == q.numpy().tobytes()
    ours, theirs = whole.state_dict(), second.state_dict()
    assert ours["steps"] == theirs["steps"] == k + m
    assert set(ours["slots"]) == set(theirs["slots"]) == set(whole.slots)
    for slot, arrays in ours["slots"].items():
        for a, b in zip(arrays, theirs["slots"][slot], strict=True):
            assert type(a) is type(b) is np.ndarray and a.dtype == dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    ("error", "said", "spoil"),
    [
        (UsageError, "state of Adam holds steps and slots, not steps", lambda s: s.pop("slots")),
        (UsageError, "counted from 0, not -1", lambda s: s.update(steps=-1)),
        (UsageError, "counted from 0, not 2.0", lambda s: s.update(steps=2.0)),
        (UsageError, "no state of Adam: it remembers mean instead", lambda s: s["slots"].pop("square")),
        (UsageError, "square has 1 arrays for 2 parameters", lambda s: s["slots"]["square"].pop()),
        (
            ShapeError,
            r"square of parameter 1 is float32 of shape \(4,\) instead of float32 of shape \(5,\)",
            lambda s: s["slots"]["square"].__setitem__(1, np.zeros(4, np.float32)),
        ),
        (
            ShapeError,
            r"mean of parameter 0 is float64 of shape \(3, 2\) instead of float32",
            lambda s: s["slots"]["mean"].__setitem__(0, np.zeros((3, 2))),
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(error, said, spoil):
    optimizer, other = (optim.Adam([nn.Parameter(np.ones(s, np.float32)) for s in SHAPES[:2]]) for _ in "12")
    steps_on(optimizer, range(3), np.float32)
    steps_on(other, range(1, 3), np.float32)
    before, state = optimizer.state_dict(), other.state_dict()
    spoil(state)
    with pytest.raises(error, match=said):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert after["steps"] == before["steps"]
    for slot, arrays in before["slots"].items():
        for a, b in zip(arrays, after["slots"][slot], strict=True):
            np.testing.assert_array_equal(a, b)


def test_states_of_different_formulas_are_not_mistaken_for_one_another():
    makers = [
        optim.SGD,
        lambda p, lr: optim.SGD(p, lr, momentum=0.9),
        optim.Adam,
        optim.Adagrad,
        optim.RMSprop,
    ]
    for i, one in enumerate(makers):
        for j, other in enumerate(makers):
            if i != j:
                with pytest.raises(UsageError, match="no state of"):
                    one([nn.Parameter(np.ones(2))], 0.1).load_state_dict(
                        other([nn.Parameter(np.ones(2))], 0.1).state_dict()
                    )


# --- clipping -----------------------------------------------------------------------------------------


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
