"""A checkpoint that is damaged is refused in one line, and one that was made to deceive upsets nothing."""

from __future__ import annotations

import io
import os
import shutil
import tracemalloc
from contextlib import chdir, redirect_stderr, redirect_stdout

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_rnn.errors import CheckpointError
from tinygrad_rnn.models import archive
from trnn_cli.main import main

from .runs import TEXT, TINY

LAST = "run/checkpoints/step-00000009.safetensors"
COMMANDS = [
    ["train", "--resume", LAST],
    ["sample", LAST, "--length", "5"],
    ["eval", LAST],
    ["score", LAST, "the cat"],
    ["info", LAST, "--all"],
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a training that was interrupted, in a manner of speaking: it may go on to step 12."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    with chdir(folder):
        every = "--max-steps 9 --checkpoint-every 3 --eval-every 3 --sample-every 4 --run run".split()
        assert main(["train", "text.txt", *TINY, *every, "--quiet"]) == 0
    config = folder / "run" / "config.toml"
    config.write_text(config.read_text().replace("max_steps = 9", "max_steps = 12"))
    return folder


def trnn(folder, *arguments) -> tuple[int, str]:
    """The exit code, and what is said of errors."""
    out = io.TextIOWrapper(io.BytesIO(), write_through=True)
    with chdir(folder), redirect_stdout(out), redirect_stderr(io.StringIO()) as err:
        return main([*arguments]), err.getvalue()


@given(place=st.integers(0), bit=st.integers(0, 7), cut=st.booleans())
def test_every_command_refuses_what_is_damaged(trained, figures, place, bit, cut):
    whole = (trained / LAST).read_bytes()
    damaged = bytearray(whole)
    if cut:
        del damaged[place % len(whole) :]
    else:
        damaged[place % len(whole)] ^= 1 << bit
    try:
        (trained / LAST).write_bytes(damaged)
        for command in COMMANDS:
            code, err = trnn(trained, *command)
            assert (code, err.count("\n")) == (4, 1) and LAST in err, (command, err)
            figures["commands on damaged files"] += 1
    finally:
        (trained / LAST).write_bytes(whole)


@pytest.mark.slow
def test_every_bit_and_every_length_of_a_checkpoint_counts(trained, tmp_path, figures):
    """As above, for all of them, where every command asks whether a file is whole."""
    whole = (trained / LAST).read_bytes()
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(whole)
    with open(path, "r+b", buffering=0) as file:
        for place, byte in enumerate(whole):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)
                with pytest.raises(CheckpointError):
                    archive.check(path)
                figures["bits flipped"] += 1
            os.pwrite(file.fileno(), bytes([byte]), place)
        archive.check(path)
        for length in reversed(range(len(whole))):
            os.truncate(path, length)
            with pytest.raises(CheckpointError):
                archive.check(path)
            figures["truncations"] += 1


NUMBERS = st.integers(-2, 3) | st.integers() | st.sampled_from([10**9, 2**63, 10**400]) | st.floats()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def places(value, before=()):
    """The way to every value in nested dictionaries and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, what in inner:
        yield (*before, key)
        yield from places(what, (*before, key))


def check_deceit(trained, folder, figures, data):
    """Something else somewhere in the header, or nothing, under a digest that is right."""
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    header, arrays = archive.read(trained / LAST)
    del header["digest"]
    *way, last = data.draw(st.sampled_from([*places(header)]))
    inner = header
    for key in way:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[last] = data.draw(VALUES)
    else:
        del inner[last]
    for command in COMMANDS:
        archive.write(folder / LAST, header, arrays)
        tracemalloc.start()
        code, err = trnn(folder, *command)  # raises what would be a traceback
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert code in (0, 2, 3, 4), (command, code, err)
        assert code == 0 or err.count("\n") == 1, (command, code, err)
        assert peak < 50_000_000, (command, code, peak)
        figures["commands on deceitful files"] += 1


@given(data=st.data())
@settings(max_examples=10)
def test_a_header_made_to_deceive(trained, tmp_path_factory, figures, data):
    check_deceit(trained, tmp_path_factory.mktemp("deceit"), figures, data)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=600)
def test_many_headers_made_to_deceive(trained, tmp_path_factory, figures, data):
    check_deceit(trained, tmp_path_factory.mktemp("deceit"), figures, data)
