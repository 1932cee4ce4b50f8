"""Kernels: whole sequences computed in one call, equal to the equations of ../recurrent.py.

There are twins: sequence.py, in the functions that NumPy and CuPy share, and compiled.py, by Numba for the
processor. The second is used where Numba is installed, unless `use_kernels` says otherwise.
"""

from __future__ import annotations

import functools
import os
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from ....errors import BackendError
from ...blas import routines

NAMES = ("numpy", "numba")
VARIABLE = "TINYGRAD_RNN_KERNELS"  # of the environment: a choice for programs that make none


class _Chosen:
    name: str | None = None


class use_kernels:  # noqa: N801 - used like a function
    """Compute sequences on the processor by these kernels, from here on or for a `with` block: "numpy",
    "numba", or None for Numba's where it is installed.

    Raises BackendError for another name, or where they are missing.
    """

    def __init__(self, name: str | None) -> None:
        if name not in (*NAMES, None):
            raise BackendError(f"no kernels are called {name!r}; there are {', '.join(NAMES)}")
        if name == "numba" and (lacking := _lacking()):
            raise BackendError(f"the numba kernels need {lacking}")
        self._before, self._name = _Chosen.name, name
        _Chosen.name = name

    def __enter__(self) -> None:
        _Chosen.name = self._name

    def __exit__(self, *error: object) -> None:
        _Chosen.name = self._before


def kernels_in_use() -> str:
    """The name of the kernels that sequences on the processor are computed by."""
    name = _Chosen.name or os.environ.get(VARIABLE)
    if name in NAMES:
        return name
    return "numpy" if _lacking() else "numba"


def must_compile() -> bool:
    """Whether the kernels in use have yet to be compiled, for this machine and version: some 20 seconds."""
    if kernels_in_use() != "numba":
        return False
    from .jit import cache_folder

    return not cache_folder().exists()


def kernels_for(xp: Any, dtype: Any) -> ModuleType:
    """The module of kernels for arrays of this library and dtype."""
    from . import sequence

    if is_compiled(xp, dtype):
        from . import compiled

        return compiled
    return sequence


def is_compiled(xp: Any, dtype: Any) -> bool:
    """Whether compiled kernels compute on arrays of this library and dtype."""
    return xp is np and dtype in (np.float32, np.float64) and kernels_in_use() == "numba"


@functools.cache
def _lacking() -> str | None:
    """What the numba kernels would need."""
    if find_spec("numba") is None:
        return "Numba: pip install 'tinygrad-rnn[fast]'"
    if routines() is None:
        return "a BLAS library with cblas functions, which this NumPy has not (Accelerate?)"
    return None
