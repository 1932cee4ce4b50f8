"""The kernels for a GPU compute what those for the processor do; without one as C++, see cuda_on_cpu.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.backend import get_backend, register_backend
from tinygrad_rnn.engine.ops.fused import device, kernels_for, sequence, use_kernels
from tinygrad_rnn.engine.ops.language_model import language_model
from tinygrad_rnn.models import load
from tinygrad_rnn.optim import Adam, AdamW, clip_grad_norm_
from tinygrad_rnn.training import RunFolder
from tinygrad_rnn.training.bench import Work
from tinygrad_rnn.training.events import Stepped

from ..training.interrupted import Training
from . import cuda_on_cpu
from .cuda_on_cpu import COMPILER, ON_CPU

KINDS = {"rnn": (1, 1), "lstm": (4, 2), "gru": (3, 1)}
ON_GPU = pytest.param("cupy", marks=pytest.mark.gpu)
AS_CPP = pytest.param("c++", marks=pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler"))


@pytest.fixture(params=[AS_CPP, ON_GPU])
def backend(request, monkeypatch):  # type: ignore[no-untyped-def]
    if request.param == "cupy":
        return get_backend("cupy")

    def enter(table, row, column, array):  # type: ignore[no-untyped-def]
        table[row, 0], table[row, column] = array.size, array.ctypes.data

    monkeypatch.setattr(device, "enter", enter)
    return ON_CPU


def found_by(backend, arrays, run):  # type: ignore[no-untyped-def]
    """The outputs of a function of tensors, and the gradients of a sum over them."""
    inputs = [None if a is None else tg.tensor(a, requires_grad=True, backend=backend) for a in arrays]
    outputs = run(inputs)
    given = [x for x in inputs if x is not None]
    together = sum((output * output).sum() for output in outputs)
    return [x.numpy() for x in (*outputs, *tg.grad(together, given))]


def agree(backend, arrays, run, dtype):  # type: ignore[no-untyped-def]
    arrays = [None if a is None else a.astype(dtype) for a in arrays]
    with use_kernels("numpy"):
        wanted = found_by("numpy", arrays, run)
    found = found_by(backend, arrays, run)
    room = 1e3 * np.finfo(dtype).eps
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=room, atol=room)


@pytest.mark.parametrize("few", [device.FEW, 0], ids=["all steps in a launch", "a launch a step"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer(kind, few, backend, monkeypatch):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(device, "FEW", few)
    if few == 0:  # nothing is shared, so there may be any number of units
        monkeypatch.setattr(cuda_on_cpu, "SHARED", 0)
    gates, states = KINDS[kind]

    @settings(max_examples=12, deadline=None)
    @given(
        sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 9)),
        biases=st.booleans(),
        dtype=st.sampled_from(["float32", "float64"]),
        seed=st.integers(0, 9),
    )
    def law(sizes, biases, dtype, seed):  # type: ignore[no-untyped-def]
        (T, B, D, H), rng = sizes, np.random.default_rng(seed)
        shapes = [(T, B, D), *[(B, H)] * states, (gates * H, D), (gates * H, H)]
        arrays = [rng.standard_normal(shape) for shape in shapes]
        arrays += [rng.standard_normal(gates * H) if biases else None for _ in range(2)]
        agree(backend, arrays, lambda inputs: getattr(tg, kind)(*inputs), dtype)

    law()


def test_a_layer_with_relu(backend):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in [(4, 3, 2), (3, 5), (5, 2), (5, 5), (5,), (5,)]]
    agree(backend, arrays, lambda inputs: tg.rnn(*inputs, nonlinearity="relu"), "float64")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("units", [33, 40])
def test_more_units_than_a_group_of_threads_has_room_for(kind, units, backend, monkeypatch):  # type: ignore[no-untyped-def]
    """Threads that have several units each, and no share in others' work."""
    monkeypatch.setattr(device, "THREADS", 64)
    (gates, states), rng = KINDS[kind], np.random.default_rng(0)
    shapes = [(2, 3, 2), *[(3, units)] * states, (gates * units, 2), (gates * units, units)]
    arrays = [0.3 * rng.standard_normal(s) for s in [*shapes, (gates * units,), (gates * units,)]]
    agree(backend, arrays, lambda inputs: getattr(tg, kind)(*inputs), "float64")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocabulary", [1, 5, 40, 300])
def test_a_whole_model(kind, vocabulary, backend):  # type: ignore[no-untyped-def]
    (gates, states), rng, H = KINDS[kind], np.random.default_rng(0), 4
    shapes = [(vocabulary, 3), (vocabulary, H), (vocabulary,), *[(2, 3, H)] * states]
    for features in (3, H):
        shapes += [(gates * H, features), (gates * H, H), (gates * H,), (gates * H,)]
    symbols, targets = rng.integers(0, vocabulary, (2, 5, 3))

    def run(inputs):  # type: ignore[no-untyped-def]
        return language_model(inputs, symbols=symbols, targets=targets, kind=kind)

    agree(backend, [rng.standard_normal(shape) for shape in shapes], run, "float64")


def test_a_loss_that_is_not_finite(backend):  # type: ignore[no-untyped-def]
    for bad in (np.nan, np.inf):
        for place in (0, 30, 39):
            scores = np.zeros((1, 2, 40))
            scores[0, 1, place] = bad
            given = backend.from_host(scores), backend.from_host(np.zeros((1, 2), np.int64))
            losses = backend.to_host(device.cross_entropy(backend.xp, *given, True))
            assert losses[0, 0] == pytest.approx(np.log(40)) and np.isnan(losses[0, 1])


