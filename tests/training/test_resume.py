"""N + M steps are N steps, an end without warning, and M steps: in every file, to the last byte."""

import itertools
import json
import math
import os
import re
import tracemalloc
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinygrad_rnn.errors import CheckpointError, DataError, InexactError, UsageError
from tinygrad_rnn.models import KINDS, archive, load
from tinygrad_rnn.models.files import numbered
from tinygrad_rnn.optim.optimizers import OPTIMIZERS
from tinygrad_rnn.optim.schedules import SCHEDULES
from tinygrad_rnn.training import RunFolder, characters, events
from tinygrad_rnn.training.config import SETTINGS

from .interrupted import Killed, Training, at

DROPOUTS = {
    "none": {},
    "dropout": {"dropout": 0.3},
    "variational": {"dropout": 0.3, "variational": True},
    "embedding": {"embedding_dropout": 0.4},
    "weights": {"weight_dropout": 0.4},
}
MOMENTS = [events.Stepped, events.Evaluated, events.Sampled, events.Saved]


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Nothing here is about the length of samples, or a disk that loses power; both take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(characters, "SAMPLE_LENGTH", 10)
        yield


def check_law(folder, **chosen):
    settings = {"max_steps": 6, "checkpoint_every": 2, "eval_every": 3, "sample_every": 4, "layers": 2}
    whole = Training(folder / "whole", **(settings | chosen)).begin()
    parts = Training(folder / "parts", **(settings | chosen)).begin(kill=at(events.Stepped, 3)).go_on()
    assert whole.outcome == parts.outcome
    assert len(whole.outcome) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_network_and_optimiser(tmp_path, kind, optimizer):
    check_law(tmp_path, kind=kind, optimizer=optimizer, dropout=0.3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", DROPOUTS)
def test_every_network_and_dropout(tmp_path, kind, dropout):
    check_law(tmp_path, kind=kind, **DROPOUTS[dropout])


@pytest.mark.skipif(find_spec("numba") is None, reason="needs Numba")
@pytest.mark.parametrize("kind", KINDS)
def test_shards(tmp_path, kind):
    check_law(tmp_path, kind=kind, kernels="numba", threads=2, batch_size=14)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dropout", DROPOUTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_of_them_with_all_of_them(tmp_path, kind, optimizer, dropout, schedule):
    check_law(tmp_path, kind=kind, optimizer=optimizer, schedule=schedule, **DROPOUTS[dropout])


@st.composite
def trainings(draw):
    """Settings that change what a checkpoint has to remember."""
    chosen = {
        "kind": draw(st.sampled_from(list(KINDS))),
        "optimizer": draw(st.sampled_from(list(OPTIMIZERS))),
        "schedule": draw(st.sampled_from(list(SCHEDULES))),
        "layers": draw(st.integers(1, 2)),
        "max_steps": draw(st.integers(2, 30)),
        "batch_size": draw(st.sampled_from([4, 4, 1, 50])),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "kernels": draw(st.sampled_from(["numpy", "numba"])),
        "threads": draw(st.sampled_from([None, 1, 3])),
        **draw(st.sampled_from(list(DROPOUTS.values()))),
    }
    several = {
        "average": 0.8,
        "accumulate": 3,
        "tie_weights": True,
        "clip": math.inf,
        "min_count": 6,
        "warmup": 9,
        "patience": 2,
        "val_fraction": 0.3,
        "encoding": "bytes",
    }
    for name in draw(st.sets(st.sampled_from(list(several)))):
        chosen[name] = several[name]
    chosen["batch_size"] = max(chosen["batch_size"], chosen.get("accumulate", 1))
    for name in ("checkpoint_every", "eval_every", "sample_every"):
        chosen[name] = draw(st.integers(1, 15))
    return chosen


def check_deaths(folder, chosen, data):
    """However often it is killed, at whatever moment, it ends as if it had not been."""
    whole = Training(folder / "whole", **chosen).begin()
    moment = st.tuples(st.sampled_from(MOMENTS), st.integers(1, chosen["max_steps"]))
    first, *others = data.draw(st.lists(moment, min_size=1, max_size=3))
    parts = Training(folder / "parts", **chosen).begin(kill=at(*first))
    for other in others:
        parts.go_on(kill=at(*other))
    parts.go_on()
    assert whole.outcome == parts.outcome


@given(chosen=trainings(), data=st.data())
def test_whatever_the_settings_and_however_often(tmp_path_factory, chosen, data):
    check_deaths(tmp_path_factory.mktemp("deaths"), chosen, data)


@pytest.mark.slow
@given(chosen=trainings(), data=st.data())
@settings(max_examples=300)
def test_whatever_the_settings_and_however_often_at_length(tmp_path_factory, chosen, data):
    check_deaths(tmp_path_factory.mktemp("deaths"), chosen, data)


@pytest.mark.parametrize(
    "settings", [{}, {"max_steps": 8, "checkpoint_every": 2, "eval_every": 2, "keep": 1}]
)
def test_an_end_before_or_after_any_file_gets_its_name(tmp_path, monkeypatch, settings):
    """Several files belong to a step, and the process may die between them."""
    renamings, deadly, replace_file = 0, math.inf, os.replace

    def replace(temporary, file):
        nonlocal renamings
        renamings += 1
        if 2 * renamings == deadly:
            raise Killed
        replace_file(temporary, file)
        if 2 * renamings + 1 == deadly:
            raise Killed

    monkeypatch.setattr(os, "replace", replace)
    whole = Training(tmp_path / "whole", **settings).begin()
    for moment in range(4, 2 * renamings + 2):  # from the first file after the settings on
        renamings, deadly = 0, moment
        parts = Training(tmp_path / str(moment), **settings).begin()
        renamings, deadly = 0, math.inf
        assert parts.go_on().outcome == whole.outcome, moment


@given(chosen=trainings(), data=st.data())
@settings(max_examples=10)
def test_an_end_on_request_changes_nothing_either(tmp_path_factory, chosen, data):
    folder = tmp_path_factory.mktemp("stopped")
    whole = Training(folder / "whole", **chosen).begin()
    step = data.draw(st.integers(1, chosen["max_steps"]))
    parts = Training(folder / "parts", **chosen).begin(stop=at(events.Stepped, step)).go_on()
    assert whole.outcome == parts.outcome


@pytest.mark.parametrize("limit", [{}, {"max_steps": 30, "patience": 1, "lr": 0.5, "eval_every": 3}])
def test_a_stop_asked_for_in_the_last_step_leaves_its_validation_to_the_resume(tmp_path, limit):
    whole = Training(tmp_path / "whole", **limit).begin()
    last = whole.events[-1]
    stopped = Training(tmp_path / "parts", **limit).begin(stop=at(events.Stepped, last.step))
    assert stopped.events[-1].reason == "interrupted" and not load(stopped.last).meta["finished"]
    stopped.go_on()
    assert not stopped.of(events.Stepped) and stopped.events[-1].reason == last.reason
    assert whole.outcome == stopped.outcome


@given(chosen=trainings(), data=st.data())
@settings(max_examples=10)
def test_a_validation_can_be_stopped(tmp_path_factory, chosen, data):
    """At any of its windows; the resume makes it, and what else was due after that step."""
    folder = tmp_path_factory.mktemp("validation")
    whole = Training(folder / "whole", **chosen).begin()
    moments = whole.of(events.Evaluating)
    assume(moments)
    moment = data.draw(st.integers(0, len(moments) - 1))
    count = itertools.count()
    parts = Training(folder / "parts", **chosen)
    parts.begin(stop=lambda event: isinstance(event, events.Evaluating) and next(count) == moment)
    assert parts.events[-1].reason == "interrupted"
    assert parts.events[-1].step == moments[moment].step
    assert parts.go_on().outcome == whole.outcome


def test_looking_at_a_training_does_not_change_its_numbers(tmp_path):
    """Neither evaluation nor samples nor checkpoints, in any number, and neither does a resume in between."""
    chosen = {"dropout": 0.3, "max_steps": 20, "average": 0.9}
    plain = Training(tmp_path / "plain", **chosen, checkpoint_every=100, eval_every=100).begin()
    watched = Training(tmp_path / "watched", **chosen, checkpoint_every=3, eval_every=2, sample_every=5)
    watched.begin(kill=at(events.Stepped, 13)).go_on()
    (one, its), (other, others) = archive.read(plain.last), archive.read(watched.last)
    assert its.keys() == others.keys()
    for name, array in its.items():
        np.testing.assert_array_equal(array, others[name])
    assert one["training"]["random"] == other["training"]["random"]


# --- where a training goes on from ------------------------------------------------------------------


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(tmp_path):
    whole = Training(tmp_path / "whole", sample_every=2, eval_every=100).begin()
    parts = Training(tmp_path / "parts", sample_every=2, eval_every=100).begin(kill=at(events.Stepped, 5))
    assert not list((parts.folder / "checkpoints").iterdir())
    parts.go_on()
    assert parts.events[1] == events.Resumed(0, None, ())
    assert whole.outcome == parts.outcome


def test_a_run_that_died_between_its_settings_and_its_folder_of_checkpoints(tmp_path):
    whole = Training(tmp_path / "whole").begin()
    parts = Training(tmp_path / "parts").begin(kill=at(events.Started, 0))
    (parts.folder / "checkpoints").rmdir()
    assert parts.go_on().outcome == whole.outcome


def test_an_earlier_checkpoint_by_name(tmp_path):
    """What came after it is kept aside, and made anew."""
    training = Training(tmp_path, checkpoint_every=3, keep=10, eval_every=2, sample_every=2).begin()
    whole = training.outcome
    names = [path.name for path in numbered(training.folder)]
    assert len(names) == 4
    contents = {name: (training.folder / "checkpoints" / name).read_bytes() for name in names}
    training.go_on(file=training.folder / "checkpoints" / names[1])
    assert training.events[1].step == 6
    assert training.outcome == whole
    superseded = training.folder / "superseded"
    assert sorted(path.name for path in superseded.iterdir()) == ["best.safetensors", *names[2:]]
    assert all((superseded / name).read_bytes() == contents[name] for name in names[2:])
    assert [path.name for path in numbered(training.folder)] == names


def test_steps_of_nine_digits_come_after_those_of_eight(tmp_path):
    training = Training(tmp_path, checkpoint_every=4).begin()
    later = training.folder / "checkpoints" / "step-100000000.safetensors"
    later.write_bytes(training.last.read_bytes())
    run = RunFolder(training.folder)
    assert run.latest_checkpoint() == later
    run.go_back(99_999_999, 0)
    assert not later.exists() and (training.folder / "superseded" / later.name).exists()


def test_the_best_checkpoint_can_be_gone_on_from(tmp_path):
    whole = Training(tmp_path / "whole", eval_every=4).begin()
    parts = Training(tmp_path / "parts", eval_every=4).begin(stop=at(events.Stepped, 9))
    assert parts.last.name == "step-00000009.safetensors"
    parts.go_on(file=parts.folder / "best.safetensors")
    assert parts.events[1].step == 8
    assert whole.outcome == parts.outcome


def test_a_superseded_checkpoint_can_be_gone_on_from(tmp_path):
    """Even where nothing is left to do, and no other checkpoint is there."""
    training = Training(tmp_path, keep=1).begin()
    superseded = training.folder / "superseded" / training.last.name
    superseded.parent.mkdir()
    training.last.rename(superseded)
    training.go_on(file=superseded)
    assert training.of(events.Stepped) == []
    assert training.events[-1].checkpoint == training.last
    assert training.last.read_bytes() == superseded.read_bytes()


def test_the_best_checkpoint_is_where_a_killed_training_goes_on_if_it_is_the_latest(tmp_path):
    parts = Training(tmp_path, eval_every=4, checkpoint_every=100, lr=1e-4).begin(kill=at(events.Stepped, 10))
    assert not numbered(parts.folder)
    parts.go_on()
    assert parts.events[1] == events.Resumed(8, parts.folder / "best.safetensors", ())


def test_nothing_put_aside_is_overwritten(tmp_path):
    training = Training(tmp_path, checkpoint_every=4, keep=10).begin()
    first = numbered(training.folder)[0]
    for _ in range(2):
        training.go_on(file=first)
    names = {path.name for path in (training.folder / "superseded").iterdir()}
    assert {"step-00000008.safetensors", "step-00000008-2.safetensors"} <= names
    training.go_on(file=training.folder / "superseded" / "step-00000008-2.safetensors")
    assert training.events[1].step == 8


def test_putting_aside_takes_no_memory_to_speak_of(tmp_path):
    training = Training(tmp_path, checkpoint_every=4).begin()
    with RunFolder.open(training.folder) as run:
        tracemalloc.start()
        run.go_back(4, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len([*(training.folder / "superseded").iterdir()]) == 3
    assert peak < 10_000_000


def test_a_best_from_a_time_that_was_given_up_does_not_stay(tmp_path):
    training = Training(tmp_path, checkpoint_every=2, keep=100, eval_every=2).begin()
    best = load(training.folder / "best.safetensors").meta
    training.go_on(file=numbered(training.folder)[0], kill=at(events.Evaluated, 4))
    assert best["step"] > 4
    assert not (training.folder / "best.safetensors").exists() or (
        load(training.folder / "best.safetensors").meta["step"] <= 4
    )


def test_another_length_is_said_to_change_the_learning_rate(tmp_path):
    training = Training(tmp_path).begin()
    said = training.resumed(replace(training.config, max_steps=24)).length_changed
    assert said.endswith("learning rate goes by it: 0 -> 0.01")
    assert training.resumed(training.config).length_changed is None
    flat = Training(tmp_path / "flat", schedule="constant").begin()
    assert flat.resumed(replace(flat.config, max_steps=24)).length_changed is None


def test_what_was_inexact_once_stays_so(tmp_path):
    training = Training(tmp_path, checkpoint_every=4).begin(kill=at(events.Stepped, 6))
    header, arrays = archive.read(training.last)
    header["training"]["fingerprint"]["numpy"] = "0.1"
    del header["digest"], header["format"]
    archive.write(training.last, header, arrays)
    training.go_on(kill=at(events.Stepped, 10))
    training.go_on()
    [reason] = training.events[1].reasons
    assert reason.startswith("numpy 0.1 -> ")


def test_another_text_begins_with_an_empty_state(tmp_path):
    training = Training(tmp_path, checkpoint_every=5).begin(kill=at(events.Stepped, 7))
    training.text.write_text(training.text.read_text() * 2, encoding="utf-8")
    with RunFolder.open(training.folder) as run:
        trainer = training.trainer(run.config())
        trainer.resume(run, force=True)
        assert trainer.state is None


def test_a_damaged_checkpoint_is_refused_and_the_newest_intact_one_offered(tmp_path):
    training = Training(tmp_path, checkpoint_every=4, keep=10).begin()
    *_, older, last = numbered(training.folder)
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{last.name} is damaged.*newest intact one is .*{older.name}"):
        training.go_on()
    training.go_on(file=older)
    archive.check(training.last)


class Seconds:
    """A clock that goes on by a second whenever somebody looks."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_the_time_of_a_training_goes_on_where_it_was(tmp_path):
    training = Training(tmp_path, clock=Seconds(), max_steps=None, minutes=2.0, checkpoint_every=1)
    training.begin(kill=at(events.Stepped, 5))
    saved = training.of(events.Saved)[-1].step
    before = next(event for event in training.of(events.Stepped) if event.step == saved)
    training.clock.now += 10_000  # of a process that was not there
    training.go_on()
    first = training.of(events.Stepped)[0]
    assert first.step == saved + 1
    assert before.elapsed < first.elapsed < before.elapsed + 30
    assert training.events[-1].reason == "minutes"
    assert 120 <= training.events[-1].elapsed < 150
    seconds = [json.loads(line)["seconds"] for line in training.history]
    assert seconds == sorted(seconds)


# --- what may change --------------------------------------------------------------------------------

OTHER = {
    "kind": "gru",
    "optimizer": "sgd",
    "schedule": "linear",
    "encoding": "bytes",
    "on_nan": "skip",
    "normalize": "nfc",
    "val_file": "elsewhere.txt",
    "corpus": "elsewhere.txt",
    "weight_decay": 0.1,
    "embedding_dropout": 0.1,
    "clip": math.inf,
    "backend": "numpy",
    "kernels": "numba",
}


def other(name, value):
    """Another value of a setting."""
    if name in OTHER:
        return OTHER[name]
    if isinstance(value, bool):
        return not value
    return {type(None): 3, int: 3, float: 0.25}[type(value)]


CHANGEABLE = [name for name, setting in SETTINGS.items() if setting.metadata["changeable"]]
# Adam, which these trainings use, has no momentum that could be another one.
FIXED = [name for name in SETTINGS if name not in (*CHANGEABLE, "momentum")]


def test_which_settings_may_change():
    assert set(CHANGEABLE) == {
        *("corpus", "val_file", "backend", "kernels", "threads", "on_nan", "epochs", "max_steps", "minutes"),
        *("patience", "eval_every", "sample_every", "checkpoint_every", "keep"),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return Training(tmp_path_factory.mktemp("finished")).begin()


@pytest.mark.parametrize("name", FIXED)
def test_any_other_is_refused_by_name(finished, name):
    value = other(name, getattr(finished.config, name))
    with pytest.raises(UsageError, match=f"{name} cannot change when a run goes on: it is .*, not"):
        finished.config.changed({name: value})
    changed = replace(finished.config, **{name: value})
    with pytest.raises(UsageError, match=f"{name} cannot change .* in .*safetensors, not"):
        finished.resumed(changed)


@pytest.mark.parametrize("name", CHANGEABLE)
def test_those_that_may_are_accepted(finished, name):
    if name in ("corpus", "val_file"):  # another path of the same text
        text = finished.text.with_name("elsewhere.txt")
        text.write_bytes(finished.text.read_bytes())
        value = [str(text)] if name == "corpus" else None
    else:
        value = other(name, getattr(finished.config, name))
    changed = finished.config if value is None else finished.config.changed({name: value})
    resumed = finished.resumed(changed)
    assert resumed.step == 12
    assert all(name in reason for reason in resumed.reasons)
    assert bool(resumed.reasons) == (name in ("threads", "kernels"))


def test_another_text_is_refused_but_under_force(tmp_path):
    training = Training(tmp_path, checkpoint_every=4).begin(kill=at(events.Stepped, 6))
    training.text.write_text(training.text.read_text()[::-1])
    with pytest.raises(DataError, match=r"the text is not the one that .*step-00000004.* --force"):
        training.go_on()
    training.go_on(force=True)
    assert training.events[1].reasons == ("another text",)
    training.text.write_text(training.text.read_text().upper())
    with pytest.raises(DataError, match="the text has other symbols than the model"):
        training.go_on(force=True)


def test_what_computes_is_compared_with_what_computed(tmp_path):
    training = Training(tmp_path, checkpoint_every=4).begin(kill=at(events.Stepped, 6))
    header, arrays = archive.read(training.last)
    del header["digest"]
    header["training"]["fingerprint"]["numpy"] = "1.0"
    archive.write(training.last, header, arrays)
    before = training.outcome
    with pytest.raises(InexactError, match=rf"would be inexact \(numpy 1\.0 -> {np.__version__}\)"):
        training.go_on(require_exact=True)
    assert training.outcome == before
    training.go_on()
    assert training.events[1].reasons == (f"numpy 1.0 -> {np.__version__}",)


def hostile_headers():
    """What a training in a file may be, and must not."""
    return [
        lambda t: None,
        lambda t: {},
        lambda t: {**t, "config": {**t["config"], "lr": -1}},
        lambda t: {**t, "config": {**t["config"], "unknown": 1}},
        lambda t: {**t, "standing": {**t["standing"], "step": -1}},
        lambda t: {**t, "standing": {**t["standing"], "step": 1.5}},
        lambda t: {**t, "standing": {**t["standing"], "best_loss": "low"}},
        lambda t: {**t, "standing": {**t["standing"], "rewound": "often"}},
        lambda t: {**t, "standing": {**t["standing"], "since_record": {"symbols": "x", "nats": None}}},
        lambda t: {**t, "standing": []},
        lambda t: {**t, "optimizer_steps": "many"},
        lambda t: {**t, "random": [[1, 2], {}]},
        lambda t: {**t, "random": [["x", "y", "z"], t["random"][1]]},
        lambda t: {**t, "random": [t["random"][0], {**t["random"][1], "bit_generator": "MT19937"}]},
        lambda t: {**t, "time": {"elapsed": math.nan, "since_record": 0}},
        lambda t: {**t, "time": {"elapsed": "long", "since_record": 0}},
    ]


@pytest.mark.parametrize("number", range(len(hostile_headers())))
def test_a_strange_training_in_an_intact_file_is_refused(tmp_path, number):
    training = Training(tmp_path, max_steps=2).begin()
    header, arrays = archive.read(training.last)
    del header["digest"]
    header["training"] = hostile_headers()[number](header["training"])
    archive.write(training.last, header, arrays)
    with pytest.raises(CheckpointError, match=re.escape(training.last.name)):
        training.go_on()


@pytest.mark.parametrize("wrong", ["missing", "shape", "dtype"])
@pytest.mark.parametrize("array", ["optimizer/first/embedding.weight", "state/0"])
def test_strange_arrays_in_an_intact_file_are_refused(tmp_path, array, wrong):
    training = Training(tmp_path, max_steps=2).begin()
    header, arrays = archive.read(training.last)
    del header["digest"]
    array = next(name for name in arrays if name.startswith(array.split("/")[0]))
    if wrong == "missing":
        del arrays[array]
    else:
        arrays[array] = arrays[array][..., :1] if wrong == "shape" else arrays[array].astype("float64")
    archive.write(training.last, header, arrays)
    with pytest.raises(CheckpointError, match=re.escape(training.last.name)):
        training.go_on()
