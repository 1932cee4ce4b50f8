"""The BLAS library that NumPy calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
