"""The cache of encoded corpora: all of a file comes back or nothing does, and nothing is left lying about."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.text import Vocabulary
from tinygrad_rnn.text.cache import Key, find, keep, user_folder

KEY = Key("ab" * 32, "utf-8", None, 1)
VOCABULARY = Vocabulary("utf-8", range(300))
PIECES = [np.arange(start, start + 10, dtype=np.uint16) for start in range(0, 100, 10)]


def kept(folder, key=KEY, train=None):
    keep(folder, key, VOCABULARY, train, PIECES)
    return folder / key.file_name


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("intact")).read_bytes()


@pytest.mark.parametrize("train", [None, 0, 30])
def test_what_is_kept_is_found(tmp_path, train):
    assert find(tmp_path / "new", KEY) is None
    kept(tmp_path / "new", train=train)
    encoded = find(tmp_path / "new", KEY)
    assert np.array_equal(encoded.symbols, np.arange(100))
    assert isinstance(encoded.symbols, np.memmap) and not encoded.symbols.flags.writeable
    assert encoded.symbols.dtype == np.uint16
    assert encoded.symbols.ctypes.data % 64 == 0
    assert (encoded.train, encoded.vocabulary) == (train, VOCABULARY)
    assert [file.name for file in (tmp_path / "new").iterdir()] == [KEY.file_name]


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_not_believed(tmp_path_factory, intact, place, bit):
    damaged = bytearray(intact)
    damaged[place % len(intact)] ^= 1 << bit
    folder = tmp_path_factory.getbasetemp()
    (folder / KEY.file_name).write_bytes(damaged)
    assert find(folder, KEY) is None


def test_no_truncation_and_no_extension_is_believed(tmp_path, intact):
    for length in range(len(intact)):
        (tmp_path / KEY.file_name).write_bytes(intact[:length])
        assert find(tmp_path, KEY) is None
    (tmp_path / KEY.file_name).write_bytes(intact + b"\0")
    assert find(tmp_path, KEY) is None


@given(st.binary(max_size=100), st.booleans())
def test_a_foreign_file_is_not_believed(tmp_path_factory, intact, data, marked):
    folder = tmp_path_factory.getbasetemp()
    (folder / KEY.file_name).write_bytes(intact[:8] + data if marked else data)
    assert find(folder, KEY) is None


@pytest.mark.parametrize(
    "other",
    [
        Key("cd" * 32, "utf-8", None, 1),
        Key("ab" * 32, "bytes", None, 1),
        Key("ab" * 32, "utf-8", "nfc", 1),
        Key("ab" * 32, "utf-8", None, 2),
    ],
)
def test_a_file_under_the_name_of_another_is_not_believed(tmp_path, other):
    assert other.file_name != KEY.file_name
    kept(tmp_path).rename(tmp_path / other.file_name)
    assert find(tmp_path, other) is None


def test_a_failed_write_leaves_what_was_there(tmp_path, intact):
    kept(tmp_path)

    def failing():
        yield PIECES[0] + 1
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        keep(tmp_path, KEY, VOCABULARY, None, failing())
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [intact]


def test_litter_is_swept_but_not_what_may_be_in_use(tmp_path):
    old, new = tmp_path / "old.1-2.tmp", tmp_path / "new.1-2.tmp"
    for litter in (old, new):
        litter.touch()
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    kept(tmp_path)
    assert not old.exists() and new.exists()


def test_an_open_map_outlives_its_file(tmp_path):
    path = kept(tmp_path)
    encoded = find(tmp_path, KEY)
    kept(tmp_path)  # replaced
    path.unlink()
    assert np.array_equal(encoded.symbols, np.arange(100))


def test_several_processes_at_once(tmp_path, intact):
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert {path.read_bytes() for path in pool.map(kept, [tmp_path] * 8)} == {intact}
    assert len(list(tmp_path.iterdir())) == 1


def test_where_the_user_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "tinygrad_rnn" / "encoded"
