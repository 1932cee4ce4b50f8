"""The compiled kernels: their functions are accurate, NaN goes through, and their cache is never stale."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn.engine.ops import fused
from tinygrad_rnn.engine.ops.fused import VARIABLE, kernels_in_use, use_kernels
from tinygrad_rnn.engine.ops.language_model import language_model
from tinygrad_rnn.errors import BackendError, DataError, DtypeError, ShapeError
from tinygrad_rnn.models import CharLM
from tinygrad_rnn.optim import Adagrad, Adam, AdamW

numba = pytest.importorskip("numba")

from tinygrad_rnn.engine.ops.fused import jit, pointwise, update  # noqa: E402
from tinygrad_rnn.engine.ops.fused.shards import use_shards  # noqa: E402


@numba.njit(fastmath={"contract"})
def tanh_of_all(x):  # type: ignore[no-untyped-def]
    pointwise.tanh_all(x)


@numba.njit(fastmath={"contract"})
def exp_of_all(x):  # type: ignore[no-untyped-def]
    for k in range(x.size):
        x[k] = pointwise.exp_of(x[k])


SWEEP = np.concatenate(
    (np.linspace(-100, 100, 200_001), np.geomspace(1e-30, 100, 5000), -np.geomspace(1e-30, 100, 5000))
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("function", "exact", "places"),
    [
        (tanh_of_all, np.tanh, SWEEP),
        (exp_of_all, np.exp, SWEEP[(SWEEP <= 0) & (SWEEP > -87)]),
    ],
)
def test_functions_are_accurate(function, exact, places, dtype):  # type: ignore[no-untyped-def]
    x = places.astype(dtype)
    wanted = exact(x.astype(np.float64))
    function(x)
    room = 4 * np.finfo(dtype).eps * np.abs(wanted)
    assert (np.abs(x - wanted) <= room + np.finfo(dtype).tiny).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [tanh_of_all, exp_of_all])
def test_nan_and_infinity(function, dtype):  # type: ignore[no-untyped-def]
    x = np.array([np.nan, -np.inf, np.nan], dtype)
    function(x)
    assert np.isnan(x[[0, 2]]).all() and x[1] == (-1 if function is tanh_of_all else 0)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_nan_reaches_the_outputs_and_gradients(cell):  # type: ignore[no-untyped-def]
    gates, states = {"rnn": (1, 1), "lstm": (4, 2), "gru": (3, 1)}[cell]
    x = np.zeros((3, 20, 2), "float32")
    x[1, 5, 0] = np.nan
    with use_kernels("numba"):
        inputs = [tg.tensor(x, requires_grad=True), *[tg.zeros(20, 4)] * states]
        weights = [
            tg.tensor(np.full(s, 0.1, "float32"), requires_grad=True)
            for s in ((gates * 4, 2), (gates * 4, 4))
        ]
        outputs, *_ = getattr(tg, cell)(*inputs, *weights, None, None)
        found = np.isnan(outputs.numpy())
        assert not found[0].any() and found[1:, 5].all() and not np.delete(found, 5, axis=1).any()
        assert all(np.isnan(g.numpy()).any() for g in tg.grad(outputs.sum(), weights))


@pytest.mark.parametrize("optimizer", [Adam, AdamW, Adagrad])
@given(
    decay=st.sampled_from([0.0, 0.1]),
    shapes=st.lists(st.sampled_from([(3,), (7, 5), (2, 0), ()]), min_size=1, max_size=4),
    without=st.sets(st.integers(0, 3)),
    seed=st.integers(0, 9),
)
def test_an_update_in_one_pass_is_the_update(optimizer, decay, shapes, without, seed):  # type: ignore[no-untyped-def]
    found = []
    for name, shards in (("numpy", 1), ("numba", 1), ("numba", 3)):
        rng = np.random.default_rng(seed)
        with use_kernels(name), use_shards(shards), pytest.MonkeyPatch.context() as patch:
            patch.setattr(update, "WORTH_A_THREAD", 2)
            weights = [
                tg.tensor(rng.standard_normal(s).astype("float32"), requires_grad=True) for s in shapes
            ]
            options = {} if optimizer is Adagrad else {"weight_decay": decay}
            steps = optimizer(weights, lr=0.01, **options)
            for turn in range(5):
                for number, w in enumerate(weights):
                    g = tg.tensor(rng.standard_normal(w.shape).astype("float32"))
                    w.grad = None if turn == 2 and number in without else g
                steps.step()
        found.append([w.numpy() for w in weights] + [own[s] for own in steps.state for s in steps.slots])
    for one, two, three in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-6, atol=1e-7)
        assert (two == three).all()  # each number is computed alone


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
def test_adam_on_a_parameter_that_has_another_size_now(kernels):  # type: ignore[no-untyped-def]
    with use_kernels(kernels):
        w = tg.tensor(np.ones(4), requires_grad=True)
        steps = Adam([w])
        for size in (4, 2**16):
            w.array = np.ones(size)
            w.requires_grad = False
            w.requires_grad = True
            w.grad = tg.tensor(np.ones(size))
            if size == 4:
                steps.step()
        with pytest.raises(ValueError, match="broadcast"):
            steps.step()


def test_a_strided_gradient_is_no_reason_to_do_otherwise():  # type: ignore[no-untyped-def]
    with use_kernels("numba"):
        w = tg.tensor(np.ones((3, 4)), requires_grad=True)
        w.grad = tg.Tensor(np.arange(12.0).reshape(4, 3).T, None, 0, w.backend)
        steps = Adam([w])
        steps.steps = 1
        assert steps._update_all()


@pytest.mark.parametrize("odd", ["strided", "another dtype", "replaced"])
def test_adam_on_arrays_that_do_not_lie_as_expected(odd):  # type: ignore[no-untyped-def]
    found = []
    for name in ("numpy", "numba"):
        rng = np.random.default_rng(0)
        with use_kernels(name):
            weights = [tg.tensor(rng.standard_normal((4, 4)), requires_grad=True) for _ in range(2)]
            if odd == "another dtype":
                weights[1] = tg.tensor(weights[1].numpy().astype("float32"), requires_grad=True)
            steps = Adam(weights)
            for _ in range(3):
                for w in weights:
                    w.grad = tg.tensor(rng.standard_normal(w.shape).astype(w.dtype))
                if odd == "strided":
                    weights[0].grad = tg.Tensor(weights[0].grad.array.T, None, 0, weights[0].backend)
                steps.step()
                if odd == "replaced":
                    weights[1].array = weights[1].array.copy()
        found.append([w.numpy() for w in weights])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-6, atol=1e-7)


def test_the_choice(monkeypatch):  # type: ignore[no-untyped-def]
    monkeypatch.delenv(VARIABLE)
    assert kernels_in_use() == "numba"
    with use_kernels("numpy"):
        assert kernels_in_use() == "numpy"
    monkeypatch.setenv(VARIABLE, "numpy")
    assert kernels_in_use() == "numpy"
    monkeypatch.setenv(VARIABLE, "")
    assert kernels_in_use() == "numba"
    monkeypatch.setenv(VARIABLE, "fast")
    for choose in (kernels_in_use, lambda: use_kernels(None)):
        with pytest.raises(BackendError, match=f"{VARIABLE}: no kernels are called 'fast'"):
            choose()
    with pytest.raises(BackendError, match="no kernels are called 'fortran'; there are numpy, numba"):
        use_kernels("fortran")


def test_without_numba(monkeypatch):  # type: ignore[no-untyped-def]
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(fused, "_lacking", lambda: "Numba: pip install 'tinygrad-rnn[fast]'")
    assert kernels_in_use() == "numpy"
    with pytest.raises(BackendError, match=r"numba kernels need Numba: pip install 'tinygrad-rnn\[fast\]'"):
        use_kernels("numba")
    monkeypatch.setenv(VARIABLE, "numba")
    with pytest.raises(BackendError, match=f"{VARIABLE}: the numba kernels need Numba"):
        kernels_in_use()


@pytest.fixture
def asked_anew():  # type: ignore[no-untyped-def]
    fused._lacking.cache_clear()
    yield
    fused._lacking.cache_clear()


def test_numba_of_no_use(monkeypatch, asked_anew):  # type: ignore[no-untyped-def]
    def lacking(target, name, value):  # type: ignore[no-untyped-def]
        fused._lacking.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            return fused._lacking()

    assert lacking(numba.config, "DISABLE_JIT", 1) == (
        "Numba's compiler, which NUMBA_DISABLE_JIT switches off"
    )
    assert lacking(numba, "version_info", (0, 67, 9)).startswith("Numba 0.68 or newer, not ")
    assert lacking(fused, "find_spec", lambda name: None).startswith("Numba: pip install")
    fused._lacking.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(fused, "find_spec", lambda name: "is there")
        patch.setitem(sys.modules, "numba", None)  # an ImportError
        assert fused._lacking().startswith("a Numba that can be imported, which this one cannot: ")


def test_what_was_compiled_from_another_text_is_not_found(monkeypatch, tmp_path):  # type: ignore[no-untyped-def]
    before = jit.cache_folder()
    file = tmp_path / "jit.py"
    file.write_text("# another text\n")
    monkeypatch.setattr(jit, "__file__", str(file))
    assert jit.cache_folder() != before
    assert jit.cache_folder().parent == before.parent


def made_in(folder, monkeypatch):  # type: ignore[no-untyped-def]
    """A small function, compiled with its cache in this folder."""

    def _twice(x):  # type: ignore[no-untyped-def]
        return x + x

    monkeypatch.setattr(jit, "_folder", folder)
    return jit.compiled(_twice)


def test_the_cache(tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    def hits():  # type: ignore[no-untyped-def]
        function = made_in(tmp_path, monkeypatch)
        assert function(2) == 4 and function(1.5) == 3.0
        return sum(function.stats.cache_hits.values())

    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    with use_kernels("numba"):
        assert fused.must_compile("_twice")  # a folder alone is not enough
        assert hits() == 0
        assert not fused.must_compile("_twice") and fused.must_compile("_twice", "_thrice")
    assert hits() == 2
    for ending in ("nbc", "nbi"):
        for keep in (0, 40):  # bytes
            for file in tmp_path.rglob(f"*.{ending}"):
                file.write_bytes(file.read_bytes()[:keep])
            assert hits() < 2  # and the right results
            hits()
            assert hits() == 2
    # Two processes that compile at once may give the files of two signatures one name.
    one, other = sorted(tmp_path.rglob("*.nbc"))
    one.write_bytes(other.read_bytes())
    assert hits() == 1


def test_without_a_folder_that_can_be_written_to(tmp_path, monkeypatch):  # type: ignore[no-untyped-def]
    file = tmp_path / "file"
    file.write_text("")
    function = made_in(file / "folder", monkeypatch)
    assert function(2) == 4
    assert function.stats.cache_path is None


def test_numba_is_not_imported_before_it_is_needed():  # type: ignore[no-untyped-def]
    code = "import tinygrad_rnn, sys; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- nothing outside an array is read or written: compiled loops look up what they are told to -------

SYMBOLS = np.arange(12).reshape(6, 2) % 5


def small(kind="lstm", **sizes):  # type: ignore[no-untyped-def]
    return CharLM(5, kind, **{"embedding_size": 3, "hidden_size": 4, "num_layers": 2, **sizes})


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("bad", [-1, 5, 2**40])
@pytest.mark.parametrize("where", [0, 1])
def test_symbols_outside_the_vocabulary(kernels, bad, where):  # type: ignore[no-untyped-def]
    given = [SYMBOLS.copy(), SYMBOLS.copy()]
    given[where][3, 1] = bad
    with use_kernels(kernels), pytest.raises(DataError, match=f"{bad} is outside the 5 symbols"):
        small().loss(*given)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float64", "bool"])
def test_symbols_are_integers(kernels, dtype):  # type: ignore[no-untyped-def]
    with use_kernels(kernels), pytest.raises(DtypeError, match="must be integers"):
        small().loss(SYMBOLS.astype(dtype), SYMBOLS)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_symbols_may_change_after_the_forward_pass(kernels, kind):  # type: ignore[no-untyped-def]
    found = []
    for change in (0, 10**9):
        tg.manual_seed(0)
        model, symbols, targets = small(kind), SYMBOLS.copy(), SYMBOLS.copy()
        with use_kernels(kernels):
            loss, _ = model.loss(symbols, targets)
            symbols += change
            targets += change
            loss.backward()
        found.append([weight.grad.numpy() for weight in model.parameters()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize(
    "name",
    ["state", "output.weight", "output.bias", "rnn.weight_hh_l0", "rnn.bias_ih_l1", "rnn.weight_ih_l1"],
)
def test_shapes_that_do_not_fit(kernels, name):  # type: ignore[no-untyped-def]
    model, state = small("gru"), None
    if name == "state":
        state = tg.zeros(2, 3, 4)  # of three streams
    else:
        weight = dict(model.named_parameters())[name]
        weight.array = weight.array[: len(weight.array) - 1]
    with use_kernels(kernels), pytest.raises(ShapeError, match=r"language_model: .* has shape .* need"):
        model.loss(SYMBOLS, SYMBOLS, state)


def test_symbols_may_be_lists():  # type: ignore[no-untyped-def]
    model = small()
    lists = model.loss(SYMBOLS.tolist(), SYMBOLS.tolist())[0].item()
    assert lists == model.loss(SYMBOLS, SYMBOLS)[0].item()


def test_what_is_no_plain_model_goes_its_own_way():  # type: ignore[no-untyped-def]
    class Louder(CharLM):
        def forward(self, symbols, state=None):  # type: ignore[no-untyped-def]
            scores, state = super().forward(symbols, state)
            return scores * 3, state

    tg.manual_seed(0)
    model, relu = Louder(5, "rnn", 3, 4, 1), small("rnn", num_layers=1)
    relu.rnn.nonlinearity = "relu"
    for each in (model, relu):
        scores, _ = each(SYMBOLS)
        expected = tg.cross_entropy(scores, tg.tensor(SYMBOLS)).item()
        assert each.loss(SYMBOLS, SYMBOLS)[0].item() == pytest.approx(expected, rel=1e-6)


def test_adam_leaves_to_numpy_what_the_one_pass_cannot_do():  # type: ignore[no-untyped-def]
    found = []
    for kernels in ("numpy", "numba"):
        with use_kernels(kernels):
            w = tg.tensor(np.ones((3, 4), "float32"), requires_grad=True)
            steps = Adam([w], lr=0.1)
            steps.state[0]["mean"] = np.zeros((4, 3), "float32").T  # columns one after another
            for _ in range(2):
                w.grad = tg.tensor(np.arange(12, dtype="float32").reshape(3, 4))
                steps.step()
        found.append((w.numpy(), steps.state[0]["mean"]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_what_has_been_compiled_need_not_be():  # type: ignore[no-untyped-def]
    with use_kernels("numba"):
        loss, _ = small().loss(SYMBOLS, SYMBOLS)
        loss.backward()
        assert not fused.must_compile("lstm_backward", "cross_entropy")
        assert fused.must_compile("lstm_sideward")


@pytest.mark.parametrize("kind", ["rnn", "gru"])
def test_two_threads_may_differentiate_one_graph(kind):  # type: ignore[no-untyped-def]
    wrong = []
    with use_kernels("numba"):
        model = small(kind, hidden_size=64)
        parameters = list(model.parameters())
        symbols = np.random.default_rng(0).integers(0, 5, (30, 20))
        loss, state = model.loss(symbols, symbols)
        losses = [loss * factor + (state * state).sum() * factor for factor in (1.0, 3.0)]
        wanted = [[g.numpy() for g in tg.grad(x, parameters, retain_graph=True)] for x in losses]

        def differentiate(which):  # type: ignore[no-untyped-def]
            for _ in range(20):
                found = tg.grad(losses[which], parameters, retain_graph=True)
                wrong.extend(n for n, g in enumerate(found) if not (g.numpy() == wanted[which][n]).all())

        threads = [threading.Thread(target=differentiate, args=(which,)) for which in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@given(
    batch=st.sampled_from([1, 5, 17, 40]),
    vocabulary=st.sampled_from([5, 200]),
    layers=st.integers(1, 2),
    shards=st.integers(1, 2),
    upstream=st.sampled_from([(1.0, 0.0), (3.0, 0.0), (0.0, 1.0), (0.5, 2.0)]),
)
def test_a_whole_model_is_that_of_its_twin(kind, batch, vocabulary, layers, shards, upstream):  # type: ignore[no-untyped-def]
    """The batch in parts, and gradients that were computed before the loss's own was known."""
    rng, H = np.random.default_rng(0), 7
    gates, states = {"rnn": (1, 1), "lstm": (4, 2), "gru": (3, 1)}[kind]
    shapes = [(vocabulary, 3), (vocabulary, H), (vocabulary,), *[(layers, batch, H)] * states]
    for layer in range(layers):
        shapes += [(gates * H, H if layer else 3), (gates * H, H), (gates * H,), (gates * H,)]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    symbols, targets = rng.integers(0, vocabulary, (2, 3, batch))
    found = []
    for name in ("numpy", "numba"):
        with use_kernels(name), use_shards(shards):
            inputs = [tg.tensor(array, requires_grad=True) for array in arrays]
            loss, *ends = language_model(inputs, symbols=symbols, targets=targets, kind=kind)
            together = loss * upstream[0]
            if upstream[1]:
                together = together + sum((end * end).sum() for end in ends) * upstream[1]
            for _ in range(2):  # the second time they have been given away
                gradients = tg.grad(together, inputs, retain_graph=True)
                found.append([x.numpy() for x in (loss, *ends, *gradients)])
    for one, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12)


