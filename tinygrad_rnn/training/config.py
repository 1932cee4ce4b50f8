"""The settings of each kind of training, their defaults, what they mean and what values they may take:
`TrainConfig` of a character model, `ImageConfig` of an image classifier. What both have is in settings.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UsageError
from ..models import IMAGE_MODELS, KINDS
from ..optim.optimizers import OPTIMIZERS
from ..text.vocabulary import ENCODINGS
from .settings import (
    IMAGES,
    LARGEST,
    LENGTH,
    MODEL,
    RUN,
    TEXT,
    TRAINING,
    Settings,
    one_of,
    setting,
)

if TYPE_CHECKING:
    from ..vision import Augmentation

UNITS_WORTH_SHARING = 256  # a layer of them, among several threads
BROKEN = ("refuse", "skip")

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


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Of a character model. Without a limit it makes 10 epochs, or on a small text as many as make about 4000
    steps."""

    task: ClassVar[str] = "characters"
    command: ClassVar[str] = "trnn train"
    source: ClassVar[str] = "corpus"
    default_epochs: ClassVar[int] = 10
    default_steps: ClassVar[int] = 4000
    interval_steps: ClassVar[int] = 100

    corpus: tuple[str, ...] = setting(
        TEXT, "Text files, folders of them, names of known texts, or -.", changeable=True
    )
    encoding: str = setting(
        TEXT, "utf-8: a symbol is a character; bytes: a byte, for any file.", "utf-8", choices=ENCODINGS
    )
    normalize: str | None = setting(
        TEXT,
        "nfc: composed and decomposed characters become the same.",
        None,
        unset="characters as they are",
        choices=["nfc"],
    )
    min_count: int = setting(TEXT, "Characters rarer than this become one unknown symbol.", 1)
    val_fraction: float = setting(TEXT, "Part of the text, at its end, held out for validation.", 0.1)
    val_file: str | None = setting(
        TEXT,
        "A text to validate on instead of the end of the corpus.",
        None,
        unset="the end of the corpus",
        changeable=True,  # where the texts are; what is in them must be the same
    )

    kind: str = setting(MODEL, "gru, lstm or rnn.", "gru", choices=KINDS)
    layers: int = setting(MODEL, "Recurrent layers.", 2)
    hidden_size: int = setting(MODEL, "Units a layer.", 128)
    embedding_size: int = setting(MODEL, "Numbers that stand for a symbol.", 64)
    tie_weights: bool = setting(MODEL, "Score symbols with the embedding table (sizes must be equal).", False)
    dropout: float = setting(
        MODEL, "Part of the activations dropped in training; 0.2 to 0.5 helps large models.", 0.0
    )
    embedding_dropout: float | None = setting(MODEL, "Dropout of the embeddings.", None, unset="as --dropout")
    variational: bool = setting(MODEL, "Drop the same activations at every time step of a window.", False)
    weight_dropout: float = setting(MODEL, "Part of the recurrent weights dropped in training.", 0.0)

    batch_size: int = setting(TRAINING, "Streams of text read in parallel.", 50)
    seq_length: int = setting(TRAINING, "Symbols a window: how far back in time the gradient flows.", 50)
    threads: int | None = setting(
        TRAINING,
        "Threads that sequences are computed with.",
        None,
        unset="1 or all cores, which is tried when a run begins",
        changeable=True,
    )

    epochs: int | None = setting(
        LENGTH,
        "Times through the text.",
        None,
        unset="10, on a small text as many as make about 4000 steps",
        changeable=True,
    )

    sample_every: int | None = setting(
        RUN, "Steps between samples.", None, unset="5 in a run", changeable=True
    )

    def __post_init__(self) -> None:
        sources = (self.corpus,) if isinstance(self.corpus, str) else tuple(self.corpus)
        object.__setattr__(self, "corpus", sources)
        if not self.corpus:
            raise UsageError("a training needs a text: a file, a folder, or a name such as harbour")
        super().__post_init__()
        self._require_counts("min_count", "sample_every")
        for name in ("layers", "hidden_size", "embedding_size", "seq_length"):
            self._require_counts(name)
            self._require(name, getattr(self, name) <= LARGEST, f"at most {LARGEST}")
        self._require_parts("dropout", "embedding_dropout", "weight_dropout", "val_fraction")
        if self.tie_weights and self.embedding_size != self.hidden_size:
            raise UsageError(
                "tied weights need an embedding size equal to the hidden size, not "
                f"{self.embedding_size} and {self.hidden_size}"
            )

    @property
    def holds_out(self) -> bool:
        return self.val_fraction > 0 or self.val_file is not None

    @property
    def model_name(self) -> str:
        return self.kind

    @property
    def is_worth_sharing(self) -> bool:
        return self.hidden_size >= UNITS_WORTH_SHARING

    @property
    def units(self) -> str:
        """What a symbol is called in speeds and losses."""
        return "byte" if self.encoding == "bytes" else "char"


SETTINGS = TrainConfig.settings()


