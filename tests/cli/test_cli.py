"""The command: what it prints where, and that whatever goes wrong is one line and a documented exit code."""

import inspect
import io
import json
import re
import sys
import tomllib
import warnings
from dataclasses import fields

import numpy as np
import pytest
from safetensors.numpy import save_file

from tinygrad_rnn.errors import DivergedError
from tinygrad_rnn.models import find_checkpoint, load
from tinygrad_rnn.training import CharTrainer, TrainConfig
from trnn_cli import train as train_command
from trnn_cli.main import ELSEWHERE
from trnn_cli.terminal import clock, one_line, printable

from .conftest import fails

TEXT = "the cat sat on the mat, and the dog sat on the log.\n" * 12
TINY = "--embedding-size 5 --hidden-size 8 --layers 1 --batch-size 4 --seq-length 10 --max-steps 12".split()


@pytest.fixture(autouse=True)
def text(folder):
    (folder / "text.txt").write_text(TEXT)


@pytest.fixture
def run(trnn, folder):
    """A trained run."""
    assert trnn("train", "text.txt", *TINY, "--run", "run")[0] == 0
    return folder / "run"


def test_training_prints_its_losses_and_leaves_a_run(trnn, folder):
    code, out, err = trnn("train", "text.txt", *TINY, "--eval-every", 6)
    assert (code, err) == (0, "")
    assert "text.txt: 561 characters to train on, 63 held out, 16 different" in out
    assert len(re.findall(r"train \d\.\d+  validation \d\.\d+ = \d\.\d+ bits/char", out)) == 2
    assert "done: 12 steps" in out
    [path] = (folder / "runs").iterdir()
    assert re.fullmatch(r"[\d_-]+_text_gru", path.name)
    assert sorted(p.name for p in path.iterdir()) == [
        *("best.safetensors", "checkpoints", "config.toml", "history.jsonl", "run.lock", "samples.txt")
    ]


def test_quiet_prints_nothing(trnn):
    assert trnn("train", "text.txt", *TINY, "--quiet") == (0, "", "")


def test_a_text_that_comes_along_needs_no_path(trnn):
    code, out, _ = trnn("train", "harbour", *TINY, "--max-steps", 1)
    assert code == 0
    assert "harbour: " in out


def test_every_setting_has_an_option():
    options = inspect.signature(train_command.train).parameters
    assert set(options) >= {field.name for field in fields(TrainConfig)}
    assert all(option.default in (None, False) for option in options.values())


def test_every_option_arrives(trnn, folder):
    given = {
        **{"kind": "gru", "layers": 2, "hidden-size": 7, "embedding-size": 6, "dropout": 0.25},
        **{"batch-size": 3, "seq-length": 9, "optimizer": "adamw", "lr": 0.01, "clip": 2.5, "seed": 5},
        **{"backend": "numpy", "encoding": "bytes", "val-fraction": 0.2, "epochs": 4, "max-steps": 2},
        **{"minutes": 3.5, "eval-every": 2, "sample-every": 2, "checkpoint-every": 1, "keep": 4},
        **{"embedding-dropout": 0.1, "weight-dropout": 0.2, "min-count": 2, "accumulate": 2, "warmup": 3},
        **{"schedule": "linear", "weight-decay": 0.02, "average": 0.9, "threads": 1, "on-nan": "skip"},
        **{"patience": 7, "val-file": str(folder / "text.txt")},
    }
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    assert trnn("train", "text.txt", *options, "--variational", "--run", "run")[0] == 0
    made = load(folder / "run").model.config()
    sizes = {"kind": "gru", "num_layers": 2, "hidden_size": 7, "embedding_size": 6, "dropout": 0.25}
    assert made.items() >= sizes.items()
    written = tomllib.loads((folder / "run" / "config.toml").read_text())
    assert written == {
        "format": 1,
        "task": "characters",
        "corpus": [str(folder / "text.txt")],
        "variational": True,
        "tie_weights": False,
    } | {name.replace("-", "_"): value for name, value in given.items()}


