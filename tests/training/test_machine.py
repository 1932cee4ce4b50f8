"""What a training run asks of the machine and is given: threads, memory kept, the limits of containers."""

import os
import platform
from importlib.util import find_spec

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tinygrad_rnn.engine.ops.fused.shards import shards_in_use
from tinygrad_rnn.training import TrainConfig, machine, threads
from tinygrad_rnn.training.allocator import keep_freed_memory
from tinygrad_rnn.training.machine import usable_cores
from tinygrad_rnn.training.threads import limited_threads, with_threads

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="needs Numba")


def blas_threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 1), ({"hidden_size": 256}, 2), ({"threads": 2}, 2), ({"hidden_size": 512, "threads": 1}, 1)],
)
def test_small_networks_use_one_thread_unless_told_otherwise(monkeypatch, settings, expected):
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with limited_threads(TrainConfig(corpus="harbour", kernels="numpy", **settings)):
            assert blas_threads() == [expected] * len(before) and shards_in_use() == 1
        assert blas_threads() == before
        if find_spec("numba"):
            with limited_threads(TrainConfig(corpus="harbour", kernels="numba", **settings)):
                assert blas_threads() == [1] * len(before) and shards_in_use() == expected
            assert blas_threads() == before and shards_in_use() == 1


@pytest.mark.parametrize(
    ("settings", "faster", "expected"),
    [
        ({}, True, 2),
        ({}, False, 1),
        ({"hidden_size": 64}, True, 1),
        ({"threads": 3}, True, 3),
        ({"threads": 1}, True, 1),
    ],
)
def test_a_run_begins_with_a_trial_of_threads(monkeypatch, settings, faster, expected):
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads, "blas_library", lambda: {"num_threads": 8})
    monkeypatch.setattr(threads, "_faster", lambda config, several: faster and several == 2)
    assert with_threads(TrainConfig(corpus="harbour", **settings)).threads == expected


def test_a_limit_on_the_library_is_a_limit_on_the_trial(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads, "_faster", lambda config, several: True)
    with threadpool_limits(1, user_api="blas"):
        assert with_threads(TrainConfig(corpus="harbour", hidden_size=512)).threads == 1


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("numba", marks=needs_numba)])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_the_trial_leaves_the_threads_as_they_were(kind, kernels):
    before = blas_threads()
    found = with_threads(TrainConfig(corpus="harbour", kind=kind, kernels=kernels, batch_size=14))
    assert found.threads in (1, usable_cores())
    assert blas_threads() == before and shards_in_use() == 1


def test_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.fixture
def system(monkeypatch):
    """Files of the system, path -> text, instead of the real ones; sixteen cores."""
    files = {}
    monkeypatch.setattr(machine, "_text", lambda path: files.get(str(path), ""))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16), raising=False)
    return files


GROUPS_2 = {"/proc/self/cgroup": "0::/shop/window\n"}
GROUPS_1 = {"/proc/self/cgroup": "5:cpu,cpuacct:/shop\n4:memory:/shop\n1:name=systemd:/a:b\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        (GROUPS_2 | {"/sys/fs/cgroup/shop/window/cpu.max": "max 100000\n"}, 16),
        (GROUPS_2 | {"/sys/fs/cgroup/shop/window/cpu.max": "250000 100000\n"}, 3),
        (GROUPS_2 | {"/sys/fs/cgroup/shop/cpu.max": "50000 100000\n"}, 1),
        (GROUPS_2 | {"/sys/fs/cgroup/shop/cpu.max": "9900000 100000\n"}, 16),
        (GROUPS_2 | {"/sys/fs/cgroup/shop/cpu.max": "what"}, 16),
        (
            GROUPS_1
            | {
                "/sys/fs/cgroup/cpu/shop/cpu.cfs_quota_us": "200000\n",
                "/sys/fs/cgroup/cpu/shop/cpu.cfs_period_us": "100000\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
    ],
)
def test_cores_are_those_that_a_container_may_use(system, files, cores):
    system.update(files)
    assert machine.usable_cores() == cores


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (8_192_000, 4_096_000)),
        (GROUPS_2 | {"/sys/fs/cgroup/shop/window/memory.max": "max\n"}, (8_192_000, 4_096_000)),
        (GROUPS_2 | {"/sys/fs/cgroup/shop/memory.max": "1000000\n"}, (1_000_000, 1_000_000)),
        (GROUPS_1 | {"/sys/fs/cgroup/memory/shop/memory.limit_in_bytes": "5000000"}, (5_000_000, 4_096_000)),
        (
            GROUPS_2
            | {
                "/sys/fs/cgroup/shop/memory.max": "3000000",
                "/sys/fs/cgroup/shop/memory.current": "2500000",
                "/sys/fs/cgroup/shop/memory.stat": "anon 1\nactive_file 300000\ninactive_file 400000\n",
            },
            (3_000_000, 1_200_000),
        ),
        (
            GROUPS_1
            | {
                "/sys/fs/cgroup/memory/shop/memory.limit_in_bytes": "1000000",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "3000000",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes": "2999999",
                "/sys/fs/cgroup/memory/memory.stat": "inactive_file 7\ntotal_inactive_file 50000\n",
            },
            (1_000_000, 50_001),  # others are in the larger group
        ),
        (
            GROUPS_2 | {"/sys/fs/cgroup/memory.max": "9000", "/sys/fs/cgroup/memory.current": "9001"},
            (9000, 0),
        ),
    ],
)
def test_memory_is_that_which_a_container_may_use(system, files, expected):
    system.update(files)
    system["/proc/meminfo"] = (
        "MemTotal:  8000 kB\nMemFree: 1 kB\nMemAvailable:  4000 kB\nHugePages_Total: 0\n"
    )
    assert machine.memory() == expected


def test_a_system_without_proc_is_survived(system):
    total, available = machine.memory()
    assert total is None or total > 0
    assert available is None
