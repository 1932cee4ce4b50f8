"""Vocabularies: encode and decode are inverse for any text; what is unknown or broken is named."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import CheckpointError, DataError
from tinygrad_rnn.text import Vocabulary

ANY_TEXT = st.text(st.characters())  # all of Unicode but surrogates


@given(ANY_TEXT)
def test_characters_come_back(text):
    vocabulary = Vocabulary.of(text)
    symbols = vocabulary.encode(text)
    assert vocabulary.decode(symbols) == text
    assert len(symbols) == len(text)
    assert len(vocabulary) == len(set(text))
    assert set(symbols.tolist()) == set(range(len(vocabulary)))


@given(ANY_TEXT)
def test_bytes_come_back(text):
    data = text.encode()
    vocabulary = Vocabulary.of(data)
    symbols = vocabulary.encode(data)
    assert vocabulary.decode(symbols) == text
    assert len(symbols) == len(data)
    assert np.array_equal(vocabulary.encode(text), symbols)


@given(st.binary())
def test_any_bytes_have_symbols(data):
    vocabulary = Vocabulary.of(data)
    assert bytes(vocabulary.codes[vocabulary.encode(data)].tolist()) == data
    assert vocabulary.decode(vocabulary.encode(data)) == data.decode("utf-8", "replace")


@given(st.one_of(ANY_TEXT, st.binary()))
def test_a_symbol_at_a_time_decodes_to_the_same(text):
    vocabulary = Vocabulary.of(text)
    symbols = vocabulary.encode(text)
    decoder = vocabulary.decoder()
    pieces = [decoder.feed([symbol]) for symbol in symbols]
    assert "".join([*pieces, decoder.feed([], final=True)]) == vocabulary.decode(symbols)


def test_an_unfinished_character_waits():
    vocabulary = Vocabulary.of("é".encode())
    decoder = vocabulary.decoder()
    first, second = vocabulary.encode("é")
    assert decoder.feed([first]) == ""
    assert decoder.feed([second]) == "é"


@given(st.one_of(ANY_TEXT, st.binary()))
def test_json_comes_back(text):
    vocabulary = Vocabulary.of(text)
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


@given(st.sets(st.characters(), min_size=1), st.sets(st.characters(), min_size=1, max_size=20))
def test_unknown_characters_are_listed(known, asked):
    vocabulary = Vocabulary.of("".join(known))
    unknown = sorted(asked - known)
    if not unknown:
        vocabulary.encode("".join(asked))
        return
    with pytest.raises(DataError) as raised:
        vocabulary.encode("".join(asked))
    assert str(raised.value).endswith(": " + ", ".join(map(repr, unknown)))


def test_many_unknown_characters_are_counted():
    with pytest.raises(DataError, match=r"and 80 more$"):
        Vocabulary.of("a").encode("".join(map(chr, range(0x4E00, 0x4E00 + 100))))


def test_unknown_bytes_are_listed_in_hexadecimal():
    with pytest.raises(DataError, match=r"bytes that .* lacks: 0xa9, 0xc3$"):
        Vocabulary.of(b"abc").encode("é")


def test_an_argument_that_is_not_utf8_keeps_its_bytes():
    vocabulary = Vocabulary.of(b"\xff\xfe")
    assert vocabulary.encode(b"\xff".decode("utf-8", "surrogateescape")).tolist() == [1]


def test_symbols_take_little_memory():
    assert Vocabulary.of("ab").encode("abba").dtype == np.uint8
    assert Vocabulary("utf-8", range(256)).dtype == np.uint8
    assert Vocabulary("utf-8", range(257)).dtype == np.uint16
    assert Vocabulary("utf-8", range(70_000)).dtype == np.uint32


@pytest.mark.parametrize(
    "record",
    [
        None,
        "abc",
        {},
        {"encoding": "utf-8"},
        {"encoding": "utf-8", "symbols": [97, 98]},
        {"encoding": "utf-8", "symbols": "ba"},
        {"encoding": "utf-8", "symbols": "aab"},
        {"encoding": "bytes", "symbols": "ab"},
        {"encoding": "bytes", "symbols": [1, 256]},
        {"encoding": "bytes", "symbols": [-1]},
        {"encoding": "bytes", "symbols": [1.5]},
        {"encoding": "bytes", "symbols": [2, 1]},
        {"encoding": "latin-1", "symbols": "ab"},
    ],
)
def test_a_record_that_is_none_is_refused(record):
    with pytest.raises(CheckpointError, match="vocabulary"):
        Vocabulary.from_json(record)
