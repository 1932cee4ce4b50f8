"""Corpora: what is read is what is in the file, and what cannot be read is told in one clear sentence."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import DataError, UsageError
from tinygrad_rnn.text import load_corpus, names, resolve


def test_marks_and_line_ends_stay(tmp_path):
    text = "\ufeffone\r\ntwo\nthree\r"
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    corpus = load_corpus(path)
    assert corpus.vocabulary.decode(corpus.symbols) == text
    assert corpus.name == "text"


def test_any_file_can_be_read_as_bytes(tmp_path):
    path = tmp_path / "noise"
    path.write_bytes(bytes(range(256)) * 2)
    corpus = load_corpus(path, "bytes")
    assert len(corpus.vocabulary) == 256
    assert corpus.symbols.tolist() == [*range(256)] * 2


@given(length=st.integers(1, 300), fraction=st.floats(0, 0.99))
def test_the_held_out_part_is_the_tail(tmp_path_factory, length, fraction):
    path = tmp_path_factory.getbasetemp() / "split.txt"
    path.write_text("ab" * length)
    corpus = load_corpus(path)
    train, held_out = corpus.split(fraction)
    assert [*train, *held_out] == corpus.symbols.tolist()
    assert len(held_out) == math.ceil(2 * length * fraction)


def test_a_missing_file_names_what_comes_along(tmp_path):
    with pytest.raises(DataError, match=r"no file '.*nothing', .*harbour"):
        load_corpus(tmp_path / "nothing")


def test_a_folder(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        load_corpus(tmp_path)


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty.txt"
    path.touch()
    with pytest.raises(DataError, match=r"empty\.txt is empty"):
        load_corpus(path)


@given(good=st.text(st.characters(), max_size=50))
def test_a_byte_that_is_not_utf8_is_found(tmp_path_factory, good):
    path = tmp_path_factory.getbasetemp() / "broken.txt"
    path.write_bytes(good.encode() + b"\xff and more")
    with pytest.raises(DataError, match=rf"0xff at offset {len(good.encode()):,} .*--encoding bytes"):
        load_corpus(path)


def test_an_unknown_encoding(tmp_path):
    with pytest.raises(UsageError, match="'latin-1'; there are utf-8 and bytes"):
        load_corpus("harbour", "latin-1")


def test_a_file_comes_before_a_text_that_comes_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names() == ["harbour"]
    assert resolve("harbour") == resolve("harbour.txt")
    (tmp_path / "harbour").write_text("mine")
    assert resolve("harbour").read_text() == "mine"
    assert resolve("harbour.txt").read_text() != "mine"
