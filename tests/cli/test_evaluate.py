"""`trnn eval` and `trnn score`: what they count, what they read, what they print, and what they refuse."""

import io
import json
import math
import re
import sys
import unicodedata

import numpy as np
import pytest

from tinygrad_rnn.models import load, save
from tinygrad_rnn.training import TrainConfig
from tinygrad_rnn.training.characters import split_windows
from tinygrad_rnn.training.dynamic import RATES
from tinygrad_rnn.training.evaluation import evaluate
from tinygrad_rnn.training.origin import training_corpus
from trnn_cli.main import main
from trnn_cli.score import _style

TEXT = "the cat sat on the mat,\tand the dog sat\\on the log.\n" * 12
BYTES = "Grüße, ".encode() * 90
DECOMPOSED = unicodedata.normalize("NFD", "tés mots rés. " * 40)
TINY = "--embedding-size 5 --hidden-size 8 --layers 1 --batch-size 4 --seq-length 10 --max-steps 30 --quiet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Trained runs: of characters, of bytes, of composed characters, one that holds nothing out."""
    folder = tmp_path_factory.mktemp("eval")
    (folder / "text.txt").write_text(TEXT)
    (folder / "bytes.bin").write_bytes(BYTES)
    (folder / "nfd.txt").write_text(DECOMPOSED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for run, corpus, *options in [
            ("run", "text.txt"),
            ("bytes", "bytes.bin", "--encoding", "bytes"),
            ("nfc", "nfd.txt", "--normalize", "nfc"),
            ("all", "text.txt", "--val-fraction", "0"),
        ]:
            assert main(["train", corpus, *options, *TINY.split(), "--run", run]) == 0
        model, vocabulary, meta = load("run")
        save("model.safetensors", model, vocabulary, meta)
    return folder


@pytest.fixture
def trnn(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def evaluated(trnn):
    """What `trnn eval --json` says, without the times."""

    def run(*arguments):
        code, out, err = trnn("eval", *arguments, "--json")
        assert (code, err) == (0, "")
        record = json.loads(out)
        for losses in (record, record.get("dynamic", {})):
            losses.pop("seconds", None), losses.pop("symbols_per_second", None)
        return record

    return run


@pytest.fixture
def scored(trnn):
    """What `trnn score --json` says."""

    def run(*arguments):
        code, out, err = trnn("score", *arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


def typed(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def fails(result, exit_code, *said):
    code, out, err = result
    assert (code, out) == (exit_code, "")
    assert err.startswith("trnn: error: ") and err.count("\n") == 1
    for part in said:
        assert part in err


# --- trnn eval ----------------------------------------------------------------------------------------


def test_without_a_file_the_held_out_part_is_evaluated(evaluated, folder):
    record = evaluated("run")
    corpus = training_corpus(folder / "run" / "best.safetensors")
    assert record["symbols"] == len(corpus.held_out) - 1
    assert record["text"] == "text, what was held out from training"
    one_stream = TrainConfig(corpus="text.txt", batch_size=1, seq_length=10)
    loss = evaluate(load(folder / "run").model, split_windows(corpus, one_stream)[1])
    assert record["nats"] == pytest.approx(loss, rel=1e-6)
    assert record["bits"] == pytest.approx(loss / math.log(2), rel=1e-6)
    assert record["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert 0 < record["nats"] < record["frequencies"]["nats"] < math.log(20)
    assert record["frequencies"]["bits"] == pytest.approx(record["frequencies"]["nats"] / math.log(2))


def test_a_file_is_evaluated_however_it_arrives(evaluated, folder, monkeypatch):
    (folder / "parts").mkdir(exist_ok=True)
    for name, part in [("a", TEXT[:100]), ("b", TEXT[100:])]:
        (folder / "parts" / f"{name}.txt").write_text(part)
    typed(monkeypatch, TEXT.encode())
    named = [["text.txt"], ["parts"], ["parts/a.txt", "parts/b.txt"], ["-"]]
    records = [evaluated("run", *names) for names in named]
    assert [record.pop("text") for record in records] == [
        *("text.txt", "parts/a.txt, parts/b.txt", "parts/a.txt, parts/b.txt", "standard input")
    ]
    assert all(record == records[0] for record in records)
    assert records[0]["symbols"] == len(TEXT) - 1
    assert records[0]["unknown"] == 0
    assert evaluated("run/best.safetensors", "text.txt")["nats"] == records[0]["nats"]
    last = evaluated("run", "text.txt", "--checkpoint", "last")
    assert last["checkpoint"].endswith("step-00000030.safetensors")


def test_what_eval_prints(trnn):
    code, out, err = trnn("eval", "run")
    assert (code, err) == (0, "")
    assert re.search(r"^checkpoint +run/best.safetensors, step 30$", out, re.M)
    assert re.search(r"^text +text, .*: 62 chars after the first$", out, re.M)
    assert re.search(r"^loss +\d\.\d{4} nats = \d\.\d{4} bits/char, perplexity \d+\.\d{3}$", out, re.M)
    assert re.search(r"^frequencies +\d\.\d{4} nats = \d\.\d{4} bits/char, if one knew only", out, re.M)
    assert re.search(r"^speed +[\d,]+ char/s, 0:0\d$", out, re.M)
    assert "dynamic" not in out and "unknown" not in out


def test_dynamic_evaluation_is_told_apart_and_changes_no_file(trnn, evaluated, folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    static = evaluated("run", "text.txt")
    record = evaluated("run", "text.txt", "--dynamic", "--dynamic-lr", 0.1, "--segment", 7)
    dynamic = record.pop("dynamic")
    assert record == static
    assert dynamic["nats"] < static["nats"]
    assert (dynamic["lr"], dynamic["segment"], dynamic["symbols"]) == (0.1, 7, static["symbols"])
    assert dynamic["rates"] == [{"lr": 0.1, "symbols": static["symbols"]}]
    assert evaluated("run", "--dynamic", "--dynamic-lr", 0)["dynamic"]["nats"] == evaluated("run")["nats"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    out = trnn("eval", "run", "--dynamic", "--dynamic-lr", 0.1, "--dynamic-decay", 0.5)[1]
    assert re.search(r"^loss +\d", out, re.M)
    assert re.search(r"^dynamic +\d\.\d{4} nats = .* by weights that learn", out, re.M)
    assert re.search(r"^ +lr 0\.1, decay 0\.5, segments of 50 chars$", out, re.M)
    assert "tried" not in out


def test_without_a_rate_learners_race_and_the_rates_are_told(trnn, evaluated):
    dynamic = evaluated("run", "text.txt", "--dynamic")["dynamic"]
    assert dynamic["nats"] < evaluated("run", "text.txt")["nats"]
    assert [rate["lr"] for rate in dynamic["rates"]] == list(RATES)
    assert dynamic["lr"] in RATES[1:]
    assert {rate["lr"]: rate["symbols"] for rate in dynamic["rates"]}[dynamic["lr"]] == dynamic["symbols"]
    out = trnn("eval", "run", "--dynamic")[1]
    assert re.search(r"^ +lr [\d.]+ \(ahead at the end\), decay 0\.001, segments of 50 chars$", out, re.M)
    assert re.search(r"^ +lr tried: 0 on 62, 0\.03125 on 62, .*, 1 on 62 chars$", out, re.M)


def test_unknown_characters(trnn, evaluated, folder):
    (folder / "strange.txt").write_text(TEXT.replace("cat", "Qat"))
    fails(trnn("eval", "run", "strange.txt"), 3, "strange.txt", "lacks: 'Q'", "--unknown skip")
    (folder / "skipped.txt").write_text(TEXT.replace("cat", "at"))
    skipped, same = evaluated("run", "strange.txt", "--unknown", "skip"), evaluated("run", "skipped.txt")
    assert (skipped["nats"], skipped["unknown"], same["unknown"]) == (same["nats"], 12, 0)
    (folder / "replaced.txt").write_text(TEXT.replace("cat", " at"))
    replaced = evaluated("run", "strange.txt", "--unknown", "replace")
    assert replaced["nats"] == evaluated("run", "replaced.txt")["nats"]
    assert "12 that the model does not know" in trnn("eval", "run", "strange.txt", "--unknown", "skip")[1]


def test_a_text_is_normalised_as_the_one_trained_on(evaluated, folder):
    (folder / "nfc.txt").write_text(unicodedata.normalize("NFC", DECOMPOSED))
    assert evaluated("nfc", "nfd.txt")["nats"] == evaluated("nfc", "nfc.txt")["nats"]


def test_a_model_of_bytes_reads_anything(trnn, evaluated, folder):
    (folder / "some.bin").write_bytes(BYTES[3:304])
    assert evaluated("bytes", "some.bin")["symbols"] == 300
    assert "bits/byte" in trnn("eval", "bytes")[1]
    fails(trnn("eval", "run", "some.bin"), 3, "some.bin is not UTF-8", "trained with --encoding bytes")


def test_a_corpus_that_is_not_what_it_was(trnn, folder):
    (folder / "mine.txt").write_text(TEXT)
    assert trnn("train", "mine.txt", *TINY.split(), "--run", "mine")[0] == 0
    (folder / "mine.txt").write_text(TEXT + "more")
    fails(trnn("eval", "mine"), 3, "no longer the text that mine/best.safetensors was trained on")
    assert trnn("eval", "mine", "text.txt")[0] == 0
    fails(trnn("eval", "mine", "text.txt", "--dynamic"), 3, "no longer the text")
    (folder / "mine.txt").unlink()
    fails(trnn("eval", "mine"), 3, "is needed once more", "mine.txt")


def test_a_model_without_its_training(trnn, evaluated):
    assert evaluated("model.safetensors", "text.txt")["nats"] == evaluated("run", "text.txt")["nats"]
    fails(trnn("eval", "model.safetensors"), 2, "holds a model only")
    fails(trnn("eval", "model.safetensors", "text.txt", "--dynamic"), 2, "holds a model only")


def test_what_eval_refuses(trnn, folder):
    (folder / "one.txt").write_text("t")
    (folder / "none.txt").touch()
    fails(trnn("eval"), 2, "'run'")
    fails(trnn("eval", "nowhere"), 4, "nowhere does not exist")
    fails(trnn("eval", "text.txt"), 4, "text.txt is not a checkpoint")
    fails(trnn("eval", "all"), 3, "nothing was held out", "name a text")
    fails(trnn("eval", "run", "missing.txt"), 3, "missing.txt")
    for short in ("one.txt", "none.txt"):
        fails(trnn("eval", "run", short), 3, f"{short} is too short")
    fails(trnn("eval", "run", "--segment", 5), 2, "need --dynamic")
    fails(trnn("eval", "run", "--dynamic", "--segment", 0), 2, "at least 1 symbol, not 0")
    fails(trnn("eval", "run", "--dynamic", "--dynamic-lr", -1), 2, "must be at least 0, not -1.0")
    fails(trnn("eval", "run", "--dynamic", "--dynamic-lr", "1e38"), 6, "diverged after", "may help")


# --- trnn score ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["run", "model.safetensors"])
def test_score_and_eval_count_the_same(scored, evaluated, run):
    record, evaluation = scored(run, "@text.txt"), evaluated(run, "text.txt")
    assert (record["mean_nats"], record["mean_bits"]) == (evaluation["nats"], evaluation["bits"])
    assert record["counted"] == evaluation["symbols"]
    first, *counted = record["symbols"]
    assert first == {"text": "t", "bits": None, "expected": []}
    assert "".join(symbol["text"] for symbol in record["symbols"]) == TEXT
    assert np.mean([symbol["bits"] for symbol in counted]) == pytest.approx(record["mean_bits"])
    for symbol in counted:
        expected = symbol["expected"]
        assert len(expected) == 3
        assert sum(p for _, p in expected) <= 1
        assert [p for _, p in expected] == sorted((p for _, p in expected), reverse=True)
        for text, p in expected:
            if text == symbol["text"]:
                assert symbol["bits"] == pytest.approx(-math.log2(p), rel=1e-3, abs=1e-5)


def test_a_table_of_characters_where_there_is_no_colour(trnn, scored):
    code, out, err = trnn("score", "run", "@text.txt")
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["t", "-"]
    assert "".join(row[0] for row in rows) == TEXT.replace("\\", "\\\\").replace("\n", r"\n").replace(
        "\t", r"\t"
    )
    symbols = scored("run", "@text.txt")["symbols"]
    assert [row[1] for row in rows[1:]] == [f"{symbol['bits']:.2f}" for symbol in symbols[1:]]
    summary = err.splitlines()
    assert re.match(
        r"mean +\d+\.\d{4} bits = \d\.\d{4} nats/char, perplexity .* of 623 chars after", summary[0]
    )
    worst = max(symbols[1:], key=lambda symbol: symbol["bits"])
    assert re.match(rf"{worst['bits']:.1f} bits +at \d+: .*\[.+\].* \(expected '.+' \d+%, '", summary[1])
    assert len(summary) == 6


def test_where_a_text_comes_from(scored, folder, monkeypatch):
    (folder / "at.txt").write_text("the cat")
    symbols = scored("run", "the cat")["symbols"]
    assert scored("run", "@at.txt")["symbols"] == symbols
    for arguments in (["-"], []):
        typed(monkeypatch, b"the cat")
        assert scored("run", *arguments)["symbols"] == symbols
    assert scored("run", "@@the cat", "--unknown", "skip")["symbols"] == symbols
    assert scored("run", "the Qcat", "--unknown", "skip") | {"unknown": 0} == scored("run", "the cat")


def test_bytes_are_symbols_of_their_own(trnn, scored):
    record = scored("bytes", "Grüße")
    assert [symbol["text"] for symbol in record["symbols"]] == [
        *("G", "r", r"\xc3", r"\xbc", r"\xc3", r"\x9f", "e")
    ]
    assert [row.split("\t")[0] for row in trnn("score", "bytes", "ü,")[1].splitlines()] == [
        *(r"\xc3", r"\xbc", ",")
    ]


def test_what_score_refuses(trnn, folder, monkeypatch):
    fails(trnn("score", "run", "the Zoo"), 3, "the text has characters", "lacks: 'Z'", "--unknown")
    fails(trnn("score", "run", "@@home"), 3, "lacks: '@'")
    fails(trnn("score", "run", ""), 3, "too short")
    fails(trnn("score", "run", "t"), 3, "too short")
    fails(trnn("score", "run", "@missing.txt"), 3, "missing.txt")
    fails(trnn("score", "nowhere", "text"), 4, "nowhere does not exist")
    typed(monkeypatch, b"")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    fails(trnn("score", "run"), 2, "nothing to score")


def test_the_more_surprising_the_redder():
    styles = [_style(bits) for bits in (0, 1.99, 2, 4, 6, 8, 10, 1000)]
    assert styles[0] == styles[1] == ""
    assert len(set(styles[1:-1])) == 6
    assert styles[-1] == styles[-2] == "color(16) on color(196)"
