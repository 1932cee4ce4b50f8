"""Settings of a training, whatever is trained: what one is, those that all trainings have, and their file."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self, get_args, get_type_hints

from ..engine.backend import get_backend
from ..engine.ops.fused import NAMES as KERNELS
from ..engine.ops.fused import kernels_in_use, use_kernels
from ..errors import BackendError, SettingError, UsageError
from ..optim.optimizers import OPTIMIZERS
from ..optim.schedules import SCHEDULES

LARGEST = 2**16  # of a size or a number of layers
MOST_MINUTES = 100 * 366 * 24 * 60
ON_NAN = ("stop", "skip", "rewind")
FORMAT = 1  # of the file of settings

TEXT, IMAGES, MODEL, TRAINING, LENGTH, RUN = "Text", "Images", "Model", "Training", "How long", "The run"
GROUPS = (TEXT, IMAGES, MODEL, TRAINING, LENGTH, RUN)


def setting(
    group: str,
    help: str,
    default: Any = MISSING,
    *,
    unset: str = "",
    changeable: bool = False,
    choices: Iterable[str] = (),
) -> Any:
    """A field and what a person is told of it.

    unset: what None means. changeable: on resume. choices: all values that it may have, if they are few.
    """
    metadata = {
        "group": group,
        "help": help,
        "unset": unset,
        "changeable": changeable,
        "choices": tuple(choices),
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What trainings of all kinds have; each kind adds its own.

    Training ends with the first limit reached of `epochs`, `max_steps`, `minutes` and `patience`. Settings
    that make no sense raise a UsageError, one clear line each; a SettingError where it is one.

    task     what is trained
    command  that trains it
    source   the setting that says on what
    default_epochs, default_steps  without a limit so many epochs, or as many as make about so many steps
    interval_steps                 the least between two validations, unless the settings say
    default_sgd                    what sgd is told beside the learning rate, unless the settings say
    """

    task: ClassVar[str]
    command: ClassVar[str]
    source: ClassVar[str]
    default_epochs: ClassVar[int]
    default_steps: ClassVar[int]
    interval_steps: ClassVar[int]
    default_sgd: ClassVar[Mapping[str, float]] = MappingProxyType({"momentum": 0.0})

    batch_size: int = setting(TRAINING, "Examples a step.", 50)
    accumulate: int = setting(
        TRAINING, "Compute a batch in this many parts and add their gradients: saves memory.", 1
    )
    optimizer: str = setting(TRAINING, f"{', '.join(OPTIMIZERS)}.", "adam", choices=OPTIMIZERS)
    lr: float = setting(TRAINING, "Learning rate at its highest.", 6e-3)
    schedule: str = setting(
        TRAINING, f"How the learning rate falls: {', '.join(SCHEDULES)}.", "cosine", choices=SCHEDULES
    )
    warmup: int = setting(TRAINING, "Steps in which the learning rate rises to its highest.", 0)
    momentum: float | None = setting(
        TRAINING, "Of sgd: part of a step that goes into the next one.", None, unset="none"
    )
    weight_decay: float | None = setting(
        TRAINING, "Pull of the weights towards zero.", None, unset="the optimiser's own"
    )
    clip: float = setting(TRAINING, "Largest norm of the gradient; inf does not clip.", 5.0)
    average: float = setting(
        TRAINING, "Decay of the running mean of the weights that is evaluated and kept; 0: no mean.", 0.0
    )
    seed: int = setting(TRAINING, "Of initial weights and dropout: same seed, same training.", 0)
    backend: str = setting(TRAINING, "numpy, or cupy for an NVIDIA GPU.", "numpy", changeable=True)
    kernels: str | None = setting(
        TRAINING,
        "What computes the large layers on the processor: numpy, or numba, which is faster.",
        None,
        choices=KERNELS,
        unset="numba where it is installed",
        changeable=True,
    )
    threads: int | None = setting(
        TRAINING,
        "Threads to compute with.",
        None,
        unset="all cores",
        changeable=True,
    )
    on_nan: str = setting(
        TRAINING,
        "What a loss or gradient that is not finite does: stop, skip the step, or rewind to the last "
        "checkpoint and halve the learning rate.",
        "stop",
        changeable=True,
        choices=ON_NAN,
    )

    epochs: int | None = setting(
        LENGTH, "Times through the data.", None, unset="as many as go well", changeable=True
    )
    minutes: float | None = setting(
        LENGTH,
        "Stop when the run has taken this time, all of it since its first step, resumed or not.",
        None,
        unset="no limit",
        changeable=True,
    )
    max_steps: int | None = setting(
        LENGTH, "Stop after this many steps.", None, unset="no limit", changeable=True
    )
    patience: int | None = setting(
        LENGTH,
        "Stop after this many validations without a better one.",
        None,
        unset="no limit",
        changeable=True,
    )

    eval_every: int | None = setting(
        RUN, "Steps between validations.", None, unset="about an epoch", changeable=True
    )
    checkpoint_every: int | None = setting(
        RUN, "Steps between checkpoints.", None, unset="about an epoch, at most 1000", changeable=True
    )
    keep: int = setting(RUN, "Checkpoints to keep, the best one apart.", 3, changeable=True)

    def __post_init__(self) -> None:
        for name, described in self.settings().items():
            choices, value = described.metadata["choices"], getattr(self, name)
            if choices and value is not None:
                self._require(name, value in choices, one_of(choices))
        try:
            get_backend(self.backend)
            with use_kernels(self.kernels):
                pass
        except BackendError as error:
            raise UsageError(str(error)) from None

        self._require_counts("batch_size", "accumulate", "keep")
        self._require_counts("threads", "epochs", "max_steps", "patience", "eval_every", "checkpoint_every")
        self._require_parts("average", "momentum")
        self._require("batch_size", self.batch_size <= LARGEST, f"at most {LARGEST}")
        self._require("threads", self.threads is None or self.threads <= 1024, "at most 1024")
        self._require("accumulate", self.accumulate <= self.batch_size, "at most the batch size")
        self._require("lr", 0 < self.lr < math.inf, "a positive number")
        self._require("warmup", self.warmup >= 0, "at least 0")
        self._require(
            "weight_decay", self.weight_decay is None or 0 <= self.weight_decay < math.inf, "at least 0"
        )
        self._require("clip", self.clip > 0, "a positive number")
        self._require("minutes", self.minutes is None or self.minutes > 0, "a positive number")
        self._require("minutes", self.minutes is None or self.minutes <= MOST_MINUTES, "at most a century's")
        self._require("seed", 0 <= self.seed < 2**64, "at least 0 and below 2**64")
        if self.weight_decay is not None and self.optimizer not in ("sgd", "adam", "adamw"):
            raise UsageError(f"{self.optimizer} has no weight decay; sgd, adam and adamw have")
        if self.momentum is not None and self.optimizer != "sgd":
            raise UsageError(f"{self.optimizer} has no momentum that could be set; sgd has")
        if self.needs_validation and not self.holds_out:
            raise SettingError("val_fraction", f"0 holds nothing out, and {self.needs_validation}")

    @classmethod
    @functools.cache
    def settings(cls) -> dict[str, Field]:
        """Every setting by its name, in the order in which a person reads them: group by group, and in each
        those of this kind of training first."""
        general = {f.name for f in fields(Settings)}
        in_order = sorted(fields(cls), key=lambda f: (GROUPS.index(f.metadata["group"]), f.name in general))
        return {f.name: f for f in in_order}

    @property
    def holds_out(self) -> bool:
        """Whether there is something to validate on."""
        raise NotImplementedError

    @property
    def needs_validation(self) -> str | None:
        """Which setting makes no sense where nothing is held out, as an error says it."""
        for name, chosen in [("plateau", self.schedule == "plateau"), ("patience", self.patience)]:
            if chosen:
                return f"{name} goes by the validation"
        return None

    @property
    def optimizer_options(self) -> dict[str, float]:
        """What the optimiser is told beside the learning rate."""
        options = dict(self.default_sgd) if self.optimizer == "sgd" else {}
        given = {"weight_decay": self.weight_decay, "momentum": self.momentum}
        return {**options, **{name: value for name, value in given.items() if value is not None}}

    @property
    def model_name(self) -> str:
        """What a run of it is called, beside what it is trained on."""
        raise NotImplementedError

    @property
    def is_worth_sharing(self) -> bool:
        """Whether several threads compute its layers faster than one."""
        return True

    def _require_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            self._require(name, value is None or value >= 1, "at least 1")

    def _require_parts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            self._require(name, value is None or 0 <= value < 1, "at least 0 and below 1")

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise SettingError(name, f"must be {wanted}, not {getattr(self, name)!r}")

    @classmethod
    def of(cls, settings: Mapping[str, Any], source: str | None = None) -> Self:
        """From a mapping. UsageError for an unknown name or a value of a wrong type.

        source: the file that they are from, if any; what is wrong is said of it.
        """
        types = {name: hint for name, hint in get_type_hints(cls).items() if name in cls.settings()}
        settings = dict(settings)
        try:
            if (task := settings.pop("task", cls.task)) != cls.task:
                found = task if isinstance(task, str) else "something else"
                raise UsageError(f"these are settings to train {found}, not {cls.task}")
            for name, value in settings.items():
                if name not in types:
                    near = difflib.get_close_matches(name.replace("-", "_"), types, n=1)
                    meant = (
                        f"did you mean {near[0]}?"
                        if near
                        else f"{cls.command} --help tells of those there are"
                    )
                    raise UsageError(f"no setting is called {name!r}; {meant}")
                if isinstance(value, int) and abs(value) >= 2**64:  # nor could the message show it
                    raise SettingError(name, "is far too large")
                if not _is_of(value, types[name]):
                    raise SettingError(name, f"must be {_type_name(types[name])}, not {value!r}")
            given = {name: _converted(value, types[name]) for name, value in settings.items()}
            return cls(**{cls.source: (), **given})
        except UsageError as error:
            if source is None:
                raise
            raise UsageError(f"{source}: {error}") from None

    def changed(self, settings: Mapping[str, Any]) -> Self:
        """With other settings, for a run that goes on. UsageError for one that must stay as it is."""
        wanted = type(self).of({**self._set(), **settings})
        refuse_changes(self, wanted)
        return wanted

    def _set(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """What is set, as of() takes it and JSON gives it back."""
        listed = {n: list(v) if isinstance(v, tuple) else v for n, v in self._set().items()}
        return {"task": self.task, **listed}

    @property
    def is_compiled(self) -> bool:
        """Whether compiled kernels will compute its layers."""
        with use_kernels(self.kernels):
            return self.backend == "numpy" and kernels_in_use() == "numba"


def refuse_changes(before: Settings, now: Settings, where: str = "") -> None:
    """SettingError names the first setting that differs and must not when a run goes on.

    where: " in FILE", the home of `before`
    """
    for name, described in before.settings().items():
        old, new = getattr(before, name), getattr(now, name)
        if old != new and not described.metadata["changeable"]:
            raise SettingError(name, f"cannot change when a run goes on: it is {old!r}{where}, not {new!r}")


def to_toml(config: Settings) -> str:
    """A file of all settings with what they mean. Read it back with read_toml()."""
    lines = [
        "# The settings of this run, defaults included.",
        f"format = {FORMAT}  # of this run's files",
        f'task = "{config.task}"  # what is trained',
    ]
    group = None
    for name, described in config.settings().items():
        if described.metadata["group"] != group:
            group = described.metadata["group"]
            lines += ["", f"# --- {group} ---"]
        value = getattr(config, name)
        # TOML has no null: what is not set is a comment.
        entry = f"# {name} =" if value is None else f"{name} = {_toml_value(value)}"
        unset = f" (not set: {described.metadata['unset']})" if value is None else ""
        lines.append(f"{entry}  # {described.metadata['help']}{unset}")
    return "\n".join(lines) + "\n"


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a TOML file. UsageError if it is none, or of a format that is not known here; one that
    names no format, as a person would write it, is taken as it is."""
    import tomllib

    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of numbers beyond all bounds
        raise UsageError(f"{path} is not TOML: {error}") from None
    if settings.pop("format", FORMAT) != FORMAT:
        raise UsageError(f"{path} says another format than {FORMAT}, the one that this version reads")
    return settings


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if not isinstance(value, str):
        return repr(value)
    import json

    # A JSON string is a TOML string, but for the one control character that JSON leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_of(value: Any, wanted: Any) -> bool:
    if wanted == tuple[str, ...]:
        values = value if isinstance(value, (list, tuple)) else (value,)
        return all(isinstance(v, str) for v in values)
    options = get_args(wanted) or (wanted,)
    if isinstance(value, bool):
        return bool in options
    return isinstance(value, options) or (isinstance(value, int) and float in options)


def _converted(value: Any, wanted: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_number and float in (get_args(wanted) or (wanted,)) else value


def _type_name(wanted: Any) -> str:
    if wanted == tuple[str, ...]:
        return "a string or a list of strings"
    names = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}
    return " or ".join(names[t] for t in get_args(wanted) or (wanted,) if t in names)


def one_of(names: Sequence[str]) -> str:
    """a, b or c."""
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
