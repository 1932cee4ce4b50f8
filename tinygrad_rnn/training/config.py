"""`TrainConfig`: every setting of a training run, its default, what it means and what values it may take."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..engine.backend import get_backend
from ..engine.ops.fused import NAMES as KERNELS
from ..engine.ops.fused import kernels_in_use, use_kernels
from ..errors import BackendError, SettingError, UsageError
from ..models import KINDS
from ..optim.optimizers import OPTIMIZERS
from ..optim.schedules import SCHEDULES
from ..text.vocabulary import ENCODINGS

DEFAULT_EPOCHS, DEFAULT_STEPS = 10, 4000
LARGEST = 2**16  # of a size or a number of layers
MOST_MINUTES = 100 * 366 * 24 * 60
ON_NAN = ("stop", "skip", "rewind")
FORMAT = 1  # of the file of settings

PRESETS: dict[str, dict[str, Any]] = {
    # Tiny Shakespeare, last tenth held out: 1.401 nats, 1.398 as one stream. See README, "How good is it?".
    "shakespeare": {
        "kind": "lstm",
        "layers": 2,
        "hidden_size": 576,
        "embedding_size": 128,
        "batch_size": 32,
        "seq_length": 100,
        "optimizer": "adamw",
        "lr": 2e-3,
        "warmup": 400,
        "weight_decay": 0.3,
        "clip": 1.0,
        "dropout": 0.5,
        "embedding_dropout": 0.1,
        "weight_dropout": 0.25,
        "average": 0.999,
        "epochs": 32,
    },
}


def _setting(
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


TEXT, MODEL, TRAINING, LENGTH, RUN = "Text", "Model", "Training", "How long", "The run"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings that make no sense raise a UsageError, one clear line each; a SettingError where it is one.

    Training ends with the first limit reached of `epochs`, `max_steps`, `minutes` and `patience`. Without any
    of the first three it makes 10 epochs, or on a small text as many as make about 4000 steps.
    """

    corpus: tuple[str, ...] = _setting(
        TEXT, "Text files, folders of them, names of known texts, or -.", changeable=True
    )
    encoding: str = _setting(
        TEXT, "utf-8: a symbol is a character; bytes: a byte, for any file.", "utf-8", choices=ENCODINGS
    )
    normalize: str | None = _setting(
        TEXT,
        "nfc: composed and decomposed characters become the same.",
        None,
        unset="characters as they are",
        choices=["nfc"],
    )
    min_count: int = _setting(TEXT, "Characters rarer than this become one unknown symbol.", 1)
    val_fraction: float = _setting(TEXT, "Part of the text, at its end, held out for validation.", 0.1)
    val_file: str | None = _setting(
        TEXT,
        "A text to validate on instead of the end of the corpus.",
        None,
        unset="the end of the corpus",
        changeable=True,  # where the texts are; what is in them must be the same
    )

    kind: str = _setting(MODEL, "gru, lstm or rnn.", "gru", choices=KINDS)
    layers: int = _setting(MODEL, "Recurrent layers.", 2)
    hidden_size: int = _setting(MODEL, "Units a layer.", 128)
    embedding_size: int = _setting(MODEL, "Numbers that stand for a symbol.", 64)
    tie_weights: bool = _setting(
        MODEL, "Score symbols with the embedding table (sizes must be equal).", False
    )
    dropout: float = _setting(
        MODEL, "Part of the activations dropped in training; 0.2 to 0.5 helps large models.", 0.0
    )
    embedding_dropout: float | None = _setting(
        MODEL, "Dropout of the embeddings.", None, unset="as --dropout"
    )
    variational: bool = _setting(MODEL, "Drop the same activations at every time step of a window.", False)
    weight_dropout: float = _setting(MODEL, "Part of the recurrent weights dropped in training.", 0.0)

    batch_size: int = _setting(TRAINING, "Streams of text read in parallel.", 50)
    seq_length: int = _setting(TRAINING, "Symbols a window: how far back in time the gradient flows.", 50)
    accumulate: int = _setting(
        TRAINING, "Compute a batch in this many parts and add their gradients: saves memory.", 1
    )
    optimizer: str = _setting(TRAINING, f"{', '.join(OPTIMIZERS)}.", "adam", choices=OPTIMIZERS)
    lr: float = _setting(TRAINING, "Learning rate at its highest.", 6e-3)
    schedule: str = _setting(
        TRAINING, f"How the learning rate falls: {', '.join(SCHEDULES)}.", "cosine", choices=SCHEDULES
    )
    warmup: int = _setting(TRAINING, "Steps in which the learning rate rises to its highest.", 0)
    weight_decay: float | None = _setting(
        TRAINING, "Pull of the weights towards zero.", None, unset="the optimiser's own"
    )
    clip: float = _setting(TRAINING, "Largest norm of the gradient; inf does not clip.", 5.0)
    average: float = _setting(
        TRAINING, "Decay of the running mean of the weights that is evaluated and kept; 0: no mean.", 0.0
    )
    seed: int = _setting(TRAINING, "Of initial weights and dropout: same seed, same training.", 0)
    backend: str = _setting(TRAINING, "numpy, or cupy for an NVIDIA GPU.", "numpy", changeable=True)
    kernels: str | None = _setting(
        TRAINING,
        "What computes the recurrent layers on the processor: numpy, or numba, which is faster.",
        None,
        choices=KERNELS,
        unset="numba where it is installed",
        changeable=True,
    )
    threads: int | None = _setting(
        TRAINING,
        "Threads that sequences are computed with.",
        None,
        unset="1 or all cores, which is tried when a run begins",
        changeable=True,
    )
    on_nan: str = _setting(
        TRAINING,
        "What a loss or gradient that is not finite does: stop, skip the step, or rewind to the last "
        "checkpoint and halve the learning rate.",
        "stop",
        changeable=True,
        choices=ON_NAN,
    )

    epochs: int | None = _setting(
        LENGTH,
        "Times through the text.",
        None,
        unset="10, on a small text as many as make about 4000 steps",
        changeable=True,
    )
    minutes: float | None = _setting(
        LENGTH,
        "Stop when the run has taken this time, all of it since its first step, resumed or not.",
        None,
        unset="no limit",
        changeable=True,
    )
    max_steps: int | None = _setting(
        LENGTH, "Stop after this many steps.", None, unset="no limit", changeable=True
    )
    patience: int | None = _setting(
        LENGTH,
        "Stop after this many validations without a better one.",
        None,
        unset="no limit",
        changeable=True,
    )

    eval_every: int | None = _setting(
        RUN, "Steps between validations.", None, unset="about an epoch", changeable=True
    )
    sample_every: int | None = _setting(
        RUN, "Steps between samples.", None, unset="5 in a run", changeable=True
    )
    checkpoint_every: int | None = _setting(
        RUN, "Steps between checkpoints.", None, unset="about an epoch, at most 1000", changeable=True
    )
    keep: int = _setting(RUN, "Checkpoints to keep, the best one apart.", 3, changeable=True)

    def __post_init__(self) -> None:
        sources = (self.corpus,) if isinstance(self.corpus, str) else tuple(self.corpus)
        object.__setattr__(self, "corpus", sources)
        if not self.corpus:
            raise UsageError("a training needs a text: a file, a folder, or a name such as harbour")
        for name, setting in SETTINGS.items():
            choices, value = setting.metadata["choices"], getattr(self, name)
            if choices and value is not None:
                self._require(name, value in choices, _one_of(choices))
        try:
            get_backend(self.backend)
            with use_kernels(self.kernels):
                pass
        except BackendError as error:
            raise UsageError(str(error)) from None

        for name in ("layers", "hidden_size", "embedding_size", "batch_size", "seq_length"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
            self._require(name, getattr(self, name) <= LARGEST, f"at most {LARGEST}")
        for name in ("threads", "epochs", "max_steps", "patience"):
            self._require(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        for name in ("eval_every", "sample_every", "checkpoint_every"):
            self._require(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1")
        for name in ("keep", "min_count", "accumulate"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("dropout", "embedding_dropout", "weight_dropout", "val_fraction", "average"):
            value = getattr(self, name)
            self._require(name, value is None or 0 <= value < 1, "at least 0 and below 1")
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
        if self.tie_weights and self.embedding_size != self.hidden_size:
            raise UsageError(
                "tied weights need an embedding size equal to the hidden size, not "
                f"{self.embedding_size} and {self.hidden_size}"
            )
        for name, value in [("plateau", self.schedule == "plateau"), ("patience", self.patience)]:
            if value and self.val_fraction == 0 and self.val_file is None:
                raise SettingError(
                    "val_fraction", f"0 holds nothing out, and {name} goes by the validation loss"
                )

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise SettingError(name, f"must be {wanted}, not {getattr(self, name)!r}")

    @classmethod
    def of(cls, settings: Mapping[str, Any], source: str | None = None) -> TrainConfig:
        """From a mapping. UsageError for an unknown name or a value of a wrong type.

        source: the file that they are from, if any; what is wrong is said of it.
        """
        types = get_type_hints(cls)
        try:
            for name, value in settings.items():
                if name not in types:
                    near = difflib.get_close_matches(name.replace("-", "_"), types, n=1)
                    meant = (
                        f"did you mean {near[0]}?" if near else "trnn train --help tells of those there are"
                    )
                    raise UsageError(f"no setting is called {name!r}; {meant}")
                if isinstance(value, int) and abs(value) >= 2**64:  # nor could the message show it
                    raise SettingError(name, "is far too large")
                if not _is_of(value, types[name]):
                    raise SettingError(name, f"must be {_type_name(types[name])}, not {value!r}")
            given = {name: _converted(value, types[name]) for name, value in settings.items()}
            return cls(**{"corpus": (), **given})
        except UsageError as error:
            if source is None:
                raise
            raise UsageError(f"{source}: {error}") from None

    def changed(self, settings: Mapping[str, Any]) -> TrainConfig:
        """With other settings, for a run that goes on. UsageError for one that must stay as it is."""
        wanted = type(self).of({**self._set(), **settings})
        refuse_changes(self, wanted)
        return wanted

    def _set(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """What is set, as of() takes it and JSON gives it back."""
        return {**self._set(), "corpus": list(self.corpus)}

    @property
    def is_compiled(self) -> bool:
        """Whether compiled kernels will compute its sequences."""
        with use_kernels(self.kernels):
            return self.backend == "numpy" and kernels_in_use() == "numba"

    @property
    def units(self) -> str:
        """What a symbol is called in speeds and losses."""
        return "byte" if self.encoding == "bytes" else "char"


SETTINGS = {f.name: f for f in fields(TrainConfig)}


def refuse_changes(before: TrainConfig, now: TrainConfig, where: str = "") -> None:
    """SettingError names the first setting that differs and must not when a run goes on.

    where: " in FILE", the home of `before`
    """
    for name, setting in SETTINGS.items():
        old, new = getattr(before, name), getattr(now, name)
        if old != new and not setting.metadata["changeable"]:
            raise SettingError(name, f"cannot change when a run goes on: it is {old!r}{where}, not {new!r}")


def to_toml(config: TrainConfig) -> str:
    """A file of all settings with what they mean. Read it back with read_toml()."""
    lines = ["# The settings of this run, defaults included.", f"format = {FORMAT}  # of this run's files"]
    group = None
    for name, setting in SETTINGS.items():
        if setting.metadata["group"] != group:
            group = setting.metadata["group"]
            lines += ["", f"# --- {group} ---"]
        value = getattr(config, name)
        # TOML has no null: what is not set is a comment.
        entry = f"# {name} =" if value is None else f"{name} = {_toml_value(value)}"
        unset = f" (not set: {setting.metadata['unset']})" if value is None else ""
        lines.append(f"{entry}  # {setting.metadata['help']}{unset}")
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


def preset_settings(name: str) -> dict[str, Any]:
    """The settings of a preset. UsageError lists the known ones."""
    if name not in PRESETS:
        raise UsageError(f"the preset must be {_one_of(list(PRESETS))}, not {name!r}")
    return dict(PRESETS[name])


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


def _one_of(names: Sequence[str]) -> str:
    """a, b or c."""
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


@dataclass(frozen=True)
class Plan:
    """How far a run goes, and how often it stops to look at itself; worked out of a TrainConfig.

    steps and seconds: None where they do not limit the run, but never both.
    """

    steps_per_epoch: int
    steps: int | None
    seconds: float | None
    eval_every: int
    checkpoint_every: int
    sample_every: int | None

    @classmethod
    def of(cls, config: TrainConfig, steps_per_epoch: int) -> Plan:
        epochs = config.epochs
        if epochs is None and config.max_steps is None and config.minutes is None:
            epochs = max(DEFAULT_EPOCHS, math.ceil(DEFAULT_STEPS / steps_per_epoch))
        limits = [config.max_steps] if config.max_steps is not None else []
        limits += [epochs * steps_per_epoch] if epochs is not None else []
        # About once an epoch; on a tiny text once in as many epochs as make a hundred steps.
        epochs_between = math.ceil(100 / steps_per_epoch)
        interval = epochs_between * steps_per_epoch
        return cls(
            steps_per_epoch=steps_per_epoch,
            steps=min(limits, default=None),
            seconds=None if config.minutes is None else 60 * config.minutes,
            eval_every=config.eval_every or interval,
            checkpoint_every=config.checkpoint_every or min(interval, 1000),
            sample_every=config.sample_every,
        )

    def progress(self, step: int, elapsed: float) -> float:
        """How much of the run is done, 0 to 1, after `step` steps and `elapsed` seconds."""
        by_steps = step / self.steps if self.steps is not None else 0.0
        by_time = elapsed / self.seconds if self.seconds is not None else 0.0
        return min(max(by_steps, by_time), 1.0)
