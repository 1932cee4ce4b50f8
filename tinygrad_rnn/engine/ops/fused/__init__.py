"""Kernels: whole sequences computed in one call, equal to the equations of ../recurrent.py.

There are three of a kind: sequence.py, in the functions that array libraries share; compiled.py, by Numba for
the processor, used where Numba is installed unless `use_kernels` says otherwise; and device.py for a GPU.
"""

from __future__ import annotations

import functools
import os
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from ....errors import BackendError

NAMES = ("numpy", "numba")
VARIABLE = "TINYGRAD_RNN_KERNELS"  # of the environment: a choice for programs that make none


LARGE = 1 << 14  # elements of an array for which relu and `where` are worth compiling
OLDEST = (0, 68)  # version of Numba
INSTALL = "pip install 'tinygrad-rnn[fast]'"


class _Chosen:
    name: str | None = None


class use_kernels:  # noqa: N801 - used like a function
    """Compute sequences on the processor by these kernels, from here on or for a `with` block: "numpy",
    "numba", or None for what TINYGRAD_RNN_KERNELS says, and else Numba's where it is installed.

    Raises BackendError for another name, or where they are missing.
    """

    def __init__(self, name: str | None) -> None:
        _checked(name)
        self._before, self._name = _Chosen.name, name
        _Chosen.name = name

    def __enter__(self) -> None:
        _Chosen.name = self._name

    def __exit__(self, *error: object) -> None:
        _Chosen.name = self._before


def kernels_in_use() -> str:
    """The name of the kernels that sequences on the processor are computed by."""
    return _checked(_Chosen.name) or ("numpy" if _lacking() else "numba")


def _checked(name: str | None) -> str | None:
    """The name, or the one in the environment."""
    where = ""
    if name is None:
        name, where = os.environ.get(VARIABLE) or None, f"{VARIABLE}: "
    if name not in (*NAMES, None):
        raise BackendError(f"{where}no kernels are called {name!r}; there are {', '.join(NAMES)}")
    if name == "numba" and (lacking := _lacking()):
        raise BackendError(f"{where}the numba kernels need {lacking}")
    return name


def must_compile(*functions: str) -> bool:
    """Whether one of these, such as "lstm_backward" of layers.py, has yet to be compiled, for this machine
    and version. All of them take some 10 seconds."""
    if kernels_in_use() != "numba":
        return False
    from .jit import cache_folder

    return not all(any(cache_folder().rglob(f"*.{name}-*.nbc")) for name in functions)


def kernels_for(xp: Any, dtype: Any) -> ModuleType:
    """The module of kernels for arrays of this library and dtype."""
    if is_compiled(xp, dtype):
        from . import compiled

        return compiled
    if is_on_device(xp, dtype):
        from . import device

        return device
    from . import sequence

    return sequence


def convolution_kernels_for(xp: Any, dtype: Any) -> ModuleType:
    """The module of convolution's kernels for arrays of this library and dtype."""
    if is_compiled(xp, dtype):
        from . import compiled_convolution

        return compiled_convolution
    from . import convolution

    return convolution


def chooses_compiled(xp: Any, x: Any) -> bool:
    """Whether relu and `where` of this array go by compiled kernels: it is large enough."""
    return getattr(x, "size", 0) >= LARGE and is_compiled(xp, x.dtype)


def is_compiled(xp: Any, dtype: Any) -> bool:
    """Whether compiled kernels compute on arrays of this library and dtype."""
    return xp is np and dtype.char in "fd" and dtype.isnative and kernels_in_use() == "numba"


def is_on_device(xp: Any, dtype: Any) -> bool:
    """Whether this library compiles CUDA for its arrays, as CuPy does."""
    return dtype.char in "fd" and dtype.isnative and hasattr(xp, "RawModule")


@functools.cache
def _lacking() -> str | None:
    """What the numba kernels would need."""
    if find_spec("numba") is None:
        return f"Numba: {INSTALL}"
    try:
        import numba
    except Exception as error:  # it refuses a NumPy newer than itself
        return f"a Numba that can be imported, which this one cannot: {' '.join(str(error).split())}"
    if numba.version_info[:2] < OLDEST:
        return f"Numba {'.'.join(map(str, OLDEST))} or newer, not {numba.__version__}: {INSTALL}"
    config: Any = numba.config
    if config.DISABLE_JIT:
        return "Numba's compiler, which NUMBA_DISABLE_JIT switches off"
    return None
