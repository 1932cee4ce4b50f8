"""The batch cut into shards that are computed side by side, one on each of several cores."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class _Chosen:
    number = 1


class use_shards:  # noqa: N801 - used like a function
    """The compiled kernels cut a batch into so many shards, from here on or for a `with` block. Gradients of
    weights are summed shard by shard, in order: so the last bits of a result depend on the number of shards,
    and on nothing else, such as which core was faster."""

    def __init__(self, number: int) -> None:
        if number < 1:
            raise ValueError(f"the number of shards must be at least 1, not {number}")
        self._before, self._number = _Chosen.number, number
        _Chosen.number = number

    def __enter__(self) -> None:
        _Chosen.number = self._number

    def __exit__(self, *error: object) -> None:
        _Chosen.number = self._before


def shards_in_use() -> int:
    """Into how many shards a batch is cut, if it has streams enough."""
    return _Chosen.number


def in_shards(work: Callable[[int, int], Any], batch: int, least: int) -> list:
    """What work(first, last) returns for every shard of `batch` streams, in order. The shards are about equal
    and have at least so many streams."""
    number = max(1, min(_Chosen.number, batch // least))
    edges = [batch * n // number for n in range(number + 1)]
    others = [_pool(number - 1).submit(work, *edges[n : n + 2]) for n in range(1, number)]
    try:
        found = [work(0, edges[1])]
    finally:  # nobody may go on while others still write
        done = [other.exception() for other in others]
    for error in done:
        if error is not None:
            raise error
    return found + [other.result() for other in others]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "tinygrad_rnn")


if hasattr(os, "register_at_fork"):  # a child process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