def test_samples_are_seeded_text_and_nothing_else(trnn, run):
    code, first, err = trnn("sample", run, "--length", 50, "--seed", 1)
    assert (code, err) == (0, "")
    assert len(first) == 50
    assert set(first) <= set(TEXT)
    assert trnn("sample", run, "--length", 50, "--seed", 1)[1] == first
    assert trnn("sample", run, "--length", 50, "--seed", 2)[1] != first
    greedy = trnn("sample", run, "--length", 50, "--temperature", 0)[1]
    assert trnn("sample", run, "--length", 50, "--temperature", 0)[1] == greedy


def test_a_prime_is_continued(trnn, run):
    out = trnn("sample", run, "--prime", "the cat", "--length", 10)[1]
    assert out.startswith("the cat")
    assert len(out) == 17


def test_a_run_or_a_checkpoint_or_the_newest(trnn, run):
    options = ["--length", 30, "--seed", 3]
    by_run = trnn("sample", run, *options)[1]
    assert trnn("sample", run / "best.safetensors", *options)[1] == by_run
    assert trnn("sample", run, "--checkpoint", "last", *options)[0] == 0
    assert trnn("train", "text.txt", *TINY, "--seed", 1)[0] == 0
    newest = trnn("sample", *options)[1]
    assert len(newest) == 30
    assert newest != by_run


def test_corpora(trnn, folder):
    code, out, _ = trnn("corpus", "list")
    assert code == 0
    assert re.match(r"harbour +\d[\d,]+ bytes +\S+harbour\.txt\n", out)
    assert trnn("corpus", "make", "python", "--size", "20k")[0] == 0
    assert 10_000 < (folder / "python.txt").stat().st_size <= 20_000


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["train", "--help"], ["sample", "-h"], ["corpus"], ["corpus", "make", "-h"]]
)
def test_help(trnn, arguments):
    code, out, err = trnn(*arguments)
    assert (code, err) == (0, "")
    assert "Usage: trnn" in out


def test_help_of_train_is_in_order_and_has_examples(trnn):
    shown = trnn("train", "--help")[1]
    groups = re.findall(r"─ (Text|Model|Training|How long|The run) ─", shown)
    assert groups == ["Text", "Model", "Training", "How long", "The run"]
    assert shown.index("--checkpoint-every") > shown.index("--run ") > shown.index("─ The run ─")
    assert "trnn train harbour" in shown and "trnn train --resume" in shown
    assert shown.count("<bool>") == 1  # of --help itself
    assert "about an epoch" in shown


