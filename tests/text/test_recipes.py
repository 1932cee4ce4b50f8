"""Made texts: the same bytes from the same seed, whole lines, each of its language, as hard as they say."""

import hashlib
import math
import re
from itertools import islice
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import UsageError
from tinygrad_rnn.text import arithmetic, dyck, reber
from tinygrad_rnn.text.recipes import RECIPES, make, write

sources = st.sampled_from([*RECIPES])
seeds = st.integers(0, 2**64)


def text_of(source, size, seed=None):
    return b"".join(make(source, size, seed))


@given(sources, seeds, st.integers(2_000, 5_000), st.integers(150_000, 200_000))
def test_a_larger_text_begins_with_the_smaller_one(source, seed, small, large):
    text, beginning = text_of(source, large, seed), text_of(source, small, seed)
    assert len(text) <= large and len(beginning) <= small
    assert text.startswith(beginning)
    assert beginning.endswith(b"\n") and text.endswith(b"\n")
    next_line = text[len(beginning) :].partition(b"\n")[0]
    assert len(beginning) + len(next_line) + 1 > small  # it would not have fitted


def test_the_same_seed_gives_the_same_bytes_everywhere():
    assert {s: hashlib.sha256(text_of(s, 100_000, 1)).hexdigest()[:16] for s in RECIPES} == {
        "arithmetic": "2b89fe934b48c0f4",
        "dyck": "b93e900efc261c15",
        "reber": "943f1b4d0abacf17",
    }
    for source in RECIPES:
        assert text_of(source, 1000) == text_of(source, 1000, 0) != text_of(source, 1000, 1)


@given(seeds)
def test_brackets_are_balanced_and_reach_their_depth(seed):
    deepest = 0
    for word in islice(dyck.words(Random(seed).random), 2000):
        open_ones = []
        for bracket in word.removesuffix("\n"):
            if bracket in "([{<":
                open_ones.append(bracket)
                deepest = max(deepest, len(open_ones))
            else:
                assert (open_ones.pop(), bracket) in dyck.KINDS
        assert not open_ones and len(word) > 1
    assert deepest == dyck.DEPTH


@given(seeds)
def test_sums_are_right(seed):
    operations = set()
    for line in islice(arithmetic.sums(Random(seed).random), 2000):
        a, operation, b, result = re.fullmatch(r"(\d{1,3})([-+*])(\d{1,3})=(-?\d+)\n", line).groups()
        assert all(str(int(number)) == number for number in (a, b, result))
        a, b = int(a), int(b)
        assert int(result) == {"+": a + b, "-": a - b, "*": a * b}[operation]
        operations.add(operation)
    assert len(operations) == 3


@given(seeds)
def test_reber_strings_remember_their_second_letter(seed):
    inner = re.compile(r"(TS*X(XT*VP)*(S|XT*VV)|PT*V(PXT*V)*(V|PS))")  # the graph as an expression
    outer = set()
    for line in islice(reber.strings(Random(seed).random), 2000):
        second, between, again = re.fullmatch(r"B([TP])B(\w+)E([TP])E\n", line).groups()
        assert second == again
        assert inner.fullmatch(between)
        outer.add(second)
    assert len(outer) == 2


def test_the_mean_length_of_a_sum():
    operands, counts = np.unique(np.array(arithmetic._OPERANDS), return_counts=True)
    share = counts / counts.sum()
    digits = np.array([len(str(n)) for n in operands])
    shown = {n: len(str(n)) for n in range(-999, 2000)}
    lengths = [
        np.vectorize(shown.get)(operate.outer(operands, operands)) for operate in (np.add, np.subtract)
    ]
    products = np.multiply.outer(operands, operands)
    lengths.append(1 + sum(products >= 10**k for k in range(1, 6)))
    result = np.mean([share @ length @ share for length in lengths])
    assert 2 * share @ digits + 3 + result == pytest.approx(arithmetic.MEAN_LENGTH, abs=1e-4)


@pytest.mark.parametrize(
    ("source", "bits"),
    [
        ("dyck", lambda line: dyck_bits(line)),
        (
            "reber",
            lambda line: len(line) - 6,
        ),  # a choice a letter, but for the given B, B, E, E, end and repetition
        ("arithmetic", lambda line: sum(map(operand_bits, re.findall(r"\d+", line)[:2])) + math.log2(3)),
    ],
)
def test_the_entropy_is_the_mean_surprise_of_who_knows_the_recipe(source, bits):
    lines = list(islice(RECIPES[source].lines(Random(5).random), 100_000))
    nats = math.log(2) * sum(map(bits, lines)) / sum(map(len, lines))
    assert nats == pytest.approx(RECIPES[source].entropy, rel=0.005)


def dyck_bits(word):
    """-log2 of its probability: two bits a kind, and a coin wherever the word could have gone two ways."""
    depth = bits = 0
    for place, bracket in enumerate(word):
        if place > 0 and depth < dyck.DEPTH:
            bits += 1
        if bracket in "([{<":
            bits += 2
            depth += 1
        else:
            depth -= 1
    return bits


def operand_bits(digits):
    return math.log2(3) + math.log2({1: 10, 2: 90, 3: 900}[len(digits)])


def test_python_source_is_the_same_each_time_and_fits():
    source, beginning = text_of("python", 200_000), text_of("python", 100_000)
    assert 150_000 < len(source) <= 200_000
    assert source.startswith(beginning) and 75_000 < len(beginning) <= 100_000
    assert source.endswith(b"\n") and beginning.endswith(b"\n")
    source.decode("utf-8")


@pytest.mark.parametrize("source", ["python", *RECIPES])
def test_a_size_without_room_for_a_line(source, tmp_path):
    with pytest.raises(UsageError, match=f"first line of {source} fits into 1 bytes"):
        write(tmp_path / "text.txt", make(source, 1))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_asked_for():
    with pytest.raises(UsageError, match="python takes no --seed"):
        text_of("python", 1000, 3)
    with pytest.raises(UsageError, match="'prose' to make; there are python, arithmetic, dyck, reber"):
        text_of("prose", 1000)


def test_a_text_is_written_whole_or_not_at_all(tmp_path):
    def breaks_off():
        yield b"one\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "text.txt", breaks_off())
    assert list(tmp_path.iterdir()) == []
    assert write(tmp_path / "new" / "text.txt", [b"one\n", b"two\n"]) == 8
    assert [p.read_bytes() for p in (tmp_path / "new").iterdir()] == [b"one\ntwo\n"]
