"""What the tests here ask of a run folder: that every file in it is whole, and what it has come to."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

from tinygrad_rnn.models import archive
from tinygrad_rnn.models.files import numbered

TEXT = "the cat sat on the mat, and the dog sat on the log.\n" * 12
TINY = "--embedding-size 5 --hidden-size 8 --layers 1 --batch-size 4 --seq-length 10".split()
IMAGES = "--depth 8 --width 2 --batch-size 8 --lr 0.05 --average 0.9".split()  # tiny as well
TIMES = ("seconds", "chars_per_second", "images_per_second")


def intact(run: Path, figures: Counter[str]) -> int:
    """Check everything there that is called a checkpoint; how many files that were."""
    files = [*run.rglob("*.safetensors")]
    for file in files:
        figures["files looked at"] += 1
        figures["files lost"] += 1  # until it is found to be whole
        archive.check(file)
        figures["files lost"] -= 1
    return len(files)


def litter(run: Path) -> list[Path]:
    """Temporary files that nobody has removed."""
    return [path for path in run.rglob("*") if path.name.endswith(".tmp")]


def outcome(run: Path) -> dict[str, object]:
    """All that the training in a folder has come to, without what tells the time."""
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    samples = run / "samples.txt"  # which there are of texts
    return {
        "last": _timeless(numbered(run)[-1]),
        "best": _timeless(run / "best.safetensors"),
        "history": [{k: v for k, v in record.items() if k not in TIMES} for record in history],
        "samples": samples.read_bytes() if samples.exists() else None,
    }


def _timeless(checkpoint: Path) -> tuple[str, str]:
    header, arrays = archive.read(checkpoint)
    del header["digest"], header["training"]["time"]
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    return json.dumps(header, sort_keys=True), digest.hexdigest()
