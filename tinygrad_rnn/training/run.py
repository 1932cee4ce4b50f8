"""The run folder: what one training leaves behind, readable by a person.

config.toml                            every setting, and the format of these files
history.jsonl                          the losses, one JSON object a line
samples.txt                            what the model wrote as it learnt
best.safetensors                       the checkpoint with the best validation so far
checkpoints/step-00001234.safetensors  the last few, numbered so that they sort
run.lock                               who trains here
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..atomic import flush_folder, naming, sweep, write_atomically
from ..errors import CheckpointError, UsageError
from ..models import archive
from ..models.files import find_checkpoint, numbered, step_of
from ..text.sources import RUN_MARK
from .config import kind_of
from .lock import Lock
from .settings import Settings, read_toml, to_toml


class RunFolder:
    """A folder that holds one run, and the lock on it. `with` gives it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.checkpoints = path / "checkpoints"
        self.config_file = path / "config.toml"
        self.history_file = path / "history.jsonl"
        self.samples_file = path / "samples.txt"
        self._lock: Lock | None = None

    @classmethod
    def create(cls, path: Path, config: Settings) -> RunFolder:
        """Start a run in `path`, made if it does not exist. UsageError if it holds a run already."""
        run = cls(path)
        if str(path) in ("", "."):
            raise UsageError("a run needs a folder of its own; name one")
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; a run needs a folder")
        path.mkdir(parents=True, exist_ok=True)
        run._take()
        try:
            if run.config_file.exists():
                raise UsageError(
                    f"{path} holds a run already; to go on with it: {run.config().command} --resume {path}"
                )
            if any(p.exists() for p in (run.history_file, run.samples_file, run.checkpoints, run.best)):
                raise UsageError(f"{path} holds parts of a run already; choose another folder for a new one")
            run.write_config(config)
            run.checkpoints.mkdir()
            flush_folder(path)
            flush_folder(path.parent)
        except BaseException:
            run.release()
            raise
        return run

    @classmethod
    def create_new(cls, runs: Path, corpus_name: str, config: Settings) -> RunFolder:
        """Start a run in a new folder under `runs`, named by date, corpus and model."""
        corpus = re.sub(r"[^\w.-]+", "-", corpus_name)[:40]
        name = f"{datetime.now():%Y-%m-%d_%H%M%S}_{corpus}_{config.model_name}"
        for number in itertools.count(1):
            path = runs / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:  # another run of the same second
                continue
            return cls.create(path, config)
        raise AssertionError

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Take a run that is there, to go on with it. UsageError if it is none."""
        run = cls(path)
        if not run.config_file.is_file():
            raise UsageError(f"{path} holds no run: it has no config.toml")
        run._take()
        run.checkpoints.mkdir(exist_ok=True)
        return run

    def _take(self) -> None:
        self._lock = Lock(self.path / RUN_MARK)
        sweep(self.path)
        sweep(self.checkpoints)

    def release(self) -> None:
        """Let another trainer have the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    # --- what is in it ------------------------------------------------------------------------------

    def config(self) -> Settings:
        """The settings in config.toml, of the kind of training that it names."""
        settings = read_toml(self.config_file)
        return kind_of(settings, self.config_file).of(settings, str(self.config_file))

    def write_config(self, config: Settings) -> None:
        """Write config.toml."""
        write_atomically(self.config_file, to_toml(config).encode("utf-8", "replace"))

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of that step goes."""
        return self.checkpoints / f"step-{step:08d}.safetensors"

    def latest_checkpoint(self) -> Path | None:
        """The numbered checkpoint of the latest step; the best one if that is from a later step still."""
        newest = next(reversed(numbered(self.path)), None)
        best_step = self._best_step()
        if best_step is not None and (newest is None or best_step > step_of(newest)):
            return self.best
        return newest

    def _best_step(self) -> int | None:
        try:
            step = archive.read_header(self.best)["meta"]["step"]
            return step if type(step) is int else None
        except (CheckpointError, KeyError, TypeError):  # there is none, or it is damaged
            return None

    def drop_old_checkpoints(self, keep: int) -> None:
        """Leave the newest `keep`."""
        for old in numbered(self.path)[:-keep]:
            old.unlink(missing_ok=True)

    def append_history(self, record: Mapping[str, Any]) -> None:
        """Add a line to history.jsonl."""
        with naming(self.history_file), open(self.history_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def append_sample(self, heading: str, text: str) -> None:
        """Add to samples.txt."""
        entry = f"--- {heading} ---\n{text}\n\n".encode("utf-8", "replace")
        with naming(self.samples_file), open(self.samples_file, "ab") as file:
            file.write(entry)

    def samples_size(self) -> int:
        """Bytes in samples.txt."""
        return self.samples_file.stat().st_size if self.samples_file.exists() else 0

    def flush(self) -> None:
        """Have the disk hold history and samples, so that they never lag behind a checkpoint."""
        for path in (self.history_file, self.samples_file):
            if path.exists():
                with naming(path), open(path, "ab") as file:
                    os.fsync(file.fileno())
        flush_folder(self.path)

    def go_back(self, step: int, samples_size: int) -> None:
        """Forget what came after a step, since it is going to happen again.

        History and samples are cut. Later checkpoints, which are there only if an earlier one was asked for
        by name, are moved to superseded/.
        """
        for later in numbered(self.path):
            if step_of(later) > step:
                self._put_aside(later)
        best_step = self._best_step()
        if best_step is not None and best_step > step:
            self._put_aside(self.best)
        if self.history_file.exists():
            lines = self.history_file.read_bytes().splitlines(keepends=True)
            kept = b"".join(line for line in lines if _step_of(line) <= step)
            write_atomically(self.history_file, kept)
        if self.samples_size() > samples_size:
            os.truncate(self.samples_file, samples_size)

    def _put_aside(self, file: Path) -> None:
        folder = self.path / "superseded"
        folder.mkdir(exist_ok=True)
        others = (f"{file.stem}-{number}{file.suffix}" for number in itertools.count(2))
        names = itertools.chain([file.name], others)
        os.replace(file, next(folder / name for name in names if not (folder / name).exists()))


def _step_of(line: bytes) -> float:
    """The step of a line of history.jsonl; infinity for one that a crash has cut short."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if type(step) is int and line.endswith(b"\n") else math.inf


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
