"""Corpora: what is read is what is in the files, whatever the cache does; what cannot be read is told in one
clear sentence."""

import hashlib
import io
import math
import sys
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import DataError, UsageError
from tinygrad_rnn.text import Vocabulary, load_cached, load_corpus
from tinygrad_rnn.text import corpus as corpora

TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("ab\u0301\ufeff\r\n")), min_size=1)
FRACTIONS = st.floats(0, 0.99)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder for the cache, in which even the smallest corpus is kept."""
    monkeypatch.setattr(corpora, "CACHED_FROM", 0)
    return tmp_path / "cache"


@pytest.fixture
def in_use(tmp_path):
    """A folder that can be none: there is a file in its place."""
    (tmp_path / "file").touch()
    return tmp_path / "file"


def write(folder, text, name="text.txt"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def decoded(corpus):
    return corpus.vocabulary.decode(np.concatenate([corpus.train, corpus.held_out]))


def same(a, b):
    parts = [np.array_equal(a.train, b.train), np.array_equal(a.held_out, b.held_out)]
    assert a.train.dtype == b.train.dtype == a.held_out.dtype == b.vocabulary.dtype
    return all(parts) and a.vocabulary == b.vocabulary and (a.name, a.sha256) == (b.name, b.sha256)


@given(text=TEXTS, fraction=FRACTIONS)
def test_both_parts_are_the_text(tmp_path_factory, text, fraction):
    path = write(tmp_path_factory.getbasetemp(), text)
    corpus = load_corpus(path, val_fraction=fraction)
    assert decoded(corpus) == text
    assert len(corpus.held_out) == math.ceil(len(text) * fraction)
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert corpus.name == "text"
    as_bytes = load_corpus(path, encoding="bytes", val_fraction=fraction)
    assert bytes(as_bytes.vocabulary.codes[[*as_bytes.train, *as_bytes.held_out]].tolist()) == text.encode()


@given(text=TEXTS, held_out=TEXTS)
def test_a_validation_file_is_held_out_instead_of_the_tail(tmp_path_factory, text, held_out):
    folder = tmp_path_factory.getbasetemp()
    path, val_file = write(folder, text), write(folder, held_out, "held out")
    corpus = load_corpus(path, val_file=val_file, val_fraction=0.5)
    assert corpus.vocabulary.decode(corpus.train) == text
    assert corpus.vocabulary.decode(corpus.held_out) == held_out
    assert len(corpus.vocabulary) == len(set(text + held_out))
    assert corpus.sha256 != load_corpus([path, val_file]).sha256


@given(text=TEXTS, cut=st.integers(0, 100))
def test_sources_are_read_as_if_joined(tmp_path_factory, text, cut):
    folder, data = tmp_path_factory.getbasetemp(), text.encode()
    parts = write(folder, data[:cut], "text"), write(folder, data[cut:], "other")  # even within a character
    for options in ({}, {"normalize": "nfc"}, {"encoding": "bytes"}):
        assert same(load_corpus(parts, **options), load_corpus(write(folder, data), **options))


@given(text=TEXTS)
def test_normalised(tmp_path_factory, text):
    corpus = load_corpus(write(tmp_path_factory.getbasetemp(), text), normalize="nfc")
    assert decoded(corpus) == unicodedata.normalize("NFC", text)
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()


@given(text=st.text("abcdeé\n", min_size=1), min_count=st.integers(1, 8), fraction=FRACTIONS)
def test_rare_characters_become_one_unknown_symbol(tmp_path_factory, text, min_count, fraction):
    path, counts = write(tmp_path_factory.getbasetemp(), text), Counter(text)
    frequent = {c for c in text if counts[c] >= min_count}
    if not frequent:
        with pytest.raises(DataError, match=rf"occurs {min_count} times, .* {max(counts.values())} times"):
            load_corpus(path, min_count=min_count)
        return
    corpus = load_corpus(path, min_count=min_count, val_fraction=fraction)
    assert decoded(corpus) == "".join(c if c in frequent else "\ufffd" for c in text)
    assert corpus.vocabulary.unknown == (None if frequent == set(text) else len(frequent))


def test_rare_characters_of_the_held_out_part_are_unknown_too(tmp_path):
    text, held_out = write(tmp_path, "aaab"), write(tmp_path, "bbcc", "val")
    corpus = load_corpus(text, val_file=held_out, min_count=3)
    assert corpus.vocabulary.codes.tolist() == [ord("a"), ord("b")]  # b: once to train on, twice held out
    assert [*corpus.train] == [0, 0, 0, 1]
    assert [*corpus.held_out] == [1, 1, 2, 2]
    corpus = load_corpus(write(tmp_path, b"aaab"), encoding="bytes", min_count=2)
    assert decoded(corpus) == "aaa\ufffd"


@given(text=TEXTS, encoding=st.sampled_from(["utf-8", "bytes"]), min_count=st.integers(1, 2))
def test_the_cache_changes_nothing(tmp_path_factory, text, encoding, min_count):
    folder = tmp_path_factory.mktemp("folder")
    path, options = write(folder, text + "aa"), {"encoding": encoding, "min_count": min_count}
    without = load_corpus(path, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "CACHED_FROM", 0)
        first = load_corpus(path, cache=folder / "cache", **options)
        patch.setattr(corpora, "_encoded", None)  # the second time there is nothing to encode
        second = load_corpus(path, cache=folder / "cache", **options)
    assert isinstance(second.train, np.memmap)
    assert same(first, second) and same(second, without)


def test_the_cache_knows_contents_and_options_apart(tmp_path, cache):
    text = "e\u0301a" * 3 + "b"
    path = write(tmp_path, text)
    options = [{}, {"encoding": "bytes"}, {"normalize": "nfc"}, {"min_count": 2}, {"val_file": path}]
    alone = [load_corpus(path, cache=tmp_path / "none", **each) for each in options]
    for _ in range(2):
        for each, expected in zip(options, alone, strict=True):
            assert same(load_corpus(path, cache=cache, **each), expected)
    assert len(list(cache.iterdir())) == len(options)
    elsewhere = load_corpus(write(tmp_path, text, "copy"), val_fraction=0.5, cache=cache)
    assert (elsewhere.name, len(elsewhere.held_out)) == ("copy", 5)  # neither is in the cache
    assert len(list(cache.iterdir())) == len(options)
    changed = load_corpus(write(tmp_path, text + "c"), cache=cache)
    assert decoded(changed) == text + "c" and changed.sha256 != elsewhere.sha256


def test_symbols_cannot_be_written_to(tmp_path, cache):
    path = write(tmp_path, "abc" * 10)
    for folder in (cache, cache, cache / "not a folder"):
        corpus = load_corpus(path, cache=folder)
        for part in (corpus.train, corpus.held_out):
            with pytest.raises(ValueError, match="read-only"):
                part[0] = 1


@pytest.mark.parametrize("cached_from", [0, corpora.CACHED_FROM])
@pytest.mark.parametrize("after", ["abd", "abcabc", "a", ""])
def test_a_file_that_changes_once_its_symbols_are_counted(tmp_path, monkeypatch, cached_from, after):
    path, counted = write(tmp_path, "abc"), Vocabulary.counted

    def meanwhile(*counts):
        write(tmp_path, after)
        return counted(*counts)

    monkeypatch.setattr(corpora, "CACHED_FROM", cached_from)
    monkeypatch.setattr(Vocabulary, "counted", meanwhile)
    with pytest.raises(DataError, match=r"text\.txt changed while being read"):
        load_corpus(path, cache=tmp_path / "cache")
    assert not any((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize("in_memory", [corpora.IN_MEMORY, 0])
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, cache, in_use, monkeypatch, in_memory):
    monkeypatch.setattr(corpora, "IN_MEMORY", in_memory)
    path = write(tmp_path, "é" * 1000)
    without = load_corpus(path, cache=in_use / "cache")
    assert isinstance(without.train, np.memmap) == (in_memory == 0)
    assert same(without, load_corpus(path, cache=cache))


def test_no_room_anywhere(tmp_path, cache, in_use, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(corpora, "IN_MEMORY", 0)
    monkeypatch.setattr(corpora, "vanishing_file", full)
    with pytest.raises(DataError, match=r"no room for the 3 MB .* \(No space left on device\).* TMPDIR"):
        load_corpus(write(tmp_path, b"abc" * 1_000_000), cache=in_use)


def test_standard_input_is_kept_so_that_it_can_be_had_again(tmp_path, monkeypatch):
    text = "through the pipe\r\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    corpus = load_corpus("-", cache=tmp_path)
    assert (corpus.name, decoded(corpus)) == ("stdin", text)
    assert same(load_cached(corpus.sha256, name="stdin", cache=tmp_path), corpus)
    assert load_cached(corpus.sha256, name="stdin", min_count=2, cache=tmp_path) is None
    assert load_cached("0" * 64, name="stdin", cache=tmp_path) is None
    with pytest.raises(DataError, match="standard input is empty"):
        load_corpus("-", cache=tmp_path)


def test_a_folder_is_one_corpus(tmp_path, monkeypatch):
    (tmp_path / "books.old").mkdir()
    write(tmp_path / "books.old", "two", "2.txt")
    write(tmp_path / "books.old", "one", "1.txt")
    corpus = load_corpus(tmp_path / "books.old")
    assert (corpus.name, decoded(corpus)) == ("books.old", "onetwo")
    monkeypatch.chdir(tmp_path / "books.old")
    assert same(load_corpus("."), corpus)
    assert load_corpus("harbour").name == "harbour"


def test_empty_files(tmp_path):
    empty, text = write(tmp_path, "", "empty.txt"), write(tmp_path, "abc")
    assert decoded(load_corpus([empty, text, empty])) == "abc"
    with pytest.raises(DataError, match=r"empty\.txt is empty; a corpus needs text"):
        load_corpus(empty)
    with pytest.raises(DataError, match=r"empty\.txt is empty; a corpus needs text"):
        load_corpus(text, val_file=empty)


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "at least one"),
        (["-", "-"], {}, "standard input can be read only once"),
        (["-"], {"val_file": "-"}, "standard input can be read only once"),
        ("harbour", {"encoding": "latin-1"}, "must be utf-8 or bytes, not 'latin-1'"),
        ("harbour", {"normalize": "nfkc"}, "must be nfc, not 'nfkc'"),
        ("harbour", {"normalize": "nfc", "encoding": "bytes"}, "bytes have no normal form"),
        ("harbour", {"min_count": 0}, "at least 1, not 0"),
        ("harbour", {"val_fraction": 1.0}, "below 1, not 1.0"),
        ("harbour", {"val_fraction": math.nan}, "below 1, not nan"),
    ],
)
def test_options_that_make_no_sense(sources, options, message):
    with pytest.raises(UsageError, match=message):
        load_corpus(sources, **options)
