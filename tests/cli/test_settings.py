"""Where a setting of `trnn train` comes from: its default, a preset, a file, an option; the later wins."""

import json
import math
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_rnn.models import KINDS
from tinygrad_rnn.optim.schedules import SCHEDULES
from tinygrad_rnn.training import TrainConfig
from tinygrad_rnn.training.config import PRESETS, SETTINGS
from tinygrad_rnn.training.settings import ON_NAN
from trnn_cli.main import main

PART = st.floats(0, 0.9)
STEPS = st.integers(1, 50)
VALUES = {
    "encoding": st.sampled_from(["utf-8", "bytes"]),
    "min_count": st.integers(1, 3),
    "val_fraction": st.floats(0.2, 0.4),
    "kind": st.sampled_from(list(KINDS)),
    "layers": st.integers(1, 3),
    "hidden_size": st.integers(1, 9),
    "embedding_size": st.integers(1, 9),
    "dropout": PART,
    "embedding_dropout": PART,
    "weight_dropout": PART,
    "variational": st.booleans(),
    "batch_size": st.integers(5, 9),
    "seq_length": st.integers(2, 9),
    "accumulate": st.integers(1, 5),
    "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
    "lr": st.floats(1e-30, 1e30),
    "schedule": st.sampled_from(list(SCHEDULES)),
    "warmup": st.integers(0, 50),
    "weight_decay": PART,
    "clip": st.floats(1e-3, 1e3) | st.just(math.inf),
    "average": PART,
    "seed": st.integers(0, 2**64 - 1),
    "threads": st.integers(1, 4),
    "on_nan": st.sampled_from(ON_NAN),
    "epochs": STEPS,
    "minutes": st.floats(0.1, 100),
    "max_steps": STEPS,
    "patience": STEPS,
    "eval_every": STEPS,
    "sample_every": STEPS,
    "checkpoint_every": STEPS,
    "keep": st.integers(1, 9),
}
SOME = st.fixed_dictionaries({}, optional=VALUES)


def test_hardly_any_setting_is_left_out_here():
    assert set(SETTINGS) - set(VALUES) == {
        "corpus",
        "normalize",
        "val_file",
        "tie_weights",
        "backend",
        "kernels",
        "momentum",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder to be in, with a text."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "text.txt").write_text("the cat sat on the mat.\n" * 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def plan(folder):
    """plan(file, *options): what --dry-run --json says, after a file of the given settings was written."""

    def plan(file, *options):
        lines = [f"{name} = {toml(value)}" for name, value in file.items()]
        (folder / "some.toml").write_text("\n".join(lines))
        given = ["--config", "some.toml"] if file else []
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            code = main(["train", "text.txt", "--dry-run", "--json", *given, *options])
        return code, json.loads(out.getvalue()) if code == 0 else out.getvalue(), err.getvalue()

    return plan


def toml(value):
    return str(value) if value == math.inf else json.dumps(value)


def option(name, value):
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


@given(preset=st.sampled_from([None, *PRESETS]), file=SOME, options=SOME)
def test_options_win_over_the_file_and_that_over_the_preset(folder, plan, preset, file, options):
    given = [part for name, value in options.items() for part in option(name, value)]
    given += ["--preset", preset] if preset else []
    code, found, err = plan(file, *given)
    assert (code, err) == (0, "")
    expected = {**(PRESETS[preset] if preset else {}), **file, **options}
    wanted = TrainConfig(corpus=str(folder / "text.txt"), **expected).to_json()
    assert found["settings"] == wanted | ({"clip": None} if wanted["clip"] == math.inf else {})


def test_what_is_planned_is_what_they_say(plan):
    """Not the settings alone arrive, but the model and the plan that they describe."""
    file = {"kind": "rnn", "layers": 1, "hidden_size": 4, "embedding_size": 3, "max_steps": 7}
    found = plan(file, "--max-steps", "9", "--hidden-size", "5", "--eval-every", "2")[1]
    symbols = found["vocabulary"]
    assert found["parameters"] == symbols * 3 + (5 * 3 + 5 * 5 + 5 + 5) + (symbols * 5 + symbols)
    assert (found["plan"]["steps"], found["plan"]["eval_every"]) == (9, 2)


@given(data=st.data())
def test_a_slip_in_a_file_is_named_with_what_was_meant(plan, data):
    name = data.draw(st.sampled_from([name for name in SETTINGS if len(name) > 3]))
    place = data.draw(st.integers(0, len(name) - 1))
    slip = data.draw(
        st.sampled_from(
            [
                name[:place] + name[place + 1 :],
                name[:place] + name[place] + name[place:],
                name.replace("_", "-", 1) if "_" in name else name + "s",
            ]
        )
    )
    code, out, err = plan({slip: 1})
    assert (code, out) == (2, "")
    assert err == f"trnn: error: some.toml: no setting is called {slip!r}; did you mean {name}?\n"


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ({"layers": 0}, [], "some.toml: layers must be at least 1, not 0"),
        ({"layers": 2}, ["--layers", "0"], "--layers must be at least 1, not 0"),
        ({"layers": 0}, ["--hidden-size", "0"], "some.toml: layers must be at least 1, not 0"),
        ({"accumulate": 60}, [], "some.toml: accumulate must be at most the batch size, not 60"),
        ({"zzzzz": 0}, ["--layers", "1"], "some.toml: no setting is called 'zzzzz'; trnn train --help tells"),
    ],
)
def test_a_mistake_is_said_of_where_it_is(plan, file, options, said):
    code, out, err = plan(file, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"trnn: error: {said}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ({"accumulate": 60}, ["--batch-size", "64"]),
        ({"tie_weights": True}, ["--embedding-size", "128"]),
        ({"val_fraction": 0, "schedule": "plateau"}, ["--val-fraction", "0.3"]),
        ({"layers": 0}, ["--layers", "1"]),
    ],
)
def test_a_file_may_be_made_whole_by_options(plan, file, options):
    """What counts is all of it together: half of it need not make sense by itself."""
    code, _, err = plan(file, *options)
    assert (code, err) == (0, "")
