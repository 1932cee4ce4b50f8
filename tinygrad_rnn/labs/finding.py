"""`Finding`: what a lab found out, and what is drawn of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..inspect.view import Block, Chart, Facts, Table, Text, View, number

Report = Callable[[float, str], None]
FEW = 12  # points of a curve, which are drawn wider in a terminal
WIDER = 6  # times


def silent(share: float, doing: str) -> None:
    """A Report that nobody reads."""


@dataclass(frozen=True)
class Curve:
    """x and, for each seed, a y for each x. Curves of one `colour` belong together; what they are drawn with,
    "-", "--" or ":", tells them apart, and one from another on which it lies."""

    label: str
    x: Sequence[float]
    runs: Sequence[Sequence[float]]
    colour: int = 0
    line: str = "-"

    @property
    def middle(self) -> np.ndarray:
        """The median over the seeds."""
        return np.median(np.asarray(self.runs, float), axis=0)


@dataclass(frozen=True)
class Panel:
    """Axes with curves. Labels come with their units.

    limit   a line at that height, and what it is
    lowest  where the picture ends below, if numbers go further than is worth seeing
    names   what the places 0, 1, 2 ... along the curves stand for, if they are no numbers of x
    """

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False
    limit: tuple[float, str] | None = None
    lowest: float | None = None
    names: Sequence[str] = ()

    def blocks(self) -> list[Block]:
        """For a terminal: a line of bars for each curve, all on one scale."""
        middles = {curve.label: curve.middle for curve in self.curves}
        values = np.concatenate([*middles.values()])
        drawn = values[np.isfinite(values) & ((values > 0) | (not self.log_y))]
        low, high = (float(drawn.min()), float(drawn.max())) if drawn.size else (0.0, 1.0)
        lowest = low if self.lowest is None else self.lowest
        cut, low = low < lowest, max(low, lowest)
        ends = self.names or [number(x) for x in self.curves[0].x]
        caption = (
            f"{self.title}. Bars: {self.y}, {number(low)}{' and below' if cut else ''} to {number(high)}"
            f"{', logarithmic' if self.log_y else ''}. Across: {self.x}, {ends[0]} to {ends[-1]}."
        )
        wide: dict[str, Any] = {
            label: np.repeat(middle, WIDER) if len(middle) <= FEW else middle
            for label, middle in middles.items()
        }
        return [Text(""), Text(caption, "dim"), Chart(wide, low, high, self.log_y)]


@dataclass(frozen=True)
class Finding:
    """What a lab's run() returns.

    lab, question  its name, and what it asks
    setup          labels and what they say: data, networks, initialisation, seeds, sizes
    claim          what had to be found for the claim to hold, with the threshold
    holds          whether it was
    verdict        the same in a sentence, with the number that decides it
    tables         labels and tables
    panels         what is drawn
    numbers        all that was measured
    given          what it depends on, where with other choices the answer is another: "with ..."
    """

    lab: str
    question: str
    setup: Sequence[tuple[str, str]]
    claim: str
    holds: bool
    verdict: str
    tables: Sequence[tuple[str, Table]]
    panels: Sequence[Panel]
    numbers: Mapping[str, Any]
    given: str = ""

    @property
    def conclusion(self) -> str:
        """The verdict, and in its first words what it is."""
        given = f" {self.given}" if self.given else ""
        return f"{'Holds' if self.holds else 'Does not hold'}{given} at this size: {self.verdict}"

    def view(self) -> View:
        """All of it, for a terminal, and as data."""
        blocks: list[Block] = [Facts(self.setup)]
        for label, table in self.tables:
            blocks += [Text(""), Text(label, "dim"), table]
        for panel in self.panels:
            blocks += panel.blocks()
        blocks += [Text(""), Facts([("claim", self.claim)]), Text("")]
        blocks += [Text(self.conclusion, "good" if self.holds else "bad")]
        data = {
            "lab": self.lab,
            "claim": self.claim,
            "holds": self.holds,
            "verdict": self.conclusion,
            "setup": dict(self.setup),
            "numbers": self.numbers,
        }
        return View(self.question, blocks, data)


def seeds_named(seeds: Sequence[int]) -> str:
    """For the setup: 0, 1, 2."""
    return ", ".join(map(str, seeds))


def span(values: Sequence[float], form: str = ".3g") -> str:
    """From where to where the numbers go, of which there is one for each seed."""
    low, high = (format(float(end(values)), form) for end in (np.min, np.max))
    return low if low == high else f"{low} to {high}"


def percent(shares: Sequence[float]) -> str:
    """The same of parts of 1, in per cent, without the sign."""
    return span([100 * share for share in shares], ".1f")
