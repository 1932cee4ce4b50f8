"""The text that a model was trained on, found again by what its checkpoint notes of it."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, DataError, TinygradError, UsageError
from ..models import files
from ..text import Corpus, load_cached, load_corpus
from ..text.sources import STDIN
from .config import TrainConfig


def training_corpus(checkpoint: Path) -> Corpus:
    """The corpus that the model of a checkpoint was trained on, with what was held out from it.

    UsageError for a checkpoint that notes no training; DataError for a corpus that is gone or another now.
    """
    _, header, _ = files.read(checkpoint)
    training = header.get("training")
    if training is None:
        raise UsageError(f"{checkpoint} holds a model only, and does not say what it was trained on")
    try:
        config = TrainConfig.of(training["config"], str(checkpoint))
        sha256 = str(training["corpus_sha256"])
    except (KeyError, TypeError, AttributeError, TinygradError) as error:
        raise CheckpointError(f"{checkpoint} does not hold a training of this program: {error}") from None
    try:
        corpus = _load(config, sha256)
    except DataError as error:
        raise DataError(f"the text that {checkpoint} was trained on is needed once more: {error}") from None
    if corpus.sha256 != sha256:
        raise DataError(f"{', '.join(config.corpus)}: no longer the text that {checkpoint} was trained on")
    return corpus


def _load(config: TrainConfig, sha256: str) -> Corpus:
    if STDIN not in (*config.corpus, config.val_file):
        return load_corpus(
            config.corpus,
            encoding=config.encoding,
            normalize=config.normalize,
            min_count=config.min_count,
            val_fraction=config.val_fraction,
            val_file=config.val_file,
        )
    corpus = load_cached(
        sha256,
        name="stdin",
        encoding=config.encoding,
        normalize=config.normalize,
        min_count=config.min_count,
        val_fraction=config.val_fraction,
    )
    if corpus is None:
        raise DataError("it came from standard input, and the cache does not have it any more")
    return corpus
