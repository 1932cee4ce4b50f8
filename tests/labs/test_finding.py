"""What every lab gives back: a view that fits, JSON, a picture with its labels."""

import importlib
import json
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.inspect.view import Table
from tinygrad_rnn.labs import LABS, figure
from tinygrad_rnn.labs.finding import Curve, Finding, Panel, percent, span


def finding(**changed):
    curves = [
        Curve("plain", [8, 20], [[1.0, 1e-3], [1.0, 1e-5]]),
        Curve("ResNet", [8, 20], [[1.0, 0.5], [1.0, 0.7]], colour=1, line="--"),
    ]
    given = {
        "lab": "a-lab",
        "question": "Is it so?",
        "setup": [("data", "some")],
        "claim": "it is 1 or more",
        "holds": True,
        "verdict": "it is 2.",
        "tables": [("by depth", Table(["network", "8"], [["plain", 1.0]]))],
        "panels": [Panel("One", "layers", "norm (nats)", curves, log_y=True, limit=(1.0, "as before"))],
        "numbers": {"it": np.float64(2), "curve": np.array([1.0, np.inf])},
    }
    return Finding(**{**given, **changed})


@pytest.mark.parametrize("name", LABS)
def test_every_lab_says_beforehand_what_decides(name):
    module = importlib.import_module(f"tinygrad_rnn.labs.{name.replace('-', '_')}")
    assert name == module.NAME and LABS[name].question == module.QUESTION
    assert "The claim holds if" in module.__doc__


def test_a_view_says_all_and_fits():
    view = finding().view()
    text = view.text(80)
    for said in ("Is it so?", "data", "by depth", "plain", "claim", "Holds at this size: it is 2."):
        assert said in text
    assert max(map(len, text.splitlines())) <= 80
    assert "Does not hold at this size: it is 2." in finding(holds=False).view().text()
    dependent = finding(given="with two hands")
    assert dependent.conclusion == "Holds with two hands at this size: it is 2."


def test_json_has_all_numbers():
    found = json.loads(finding().view().json())
    assert found["lab"] == "a-lab" and found["holds"] is True
    assert found["verdict"] == "Holds at this size: it is 2." and found["claim"] == "it is 1 or more"
    assert found["numbers"] == {"it": 2.0, "curve": [1.0, "inf"]} and found["setup"] == {"data": "some"}


def test_bars_of_a_panel_are_medians_on_one_scale():
    [_, caption, chart] = finding().panels[0].blocks()
    assert (chart.low, chart.high, chart.log) == (pytest.approx((1e-3 + 1e-5) / 2), 1.0, True)
    plain, residual = ("".join(span.text for span in line) for line in chart.lines(80))
    assert "██████▁▁▁▁▁▁ 1 .. 0.000505" in plain and "████████████ 1 .. 0.6" in residual
    assert "layers, 8 to 20" in caption.text and "norm (nats), 0.000505 to 1, logarithmic" in caption.text


def test_the_picture_has_question_labels_legend_and_verdict():
    pytest.importorskip("matplotlib")
    drawn = figure.draw(finding())
    [axes] = drawn.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("layers", "norm (nats)", "log")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "ResNet", "as before"]
    words = [text.get_text() for text in drawn.texts]
    assert drawn.get_suptitle() == "Is it so?" and words[-1] == "Holds at this size: it is 2."
    thick = {line.get_label(): line for line in axes.lines if line.get_linewidth() > 2}
    np.testing.assert_allclose(thick["plain"].get_ydata(), [1.0, (1e-3 + 1e-5) / 2])
    assert thick["plain"].get_color() != thick["ResNet"].get_color()
    assert len(axes.lines) == 2 * (2 + 1) + 1  # two seeds and their median each, and the limit


def test_pictures_are_written_and_are_the_same_again(tmp_path):
    pytest.importorskip("matplotlib")
    paths = figure.save(finding(), tmp_path)
    assert [path.name for path in paths] == ["a-lab.png", "a-lab.svg"]
    png, svg = (path.read_bytes() for path in paths)
    assert png.startswith(b"\x89PNG") and ElementTree.fromstring(svg).tag.endswith("svg")
    again = figure.save(finding(), tmp_path / "again")
    assert [path.read_bytes() for path in again] == [png, svg]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-lab.png", "a-lab.svg", "again"]


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not figure.can_draw()
    with pytest.raises(UsageError, match=r"pip install 'tinygrad-rnn\[plot\]'"):
        figure.save(finding(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_numbers_of_several_seeds():
    assert span([1.0, 3.0, 2.0], ".1f") == "1.0 to 3.0" and span([2.0, 2.0]) == "2"
    assert percent([0.971, 0.955]) == "95.5 to 97.1"
