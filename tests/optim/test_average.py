"""Averages: the weighted mean of what was seen, swapped in and out without a trace, and able to travel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.engine.backend import NUMPY
from tinygrad_rnn.errors import GraphError, ShapeError, UsageError

from ..engine.hostile import HOSTILE

DECAYS = st.sampled_from([0.0, 0.5, 0.9, 0.999, 1.0])
BACKENDS = st.sampled_from([NUMPY, HOSTILE])
SHAPES = [(3, 2), (4,)]


def parameters(number, backend=NUMPY):
    """Parameters that are a function of a number."""
    return [
        tg.tensor(np.random.default_rng([number, i]).standard_normal(s), backend=backend, requires_grad=True)
        for i, s in enumerate(SHAPES)
    ]


def move(params, number):
    with tg.no_grad():
        for p, q in zip(params, parameters(number, params[0].backend), strict=True):
            p.copy_(q)


@given(DECAYS, st.integers(1, 8), BACKENDS)
def test_it_is_the_mean_weighed_by_age(decay, updates, backend):
    params = parameters(0, backend)
    average = optim.Average(params, decay)
    for number in range(1, updates + 1):
        move(params, number)
        average.update()
    weights = [decay ** (updates - number) for number in range(1, updates + 1)]
    seen = [[p.numpy() for p in parameters(number)] for number in range(1, updates + 1)]
    with average.applied():
        for i, p in enumerate(params):
            expected = np.average([values[i] for values in seen], axis=0, weights=weights)
            np.testing.assert_allclose(p.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_before_the_first_update_it_is_the_parameters_as_given():
    params = parameters(0)
    average = optim.Average(params)
    move(params, 1)
    with average.applied():
        for p, q in zip(params, parameters(0), strict=True):
            np.testing.assert_array_equal(p.numpy(), q.numpy())


@given(st.integers(0, 3), st.booleans(), BACKENDS)
def test_the_parameters_come_back_bit_for_bit(updates, fails, backend):
    params = parameters(0, backend)
    average = optim.Average(params, 0.5)
    for number in range(1, updates + 1):
        move(params, number)
        average.update()
    move(params, 9)
    before, mean = [p.numpy().tobytes() for p in params], average.state_dict()
    arrays = [p.array for p in params]
    try:
        with average.applied():
            assert [p.numpy().tobytes() for p in params] != before
            move(params, 10)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert [p.numpy().tobytes() for p in params] == before
    assert all(p.array is array for p, array in zip(params, arrays, strict=True))
    for a, b in zip(mean["slots"]["average"], average.state_dict()["slots"]["average"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_graph_that_needs_the_parameters_notices_the_exchange():
    w = nn.Parameter(np.ones(2))
    average = optim.Average([w])
    loss = (w * w).sum()
    with average.applied():
        pass
    with pytest.raises(GraphError, match="written to in place"):
        loss.backward()


@given(DECAYS, st.integers(0, 4), st.integers(0, 4), BACKENDS, BACKENDS)
def test_an_average_that_travelled_goes_on_bit_for_bit(decay, k, m, there, back):
    whole, first = parameters(0, there), parameters(0, there)
    averages = optim.Average(whole, decay), optim.Average(first, decay)
    for number in range(1, k + 1):
        for params, average in zip((whole, first), averages, strict=True):
            move(params, number)
            average.update()
    second = parameters(7, back)
    moved = optim.Average(second, decay)
    moved.load_state_dict(averages[1].state_dict())
    for number in range(k + 1, k + m + 1):
        for params, average in ((whole, averages[0]), (second, moved)):
            move(params, number)
            average.update()
    ours, theirs = averages[0].state_dict(), moved.state_dict()
    assert ours["steps"] == theirs["steps"] == k + m
    for a, b in zip(ours["slots"]["average"], theirs["slots"]["average"], strict=True):
        assert a.tobytes() == b.tobytes()


def test_what_is_refused():
    with pytest.raises(UsageError, match=r"between 0 and 1, not 1\.5"):
        optim.Average(parameters(0), 1.5)
    with pytest.raises(UsageError, match="Average needs at least one parameter"):
        optim.Average([])
    with pytest.raises(UsageError, match="no state of Average: it remembers mean, square"):
        optim.Average(parameters(0)).load_state_dict(optim.Adam(parameters(0)).state_dict())
    with pytest.raises(ShapeError, match="average of parameter 0 is float64 of shape"):
        optim.Average(parameters(0)[::-1]).load_state_dict(optim.Average(parameters(0)).state_dict())