# --- shards ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@given(batch=st.integers(12, 25), vocabulary=st.sampled_from([5, 200]), seed=st.integers(0, 9))
def test_shards_change_nothing_but_the_last_bits(kind, batch, vocabulary, seed):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, vocabulary, (5, batch))
    tg.manual_seed(seed)
    model = CharLM(vocabulary, kind, embedding_size=3, hidden_size=7, num_layers=2)
    found = []
    with use_kernels("numba"):
        for shards in (1, 2, 3, 2):
            with use_shards(shards):
                loss, state = model.loss(symbols, symbols[::-1])
                final = state if isinstance(state, tuple) else (state,)
                together = loss + sum((s * s).sum() for s in final)
                gradients = tg.grad(together, list(model.parameters()))
            found.append([together.numpy(), *(g.numpy() for g in gradients)])
    for one, *others in zip(*found, strict=True):
        for other in others:
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert all((a == b).all() for a, b in zip(found[1], found[3], strict=True))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_layer_in_shards(cell):  # type: ignore[no-untyped-def]
    gates, states = {"rnn": (1, 1), "lstm": (4, 2), "gru": (3, 1)}[cell]
    rng, found = np.random.default_rng(0), []
    shapes = [(4, 13, 5), *[(13, 6)] * states, (gates * 6, 5), (gates * 6, 6), *[(gates * 6,)] * 2]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    with use_kernels("numba"):
        for shards in (1, 2):
            with use_shards(shards):
                inputs = [tg.tensor(array, requires_grad=True) for array in arrays]
                outputs = getattr(tg, cell)(*inputs)
                together = sum((output * output).sum() for output in outputs)
                found.append([o.numpy() for o in (*outputs, *tg.grad(together, inputs))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kernels", ["numpy", "numba"])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("whole", [True, False])
def test_each_gradient_has_memory_of_its_own(kernels, kind, whole):  # type: ignore[no-untyped-def]
    """They are handed to the parameters without a copy."""
    with use_kernels(kernels):
        model = small(kind)
        model.rnn.fused = True
        parameters = list(model.parameters())
        if whole:
            loss, _ = model.loss(SYMBOLS, SYMBOLS)
        else:
            scores, _ = model(SYMBOLS)
            loss = scores.sum()
        loss.backward(retain_graph=True)
        first = [p.grad.numpy().copy() for p in parameters]
        held = [p.grad.array for p in parameters]
        for p in parameters:
            p.grad.array[...] = np.nan  # of a gradient that one keeps
            p.grad = None
        loss.backward()
        arrays = held + [p.grad.array for p in parameters]
    for n, array in enumerate(arrays):
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in arrays[:n])
    for p, before in zip(parameters, first, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), before)
