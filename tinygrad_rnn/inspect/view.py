"""`View`: what a command shows, laid out once for every front.

A view is a title and blocks, and beside them `data`: the numbers themselves, as a program would want them.
Each block lays itself out as lines of spans for a given number of columns. From the same lines come the plain
text, the colours of a terminal (by rich, which IPython and Jupyter ask for as well) and HTML, so that what a
test reads is what a student sees. A picture says everything in its characters; colour only says it again.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, NamedTuple, Protocol

import numpy as np
from rich.cells import cell_len, set_cell_size

WIDTH = 80  # columns, where nobody says how many there are
GAP = 2  # columns between those of a table

# The terminal's own colours, which its user has made readable on its ground, dark or light.
STYLES = {
    "": "",
    "title": "bold",
    "label": "cyan",
    "dim": "dim",
    "good": "bold cyan",
    "bad": "bold red",
    "mark": "bold magenta",
}
ASCII = {
    "↵": "/",
    "␣": "_",
    "→": "|",
    "·": ".",
    "…": "~",
    "─": "-",
    "│": "|",
    "≥": ">=",
    "≤": "<=",
    "²": "^2",
}
ASCII |= dict(zip("▁▂▃▄▅▆▇█", "_.:-=+*#", strict=True))


class Span(NamedTuple):
    """Text in one style: a key of STYLES, or "#rrggbb" for the ground of a cell."""

    text: str
    style: str = ""


Line = list[Span]


class Block(Protocol):
    """A part of a view."""

    def lines(self, width: int) -> Iterable[Line]:
        """At most `width` columns each, as far as that can be done."""


@dataclass(frozen=True)
class View:
    """What a command shows.

    title   one line
    blocks  what is below it, from top to bottom
    data    the same as plain numbers, strings, lists and dictionaries; NumPy's are taken too
    """

    title: str
    blocks: Sequence[Block] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    def lines(self, width: int = WIDTH) -> Iterator[Line]:
        """All of it."""
        for block in [Text(self.title, "title"), *self.blocks]:
            for line in block.lines(width):
                yield [Span(_harmless(text), style) for text, style in line]

    def text(self, width: int = WIDTH, ascii: bool = False) -> str:
        """Plain text, with a line end after each line. ascii: in characters that any terminal has."""
        text = "".join("".join(span.text for span in line).rstrip() + "\n" for line in self.lines(width))
        return to_ascii(text) if ascii else text

    def to_dict(self) -> dict[str, Any]:
        """Title and data, of what JSON has; what is not finite comes as "nan", "inf" or "-inf"."""
        return {"title": self.title, **plain(self.data)}

    def json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def html(self, width: int = 100) -> str:
        """The lines as HTML; every character of the text is escaped."""
        lines = ["".join(map(_html, line)) for line in self.lines(width)]
        return f'<pre style="line-height: 1.2">{chr(10).join(lines)}</pre>'

    def svg(self, width: int = 100, title: str = "trnn") -> str:
        """A picture of the lines as a terminal would show them."""
        from rich.console import Console

        console = Console(
            record=True, width=width, file=StringIO(), force_terminal=True, color_system="truecolor"
        )
        console.print(self)
        return console.export_svg(title=title)

    def __str__(self) -> str:
        return self.text()

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text as RichText

        for line in self.lines(options.max_width):
            shown = RichText(no_wrap=True, end="\n")
            for text, style in line:
                shown.append(to_ascii(text) if options.ascii_only else text, _rich_style(style))
            yield shown

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self.text(printer.max_width).rstrip("\n"))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html(), "image/svg+xml": self.svg()}


# --- blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A paragraph, wrapped."""

    text: str
    style: str = ""

    def lines(self, width: int) -> Iterator[Line]:
        for paragraph in self.text.split("\n"):
            for line in wrapped(paragraph, max(width, 10)):
                yield [Span(line, self.style)]


@dataclass(frozen=True)
class Lines:
    """Lines that are laid out already: code, a tree. What is too long for the width ends in an ellipsis."""

    given: Sequence[Line | str]

    def lines(self, width: int) -> Iterator[Line]:
        for line in self.given:
            yield list(_cut([Span(line)] if isinstance(line, str) else line, width))


