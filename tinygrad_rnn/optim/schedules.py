"""Learning-rate schedules: functions from progress, 0 at the first step and 1 at the last, to a factor."""

from __future__ import annotations

import math


def linear(progress: float, final: float = 0.0) -> float:
    """From 1 straight down to `final`."""
    return 1 + (final - 1) * min(max(progress, 0.0), 1.0)


def cosine(progress: float, final: float = 0.0) -> float:
    """From 1 to `final` along half a cosine: slowly, fast, slowly (Loshchilov & Hutter, 2017)."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
