"""`trnn info`: what is in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

import typer

from .arguments import unit_of
from .runs import Run, find_checkpoint, find_run
from .terminal import clock, reader_may_leave

if TYPE_CHECKING:
    from tinygrad_rnn.models import Loaded, LoadedClassifier
    from tinygrad_rnn.text import Vocabulary
    from tinygrad_rnn.training.history import RunSummary

EXAMPLES = """Try:

trnn info runs/first

trnn info runs/first/best.safetensors --all

trnn info runs/first --json"""

LISTED = 300  # characters of a vocabulary, and of a note
FINGERPRINT = ("tinygrad_rnn", "numpy", "blas", "blas kernel", "blas threads", "backend", "kernels", "shards")


def info(
    run: Run,
    everything: Annotated[
        bool, typer.Option("--all", help="Also show every note that the file holds, and its arrays.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with everything.")] = False,
) -> None:
    """What is in a checkpoint, of a run in the best one: the model, what it reads, its training."""
    from tinygrad_rnn.errors import CheckpointError
    from tinygrad_rnn.models import files, image_files
    from tinygrad_rnn.training.history import read_run

    from .layout import print_facts, print_json

    path, header, arrays = files.read(find_checkpoint(run))
    of: Any = image_files.classifier_of if "images" in header else files.model_of
    loaded: Loaded | LoadedClassifier = of(path, header, arrays)
    loaded.meta.update(format=header["format"], **(header.get("training") or {}))
    folder = find_run(run)
    summary = read_run(folder) if (folder / "config.toml").is_file() else None
    try:
        with reader_may_leave():
            if as_json:
                print_json(_as_json(path, loaded, summary))
                return
            print_facts(_facts(path, loaded, summary))
            if everything:
                _print_all(loaded)
    except RecursionError:
        raise CheckpointError(f"the notes in {path} are nested too deeply") from None


def _as_json(path: Path, loaded: Loaded | LoadedClassifier, run: RunSummary | None) -> dict[str, Any]:
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "run": None if run is None else run.as_json(),
        "model": loaded.model.config(),
        "parameters": loaded.model.num_parameters(),
        "arrays": _arrays(loaded),
        **_reads(loaded),
        "meta": loaded.meta,
    }


def _reads(loaded: Loaded | LoadedClassifier) -> dict[str, Any]:
    from tinygrad_rnn.models import LoadedClassifier

    if isinstance(loaded, LoadedClassifier):
        return {"images": loaded.images.to_json()}
    return {"vocabulary": {"size": len(loaded.vocabulary), **loaded.vocabulary.to_json()}}


# --- what one wants to know ---------------------------------------------------------------------------


def _facts(
    path: Path, loaded: Loaded | LoadedClassifier, run: RunSummary | None
) -> Iterator[tuple[str, str]]:
    from tinygrad_rnn.models import LoadedClassifier
    from tinygrad_rnn.training.events import bits

    model, meta = loaded.model.config(), loaded.meta
    yield "file", f"{path}, {path.stat().st_size:,} bytes"
    if run is not None:
        yield "run", f"{run.state} at step {run.steps:,}, trained for {clock(run.seconds)}"
        if run.problem is not None:
            yield "problem", run.problem
    if isinstance(loaded, LoadedClassifier):
        yield "model", f"{type(loaded.model).__name__}-{model['depth']}, width {model['width']}"
    else:
        yield "model", "{kind} {num_layers}x{hidden_size}, embedding {embedding_size}".format(**model)
    yield "parameters", f"{loaded.model.num_parameters():,}"
    if isinstance(loaded, LoadedClassifier):
        source = f"{_said(meta['corpus'])}, " if "corpus" in meta else ""
        yield "images", source + " x ".join(map(str, loaded.images.shape))
        yield "classes", _cut(f"{len(loaded.images.classes):,}: {', '.join(loaded.images.classes)}")
    else:
        yield "vocabulary", _vocabulary(loaded.vocabulary)
        if "corpus" in meta:
            yield "corpus", _said(meta["corpus"])
    if "step" in meta:
        end = ", the end of the training" if meta.get("finished") is True else ""
        epoch = f", epoch {_said(meta['epoch'])}" if "epoch" in meta else ""
        step = f"{meta['step']:,}" if isinstance(meta["step"], int) else _said(meta["step"])
        yield "step", f"{step}{epoch}{end}"
    if _is_number(loss := meta.get("val_loss")):
        in_bits = ""
        if not isinstance(loaded, LoadedClassifier):
            in_bits = f" = {bits(loss):.4f} bits/{unit_of(loaded.vocabulary)}"
        yield "validation loss", f"{loss:.4f} nats{in_bits}"
    if _is_number(accuracy := meta.get("val_accuracy")):
        yield "accuracy", f"{100 * accuracy:.2f} %"
    if _is_number(elapsed := _within(meta, "time").get("elapsed")):
        yield "trained for", clock(elapsed)
    fingerprint = _within(meta, "fingerprint")
    if shown := [f"{name} {_said(fingerprint[name])}" for name in FINGERPRINT if name in fingerprint]:
        yield "fingerprint", ", ".join(shown)


def _vocabulary(vocabulary: Vocabulary) -> str:
    symbols = vocabulary.to_json()["symbols"]
    shown = repr(symbols) if isinstance(symbols, str) else " ".join(f"{byte:02x}" for byte in symbols)
    return f"{len(vocabulary):,} symbols, {vocabulary.encoding}: {_cut(shown)}"


def _within(notes: dict[str, Any], name: str) -> dict[str, Any]:
    return notes[name] if isinstance(notes.get(name), dict) else {}


def _is_number(note: Any) -> TypeGuard[float]:
    return isinstance(note, float) and isfinite(note)


# --- everything ---------------------------------------------------------------------------------------


def _print_all(loaded: Loaded | LoadedClassifier) -> None:
    from .layout import print_facts, print_table

    notes = {"model": loaded.model.config(), **loaded.meta}
    notes.pop("finished", None)  # said already, where it says something
    print()
    print_facts(_notes(notes))
    print()
    rows = [
        [array["name"], " x ".join(map(str, array["shape"])), array["dtype"], f"{array['norm']:.4g}"]
        for array in _arrays(loaded)
    ]
    print_table(["array", "shape", "dtype", "norm"], rows, right=["norm"], spare=["dtype"])


def _notes(notes: dict[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """Whatever notes the file holds, and the notes in them."""
    for name, value in notes.items():
        if isinstance(value, dict) and value:
            yield from _notes(value, f"{within}{name}.")
        else:
            yield _cut(within + name), _said(value)


def _arrays(loaded: Loaded | LoadedClassifier) -> list[dict[str, Any]]:
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


def _said(note: Any) -> str:
    return _cut(note if isinstance(note, str) else json.dumps(note))


def _cut(text: str) -> str:
    return text if len(text) <= LISTED else f"{text[:LISTED]}... ({len(text):,} characters)"
