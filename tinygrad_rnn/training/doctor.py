"""What a training has to work with here, measured, and advice where a setting holds it back.

`examine()` looks and measures for about a second; `advice()` judges what it found.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..engine.backend import get_backend
from ..engine.blas import blas_library
from ..errors import BackendError
from .machine import load_average, memory, usable_cores

CORETYPE = "OPENBLAS_CORETYPE"
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
WORTH_SAYING = 1.15  # how much faster another setting must be
SLOW = 10.0  # GFLOP/s of one core that a tuned library exceeds on any processor of the last ten years
LITTLE_MEMORY = 1 << 30
SIZE, SECONDS = 1024, 0.25  # of a measured product; at least so long it is repeated


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found; None: not there, or the system does not say.

    Rates are of a single-precision matrix product, in GFLOP/s: `rate` with one thread (or however many a
    library uses whose threads cannot be held), `rate_all` with all cores. `other_kernel` and `other_rate` are
    what OpenBLAS chooses by itself and how fast that is with one thread, if OPENBLAS_CORETYPE is set.
    blas_threads: in force now. thread_variables: those set in the environment. Memory is in bytes.
    """

    python: str
    tinygrad_rnn: str
    numpy: str
    blas: str | None
    blas_kernel: str | None
    blas_threads: int | None
    rate: float
    rate_all: float | None
    coretype: str | None
    other_kernel: str | None
    other_rate: float | None
    thread_variables: Mapping[str, str]
    numba: str | None
    cupy: str | None
    gpu: str | None
    gpu_memory: int | None
    gpu_problem: str | None
    nvidia: bool
    memory: int | None
    memory_available: int | None
    cores: int
    load: float | None

    def as_json(self) -> dict[str, Any]:
        """For machines, with the advice."""
        return asdict(self) | {"advice": advice(self)}


