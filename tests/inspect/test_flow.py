"""`flow`, `uses`, `connect`, `compare`: every number against one that was found another way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import Session, run
from tinygrad_rnn.inspect.flow import by_step, decay
from tinygrad_rnn.inspect.jacobian_of_step import spectral_norms, step_jacobians
from tinygrad_rnn.inspect.recording import STATES, Recording

from .conftest import small
from .pieces import losses, slope


def test_flow_is_the_norm_of_the_gradients(each):  # type: ignore[no-untyped-def]
    view = run(each, "flow")
    for name, norms in view.data["norms"].items():
        rows = each.recording.gradients(name[0], int(name[3]))  # which are checked by differences
        np.testing.assert_allclose(norms, np.sqrt((rows**2).sum(axis=1)))
    assert next(iter(view.data["norms"])) == "h_l1"


def test_from_a_prediction_nothing_goes_to_later_steps(each):  # type: ignore[no-untyped-def]
    for norms in run(each, "flow --from 12").data["norms"].values():
        assert (norms[:12] > 0).all()
        assert (norms[13:] == 0).all()


def test_the_triangle_has_the_rows_of_single_predictions(each):  # type: ignore[no-untyped-def]
    triangle = run(each, "flow --from all").data
    for row, k in enumerate(triangle["from"]):
        single = run(each, f"flow --from {k}").data["norms"]
        for letter in STATES[each.model.kind]:
            np.testing.assert_allclose(triangle["norms"][letter][row], single[f"{letter}_l1"], rtol=1e-9)


def test_the_triangle_knows_of_cuts():  # type: ignore[no-untyped-def]
    session = small()
    session.show(0, 20, 8)
    data = run(session, "flow --from all").data
    last = data["norms"]["h"][19]
    assert (last[:16] == 0).all() and (last[16:] > 0).all()


@given(factor=st.floats(0.1, 3), length=st.integers(2, 40), scale=st.floats(1e-6, 1e6))
def test_the_decay_of_powers_is_their_base(factor, length, scale):  # type: ignore[no-untyped-def]
    norms = scale * factor ** np.arange(length)[::-1]
    assert decay(norms) == pytest.approx(factor, rel=1e-6)
    assert decay(np.append(norms, 0.0)) == pytest.approx(factor, rel=1e-6)
    assert np.isnan(decay(np.zeros(length)))


@pytest.mark.parametrize("layer", [0, 1])
def test_the_jacobian_of_a_step_is_that_of_finite_differences(each, layer):  # type: ignore[no-untyped-def]
    recording, letters = each.recording, STATES[each.model.kind]
    found = step_jacobians(recording, layer)
    assert found.shape == (20, 6 * len(letters), 6 * len(letters))
    for t in (0, 9):
        before = [
            recording.start(x, n) if t == 0 else recording.values(x, n)[t - 1]
            for x in letters
            for n in (0, 1)
        ]
        states = np.array(before).reshape(len(letters), 2, 6)

        def after(number, amount):  # type: ignore[no-untyped-def]
            moved = states.copy()  # noqa: B023
            moved[number // 6, layer, number % 6] += amount
            given = tuple(tg.tensor(s[:, None]) for s in moved)
            at = slice(t, t + 1)  # noqa: B023
            one = Recording(
                each.model,
                recording.symbols[at],
                recording.targets[at],
                given if len(given) > 1 else given[0],
            )
            return np.concatenate([one.values(x, layer)[0] for x in letters])

        explicit = np.array([slope(lambda a, n=n: after(n, a)) for n in range(6 * len(letters))]).T
        np.testing.assert_allclose(found[t], explicit, rtol=1e-5, atol=1e-8)


def test_jac_shows_the_largest_singular_values_of_steps_and_products(each):  # type: ignore[no-untyped-def]
    data = run(each, "flow --jac").data
    jacobians = step_jacobians(each.recording, 1)
    wanted = [np.linalg.svd(j, compute_uv=False)[0] for j in jacobians]
    np.testing.assert_allclose(data["step"], wanted, rtol=1e-3)
    product = np.eye(jacobians.shape[1])
    for t in reversed(range(20)):
        assert data["to_end"][t] == pytest.approx(np.linalg.svd(product, compute_uv=False)[0], rel=1e-3)
        product = product @ jacobians[t]


@given(seed=st.integers(0, 99), count=st.integers(1, 4), size=st.integers(1, 12), scale=st.floats(1e-5, 1e5))
def test_power_iteration_finds_the_largest_singular_value(seed, count, size, scale):  # type: ignore[no-untyped-def]
    matrices = scale * np.random.default_rng(seed).standard_normal((count, size, size))
    wanted = np.linalg.svd(matrices, compute_uv=False)[:, 0]
    np.testing.assert_allclose(spectral_norms(matrices), wanted, rtol=1e-3)
    assert (spectral_norms(matrices * 0) == 0).all()


def test_power_iteration_on_what_is_tiny_in_float32():  # type: ignore[no-untyped-def]
    matrices = (
        np.random.default_rng(0).standard_normal((3, 8, 8)) * np.array([1e-12, 1e-25, 1e-36])[:, None, None]
    )
    wanted = np.linalg.svd(matrices, compute_uv=False)[:, 0]
    np.testing.assert_allclose(spectral_norms(matrices.astype("float32")), wanted, rtol=1e-3)


@pytest.mark.parametrize("t", [0, 11])
def test_uses_are_the_slopes_of_a_weight_changed_for_one_step(each, t):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    for name, parameter in each.model.named_parameters():
        along = rng.standard_normal(parameter.shape)
        wanted = slope(lambda a: losses(each, t, name, a * along).mean())  # noqa: B023
        part = by_step(each.recording, name, parameter.node)[t]
        assert np.vdot(part, along) == pytest.approx(wanted, rel=1e-5, abs=1e-8), name
        np.testing.assert_allclose(run(each, f"uses {name}").data["norms"][t], np.linalg.norm(part))


def test_the_uses_of_a_recurrent_weight_sum_to_its_gradient_exactly(each):  # type: ignore[no-untyped-def]
    for name, parameter in each.model.named_parameters():
        parts = by_step(each.recording, name, parameter.node)
        total = np.zeros(parameter.shape)
        for part in reversed(parts):
            total = total + part
        if name.startswith("rnn."):
            np.testing.assert_array_equal(total, parameter.grad.numpy(), err_msg=name)
        np.testing.assert_allclose(total, parameter.grad.numpy(), rtol=1e-9, atol=1e-15, err_msg=name)


def test_connect_is_the_slope_in_what_was_read(each):  # type: ignore[no-untyped-def]
    data = run(each, "connect 9").data
    size = each.model.embedding.weight.shape[1]
    for s in (0, 5, 9):
        gradient = []
        for feature in range(size):
            change = np.zeros(each.model.embedding.weight.shape)
            change[each.recording.symbols[s], feature] = 1
            gradient.append(slope(lambda a: losses(each, s, "embedding.weight", a * change)[9]))  # noqa: B023
        assert data["norms"][s] == pytest.approx(np.linalg.norm(gradient), rel=1e-4, abs=1e-9)
    assert (data["norms"][10:] == 0).all()


def test_compare_has_each_kind_from_the_same_seed(session):  # type: ignore[no-untyped-def]
    data = run(session, "compare rnn gru --seed 4").data
    assert list(data["kinds"]) == ["rnn", "gru"]
    again = run(session, "compare gru --seed 4").data["kinds"]["gru"]
    np.testing.assert_array_equal(again["norms"], data["kinds"]["gru"]["norms"])
    assert run(session, "compare gru --seed 5").data["kinds"]["gru"]["loss"] != again["loss"]


@pytest.mark.parametrize(
    "line, said",
    [
        ("flow --from 20", "there is no time step 20; the time steps are 0 to 19"),
        ("flow --from x", "'x' is no time step; say 0 to 19"),
        ("flow --layer 2", "there is no layer 2; the layers are 0 to 1"),
        ("flow --jac --from 3", "leave out --from"),
        ("uses weight_hh", "no single parameter is called 'weight_hh'; there are embedding.weight"),
        ("connect", "usage: connect t"),
        ("connect 99", "0 to 19"),
        ("compare cnn", "there are lstm, gru, rnn"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(session, line, said):  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError) as error:
        run(session, line)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "line",
    ["flow", "flow --from 12", "flow --from all", "flow --jac", "uses weight_hh_l0", "connect 15", "compare"],
    ids=lambda line: line.replace(" ", "_"),
)
def test_golden(line, say, golden):  # type: ignore[no-untyped-def]
    golden(say(line))


def test_compare_after_some_steps_is_what_train_leads_to():  # type: ignore[no-untyped-def]
    found = run(Session.small(), "compare gru --train 3 --seed 0").data["kinds"]["gru"]
    other = Session.small(kind="gru", seed=0)
    run(other, "train 3")
    assert found["loss"] == pytest.approx(other.recording.loss.item(), rel=1e-5)
    assert found["loss"] != run(Session.small(), "compare gru").data["kinds"]["gru"]["loss"]


def test_what_is_small_in_float32_is_not_zero():  # type: ignore[no-untyped-def]
    """The square of 1e-25 is nothing to float32."""
    session = Session.small(kind="rnn", num_layers=1, length=120)
    row = run(session, "flow --from -1").data["norms"]["h_l0"]
    among = session.recording.gradients_of(session.recording.loss_at(119))
    largest = np.abs(session.recording.gradients("h", 0, among)).max(axis=1)
    assert ((row > 0) == (largest > 0)).all() and (row[largest > 0] >= largest[largest > 0] * 0.999).all()
    assert 0 < row[row > 0].min() < 1e-30


def test_halves_are_counted_not_fitted(each):  # type: ignore[no-untyped-def]
    view = run(each, "flow --from 15")
    for name, row in view.data["norms"].items():
        below = [k for k in range(16) if row[15 - k] < row[15] / 2]
        count = (
            f"below half {below[0]} step{'' if below[0] == 1 else 's'} back" if below else "never below half"
        )
        assert any(f"decay of {name}" in line and count in line for line in view.text(120).splitlines())
    assert "half" not in run(each, "flow").text(120)


def test_the_jacobian_of_a_changed_cell_is_refused(session):  # type: ignore[no-untyped-def]
    run(session, "what-if --keep f=1")
    with pytest.raises(UsageError, match="what-if --clear"):
        run(session, "flow --jac")
    assert "1 change kept" in run(session, "flow").text()
    before = run(small(), "compare lstm").data["kinds"]["lstm"]["norms"]
    np.testing.assert_array_equal(run(session, "compare lstm").data["kinds"]["lstm"]["norms"], before)


def test_a_weight_that_no_step_used(session):  # type: ignore[no-untyped-def]
    run(session, "what-if --keep h=0")
    text = run(session, "uses weight_hh_l0").text()
    assert "exactly 0 at every step" in text and "cancels" not in text
    assert "half of it" not in run(session, "connect 3").text()


def test_the_sum_is_compared_with_the_gradient_that_is_there(session):  # type: ignore[no-untyped-def]
    parameter = session.model.rnn.weight_hh_l0
    parameter.grad = tg.tensor(parameter.grad.numpy() + 1.0)
    [line] = [
        x for x in run(session, "uses weight_hh_l0").text().splitlines() if x.startswith("sum - W.grad")
    ]
    assert float(line.split()[3]) == pytest.approx(1.0)


def test_norms_of_matrices_that_are_not_finite():  # type: ignore[no-untyped-def]
    matrices = np.stack([np.eye(3), np.full((3, 3), np.nan), 2 * np.eye(3)])
    np.testing.assert_allclose(spectral_norms(matrices), [1, np.nan, 2])
