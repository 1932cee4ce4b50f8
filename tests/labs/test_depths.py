"""The labs that train by depth, batchnorm-depth and residual-depth: trainings that can be followed, and what
decides."""

import math

import numpy as np
import pytest

from tinygrad_rnn.labs import batchnorm_depth, residual_depth

pytest.importorskip("sklearn")


def test_a_small_run_of_residual_depth():
    shares = []
    found = residual_depth.run([0, 3], lambda share, doing: shares.append(share), (8, 14), steps=3, width=2)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    results = found.numbers["results"]
    assert list(results) == ["plain-8", "plain-14", "ResNet-8", "ResNet-14"]
    for of in results.values():
        assert of["last_loss"] == pytest.approx([np.mean(losses) for losses in of["losses"]])
        assert all(0 <= value <= 1 for value in of["accuracy"] + of["train_accuracy"])
    deeper = np.subtract(results["plain-14"]["last_loss"], results["plain-8"]["last_loss"])
    np.testing.assert_allclose(found.numbers["plain_margin"], deeper)
    faster = found.numbers["results_at_published_rate"]
    assert list(faster) == ["ResNet-8", "ResNet-14"]
    for name, of in faster.items():  # the same until the first step has been taken
        assert [run[0] for run in of["losses"]] == [run[0] for run in results[name]["losses"]]
        assert [run[1] for run in of["losses"]] != [run[1] for run in results[name]["losses"]]


def residual_verdict(plain, residual, faster=None):
    """For each seed, loss of the shallow network and of the deep one; faster: of residual ones, with the
    published learning rate."""
    keys = ("train_accuracy", "accuracy")

    def results(**networks):
        return {
            f"{name}-{depth}": {
                "losses": [[loss[i]] for loss in of],
                "last_loss": [loss[i] for loss in of],
                **{key: [0.5] * len(of) for key in keys},
            }
            for name, of in networks.items()
            for i, depth in enumerate((20, 56))
        }

    trained = results(plain=plain, ResNet=residual), results(ResNet=faster or residual)
    return residual_depth._finding(range(len(plain)), (20, 56), 1, 8, 64, 23, *trained)


def test_each_seed_decides_in_residual_depth():
    assert residual_verdict([(0.1, 0.5), (0.1, 0.3)], [(0.1, 0.05), (0.1, 0.11)]).holds
    assert not residual_verdict([(0.1, 0.5), (0.1, 0.15)], [(0.1, 0.05), (0.1, 0.1)]).holds
    found = residual_verdict([(0.1, 0.5), (0.1, 0.3)], [(0.1, 0.05), (0.1, 0.2)])
    assert not found.holds
    assert "+0.20 to +0.40 nats in the plain network" in found.verdict
    assert "-0.0500 to +0.1000 in the residual one" in found.verdict
    diverged = residual_verdict([(0.1, math.inf)], [(0.1, 0.1)])
    assert diverged.holds and "+inf" in diverged.verdict
    rates = residual_verdict([(0.1, 0.5)], [(0.1, 0.1)], [(0.1, 0.7)])
    assert (
        rates.holds
        and "rate of 0.1 the residual one's changes by +0.6000: there the claim does not" in rates.verdict
    )
    assert "rate 0.1" in rates.view().text(80) and max(map(len, rates.view().text(80).splitlines())) <= 80
    both = residual_verdict([(0.1, 0.5), (math.inf, math.inf)], [(0.1, 0.1)] * 2)
    assert not both.holds  # which of two diverged ones is worse is not known


def test_a_small_run_of_batchnorm_depth():
    shares = []
    found = batchnorm_depth.run(
        [0, 1], lambda share, doing: shares.append(share), (8,), steps=4, width=1, learning_rates=(0.1, 1e-4)
    )
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    for name in batchnorm_depth.VARIANTS:
        [of] = found.numbers["results"][name].values()
        assert of["lr"] == min((0.1, 1e-4), key=lambda lr: of["median_loss_by_lr"][str(lr)])
        assert of["median_loss_by_lr"][str(of["lr"])] == np.median(of["last_loss"])
        assert of["last_loss"] == pytest.approx([np.mean(losses) for losses in of["losses"]])


def batchnorm_verdict(normalised, without, of_he):
    of = {"lr": 0.1, "last_loss": [1.0] * 2, "losses": [[1.0]] * 2, "half_at": [None, 3]}
    accuracies = dict(zip(batchnorm_depth.VARIANTS, (normalised, without, of_he, [0.1, 0.1]), strict=True))
    results = {name: {16: {**of, "accuracy": values}} for name, values in accuracies.items()}
    return batchnorm_depth._finding([0, 1], [16], 1, 4, 64, [0.1], 23, results)


def test_each_seed_decides_in_batchnorm_depth():
    assert batchnorm_verdict([0.95, 0.92], [0.1, 0.5], [0.1, 0.1]).holds
    assert not batchnorm_verdict([0.95, 0.85], [0.1, 0.5], [0.1, 0.1]).holds
    assert not batchnorm_verdict([0.95, 0.92], [0.1, 0.91], [0.1, 0.1]).holds
    found = batchnorm_verdict([0.95, 0.92], [0.1, 0.5], [0.1, 0.93])
    assert found.holds and "brings 1 of 2 such networks that far" in found.verdict
    assert "(all of them: 10.0 to 93.0 %)" in found.verdict
    assert "3, 1 never" in found.view().text(200)


def test_when_the_loss_is_half_that_of_guessing():
    losses = np.array([2.3, 2.3, 1.0, 1.0, 1.0, 0.1])
    assert batchnorm_depth.half_at(losses, 1, 10) == 3
    assert batchnorm_depth.half_at(losses, 3, 10) == 5  # (1 + 1 + 1) / 3
    assert batchnorm_depth.half_at(losses[:2], 1, 10) is None
    assert batchnorm_depth.half_at(np.full(4, math.nan), 2, 10) is None
