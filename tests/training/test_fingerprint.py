"""The fingerprint: the same here and now, and any difference to one from elsewhere is named."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from tinygrad_rnn.engine.ops.fused.shards import use_shards
from tinygrad_rnn.errors import BackendError
from tinygrad_rnn.training.fingerprint import blas_library, differences, fingerprint

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
TEXTS = st.dictionaries(st.text(), st.text())


def test_it_is_texts_in_the_order_of_their_names_and_the_same_each_time():
    found = fingerprint("numpy")
    assert list(found) == sorted(found)
    assert all(type(value) is str and value for value in found.values())
    assert found["numpy"] == np.__version__
    assert fingerprint("numpy") == found
    assert differences(found, found) == []


def test_another_process_finds_the_same():
    code = "from tinygrad_rnn.training.fingerprint import fingerprint; print(fingerprint('numpy'))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert there.stdout == f"{fingerprint('numpy')}\n"


def test_threads_and_shards_are_those_in_force():
    if not blas_library():
        pytest.skip("threadpoolctl finds no BLAS here")
    found = []
    for number in (1, 2):
        with threadpool_limits(number, user_api="blas"), use_shards(3 - number):
            found.append(fingerprint("numpy"))
    assert differences(*found) == ["blas threads 1 -> 2", "shards 2 -> 1"]


def test_a_backend_that_is_not_there():
    with pytest.raises(BackendError, match="abacus"):
        fingerprint("abacus")


@pytest.mark.gpu
def test_a_gpu_is_named_with_its_driver():
    found = fingerprint("cupy")
    assert found["backend"].startswith("cupy ")
    assert "driver" in found["backend"] and found["kernels"] == "cupy"


@given(TEXTS, TEXTS)
def test_every_difference_has_its_phrase(before, now):
    before = before or {"a": "b"}
    different = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    assert len(differences(before, now)) == len(different)


def test_a_difference_reads_like_a_change():
    assert differences({"numpy": "2.3.0", "b": "1"}, {"numpy": "2.4.6", "a": "2"}) == [
        *("a not recorded -> 2", "b 1 -> not recorded", "numpy 2.3.0 -> 2.4.6")
    ]


@given(JSON)
def test_what_a_file_may_hold_is_never_exact_and_never_a_crash(record):
    found = differences(record, fingerprint("numpy"))
    assert found and all(len(phrase) < 1000 for phrase in found)
