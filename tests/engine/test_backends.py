"""One text for every array library: each op on the hostile backend, and on CuPy where there is a GPU."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.backend import NUMPY, Backend, get_backend
from tinygrad_rnn.engine.op import TABLE
from tinygrad_rnn.errors import BackendError, DtypeError, TinygradError

from .hostile import HOSTILE, HostileArray
from .laws import as_function, assert_close, derivatives
from .samples import SAMPLES, Case, cast, leaf

OPS = [name for name, op in TABLE.items() if op.source == "built-in"]
DIFFERENTIABLE = [name for name in OPS if TABLE[name].differentiable]
RECURRENT = [name for name in OPS if TABLE[name].reference is not None]


def agrees_with_numpy(name: str, case: Case, backend: Backend, dtype: str, roundings: int) -> None:
    """Values, first and second derivatives on a backend are those on NumPy."""
    case = cast(case, dtype)
    found, wanted = derivatives(name, case, backend), derivatives(name, case)
    assert [g is None for g in found.first] == [g is None for g in wanted.first]
    for one, other in zip(found.all(), wanted.all(), strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other, dtype, roundings)


# --- the hostile backend --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPS)
def test_every_op_runs_on_the_hostile_backend(name: str, dtype: str) -> None:
    """Forward, first and second derivative, without one implicit conversion."""

    @settings(max_examples=min(15, SAMPLES[name].examples or 15))
    @given(SAMPLES[name].cases)
    def law(case: Case) -> None:
        agrees_with_numpy(name, case, HOSTILE, dtype, roundings=100)

    law()


@pytest.mark.parametrize("name", ["tanh", "matmul", "getitem", "split", "lstm"])
def test_gradcheck_runs_on_any_backend(name: str) -> None:
    @settings(max_examples=3)
    @given(SAMPLES[name].cases)
    def law(case: Case) -> None:
        function, points = as_function(TABLE[name], case, HOSTILE)
        assert tg.gradcheck(function, points, order=2, rtol=1e-5, atol=1e-6)

    law()


def test_the_hostile_backend_is_hostile() -> None:
    """It refuses what CuPy refuses; a test that it passes would mean little otherwise."""
    a = HOSTILE.from_host(np.array([1.0, 2.0]))
    refused: list[Any] = [
        lambda: np.asarray(a),
        lambda: np.tanh(a),
        lambda: np.concatenate([a, a]),
        lambda: a + np.ones(2),
        lambda: np.ones(2) * a,
        lambda: a * np.float64(2),
        lambda: a.__setitem__(0, np.ones(1)),
        lambda: a[np.array([0, 1])],
        lambda: a[[0, 1]],
        lambda: float(a.sum()),
        lambda: bool(a.max() > 0),
        lambda: int(a.argmax()),
        lambda: range(3)[a.argmax()],
        lambda: HOSTILE.xp.maximum(a, np.zeros(2)),
        lambda: HOSTILE.xp.where(True, a, a),
        lambda: HOSTILE.xp.concatenate([a, np.ones(1)]),
        lambda: HOSTILE.xp.tanh(np.ones(2)),
    ]
    for attempt in refused:
        with pytest.raises(TypeError):
            attempt()
    assert isinstance(a.sum(), HostileArray) and a.sum().shape == ()
    assert a.sum().item() == 3
    a[1:] += 1
    assert_array_equal(a.get(), [1, 3])
    assert a[1:].base is a and (a + a).base is None


# --- moving and mixing ----------------------------------------------------------------------------


def test_transfers_are_explicit_and_gradients_travel_back(hostile: Backend) -> None:
    """x on NumPy, the computation elsewhere: values, first and second gradients as if it had stayed."""

    def there(x: tg.Tensor) -> tg.Tensor:
        moved = x.to("hostile")
        assert moved.backend is hostile and isinstance(moved.array, HostileArray)
        return (moved * moved.tanh()).to("numpy")

    x = leaf(np.array([0.5, -1.0]))
    out = there(x)
    assert out.backend is NUMPY
    assert_close(out.numpy(), (x * x.tanh()).numpy())
    out.sum().backward()
    assert x.grad is not None and x.grad.backend is NUMPY
    assert_close(x.grad.numpy(), tg.grad((x * x.tanh()).sum(), x).numpy())
    assert tg.gradcheck(there, x, order=2)
    assert x.to("numpy") is x


def test_parameters_elsewhere_keep_their_gradient_there(hostile: Backend) -> None:
    w = tg.tensor([1.0, 2.0], requires_grad=True, backend="hostile")
    (w * w).sum().to("numpy").backward()
    assert w.grad is not None and w.grad.backend is hostile
    assert_array_equal(w.grad.numpy(), [2, 4])
    assert "backend='hostile'" in repr(w)


def test_operands_of_two_backends_are_refused_by_name(hostile: Backend) -> None:
    here, there = tg.ones(2), tg.ones(3, backend="hostile")
    with pytest.raises(BackendError, match=r"add: .*a \[2\] in numpy, b \[3\] in hostile.*\.to\("):
        here + there
    with pytest.raises(BackendError, match=r"stack: .*operand 0 \[2\] in numpy, operand 1 \[3\] in hostile"):
        tg.stack([here, there])
    for attempt in (
        lambda: there * np.ones(3),
        lambda: np.ones(3) * there,
        lambda: here * there.array,
        lambda: there[tg.tensor([0])],
        lambda: there.__setitem__(0, tg.tensor(1.0)),
    ):
        with pytest.raises(BackendError, match=r"numpy.*hostile|hostile.*numpy"):
            attempt()
    with pytest.raises(BackendError, match=r"upstream gradient.*numpy.*hostile"):
        (tg.ones(3, requires_grad=True, backend="hostile") * 2).backward(tg.ones(3))
    with pytest.raises(BackendError, match="hostile"):
        np.asarray(there)


def test_a_raw_array_stays_in_its_library(hostile: Backend) -> None:
    raw = hostile.from_host(np.array([1.0, 2.0]))
    t = tg.tensor(raw)
    assert t.backend is hostile and t.array is not raw
    assert tg.tensor(raw, backend="numpy").backend is NUMPY
    assert tg.tensor(t, backend="numpy").backend is NUMPY
    assert tg.tensor(t).backend is hostile
    assert (t * raw).backend is hostile
    assert t.array is not t.numpy() and isinstance(t.numpy(), np.ndarray)


# --- which backend --------------------------------------------------------------------------------


def test_use_backend_as_statement_and_as_block(hostile: Backend) -> None:
    assert tg.zeros(1).backend is NUMPY
    with tg.use_backend("hostile"):
        assert tg.zeros(1).backend is hostile
        assert tg.tensor([1.0]).backend is hostile
        assert tg.randn(2).backend is hostile
        with tg.use_backend("numpy"):
            assert tg.ones(1).backend is NUMPY
        assert tg.ones(1).backend is hostile
    assert tg.ones(1).backend is NUMPY
    tg.use_backend(hostile)
    assert tg.ones(1).backend is hostile
    assert tg.get_backend().name == "hostile"
    with pytest.raises(ZeroDivisionError), tg.use_backend("numpy"):
        raise ZeroDivisionError
    assert tg.ones(1).backend is hostile


def test_an_unknown_backend_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(BackendError, match=r"'torch'.*cupy.*numpy"):
        tg.use_backend("torch")
    with pytest.raises(BackendError, match="'torch'"):
        tg.ones(2).to("torch")
    assert tg.get_backend() is NUMPY


def test_without_cupy_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_import = builtins.__import__

    def no_cupy(name: str, *rest: Any, **options: Any) -> Any:
        if name == "cupy":
            raise ImportError("No module named 'cupy'")
        return plain_import(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", no_cupy)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr("tinygrad_rnn.engine.backend._backends", {"numpy": NUMPY})
    with pytest.raises(
        TinygradError, match=r"pip install cupy-cuda13x for CUDA 13, cupy-cuda12x for CUDA 12"
    ):
        tg.get_backend("cupy")


def test_a_backend_may_bring_its_own_kernel() -> None:
    """`fused` replaces an op's forward function on one backend, and on no other."""
    doubled = Backend(
        "doubled", HOSTILE.xp, HostileArray, HOSTILE.from_host, HOSTILE.to_host, HOSTILE.scatter_add,
        fused={"tanh": lambda x: x + x},
    )  # fmt: skip
    assert_array_equal(tg.tanh(tg.tensor([3.0], backend=doubled)).numpy(), [6])
    assert_close(tg.tanh(tg.tensor([3.0], backend=HOSTILE)).numpy(), np.tanh([3]), "float32")


# --- CuPy -----------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPS)
def test_every_op_on_cupy_agrees_with_numpy(name: str, dtype: str) -> None:
    """To the rounding of the dtype: sums may be taken in another order."""

    @settings(max_examples=min(10, SAMPLES[name].examples or 10))
    @given(SAMPLES[name].cases)
    def law(case: Case) -> None:
        agrees_with_numpy(name, case, get_backend("cupy"), dtype, roundings=1000)

    law()


@pytest.mark.gpu
def test_cupy_transfers_and_gradients() -> None:
    x = leaf(np.array([0.5, -1.0]))
    (x.to("cupy") ** 2).sum().to("numpy").backward()
    assert x.grad is not None
    assert_array_equal(x.grad.numpy(), [1, -2])
    with pytest.raises(BackendError, match=r"numpy.*cupy"):
        tg.ones(2) + tg.ones(2, backend="cupy")
    with pytest.raises((BackendError, DtypeError)):
        tg.ones(2, backend="cupy") + np.ones(2)
