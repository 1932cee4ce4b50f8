"""`trnn sample`: what it writes where, how it starts and ends, and what it refuses."""

import io
import re
import sys
import unicodedata

import numpy as np
import pytest

from tinygrad_rnn.models import load, save
from tinygrad_rnn.text import cache
from trnn_cli.main import main

from .conftest import fails

TEXT = "the cat sat on the mat, and the dog sat on the log.\n" * 12
BYTES = bytes(range(160, 256)) * 7
DECOMPOSED = unicodedata.normalize("NFD", "été. " * 100)
TINY = "--embedding-size 5 --hidden-size 8 --layers 1 --batch-size 4 --seq-length 10 --max-steps 12 --quiet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Trained runs: "run" of characters, "bytes" of bytes that are hardly ever UTF-8, "nfc" of composed
    characters."""
    folder = tmp_path_factory.mktemp("sample")
    (folder / "text.txt").write_text(TEXT)
    (folder / "bytes.bin").write_bytes(BYTES)
    (folder / "nfd.txt").write_text(DECOMPOSED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "text.txt", *TINY.split(), "--run", "run"]) == 0
        assert main(["train", "bytes.bin", "--encoding", "bytes", *TINY.split(), "--run", "bytes"]) == 0
        assert main(["train", "nfd.txt", "--normalize", "nfc", *TINY.split(), "--run", "nfc"]) == 0
    return folder


@pytest.fixture
def sample(folder, monkeypatch, capfdbinary):
    """Run `trnn sample`; gives (exit code, standard output as bytes, standard error)."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        code = main(["sample", *map(str, arguments)])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


def test_filters_of_the_draws(sample):
    greedy = sample("run", "--temperature", 0, "--length", 40)[1]
    assert sample("run", "--top-k", 1, "--seed", 3, "--length", 40)[1] == greedy
    assert sample("run", "--top-p", 0.001, "--seed", 4, "--length", 40)[1] == greedy
    fails(sample("run", "--top-k", 0), 2, "--top-k must be at least 1, not 0")
    fails(sample("run", "--top-p", 1.1), 2, "--top-p must be above 0 and at most 1, not 1.1")


def test_several_texts_are_parted_by_lines(sample):
    options = ["--seed", 1, "--length", 50, "--prime", "the cat"]
    code, out, err = sample("run", "--num", 3, *options)
    assert (code, err) == (0, "")
    first, two, second, three, third = re.split(rb"\n?(--- \d ---)\n", out)
    assert (two, three) == (b"--- 2 ---", b"--- 3 ---")
    assert len({first, second, third}) == 3
    assert all(text.startswith(b"the cat") and len(text) >= 56 for text in (first, second, third))
    assert sample("run", *options)[1].startswith(first)
    assert sample("run", "--num", 2, *options)[1] == out[: out.index(b"--- 3")].removesuffix(b"\n")
    fails(sample("run", "--num", 0), 2, "--num")


def test_until_stops_after_the_text(sample):
    long = sample("run", "--seed", 1, "--length", 400)[1].decode()
    for end, given in [("t", "t"), (" ", " "), ("\n", r"\n")]:
        out = sample("run", "--seed", 1, "--length", 400, "--until", given)[1].decode()
        assert out == long[: long.index(end) + len(end)]
    assert sample("run", "--seed", 1, "--length", 1, "--until", r"\n")[1].decode() == long[:1]
    fails(sample("run", "--until", ""), 2, "--until needs at least one symbol")
    fails(sample("run", "--until", "Zebra"), 3, "never be met", "lacks: 'Z', 'b', 'r'")
    fails(sample("run", "--until", r"\t\\\r"), 3, r"lacks: '\t', '\r', '\\'")


def test_until_is_read_as_the_training_text_was(sample):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    out = sample("nfc", "--seed", 1, "--until", composed)[1]
    assert out.decode().endswith(composed)
    assert sample("nfc", "--seed", 1, "--until", decomposed)[1] == out


def test_a_beam(sample):
    out = sample("run", "--beam", 4, "--length", 30, "--prime", "the ")[1]
    assert out.startswith(b"the ") and len(out) == 34
    assert sample("run", "--beam", 4, "--length", 30, "--prime", "the ")[1] == out
    assert (
        sample("run", "--beam", 1, "--length", 30)[1] == sample("run", "--temperature", 0, "--length", 30)[1]
    )
    fails(sample("run", "--beam", 0), 2, "width of a beam must be at least 1, not 0")
    fails(sample("run", "--beam", 2, "--seed", 1, "--temperature", 0.8), 2, "leave out --temperature, --seed")
    fails(sample("run", "--beam", 2, "--top-k", 1, "--num", 2), 2, "leave out --top-k, --num")


def test_a_prime_from_a_file(sample, folder):
    prime = "the dog sat on the log.\n" * 100
    (folder / "prime.txt").write_text(prime)
    options = ["--length", 5, "--seed", 1]
    assert sample("run", "--prime", "@prime.txt", *options) == sample("run", "--prime", prime, *options)
    (folder / "latin.txt").write_bytes(b"cat\xe9")
    fails(sample("run", "--prime", "@missing.txt"), 3, "no file 'missing.txt'")
    fails(sample("run", "--prime", "@latin.txt"), 3, "latin.txt is not UTF-8", "offset 3")
    fails(sample("run", "--prime", "@@home"), 3, "lacks: '@'")
    assert sample("run", "--prime", "@@home", "--unknown", "skip", *options)[1].startswith(b"home")