def examine() -> Findings:
    """Look at this machine and measure its matrix rate; about a second, more with a slow library."""
    load = load_average()  # before this adds to it
    blas = blas_library()
    cores = usable_cores()
    holdable = "num_threads" in blas
    rate = matrix_rate(1)
    coretype = os.environ.get(CORETYPE)
    other_kernel = other_rate = None
    if coretype is not None and blas.get("internal_api") == "openblas":
        other_kernel, other_rate = _without_coretype()
        rate = max(rate, matrix_rate(1))  # again, since another program may have stepped in or out
    total, available = memory()
    return Findings(
        python=platform.python_version(),
        tinygrad_rnn=__version__,
        numpy=np.__version__,
        blas=f"{blas['internal_api']} {blas['version']}" if blas else _blas_of_build(),
        blas_kernel=blas.get("architecture"),
        blas_threads=blas.get("num_threads"),
        rate=rate,
        rate_all=matrix_rate(cores) if holdable and cores > 1 else None,
        coretype=coretype,
        other_kernel=other_kernel,
        other_rate=other_rate,
        thread_variables={name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        numba=_version("numba"),
        **_gpu(),
        nvidia=Path("/dev/nvidia0").exists(),
        memory=total,
        memory_available=available,
        cores=cores,
        load=load,
    )


def advice(found: Findings) -> list[str]:
    """What to change so that training runs faster or safer, one sentence or two each; empty: all is well."""
    said = []
    if found.other_rate is not None and found.other_rate > WORTH_SAYING * found.rate:
        said.append(
            f"{CORETYPE}={found.coretype} is set and {_slowed(found.rate / found.other_rate)} on this "
            f"processor: {found.rate:.0f} GFLOP/s, without it {found.other_rate:.0f} ({found.other_kernel}). "
            "Unset it; a run that was begun with it then continues, but no longer bit for bit."
        )
    if found.blas_threads is not None and found.blas_threads < found.cores and found.thread_variables:
        settings = " ".join(f"{name}={value}" for name, value in found.thread_variables.items())
        said.append(
            f"{settings} is set: large networks are trained on {found.blas_threads} of {found.cores} cores. "
            f"Unset it, or train with --threads {found.cores}."
        )
    if found.blas_threads is not None and found.blas_threads > found.cores:
        said.append(
            f"The matrix products start {found.blas_threads} threads, but this process may use {found.cores} "
            f"cores; the rest only wait. Train with --threads {found.cores}."
        )
    if found.rate < SLOW and not (found.blas_kernel or "accelerate" in (found.blas or "")):
        said.append(
            f"NumPy multiplies matrices at {found.rate:.2g} GFLOP/s: it has no fast BLAS library. The wheel "
            "that pip installs brings OpenBLAS: pip install --force-reinstall --only-binary :all: numpy"
        )
    if found.load is not None and found.load > found.cores:
        said.append(
            f"The machine is busy (load average {found.load:.1f} on {_count(found.cores, 'core')}): "
            "trainings are slowed down, and the rates measured here may be too low."
        )
    if found.memory_available is not None and found.memory_available < LITTLE_MEMORY:
        said.append(
            f"Only {gigabytes(found.memory_available)} of memory are available. Close other programs, or "
            "train with a smaller --batch-size, --seq-length or --hidden-size."
        )
    if found.nvidia and found.gpu is None:
        said.append(
            f"An NVIDIA GPU is in this machine but cannot be used: {found.gpu_problem or 'CuPy finds none'}."
        )
    return said


def matrix_rate(threads: int) -> float:
    """GFLOP/s of a single-precision matrix product with so many threads: the best of several."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    a = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    out = np.empty_like(a)
    fastest, until = math.inf, time.perf_counter() + SECONDS
    with threadpool_limits(limits=threads, user_api="blas"):
        np.matmul(a[:64, :64], a[:64, :64])  # threads are started by the first product
        while fastest == math.inf or time.perf_counter() < until:
            began = time.perf_counter()
            np.matmul(a, a, out=out)
            fastest = min(fastest, time.perf_counter() - began)
    return 2 * SIZE**3 / fastest / 1e9


def gigabytes(count: float) -> str:
    """A number of bytes in GB or MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _without_coretype() -> tuple[str | None, float | None]:
    """OpenBLAS's own choice of a kernel, and its rate. It chooses once, so another process is asked."""
    code = (
        "from tinygrad_rnn.training.doctor import blas_library, matrix_rate\n"
        "print(blas_library()['architecture'], matrix_rate(1))"
    )
    environment = {name: value for name, value in os.environ.items() if name != CORETYPE}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        kernel, rate = answer.stdout.split()
        return kernel, float(rate)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None, None


def _blas_of_build() -> str | None:
    """What NumPy was built with: for a library that threadpoolctl does not know (Apple's Accelerate)."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return str(blas["name"]) if blas.get("found") and blas.get("name") else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def gpu_name(cupy: Any) -> str:
    """The GPU in use, and its driver's version."""
    runtime = cupy.cuda.runtime
    name = runtime.getDeviceProperties(runtime.getDevice())["name"].decode(errors="replace")
    return f"{name}, CUDA driver {runtime.driverGetVersion()}"


def _gpu() -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("cupy", "gpu", "gpu_memory", "gpu_problem"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy's remarks about its installation are no findings
            cupy = get_backend("cupy").xp
            found["cupy"] = cupy.__version__
            runtime = cupy.cuda.runtime
            found["gpu"] = gpu_name(cupy)
            found["gpu_memory"] = runtime.memGetInfo()[1]
    except BackendError as error:
        found["gpu_problem"] = str(error)
    except Exception as error:  # a broken installation of CuPy or CUDA fails in ways of its own
        found["gpu_problem"] = f"{type(error).__name__}: {error}"
    return found


def _slowed(part: float) -> str:
    if 0.4 < part < 0.6:
        return "halves your matrix speed"
    return f"costs {100 * (1 - part):.0f} % of your matrix speed"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
