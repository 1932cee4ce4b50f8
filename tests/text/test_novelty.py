"""Novelty: the stretches found are those that a search of every stretch finds."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.text import novelty
from tinygrad_rnn.text.novelty import Stretch, copied, covering, half_covered, longest_stretches

words = st.text("abc", max_size=25)


def symbols(text):
    return np.array([ord(character) for character in text], np.intp)


def longest_suffixes(text, corpus):
    """For each character the length of the longest stretch ending with it that is in the corpus."""
    return [
        max(n for n in range(end + 1) if text[end - n : end] in corpus) for end in range(1, len(text) + 1)
    ]


@settings(max_examples=100)
@given(
    st.lists(words, min_size=1, max_size=3),
    st.text("abcd", max_size=80),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_every_stretch_is_found_wherever_the_corpus_is_cut(texts, corpus, chunk, lanes):
    with patch.multiple(novelty, _CHUNK=chunk, _LANES=lanes):
        found = copied([symbols(text) for text in texts], symbols(corpus).astype(np.uint8))
    assert [lengths.tolist() for lengths in found] == [longest_suffixes(text, corpus) for text in texts]


@given(st.text("ab", min_size=1, max_size=200), st.integers(0, 199), st.integers(1, 200))
def test_a_piece_of_the_corpus_is_one_stretch(corpus, start, length):
    start %= len(corpus)
    piece = corpus[start : start + length]
    [found] = copied([symbols(piece)], symbols(corpus))
    assert longest_stretches([found], 3) == [Stretch(0, 0, len(piece))]
    assert half_covered([found]) == len(piece)


@given(st.lists(words, min_size=1, max_size=3), st.text("abcd", max_size=80))
def test_stretches_are_in_the_corpus_the_longest_first_and_do_not_overlap(texts, corpus):
    matched = copied([symbols(text) for text in texts], symbols(corpus))
    found = longest_stretches(matched, 100)
    covered = set()
    for text, start, length in found:
        assert texts[text][start : start + length] in corpus
        places = {(text, place) for place in range(start, start + length)}
        assert covered.isdisjoint(places)
        covered |= places
    lengths = [stretch.length for stretch in found]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths, default=0) == max((n for text in matched for n in text.tolist()), default=0)
    assert longest_stretches(matched, 2) == found[:2]


@given(words.filter(bool), st.text("abcd", max_size=80))
def test_each_symbol_lies_in_its_longest_stretch(text, corpus):
    matched = copied([symbols(text)], symbols(corpus))
    ends = range(1, len(text) + 1)
    wanted = [
        max((e - s for s in range(at + 1) for e in ends if e > at and text[s:e] in corpus), default=0)
        for at in range(len(text))
    ]
    assert covering(matched).tolist() == wanted
    half = half_covered(matched)
    assert 2 * sum(length >= half for length in wanted) >= len(text)
    assert 2 * sum(length > half for length in wanted) < len(text)


def test_a_corpus_of_wide_symbols():
    corpus = np.array([70_000, 5, 70_000, 6], np.uint32)
    assert copied([np.array([5, 70_000, 9])], corpus)[0].tolist() == [1, 2, 0]
    assert copied([np.array([5, 4])], corpus)[0].tolist() == [1, 0]


def test_texts_too_long_to_be_looked_for():
    with patch.object(novelty, "_LARGEST_TABLE", 1000), pytest.raises(UsageError, match="too many"):
        copied([np.arange(50)], np.arange(50))
