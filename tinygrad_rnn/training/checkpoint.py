"""What a checkpoint holds beside the model, so that a training goes on as if nothing had happened.

The arrays are the optimiser's, the hidden state and, where a mean of the weights is kept, the weights
themselves (the model in the file is the mean then). The rest is JSON: how the training stands, its settings,
the random generators, the digest of the data and the fingerprint of what computed the numbers. Everything
that tells the time is under one key, "time", so that two files can be compared without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from ..engine.tensor import tensor
from ..errors import CheckpointError
from ..optim.per_parameter import PerParameter


@dataclass
class Mean:
    """The mean training loss over some steps. symbols: how many were guessed; of images, a label each."""

    symbols: int = 0
    nats: float = 0.0

    def add(self, loss: float, symbols: int) -> None:
        """Count `symbols` with a mean loss of `loss` nats."""
        self.symbols += symbols
        self.nats += loss * symbols

    @property
    def loss(self) -> float | None:
        """In nats a symbol; None where there is none."""
        return self.nats / self.symbols if self.symbols else None


@dataclass
class Standing:
    """How a training stands after some step: all its counters.

    best_loss, best_step  of the best validation so far; best_measures: what else it found
    evaluations_waiting   validations since then, for patience
    samples               written so far; samples_size: bytes in samples.txt
    skipped               steps in a row, up to this one; rewound: how often in all
    since_record          the loss since the last line of the history; since_evaluation: since the last one
    unfinished            grad_norm and lr of the last step, if the stop came before all that follows a step
    """

    step: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    best_measures: dict[str, float] = field(default_factory=dict)
    evaluations_waiting: int = 0
    samples: int = 0
    samples_size: int = 0
    skipped: int = 0
    rewound: int = 0
    since_record: Mean = field(default_factory=Mean)
    since_evaluation: Mean = field(default_factory=Mean)
    unfinished: dict[str, float | None] | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Standing:
        """The inverse. TypeError or KeyError for what to_json() has not made."""
        record = {"best_measures": {}, **record}  # which the first checkpoints lack
        if set(record) != {f.name for f in fields(cls)}:
            raise TypeError(f"the training stands at {sorted(record)}")
        means = {name: Mean(**record[name]) for name in ("since_record", "since_evaluation")}
        standing = cls(**{**record, **means})
        for name, value in asdict(standing).items():
            if name in means:
                holds = _is_count(value["symbols"]) and _is_number(value["nats"])
            elif name in ("best_loss", "best_step", "unfinished") and value is None:
                holds = True
            elif name == "best_measures":
                holds = type(value) is dict and all(map(_is_number, value.values()))
            elif name == "unfinished":
                holds = set(value) == {"grad_norm", "lr"} and _is_number(value["lr"])
                holds = holds and (value["grad_norm"] is None or _is_number(value["grad_norm"]))
            else:
                holds = _is_number(value) if name == "best_loss" else _is_count(value)
            if not holds:
                raise TypeError(f"{name} is {value!r}")
        return standing


def seconds(value: Any) -> float:
    """A duration out of a file. TypeError for anything else."""
    if not (_is_number(value) and value >= 0):
        raise TypeError(f"{value!r} is no duration")
    return float(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e300 < value < 1e300


def remembered(kind: str, of: PerParameter, names: list[str]) -> dict[str, np.ndarray]:
    """The arrays of an optimiser or an average as kind/slot/parameter."""
    return {
        f"{kind}/{slot}/{name}": array
        for slot, arrays in of.state_dict()["slots"].items()
        for name, array in zip(names, arrays, strict=True)
    }


def restore_remembered(
    kind: str, of: PerParameter, names: list[str], steps: int, arrays: Mapping[str, np.ndarray]
) -> None:
    """The inverse; `steps` it has made."""
    slots = {slot: [arrays[f"{kind}/{slot}/{name}"] for name in names] for slot in of.slots}
    of.load_state_dict({"steps": steps, "slots": slots})


def state_arrays(state: Any) -> dict[str, np.ndarray]:
    """The hidden state: of an LSTM two tensors, else one; none before the first step."""
    parts = () if state is None else state if isinstance(state, tuple) else (state,)
    return {f"state/{number}": part.numpy() for number, part in enumerate(parts)}


def state_from(arrays: Mapping[str, np.ndarray], parts: int, shape: tuple[int, ...], backend: Any) -> Any:
    """The inverse; there must be as many `parts`, or none, and each must have `shape`."""
    found = {name: array for name, array in arrays.items() if name.startswith("state/")}
    if not found:
        return None
    if set(found) != {f"state/{number}" for number in range(parts)}:
        raise CheckpointError(f"the hidden state has parts {sorted(found)} instead of {parts}")
    for array in found.values():
        if array.shape != shape or array.dtype != np.float32:
            raise CheckpointError(
                f"the hidden state is {array.dtype} of shape {array.shape} instead of float32 of {shape}"
            )
    tensors = [tensor(found[f"state/{number}"], backend=backend) for number in range(parts)]
    return tensors[0] if parts == 1 else tuple(tensors)