def test_the_gradient_of_an_embedding_is_summed_in_the_order_of_the_text(backend):  # type: ignore[no-untyped-def]
    @given(
        symbols=st.lists(st.integers(0, 6), min_size=1, max_size=30),
        features=st.sampled_from([1, 5, 40]),
        seed=st.integers(0, 9),
    )
    @settings(max_examples=15, deadline=None)
    def law(symbols, features, seed):  # type: ignore[no-untyped-def]
        dx = np.random.default_rng(seed).standard_normal((len(symbols), features)).astype("float32")
        wanted = np.zeros((7, features), "float32")
        for symbol, row in zip(symbols, dx, strict=True):
            wanted[symbol] += row
        given = backend.from_host(np.array(symbols)), backend.from_host(dx)
        assert (backend.to_host(device.table_gradient(backend.xp, *given, 7)) == wanted).all()

    law()


@pytest.mark.parametrize("optimizer", [Adam, AdamW])
def test_adam(optimizer, backend):  # type: ignore[no-untyped-def]
    found = []
    for library in ("numpy", backend):
        rng = np.random.default_rng(0)
        with use_kernels("numpy"):
            shapes = [(3,), (7, 50), (2, 0), (1000,)]
            weights = [tg.tensor(rng.standard_normal(s), requires_grad=True, backend=library) for s in shapes]
            steps = optimizer(weights, lr=0.01, weight_decay=0.1)
            for turn in range(3):
                for number, w in enumerate(weights):
                    g = tg.tensor(rng.standard_normal(w.shape), backend=library)
                    w.grad = None if turn == 1 and number == 1 else g
                assert clip_grad_norm_(weights, 1.0) > 1
                steps.step()
        found.append([w.numpy() for w in weights])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training(kind, backend):  # type: ignore[no-untyped-def]
    register_backend(ON_CPU)
    sizes = {"hidden_size": 8, "embedding_size": 5, "batch_size": 3, "seq_length": 6, "symbols": 9}
    found = []
    for name in ("numpy", backend.name):
        trainer = Work(kind=kind, layers=2, backend=name, clip=0.1, **sizes).trainer()
        found.append([trainer.train_step() for _ in range(6)])
    for one, other in zip(*found, strict=True):
        assert (one.loss, one.grad_norm) == pytest.approx((other.loss, other.grad_norm), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("there_first", [False, True])
def test_a_checkpoint_goes_on_elsewhere(kind, there_first, backend, tmp_path):  # type: ignore[no-untyped-def]
    """Four steps in one library, four more in the other: what eight by NumPy lead to."""
    register_backend(ON_CPU)
    first, then = (backend.name, "numpy") if there_first else ("numpy", backend.name)
    settings = {"kind": kind, "max_steps": 8, "kernels": "numpy"}
    wanted = Training(tmp_path / "all", **settings).begin()
    moved = Training(tmp_path / "moved", **settings, backend=first)
    moved.begin(stop=lambda event: isinstance(event, Stepped) and event.step == 4)
    with RunFolder.open(moved.folder) as run:
        trainer = moved.trainer(replace(moved.config, backend=then))
        resumed = trainer.resume(run)
        trainer.train(run)
    assert (resumed.step, trainer.step) == (4, 8) and resumed.reasons
    models = [load(folder / "checkpoints/step-00000008.safetensors") for folder in (wanted.folder, run.path)]
    one, other = (loaded.model.state_dict() for loaded in models)
    for name, weight in one.items():
        np.testing.assert_allclose(other[name], weight, atol=1e-4, err_msg=name)


def test_parameters_here_and_there():  # type: ignore[no-untyped-def]
    weights = [tg.tensor(np.ones(3), requires_grad=True, backend=one) for one in (ON_CPU, "numpy")]
    for w in weights:
        w.grad = tg.tensor(np.ones(3), backend=w.backend)
    Adam(weights, lr=0.1).step()
    for w in weights:
        np.testing.assert_allclose(w.numpy(), 0.9)


def test_symbols_in_another_order(backend):  # type: ignore[no-untyped-def]
    """Those of a GPU's arrays that are copied stay in their order in memory."""
    rng = np.random.default_rng(0)
    shapes = [(9, 3), (9, 4), (9,), (1, 5, 4), (4, 3), (4, 4), (4,), (4,)]
    arrays, symbols = [rng.standard_normal(shape) for shape in shapes], rng.integers(0, 9, (2, 5, 3))
    found = []
    for s, t in (symbols.swapaxes(1, 2), np.ascontiguousarray(symbols.swapaxes(1, 2))):
        inputs = [tg.tensor(a, requires_grad=True, backend=backend) for a in arrays]
        loss, _ = language_model(inputs, symbols=s, targets=t, kind="rnn")
        found.append([x.numpy() for x in (loss, *tg.grad(loss, inputs))])
    for one, other in zip(*found, strict=True):
        assert (one == other).all()


def test_these_kernels_are_those_of_a_gpu(backend):  # type: ignore[no-untyped-def]
    for dtype in "fd":
        assert kernels_for(backend.xp, np.dtype(dtype)) is device
    with use_kernels("numpy"):
        assert kernels_for(np, np.dtype("f")) is sequence
