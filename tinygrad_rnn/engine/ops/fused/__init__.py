"""Kernels: whole sequences computed in one call, equal to the equations of ../recurrent.py.

There are twins: sequence.py, in the functions that NumPy and CuPy share, and compiled.py, by Numba for the
processor. The second is used where Numba is installed, unless `use_kernels` says otherwise.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from ....errors import BackendError
from ...blas import routines

NAMES = ("numpy", "numba")


class _Chosen:
    name: str | None = None  # None: numba if it is there


def use_kernels(name: str | None) -> None:
    """From here on compute sequences on the processor by these kernels: "numpy", "numba", or None for the
    faster ones that are there. BackendError where they are missing."""
    if name not in (*NAMES, None):
        raise BackendError(f"no kernels are called {name!r}; there are {', '.join(NAMES)}")
    if name == "numba" and (lacking := _lacking()):
        raise BackendError(f"the numba kernels need {lacking}")
    _Chosen.name = name


def kernels_in_use() -> str:
    """The name of the kernels that sequences on the processor are computed by."""
    return _Chosen.name or ("numpy" if _lacking() else "numba")


def kernels_for(xp: Any, dtype: Any) -> ModuleType:
    """The module of kernels for arrays of this library and dtype."""
    from . import sequence

    if xp is np and dtype.name in ("float32", "float64") and kernels_in_use() == "numba":
        from . import compiled

        return compiled
    return sequence


@functools.cache
def _lacking() -> str | None:
    """What the numba kernels would need."""
    if find_spec("numba") is None:
        return "Numba: pip install 'tinygrad-rnn[fast]'"
    if routines() is None:
        return "a BLAS library with cblas functions, which this NumPy has not (Accelerate?)"
    return None
