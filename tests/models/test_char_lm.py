"""CharLM: its shapes, its loss, its options, and the file it is kept in."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.errors import CheckpointError, DataError, UsageError
from tinygrad_rnn.models import KINDS, CharLM, archive, detach_state, find_checkpoint, load, save
from tinygrad_rnn.text.vocabulary import Vocabulary

kinds = pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
WORDS = Vocabulary.of("abcdefg")


def tiny(kind="lstm", **options):
    return CharLM(7, kind, embedding_size=4, hidden_size=5, num_layers=2, **options)


def symbols(T=6, B=3):
    return np.random.default_rng(0).integers(0, 7, (T, B))


@kinds
def test_shapes_and_the_state_carried_on(kind):
    model, x = tiny(kind), symbols()
    logits, state = model(x)
    assert logits.shape == (6, 3, 7)
    for s in state if kind == "lstm" else (state,):
        assert s.shape == (2, 3, 5)
    first, state = model(x[:2])
    second, _ = model(x[2:], detach_state(state))
    np.testing.assert_allclose(
        np.concatenate([first.numpy(), second.numpy()]), logits.numpy(), rtol=1e-4, atol=1e-6
    )


@kinds
def test_loss_is_the_cross_entropy_of_the_logits(kind):
    model, x = tiny(kind), symbols(7)
    loss, _ = model.loss(x[:-1], x[1:])
    with tg.no_grad():
        logits, _ = model(x[:-1])
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(-1, keepdims=True)
    picked = np.take_along_axis(p, x[1:, :, None], -1)
    assert loss.item() == pytest.approx(-np.log(picked).mean(), rel=1e-5)
    assert loss.item() == pytest.approx(math.log(7), rel=0.25), "untrained, it knows nothing"


@kinds
def test_every_parameter_gets_a_gradient(kind):
    model, x = tiny(kind), symbols(7)
    model.loss(x[:-1], x[1:])[0].backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and np.abs(p.grad.numpy()).max() > 0, name


def test_a_few_steps_learn_a_text_by_heart():
    tg.manual_seed(0)
    model = tiny(dropout=0.0)
    x = np.array([[0, 1, 2, 3, 4, 5, 6] * 2]).T
    optimizer = tg.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(150):
        model.zero_grad()
        loss, _ = model.loss(x[:-1], x[1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_tied_weights_are_one_table():
    with pytest.raises(UsageError, match="embedding_size 4, hidden_size 5; set embedding_size to 5"):
        tiny(tie_weights=True)
    model = CharLM(7, embedding_size=5, hidden_size=5, tie_weights=True)
    assert model.output.weight is model.embedding.weight
    assert "output.weight" not in model.state_dict()


def test_dropout_only_in_training():
    model, x = tiny(dropout=0.5), symbols()
    assert (model(x)[0].numpy() != model(x)[0].numpy()).any()
    model.eval()
    np.testing.assert_array_equal(model(x)[0].numpy(), model(x)[0].numpy())


@kinds
@given(
    dropout=st.sampled_from([0.0, 0.5]),
    variational=st.booleans(),
    embedding_dropout=st.sampled_from([None, 0.0, 0.5]),
    weight_dropout=st.sampled_from([0.0, 0.5]),
)
def test_dropout_is_drawn_where_it_was_asked_for(kind, **options):
    """The scores are those of the parts, each with its own dropout, put together by hand."""
    model, x = tiny(kind, **options), symbols()
    assert model.config() | options == model.config()
    tg.manual_seed(3)
    logits, _ = model(x)
    time = 0 if options["variational"] else None
    p = options["dropout"]
    first = p if options["embedding_dropout"] is None else options["embedding_dropout"]
    between = {"dropout": p, "variational": options["variational"]}
    rnn = KINDS[kind](4, 5, 2, **between, weight_dropout=options["weight_dropout"])
    rnn.load_state_dict(model.rnn.state_dict())
    tg.manual_seed(3)
    outputs, _ = rnn(tg.dropout(model.embedding(x), first, shared_axis=time))
    expected = model.output(tg.dropout(outputs, p, shared_axis=time))
    np.testing.assert_array_equal(logits.numpy(), expected.numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "transformer"}, "'transformer'; there are lstm, gru, rnn"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"dropout": 1.0}, "^dropout must be at least 0 and below 1, not 1.0"),
        ({"embedding_dropout": -0.5}, "embedding_dropout must be at least 0 and below 1, not -0.5"),
        ({"weight_dropout": 1}, "weight_dropout must be at least 0 and below 1, not 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UsageError, match=message):
        CharLM(7, **options)


def test_a_symbol_outside_the_vocabulary_is_named():
    with pytest.raises(DataError, match="symbol 7 is outside the table of 7"):
        tiny()(np.array([[7]]))
    with pytest.raises(DataError, match="target 9 is outside the 7 symbols"):
        tiny().loss(np.array([[0]]), np.array([[9]]))


@kinds
def test_save_and_load_give_the_same_model(kind, tmp_path):
    model = tiny(kind, dropout=0.1, variational=True, embedding_dropout=0.2, weight_dropout=0.3)
    save(tmp_path / "m.safetensors", model, WORDS, {"step": 3})
    loaded = load(tmp_path / "m.safetensors")
    assert loaded.model.config() == model.config() and loaded.meta == {"step": 3}
    assert loaded.vocabulary.decode([0, 6]) == "ag"
    np.testing.assert_array_equal(loaded.model(symbols())[0].numpy(), model.eval()(symbols())[0].numpy())
    assert list(tmp_path.iterdir()) == [tmp_path / "m.safetensors"], "no temporary file is left"


def test_saving_over_a_file_that_cannot_be_replaced_keeps_it(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save(path, tiny(), WORDS, {"step": 1})

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(path, tiny(), WORDS, {"step": 2})
    monkeypatch.undo()
    assert load(path).meta == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(CheckpointError, match="is not a checkpoint of this program, or is damaged"):
        load(path)
    archive.write(path, {}, {"a": np.ones(1)})
    with pytest.raises(CheckpointError, match="does not hold a model of this program: its header has"):
        load(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="neither a checkpoint nor a folder with one"):
        load(tmp_path / "empty")


def test_beside_a_damaged_file_the_newest_intact_one_is_named(tmp_path):
    for step in (2, 10, 100):
        save(tmp_path / f"checkpoints/step-{step:08d}.safetensors", tiny(), WORDS, {})
    for step in (10, 100):
        os.truncate(tmp_path / f"checkpoints/step-{step:08d}.safetensors", 100)
    with pytest.raises(CheckpointError, match=r"step-00000100.* is damaged.*; .* one is .*step-00000002"):
        load(tmp_path)


def changed(path, model=None, **arrays):
    """The file with some arrays and parts of the model's description changed, and the right digest."""
    header, before = archive.read(path)
    del header["digest"], header["format"]
    archive.write(path, header | {"model": header["model"] | (model or {})}, before | arrays)


