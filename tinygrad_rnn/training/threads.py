"""How many threads the matrix products of a training run use.

The products of a small network are so short that two threads gain little even on an idle machine, and lose
much on a busy one: a thread whose partner another program has pushed aside waits for it thousands of times a
second. From 256 units a layer on, the products are long enough for all cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .config import TrainConfig

UNITS_WORTH_SHARING = 256


@contextmanager
def limited_threads(config: TrainConfig) -> Iterator[None]:
    """In this block the BLAS library uses as many threads as the settings say."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threads = config.threads
    if threads is None and config.hidden_size < UNITS_WORTH_SHARING:
        threads = 1
    with threadpool_limits(limits=threads, user_api="blas"):
        yield
