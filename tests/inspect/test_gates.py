"""`gates`, `cells`, `predict`: against the equations written once more, and the fast kernels."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect import run
from tinygrad_rnn.inspect.gates import FEATURES, correlation

from .conftest import TEXT, small


def sigmoid(x):  # type: ignore[no-untyped-def]
    return 1 / (1 + np.exp(-x))


def by_hand(session, layer):  # type: ignore[no-untyped-def]
    """letter -> (T, H), by the equations of the lecture."""
    named = {
        n.split(".")[1][:-3]: p.numpy()
        for n, p in session.model.named_parameters()
        if n.endswith(f"_l{layer}")
    }
    w_ih, w_hh, b_ih, b_hh = (named[n] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, c, found = np.zeros(6), np.zeros(6), {}
    for x in session.recording.inputs(layer):
        if session.model.kind == "lstm":
            i, f, g, o = np.split(w_ih @ x + b_ih + w_hh @ h + b_hh, 4)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            c = f * c + i * g
            h = o * np.tanh(c)
            values = {"i": i, "f": f, "g": g, "o": o, "c": c, "h": h}
        else:
            (xr, xz, xn), (hr, hz, hn) = np.split(w_ih @ x + b_ih, 3), np.split(w_hh @ h + b_hh, 3)
            r, z = sigmoid(xr + hr), sigmoid(xz + hz)
            n = np.tanh(xn + r * hn)
            h = (1 - z) * n + z * h
            values = {"r": r, "z": z, "n": n, "h": h}
        for letter, value in values.items():
            found.setdefault(letter, []).append(value)
    return {letter: np.array(rows) for letter, rows in found.items()}


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("layer", [0, 1])
def test_gates_are_those_of_the_equations(kind, layer):  # type: ignore[no-untyped-def]
    session = small(kind)
    wanted = by_hand(session, layer)
    data = run(session, f"gates --layer {layer}").data
    for letter, mean in data["mean"].items():
        np.testing.assert_allclose(mean, wanted[letter].mean(axis=1), rtol=1e-10)
    for unit in (0, 5):
        for letter, values in run(session, f"gates {unit} --layer {layer}").data["values"].items():
            np.testing.assert_allclose(values, wanted[letter][:, unit], rtol=1e-10)


def test_saturated_shares(session):  # type: ignore[no-untyped-def]
    with tg.no_grad():
        session.model.rnn.bias_ih_l1[0:6] = np.array([-20.0, 20, 0, 0, 0, 0])
    session.record()
    values = by_hand(session, 1)["i"]
    found = run(session, "gates").data["saturated"]["i"]
    np.testing.assert_allclose(found["low"], (values < 0.1).mean(axis=0))
    np.testing.assert_allclose(found["high"], (values > 0.9).mean(axis=0))
    assert found["low"][0] == 1 and found["high"][1] == 1
    assert "0 (100%)" in run(session, "gates").text(120)
    with tg.no_grad():
        session.model.rnn.bias_ih_l1[12:14] = np.array([-20.0, 20])
    found = run(session, "gates").data["saturated"]["g"]  # between -1 and 1
    assert found["low"][:2].tolist() == [1, 0] and found["high"][:2].tolist() == [0, 1]


def test_cells_are_the_states_of_the_model(each):  # type: ignore[no-untyped-def]
    data = run(each, "cells 3").data
    assert data["text"] == TEXT[: len(data["text"])] == TEXT[:400]
    for t in (0, 150):
        _, state = each.model(each.symbols[: t + 1, None])
        value = np.tanh(state[1].numpy()[1, 0, 3]) if each.model.kind == "lstm" else state.numpy()[1, 0, 3]
        assert data["values"][t] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("name", FEATURES)
def test_find_ranks_units_by_correlation(name, session):  # type: ignore[no-untyped-def]
    data = run(session, f"cells --find {name}").data
    wanted = FEATURES[name][2](TEXT)
    for unit in range(6):
        values = run(session, f"cells {unit}").data["values"]
        assert len(values) == len(TEXT) < 400
        assert data["correlations"][unit] == pytest.approx(np.corrcoef(values, wanted)[0, 1], rel=1e-9)
    assert list(np.abs(data["correlations"][data["order"]])) == sorted(
        np.abs(data["correlations"]), reverse=True
    )


def test_features_of_a_text():  # type: ignore[no-untyped-def]
    found = {name: feature('a "b" (c\n[d])').astype(int).tolist() for name, (*_, feature) in FEATURES.items()}
    assert found["quote"] == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert found["newline"] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert found["bracket"] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0]
    assert found["position"] == [1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4]


def test_a_unit_that_never_moves_correlates_with_nothing():  # type: ignore[no-untyped-def]
    assert correlation(np.ones((9, 2)), np.arange(9.0)).tolist() == [0, 0]


def test_predict_shows_the_softmax_of_the_scores(each):  # type: ignore[no-untyped-def]
    data = run(each, "predict").data
    with tg.no_grad():
        scores = each.model(each.recording.symbols[:, None])[0].numpy()[:, 0]
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        data["probability"], chances[np.arange(20), each.recording.targets], rtol=1e-10
    )
    for row, candidates in zip(chances, data["candidates"], strict=True):
        assert candidates == each.decode(np.argsort(-row)[:5])
    np.testing.assert_allclose(run(each, "predict 7").data["probabilities"], chances[7], rtol=1e-10)
    np.testing.assert_allclose(data["losses"], -np.log(data["probability"]), rtol=1e-10)


@pytest.mark.parametrize(
    "line, said",
    [
        ("gates 6", "there is no unit 6; the units are 0 to 5"),
        ("gates --layer 2", "the layers are 0 to 1"),
        ("cells", "give a unit (`cells 17`)"),
        ("cells -1", "there is no unit -1; the units are 0 to 5"),
        ("cells 3 --find quote", "give a unit"),
        ("cells --find comma", "choose from"),
        ("predict 20", "the time steps are 0 to 19"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(session, line, said):  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError) as error:
        run(session, line)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_rnn_has_no_gates():  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="an rnn has no gates"):
        run(small("rnn"), "gates")


def test_nothing_to_find():  # type: ignore[no-untyped-def]
    session = small()
    session.symbols = session.symbols[:13]
    with pytest.raises(UsageError, match="in these 13 characters; this text has none"):
        run(session, "cells --find bracket")
    session = small()
    text = "a b c\n" * 500 + "(a)" + "a b c\n" * 20
    session.symbols = session.vocabulary.encode(text.replace("b", "e").replace("c", "e"))
    with pytest.raises(UsageError, match="there is one at 3,000: `window --at 2990`"):
        run(session, "cells --find bracket")
    run(session, "window --at 2990")
    assert run(session, "cells --find bracket").data["find"] == "bracket"


def test_a_quotation_that_began_before_the_window():  # type: ignore[no-untyped-def]
    session = small()
    whole = run(session, "cells --find quote")
    place = TEXT.index('"') + 3
    run(session, f"window --at {place}")
    found = run(session, "cells --find quote")
    drawn = [line for line in found.text(200).splitlines() if line.startswith("quote")]
    assert drawn[0].partition("|")[2].startswith(">>>") and "1 inside" in whole.text(200)
    feature = FEATURES["quote"][2]
    assert feature('"a\n\nb "c" d').astype(int).tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]


def test_what_is_held_by_what_if_is_held_for_units_too(session):  # type: ignore[no-untyped-def]
    run(session, "what-if --keep i=1")
    values = run(session, "cells 3").data["values"][:20]
    np.testing.assert_allclose(values, np.tanh(session.recording.values("c", 1)[:, 3]), rtol=1e-9)
    assert "1 change kept" in run(session, "predict").text()


def test_candidates_of_scores_that_are_not_finite(session):  # type: ignore[no-untyped-def]
    with tg.no_grad():
        session.model.output.weight[2, 3] = np.nan
    assert "`why nan` says why" in run(session, "predict").text()
    assert "not finite" in run(session, "predict 0").text()


@pytest.mark.parametrize(
    "line",
    ["gates", "gates 2", "cells 2", "cells --find quote", "predict", "predict 7"],
    ids=lambda line: line.replace(" ", "_"),
)
def test_golden(line, say, golden):  # type: ignore[no-untyped-def]
    golden(say(line))
