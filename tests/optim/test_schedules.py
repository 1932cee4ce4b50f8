"""Schedules: where they start and end, and that a plateau is noticed and remembered."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.optim import schedules
from tinygrad_rnn.optim.schedules import Plateau, warmup

FALLING = {"linear": 0.0, "cosine": 0.0, "exponential": 0.01}


@pytest.mark.parametrize(("name", "end"), FALLING.items())
def test_from_one_down_to_final_and_no_further(name, end):
    schedule = schedules.by_name(name)
    assert schedule(0.0) == schedule(-1.0) == 1
    assert schedule(1.0) == schedule(2.0) == pytest.approx(end)
    assert schedule(1.0, final=0.1) == pytest.approx(0.1)
    values = [schedule(p / 10) for p in range(11)]
    assert values == sorted(set(values), reverse=True)


def test_half_way():
    assert schedules.linear(0.5) == schedules.cosine(0.5) == pytest.approx(0.5)
    assert schedules.exponential(0.5, final=0.04) == pytest.approx(0.2)
    assert schedules.constant(0.5) == 1


def test_warmup_rises_in_equal_parts_and_stays():
    assert [warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warmup(0, 0) == warmup(0, 1) == 1


def test_names():
    with pytest.raises(
        UsageError, match="'cosinus'; there are cosine, linear, exponential, constant, plateau"
    ):
        schedules.by_name("cosinus")
    assert schedules.by_name("plateau") is not schedules.by_name("plateau"), "each has its own memory"
    for name in schedules.SCHEDULES:
        assert schedules.by_name(name)(0.0) == 1


LOSSES = st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan, math.inf]), max_size=20)


def by_definition(losses, factor, patience):
    """Once for every `patience` evaluations in a row of which none is below all before."""
    scale, best, row = 1.0, None, 0
    for loss in losses:
        improved = math.isfinite(loss) and (best is None or loss < best)
        best = loss if improved else best
        row = 0 if improved else row + 1
        if row and row % patience == 0:
            scale *= factor
    return scale


@given(LOSSES, st.sampled_from([0.5, 0.1]), st.integers(1, 4))
def test_a_plateau_lowers_the_rate(losses, factor, patience):
    plateau = Plateau(factor, patience)
    for loss in losses:
        plateau.step(loss)
    assert plateau(0.0) == plateau(1.0) == pytest.approx(by_definition(losses, factor, patience))


@given(LOSSES, LOSSES, st.integers(1, 4))
def test_a_plateau_that_travelled_as_json_goes_on(before, after, patience):
    whole, first, second = (Plateau(patience=patience) for _ in range(3))
    for loss in before:
        whole.step(loss)
        first.step(loss)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    for loss in after:
        whole.step(loss)
        second.step(loss)
    assert whole.state_dict() == second.state_dict()


def test_a_plateau_never_falls_below_final():
    plateau = Plateau(factor=0.5, patience=1, final=0.2)
    for _ in range(9):
        plateau.step(1.0)
    assert plateau(0.0) == 0.2


@pytest.mark.parametrize(
    "change",
    [{"scale": 2}, {"scale": "1"}, {"best": "low"}, {"best": math.inf}, {"waited": 3}, {"waited": -1}],
)
def test_a_state_that_makes_no_sense_changes_nothing(change):
    plateau = Plateau(patience=3)
    plateau.step(1.0)
    before = plateau.state_dict()
    with pytest.raises(UsageError, match="no state of one with patience 3"):
        plateau.load_state_dict({"scale": 0.5, "best": 2.0, "waited": 1, **change})
    with pytest.raises(UsageError, match="holds scale, best and waited, not scale"):
        plateau.load_state_dict({"scale": 1.0})
    assert plateau.state_dict() == before


def test_bad_arguments():
    with pytest.raises(UsageError, match="between 0 and 1, not 2"):
        Plateau(factor=2)
    with pytest.raises(UsageError, match="at least 1 evaluation, not 0"):
        Plateau(patience=0)
