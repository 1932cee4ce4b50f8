"""The environment that a benchmark runs in, and what there is to say about it."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import tinygrad_rnn
from tinygrad_rnn.engine.backend import get_backend
from tinygrad_rnn.training.doctor import CORETYPE, THREAD_VARIABLES, gpu_name
from tinygrad_rnn.training.fingerprint import blas_library
from tinygrad_rnn.training.machine import load_average, memory, processor, usable_cores

TF32 = "CUPY_TF32"  # which bench.pytorch obeys as CuPy does
PACKAGES = ("numpy", "numba", "torch", "jax", "jaxlib", "optax", "autograd")


def without_settings() -> None:
    """Start this program anew without the variables that pin NumPy to an older kernel or to fewer threads;
    libraries read them once, when they are loaded."""
    unwanted = {CORETYPE, *THREAD_VARIABLES} & os.environ.keys()
    if unwanted:
        print(f"without {', '.join(sorted(unwanted))} from here on", file=sys.stderr)
        environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        os.execve(sys.executable, sys.orig_argv, environment)


def gpu() -> str:
    """The GPU, its driver and CuPy's version. BackendError where none can be used."""
    cupy = get_backend("cupy").xp
    return f"{gpu_name(cupy)}, CuPy {cupy.__version__}"


def round_to_tf32(wanted: bool) -> None:
    """Whether contestants that are started from here on may round the factors of products on a GPU."""
    os.environ[TF32] = str(int(wanted))


def describe() -> dict[str, Any]:
    """This machine, the software, and the time, as they go into the results."""
    blas = blas_library()
    versions = {"Python": platform.python_version(), "tinygrad_rnn": tinygrad_rnn.__version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "cores": usable_cores(),
        "memory": memory()[0],
        "load": load_average(),
        "system": f"{platform.system()} {platform.machine()}",
        "blas": f"{blas['internal_api']} {blas['version']}" if blas else "not known",
        "blas_kernel": blas.get("architecture", "not named"),
        "blas_threads": blas.get("num_threads"),
        "versions": versions,
    }
