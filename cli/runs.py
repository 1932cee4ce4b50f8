"""Where runs live unless the user says otherwise."""

from pathlib import Path

RUNS = Path("runs")
