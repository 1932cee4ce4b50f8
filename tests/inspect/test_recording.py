"""A recorded window computes what the model computes, and its gradients are the model's."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.engine.annotate import annotate, scope, time_step, time_steps_from
from tinygrad_rnn.inspect.recording import GATES, STATES, Change, Recording, read_states, triangle
from tinygrad_rnn.inspect.tape import Tape

from .conftest import small
from .pieces import losses, slope


class Moved(Change):
    """Adds `amount` times a direction to a value as it is computed."""

    def held(self, x):  # type: ignore[no-untyped-def]
        return x + tg.tensor(np.asarray(self.value))


def moved(letter, layer, t, amount):  # type: ignore[no-untyped-def]
    return Moved(letter, layer, range(t, t + 1), value=amount)


def test_it_reads_as_the_model_does(each):  # type: ignore[no-untyped-def]
    np.testing.assert_allclose(each.recording.losses, losses(each), rtol=1e-12)
    assert each.recording.loss.item() == pytest.approx(losses(each).mean())


def test_its_gradients_are_those_of_backward(each):  # type: ignore[no-untyped-def]
    recording, model = each.recording, each.model
    found = {name: p.grad.numpy() for name, p in model.named_parameters()}
    model.zero_grad()
    loss, _ = model.loss(recording.symbols[:, None], recording.targets[:, None])
    loss.backward()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(found[name], parameter.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("t", [0, 7, 19])
def test_the_gradient_in_every_state_and_gate_is_the_slope_of_the_loss(each, t):  # type: ignore[no-untyped-def]
    """Of the mean loss, of one prediction's alone, and of each row of the triangle."""
    recording, rng = each.recording, np.random.default_rng(t)
    corner = triangle(recording, [3, 12], 0)
    at_12 = recording.gradients_of(recording.loss_at(12))
    for letter in STATES[each.model.kind] + GATES[each.model.kind]:
        for layer in range(2):
            along = rng.standard_normal(6)

            def run(amount):  # type: ignore[no-untyped-def]
                return each.run([moved(letter, layer, t, amount * along)])  # noqa: B023

            wanted = slope(lambda a: run(a).loss.item())
            assert recording.gradients(letter, layer)[t] @ along == pytest.approx(wanted, rel=1e-5, abs=1e-9)
            if letter in STATES[each.model.kind]:
                wanted = slope(lambda a: run(a).losses[12])
                found = recording.gradients(letter, layer, at_12)[t] @ along
                assert found == pytest.approx(wanted, rel=1e-5, abs=1e-9)
                if layer == 0:
                    assert corner[letter][1, t] @ along == pytest.approx(wanted, rel=1e-5, abs=1e-9)


def test_every_gate_is_a_node_with_its_place(each):  # type: ignore[no-untyped-def]
    recording = each.recording
    for letter in STATES[each.model.kind] + GATES[each.model.kind]:
        for layer in range(2):
            for t in range(recording.length):
                node = recording.node(letter, layer, t)
                assert (node.module, node.time_step) == (f"rnn.l{layer}", t)
                assert "ops/recurrent.py:" in node.location
                np.testing.assert_array_equal(
                    recording.tape.value(node)[0], recording.values(letter, layer)[t]
                )


def test_states_read_without_a_graph_are_the_same(each):  # type: ignore[no-untyped-def]
    found = read_states(each.model, each.recording.symbols)
    for (letter, layer), values in found.items():
        np.testing.assert_allclose(values, each.recording.values(letter, layer), rtol=1e-12)
    assert len(found) == 2 * len(STATES[each.model.kind] + GATES[each.model.kind])


def test_a_cut_is_a_detached_state(each):  # type: ignore[no-untyped-def]
    """Two windows in a row, the state handed on without its history: the mean of their losses."""
    model, recording = each.model, each.run(cuts=[8])
    x, y = recording.symbols[:, None], recording.targets[:, None]
    first, state = model.loss(x[:8], y[:8])
    state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
    second, _ = model.loss(x[8:], y[8:], state)
    model.zero_grad()
    ((first * 8 + second * 12) / 20).backward()
    for name, parameter in model.named_parameters():
        found = recording.tape.gradients[parameter.node]
        np.testing.assert_allclose(found, parameter.grad.numpy(), rtol=1e-9, atol=1e-12, err_msg=name)
    assert recording.cuts == [0, 8]
    assert [recording.node("h", 0, t).time_step for t in range(20)] == list(range(20))
    after = recording.gradients_of(recording.loss_at(15))
    norms = np.abs(recording.gradients("h", 1, after)).sum(axis=1)
    assert (norms[:8] == 0).all() and (norms[8:16] > 0).all()


def test_a_window_further_on_begins_with_the_state_of_the_text_before():  # type: ignore[no-untyped-def]
    session = small(length=20)
    session.show(30, 10, None)
    whole = Recording(session.model, session.symbols[:40], session.symbols[1:41])
    np.testing.assert_allclose(session.recording.losses, whole.losses[30:], rtol=1e-12)
    session.show(0, 20, 5)
    assert session.recording.cuts == [0, 5, 10, 15]


def test_a_tape_holds_every_contribution():  # type: ignore[no-untyped-def]
    """Each gradient is the sum of what its users contributed, and a walk of it leaves no gradient behind."""
    session = small()
    tape = session.recording.tape
    for node, parts in tape.contributions.items():
        if node.outputs is None:
            np.testing.assert_allclose(sum(p.gradient for p in parts), tape.gradients[node], rtol=1e-12)
            assert {(p.node, p.number) for p in parts} <= set(tape.users[node])
    assert tape.order[0] is tape.root.node and set(tape.order) == set(tape.gradients)
    assert [tape.numbers[n] for n in tape.nodes] == list(range(1, len(tape.nodes) + 1))

    x = tg.tensor([1.0, 2.0], requires_grad=True)
    found = Tape((x * x + x).sum(), {})
    assert x.grad is None
    np.testing.assert_array_equal(found.gradients[x.node], [3, 5])
    assert len(found.contributions[x.node]) == 3


def test_a_graph_that_was_freed_is_refused():  # type: ignore[no-untyped-def]
    x = tg.tensor([1.0], requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(tg.errors.GraphError, match="retain_graph=True"):
        Tape(y, {})
    with pytest.raises(tg.errors.GraphError, match="needs no gradient"):
        Tape(tg.tensor([1.0]), {})


def test_an_observer_is_shown_nodes_and_names_and_may_put_another_in_their_place():  # type: ignore[no-untyped-def]
    seen = []

    class Watching:
        def made(self, node, out):  # type: ignore[no-untyped-def]
            seen.append((node.op.name, out.tolist(), scope.time_step))

        def named(self, name, value):  # type: ignore[no-untyped-def]
            seen.append(name)
            return value * 0

    x = tg.tensor(3.0, requires_grad=True)
    with annotate(Watching()), time_steps_from(10), time_step(2):
        y = tg.named("a square", x * x)
    assert seen == [("multiply", 9.0, 12), "a square", ("multiply", 0.0, 12)]
    assert y.item() == 0
    assert tg.named("nothing", x) is x and scope.observer is None
