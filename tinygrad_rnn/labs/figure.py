"""A finding as a picture for a slide, by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import replacing
from ..errors import UsageError
from .finding import Curve, Finding, Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INSTALL = "pip install 'tinygrad-rnn[plot]'"
SIZE = (12.8, 7.2)  # inches, a slide of 16:9
DOTS = 150  # an inch, of the PNG
KINDS = ("png", "svg")
FEW = 12  # points of a curve, each of which gets a mark
# Told apart with any kind of colour vision (Okabe & Ito, 2008, "Color universal design").
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKS = "osD^vP*"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(finding: Finding) -> Figure:
    """The question above, the panels side by side, the verdict below.

    Raises UsageError without matplotlib.
    """
    if not can_draw():
        raise UsageError(f"drawing takes matplotlib, which is not installed: {INSTALL}")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    caption = wrap(finding.conclusion, 125)
    below = 0.035 * len(caption) + 0.02  # of the height
    layout = ConstrainedLayoutEngine(rect=(0.01, below, 0.98, 0.925 - below), w_pad=0.15)
    figure = Figure(figsize=SIZE, layout=layout)
    figure.suptitle(finding.question, y=0.965, va="center", fontsize=17, fontweight="bold")
    panels = finding.panels
    shared = len({panel.y for panel in panels}) == 1  # so that what is beside one another can be compared
    for axes, panel in zip(
        figure.subplots(1, len(panels), squeeze=False, sharey=shared)[0], panels, strict=True
    ):
        _draw_panel(axes, panel)
        if shared:
            axes.label_outer()
        if panel is panels[0] or _labels(panel) != _labels(panels[0]):
            axes.legend(fontsize=11, framealpha=0.85, handlelength=3)
    figure.text(0.5, 0.02, "\n".join(caption), ha="center", va="bottom", fontsize=12.5)
    return figure


def save(finding: Finding, folder: Path, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Write the picture as NAME.png and NAME.svg; the paths. Raises UsageError without matplotlib."""
    figure, paths = draw(finding), []
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": finding.lab}):  # the same finding gives the same bytes
        for kind in kinds:
            path = folder / f"{finding.lab}.{kind}"
            with replacing(path) as file:
                figure.savefig(
                    file, format=kind, dpi=DOTS, metadata={"Date": None} if kind == "svg" else None
                )
            paths.append(path)
    return paths


def _labels(panel: Panel) -> list[str]:
    return [curve.label for curve in panel.curves]


def _draw_panel(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title, fontsize=13)
    axes.set_xlabel(panel.x, fontsize=12)
    axes.set_ylabel(panel.y, fontsize=12)
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    for curve in panel.curves:
        _draw_curve(axes, curve)
    if panel.lowest is not None:
        highest = max(float(np.nanmax(_finite(curve.runs))) for curve in panel.curves)
        axes.set_ylim(max(axes.get_ylim()[0], panel.lowest), 5 * highest)
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names)
    elif len(panel.curves[0].x) <= FEW and not panel.log_x:
        axes.set_xticks(panel.curves[0].x)
    if panel.limit is not None:
        height, said = panel.limit
        axes.axhline(height, color="0.35", linewidth=1, linestyle=":", label=said)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_curve(axes: Any, curve: Curve) -> None:
    """The seeds as thin lines, their median as a thick one."""
    colour = COLOURS[curve.colour % len(COLOURS)]
    look = {"color": colour, "linestyle": curve.line}
    if len(curve.runs) > 1:
        for run in curve.runs:
            axes.plot(curve.x, _finite(run), linewidth=0.8, alpha=0.4, **look)
    mark = MARKS[curve.colour % len(MARKS)] if len(curve.x) <= FEW else ""
    face = colour if curve.line == "-" else "white"
    axes.plot(
        curve.x,
        _finite(curve.middle),
        linewidth=2.4,
        marker=mark,
        markersize=7,
        markerfacecolor=face,
        label=curve.label,
        **look,
    )


def _finite(values: Any) -> np.ndarray:
    """With a gap for what is no number."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values), values, np.nan)
