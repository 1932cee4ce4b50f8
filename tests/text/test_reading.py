"""A text in pieces is the text: decoded, normalised, hashed and counted as if it had been read at once."""

import hashlib
import io
import itertools
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import DataError
from tinygrad_rnn.text.reading import EncodedText, Text, _stands_apart, composed
from tinygrad_rnn.text.sources import Source
from tinygrad_rnn.text.vocabulary import Vocabulary

# Marks of different classes, letters they join, Hangul in parts, characters that only decompose, marks whose
# own decomposition begins with a mark, and a vowel sign of letters' category that composes with itself.
JOINING = (
    "aeoE\u0301\u0323\u0327\u0345\u1100\u1161\u11a8\uac00\uac01\u0958\u0344\u0f71\u0f73\u0f81\u09c7\u09be"
)
JOINING += "\u212b\u1e9b\u3099\u304b\u0b47\u0b3e\U00011099\U000110ba\U00016d67\U00016d63\ufb1d"
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from(JOINING + "\ufeff\r\n"))) | st.text(JOINING)
BLOCKS = st.integers(1, 7)


def as_sources(data, cuts=()):
    """`data` cut into sources at the places given."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(places)]
    return [Source(f"part {number}", io.BytesIO(part)) for number, part in enumerate(parts)]


@given(text=TEXTS, block=BLOCKS, cuts=st.lists(st.integers(0, 100), max_size=4))
def test_pieces_are_the_text_wherever_it_is_cut(text, block, cuts):
    data = text.encode()
    read = Text(as_sources(data, cuts), "utf-8", None, block)
    assert "".join(read.pieces()) == text
    assert b"".join(Text(as_sources(data, cuts), "bytes", None, block).pieces()) == data
    assert read.digest() == hashlib.sha256(data).digest()
    assert "".join(read.pieces()) == text  # as often as needed


@given(text=TEXTS, block=BLOCKS)
def test_counts_are_those_of_the_whole(text, block):
    counts = Text(as_sources(text.encode()), "utf-8", None, block).counts()
    assert {chr(code): counts[code] for code in np.flatnonzero(counts)} == {c: text.count(c) for c in text}
    of_bytes = Text(as_sources(text.encode()), "bytes", None, block).counts()
    assert np.array_equal(of_bytes, np.bincount([*text.encode()], minlength=256))


@given(text=TEXTS, block=BLOCKS)
def test_normalising_pieces_is_normalising_the_whole(text, block):
    read = Text(as_sources(text.encode()), "utf-8", "nfc", block)
    assert "".join(read.pieces()) == unicodedata.normalize("NFC", text)


@given(pieces=st.lists(st.text(JOINING, max_size=3)))
def test_normalising_any_pieces(pieces):
    assert "".join(composed(pieces)) == unicodedata.normalize("NFC", "".join(pieces))


def test_no_two_characters_that_compose_are_cut_apart():
    decompositions = [unicodedata.decomposition(chr(code)).split() for code in range(sys.maxunicode + 1)]
    of_two = [pair for pair in decompositions if len(pair) == 2 and "<" not in pair[0]]
    pairs = [[chr(int(code, 16)) for code in pair] for pair in of_two]
    assert len(pairs) > 900
    pairs += [["\u1100", chr(vowel)] for vowel in range(0x1161, 0x1176)]
    pairs += [["\uac00", chr(final)] for final in range(0x11A8, 0x11C3)]
    for pair in pairs:
        assert "".join(composed(pair)) == unicodedata.normalize("NFC", "".join(pair)), ascii(pair)


@pytest.mark.slow
def test_every_character_that_stands_apart_does():
    """After each character that is the first of two that compose, and after a mark that most others pass."""
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    pairs = [unicodedata.decomposition(c).split() for c in characters]
    firsts = {chr(int(pair[0], 16)) for pair in pairs if len(pair) == 2 and "<" not in pair[0]}
    before = [*sorted(firsts), *"\u1100\u1112\uac00\ud788", "a\u0345"]
    apart = [c for c in characters if unicodedata.category(c) not in ("Cn", "Co", "Cs") and _stands_apart(c)]
    assert len(apart) > 100_000
    alone = [unicodedata.normalize("NFC", text) for text in before]
    for c in apart:
        together = unicodedata.normalize("NFC", "\n".join(text + c for text in before))
        assert together == "\n".join(text + unicodedata.normalize("NFC", c) for text in alone), ascii(c)


def test_what_waits_is_as_short_as_can_be():
    pieces = list(composed(["abc", "de\u0301", "f", "\u0301"]))
    assert pieces == ["ab", "cd", "\u00e9", "", "f\u0301"]


@given(
    good=st.text(max_size=20),
    bad=st.sampled_from([b"\xff", b"\xc3(", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\x80"]),
    more=st.text(max_size=5),
    block=BLOCKS,
    cuts=st.lists(st.integers(0, 30), max_size=3),
)
def test_a_bad_byte_is_found_wherever_the_text_is_cut(good, bad, more, block, cuts):
    data = good.encode() + bad + more.encode()
    with pytest.raises(UnicodeDecodeError) as whole:
        data.decode()
    starts = [0, *sorted(min(cut, len(data)) for cut in cuts)]
    part = max(number for number, start in enumerate(starts) if start <= whole.value.start)
    with pytest.raises(DataError) as raised:
        list(Text(as_sources(data, cuts), "utf-8", None, block).pieces())
    byte, offset = data[whole.value.start], whole.value.start - starts[part]
    assert str(raised.value) == (
        f"part {part} is not UTF-8: byte 0x{byte:02x} at offset {offset:,} ({whole.value.reason}); "
        "if it is Latin-1, convert it: iconv -f latin1 -t utf-8 FILE > NEW_FILE; "
        "or read it byte by byte: --encoding bytes"
    )


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_mark_tells_utf16(encoding):
    marked, unmarked = ("\ufeffGrüße".encode(encoding), "Grüße".encode(encoding))
    for before, data, hint in [
        (b"", marked, "if it is UTF-16, convert it: iconv -f utf-16 -t utf-8 "),
        (b"text", marked, "UTF-16"),
        (b"", unmarked, "Latin-1"),
        (b"", b"text" + marked, "Latin-1"),
    ]:
        with pytest.raises(DataError, match=hint):
            list(Text(as_sources(before + data, [len(before)]), "utf-8", None).pieces())


def test_a_bad_byte_far_into_a_file(tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"ab\xc3\xa9" * 300_000 + b"\xff")
    with pytest.raises(DataError, match=r"long\.txt is not UTF-8: byte 0xff at offset 1,200,000 "):
        list(Text([Source(str(path), path)], "utf-8", None).pieces())


@pytest.mark.parametrize("encoding", ["utf-8", "bytes"])
@pytest.mark.parametrize("after", [b"abcdef", b"abcdefgh", b"abcdefx", b""])
def test_a_text_that_changes_between_two_readings_is_refused(tmp_path, encoding, after):
    path = tmp_path / "log"
    path.write_bytes(b"abcdefg")
    text = Text([Source("log", path)], encoding, None, block=3)
    text.digest()
    path.write_bytes(after)
    with pytest.raises(DataError, match="log changed while being read"):
        text.counts()


@given(
    text=TEXTS,
    known=st.text(st.characters(max_codepoint=0x2FF)),
    normalize=st.sampled_from([None, "nfc"]),
    unknown=st.sampled_from(["skip", "replace"]),
    cuts=st.lists(st.integers(0, 100), max_size=4),
)
def test_the_symbols_of_a_text_are_those_of_the_whole(text, known, normalize, unknown, cuts):
    vocabulary = Vocabulary.of(known + "?")
    encoded = EncodedText(as_sources(text.encode(), cuts), vocabulary, normalize, unknown)
    text = unicodedata.normalize("NFC", text) if normalize else text
    for _ in range(2):  # it can be read more than once
        symbols = np.concatenate([vocabulary.encode(""), *encoded])
        assert symbols.tolist() == vocabulary.encode(text, unknown).tolist()
        assert encoded.lacking == sum(character not in known + "?" for character in text)


def test_a_text_with_unknown_symbols_is_refused_by_name():
    encoded = EncodedText(as_sources(b"ab!"), Vocabulary.of("ab"))
    with pytest.raises(DataError, match=r"part 0 has characters .*'!'; --unknown skip or replace"):
        list(encoded)
    with pytest.raises(DataError, match=r"part 0 is not UTF-8.*trained with --encoding bytes"):
        list(EncodedText(as_sources(b"\xff"), Vocabulary.of("ab")))
    assert [piece.tolist() for piece in EncodedText(as_sources(b"\xff"), Vocabulary.of(b"\xff"))] == [[0]]
