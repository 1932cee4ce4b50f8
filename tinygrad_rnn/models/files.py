"""A trained model in a file: `save` and `load`, and where in a run folder to look for one."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, TinygradError
from ..nn import Module
from ..text.vocabulary import Vocabulary
from . import archive
from .char_lm import CharLM

_NUMBERED = re.compile(r"step-(\d{8,})\.safetensors")


class Loaded(NamedTuple):
    """What a file holds: the model in evaluation mode, its vocabulary, and notes such as the step."""

    model: CharLM
    vocabulary: Vocabulary
    meta: dict[str, Any]


def save(
    path: str | os.PathLike,
    model: CharLM,
    vocabulary: Vocabulary,
    meta: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write the model so that at any moment either the old file or the new one is there whole.

    meta      notes for a person: the step, the loss
    training  what training needs to go on; `arrays` belong to it, their names contain a "/"
    """
    described = {"model": model.config(), "vocabulary": vocabulary.to_json()}
    write(Path(path), model, described, meta, training, arrays)


def write(
    path: Path,
    model: Module,
    described: Mapping[str, Any],
    meta: Mapping[str, Any],
    training: Mapping[str, Any] | None,
    arrays: Mapping[str, np.ndarray] | None,
) -> None:
    """Write a model of any kind; `described`: what it takes to make it again and to use it."""
    training = None if training is None else dict(training)
    header = {**described, "meta": dict(meta), "training": training}
    archive.write(path, header, {**model.state_dict(), **(arrays or {})})


def load(path: str | os.PathLike) -> Loaded:
    """Open a model file, or the best one (else the newest) of a run folder.

    Raises CheckpointError for anything that is not one, saying why.
    """
    return model_of(*read(find_checkpoint(Path(path))))


def read(file: Path) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
    """The file, its header and its arrays. CheckpointError names the newest intact file beside a damaged
    one."""
    with _offering_another(file):
        return file, *archive.read(file)


def read_header(file: Path) -> dict[str, Any]:
    """The header alone of what read() reads."""
    with _offering_another(file):
        return archive.read_header(file)


@contextmanager
def _offering_another(file: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        instead = _newest_intact(file)
        offer = f"; the newest intact one is {instead}" if instead is not None else ""
        raise CheckpointError(f"{error}{offer}") from None


def model_of(file: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Loaded:
    """The model in what read() returned; what belongs to its training is left aside."""
    refuse_other_task(file, header, "vocabulary")
    try:
        vocabulary = Vocabulary.from_json(header["vocabulary"])
        weights = {name: array for name, array in arrays.items() if "/" not in name}
        model = _fitting(header["model"], len(vocabulary), weights)
        meta = dict(header["meta"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, MemoryError, TinygradError) as error:
        raise CheckpointError(f"{file} does not hold a model of this program: {error}") from None
    return Loaded(model.eval(), vocabulary, meta)


def refuse_other_task(file: Path, header: Mapping[str, Any], wanted: str) -> None:
    """CheckpointError for a model that does something else than the one that is asked for.

    wanted: what its header must have, "vocabulary" or "images"
    """
    kinds = {"vocabulary": "a character model", "images": "an image classifier"}
    if wanted in header:
        return
    for name, kind in kinds.items():
        if name in header:
            raise CheckpointError(f"{file} holds {kind}, and it takes {kinds[wanted]} here")
    raise CheckpointError(
        f"{file} does not hold a model of this program: its header has neither {' nor '.join(kinds)}"
    )


def _fitting(config: dict[str, Any], symbols: int, arrays: dict[str, np.ndarray]) -> CharLM:
    """The model of a header, with its weights. Its sizes must be the arrays' before memory is asked for."""
    if set(config) != set(inspect.signature(CharLM).parameters):
        raise CheckpointError(f"the model is described by {sorted(config)}")
    if config["vocab_size"] != symbols:
        raise CheckpointError(f"the vocabulary has {symbols} symbols, the model {config['vocab_size']}")
    layers = sum(name.startswith("rnn.weight_hh_") for name in arrays)
    table, hidden = arrays["embedding.weight"].shape, arrays["rnn.weight_hh_l0"].shape[1]
    sizes = (config["vocab_size"], config["embedding_size"], config["hidden_size"], config["num_layers"])
    if (*table, hidden, layers) != sizes:
        raise CheckpointError(f"its arrays have sizes {(*table, hidden, layers)}, its description {sizes}")
    model = CharLM(**config)
    model.load_state_dict(arrays)
    return model


def find_checkpoint(path: Path, which: str = "best") -> Path:
    """The file itself, or of a run folder the best one ("best") or the newest numbered one ("last")."""
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    best = [p for p in [path / "best.safetensors"] if p.is_file()]
    ordered = [*numbered(path), *best] if which == "best" else [*best, *numbered(path)]
    if not ordered:
        raise CheckpointError(f"{path} is neither a checkpoint nor a folder with one in it")
    return ordered[-1]


def run_of(file: Path) -> Path:
    """The run folder that a checkpoint lies in."""
    return file.parent.parent if file.parent.name in ("checkpoints", "superseded") else file.parent


def numbered(run: Path) -> list[Path]:
    """The numbered checkpoints of a run folder, oldest step first."""
    return sorted((p for p in run.glob("checkpoints/*") if _NUMBERED.fullmatch(p.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step of a numbered checkpoint."""
    match = _NUMBERED.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _newest_intact(damaged: Path) -> Path | None:
    """Another checkpoint of the same run, the newest that is whole."""
    run = run_of(damaged)
    for other in [*reversed(numbered(run)), run / "best.safetensors"]:
        try:
            if other != damaged and other.is_file():
                archive.check(other)
                return other
        except CheckpointError:
            continue
    return None