@dataclass(frozen=True)
class Facts:
    """Labels and what they say, a line each, the texts aligned and wrapped."""

    facts: Sequence[tuple[str, str]]

    def lines(self, width: int) -> Iterator[Line]:
        margin = max((cell_len(label) for label, _ in self.facts), default=0) + GAP
        for label, text in self.facts:
            rows = [part for row in text.split("\n") for part in wrapped(row, max(width - margin, 16))]
            for number, row in enumerate(rows):
                yield [Span(_padded(label if number == 0 else "", margin), "label"), Span(row)]


@dataclass(frozen=True)
class Table:
    """Columns aligned. A cell is text (to the left) or a number (to the right, four digits).

    spare: the names of columns that go where the width is too small, the first one first.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    spare: Sequence[str] = ()

    def lines(self, width: int) -> Iterator[Line]:
        rows = [[_cell(value) for value in row] for row in self.rows]
        columns = [[name, *(row[i] for row in rows)] for i, name in enumerate(self.header)]
        widths = [max(map(cell_len, column)) for column in columns]
        numbers = [
            any(isinstance(row[i], (int, float, np.number)) for row in self.rows) for i in range(len(widths))
        ]
        shown = list(range(len(widths)))
        for name in self.spare:
            if sum(widths[i] + GAP for i in shown) - GAP <= width:
                break
            shown.remove(list(self.header).index(name))
        for style, cells in [("label", self.header), *(("", row) for row in rows)]:
            texts = [_padded(cells[i], widths[i], numbers[i]) for i in shown]
            yield list(_cut([Span((" " * GAP).join(texts).rstrip(), style)], width))


RAMP = ".:-=+*#%@"  # from small to large; exactly zero is a blank, what is not finite "!"


@dataclass(frozen=True)
class Heat:
    """Numbers as cells, a column a time step: a map over the text.

    rows     label -> a number for each column; NaN for a cell that there is none for (blank), except where
             `strict`: then it is a value that is not finite ("!")
    head     a character for each column, above the map; or None
    scale    "log": magnitudes by their logarithm. "unit": 0 to 1. "signed": -1 to 1, drawn as - and + sides.
    low, high  the ends of the scale, found from the numbers unless given; of "log" the magnitudes themselves
    cuts     columns before which the gradient was cut: a bar is drawn there
    first    the number of the first column
    paint    the characters of the head get the colour of the first row as well
    glyphs   label -> characters to draw in that row in place of the scale's, on the same colours
    unit     what a column is, before the numbers of the ruler
    """

    rows: Mapping[str, Any]
    head: str | None = None
    scale: str = "log"
    low: float | None = None
    high: float | None = None
    cuts: Sequence[int] = ()
    first: int = 0
    paint: bool = False
    strict: bool = True
    glyphs: Mapping[str, str] = field(default_factory=dict)
    unit: str = "t"

    def lines(self, width: int) -> Iterator[Line]:
        labels = [*self.rows]
        values = np.array([np.asarray(row, float) for row in self.rows.values()])
        if not values.size:
            return
        margin = max(map(cell_len, [*labels, self.unit])) + 1
        # Not less than ten columns, whatever the width: a map of one column says nothing.
        room = max(width - margin - 2, 10)
        count = values.shape[1]
        low, high = self._ends(values)
        band = count if count <= room else max(room // 10 * 10, 10)
        cells = [[self._cell(value, low, high) for value in row] for row in values]
        for start in range(0, count, band):
            columns = range(start, min(start + band, count))
            if start:
                yield [Span("")]
            yield [Span(_padded(self.unit, margin + 1), "dim"), *self._ruler(columns)]
            if self.head is not None:
                shown = [self.head[t] if t < len(self.head) else " " for t in columns]
                ground = [cells[0][t].style if self.paint else "" for t in columns]
                yield [Span(" " * (margin + 1)), *_joined(map(Span, map(shown_character, shown), ground))]
            for label, row in zip(labels, cells, strict=True):
                drawn = self.glyphs.get(label)
                inside = [row[t] if drawn is None else Span(drawn[t], row[t].style) for t in columns]
                yield [
                    Span(_padded(label, margin), "label"),
                    Span("|", "dim"),
                    *_joined(inside),
                    Span("|", "dim"),
                ]
        yield from Text(self._legend(low, high), "dim").lines(width)

    def _ends(self, values: np.ndarray) -> tuple[float, float]:
        if self.scale == "unit":
            return (0.0 if self.low is None else self.low), (1.0 if self.high is None else self.high)
        finite = np.abs(values[np.isfinite(values) & (values != 0)])
        if self.scale == "signed":
            return 0.0, float(finite.max()) if self.high is None and finite.size else self.high or 1.0
        high = self.high if self.high is not None else float(finite.max()) if finite.size else 1.0
        low = self.low if self.low is not None else float(finite.min()) if finite.size else high
        # A decade at least: what hardly differs should look alike.
        return (min(low, high / 10) if self.low is None and self.scale == "log" else low), high

    def _cell(self, value: float, low: float, high: float) -> Span:
        if math.isnan(value) and not self.strict:
            return Span(" ")
        if not math.isfinite(value):
            return Span("!", "bad")
        if self.scale == "signed":
            share = min(abs(value) / (high or 1.0), 1.0)
            level = round(share * 3)
            text = " " if value == 0 else "." if level == 0 else ("-=<" if value < 0 else "+*>")[level - 1]
            return Span(text, _diverging(math.copysign(share, value)))
        if value == 0 and self.scale == "log":
            return Span(" ")
        if self.scale == "log":
            spread = math.log(high / low) if high > low > 0 else 0.0
            share = 1.0 if not spread else (math.log(abs(value)) - math.log(low)) / spread
        else:
            share = (value - low) / ((high - low) or 1.0)
        share = min(max(share, 0.0), 1.0)
        return Span(RAMP[min(int(share * len(RAMP)), len(RAMP) - 1)], _sequential(share))

    def _ruler(self, columns: range) -> Line:
        """The number of every tenth column; a bar where the gradient was cut."""
        marks = [" "] * len(columns)
        for place, t in enumerate(columns):
            number = str(t + self.first)
            begin = place + (t in self.cuts)  # behind the bar
            hidden = any(cut in range(t + 1, t + len(number) + (t in self.cuts)) for cut in self.cuts)
            if (t + self.first) % 10 == 0 and begin + len(number) <= len(marks) and not hidden:
                marks[begin : begin + len(number)] = number
        for cut in self.cuts:
            if cut in columns:
                marks[cut - columns.start] = "│"
        return [Span("".join(marks), "dim")]

    def _legend(self, low: float, high: float) -> str:
        missing = "blank: exactly 0"
        if self.scale == "signed":
            text = (
                f"< = - negative, . near 0, blank 0, + * > positive; the ends are -{high:.3g} and {high:.3g}"
            )
        elif self.scale == "unit":
            text = f"{RAMP[0]} {low:.3g} to {RAMP[-1]} {high:.3g}"
        else:
            text = f"{RAMP[0]} {low:.1e} to {RAMP[-1]} {high:.1e}, logarithmic; {missing}; !: not finite"
        return text + ("; │: the gradient is cut here" if self.cuts else "")


@dataclass(frozen=True)
class Chart:
    """Curves: a line each of bars, with the first and the last value.

    low, high  the ends of the scale; None: of each curve the lowest and the highest of its bars
    log        bars by the logarithm; exactly zero is a blank
    """

    series: Mapping[str, Sequence[float]]
    low: float | None = None
    high: float | None = None
    log: bool = False

    def lines(self, width: int) -> Iterator[Line]:
        margin = max(map(cell_len, self.series), default=0) + GAP
        shown = {label: np.asarray(values, float) for label, values in self.series.items()}
        facts = {label: f" {_cell(v[0])} .. {_cell(v[-1])}" for label, v in shown.items() if v.size}
        for label, values in shown.items():
            if not np.isfinite(values).any():
                yield [Span(_padded(label, margin), "label"), Span("no finite value", "bad")]
                continue
            beside = max(map(len, facts.values())) if self.low is not None else len(facts[label])
            room = max(width - margin - beside, 10)
            yield [
                Span(_padded(label, margin), "label"),
                Span(self._bars(values, room), "good"),
                Span(facts[label], "dim"),
            ]

    def _bars(self, values: np.ndarray, room: int) -> str:
        parts = np.array_split(values, min(room, len(values)))
        means = [self._scaled(float(np.mean(part))) for part in parts]
        finite = [m for m in means if math.isfinite(m)]
        low = min(finite, default=0.0) if self.low is None else self._scaled(self.low)
        high = max(finite, default=0.0) if self.high is None else self._scaled(self.high)
        bars = "▁▂▃▄▅▆▇█"
        shares = ((min(max(m, low), high) - low) / ((high - low) or 1.0) for m in means)
        return "".join(
            bars[round(share * 7)] if math.isfinite(m) else " " if m == -math.inf and self.log else "!"
            for m, share in zip(means, shares, strict=True)
        )

    def _scaled(self, value: float) -> float:
        if not self.log or math.isnan(value):
            return value
        return math.log(value) if value > 0 else -math.inf


# --- numbers, characters, colours -----------------------------------------------------------------


def number(value: float) -> str:
    """Four digits, as every view shows them."""
    return f"{value:.4g}"


def shown_character(character: str) -> str:
    """One column for any character of a text: a line end is ↵, what has no column of its own ·."""
    if character in "\n\t":
        return "↵" if character == "\n" else "→"
    return character if character.isprintable() and cell_len(character) == 1 else "·"


def shown_text(text: str) -> str:
    """A column for each character."""
    return "".join(map(shown_character, text))


def to_ascii(text: str) -> str:
    """In characters that any terminal has; a character a character."""
    return "".join(c if c.isascii() else ASCII.get(c, "?") for c in text)


def plain(value: Any) -> Any:
    """Of what JSON has: arrays become lists, what is not finite "nan", "inf" or "-inf"."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _harmless(text: str) -> str:
    """Without what a terminal obeys or what turns text around."""
    return text if text.isprintable() else "".join(c if c.isprintable() else shown_character(c) for c in text)


