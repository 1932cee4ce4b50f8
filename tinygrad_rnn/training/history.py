"""What run folders tell of their runs, for tables and comparisons. Nothing is written here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeGuard

from ..errors import CheckpointError, DataError, UsageError
from ..models import find_checkpoint
from ..models.archive import KEY
from .config import ImageConfig, kind_of
from .events import bits
from .settings import read_toml

_COUNTS = ("step", "epoch")
_MEASURES = (
    *("train_loss", "val_loss", "val_accuracy", "grad_norm", "lr", "seconds"),
    *("chars_per_second", "images_per_second"),
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d_\d{6}")  # how a new run's name begins


class Evaluation(NamedTuple):
    """The validation loss after a step, in nats a symbol or image; seconds: since training began. accuracy:
    part of the images that were recognised, None of a text."""

    step: int
    seconds: float
    loss: float
    accuracy: float | None = None

    @property
    def bits(self) -> float | None:
        """The loss in bits a symbol; None of images."""
        return bits(self.loss) if self.accuracy is None else None


class Saved(NamedTuple):
    """What the last checkpoint of a run says: the model's parameters, the step and the seconds of training
    after which it was written, and whether that was the end of the training."""

    parameters: int | None = None
    step: int = 0
    seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run as its folder tells it.

    settings  config.toml; what is not set is not in it
    records   history.jsonl
    saved     the last checkpoint; None without one
    started   local time
    running   a trainer holds the folder
    problem   why settings or records could not be read
    """

    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    saved: Saved | None = None
    started: datetime
    running: bool = False
    problem: str | None = None

    @property
    def steps(self) -> int:
        """The last step that the history or a checkpoint knows of: neither is written at every step."""
        recorded = self.records[-1]["step"] if self.records else 0
        return max(recorded, self.saved.step if self.saved else 0)

    @property
    def seconds(self) -> float:
        """How long it trained, to its last record or checkpoint."""
        recorded = self.records[-1].get("seconds") or 0.0 if self.records else 0.0
        return max(recorded, self.saved.seconds if self.saved else 0.0)

    @property
    def parameters(self) -> int | None:
        """Of the model; None where no checkpoint tells."""
        return self.saved.parameters if self.saved else None

    @property
    def curve(self) -> list[Evaluation]:
        """The validation losses in the order in which they were found."""
        return [
            Evaluation(
                record["step"],
                record.get("seconds") or 0.0,
                record["val_loss"],
                record.get("val_accuracy"),
            )
            for record in self.records
            if record.get("val_loss") is not None
        ]

    @property
    def best(self) -> Evaluation | None:
        """The lowest validation loss, the first of equal ones; of images the highest accuracy comes first."""
        return min(self.curve, key=lambda found: (-(found.accuracy or 0.0), found.loss), default=None)

    @property
    def model(self) -> str:
        """Such as "lstm 2x128" or "resnet-20"."""
        if self.settings.get("task") == ImageConfig.task:
            return "{}-{}".format(*(self.settings.get(name, "?") for name in ("model", "depth")))
        return "{} {}x{}".format(
            *(self.settings.get(name, "?") for name in ("kind", "layers", "hidden_size"))
        )

    @property
    def command(self) -> str:
        """What goes on with it; of a run without a problem."""
        return kind_of(self.settings, self.path / "config.toml").command

    @property
    def corpus(self) -> str:
        """The sources of the text or the images, without their folders."""
        sources = self.settings.get("corpus", self.settings.get("images", "?"))
        names = sources if isinstance(sources, list) else [sources]
        return ", ".join(Path(str(name)).name for name in names)

    @property
    def state(self) -> str:
        """ "damaged", "running", "not begun", "finished", "diverged", or "interrupted" before its end."""
        if self.problem is not None:
            return "damaged"
        if self.running:
            return "running"
        if self.saved and self.saved.finished:
            return "finished"
        if self.records and "diverged" in self.records[-1]:
            return "diverged"
        return "interrupted" if self.records or self.saved else "not begun"

    def as_json(self) -> dict[str, Any]:
        """For machines; losses in nats, of a text in bits a symbol too. Settings are as TOML gives them."""
        best = self.best
        return {
            "path": str(self.path),
            "state": self.state,
            "problem": self.problem,
            "started": self.started.isoformat(timespec="seconds"),
            "parameters": self.parameters,
            "steps": self.steps,
            "seconds": self.seconds,
            "best": None if best is None else {**best._asdict(), "bits": best.bits},
            "settings": dict(self.settings),
        }