@dataclass(frozen=True, kw_only=True)
class ImageConfig(Settings):
    """Of an image classifier."""

    task: ClassVar[str] = "images"
    command: ClassVar[str] = "trnn train-image"
    source: ClassVar[str] = "images"
    default_epochs: ClassVar[int] = 30
    default_steps: ClassVar[int] = 0
    interval_steps: ClassVar[int] = 1
    # For some thousands of images and tens of epochs; 5e-4 is usual for CIFAR-10 and hundreds.
    default_sgd: ClassVar[Mapping[str, float]] = MappingProxyType({"momentum": 0.9, "weight_decay": 5e-3})

    images: str = setting(IMAGES, "digits, shapes, or a folder.", changeable=True)
    size: int | None = setting(IMAGES, "Make all images this wide and high.", None, unset="as they are")
    broken: str = setting(
        IMAGES, "What a file that is no image does: refuse all, or skip it.", "refuse", choices=BROKEN
    )
    gray: bool = setting(IMAGES, "Make one channel of three.", False)
    val_fraction: float = setting(
        IMAGES, "Part of each class held out for validation, if the images come without such a part.", 0.2
    )
    flip: bool = setting(IMAGES, "Show half of the images mirrored, others in each epoch.", False)
    shift: int = setting(
        IMAGES, "Move each image by up to so many pixels, otherwise in each epoch; its border is repeated.", 0
    )
    crop: int = setting(IMAGES, "The same, but black comes in; 4 is usual for 32x32.", 0)

    model: str = setting(MODEL, f"{', '.join(IMAGE_MODELS)}.", "resnet", choices=IMAGE_MODELS)
    depth: int = setting(MODEL, "Layers with weights: of resnet and plain 6n + 2, such as 20.", 20)
    width: int = setting(MODEL, "Channels of the first stage.", 16)
    batch_norm: bool = setting(MODEL, "Batch normalisation after each convolution.", True)
    preactivation: bool = setting(
        MODEL, "Of resnet and plain: normalise and rectify before convolving.", False
    )

    batch_size: int = setting(TRAINING, "Images a step.", 64)
    optimizer: str = setting(TRAINING, f"{', '.join(OPTIMIZERS)}.", "sgd", choices=OPTIMIZERS)
    lr: float = setting(TRAINING, "Learning rate at its highest.", 0.1)
    seed: int = setting(
        TRAINING,
        "Of initial weights, the order of the images and their changes: same seed, same training.",
        0,
    )
    momentum: float | None = setting(
        TRAINING, "Of sgd: part of a step that goes into the next one.", None, unset="0.9"
    )
    weight_decay: float | None = setting(
        TRAINING, "Pull of the weights towards zero.", None, unset="5e-3 with sgd, else the optimiser's own"
    )

    def __post_init__(self) -> None:
        if not self.images:
            raise UsageError("a training needs images: digits, shapes, or a folder")
        super().__post_init__()
        self._require_counts("size", "depth", "width")
        for name in ("depth", "width"):  # what is larger could not be read back
            self._require(name, getattr(self, name) <= LARGEST, f"at most {LARGEST}")
        self._require_parts("val_fraction")
        _ = self.augmentation  # which has its limits
        IMAGE_MODELS[self.model].check_depth(self.depth)
        if self.preactivation and self.model == "vgg":
            raise UsageError("vgg has no preactivation; resnet and plain have")

    @property
    def holds_out(self) -> bool:
        return True  # what comes with a part to test on has one

    @property
    def model_name(self) -> str:
        return f"{self.model}-{self.depth}"

    @property
    def model_options(self) -> dict[str, Any]:
        """What the model's class is told beside the numbers of channels and classes."""
        options = {"depth": self.depth, "width": self.width, "batch_norm": self.batch_norm}
        return options if self.model == "vgg" else {**options, "preactivation": self.preactivation}

    @property
    def augmentation(self) -> Augmentation:
        """What may happen to the images that are trained on."""
        from ..vision import Augmentation

        return Augmentation(self.shift, self.flip, self.crop)

    @property
    def units(self) -> str:
        """What is seen is called in speeds."""
        return "images"


KINDS_OF_TRAINING: dict[str, type[Settings]] = {c.task: c for c in (TrainConfig, ImageConfig)}


def kind_of(settings: Mapping[str, Any], file: Path) -> type[Settings]:
    """The kind of training that settings out of a file are for. UsageError if there is no such kind."""
    task = settings.get("task", TrainConfig.task)
    if not isinstance(task, str) or task not in KINDS_OF_TRAINING:
        found = repr(task) if isinstance(task, str) else f"a value of type {type(task).__name__}"
        raise UsageError(f"{file}: task must be {one_of(list(KINDS_OF_TRAINING))}, not {found}")
    return KINDS_OF_TRAINING[task]


def preset_settings(name: str) -> dict[str, Any]:
    """The settings of a preset. UsageError lists the known ones."""
    if name not in PRESETS:
        raise UsageError(f"the preset must be {one_of(list(PRESETS))}, not {name!r}")
    return dict(PRESETS[name])