def wrapped(text: str, room: int) -> list[str]:
    """Lines of at most so many columns, broken between words where that can be done."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(joined) <= room:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        while cell_len(word) > room:
            head = set_cell_size(word, room).rstrip()
            lines[-1], word = head, word[len(head) :]
            lines.append("")
        lines[-1] = word
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (bool, str)):
        return str(value)
    return f"{value:,}" if isinstance(value, (int, np.integer)) else number(float(value))


def _padded(text: str, columns: int, right: bool = False) -> str:
    spaces = " " * max(columns - cell_len(text), 0)
    return spaces + text if right else text + spaces


def _cut(line: Line, width: int) -> Iterator[Span]:
    if sum(cell_len(span.text) for span in line) <= width:
        yield from line
        return
    room = width - 1
    for text, style in line:
        while cell_len(text) > room:
            text = text[:-1]
            if cell_len(text) <= room:
                yield Span(text + "…", style)
                return
        room -= cell_len(text)
        yield Span(text, style)


def _joined(spans: Iterable[Span]) -> Line:
    """Neighbours of one style as one span."""
    joined: Line = []
    for span in spans:
        if joined and joined[-1].style == span.style:
            joined[-1] = Span(joined[-1].text + span.text, span.style)
        else:
            joined.append(span)
    return joined


def _sequential(share: float) -> str:
    """A colour for 0..1, ever lighter: black over purple and orange to pale yellow, as in
    matplotlib's inferno, which is told apart with any kind of colour vision and in grey."""
    return _between(["#000004", "#420a68", "#932667", "#dd513a", "#fca50a", "#fcffa4"], share)


