"""Texts that can be fetched: found by name once they are there, and only as long as they are intact."""

import hashlib

import pytest

from tinygrad_rnn.errors import DataError
from tinygrad_rnn.text import resolve
from tinygrad_rnn.text.catalogue import CATALOGUE, Entry, cached

TEXT = b"Once upon a time.\n" * 100


@pytest.fixture(autouse=True)
def fable(tmp_path, monkeypatch):
    """Where the text "fable" of the catalogue belongs."""
    entry = Entry("A fable", "http://127.0.0.1:9/", len(TEXT), hashlib.sha256(TEXT).hexdigest(), "free")
    monkeypatch.setitem(CATALOGUE, "fable", entry)
    monkeypatch.setattr("tinygrad_rnn.text.catalogue.user_folder", lambda part: tmp_path / "cache" / part)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "corpora" / "fable.txt"


def test_a_fetched_text_is_found_by_its_name(fable):
    for name in ("fable", "fable.txt"):
        with pytest.raises(DataError, match="fable is not here yet; fetch it with: trnn corpus get fable"):
            resolve(name)
    fable.parent.mkdir(parents=True)
    fable.write_bytes(TEXT)
    assert cached("fable") == resolve("fable") == resolve("fable.txt") == fable


@pytest.mark.parametrize("damaged", [TEXT[:-1], TEXT + b"x", b"o" + TEXT[1:], b""])
def test_a_damaged_text_does_not_count_as_there(fable, damaged):
    fable.parent.mkdir(parents=True)
    fable.write_bytes(damaged)
    assert cached("fable") is None
    with pytest.raises(DataError, match="not here yet"):
        resolve("fable")


def test_a_file_comes_before_the_catalogue(fable, tmp_path):
    fable.parent.mkdir(parents=True)
    fable.write_bytes(TEXT)
    (tmp_path / "fable").write_text("mine")
    assert resolve("fable").read_text() == "mine"
    with pytest.raises(DataError, match="no file"):
        resolve(tmp_path / "elsewhere" / "fable")


def test_the_entries_are_complete():
    for name, entry in CATALOGUE.items():
        assert name.isidentifier() and entry.size > 0
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.address.startswith("https://") or name == "fable"
