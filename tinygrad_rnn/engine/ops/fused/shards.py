"""The batch cut into shards that are computed side by side, one on each of several cores."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from typing import Any

# That a shard has at least: fewer leave a tile of product.py unfilled. A batch too small for two is never
# cut, on which layers.py relies where a step has fewer rows than a tile.
STREAMS = 6
PART = 12  # streams, about, that language models take at a time: two tiles
CHUNK = 256  # rows, about, of the products that the gradients of weights grow by

_number: ContextVar[int] = ContextVar("number of shards", default=1)


class use_shards:  # noqa: N801 - used like a function
    """The compiled kernels cut a batch into so many shards, from here on or for a `with` block, in the thread
    that says so. Gradients of weights are summed shard by shard, in order: so the last bits of a result
    depend on the number of shards, and on nothing else, such as which core was faster."""

    def __init__(self, number: int) -> None:
        if number < 1:
            raise ValueError(f"the number of shards must be at least 1, not {number}")
        self._before, self._number = _number.get(), number
        _number.set(number)

    def __enter__(self) -> None:
        _number.set(self._number)

    def __exit__(self, *error: object) -> None:
        _number.set(self._before)


def shards_in_use() -> int:
    """Into how many shards a batch is cut, if it has streams enough."""
    return _number.get()


def parts_of(first: int, last: int) -> list[tuple[int, int]]:
    """The streams of a shard cut into parts of about PART, to be taken one after the other."""
    number, size = max((last - first + PART // 2) // PART, 1), last - first
    return [(first + size * n // number, first + size * (n + 1) // number) for n in range(number)]


def in_shards(work: Callable[[int, int], Any], size: int, least: int = STREAMS) -> list:
    """What work(first, last) returns for every shard of a batch of `size`, in order. The shards are about
    equal and not smaller than `least`. It returns when all have ended, whatever happens; `work` must not call
    it in turn."""
    number = max(1, min(_number.get(), size // least))
    if number == 1:
        return [work(0, size)]
    edges = [(size * n // number, size * (n + 1) // number) for n in range(number)]
    others: list[Future] = []
    try:
        for edge in edges[1:]:
            try:
                others.append(_pool(number - 1).submit(work, *edge))
            except RuntimeError:  # no thread can be started any more: the program ends
                break
        found = [work(*edges[0])]
    finally:
        _wait(others)
    return found + [other.result() for other in others] + [work(*edge) for edge in edges[1 + len(others) :]]


def _wait(others: list[Future]) -> None:
    """Until all have ended, Ctrl-C or not: they write to arrays that would be gone."""
    interrupt = None
    while True:
        try:
            wait(others)
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "tinygrad_rnn")


if hasattr(os, "register_at_fork"):  # a child process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
