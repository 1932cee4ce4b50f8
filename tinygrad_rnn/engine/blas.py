"""The BLAS library that NumPy calls: which one it is, and where its functions are."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


def blas_library() -> dict[str, Any]:
    """What threadpoolctl says of the BLAS that NumPy calls; empty where it finds none (Accelerate)."""
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    # Another package, such as SciPy, may have brought its own. NumPy's wheels keep theirs beside NumPy.
    site = Path(np.__file__).parents[1]
    own = [site / "numpy", site / "numpy.libs"]
    libraries.sort(key=lambda library: not any(path in Path(library["filepath"]).parents for path in own))
    return libraries[0] if libraries else {}


class Routines(NamedTuple):
    """Addresses of cblas functions by dtype, and the bits of the integers that they take."""

    gemm: dict[str, int]
    gemv: dict[str, int]
    integer_bits: int


@functools.cache
def routines() -> Routines | None:
    """Where cblas_?gemm and cblas_?gemv of NumPy's BLAS are; None if they are not to be found."""
    path = blas_library().get("filepath")
    if path is None:
        return None
    library = ctypes.CDLL(path)
    for prefix, suffix in [("scipy_cblas_", "64_"), ("cblas_", "64_"), ("scipy_cblas_", ""), ("cblas_", "")]:
        found = [
            {dtype: getattr(library, f"{prefix}{letter}{name}{suffix}", None) for dtype, letter in LETTERS}
            for name in ("gemm", "gemv")
        ]
        if all(function is not None for each in found for function in each.values()):
            gemm, gemv = ({dtype: _address(f) for dtype, f in each.items()} for each in found)
            return Routines(gemm, gemv, 64 if suffix else 32)
    return None


LETTERS = [("float32", "s"), ("float64", "d")]


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address
