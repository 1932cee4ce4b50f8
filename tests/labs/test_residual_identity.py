"""The lab residual-identity: its numbers against the algebra of the blocks, and that it can fail."""

import numpy as np
import pytest

from tinygrad_rnn.labs import residual_identity as lab


@pytest.fixture(scope="module")
def found():
    return lab.run(seeds=[0, 1], depths=(1, 3), sigmas=(0.0, 0.1, 1.0), deepest=3)


def test_zero_weights_are_the_identity_exactly(found):
    assert found.holds and found.numbers["largest_difference"] == 0
    assert "is 0, in value and in gradient, for 1 to 3 blocks" in found.verdict
    assert all(
        np.array(runs).shape == (2, 2) and not np.any(runs)
        for kind in lab.KINDS
        for runs in found.numbers["zero_weights"][kind].values()
    )


def test_distances_go_by_the_power_of_sigma_that_there_are_convolutions(found):
    """All weights times sigma make a branch of two bias-free convolutions sigma^2 times as large."""
    residual, plain = (np.array(found.numbers["small_weights"][kind]) for kind in ("residual", "plain"))
    assert not residual[:, 0].any() and not plain[:, 0].any()
    np.testing.assert_allclose(residual[:, 1, 0], 0.1**2 * residual[:, 2, 0], rtol=1e-9)
    np.testing.assert_allclose(plain[:, 1, 0], 0.1**2 * plain[:, 2, 0], rtol=1e-9)
    np.testing.assert_allclose(plain[:, 1, 1], 0.1**6 * plain[:, 2, 1], rtol=1e-9)


@pytest.mark.parametrize("kind", lab.KINDS)
def test_a_branch_that_is_not_zero_is_noticed(monkeypatch, kind):
    scale = lab.scale_branch
    monkeypatch.setattr(lab, "scale_branch", lambda block, factor: scale(block, factor or 1e-4))
    output, gradient = lab.differences(kind, 2, seed=0)
    assert output > 0 and gradient > 0


def test_the_verdict_says_so_with_the_number(monkeypatch):
    scale = lab.scale_branch
    monkeypatch.setattr(lab, "scale_branch", lambda block, factor: scale(block, factor or 1e-4))
    found = lab.run(seeds=[0], depths=(1,), sigmas=(0.0,), deepest=1)
    worst = found.numbers["largest_difference"]
    assert not found.holds and worst > 0 and f"{worst:.3g}" in found.conclusion
    assert found.conclusion.startswith("Does not hold at this size: ")
