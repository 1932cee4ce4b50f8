"""Statistics of a text: what counting by hand gives, whatever the text and wherever it is cut in pieces."""

import bz2
import gzip
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import DataError
from tinygrad_rnn.text import statistics
from tinygrad_rnn.text.sources import Source
from tinygrad_rnn.text.statistics import measure

texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab\n\r\ufeffé€😀"), min_size=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "text.txt"


def measured(*paths):
    return measure([Source(str(path), path) for path in paths])


def entropy(counts):
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values())


@pytest.fixture(scope="module", params=[1, 2, 7, 1 << 21], autouse=True)
def chunk(request):
    """A file is read in pieces of this many bytes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(statistics, "_CHUNK", request.param)
        yield


@given(text=texts)
def test_as_counted_by_hand(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "counted.txt"
    path.write_bytes(text.encode())
    found = measured(path)
    symbols, pairs = Counter(text), Counter(pairwise(text))
    assert (found.encoding, found.not_utf8) == ("utf-8", None)
    assert (found.size, found.symbols) == (len(text.encode()), len(text))
    assert found.lines == len(text.removesuffix("\n").split("\n")) - (text == "")
    assert dict(zip(map(chr, found.codes.tolist()), found.counts.tolist(), strict=True)) == symbols
    assert sorted(found.counts, reverse=True) == found.counts.tolist()
    assert found.count("a") == text.count("a")
    assert found.marked == text.startswith("\ufeff")
    assert found.entropy == pytest.approx(entropy(symbols), abs=1e-12)
    first = Counter(text[:-1])
    assert found.after_one == pytest.approx(entropy(pairs) - entropy(first), abs=1e-12)
    assert found.compressed["bzip2"] == pytest.approx(8 * len(bz2.compress(text.encode())) / len(text))
    gzipped = 8 * len(gzip.compress(text.encode(), 6)) / len(text)
    assert found.compressed["gzip"] == pytest.approx(gzipped, rel=0.05)  # zlib may cut blocks otherwise


@given(
    good=st.text(st.characters(exclude_categories=["Cs"])),
    bad=st.sampled_from([b"\xff", b"\xc3", b"\xe2\x82"]),
)
def test_what_is_not_utf8_is_counted_in_bytes(tmp_path_factory, good, bad):
    path = tmp_path_factory.getbasetemp() / "bytes"
    data = good.encode() + bad
    path.write_bytes(data)
    found = measured(path)
    assert found.encoding == "bytes"
    assert f"byte 0x{bad[0]:02x} at offset {len(good.encode()):,} (" in found.not_utf8
    assert found.symbols == found.size == len(data)
    assert dict(zip(found.codes.tolist(), found.counts.tolist(), strict=True)) == Counter(data)
    assert found.entropy == pytest.approx(entropy(Counter(data)), abs=1e-12)


@given(
    parts=st.lists(st.binary(max_size=6) | st.text(max_size=6).map(str.encode), min_size=1, max_size=4),
    compressed=st.integers(1, 40),
)
def test_several_files_count_as_if_joined(tmp_path_factory, parts, compressed):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(statistics, "COMPRESSED", compressed)
        _count_as_if_joined(tmp_path_factory.mktemp("parts"), parts)


def _count_as_if_joined(folder, parts):
    whole = folder / "whole"
    whole.write_bytes(b"".join(parts) + b".")
    paths = [folder / str(number) for number in range(len(parts) + 1)]
    for path, part in zip(paths, [*parts, b"."], strict=True):
        path.write_bytes(part)
    joined, apart = vars(measured(whole)), vars(measured(*paths))
    for name, value in joined.items():
        if name == "not_utf8":
            assert (value is None) == (apart[name] is None)
        else:
            assert np.array_equal(value, apart[name]) if name in ("codes", "counts") else value == apart[name]


def test_one_symbol_has_no_surprise(path):
    path.write_text("aaaa")
    assert (measured(path).entropy, measured(path).after_one) == (0.0, 0.0)


def test_too_many_different_pairs_are_left_uncounted(path, monkeypatch):
    path.write_text("abc" * 100)
    monkeypatch.setattr(statistics, "MAX_PAIRS", 3)
    assert measured(path).after_one is not None
    monkeypatch.setattr(statistics, "MAX_PAIRS", 2)
    assert measured(path).after_one is None


def test_the_compressors_get_only_the_beginning(path, monkeypatch):
    monkeypatch.setattr(statistics, "_CHUNK", 100)
    monkeypatch.setattr(statistics, "COMPRESSED", 200)
    path.write_text("a" * 200 + "bcdefghijk" * 1000)
    assert measured(path).compressed["bzip2"] == 8 * len(bz2.compress(b"a" * 200)) / 200


def test_what_cannot_be_measured(path, tmp_path):
    path.touch()
    with pytest.raises(DataError, match=r"text\.txt is empty"):
        measured(path)
    with pytest.raises(DataError, match=r"cannot read .*nothing"):
        measured(tmp_path / "nothing")
