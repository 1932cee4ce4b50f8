"""A trained model in a file: `save` and `load`.

The file is safetensors, which holds arrays and text and cannot hold code. What is not an array (the model's
configuration, the vocabulary, how the training stood) is one metadata entry of sorted JSON.
"""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, TinygradError
from ..text.vocabulary import Vocabulary
from .char_lm import CharLM

KEY = "tinygrad_rnn"
FORMAT = 1


class Loaded(NamedTuple):
    """What a file holds: the model in evaluation mode, its vocabulary, and notes such as the step."""

    model: CharLM
    vocabulary: Vocabulary
    meta: dict[str, Any]


def save(path: str | os.PathLike, model: CharLM, vocabulary: Vocabulary, meta: dict[str, Any]) -> None:
    """Write the model so that at any moment either the old file or the new one is there whole."""
    from safetensors.numpy import save as to_bytes

    header = {
        "format": FORMAT,
        "model": model.config(),
        "vocabulary": vocabulary.to_json(),
        "meta": meta,
    }
    arrays = {name: np.ascontiguousarray(a) for name, a in model.state_dict().items()}
    write_atomically(Path(path), to_bytes(arrays, {KEY: json.dumps(header, sort_keys=True)}))


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the new name itself is in the folder, which has to be flushed as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load(path: str | os.PathLike) -> Loaded:
    """Open a model file, or the best one (else the newest) of a run folder.

    Raises CheckpointError for anything that is not one, saying why.
    """
    file = find_checkpoint(Path(path))
    header, arrays = _read(file)
    try:
        if header["format"] != FORMAT:
            raise CheckpointError(f"{file} has format {header['format']}; this version reads format {FORMAT}")
        vocabulary = Vocabulary.from_json(header["vocabulary"])
        model = _fitting(header["model"], len(vocabulary), arrays)
        meta = dict(header["meta"])
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, MemoryError, TinygradError) as error:
        raise CheckpointError(f"{file} does not hold a model of this program: {error}") from None
    return Loaded(model.eval(), vocabulary, meta)


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
    numbered = sorted(path.glob("checkpoints/step-*.safetensors"))
    best = [p for p in [path / "best.safetensors"] if p.is_file()]
    ordered = [*numbered, *best] if which == "best" else [*best, *numbered]
    if not ordered:
        raise CheckpointError(f"{path} is neither a checkpoint nor a folder with one in it")
    return ordered[-1]


def _read(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            if KEY not in metadata:
                raise CheckpointError(f"{file} is a safetensors file, but not one of this program")
            return json.loads(metadata[KEY]), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file} is not a checkpoint, or is damaged: {error}") from None
