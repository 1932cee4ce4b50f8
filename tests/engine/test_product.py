"""The packed products: equal to a plain product for any sizes and strides, and the same for a row whatever
the others are; the shards of a batch, in order."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

numba = pytest.importorskip("numba")

from tinygrad_rnn.engine.ops.fused import product, shards  # noqa: E402

LANES = product.BYTES // 4
SIZES = st.integers(0, 3 * product.ROWS + 1) | st.integers(0, 5 * LANES * product.VECTORS // 2)


@numba.njit
def multiplied(multiply, a, w, c):
    product.add_product(multiply, a, w, c)


def strided(rng, rows, columns, dtype, order):
    """A matrix in memory row by row, column by column, or as a part of a larger one."""
    if order == "part":
        return rng.standard_normal((rows + 1, columns + 3)).astype(dtype)[1:, 2 : columns + 2]
    return np.asarray(rng.standard_normal((rows, columns)), dtype, order)


@given(
    M=SIZES,
    K=SIZES,
    N=SIZES,
    dtype=st.sampled_from(["float32", "float64"]),
    order=st.sampled_from(["C", "F", "part"]),
    transposed=st.booleans(),
)
@example(M=1, K=1, N=1, dtype="float32", order="C", transposed=False)
@example(M=product.ROWS, K=3, N=LANES * product.VECTORS, dtype="float32", order="C", transposed=True)
@example(M=product.ROWS + 1, K=3, N=LANES * product.VECTORS + 1, dtype="float64", order="F", transposed=False)
def test_a_packed_product_is_a_product(M, K, N, dtype, order, transposed):
    rng = np.random.default_rng(M * K + N)
    a, weight = strided(rng, M, K, dtype, order), rng.standard_normal((K, N)).astype(dtype)
    around = rng.standard_normal((M + 1, N + 2)).astype(dtype)
    before, c = around.copy(), around[:M, 1 : N + 1]
    scale = rng.standard_normal(N).astype(dtype) if transposed else np.ones(N, dtype)
    w = product.packed_transposed(weight.T, scale) if transposed else product.packed(weight)
    assert w.size == product.packed_size(K, N, w.itemsize)
    wanted = c + a.astype("float64") @ (weight * scale).astype("float64")
    multiplied(product.multiplier(w.dtype), a, w, c)
    size = 1 + np.abs(a) @ np.abs(weight * scale) + np.abs(before[:M, 1 : N + 1])
    assert (np.abs(c - wanted) <= 2 * (K + 2) * np.finfo(dtype).eps * size).all()
    before[:M, 1 : N + 1] = c
    assert (around == before).all()  # nothing beside c was touched


@given(M=st.integers(1, 20), K=st.integers(1, 70), N=st.integers(1, 70))
def test_a_row_does_not_depend_on_the_others(M, K, N):
    rng = np.random.default_rng(M)
    a, w = rng.standard_normal((M, K)), product.packed(rng.standard_normal((K, N)))
    together = np.zeros((M, N))
    multiplied(product.multiplier(w.dtype), a, w, together)
    for row in range(M):
        alone = np.zeros((1, N))
        multiplied(product.multiplier(w.dtype), a[row : row + 1], w, alone)
        assert (alone[0] == together[row]).all()


@given(K=st.integers(1, 9), N=st.integers(1, 70), cut=st.integers(0, 9))
def test_a_matrix_may_be_packed_in_parts(K, N, cut):
    weight = np.random.default_rng(K).standard_normal((K, N))
    whole, parts = product.packed(weight), np.full(product.packed_size(K, N, 8), np.nan)
    product.pack(weight[: min(cut, K)], parts, 0, K)
    product.pack(weight[min(cut, K) :], parts, min(cut, K), K)
    assert (whole == parts).all()


def test_nan_and_infinity_go_through():
    a = np.zeros((3, 2))
    a[0, 0], a[1, 1] = np.nan, np.inf
    c, w = np.zeros((3, 5)), product.packed(np.ones((2, 5)))
    multiplied(product.multiplier(w.dtype), a, w, c)
    assert np.isnan(c[0]).all() and (c[1] == np.inf).all() and (c[2] == 0).all()


@given(number=st.integers(1, 5), batch=st.integers(1, 20), least=st.integers(1, 7))
def test_shards_are_a_partition_in_order(number, batch, least):
    with shards.use_shards(number):
        found = shards.in_shards(lambda first, last: (first, last), batch, least)
    assert [first for first, _ in found] + [batch] == [0] + [last for _, last in found]
    sizes = [last - first for first, last in found]
    assert len(found) == max(1, min(number, batch // least))
    assert max(sizes) - min(sizes) <= 1 and (len(found) == 1 or min(sizes) >= least)


def test_shards_run_side_by_side_and_a_mistake_in_one_is_told():
    meet = threading.Barrier(2)

    def work(first, last):
        meet.wait(timeout=60)
        if first:
            raise ZeroDivisionError("in the second")

    with shards.use_shards(2), pytest.raises(ZeroDivisionError, match="in the second"):
        shards.in_shards(work, 4, 1)
    assert shards.shards_in_use() == 1
    with pytest.raises(ValueError, match="at least 1"):
        shards.use_shards(0)


def test_ctrl_c_waits_for_every_shard():
    """They write to arrays that are about to be freed."""
    ended = []

    def work(first, last):
        if first:
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)  # while the first shard's thread waits
            time.sleep(0.3)
            ended.append(first)

    with shards.use_shards(2), pytest.raises(KeyboardInterrupt):
        shards.in_shards(work, 4, 1)
    assert ended == [2]


def test_shards_where_no_thread_can_be_started(monkeypatch):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    monkeypatch.setattr(shards, "_pool", lambda threads: pool)
    with shards.use_shards(3):
        found = shards.in_shards(lambda first, last: (first, last), 6, 1)
    assert found == [(0, 2), (2, 4), (4, 6)]


def test_the_number_of_shards_is_each_threads_own():
    found = []
    with shards.use_shards(2):
        thread = threading.Thread(target=lambda: found.append(shards.shards_in_use()))
        thread.start()
        thread.join()
    assert found == [1]


def test_narrower_registers_from_the_same_cache(tmp_path):
    """What is compiled for another processor is not taken for one's own."""
    code = """
import sys, numpy as np, tinygrad_rnn as tg
from tinygrad_rnn.engine.ops.fused import use_kernels
rng = np.random.default_rng(0)
inputs = [tg.tensor(rng.standard_normal(s), requires_grad=True) for s in [(3, 7, 5), (7, 9), (9, 5), (9, 9)]]
found = []
for name in ("numpy", "numba"):
    with use_kernels(name):
        outputs, _ = tg.rnn(*inputs, None, None)
        found.append([outputs.numpy(), *(g.numpy() for g in tg.grad(outputs.sum(), inputs))])
assert all(np.allclose(*pair, rtol=1e-12, atol=1e-13) for pair in zip(*found))
from tinygrad_rnn.engine.ops.fused import product
print(product.BYTES)
"""
    widths = []
    for processor in ("generic", ""):
        given = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
        given = {name: value for name, value in given.items() if processor or name == "NUMBA_CACHE_DIR"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | given, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        widths.append(int(done.stdout))
    assert widths == [16, product.BYTES]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_has_threads_of_its_own():
    with shards.use_shards(2):
        shards.in_shards(lambda first, last: None, 4, 1)
        child = os.fork()
        if child == 0:
            os._exit(len(shards.in_shards(lambda first, last: first, 4, 1)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