def test_a_prime_of_unknown_characters(sample):
    options = ["--length", 5, "--seed", 1]
    fails(sample("run", "--prime", "the Zoo"), 3, "lacks: 'Z'", "--unknown")
    fails(sample("run", "--prime", "the Zoo", "--unknown", "error"), 3, "lacks: 'Z'")
    assert sample("run", "--prime", "the Zoo", "--unknown", "skip", *options)[1].startswith(b"the oo")
    assert sample("run", "--prime", "the Zoo", "--unknown", "replace", *options)[1].startswith(b"the  oo")
    nothing_left = sample("run", "--prime", "ZZZ", "--unknown", "skip", *options)
    assert nothing_left == sample("run", *options)
    fails(sample("run", "--unknown", "keep"), 2, "skip", "replace", "error")


def test_bytes_leave_as_they_are(sample, folder):
    vocabulary = load(folder / "bytes").vocabulary
    code, out, _ = sample("bytes", "--length", 300, "--seed", 2)
    assert code == 0
    assert len(out) == 300 and set(out) <= set(BYTES)
    with pytest.raises(UnicodeDecodeError):
        out.decode()
    (folder / "prime.bin").write_bytes(b"\xff\xfe\xe2\xa2")
    assert sample("bytes", "--prime", "@prime.bin", "--length", 3)[1].startswith(b"\xff\xfe\xe2\xa2")
    assert len(vocabulary) == 96


def test_a_file_to_write_to(sample, folder):
    fails(sample("run", "--output", "nowhere/run.txt"), 2, "there is no folder nowhere")
    (folder / "new").mkdir()
    for run in ("run", "bytes"):
        options = [run, "--num", 2, "--length", 30, "--seed", 1]
        assert sample(*options, "--output", f"new/{run}.txt") == (0, b"", "")
        assert (folder / "new" / f"{run}.txt").read_bytes() == sample(*options)[1]
        fails(sample(*options, "--output", f"new/{run}.txt"), 2, "exists already")
        assert sample(*options, "--output", "-") == sample(*options)


def test_a_terminal_gets_what_can_be_printed_and_a_whole_line(sample, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = sample("bytes", "--length", 300, "--seed", 2)
    assert (code, err) == (0, "bytes/best.safetensors, step 12\n")
    assert out.decode().endswith("\n")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", out.decode())


def test_of_a_long_prime_a_terminal_gets_the_end(sample, monkeypatch):
    prime = "the cat sat on the mat. " * 20
    options = ["run", "--length", 5, "--seed", 1, "--num", 2, "--prime"]
    piped = sample(*options, prime)[1].decode()
    assert piped.count(prime) == 2
    short = sample(*options, prime[-200:])[1].decode()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert sample(*options, prime)[1].decode() == "".join(
        ("" if line.startswith("---") else "...") + line + "\n"
        for line in piped.replace(prime, prime[-200:]).splitlines()
    )
    assert sample(*options, prime[-200:])[1].decode() == short + "\n"


def test_an_interrupted_text_ends_its_line_on_a_terminal(sample, monkeypatch):
    def interrupted(*_):
        yield np.array([3])
        raise KeyboardInterrupt

    monkeypatch.setattr("tinygrad_rnn.text.sampling.sample_streams", interrupted)
    for terminal, written in [(False, b"the."), (True, b"the.\n")]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        assert sample("run", "--prime", "the")[1] == written


def test_novelty_tells_what_is_copied(sample):
    code, out, err = sample("run", "--length", 200, "--seed", 1, "--novelty")
    assert code == 0
    assert out == sample("run", "--length", 200, "--seed", 1)[1]
    summary, held_out, *stretches = err.splitlines()
    longest = re.fullmatch(
        r"novelty: longest stretch copied from the training text: (\d+) characters; "
        r"half of the text lies in stretches of \d+ or more",
        summary,
    )[1]
    assert re.match(r"novelty: 63 characters held out from training: longest 63; half ", held_out)
    for line in stretches:
        length, start, shown = re.fullmatch(r"novelty: (\d+) characters at (\d+): '(.*)'", line).groups()
        stretch = out.decode()[int(start) :][: int(length)]
        assert stretch in TEXT
        assert repr(stretch)[1:-1] == shown
    assert f"novelty: {longest} characters at" in stretches[0]
    assert "of text 2: " in sample("run", "--num", 2, "--length", 50, "--seed", 0, "--novelty")[2]


def test_novelty_needs_the_training_text(sample, folder):
    alone = folder / "alone.safetensors"
    alone.write_bytes((folder / "run" / "best.safetensors").read_bytes())
    assert sample(alone, "--novelty", "--length", 5)[0] == 0
    save("model.safetensors", *load(alone))
    fails(sample("model.safetensors", "--novelty"), 2, "model.safetensors holds a model only")
    text = folder / "text.txt"
    try:
        text.write_text(TEXT[::-1])
        fails(sample(alone, "--novelty"), 3, "text.txt: no longer the text")
        text.unlink()
        fails(sample(alone, "--novelty"), 3, "no file", "text.txt'")
    finally:
        text.write_text(TEXT)


@pytest.mark.parametrize("training", [{}, {"config": []}, {"config": {"corpus": 1}, "corpus_sha256": ""}])
def test_a_checkpoint_that_notes_nonsense_of_its_training(sample, folder, training):
    save(folder / "odd.safetensors", *load(folder / "run"), training=training)
    fails(sample("odd.safetensors", "--novelty"), 4, "odd.safetensors does not hold a training")


def test_a_text_from_standard_input_is_remembered(sample, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "user_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["train", "-", *TINY.split(), "--run", "piped"]) == 0
    assert sample("piped", "--length", 20, "--novelty")[0] == 0
    for cached in tmp_path.iterdir():
        cached.unlink()
    fails(sample("piped", "--novelty"), 3, "standard input")
