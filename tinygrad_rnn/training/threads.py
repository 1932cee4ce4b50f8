"""How many threads the matrix products of a training run use.

The products of a small network are so short that two threads gain nothing even on an idle machine. Those of
a larger one gain, but lose much on a busy machine: a thread whose partner another program has pushed aside
waits for it thousands of times a second. So a run that leaves the choice open begins with a trial, and writes
down what came of it: its numbers, which depend on it in their last bits, do not change when it goes on later.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import numpy as np

from ..engine.blas import blas_library
from .config import TrainConfig
from .estimate import GATES
from .machine import usable_cores

UNITS_WORTH_A_TRIAL, UNITS_WORTH_SHARING = 96, 256
ROUNDS, PRODUCTS = 9, 50
LARGEST_TRIAL = 1024  # units and streams: what is larger gains no less
GAIN = 0.9  # of the time of one thread, that several may take at most


@contextmanager
def limited_threads(config: TrainConfig) -> Iterator[None]:
    """In this block the BLAS library uses as many threads as the settings say; if they say nothing, one, or
    from 256 units a layer on all cores."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threads = config.threads
    if threads is None and config.hidden_size < UNITS_WORTH_SHARING:
        threads = 1
    with threadpool_limits(limits=threads, user_api="blas"):
        yield


def with_threads(config: TrainConfig) -> TrainConfig:
    """The settings with a number of threads: if there is none, one or all cores, whichever proves faster."""
    if config.threads is not None or config.backend != "numpy":
        return config
    cores = min(usable_cores(), blas_library().get("num_threads", 1))  # OMP_NUM_THREADS is a wish, too
    several = cores > 1 and config.hidden_size >= UNITS_WORTH_A_TRIAL
    return replace(config, threads=cores if several and _faster(config, cores) else 1)


def _faster(config: TrainConfig, threads: int) -> bool:
    """Whether so many threads make the product of a time step faster than one does, on the whole."""
    from threadpoolctl import threadpool_limits

    H, B = min(config.hidden_size, LARGEST_TRIAL), min(config.batch_size, LARGEST_TRIAL)
    weight, state = np.ones((GATES[config.kind] * H, H), np.float32), np.ones((H, B), np.float32)
    out = np.empty((len(weight), B), np.float32)
    repeats = max(1, min(PRODUCTS, 10**9 // out.size // H))
    times: dict[int, list[float]] = {1: [], threads: []}
    for _ in range(ROUNDS):
        for number, taken in times.items():
            with threadpool_limits(limits=number, user_api="blas"):
                np.matmul(weight, state, out=out)
                began = time.perf_counter()
                for _ in range(repeats):
                    np.matmul(weight, state, out=out)
                taken.append(time.perf_counter() - began)
    return median(times[threads]) < GAIN * median(times[1])
