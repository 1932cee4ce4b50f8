"""What is measured, against whom, and the factor over the best peer that is the goal."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinygrad_rnn.training.bench import Work

from . import images

OURS, PYTORCH, JAX, PROGRAM = "tinygrad_rnn", "PyTorch", "JAX", "NumPy program"
MODULES = {
    OURS: "bench.ours",
    PYTORCH: "bench.pytorch",
    JAX: "bench.jax_scan",
    PROGRAM: "bench.classic",
}
CHANNELS_LAST = "PyTorch, channels last"
IMAGE_MODULES = {
    OURS: "bench.images_ours",
    PYTORCH: "bench.images_pytorch",
    CHANNELS_LAST: "bench.images_pytorch_channels_last",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A race. goal: how many times faster than the fastest peer. share_goal: of the matrix rate.

    length: symbols written at a time, if sampling is what is measured; 0: it is training steps.
    """

    name: str
    work: Work | images.Work
    peers: tuple[str, ...] = (PYTORCH, JAX)
    goal: float
    share_goal: float | None = None
    length: int = 0


def _step(goal: float, share_goal: float | None = None, **work: object) -> Row:
    made = Work(**work)  # type: ignore[arg-type]
    return Row(name=str(made), work=made, goal=goal, share_goal=share_goal)


BATCH_OF_ONE = {"layers": 1, "hidden_size": 100, "batch_size": 1, "seq_length": 25}
RESNET, RESNET_PEERS = images.Work(), (PYTORCH, CHANNELS_LAST)
SMALL = Work(kind="lstm", layers=2, hidden_size=128)
LARGE = Work(kind="lstm", layers=3, hidden_size=512, batch_size=64, seq_length=128)

ROWS = [
    _step(2.0, kind="rnn", **BATCH_OF_ONE),
    _step(2.0, kind="lstm", **BATCH_OF_ONE),
    _step(1.3, kind="rnn", layers=2, hidden_size=128),
    Row(name=str(SMALL), work=SMALL, goal=1.3, share_goal=0.75),
    _step(2.5, kind="gru", layers=2, hidden_size=128),
    _step(1.3, kind="lstm", layers=2, hidden_size=512),
    Row(name=str(LARGE), work=LARGE, goal=1.3, share_goal=0.85),
    Row(
        name="the classic NumPy program",
        work=Work(kind="rnn", optimizer="adagrad", lr=0.1, **BATCH_OF_ONE),  # type: ignore[arg-type]
        peers=(PROGRAM,),
        goal=10.0,
    ),
    Row(name=str(RESNET), work=RESNET, peers=RESNET_PEERS, goal=0.7),
    Row(name="sampling, LSTM 2x128", work=SMALL, peers=(PYTORCH,), goal=20.0, length=1000),
    Row(name="sampling, LSTM 3x512", work=LARGE, peers=(PYTORCH,), goal=3.0, length=200),
]

# With --gpu, and nothing else then.
GPU_ROWS = [
    Row(
        name=f"{work}, on the GPU",
        work=replace(work, backend="cupy"),
        peers=(PYTORCH,),
        goal=goal,
    )
    for work, goal in ((SMALL, 1.5), (LARGE, 1.0))
]

PER_OP, PER_OP_GOAL = "engine, per op", 4e-6  # seconds
START, MEMORY, GROWTH, LIMIT = "start-up", "memory", "growth", "limit"
MEMORY_GOAL = 2.0  # times less than PyTorch

BASE = SMALL
GROWTHS: dict[str, list[Work]] = {
    "hidden_size": [replace(BASE, hidden_size=size) for size in (64, 128, 256, 512, 1024)],
    "batch_size": [replace(BASE, batch_size=size) for size in (1, 4, 16, 64, 256)],
    "seq_length": [replace(BASE, seq_length=length) for length in (8, 32, 128, 512)],
    "layers": [replace(BASE, layers=layers) for layers in (1, 2, 4, 8)],
    "symbols": [replace(BASE, symbols=symbols) for symbols in (32, 128, 512, 2048, 8192)],
}
