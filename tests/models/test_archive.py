"""The file of arrays under a digest: what comes back is what was written, and no damage is ever believed."""

import hashlib
import json
import os
import resource

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save as safetensors_save

from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.models import archive

HEADER = {"meta": {"step": 3, "text": 'ä\u2028\U0001f600\x00"\\'}, "vocabulary": {"symbols": "abc"}}
ARRAYS = {
    "a": np.arange(6, dtype="float32").reshape(2, 3),
    "b/c": np.array([1.5, np.nan, np.inf]),
    "d": np.zeros((0, 2), "float32"),
    "e": np.array(3),  # of no dimensions
    "f": np.arange(6.0).reshape(2, 3).T,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "x.safetensors"
    archive.write(path, HEADER, ARRAYS)
    return path


def test_what_was_written_comes_back(written):
    header, arrays = archive.read(written)
    assert {name: header[name] for name in HEADER} == HEADER
    assert header["format"] == archive.FORMAT
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(arrays[name], array)


def test_the_same_content_gives_the_same_bytes(written, tmp_path):
    archive.write(tmp_path / "y.safetensors", dict(reversed(HEADER.items())), dict(reversed(ARRAYS.items())))
    assert (tmp_path / "y.safetensors").read_bytes() == written.read_bytes()


def test_other_tools_can_read_it(written):
    with safe_open(written, framework="numpy") as opened:
        np.testing.assert_array_equal(opened.get_tensor("a"), ARRAYS["a"])
        assert list(opened.metadata()) == ["tinygrad_rnn"]


def test_every_single_bit_counts(written, tmp_path, figures):
    """Every bit of the file, also those of the header, of its padding and of the digest itself."""
    whole, path = written.read_bytes(), tmp_path / "damaged.safetensors"
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=r"damaged\.safetensors"):
                archive.read(path)
            figures["bits flipped"] += 1


def test_every_truncation_and_every_addition_is_refused(written, tmp_path, figures):
    whole, path = written.read_bytes(), tmp_path / "cut.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
            archive.read(path)
        figures["truncations"] += 1
    path.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match="damaged"):
        archive.read(path)


def signed(data: bytes) -> bytes:
    """With the right digest, as somebody would write who wants to be believed."""
    blank = data.replace(b"0" * 64, b"0" * 64, 1)
    return data.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)


@given(
    size=st.one_of(st.integers(0, 400), st.integers(0, 2**64 - 1)),
    text=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)),
)
@settings(max_examples=200)
def test_a_hostile_header_is_refused_without_a_large_allocation(tmp_path_factory, size, text):
    path = tmp_path_factory.getbasetemp() / "hostile.safetensors"
    start = size.to_bytes(8, "little") + b'{"__metadata__":{"tinygrad_rnn":"{\\"digest\\": \\"' + b"0" * 64
    path.write_bytes(signed(start + text))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError):
        archive.read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@given(
    entry=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just("F32")),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.fixed_dictionaries(
                {}, optional={"dtype": inner, "shape": inner, "data_offsets": inner, "x": inner}
            ),
        ),
        max_leaves=8,
    ),
    payload=st.binary(max_size=64),
)
@settings(max_examples=200)
def test_arrays_that_are_not_there_are_refused(tmp_path_factory, entry, payload):
    """A header that is JSON and signed, with a description of an array that no file can have."""
    header = {
        "__metadata__": {"tinygrad_rnn": json.dumps({"digest": "0" * 64, "format": archive.FORMAT})},
        "x": entry,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    path = tmp_path_factory.getbasetemp() / "strange.safetensors"
    path.write_bytes(signed(len(text).to_bytes(8, "little") + text + payload))
    try:
        _, arrays = archive.read(path)
    except CheckpointError:
        return
    assume(False)
    assert sum(array.nbytes for array in arrays.values()) <= len(payload)


def test_another_format_is_named(tmp_path):
    text = json.dumps({"digest": "0" * 64, "format": 99})
    path = tmp_path / "x.safetensors"
    path.write_bytes(signed(safetensors_save({"a": np.ones(1)}, {"tinygrad_rnn": text})))
    with pytest.raises(CheckpointError, match=f"has format 99; this version reads format {archive.FORMAT}"):
        archive.read(path)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*: Is a directory"):
        archive.read(tmp_path)
    if os.geteuid():
        path = tmp_path / "x"
        path.touch(0)
        with pytest.raises(CheckpointError, match="Permission denied"):
            archive.read(path)