def _diverging(share: float) -> str:
    """A colour for -1..1: blue over dark grey to orange, the lighter the further from 0."""
    return _between(["#8cc8ff", "#2f6fb0", "#303030", "#b35806", "#ffb95c"], (share + 1) / 2)


def _between(colours: Sequence[str], share: float) -> str:
    place = share * (len(colours) - 1)
    left = min(int(place), len(colours) - 2)
    parts = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours[left : left + 2]]
    mixed = [round(a + (b - a) * (place - left)) for a, b in zip(*parts, strict=True)]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _ink(ground: str) -> str:
    """Black or white, whichever is seen better on that ground (ITU-R BT.601)."""
    red, green, blue = (int(ground[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#ffffff"


def _rich_style(style: str) -> str:
    return f"{_ink(style)} on {style}" if style.startswith("#") else STYLES[style]


def _html(span: Span) -> str:
    text = html.escape(span.text)
    if span.style.startswith("#"):
        return f'<span style="background: {span.style}; color: {_ink(span.style)}">{text}</span>'
    css = {"title": "font-weight: bold", "label": "color: #0072b2", "dim": "color: #888"}
    css |= {"good": "color: #0072b2", "bad": "color: #d55e00; font-weight: bold", "mark": "color: #cc79a7"}
    return f'<span style="{css[span.style]}">{text}</span>' if span.style else text
