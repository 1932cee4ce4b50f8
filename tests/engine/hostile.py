"""A backend that refuses what CuPy refuses, so that the switch of array libraries stays honest without a GPU.

Its arrays wrap NumPy's and are none themselves. They take Python numbers and one another, `.item()`,
`.get()` and explicit conversion; everything implicit (`np.asarray`, `float()`, `bool()`, an operand or an
index that is a NumPy array, a NumPy function) raises. Results of reductions stay arrays of no dimensions. The
namespace has only functions that NumPy and CuPy share, and needs an array where CuPy does.
"""

from __future__ import annotations

import operator
from types import SimpleNamespace

import numpy as np

from tinygrad_rnn.engine.backend import Backend


class HostileArray:
    """An array of the hostile library."""

    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # ndarray + hostile reaches the reflected operator below, which refuses

    def __init__(self, values: np.ndarray, base: HostileArray | None = None) -> None:
        self.values = values
        self.base = base  # the array that owns the memory, as in NumPy

    shape = property(lambda self: self.values.shape)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    dtype = property(lambda self: self.values.dtype)
    nbytes = property(lambda self: self.values.nbytes)
    strides = property(lambda self: self.values.strides)
    T = property(lambda self: _wrap(self.values.T, (self,)))

    def __repr__(self) -> str:
        return f"hostile({self.values!r})"

    # --- the two explicit ways to the host ---------------------------------------------------------

    def get(self) -> np.ndarray:
        return self.values.copy()

    def item(self) -> float | int | bool:
        return self.values.item()

    # --- the implicit ways --------------------------------------------------------------------------

    def _refuse(self, *_: object, **__: object) -> None:
        raise TypeError("implicit conversion of a hostile array; use .get() or .item()")

    __array__ = __array_function__ = __float__ = __int__ = __bool__ = __index__ = __complex__ = _refuse

    # --- elements ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        return _wrap(self.values[_index(index)], (self,))

    def __setitem__(self, index, value) -> None:
        self.values[_index(index)] = _unwrap(value)


def _unwrap(value):
    """The values of a hostile array, also inside sequences; Python's own objects as they are."""
    if isinstance(value, HostileArray):
        return value.values
    if isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"a {type(value).__name__} of NumPy where a hostile array or Python number is needed")
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrap(item) for item in value)
    return value


def _index(index):
    if isinstance(index, list):
        raise TypeError("a list as index of a hostile array")
    return _unwrap(index)


def _arrays_in(arguments) -> list[HostileArray]:
    found = []
    for argument in arguments:
        if isinstance(argument, HostileArray):
            found.append(argument)
        elif isinstance(argument, (tuple, list)):
            found += _arrays_in(argument)
    return found


def _wrap(result, sources):
    """A hostile array around a result of NumPy's; a view knows the hostile array that owns its memory."""
    if isinstance(result, (tuple, list)):
        return type(result)(_wrap(item, sources) for item in result)
    array = np.asarray(result)
    for source in sources:
        if np.may_share_memory(array, source.values):
            return HostileArray(array, source if source.base is None else source.base)
    return HostileArray(array)


def _function(name, function):
    def call(*arguments, out=None, **options):
        sources = _arrays_in(arguments)
        if not sources:
            raise TypeError(f"{name} of no array at all")
        if name == "where" and not isinstance(arguments[0], HostileArray):
            raise TypeError("where: the condition must be an array")
        if name == "clip" and arguments[1] is None and arguments[2] is None:
            raise ValueError("clip: one of the limits must be given")
        if out is None:
            return _wrap(function(*_unwrap(arguments), **_unwrapped_options(options)), sources)
        function(*_unwrap(arguments), out=out.values, **_unwrapped_options(options))
        return out

    return call


def _unwrapped_options(options):
    return {key: _unwrap(value) for key, value in options.items()}


def _method(name):
    def call(self, *arguments, **options):
        result = getattr(self.values, name)(*_unwrap(arguments), **_unwrapped_options(options))
        return _wrap(result, (self,))

    return call


def _operator(function, reflected=False):
    def call(self, other):
        operands = (_unwrap(other), self.values) if reflected else (self.values, _unwrap(other))
        return _wrap(function(*operands), ())

    return call


def _in_place(ufunc):
    def call(self, other):
        ufunc(self.values, _unwrap(other), out=self.values, casting="same_kind")
        return self

    return call


_METHODS = (
    "sum mean var max min prod argmax argmin cumsum reshape transpose swapaxes squeeze astype view copy all "
    "any"
)
_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor"
_COMPARISONS = "eq ne lt le gt ge"
_IN_PLACE = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide}

for _name in _METHODS.split():
    setattr(HostileArray, _name, _method(_name))
for _name in _BINARY.split():
    _python = getattr(operator, f"__{_name}__")
    setattr(HostileArray, f"__{_name}__", _operator(_python))
    setattr(HostileArray, f"__r{_name}__", _operator(_python, reflected=True))
for _name in _COMPARISONS.split():
    setattr(HostileArray, f"__{_name}__", _operator(getattr(operator, f"__{_name}__")))
for _name, _ufunc in _IN_PLACE.items():
    setattr(HostileArray, f"__i{_name}__", _in_place(_ufunc))
for _name in ("neg", "pos", "abs", "invert"):
    _python = getattr(operator, f"__{_name}__")
    setattr(HostileArray, f"__{_name}__", lambda self, _python=_python: _wrap(_python(self.values), ()))


class HostileNamespace:
    """`xp`: the functions that NumPy and CuPy share, on hostile arrays."""

    _MAKE = "zeros ones empty full arange eye"
    _TAKE = (
        "add subtract multiply divide power negative absolute sign sqrt square exp expm1 log log1p "
        "sin cos tanh equal not_equal less less_equal greater greater_equal "
        "logical_and logical_or logical_not isfinite "
        "maximum minimum clip where sum prod cumsum argmax argmin any all matmul dot vdot einsum "
        "concatenate stack split moveaxis expand_dims broadcast_to flip pad take take_along_axis "
        "zeros_like ones_like empty_like full_like ascontiguousarray copyto"
    )

    def __init__(self) -> None:
        for name in self._MAKE.split():
            setattr(self, name, self._maker(getattr(np, name)))
        for name in self._TAKE.split():
            setattr(self, name, _function(name, getattr(np, name)))

        windows = np.lib.stride_tricks.as_strided
        tricks = SimpleNamespace(as_strided=_function("as_strided", windows))
        self.lib = SimpleNamespace(stride_tricks=tricks)

    @staticmethod
    def _maker(function):
        return lambda *arguments, **options: HostileArray(function(*_unwrap(arguments), **options))

    @staticmethod
    def array(values, dtype=None, order="K"):
        """A copy, from a host array as well: this is an explicit transfer."""
        return HostileArray(np.array(getattr(values, "values", values), dtype, order=order))

    @staticmethod
    def asarray(values, dtype=None):
        if isinstance(values, HostileArray) and dtype in (None, values.dtype):
            return values
        return HostileNamespace.array(values, dtype)


def _scatter_add(out: HostileArray, index, values: HostileArray) -> None:
    np.add.at(out.values, _index(index), _unwrap(values))


HOSTILE = Backend(
    name="hostile",
    xp=HostileNamespace(),
    array_type=HostileArray,
    from_host=HostileNamespace.array,
    to_host=HostileArray.get,
    scatter_add=_scatter_add,
)
