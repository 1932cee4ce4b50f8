"""`Tensor` as a user meets it: making one, looking at it, dtypes, NumPy, indexing, methods, own ops."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal

import tinygrad_rnn as tg
from tinygrad_rnn.engine.op import TABLE
from tinygrad_rnn.engine.ops import methods
from tinygrad_rnn.errors import DataError, DtypeError, GraphError, ShapeError, TinygradError, UsageError

from .laws import assert_close
from .samples import REALS, SHAPES, arrays, indices, leaf

# --- making tensors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, dtype, shape",
    [
        (1.5, "float32", ()),
        (3, "int64", ()),
        (True, "bool", ()),
        ([1.0, 2.0], "float32", (2,)),
        ([[1, 2, 3]], "int64", (1, 3)),
        ([1, 2.5], "float32", (2,)),
        (((1.0,), (2.0,)), "float32", (2, 1)),
        ([], "float32", (0,)),
        (range(4), "int64", (4,)),
        (np.float64(2.0), "float64", ()),
        (np.float32(2.0), "float32", ()),
        ([np.float64(2.0)], "float64", (1,)),
        (np.zeros((2, 0)), "float64", (2, 0)),
        (np.zeros(2, "float16"), "float16", (2,)),
        (np.arange(3, dtype=np.uint8), "uint8", (3,)),
        (np.zeros((2, 3)).T, "float64", (3, 2)),
    ],
)
def test_dtype_and_shape_follow_the_data(data: Any, dtype: str, shape: tuple) -> None:
    t = tg.tensor(data)
    assert (t.dtype, t.shape, t.ndim, t.size) == (np.dtype(dtype), shape, len(shape), int(np.prod(shape)))
    assert_array_equal(t.numpy(), np.asarray(data))
    assert t.is_leaf and not t.requires_grad and t.grad is None and t.backend.name == "numpy"


def test_a_dtype_can_be_asked_for() -> None:
    assert tg.tensor([1, 2], dtype="float64").dtype == np.float64
    assert tg.tensor(0.1, dtype=np.float64).dtype == np.float64
    assert tg.tensor(np.ones(2), dtype="int32").dtype == np.int32
    assert tg.tensor(tg.ones(2), dtype="float64").dtype == np.float64
    assert tg.tensor([1.0], requires_grad=True).requires_grad


def test_a_python_float_asked_for_in_float64_keeps_its_digits() -> None:
    assert tg.tensor(0.1, dtype="float64").item() == 0.1
    assert tg.tensor([0.1], dtype="float64").tolist() == [0.1]


def test_unusual_arrays_become_usual_ones() -> None:
    """The other byte order, and subclasses of ndarray whose operators mean something else."""
    x = tg.tensor(np.ones(2, ">f8"), requires_grad=True)
    assert x.dtype.isnative
    (x * 2).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2]

    class Strange(np.ndarray):
        def __mul__(self, other: Any) -> Any:
            return self @ other

    strange = tg.tensor(np.array([[1.0, 2.0], [3.0, 4.0]]).view(Strange))
    assert type(strange.array) is np.ndarray
    assert (strange * strange).tolist() == [[1, 4], [9, 16]]


def test_data_are_copied() -> None:
    host = np.ones(2)
    t = tg.tensor(host)
    host[0] = 5
    assert t.tolist() == [1, 1]
    again = tg.tensor(t)
    t[0] = 7.0
    assert again.tolist() == [1, 1]
    t.numpy()[1] = 9
    assert t.tolist() == [7, 1]
    assert not tg.tensor(tg.ones(2, requires_grad=True) * 2).requires_grad


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: tg.tensor([1, 2], requires_grad=True), DtypeError, "int64 cannot require.*float dtype"),
        (lambda: tg.tensor(True, requires_grad=True), DtypeError, "bool cannot require"),
        (lambda: setattr(tg.tensor([1]), "requires_grad", True), DtypeError, "int64 cannot require"),
        (lambda: tg.tensor("text"), DtypeError, "makes no tensor"),
        (lambda: tg.tensor(None), DtypeError, "makes no tensor"),
        (lambda: tg.tensor(1j), DtypeError, "complex128 makes no tensor"),
        (lambda: tg.tensor(np.array(["a"])), DtypeError, "makes no tensor"),
        (lambda: tg.tensor([1.0], dtype=complex), DtypeError, "complex128 makes no tensor"),
        (lambda: tg.tensor(np.array([1j]), dtype="float32"), DtypeError, "complex128 makes no tensor"),
        (lambda: tg.tensor(2**70), DtypeError, "makes no tensor"),
        (lambda: tg.tensor([[1, 2], [3]]), ShapeError, "unequal length"),
        (lambda: tg.tensor([tg.ones(1), tg.ones(1)]), DtypeError, r"tg\.stack"),
        (lambda: tg.zeros(2, -1), ShapeError, "negative"),
        (lambda: tg.zeros(2.5), ShapeError, "integers"),
        (lambda: tg.zeros(2, dtype=int, requires_grad=True), DtypeError, "cannot require"),
        (lambda: tg.manual_seed(-1), UsageError, "-1"),
        (lambda: tg.manual_seed(2**64), UsageError, "18446744073709551616"),
    ],
)
def test_what_makes_no_tensor(call: Callable, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_tensors_out_of_nowhere() -> None:
    for made, wanted in [
        (tg.zeros(2, 3), np.zeros((2, 3), "float32")),
        (tg.zeros((2, 3), dtype="int8"), np.zeros((2, 3), "int8")),
        (tg.ones([2]), np.ones(2, "float32")),
        (tg.ones(), np.ones((), "float32")),
        (tg.full((2,), 1.5), np.full(2, 1.5, "float32")),
        (tg.full(2, 3), np.full(2, 3)),
        (tg.full((), True), np.full((), True)),
        (tg.full((2,), np.float64(0.1)), np.full(2, 0.1, "float32")),
        (tg.full((2,), 3, dtype="float64"), np.full(2, 3.0)),
        (tg.arange(3), np.arange(3)),
        (tg.arange(1, 7, 2), np.arange(1, 7, 2)),
        (tg.arange(0, 1, 0.25), np.arange(0, 1, 0.25, "float32")),
        (tg.arange(3, dtype="float64"), np.arange(3.0)),
        (tg.eye(2), np.eye(2, dtype="float32")),
        (tg.eye(2, 3, dtype="float64"), np.eye(2, 3)),
    ]:
        assert made.dtype == wanted.dtype
        assert_array_equal(made.numpy(), wanted, strict=True)
    for make in (tg.zeros, tg.ones, tg.rand, tg.randn):
        assert make(2, requires_grad=True, dtype="float64").requires_grad


def test_random_tensors_follow_the_seed() -> None:
    tg.manual_seed(5)
    first = [tg.rand(100, dtype="float64"), tg.randn(2, 3), tg.randn((4,), requires_grad=True)]
    tg.manual_seed(5)
    again = [tg.rand(100, dtype="float64"), tg.randn(2, 3), tg.randn((4,), requires_grad=True)]
    for one, other in zip(first, again, strict=True):
        assert_array_equal(one.numpy(), other.numpy())
    tg.manual_seed(6)
    assert not np.array_equal(tg.rand(100, dtype="float64").numpy(), first[0].numpy())
    assert first[0].min().item() >= 0
    assert first[0].max().item() < 1
    assert abs(tg.randn(10_000).mean().item()) < 0.05


# --- looking at them ------------------------------------------------------------------------------


def test_repr() -> None:
    x = tg.tensor([1.0, 2.5], requires_grad=True)
    assert repr(x) == "tensor([1. , 2.5], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 5.], op='multiply')"
    assert repr(tg.tensor(3)) == "tensor(3)"
    assert repr(tg.tensor([True])) == "tensor([ True])"
    assert repr(tg.tensor(np.ones(1))) == "tensor([1.], dtype=float64)"
    assert repr(tg.zeros(2, 0)) == "tensor([], shape=(2, 0))"
    assert repr(tg.ones(2, 2)) == "tensor([[1., 1.],\n        [1., 1.]])"


def test_out_into_python() -> None:
    t = tg.tensor([[2.5]], requires_grad=True)
    assert t.item() == 2.5 and isinstance(t.item(), float)
    assert float(t) == 2.5 and int(t) == 2 and bool(t) and not bool(tg.tensor(0.0))
    assert tg.tensor(3).item() == 3 and isinstance(tg.tensor(3).item(), int)
    assert tg.tensor(True).item() is True
    assert [10, 20, 30][tg.tensor(1)] == 20
    assert tg.tensor([[1, 2]]).tolist() == [[1, 2]]
    assert len(tg.zeros(3, 2)) == 3
    assert len({tg.ones(1), tg.ones(1)}) == 2
    rows = list(tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True))
    assert [r.tolist() for r in rows] == [[1, 2], [3, 4]] and rows[0].requires_grad
    for call, error, words in [
        (lambda: tg.ones(2).item(), ShapeError, r"one element.*\(2,\)"),
        (lambda: bool(tg.ones(2) > 0), ShapeError, r"truth.*\(2,\).*ambiguous"),
        (lambda: len(tg.ones()), ShapeError, "no dimensions"),
        (lambda: list(tg.ones()), ShapeError, "no dimensions"),
        (lambda: [1, 2][tg.tensor(1.0)], DtypeError, "integer tensor.*float32"),
    ]:
        with pytest.raises(error, match=words):
            call()


def test_numpy_is_a_copy() -> None:
    t = tg.tensor([1.0, 2.0], requires_grad=True)
    host = t.numpy()
    host[0] = 99
    assert t.tolist() == [1, 2]
    asked = np.asarray(t.detach())
    asked[0] = 99
    assert t.tolist() == [1, 2]
    assert np.asarray(t.detach(), dtype="float64").dtype == np.float64


# --- dtypes ---------------------------------------------------------------------------------------

F32, F64 = tg.ones(2), tg.ones(2, dtype="float64")
INTS, BOOLS = tg.tensor([1, 2]), tg.tensor([True, False])


@pytest.mark.parametrize(
    "result, dtype",
    [
        (lambda: F32 * 2.5, "float32"),
        (lambda: 2 - F32, "float32"),
        (lambda: F32**2, "float32"),
        (lambda: 2**F32, "float32"),
        (lambda: F64 * 2.5, "float64"),
        (lambda: F32 * F64, "float64"),
        (lambda: F32 * np.float64(2), "float64"),
        (lambda: F32 * np.float32(2), "float32"),
        (lambda: F32 * np.ones(2), "float64"),
        (lambda: INTS + 1, "int64"),
        (lambda: INTS + 1.5, "float32"),
        (lambda: INTS / 2, "float32"),
        (lambda: INTS / INTS, "float32"),
        (lambda: INTS * F32, "float32"),
        (lambda: INTS * F64, "float64"),
        (lambda: INTS * BOOLS, "int64"),
        (lambda: BOOLS * F32, "float32"),
        (lambda: BOOLS + 1, "int64"),
        (lambda: F32 * True, "float32"),
        (lambda: tg.exp(INTS), "float32"),
        (lambda: tg.sqrt(BOOLS), "float32"),
        (lambda: INTS.sum(), "int64"),
        (lambda: BOOLS.sum(), "int64"),
        (lambda: INTS.mean(), "float32"),
        (lambda: INTS > 1.5, "bool"),
        (lambda: F32 == F64, "bool"),
        (lambda: INTS @ F32, "float32"),
        (lambda: tg.where(BOOLS, 1.0, 0.0), "float32"),
        (lambda: tg.where(BOOLS, 1, 0), "int64"),
        (lambda: tg.where(BOOLS, INTS, 0.5), "float32"),
        (lambda: tg.where(BOOLS, F64, 0.5), "float64"),
        (lambda: tg.where(INTS, F32, F32), "float32"),
        (lambda: tg.concatenate([INTS, F32]), "float32"),
        (lambda: tg.stack([F32, F64]), "float64"),
        (lambda: tg.maximum(INTS, 1.5), "float32"),
        (lambda: tg.einsum("i,i->", F32, F64), "float64"),
        (lambda: tg.mse(F32, F64), "float64"),
        (lambda: F32.astype("float64"), "float64"),
        (lambda: F32.astype(int), "int64"),
        (lambda: tg.argmax(F32), "int64"),
        (lambda: tg.relu(INTS), "int64"),
    ],
)
def test_promotion(result: Callable, dtype: str) -> None:
    """NumPy's, but a Python number never widens a float, and an integer takes the float's dtype."""
    assert result().dtype == np.dtype(dtype)


@given(st.sampled_from(["add", "subtract", "multiply", "divide", "maximum", "matmul"]))
def test_gradients_are_cast_back_to_the_inputs_dtype(name: str) -> None:
    single = tg.tensor([1.0, 2.0], requires_grad=True)
    double = tg.tensor(np.array([3.0, 4.0]), requires_grad=True)
    getattr(tg, name)(single, double).sum().backward()
    assert single.grad is not None and double.grad is not None
    assert (single.grad.dtype, double.grad.dtype) == (np.float32, np.float64)


def test_casts_and_the_graph() -> None:
    x = tg.tensor([1.6, -1.2], requires_grad=True)
    (x.astype("float64") * 2.5).sum().backward()
    assert x.grad is not None and x.grad.dtype == np.float32
    assert x.grad.tolist() == [2.5, 2.5]
    whole = x.astype(int)
    assert not whole.requires_grad and whole.tolist() == [1, -1]
    assert not (x.astype(bool).astype("float32") * 2.5).requires_grad


# --- NumPy's functions and operators ----------------------------------------------------------------

T = tg.tensor(np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]]), requires_grad=True)
HOST = T.numpy()
ROW = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "function",
    [
        lambda t: np.tanh(t),
        lambda t: np.abs(t),
        lambda t: np.add(t, 1),
        lambda t: np.maximum(ROW, t),
        lambda t: np.matmul(t, ROW),
        lambda t: ROW * t,
        lambda t: ROW - t,
        lambda t: ROW / (t * t + 1),
        lambda t: ROW @ t.T,
        lambda t: ROW + t,
        lambda t: t + ROW,
        lambda t: np.float64(2) * t,
        lambda t: np.float64(2) ** t,
        lambda t: np.int64(2) - t,
        lambda t: np.sum(t),
        lambda t: np.sum(t, axis=0, keepdims=True),
        lambda t: np.mean(t, 1),
        lambda t: np.var(t, axis=1, ddof=1),
        lambda t: np.max(t, axis=0),
        lambda t: np.amin(t, axis=0),
        lambda t: np.prod(t, axis=1),
        lambda t: np.cumsum(t, axis=1),
        lambda t: np.reshape(t, (3, 2)),
        lambda t: np.transpose(t),
        lambda t: np.swapaxes(t, 0, 1),
        lambda t: np.moveaxis(t, 0, 1),
        lambda t: np.squeeze(np.expand_dims(t, 0), 0),
        lambda t: np.broadcast_to(t, (2, 2, 3)),
        lambda t: np.flip(t, 1),
        lambda t: np.concatenate([t, np.ones((1, 3))]),
        lambda t: np.stack([np.ones((2, 3)), t], axis=1),
        lambda t: np.split(t, 3, axis=1)[1],
        lambda t: np.pad(t, ((1, 0), (0, 2))),
        lambda t: np.clip(t, -1, 1),
        lambda t: np.where(np.array([True, False, True]), t, 0.0),
        lambda t: np.take(t, [0, 0, 1], axis=1),
        lambda t: np.einsum("ij,j->i", t, ROW),
        lambda t: np.linalg.norm(t),
    ],
)
def test_numpys_functions_work_and_keep_the_graph(function: Callable) -> None:
    found = function(T)
    assert isinstance(found, tg.Tensor) and found.requires_grad
    assert_close(found.numpy(), function(HOST))
    assert np.abs(tg.grad(found.sum(), T).numpy()).sum() > 0


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: np.arctan(T), "np.arctan does not work on tensors.*detach"),
        (lambda: np.tanh(T, out=np.zeros((2, 3))), "np.tanh.*use tg.tanh without out"),
        (lambda: np.add.reduce(T), "np.add.reduce does not work.*tg.add"),
        (lambda: np.multiply.outer(T, T), "np.multiply.outer"),
        (lambda: np.square(T), r"np.square does not work on tensors; use x \* x"),
        (lambda: np.dot(T, T), "numpy.dot does not work on tensors; use tg.matmul"),
        (lambda: np.median(T), "numpy.median does not work on tensors.*detach"),
        (lambda: np.sort(T), "numpy.sort"),
        (lambda: np.linalg.inv(T), "numpy.linalg.inv"),
        (lambda: np.fft.fft(T), "numpy.fft.fft"),
        (lambda: np.sum(T, dtype="float32"), "np.sum on a tensor is tg.sum.*dtype"),
        (lambda: np.sum(T, 0, np.float32), "np.sum on a tensor is tg.sum"),
        (lambda: np.pad(T, 1, mode="edge"), "tg.pad.*mode"),
        (lambda: operator.iadd(np.zeros((2, 3)), T), "np.add.*without out"),
    ],
)
def test_what_numpy_cannot_do_with_tensors_says_what_can(call: Callable, words: str) -> None:
    """An error, never an array that has silently lost the graph."""
    with pytest.raises(DtypeError, match=words):
        call()


def test_turning_into_an_array_does_not_lose_the_graph_silently() -> None:
    for convert in (np.asarray, np.array, lambda t: np.zeros(3) + list(t)):
        with pytest.raises(GraphError, match=r"would lose it.*detach\(\)\.numpy\(\)"):
            convert(T)
    assert_array_equal(np.asarray(T.detach()), HOST)


# --- operators ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow", "eq", "ne", "lt", "le", "gt", "ge"])
@given(a=arrays((3,), [0.5, 1.0, 2.0]), b=st.sampled_from([0.5, 1, 2]))
def test_operators_are_numpys(name: str, a: np.ndarray, b: float) -> None:
    """Tensor with tensor, array, number, either way round."""
    function = getattr(operator, name)
    other = np.array([1.0, 2.0, 3.0])
    for left, right in [(a, other), (a, b), (b, a)]:
        wanted = function(left, right)
        for x, y in [(leaf(np.asarray(left)), right), (left, leaf(np.asarray(right)))]:
            if np.ndim(left) or isinstance(x, tg.Tensor):
                assert_close(function(x, y).numpy(), wanted)


def test_unary_operators_and_logic() -> None:
    t = tg.tensor([1.0, -2.0])
    assert (-t).tolist() == [-1, 2] and abs(t).tolist() == [1, 2]
    positive, small = t > 0, t < 10
    assert (positive & small).tolist() == [True, False]
    assert (positive | small).tolist() == [True, True]
    assert (~positive).tolist() == [False, True]
    assert (True & positive).tolist() == [True, False]
    assert (False | positive).tolist() == [True, False]
    for call in (lambda: t & positive, lambda: ~tg.tensor([1]), lambda: positive | tg.tensor([1])):
        with pytest.raises(DtypeError, match=r"& \| ~ take booleans"):
            call()


# --- indexing -------------------------------------------------------------------------------------


@given(st.data())
def test_indexing_is_numpys(data: Any) -> None:
    x = data.draw(arrays(data.draw(SHAPES), REALS))
    index = data.draw(indices(x.shape))
    found = leaf(x)[index]
    assert found.requires_grad and isinstance(found.array, np.ndarray)
    assert_array_equal(found.numpy(), x[index], strict=False)
    assert found.shape == x[index].shape


X = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "index",
    [
        1,
        -1,
        np.int64(1),
        slice(None),
        slice(2, None, -2),
        None,
        ...,
        (),
        (0, 1, 2),
        (..., 0),
        (slice(None), None, 1),
        [1, 0],
        [[0, 1], [1, 1]],
        ([0, 1], [2, 0]),
        (slice(None), [0, 0, 2]),
        (0, slice(None), [1, 1]),
        ([0, 1], slice(None), [1, 1]),
        np.array([1, 1, 0], np.uint8),
        np.array(1),
        X > 5,
        np.array([True, False]),
        (slice(None), [True, False, True]),
        True,
        False,
        np.True_,
        [],
        (slice(None), np.zeros((0, 2), int)),
        np.zeros((2, 3, 4), bool),
    ],
    ids=str,
)
def test_every_kind_of_index(index: Any) -> None:
    """Value and gradient, which is the count of how often each element was picked."""
    x = leaf(X)
    assert_array_equal(x[index].numpy(), X[index])
    picked = np.zeros_like(X)
    np.add.at(picked, index, 1.0)
    assert_array_equal(tg.grad(x[index].sum(), x).numpy(), picked)


def test_tensors_as_indices() -> None:
    x = leaf(X)
    picks = tg.tensor([1, 1])
    assert_array_equal(x[picks].numpy(), X[[1, 1]])
    assert_array_equal(x[:, picks].numpy(), X[:, [1, 1]])
    assert_array_equal(x[x > 5].numpy(), X[X > 5])
    assert_array_equal(x[tg.tensor(1)].numpy(), X[1])
    assert_array_equal(x[tg.tensor(0) : tg.tensor(1)].numpy(), X[0:1])


def test_the_graph_keeps_its_own_copy_of_an_index() -> None:
    """A user may use the buffer for the next batch before the backward pass."""
    x, picks = leaf(np.zeros(3)), np.array([0, 0, 1])
    tensor_picks = tg.tensor(picks)
    out = x[picks].sum() + tg.take(x, tensor_picks).sum()
    picks[:] = 2
    tensor_picks[:] = 2
    out.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [4, 2, 0]


def test_writing_by_index() -> None:
    t = tg.zeros(2, 3)
    t[0] = 1.0
    t[:, 1] = tg.tensor([2.0, 3.0])
    t[t > 2] = 9.0
    t[[1, 1], [0, 2]] = np.array([5.0, 6.0])
    assert t.tolist() == [[1, 2, 1], [5, 9, 6]]
    t.copy_(4)
    assert t.tolist() == [[4, 4, 4], [4, 4, 4]]


# --- methods --------------------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple] = {
    "abs": (), "exp": (), "expm1": (), "log": (), "log1p": (), "sqrt": (), "sin": (), "cos": (), "tanh": (),
    "sigmoid": (), "relu": (), "clip": (1.0, 2.0), "sum": (0, True), "mean": ((0, 1),), "var": (1, 1, True),
    "max": (0,), "min": (1, True), "prod": (), "argmax": (1,), "argmin": (), "cumsum": (1,),
    "norm": (None, 0), "logsumexp": (0,), "softmax": (0,), "log_softmax": (-1,), "swapaxes": (0, 1),
    "squeeze": (), "split": (2,), "take": ([0, 1], 1), "astype": ("float32",), "to": ("numpy",),
}  # fmt: skip


def test_every_method_is_tried() -> None:
    assert set(ARGUMENTS) == set(methods.METHODS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_methods_are_the_functions(name: str) -> None:
    t, arguments = leaf(np.array([[0.5, 1.5], [2.5, 1.0]])), ARGUMENTS[name]
    by_method, by_function = getattr(t, name)(*arguments), methods.METHODS[name](t, *arguments)
    for one, other in zip(_several(by_method), _several(by_function), strict=True):
        assert_array_equal(one.numpy(), other.numpy())
        assert one.dtype == other.dtype


def _several(out: Any) -> tuple:
    return out if isinstance(out, tuple) else (out,)


def test_methods_that_spread_their_arguments() -> None:
    t = leaf(X)
    assert t.reshape(6, 4).shape == t.reshape((6, 4)).shape == t.reshape([6, -1]).shape == (6, 4)
    assert t.reshape(-1).shape == (24,)
    assert t[0, 0, 0].reshape().shape == ()
    assert t.transpose().shape == t.T.shape == (4, 3, 2)
    assert (
        t.transpose(1, 0, 2).shape
        == t.transpose((1, 0, 2)).shape
        == t.transpose([1, 0, 2]).shape
        == (3, 2, 4)
    )
    with pytest.raises(ShapeError, match="sizes are integers"):
        t.reshape(tg.tensor(6), tg.tensor(4))


def test_arguments_have_numpys_names() -> None:
    t = leaf(X)
    assert tg.sum(t, axis=(0, 2), keepdims=True).shape == (1, 3, 1)
    assert tg.var(t, axis=0, ddof=1).shape == (3, 4)
    assert tg.norm(x=t, ord=None, axis=0).shape == (3, 4)
    assert tg.moveaxis(t, source=0, destination=2).shape == (3, 4, 2)
    assert tg.clip(t, a_min=1, a_max=2).max().item() == 2
    assert tg.take(t, indices=[0], axis=0).shape == (1, 3, 4)
    assert len(tg.split(t, indices_or_sections=3, axis=1)) == 3
    assert tg.pad(t, pad_width=1, constant_values=2.0).shape == (4, 5, 6)
    assert tg.concatenate([t, t], axis=1).shape == (2, 6, 4)
    assert tg.where(condition=t > 0, a=t, b=0.0).shape == X.shape
    assert tg.cross_entropy(t, targets=np.zeros((2, 3), int), reduction="none").shape == (2, 3)
    assert str(inspect.signature(tg.sum)) == "(x, axis=None, keepdims=False)"


# --- the table, and ops of one's own ---------------------------------------------------------------


def test_the_table_explains_itself() -> None:
    shown = repr(tg.ops["tanh"])
    assert shown.startswith("tanh(x)")
    assert "(g + g * out) * (1 - out)" in shown
    assert "has no derivative" in repr(tg.ops["equal"])
    assert "keepdims=False" in repr(tg.ops["sum"])
    assert tg.tanh.__doc__ and tg.tanh.__name__ == "tanh"


@pytest.fixture
def own_names() -> Any:
    """Ops that a test enters leave the table when it ends."""
    before = dict(TABLE)
    yield
    TABLE.clear()
    TABLE.update(before)


@pytest.mark.usefixtures("own_names")
def test_an_op_of_ones_own() -> None:
    """With one VJP it has values, derivatives of any order, and a place in the table like any other."""

    @tg.custom_op(lambda F, g, out, x: g * (out + F.sigmoid(x) * (1 - out)), saves="x out")
    def swish(xp: Any, x: Any) -> Any:
        """x times its sigmoid."""
        return x / (1 + xp.exp(-x))

    x = leaf(np.array([0.5, -1.0]))
    assert_close(swish(x).numpy(), x.numpy() / (1 + np.exp(-x.numpy())))
    assert tg.gradcheck(swish, x, order=3)
    assert tg.ops["swish"].source == "user"
    assert "F.sigmoid(x)" in repr(tg.ops["swish"])
    assert swish.__doc__ == "x times its sigmoid."


@pytest.mark.usefixtures("own_names")
def test_own_ops_with_several_inputs_parameters_and_traits(hostile: Any) -> None:
    @tg.custom_op(
        lambda F, g, out, a, b, scale: scale * g * b,
        lambda F, g, out, a, b, scale: scale * g * a,
        broadcasts=True,
        promotes=True,
    )
    def scaled_product(xp: Any, a: Any, b: Any, scale: float = 2.0) -> Any:
        return scale * a * b

    a, b = leaf(np.ones((2, 3))), leaf(np.array([1.0, 2.0, 3.0]))
    assert tg.gradcheck(lambda a, b: scaled_product(a, b, scale=3.0), [a, b], order=2)
    assert scaled_product(a, b).numpy()[0, 2] == 6
    assert scaled_product(tg.ones(2), b[0]).dtype == np.float64
    there = [tg.tensor(a, backend=hostile, requires_grad=True), tg.tensor(b, backend=hostile)]
    assert tg.gradcheck(scaled_product, there, order=2)

    def halves(F: Any, g: Any, out: Any, x: Any, needs: Any) -> tuple:
        top, bottom = (F.zeros_like(x) if part is None else part for part in g)
        return (top + 2 * bottom,)

    @tg.custom_op(joint=halves, saves="x")
    def once_and_twice(xp: Any, x: Any) -> Any:
        return x, 2 * x

    assert tg.gradcheck(once_and_twice, b, order=2)
    _, twice = once_and_twice(b)
    assert_array_equal(tg.grad(twice.sum(), b).numpy(), [2, 2, 2])


@pytest.mark.usefixtures("own_names")
def test_the_derivative_shown_is_the_one_that_was_given() -> None:
    """Also of two on one line, and of one that uses a variable from outside."""
    factor = 3.0

    @tg.custom_op(lambda F, g, out, a, b: factor * g * b, lambda F, g, out, a, b: factor * g * a)
    def triple_product(xp: Any, a: Any, b: Any) -> Any:
        return factor * a * b

    assert tg.ops["triple_product"].derivative() == ["da = factor * g * b", "db = factor * g * a"]

    @tg.custom_op(eval("lambda F, g, out, x: g"))
    def typed_somewhere(xp: Any, x: Any) -> Any:
        return x

    assert tg.ops["typed_somewhere"].derivative() == ["dx = (its source is not at hand)"]


@pytest.mark.usefixtures("own_names")
def test_an_own_op_may_keep_residuals() -> None:
    """What its forward function computes for its VJP alone; not asked for where nothing is recorded."""
    asked: list[bool] = []

    def joint(F: Any, g: Any, out: Any, x: Any, needs: Any, residuals: Any) -> tuple:
        return (g * (residuals if residuals is not None else F.cos(x)),)

    @tg.custom_op(joint=joint, has_residuals=True, reference=lambda F, x: F.sin(x))
    def own_sine(xp: Any, x: Any, keep: bool = True) -> Any:
        asked.append(keep)
        return xp.sin(x), xp.cos(x) if keep else None

    @tg.custom_op(lambda F, g, out, x: g * F.own_sine(x))
    def minus_cosine(xp: Any, x: Any) -> Any:
        return -xp.cos(x)

    x = leaf(np.array([0.5, 1.0]))
    assert tg.gradcheck(own_sine, x, order=2)
    assert tg.gradcheck(minus_cosine, x, order=2)
    asked.clear()
    own_sine(x.detach())
    own_sine(x)
    tg.grad(minus_cosine(x).sum(), x)
    assert asked == [False, True, False]


@pytest.mark.usefixtures("own_names")
def test_entering_an_own_op_again_replaces_it_everywhere() -> None:
    """A notebook cell run twice: also inside the VJP of another op."""

    def enter(factor: float) -> Callable:
        @tg.custom_op(lambda F, g, out, x: factor * g, saves="")
        def my_scale(xp: Any, x: Any) -> Any:
            return factor * x

        return my_scale

    @tg.custom_op(lambda F, g, out, x: F.my_scale(g), saves="")
    def uses_it(xp: Any, x: Any) -> Any:
        return x

    x = leaf(np.array([1.0]))
    for factor in (2.0, 5.0):
        assert enter(factor)(x).item() == factor
        assert tg.grad(uses_it(x), x).item() == factor
        assert tg.grad(uses_it(x), x, create_graph=True).item() == factor


@pytest.mark.usefixtures("own_names")
def test_own_ops_that_are_refused() -> None:
    def forward(xp: Any, x: Any) -> Any:
        return x

    forward.__name__ = "tanh"
    with pytest.raises(TinygradError, match="'tanh' exists already"):
        tg.custom_op(lambda F, g, out, x: g)(forward)
    forward.__name__ = "own"
    with pytest.raises(TinygradError, match="1 inputs and 2 VJPs"):
        tg.custom_op(lambda F, g, out, x: g, None, inputs=1)(forward)
    with pytest.raises(TinygradError, match=r"saves \['y'\]"):
        tg.custom_op(lambda F, g, out, x: g, saves="y")(forward)
    with pytest.raises(TinygradError, match=r"'own' keeps residuals.*reference="):
        tg.custom_op(joint=lambda F, g, out, x, needs, residuals: (g,), has_residuals=True)(forward)
    assert "own" not in tg.ops
    assert tg.ops["tanh"].source == "built-in"

    @tg.custom_op(lambda F, g, out, x: F.no_such_op(g))
    def asks_for_more(xp: Any, x: Any) -> Any:
        return x

    with pytest.raises(AttributeError, match="no op is called 'no_such_op'"):
        asks_for_more(tg.ones(1, requires_grad=True)).backward()


@pytest.mark.usefixtures("own_names")
def test_an_own_op_without_a_derivative_is_constant() -> None:
    @tg.custom_op(None)
    def ceiling(xp: Any, x: Any) -> Any:
        return xp.ceil(x)

    x = leaf(np.array([0.5]))
    assert tg.grad((ceiling(x) * x).sum(), x).item() == 1


def test_errors_have_the_exit_code_of_their_kind() -> None:
    """Each is a TinygradError, and also what a Python programmer would catch."""
    for error, builtin in [(ShapeError, ValueError), (DtypeError, TypeError), (GraphError, RuntimeError)]:
        assert issubclass(error, TinygradError) and issubclass(error, builtin)
    assert (TinygradError.exit_code, UsageError.exit_code, DataError.exit_code) == (1, 2, 3)
