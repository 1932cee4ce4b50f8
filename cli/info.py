"""`trnn info`: what is in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import reader_may_leave

if TYPE_CHECKING:
    from tinygrad_rnn.models import Loaded

LISTED = 300  # characters of a vocabulary, and of a note


def info(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A checkpoint file, or a run folder: the best one in it.", show_default=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What is in a checkpoint: the model, its arrays, its vocabulary, and how the training stood."""
    from tinygrad_rnn import models
    from tinygrad_rnn.errors import CheckpointError
    from tinygrad_rnn.models import files

    from .layout import print_json

    path, header, arrays = files.read(models.find_checkpoint(checkpoint))
    loaded = files.model_of(path, header, arrays)
    loaded.meta.update(format=header["format"], **(header.get("training") or {}))
    try:
        with reader_may_leave():
            if as_json:
                print_json(_as_json(path, loaded))
            else:
                _print(path, loaded)
    except RecursionError:
        raise CheckpointError(f"the notes in {path} are nested too deeply") from None


def _as_json(path: Path, loaded: Loaded) -> dict[str, Any]:
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "model": loaded.model.config(),
        "parameters": loaded.model.num_parameters(),
        "arrays": _arrays(loaded),
        "vocabulary": {"size": len(loaded.vocabulary), **loaded.vocabulary.to_json()},
        "meta": loaded.meta,
    }


def _arrays(loaded: Loaded) -> list[dict[str, Any]]:
    """Name, shape, dtype and Euclidean norm of each array of the model."""
    import numpy as np

    return [
        {
            "name": name,
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            # In double precision: the squares of large finite weights overflow in single.
            "norm": float(np.linalg.norm(array.astype(np.float64))),
        }
        for name, array in loaded.model.state_dict().items()
    ]


def _print(path: Path, loaded: Loaded) -> None:
    from .layout import print_facts, print_table

    model, vocabulary = loaded.model.config(), loaded.vocabulary
    symbols = vocabulary.to_json()["symbols"]
    shown = repr(symbols) if isinstance(symbols, str) else " ".join(f"{byte:02x}" for byte in symbols)
    print_facts(
        [
            ("file", f"{path}, {path.stat().st_size:,} bytes"),
            ("model", f"{model['kind']} {model['num_layers']}x{model['hidden_size']}"),
            *((name, str(value)) for name, value in model.items()),
            ("parameters", f"{loaded.model.num_parameters():,}"),
            ("vocabulary", f"{len(vocabulary):,} symbols, {vocabulary.encoding}: {_cut(shown)}"),
            *_notes(loaded.meta),
        ]
    )
    print()
    rows = [
        [array["name"], " x ".join(map(str, array["shape"])), array["dtype"], f"{array['norm']:.4g}"]
        for array in _arrays(loaded)
    ]
    print_table(["array", "shape", "dtype", "norm"], rows, right=["norm"], spare=["dtype"])


def _notes(meta: dict[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Whatever notes the file holds, and the notes in them."""
    for name, value in meta.items():
        if isinstance(value, dict) and value:
            yield from _notes(value, f"{within}{name}.")
        else:
            yield _cut(within + name), _cut(value if isinstance(value, str) else json.dumps(value))


def _cut(text: str) -> str:
    return text if len(text) <= LISTED else f"{text[:LISTED]}... ({len(text):,} characters)"