def losses_at(curve: list[Evaluation], steps: list[int]) -> list[float | None]:
    """The loss that was known after each of `steps`; None before the first evaluation and after the last."""
    losses: list[float | None] = []
    for step in steps:
        known = [evaluation.loss for evaluation in curve if evaluation.step <= step]
        losses.append(known[-1] if known and step <= curve[-1].step else None)
    return losses


def runs_in(folder: Path) -> list[RunSummary]:
    """The runs in the folders under `folder`, the oldest first; `folder` itself if it is one."""
    if _is_run(folder):
        return [read_run(folder)]
    try:
        found = [read_run(path) for path in folder.iterdir() if _is_run(path)]
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"there is no folder {folder}") from None
    return sorted(found, key=lambda run: (run.started, run.path.name))


def read_run(path: Path) -> RunSummary:
    """What a run folder holds; what is damaged in it is named in `problem`. UsageError if it is none."""
    if not _is_run(path):
        raise UsageError(f"{path} holds no run: it has no config.toml")
    settings: dict[str, Any] = {}
    records: list[dict[str, Any]] = []
    problem = None
    try:
        settings = _read_settings(path / "config.toml")
        records = read_history(path / "history.jsonl")
    except DataError as error:
        problem = str(error)
    return RunSummary(
        path=path,
        settings=settings,
        records=records,
        saved=_last_saved(path),
        started=_started(path),
        running=_is_locked(path / "run.lock"),
        problem=problem,
    )


def read_history(path: Path) -> list[dict[str, Any]]:
    """The records of a history.jsonl, oldest first; none if there is no file.

    A last line that is no record or lacks its end, as a crash leaves one behind, is left out. DataError names
    any other line that is not a record: an object with an integral step and epoch and, where they are given,
    finite measures.
    """
    try:
        *lines, unfinished = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(_record(line, f"line {number} of {path}"))
        except DataError:
            if unfinished or number < len(lines):
                raise
    return records


def _record(line: bytes, where: str) -> dict[str, Any]:
    def refuse(what: str) -> NoReturn:
        raise DataError(f"{where} is not a record of a training: {what}")

    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        refuse("not JSON")
    if not isinstance(record, dict):
        refuse("not an object")
    for name in _COUNTS:
        if not _is_count(record.get(name)):
            refuse(f"{name} is not a count")
    for name in _MEASURES:
        if record.get(name) is not None and not _is_measure(record[name]):
            refuse(f"{name} is not a finite number")
    return record


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**63


def _is_measure(value: Any) -> TypeGuard[float]:
    # Compared, not converted: an integer may be too large for a float.
    return type(value) in (int, float) and -1e300 < value < 1e300


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = read_toml(path)
        kind_of(settings, path)
    except UsageError as error:
        raise DataError(str(error)) from None
    try:
        json.dumps(settings, default=str)  # what cannot be shown, such as a number of 5000 digits, is none
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not TOML: {error}") from None
    return settings


def _is_run(path: Path) -> bool:
    try:
        return (path / "config.toml").is_file()
    except OSError:  # a folder of somebody else's
        return False


def _last_saved(run: Path) -> Saved | None:
    """Out of the header of the last checkpoint; its numbers are not read. Of a damaged one nothing."""
    from safetensors import SafetensorError, safe_open

    try:
        file = find_checkpoint(run, "last")
    except CheckpointError:
        return None
    try:
        with safe_open(file, framework="numpy") as opened:
            # What belongs to the training, such as the optimiser's arrays, has names with a "/".
            names = [name for name in opened.keys() if "/" not in name]  # noqa: SIM118
            arrays = sum(math.prod(opened.get_slice(name).get_shape()) for name in names)
            header = json.loads(opened.metadata()[KEY])
        step, finished, parameters = (header["meta"].get(name) for name in ("step", "finished", "parameters"))
        seconds = ((header.get("training") or {}).get("time") or {}).get("elapsed")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Saved()
    return Saved(
        parameters=parameters if _is_count(parameters) else arrays,
        step=step if _is_count(step) else 0,
        seconds=seconds if _is_measure(seconds) else 0.0,
        finished=finished is True,
    )


def _started(run: Path) -> datetime:
    try:
        if match := _DATE.match(run.absolute().name):
            return datetime.strptime(match[0], "%Y-%m-%d_%H%M%S")
    except ValueError:  # the 31st of February
        pass
    return datetime.fromtimestamp((run / "config.toml").stat().st_mtime)


def _is_locked(lock: Path) -> bool:
    """Whether a living process holds the lock on this file."""
    try:
        import fcntl

        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):  # Windows; no lock, no trainer
        return False
    return False
