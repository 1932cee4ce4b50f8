"""What a training run asks of the machine: threads of the matrix products, and memory kept."""

import platform

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tinygrad_rnn.training import TrainConfig
from tinygrad_rnn.training.allocator import keep_freed_memory
from tinygrad_rnn.training.threads import limited_threads


def blas_threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 1), ({"hidden_size": 256}, 2), ({"threads": 2}, 2), ({"hidden_size": 512, "threads": 1}, 1)],
)
def test_small_networks_use_one_thread_unless_told_otherwise(settings, expected):
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with limited_threads(TrainConfig(corpus="harbour", **settings)):
            assert blas_threads() == [expected] * len(before)
        assert blas_threads() == before


def test_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
