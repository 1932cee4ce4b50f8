"""How large a training is going to be, before anything of it is made."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..optim.optimizers import OPTIMIZERS
from .config import TrainConfig
from .machine import memory

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
# Numbers kept at a time for each unit of a layer, time step and stream: activations for the backward pass,
# and their gradients, as the kernels of engine/ops/fused/sequence.py allocate them.
KEPT = {"rnn": 6, "lstm": 15, "gru": 13}
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Estimate:
    """parameters: how many numbers are learnt. weights, activations: bytes in training, at their most."""

    parameters: int
    weights: int
    activations: int

    @property
    def bytes(self) -> int:
        """In all."""
        return self.weights + self.activations

    @classmethod
    def of(cls, config: TrainConfig, symbols: int, streams: int) -> Estimate:
        """symbols: in the vocabulary. streams: read in parallel."""
        H, E, V = config.hidden_size, config.embedding_size, symbols
        K = GATES[config.kind]
        parameters = V * E + V + (0 if config.tie_weights else H * V)
        for layer in range(config.layers):
            parameters += K * H * ((E if layer == 0 else H) + H + 2)
        slots = len(OPTIMIZERS[config.optimizer].slots)
        copies = 2 + slots + bool(config.average)  # the weights and their gradients first
        at_once = config.seq_length * -(-streams // min(config.accumulate, streams))
        dropped = bool(config.dropout) * 2
        each = config.layers * (KEPT[config.kind] + dropped) * H + (4 + dropped) * E + 5 * V
        # The largest gradient, and a copy of the largest weight, are made beside the others.
        return cls(parameters, FLOAT * parameters * copies, FLOAT * at_once * each)


def check_memory(config: TrainConfig, symbols: int, streams: int) -> None:
    """UsageError if the training would not fit into the memory that is free."""
    if config.backend != "numpy":
        return
    needed, free = Estimate.of(config, symbols, streams).bytes, memory()[1]
    if free is not None and needed > free:
        raise UsageError(
            f"this training needs about {gigabytes(needed)} of memory, and {gigabytes(free)} are free; "
            "use a smaller --hidden-size, --batch-size or --seq-length, or --accumulate"
        )


def gigabytes(size: int) -> str:
    """1.2 GB, or 34 MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 1):.0f} MB"
