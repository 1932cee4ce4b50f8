"""The run folder: what one training leaves behind, readable by a person.

config.toml                            every setting
history.jsonl                          the losses, one JSON object a line
samples.txt                            what the model wrote as it learnt
best.safetensors                       the model with the lowest validation loss so far
checkpoints/step-00001234.safetensors  the last three, numbered so that they sort
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UsageError
from ..models.files import find_checkpoint, write_atomically
from .config import TrainConfig

KEPT = 3


class RunFolder:
    """A folder that holds, or will hold, one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.checkpoints = path / "checkpoints"
        self._samples = path / "samples.txt"

    @classmethod
    def create(cls, path: Path, config: TrainConfig) -> RunFolder:
        """Start a run in `path`, made if it does not exist. UsageError if it holds a run already."""
        run = cls(path)
        if str(path) in ("", "."):
            raise UsageError("a run needs a folder of its own; name one")
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; a run needs a folder")
        if any(p.exists() for p in (run._config, run._history, run._samples, run.checkpoints, run.best)):
            raise UsageError(f"{path} holds a run already; choose another folder for a new one")
        run.checkpoints.mkdir(parents=True)
        write_atomically(run._config, _toml(config).encode("utf-8", "replace"))
        return run

    @classmethod
    def create_new(cls, runs: Path, corpus_name: str, config: TrainConfig) -> RunFolder:
        """Start a run in a new folder under `runs`, named by date, corpus and model."""
        corpus = re.sub(r"[^\w.-]+", "-", corpus_name)[:40]
        name = f"{datetime.now():%Y-%m-%d_%H%M%S}_{corpus}_{config.kind}"
        for number in itertools.count(1):
            path = runs / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:  # another run of the same second
                continue
            return cls.create(path, config)
        raise AssertionError

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of that step goes."""
        return self.checkpoints / f"step-{step:08d}.safetensors"

    def drop_old_checkpoints(self) -> None:
        """Keep the newest three."""
        for old in sorted(self.checkpoints.glob("step-*.safetensors"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def append_history(self, record: Mapping[str, Any]) -> None:
        """Add a line to history.jsonl."""
        with open(self._history, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def append_sample(self, heading: str, text: str) -> None:
        """Add to samples.txt."""
        with open(self._samples, "a", encoding="utf-8", errors="replace", newline="") as file:
            file.write(f"--- {heading} ---\n{text}\n\n")

    @property
    def _config(self) -> Path:
        return self.path / "config.toml"

    @property
    def _history(self) -> Path:
        return self.path / "history.jsonl"


def newest(runs: Path) -> Path:
    """The run under `runs` whose last checkpoint was written last. CheckpointError if there is none."""
    found = []
    for folder in runs.glob("*/"):
        try:
            found.append((find_checkpoint(folder, "last").stat().st_mtime_ns, folder))
        except CheckpointError:  # a run that died before its first checkpoint
            continue
    if not found:
        raise CheckpointError(f"no run with a checkpoint in {runs}/; train one first: trnn train harbour")
    return max(found)[1]


def _toml(config: TrainConfig) -> str:
    lines = ["# The settings of this run, defaults included."]
    for field in fields(config):
        value = getattr(config, field.name)
        # TOML has no null: a limit that is not set is a comment.
        lines.append(f"# {field.name} = none" if value is None else f"{field.name} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: str | int | float) -> str:
    if not isinstance(value, str):
        return repr(value)
    # A JSON string is a TOML string, but for the one control character that JSON leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