def test_a_checkpoint_of_another_shape_shows_the_shapes(tmp_path):
    path = tmp_path / "m.safetensors"
    save(path, tiny(), WORDS, {})
    changed(path, **{"output.bias": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"output.bias has shape \(3,\) instead of \(7,\)"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 9}, "the vocabulary has 7 symbols, the model 9"),
        ({"num_layers": 10**9}, "its description"),
        ({"hidden_size": 10**12}, "its description"),
        ({"surprise": 1}, "the model is described by"),
        ({"dropout": "much"}, "does not hold a model"),
        ({"kind": ["lstm"]}, "does not hold a model"),
    ],
)
def test_a_description_that_does_not_fit_its_arrays(tmp_path, change, message):
    path = tmp_path / "m.safetensors"
    save(path, tiny(), WORDS, {})
    changed(path, change)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_of_a_run_the_best_or_the_last(tmp_path):
    for name in ("checkpoints/step-00000002", "checkpoints/step-00000010", "best"):
        save(tmp_path / f"{name}.safetensors", tiny(), WORDS, {})
    assert find_checkpoint(tmp_path).name == "best.safetensors"
    assert find_checkpoint(tmp_path, "last").name == "step-00000010.safetensors"
    (tmp_path / "best.safetensors").unlink()
    assert find_checkpoint(tmp_path).name == "step-00000010.safetensors"
