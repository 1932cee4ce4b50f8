"""Vocabularies: encode and decode are inverse for any text; what is unknown or broken is named."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import CheckpointError, DataError, UsageError
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


@given(st.one_of(ANY_TEXT, st.binary()), st.booleans())
def test_json_comes_back(text, unknown):
    of_text = Vocabulary.of(text)
    vocabulary = Vocabulary(of_text.encoding, of_text.codes, unknown)
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again == vocabulary and again.unknown == vocabulary.unknown
    assert (again == of_text) != unknown


@given(known=ANY_TEXT, asked=ANY_TEXT, in_bytes=st.booleans())
def test_unknown_characters_are_skipped_or_replaced(known, asked, in_bytes):
    if in_bytes:
        known, asked = known.encode(), asked.encode()
    vocabulary = Vocabulary.of(known)
    assert np.array_equal(vocabulary.encode(known, "skip"), vocabulary.encode(known))
    kept = [code for code in asked if code in [*known]]
    skipped = vocabulary.encode(asked, "skip")
    assert np.array_equal(skipped, vocabulary.encode(bytes(kept) if in_bytes else "".join(kept)))

    with_unknown = Vocabulary(vocabulary.encoding, vocabulary.codes, unknown=True)
    assert len(with_unknown) == len(vocabulary) + 1
    replaced = with_unknown.encode(asked, "replace")
    assert replaced.dtype == with_unknown.dtype
    assert [symbol == with_unknown.unknown for symbol in replaced] == [code not in [*known] for code in asked]
    assert np.array_equal(replaced[replaced != with_unknown.unknown], skipped)
    if not in_bytes:
        assert with_unknown.decode(replaced) == "".join(c if c in known else "\ufffd" for c in asked)


@pytest.mark.parametrize(
    ("known", "stand_in"), [("a ?\ufffd", "\ufffd"), ("a ?", "?"), ("a ", " "), (b"a ?", "?"), (b"a ", " ")]
)
def test_without_an_unknown_symbol_another_stands_in(known, stand_in):
    vocabulary = Vocabulary.of(known)
    assert vocabulary.decode(vocabulary.encode("axa", "replace")) == f"a{stand_in}a"


def test_nothing_can_stand_in():
    with pytest.raises(DataError, match="cannot be replaced"):
        Vocabulary.of("abc").encode("xyz", "replace")
    assert Vocabulary.of("abc").encode("cab", "replace").tolist() == [2, 0, 1]
    with pytest.raises(UsageError, match="error, skip or replace, not 'ignore'"):
        Vocabulary.of("abc").encode("abc", "ignore")


def test_the_unknown_byte_is_not_part_of_a_character():
    vocabulary = Vocabulary("bytes", [*"é".encode()], unknown=True)  # sorted: 0xa9, 0xc3, unknown
    assert vocabulary.decode([1, 0, 2, 1, 0]) == "é\ufffdé"
    assert vocabulary.decode([1, 2, 0]) == "\ufffd\ufffd\ufffd"


def test_files_from_before_there_was_an_unknown_symbol():
    assert Vocabulary.from_json({"encoding": "utf-8", "symbols": "ab"}) == Vocabulary.of("ab")


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
    assert Vocabulary("utf-8", range(256), unknown=True).dtype == np.uint16
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
        {"encoding": "utf-8", "symbols": "ab", "unknown": 2},
        {"encoding": "bytes", "symbols": [1, 2], "unknown": None},
    ],
)
def test_a_record_that_is_none_is_refused(record):
    with pytest.raises(CheckpointError, match="vocabulary"):
        Vocabulary.from_json(record)
