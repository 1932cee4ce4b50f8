"""`what-if`: against the cells' equations in NumPy, a value held there, and finite differences of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import Session, View, address, run
from tinygrad_rnn.inspect.command import completions
from tinygrad_rnn.inspect.recording import GATES, STATES
from tinygrad_rnn.models import detach_state

Values = dict[tuple[str, int, int], np.ndarray]
Touch = Callable[[tuple[str, int, int], np.ndarray], np.ndarray]
STEP = 1e-6


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def by_hand(session: Session, weights: dict[str, np.ndarray], touch: Touch = lambda place, x: x) -> Any:
    """(losses (T,), every value by its place): the equations, each value as `touch` returns it."""
    kind, layers, H = session.model.kind, session.recording.layers, session.model.rnn.hidden_size
    values: Values = {}

    def named(letter: str, layer: int, t: int, x: np.ndarray) -> np.ndarray:
        values[letter, layer, t] = x = touch((letter, layer, t), x)
        return x

    states = {letter: np.zeros((layers, H)) for letter in STATES[kind]}
    if session.recording.state is not None:
        state = session.recording.state
        given = state if isinstance(state, tuple) else (state,)
        states = {x: s.numpy()[:, 0] for x, s in zip(STATES[kind], given, strict=True)}
    losses = []
    for t, (symbol, target) in enumerate(
        zip(session.recording.symbols, session.recording.targets, strict=True)
    ):
        x = weights["embedding.weight"][symbol]
        for k in range(layers):
            w_ih, w_hh, b_ih, b_hh = (
                weights[f"rnn.{n}_l{k}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            h, a, b = states["h"][k], w_ih @ x + b_ih, w_hh @ states["h"][k] + b_hh
            if kind == "rnn":
                h = np.tanh(a + b)
            elif kind == "lstm":
                parts = np.split(a + b, 4)
                i, f, g, o = (
                    named(letter, k, t, np.tanh(z) if letter == "g" else sigmoid(z))
                    for letter, z in zip("ifgo", parts, strict=True)
                )
                states["c"][k] = c = named("c", k, t, f * states["c"][k] + i * g)
                h = o * np.tanh(c)
            else:
                (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
                r, z = named("r", k, t, sigmoid(ar + br)), named("z", k, t, sigmoid(az + bz))
                n = named("n", k, t, np.tanh(an + r * bn))
                h = (1 - z) * n + z * h
            states["h"][k] = x = named("h", k, t, h)
        scores = weights["output.weight"] @ x + weights["output.bias"]
        losses.append(np.log(np.exp(scores).sum()) - scores[target])
    return np.array(losses), values


def weights_of(session: Session) -> dict[str, np.ndarray]:
    return {name: p.numpy() for name, p in session.model.named_parameters()}


def checked_places(session: Session) -> list[tuple[str, tuple[int, ...]]]:
    """A few numbers in the weights that everything before the output goes through."""
    return [
        ("embedding.weight", (int(session.recording.symbols[1]), 0)),
        ("rnn.weight_hh_l0", (0, 1)),
        ("rnn.weight_hh_l0", (-1, 0)),
        ("rnn.weight_ih_l1", (1, 2)),
        ("rnn.bias_hh_l1", (-2,)),
        ("output.weight", (0, 3)),
    ]


def assert_gradients(session: Session, after: Any, touch: Touch) -> None:
    """Those of the recording are the finite differences of the equations with that touch."""
    named = dict(session.model.named_parameters())
    for name, place in checked_places(session):
        found = after.tape.gradients[named[name].node][place]
        sides = []
        for sign in (1, -1):
            weights = weights_of(session)
            weights[name][place] += sign * STEP
            sides.append(by_hand(session, weights, touch)[0].mean())
        assert found == pytest.approx((sides[0] - sides[1]) / (2 * STEP), rel=1e-5, abs=1e-9), name


def test_the_equations_by_hand_are_those_of_the_window(each: Session) -> None:
    losses, values = by_hand(each, weights_of(each))
    np.testing.assert_allclose(losses, each.recording.losses, rtol=1e-12)
    for letter in STATES[each.model.kind] + GATES[each.model.kind]:
        np.testing.assert_allclose(values[letter, 1, 7], each.recording.values(letter, 1)[7], rtol=1e-10)


def held(letter: str, value: float, layer: Any = None, steps: Any = None, unit: Any = None) -> Touch:
    def touch(place: tuple[str, int, int], x: np.ndarray) -> np.ndarray:
        if (
            place[0] != letter
            or layer not in (None, place[1])
            or (steps is not None and place[2] not in steps)
        ):
            return x
        x = x.copy()
        x[slice(None) if unit is None else unit] = value
        return x

    return touch


HELD = [
    ("lstm", "f=1", held("f", 1)),
    ("lstm", "f_l0[10]=0", held("f", 0, 0, [10])),
    ("lstm", "c[4..6].3=0.5", held("c", 0.5, None, [4, 5, 6], 3)),
    ("lstm", "o[-1].0=-2e-1", held("o", -0.2, None, [19], 0)),
    ("lstm", "h_l1=0", held("h", 0, 1)),
    ("gru", "z=0.25", held("z", 0.25)),
    ("gru", "r_l1[3..9]=0", held("r", 0, 1, range(3, 10))),
    ("gru", "n.2=1", held("n", 1, None, None, 2)),
    ("rnn", "h[10]=0", held("h", 0, None, [10])),
]


@pytest.mark.parametrize("each, line, touch", HELD, indirect=["each"], ids=[x for _, x, _ in HELD])
def test_a_value_is_held(each: Session, line: str, touch: Touch) -> None:
    before = each.recording
    data = run(each, f"what-if {line}").data
    losses = by_hand(each, weights_of(each), touch)[0]
    np.testing.assert_allclose(data["losses"][0], by_hand(each, weights_of(each))[0], rtol=1e-12)
    np.testing.assert_allclose(data["losses"][1], losses, rtol=1e-12)
    assert data["loss"] == pytest.approx([before.losses.mean(), losses.mean()])
    assert not np.allclose(losses, before.losses)
    run(each, f"what-if --keep {line}")
    assert_gradients(each, each.recording, touch)


SCALED = [
    ("lstm", "dc*0", ("c", None, None, None, 0.0)),
    ("lstm", "dh[12]*0.1", ("h", None, [12], None, 0.1)),
    ("lstm", "df_l0[3..8]*-2", ("f", 0, range(3, 9), None, -2.0)),
    ("lstm", "dc_l1.2*3", ("c", 1, None, 2, 3.0)),
    ("gru", "dh*0.5", ("h", None, None, None, 0.5)),
    ("gru", "dz_l1*0", ("z", 1, None, None, 0.0)),
    ("rnn", "dh_l0[5..15]*0.9", ("h", 0, range(5, 16), None, 0.9)),
]


def scaled(session: Session, letter: str, layer: Any, steps: Any, unit: Any, factor: float) -> Touch:
    """x0 + factor (x - x0), x0 the value that there is: the same value, `factor` times the derivative."""
    constant = by_hand(session, weights_of(session))[1]

    def touch(place: tuple[str, int, int], x: np.ndarray) -> np.ndarray:
        if (
            place[0] != letter
            or layer not in (None, place[1])
            or (steps is not None and place[2] not in steps)
        ):
            return x
        factors = np.ones_like(x)
        factors[slice(None) if unit is None else unit] = factor
        return constant[place] + factors * (x - constant[place])

    return touch


@pytest.mark.parametrize("each, line, what", SCALED, indirect=["each"], ids=[x for _, x, _ in SCALED])
def test_a_gradient_is_scaled_and_goes_on_so(each: Session, line: str, what: tuple) -> None:
    touch = scaled(each, *what)
    data = run(each, f"what-if {line}").data
    assert np.array_equal(*data["losses"])  # a value is never changed
    run(each, f"what-if --keep {line}")
    assert_gradients(each, each.recording, touch)


def test_the_gradient_that_is_shown_at_a_place_is_the_scaled_one(session: Session) -> None:
    before = session.recording
    run(session, "what-if --keep dh_l1[12]*0.1")
    now, then = session.recording.gradients("h", 1), before.gradients("h", 1)
    np.testing.assert_array_equal(now[13:], then[13:])
    np.testing.assert_allclose(now[12], 0.1 * then[12], rtol=1e-14)
    assert not np.allclose(now[11], then[11], rtol=1e-3)


def test_a_held_value_comes_before_the_scaling_whatever_the_order(session: Session) -> None:
    run(session, "what-if --keep dc_l1[12].1*0, c_l1[12].2=0.5")
    gradient = session.recording.gradients("c", 1)[12]
    assert gradient[1] == 0 and np.count_nonzero(gradient) == len(gradient) - 1
    assert session.recording.values("c", 1)[12, 2] == 0.5


@pytest.mark.parametrize("cut", [1, 8, 19])
def test_a_cut_is_a_detached_state(each: Session, cut: int) -> None:
    recording, model = each.recording, each.model
    data = run(each, f"what-if cut {cut}").data
    run(each, f"what-if --keep cut {cut}")
    found = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
    model.zero_grad()
    state, losses = None, []
    for part in (slice(0, cut), slice(cut, None)):  # by the kernels, not by the equations
        symbols, targets = recording.symbols[part, None], recording.targets[part, None]
        loss, state = model.loss(symbols, targets, state)
        losses.append(loss * (len(symbols) / recording.length))
        state = detach_state(state)
    (losses[0] + losses[1]).backward()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(found[name], parameter.grad.numpy(), rtol=1e-9, atol=1e-14)
        norm = np.linalg.norm(parameter.grad.numpy())
        assert data["weights"][1][name] == pytest.approx(norm)
    assert np.array_equal(*data["losses"])
    # The last prediction reaches no further back than the cut.
    last = each.recording.gradients_of(each.recording.loss_at(19))
    norms = np.linalg.norm(each.recording.gradients("h", 0, last), axis=1)
    assert not norms[:cut].any() and norms[cut:].all()


def test_decay_and_flow_are_those_of_the_changed_window(each: Session) -> None:
    data = run(each, "what-if dh[5]*0.5").data
    after = each.run(*_parsed(each, "dh[5]*0.5"))
    for name in data["flow"][1]:
        letter, layer = name[0], int(name[-1])
        norms = np.sqrt((after.gradients(letter, layer) ** 2).sum(axis=1))
        np.testing.assert_allclose(data["flow"][1][name], norms)
        last = after.gradients(letter, layer, after.gradients_of(after.loss_at(19)))
        logs = np.log(np.sqrt((last**2).sum(axis=1)))
        slope = np.polyfit(np.arange(20), logs, 1)[0]
        assert data["decay"][1][name] == pytest.approx(np.exp(-slope))


def _parsed(session: Session, text: str) -> Any:
    from tinygrad_rnn.inspect.what_if import parse

    return parse(session, text)


def test_the_session_stays_as_it_is(session: Session, say: Callable[[str], View]) -> None:
    recording, focus = session.recording, session.focus
    gradients = {name: p.grad for name, p in session.model.named_parameters()}
    say("what-if f=1, cut 5, dh*0")
    assert session.recording is recording and session.focus is focus
    assert (session.changes, session.cuts) == ([], [])
    assert all(p.grad is gradients[name] for name, p in session.model.named_parameters())


def test_what_is_kept_stays_until_it_is_cleared(session: Session, say: Callable[[str], View]) -> None:
    before, gradient = session.recording.losses, session.recording.gradients("h", 0)
    kept = say("what-if --keep f=1").data
    say("what-if o[3]=0 --keep")
    both = session.recording.losses
    np.testing.assert_array_equal(kept["losses"][1][:3], both[:3])
    assert not np.array_equal(kept["losses"][1][3:], both[3:])
    say("window --at 10")
    assert np.all(session.recording.values("f", 0) == 1)
    say("window --at 0")
    assert say("what-if --clear").data["removed"] == 2
    np.testing.assert_array_equal(session.recording.losses, before)
    np.testing.assert_array_equal(session.recording.gradients("h", 0), gradient)
    assert say("what-if --clear").data["removed"] == 0


def test_a_held_value_is_what_its_name_stands_for(session: Session, say: Callable[[str], View]) -> None:
    say("what-if --keep f_l1[3]=1, dc_l1[4]*0")
    for name in ("f_l1[3]", "f_l1[4]", "c_l1[4]"):
        assert address.label(session, address.find(session, name)) == name
    assert np.all(session.focus.value(address.find(session, "f_l1[3]")) == 1)
    assert np.all(session.focus.gradients[address.find(session, "c_l1[4]")] == 0)
    labels = [address.label(session, node) for node in session.focus.nodes]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize(
    "line, word",
    [
        ("", "no change; say f=1"),
        ("f", "'f' is no change"),
        ("f=1,", "'nothing' is no change"),
        ("r=1", "it has h, c, i, f, o, g"),
        ("f[20]=1", "time steps are 0 to 19"),
        ("f[3..20]=1", "time steps are 0 to 19"),
        ("f[5..3]=1", "end before they begin"),
        ("f_l2=1", "layers are 0 to 1"),
        ("f.6=1", "units are 0 to 5"),
        ("f=open", "open is not a finite number"),
        ("f=inf", "inf is not a finite number"),
        ("dq*0", "no 'q'"),
        ("cut 0", "the steps are 1 to 19"),
        ("cut 20", "the steps are 1 to 19"),
        ("cut", "'cut' is no change"),
        ("--keep", "say changes such as"),
        ("--clear f=1", "or --clear alone"),
        ("--stay f=1", "say changes such as"),
    ],
)
def test_what_makes_no_sense(session: Session, line: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(session, f"what-if {line}")
    assert word in str(caught.value) and "\n" not in str(caught.value)
    assert (session.changes, session.cuts) == ([], [])


def test_a_tiny_gradient_is_not_zero() -> None:
    session = Session.small()  # float32, the squares of which end at 1e-45
    for change in ("dh[30..49]*1e-6, dc[30..49]*1e-6", "dh*1e-15, dc*1e-15"):
        data = run(session, f"what-if {change}").data
        after = session.run(*_parsed(session, change))
        for name, parameter in session.model.named_parameters():
            gradient = after.tape.gradients[parameter.node].astype(float)  # type: ignore[index]
            assert data["weights"][1][name] == pytest.approx(np.sqrt((gradient**2).sum()), rel=1e-9)
        for name, row in data["flow"][1].items():
            rows = after.gradients(name[0], int(name[-1])).astype(float)
            np.testing.assert_allclose(row, np.sqrt((rows**2).sum(axis=1)), rtol=1e-9)
    assert 0 < data["weights"][1]["rnn.weight_hh_l0"] < 1e-20


def test_words_for_the_tab_key(each: Session) -> None:
    words = completions(each, "what-if ")
    letters = STATES[each.model.kind] + GATES[each.model.kind]
    assert {"--keep", "--clear", "cut", *(f"{x}=1" for x in letters), *(f"d{x}*0" for x in letters)} == {
        *words
    }
    assert completions(each, "what-if --k") == ["--keep"] and completions(each, "what-if h=1, dh") == ["dh*0"]
    for word in words:
        if not word.startswith("--"):
            run(each, f"what-if {word}{' 3' * (word == 'cut')}")


def test_a_gate_held_open(session: Session, golden: Callable[[View], None]) -> None:
    golden(run(session, "what-if f[4..12]=1, cut 15"))


def test_no_gradient_through_the_cell(session: Session, golden: Callable[[View], None]) -> None:
    golden(run(session, "what-if dc*0"))
