"""How many threads a training run computes with.

The compiled kernels cut the batch into as many shards as there are threads. NumPy's leave the threads to
the BLAS library, within each product. Neither pays for the smallest networks, and on a busy machine, where
another program pushes a thread aside, several may even lose. So a run that leaves the choice open begins with
a trial, and writes down what came of it: its numbers, which depend on it in their last bits, do not change
when it goes on later.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..engine.blas import blas_library
from ..engine.ops.fused import kernels_for, use_kernels
from ..engine.ops.fused.shards import STREAMS, shards_in_use, use_shards
from ..engine.ops.language_model import GATES
from .config import TrainConfig
from .machine import usable_cores
from .settings import Settings

Kind = TypeVar("Kind", bound=Settings)
UNITS_WORTH_A_TRIAL = 96
ROUNDS, SECONDS = 9, 2.0  # of the trial, at most
LARGEST_TRIAL, LONGEST_TRIAL = 1024, 64  # units and streams, time steps: what is larger gains no less
GAIN = 0.9  # of the time of one thread, that several may take at most


@contextmanager
def limited_threads(config: Settings) -> Iterator[None]:
    """In this block layers are computed with as many threads as the settings say; if they say nothing, with
    one for each core, but with one for sequences of fewer than 256 units a layer."""
    threads = config.threads
    if threads is None:
        threads = _cores(config) if config.is_worth_sharing else 1
    with _threads(config, threads):
        yield


@contextmanager
def _threads(config: Settings, threads: int) -> Iterator[None]:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    compiled = config.is_compiled
    with (
        threadpool_limits(limits=1 if compiled else threads, user_api="blas"),
        use_shards(threads if compiled else 1),
    ):
        yield


def _cores(config: Settings) -> int:
    """Cores that a run may use: a limit that the BLAS library was given, as by OMP_NUM_THREADS, is a wish."""
    unknown = usable_cores() if config.is_compiled else 1
    # In a block of limited_threads() the library has one thread, and there are shards.
    return min(usable_cores(), max(blas_library().get("num_threads", unknown), shards_in_use()))


def with_threads(config: Kind) -> Kind:
    """The settings with a number of threads: if there is none, all cores, or of a text one or all, whichever
    proves faster."""
    if config.threads is not None or config.backend != "numpy":
        return config
    cores = _cores(config)
    if not isinstance(config, TrainConfig):
        return replace(config, threads=cores)
    several = cores > 1 and config.hidden_size >= UNITS_WORTH_A_TRIAL
    if config.is_compiled and config.batch_size // config.accumulate < 2 * STREAMS:
        several = False  # too few for two shards
    return replace(config, threads=cores if several and _faster(config, cores) else 1)


def _faster(config: TrainConfig, threads: int) -> bool:
    """Whether so many threads compute a layer over a window faster than one does, on the whole."""
    H, B = min(config.hidden_size, LARGEST_TRIAL), min(config.batch_size, LARGEST_TRIAL)
    T, rows = min(config.seq_length, LONGEST_TRIAL), GATES[config.kind] * H
    with use_kernels(config.kernels):
        kernels = kernels_for(np, np.dtype(np.float32))
    forward = getattr(kernels, f"{config.kind}_forward")
    states = [np.zeros((B, H), np.float32)] * (2 if config.kind == "lstm" else 1)
    weights = [np.zeros((rows, 1), np.float32), np.zeros((rows, H), np.float32), None, None]
    option: Any = "tanh" if config.kind == "rnn" else True
    inputs = [np.zeros((T, B, 1), np.float32), *states, *weights, option]
    times: dict[int, list[float]] = {1: [], threads: []}
    end = time.perf_counter() + SECONDS
    while len(times[threads]) < ROUNDS and not (times[threads] and time.perf_counter() > end):
        for number, taken in times.items():
            with _threads(config, number):
                forward(np, *inputs)
                began = time.perf_counter()
                forward(np, *inputs)
                taken.append(time.perf_counter() - began)
    # A quarter is as fast or faster: a moment in which others had the cores does not decide.
    quick = {number: sorted(taken)[len(taken) // 4] for number, taken in times.items()}
    return quick[threads] < GAIN * quick[1]
