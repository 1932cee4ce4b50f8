"""What a view promises: one text everywhere, no line too long, numbers as JSON, colour that only repeats."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tinygrad_rnn.inspect import View
from tinygrad_rnn.inspect.view import Chart, Facts, Heat, Lines, Span, Table, Text, shown_text, to_ascii

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60)


def rich_text(view: View, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(view)
    return "".join(line.rstrip() + "\n" for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


@given(
    values=st.lists(st.lists(NUMBERS, min_size=7, max_size=7), min_size=1, max_size=3),
    scale=st.sampled_from(["log", "unit", "signed"]),
    head=st.text("ab\n\té", min_size=7, max_size=7),
    width=st.integers(24, 120),
)
def test_a_map_fits_and_looks_the_same_everywhere(values, scale, head, width):  # type: ignore[no-untyped-def]
    view = View("a map", [Heat({f"row {i}": row for i, row in enumerate(values)}, head, scale)])
    lines = view.text(width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert rich_text(view, width) == view.text(width)
    assert view.text(width, ascii=True).isascii()
    assert len(view.text(width, ascii=True).splitlines()) == len(lines)


@given(text=TEXTS, label=TEXTS.filter(lambda s: len(s) < 9), width=st.integers(30, 100))
def test_any_text_comes_through(text, label, width):  # type: ignore[no-untyped-def]
    shown = shown_text(text)
    assert len(shown) == len(text) and shown.isprintable()
    view = View(
        shown, [Text(shown), Facts([(shown_text(label), shown)]), Lines([shown]), Table(["a"], [[shown]])]
    )
    assert all(len(line) <= width for line in view.text(width).splitlines())


def cells(row, **options):  # type: ignore[no-untyped-def]
    """The characters of one row of a map."""
    [line] = [line for line in Heat({"r": row}, **options).lines(200) if line[0].text.startswith("r")]
    return "".join(span.text for span in line).partition("|")[2].rpartition("|")[0]


def test_exactly_zero_is_not_small_and_not_finite_is_neither():  # type: ignore[no-untyped-def]
    assert cells([0, 1e-30, 1e-15, 1, np.nan, np.inf]) == " .+@!!"
    assert cells([0, 1e-30, np.nan], strict=False)[2] == " "
    assert cells([-1, -0.5, 0, 0.02, 0.5, 1], scale="signed", high=1.0) == "<= .*>"
    assert cells([0, 0.5, 1], scale="unit") == ".+@"


@given(st.floats(1e-30, 1e30), st.floats(1e-30, 1e30))
def test_a_larger_number_never_looks_smaller(a, b):  # type: ignore[no-untyped-def]
    ramp = ".:-=+*#%@"
    shown = [ramp.index(c) for c in cells([a, b], low=1e-30, high=1e30)]
    assert (shown[0] <= shown[1]) if a <= b else (shown[0] >= shown[1])


def test_what_hardly_differs_looks_alike():  # type: ignore[no-untyped-def]
    assert cells([1.0, 1.01, 0.99]) == "@@@"


def test_a_wide_map_comes_in_bands_that_lose_no_column():  # type: ignore[no-untyped-def]
    text = "".join(chr(ord("a") + i % 26) for i in range(95))
    lines = View("", [Heat({"r": np.arange(1.0, 96)}, text)]).text(40).splitlines()
    assert "".join(line.strip() for line in lines if line.strip().isalpha()) == text
    assert "".join(line[3:-1] for line in lines if line.startswith("r")).count(".") < 95
    assert sum(len(line[3:-1]) for line in lines if line.startswith("r")) == 95
    numbers = " ".join(line for line in lines if line.startswith("t")).split()
    assert [n for n in numbers if n != "t"] == [str(n) for n in range(0, 95, 10)]


def test_a_cut_is_marked_in_the_ruler():  # type: ignore[no-untyped-def]
    text = View("", [Heat({"r": np.ones(20)}, cuts=[12])]).text(60)
    assert text.splitlines()[1][3 + 12] == "│" and "the gradient is cut here" in text


def test_html_is_escaped():  # type: ignore[no-untyped-def]
    view = View("<b>", [Text("<script>"), Heat({"&": [1.0]}, "<")])
    page = view._repr_mimebundle_()["text/html"]
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;b&gt;" in page and "&amp;" in page


def test_json_has_no_words_of_its_own():  # type: ignore[no-untyped-def]
    data = {
        "a": np.array([1, np.nan, np.inf]),
        "b": (np.float32(0.5), np.int64(3), None, True),
        3: {"x": -np.inf},
    }
    found = json.loads(View("t", (), data).json(), parse_constant=lambda word: pytest.fail(word))
    assert found == {"title": "t", "a": [1, "nan", "inf"], "b": [0.5, 3, None, True], "3": {"x": "-inf"}}


def test_a_table_drops_what_can_be_spared():  # type: ignore[no-untyped-def]
    table = Table(
        ["name", "spare", "number"], [["x" * 10, "y" * 20, 1234567], ["z", "", 0.25]], spare=["spare"]
    )
    assert "spare" in View("", [table]).text(60) and "spare" not in View("", [table]).text(30)
    assert "1,234,567" in View("", [table]).text(30)


def test_a_line_that_is_cut_says_so():  # type: ignore[no-untyped-def]
    assert View("", [Lines([[Span("abc", "dim"), Span("defghij")]])]).text(6).splitlines()[1] == "abcde…"


def test_a_chart_of_values_that_are_not_finite():  # type: ignore[no-untyped-def]
    text = View("", [Chart({"loss": [3.0, 2.0, np.nan, 1.0], "none": [np.nan]})]).text(60)
    assert "█" in text and "▁" in text and "!" in text and "no finite value" in text
    assert to_ascii("▁█↵") == "_#/"


def test_a_view_is_a_picture_as_well():  # type: ignore[no-untyped-def]
    picture = View("title", [Heat({"r": [0.5, 1]}, "ab")]).svg(60)
    assert picture.startswith("<svg") and "title" in picture


def test_colour_only_repeats_what_the_characters_say():  # type: ignore[no-untyped-def]
    """Two cells of the same character may differ in colour, but never the other way round."""
    rows = np.linspace(0.01, 1, 50)
    [line] = [line for line in Heat({"r": rows}, scale="unit").lines(99) if line[0].text.startswith("r")]
    seen: dict[str, set] = {}
    for text, style in line[2:-1]:
        for character in text:
            seen.setdefault(style, set()).add(character)
    assert all(len(characters) == 1 for characters in seen.values())


def test_characters_of_two_columns_are_wrapped_by_columns():  # type: ignore[no-untyped-def]
    from rich.cells import cell_len

    lines = View("日本語" * 20, [Text("日本 " * 20), Facts([("label", "語" * 50)])]).text(40).splitlines()
    assert all(cell_len(line) <= 40 for line in lines) and sum(line.count("日") for line in lines) == 40


def test_nothing_that_a_terminal_obeys_comes_through():  # type: ignore[no-untyped-def]
    view = View("a\x1b[2Jb", [Lines(["\x1b[31mred", [Span("\u202eback")]]), Table(["\x07"], [["\x9b"]])])
    assert all(c.isprintable() or c == "\n" for c in view.text())
    assert "\x1b" not in rich_text(view, 80)


def test_a_notebook_gets_text_html_and_a_picture():  # type: ignore[no-untyped-def]
    shown = View("title", [Heat({"r": [1.0]})])._repr_mimebundle_()
    assert shown["image/svg+xml"].startswith("<svg") and set(shown) == {
        "text/plain",
        "text/html",
        "image/svg+xml",
    }


def bars(values, **options):  # type: ignore[no-untyped-def]
    [line] = Chart({"c": values}, **options).lines(80)
    return line[1].text


def test_curves_have_a_scale_each_unless_one_is_given():  # type: ignore[no-untyped-def]
    assert bars([0, 7]) == bars([0, 70]) == "▁█"
    assert bars([0, 7], low=0, high=70) == "▁▂" and bars([-5, 99], low=0, high=70) == "▁█"
    assert bars([1e-7, 1e-3, 1], low=1e-7, high=1, log=True) == "▁▅█"
    assert bars([0, 1e-7, np.nan, np.inf], log=True) == " ▁!!"
    assert bars([0, 0], log=True) == "  "
    both = Chart({"a": [1, 123456], "b": [1, 2]}, low=1, high=9).lines(40)
    assert len({line[1].text.__len__() for line in both}) == 1  # and one length
