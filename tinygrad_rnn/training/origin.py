"""The text of a training: as its settings name it, or found again by what a checkpoint notes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CheckpointError, DataError, TinygradError, UsageError
from ..models import files
from ..text import Corpus, load_cached, load_corpus
from ..text.sources import STDIN
from .config import TrainConfig


def corpus_of(config: TrainConfig, sha256: str | None = None) -> Corpus:
    """The corpus that the settings name.

    sha256: of the text that a run began with. What came from standard input then is taken from the cache if
    it is still there, and read once more if not.
    """
    options: dict[str, Any] = {
        "encoding": config.encoding,
        "normalize": config.normalize,
        "min_count": config.min_count,
        "val_fraction": config.val_fraction,
    }
    if sha256 is not None and STDIN in (*config.corpus, config.val_file):
        kept = load_cached(sha256, name="stdin", **options)
        if kept is not None:
            return kept
    return load_corpus(config.corpus, val_file=config.val_file, **options)


def noted(checkpoint: Path) -> tuple[TrainConfig, str]:
    """The settings of the training that a checkpoint is of, and the SHA-256 of its text.

    UsageError for a checkpoint that notes no training.
    """
    training = files.read_header(checkpoint).get("training")
    if training is None:
        raise UsageError(f"{checkpoint} holds a model only, and does not say what it was trained on")
    try:
        return TrainConfig.of(training["config"], str(checkpoint)), str(training["corpus_sha256"])
    except (KeyError, TypeError, AttributeError, TinygradError) as error:
        raise CheckpointError(f"{checkpoint} does not hold a training of this program: {error}") from None


def training_corpus(checkpoint: Path) -> Corpus:
    """The corpus that the model of a checkpoint was trained on, with what was held out from it.

    UsageError for a checkpoint that notes no training; DataError for a corpus that is gone or another now.
    """
    config, sha256 = noted(checkpoint)
    try:
        corpus = corpus_of(config, sha256)
    except DataError as error:
        raise DataError(f"the text that {checkpoint} was trained on is needed once more: {error}") from None
    if corpus.sha256 != sha256:
        raise DataError(f"{', '.join(config.corpus)}: no longer the text that {checkpoint} was trained on")
    return corpus


def normal_form(checkpoint: Path) -> str | None:
    """How the text that the model learnt from was normalised, and so any other is to be that it reads."""
    try:
        return noted(checkpoint)[0].normalize
    except UsageError:  # a model only
        return None
