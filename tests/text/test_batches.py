"""Windows: they cover the text, their streams are contiguous, their targets are what comes next."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.errors import DataError
from tinygrad_rnn.text import Windows

SIZES = {"batch_size": st.integers(1, 12), "seq_length": st.integers(1, 20)}


@given(length=st.integers(21, 400), **SIZES)
def test_every_symbol_is_used_once_and_in_order(length, batch_size, seq_length):
    text = np.arange(length)
    windows = Windows(text, batch_size, seq_length)
    B = windows.batch_size
    pieces = list(windows)
    assert len(pieces) == len(windows)

    inputs = np.concatenate([window[0] for window in pieces])  # (stream length, B)
    targets = np.concatenate([window[1] for window in pieces])
    read = inputs.T.reshape(-1)  # stream after stream
    assert np.array_equal(read, text[: len(read)])
    assert np.array_equal(targets, inputs + 1)  # across windows and streams: the next symbol of the text
    assert length - 1 - len(read) < B  # as far as it divides


@given(length=st.integers(21, 400), **SIZES)
def test_windows_are_even_and_no_longer_than_asked(length, batch_size, seq_length):
    windows = Windows(np.arange(length), batch_size, seq_length)
    lengths = [len(inputs) for inputs, _ in windows]
    assert max(lengths) <= seq_length
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) == -(-windows.stream_length // seq_length)


def test_as_drawn_in_the_documentation():
    windows = Windows(np.array(list("abcdefghijklm")).view(np.uint32) - ord("a"), 2, 3)
    shown = [["".join(chr(ord("a") + s) for s in stream) for stream in a.T] for w in windows for a in w]
    assert shown == [["abc", "ghi"], ["bcd", "hij"], ["def", "jkl"], ["efg", "klm"]]


@given(length=st.integers(2, 100), **SIZES)
def test_a_short_text_has_fewer_streams_or_is_refused(length, batch_size, seq_length):
    text = np.zeros(length, np.uint8)
    if length < seq_length + 1:
        with pytest.raises(DataError, match=f"need {seq_length + 1} symbols, found {length}$"):
            Windows(text, batch_size, seq_length)
        windows = Windows(text, batch_size, seq_length, partial=True)
        assert windows.batch_size == 1
        assert [len(inputs) for inputs, _ in windows] == [length - 1]
    else:
        windows = Windows(text, batch_size, seq_length)
        assert windows.batch_size == min(batch_size, (length - 1) // seq_length)


@pytest.mark.parametrize("length", [0, 1])
def test_one_symbol_has_nothing_to_predict(length):
    with pytest.raises(DataError, match="too short"):
        Windows(np.zeros(length, np.uint8), 4, 4, partial=True)


def test_windows_are_whole_integers_and_by_number():
    windows = Windows(np.arange(100, dtype=np.uint8), 3, 5)
    inputs, targets = windows[-1 + len(windows)]
    assert inputs.dtype == targets.dtype == np.intp
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_a_memory_map_is_not_copied(tmp_path):
    (tmp_path / "symbols").write_bytes(bytes(range(200)))
    symbols = np.memmap(tmp_path / "symbols", np.uint8, "r")
    windows = Windows(symbols, 3, 5)
    assert all(np.shares_memory(part, symbols) for part in (windows._inputs, windows._targets))
    for mapped, plain in zip(windows, Windows(np.arange(200, dtype=np.uint8), 3, 5), strict=True):
        assert np.array_equal(mapped, plain)
        assert all(type(part) is np.ndarray for part in mapped)