def test_help_on_a_narrow_terminal_has_every_word(trnn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    shown = trnn("train", "--help")[1]
    assert "…" not in shown
    for option in inspect.signature(train_command.train).parameters:
        assert option == "corpus" or f"--{option.replace('_', '-')}" in shown


def test_help_documents_the_exit_codes(trnn):
    for arguments in (["--help"], ["train", "--help"], ["sample", "--help"]):
        shown = " ".join(trnn(*arguments)[1].split())
        assert (
            "0 done, 1 failure, 2 usage, 3 bad input data, 4 bad checkpoint, 5 folder in use, 6 diverged, 129"
            in shown
        )


def test_version(trnn):
    from tinygrad_rnn import __version__

    assert trnn("--version") == (0, f"trnn {__version__}\n", "")


def test_a_product_that_reads_beside_its_numbers_is_not_told_of(trnn):
    """NumPy takes what OpenBLAS loads and does not use for a wrong operation."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert trnn("--version")[0] == 0
        with warnings.catch_warnings(record=True) as said:
            warnings.warn("invalid value encountered in matmul", RuntimeWarning, stacklevel=1)
            warnings.warn("invalid value encountered in log", RuntimeWarning, stacklevel=1)
    assert [str(one.message) for one in said] == ["invalid value encountered in log"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "cnn"], "--kind must be lstm, gru or rnn, not 'cnn'"),
        (["--kind", "[red]"], "'[red]'"),
        (["--optimizer", "adamm"], "--optimizer must be sgd, adam, adamw, adagrad or rmsprop"),
        (["--encoding", "ascii"], "--encoding must be utf-8 or bytes"),
        (["--backend", "abacus"], "there are"),
        (["--layers", "0"], "--layers must be at least 1, not 0"),
        (
            ["--layers", "abc"],
            "Invalid value for '--layers': 'abc' is not an integer (see trnn train --help)",
        ),
        (["--seq-length", "0"], "error: --seq-length must be at least 1, not 0"),
        (["--val-fraction", "0", "--patience", "1"], "--val-fraction 0 holds nothing out"),
        (["--lr", "nan"], "lr must be a positive number"),
        (["--lr", "fast"], "'--lr': 'fast' is not a number ("),
        (["--no-such-option"], "--no-such-option"),
        (["--normalize", "nfd"], "--normalize must be nfc, not 'nfd'"),
        (["--schedule", "wild"], "--schedule must be cosine, linear"),
        (["--on-nan", "pray"], "--on-nan must be stop, skip or rewind, not 'pray'"),
        (["--preset", "tolstoy"], "the preset must be shakespeare, not 'tolstoy'"),
        (["--config", "text.txt"], "text.txt is not TOML"),
        (["--force"], "--force is for --resume"),
        (["--require-exact"], "--require-exact is for --resume"),
        (["--json", "--quiet"], "--json prints, and --quiet does not"),
        (["--dry-run", "--quiet"], "--dry-run prints, and --quiet does not"),
        (["--hidden-size", "60000"], "use a smaller --hidden-size"),
        (["--hidden-size", "60000", "--dry-run"], "use a smaller --hidden-size"),
    ],
)
def test_bad_options(trnn, folder, options, said):
    fails(trnn("train", "text.txt", *options), 2, said)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        *[("--model", "--kind"), ("--steps", "--max-steps"), ("--learning-rate", "--lr")],
        *[("--learning_rate", "--lr"), ("--batch", "--batch-size"), ("--seq-len", "--seq-length")],
        *[("--rnn-size", "--hidden-size"), ("--hidden", "--hidden-size"), ("--gpu", "--backend cupy")],
        *[("--hidden_size", "--hidden-size"), ("--emmbedding-size", "--embedding-size")],
        ("--embedding", "--embedding-size or --embedding-dropout"),
    ],
)
def test_an_option_that_was_meant_is_named(trnn, option, meant):
    fails(
        trnn("train", "text.txt", option, "1"), 2, f"{option}; did you mean {meant}? (see trnn train --help)"
    )


def test_an_option_is_looked_for_in_its_command(trnn):
    fails(trnn("sample", "--temp", "1"), 2, "--temp; did you mean --temperature? (see trnn sample --help)")
    fails(trnn("train", "text.txt", "--temp", "1"), 2, "No such option: --temp (see trnn train --help)")


def test_every_translation_is_of_an_option_of_train():
    options = inspect.signature(train_command.train).parameters
    for there, here in ELSEWHERE.items():
        assert here.split()[0].replace("-", "_") in options
        assert there.replace("-", "_") not in options


def test_a_configuration_file(trnn, folder):
    (folder / "mine.toml").write_text('corpus = "text.txt"\nmax_steps = 1\nbatch_size = 4\nseq_length = 10\n')
    assert trnn("train", "--config", "mine.toml", "--run", "run")[0] == 0
    written = tomllib.loads((folder / "run" / "config.toml").read_text())
    assert written["corpus"] == [str(folder / "text.txt")]  # a resume finds it from anywhere
    for setting, said in [("seq_length = 0", "seq_length must be"), ("x-size = 1", "is called 'x-size'")]:
        (folder / "mine.toml").write_text(f'corpus = "text.txt"\n{setting}\n')
        fails(trnn("train", "--config", "mine.toml"), 2, "mine.toml: ", said)


def test_the_plan_of_a_training(trnn, folder):
    code, out, err = trnn("train", "text.txt", *TINY, "--dry-run")
    assert (code, err) == (0, "")
    assert "gru 1x8: 584 parameters, for 12 steps" in out
    assert "an epoch: 14 steps of 4 x 10 symbols" in out
    code, out, err = trnn("train", "text.txt", *TINY, "--dry-run", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["parameters"], facts["train_symbols"], facts["val_symbols"]) == (584, 561, 63)
    assert (facts["plan"]["steps"], facts["plan"]["steps_per_epoch"], facts["streams"]) == (12, 14, 4)
    assert facts["memory"] > 0
    assert not (folder / "runs").exists()


def test_what_is_trained_on_is_said(trnn, folder, monkeypatch):
    (folder / "letters").mkdir()
    (folder / "letters" / "a").write_text(TEXT)
    assert "letters/ (1 file), text.txt: " in trnn("train", "letters", "text.txt", *TINY, "--dry-run")[1]
    (folder / "letters" / "b").write_text(TEXT)
    assert "letters/ (2 files): 1,123 characters" in trnn("train", "letters", *TINY, "--dry-run")[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert trnn("train", "-", *TINY, "--dry-run")[1].startswith("standard input: 561 characters")
    short = trnn("train", "text.txt", *TINY, "--seq-length", 560, "--dry-run")[1]
    assert "1 stream instead of 4" in short and "an epoch: 1 step of" in short


def test_a_run_is_no_text(trnn, run):
    fails(trnn("train", "run"), 2, "run is a run; to go on with it: trnn train --resume run")


def test_samples_have_headings(trnn, folder):
    code, out, _ = trnn("train", "text.txt", *TINY, "--sample-every", 6, "--run", "run")
    assert code == 0
    headings = [f"--- step {step}, epoch 1 ---" for step in (6, 12)]
    assert [line for line in out.splitlines() if line.startswith("---")] == headings
    kept = (folder / "run" / "samples.txt").read_text()
    assert [line for line in kept.splitlines() if line.startswith("---")] == headings


def test_a_resume_takes_a_run_its_name_or_its_checkpoints(trnn, run, folder):
    (folder / "runs").mkdir()
    run.rename(folder / "runs" / "mine")
    for steps, named in enumerate(["runs/mine", "runs/mine/", "mine", "runs/mine/checkpoints"], 13):
        code, out, err = trnn("train", "--resume", named, "--max-steps", steps)
        assert (code, err) == (0, "")
        assert f"resume: exact, after step {steps - 1}\n" in out


def test_a_resume_from_a_damaged_checkpoint_offers_the_newest_intact_one(trnn, run):
    last = run / "checkpoints" / "step-00000012.safetensors"
    older = last.with_name("step-00000006.safetensors")
    older.write_bytes(last.read_bytes())
    last.write_bytes(last.read_bytes()[:-1])
    for named in ("run", f"run/checkpoints/{last.name}"):
        said = f"{last.name} is damaged", f"the newest intact one is run/checkpoints/{older.name}"
        fails(trnn("train", "--resume", named, "--max-steps", 14), 4, *said)


def test_what_no_resume_can_go_on_from(trnn, run, folder):
    fails(trnn("train", "--resume", "nowhere"), 2, "nowhere does not exist, neither here nor in runs/")
    fails(trnn("train", "--resume", "."), 2, "holds no run")
    fails(trnn("train", "--resume", "text.txt"), 4, "text.txt is not a checkpoint\n")
    for file in ("config.toml", "history.jsonl"):
        said = f"run/{file} is not a checkpoint; to go on with the run: trnn train --resume run"
        fails(trnn("train", "--resume", f"run/{file}"), 4, said)
    (folder / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    fails(trnn("train", "--resume", "best.safetensors"), 2, "does not lie in the folder of a run")
    (folder / "best.safetensors").write_text("other")
    fails(trnn("train", "--resume", "best.safetensors"), 4, "best.safetensors is not a checkpoint")
    fails(trnn("train", "--resume", "run", "--hidden-size", 9), 2, "error: --hidden-size cannot change when")


def test_a_text_that_has_moved(trnn, run, folder):
    (folder / "text.txt").rename(folder / "moved.txt")
    fails(trnn("train", "--resume", "run", "--max-steps", 14), 3, "trnn train NEWPATH --resume run")
    fails(trnn("train", "gone.txt", "--resume", "run", "--max-steps", 14), 3, "gone.txt'")
    assert trnn("train", "moved.txt", "--resume", "run", "--max-steps", 14)[0] == 0
    assert trnn("train", "--resume", "run", "--max-steps", 15)[0] == 0  # noted


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (["--max-steps", 7], "at step 12 of 7; raise --max-steps"),
        (["--max-steps", 100, "--minutes", 1e-9], "used; raise --minutes"),
        (["--max-steps", 100, "--patience", 2], "no better validation in 2; raise --patience"),
    ],
)
def test_a_run_at_its_end(trnn, folder, limits, said):
    options = ["--eval-every", "4", "--lr", "1e-30", "--average", "0", "--run", "run"]
    assert trnn("train", "text.txt", *TINY, *options)[0] == 0
    settings = (folder / "run" / "config.toml").read_text()
    code, out, err = trnn("train", "--resume", "run", *limits)
    assert (code, err) == (0, "")
    assert out.startswith("nothing left to do: ") and out.endswith(f"{said}\n") and out.count("\n") == 1
    assert trnn("train", "--resume", "run", *limits, "--quiet") == (0, "", "")
    records = trnn("train", "--resume", "run", *limits, "--json")[1].splitlines()
    assert [json.loads(record)["event"] for record in records] == ["started", "resumed", "finished"]
    assert (folder / "run" / "config.toml").read_text() == settings


def test_other_usage(trnn, run):
    fails(trnn("train"), 2, "a training needs a text")
    fails(trnn("trian"), 2, "trian", "trnn --help")
    fails(trnn("train", "text.txt", "--run", run), 2, "run holds a run already")
    fails(trnn("train", "text.txt", "--run", "text.txt"), 2, "text.txt is a file")
    fails(
        trnn("sample", run, "--temperature", "-1"),
        2,
        "--temperature must be 0 or a positive number, not -1.0",
    )
    fails(trnn("sample", run, "--checkpoint", "first"), 2, "best", "last")
    fails(trnn("sample", run, "--length", "0"), 2, "--length")
    fails(trnn("corpus", "make", "poems"), 2, "python")
    fails(trnn("corpus", "make", "python", "--size", "0"), 2, "--size", "500k")
    fails(trnn("corpus", "make", "python", "--output", "text.txt"), 2, "text.txt exists already")


def test_bad_data(trnn, folder):
    (folder / "empty.txt").touch()
    (folder / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    (folder / "short.txt").write_text("hello, world")
    fails(trnn("train", "missing.txt"), 3, "no file 'missing.txt'", "harbour")
    (folder / "nothing").mkdir()
    fails(trnn("train", folder / "nothing"), 3, "no text file in")
    fails(trnn("train", "text.txt", "another.txt"), 3, "another.txt")
    fails(trnn("train", "empty.txt"), 3, "empty.txt is empty")
    fails(trnn("train", "latin.txt"), 3, "byte 0xfc at offset 2", "--encoding bytes")
    fails(trnn("train", "short.txt"), 3, "short.txt", "need 51 symbols, found 10", "--seq-length")
    assert not (folder / "runs").exists()


def test_a_prime_that_the_model_does_not_know(trnn, run):
    fails(trnn("sample", run, "--prime", "the Zebra é\x1b"), 3, r"lacks: '\x1b', 'Z', 'b', 'r', 'é'")


def test_bad_checkpoints(trnn, run, folder):
    (folder / "garbage.safetensors").write_bytes(b"\xff" * 100)
    save_file({"weight": np.zeros(3)}, "foreign.safetensors")
    whole = (run / "best.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-10])
    (folder / "emptied").mkdir()
    fails(trnn("sample"), 4, "no run with a checkpoint in runs/")
    fails(trnn("sample", "missing"), 4, "missing does not exist, neither here nor in runs/")
    fails(trnn("sample", "emptied"), 4, "nor a folder with one in it")
    fails(trnn("sample", "text.txt"), 4, "text.txt is not a checkpoint")
    fails(trnn("sample", "garbage.safetensors"), 4, "garbage.safetensors is not a checkpoint")
    fails(trnn("sample", "foreign.safetensors"), 4, "not a checkpoint of this program")
    fails(trnn("sample", "cut.safetensors"), 4, "cut.safetensors")


def test_divergence(trnn):
    fails(trnn("train", "text.txt", *TINY, "--lr", "1e38", "--quiet"), 6, "at step", "--lr")


def test_failures_of_the_system(trnn, folder, monkeypatch):
    (folder / "file").touch()
    fails(trnn("train", "text.txt", *TINY, "--run", "file/run"), 1, "file/run")

    def no_room(self, run):
        raise OSError(28, "No space left on device", "runs/step")

    monkeypatch.setattr(CharTrainer, "train", no_room)
    fails(trnn("train", "text.txt", *TINY), 1, "runs/step: No space left on device")

    def no_memory(self, run):
        raise MemoryError("Unable to allocate 3 TiB")

    monkeypatch.setattr(CharTrainer, "train", no_memory)
    fails(trnn("train", "text.txt", *TINY), 1, "Unable to allocate 3 TiB")


def test_an_error_is_one_line_whatever_it_says(trnn, monkeypatch):
    def talkative(self, run):
        raise DivergedError("two\nlines \x1b[31mred\x07")

    monkeypatch.setattr(CharTrainer, "train", talkative)
    fails(trnn("train", "text.txt", *TINY), 6, "two lines [31mred\n")


def test_a_mistake_of_the_program_shows_where(trnn, monkeypatch):
    def broken(self, run):
        raise ZeroDivisionError

    monkeypatch.setattr(CharTrainer, "train", broken)
    with pytest.raises(ZeroDivisionError):
        trnn("train", "text.txt", *TINY)


def test_a_terminal_gets_nothing_that_it_obeys():
    assert printable("a\x1b[31mb\x07\x9b\r\n\tc\ud800ü") == "a[31mb\n\tcü"
    turned = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\ufeff\u200b"
    assert printable(f"a{turned}b") == "ab"
    spelled = "\u0645\u06cc\u200c\u062e \U0001f469\u200d\U0001f680 \u2764\ufe0f"
    assert printable(spelled) == spelled
    assert one_line("a\n  b\x00") == "a b"


def test_markup_in_a_text_is_only_text(trnn, folder):
    (folder / "[red]text.txt").write_text("[red][/] \\[" * 60)
    code, out, err = trnn("train", "[red]text.txt", *TINY, "--sample-every", 6)
    assert (code, err) == (0, "")
    assert "[red]text.txt: 594 characters" in out


def test_durations():
    assert [clock(s) for s in (0, 59.6, 61, 3600, 36_610)] == ["0:00", "1:00", "1:01", "1:00:00", "10:10:10"]


def test_the_whole_way_from_python(trnn, run):
    model, vocabulary, meta = load(run)
    assert meta["corpus"] == "text"
    assert model.vocab_size == len(vocabulary) == 16
    assert find_checkpoint(run).name == "best.safetensors"


def test_kernels_that_are_not_there(trnn, run, monkeypatch):
    monkeypatch.setenv("TINYGRAD_RNN_KERNELS", "fast")
    said = "error: TINYGRAD_RNN_KERNELS: no kernels are called 'fast'; there are numpy, numba"
    fails(trnn("train", "text.txt", *TINY, "--run", "other"), 2, said)
    fails(trnn("sample", run), 1, said)
    monkeypatch.setattr("tinygrad_rnn.engine.ops.fused._lacking", lambda: "Numba: pip install it")
    fails(trnn("train", "text.txt", "--kernels", "numba"), 2, "the numba kernels need Numba: pip install it")


def test_the_first_time_that_kernels_are_used_is_said_to_take_long(trnn, run, monkeypatch):
    pytest.importorskip("numba")
    from tinygrad_rnn.engine.ops.fused import jit

    monkeypatch.setenv("TINYGRAD_RNN_KERNELS", "numba")
    monkeypatch.setattr(jit, "cache_folder", lambda: run)  # a folder without them
    assert "compiling the kernels for this machine" in trnn("sample", run, "--length", 1)[2]
    (run / "writing.write-9.py311.1.nbc").touch()
    assert "compiling" not in trnn("sample", run, "--length", 1)[2]
