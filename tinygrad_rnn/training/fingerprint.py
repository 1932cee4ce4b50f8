"""The fingerprint of a run: what decides the bits of its numbers besides its settings and its text.

Two trainings with the same settings, text and fingerprint compute the same numbers to the last bit. With
another fingerprint they may not: another BLAS kernel, or one thread more, adds in another order.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version

import numpy as np

from .. import __version__
from ..engine.backend import Backend, get_backend
from ..engine.blas import blas_library
from ..engine.ops.fused import kernels_in_use
from ..engine.ops.fused.shards import shards_in_use

SHOWN = 200  # characters of a foreign value


def fingerprint(backend: str) -> dict[str, str]:
    """What decides the bits of a training's numbers besides its settings and its text: sorted names -> texts.

    Kernels, threads and shards are those in force now.
    Raises BackendError if the backend's library or device is missing.
    """
    blas = blas_library()
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})
    found = {
        "tinygrad_rnn": __version__,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",  # 3.12 sums floats in another way
        "numpy": np.__version__,
        "blas": f"{blas['internal_api']} {blas['version']}" if blas else "not found",
        "blas kernel": str(blas.get("architecture", "not named")),
        "blas threads": str(blas.get("num_threads", "not known")),
        "backend": _backend(get_backend(backend)),
        "kernels": _kernels(backend),
        "shards": str(shards_in_use()),
        "processor": platform.machine(),
        "processor features": " ".join([*simd.get("baseline", ()), *simd.get("found", ())]),
        # math.cos and its like are the C library's.
        "c library": " ".join(platform.libc_ver()).strip() or f"{platform.system()} {platform.release()}",
    }
    return dict(sorted(found.items()))


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """One short phrase each, such as 'numpy 2.3.0 -> 2.4.6'; empty: the numbers go on exactly.

    `before` may come from any file: what it lacks, has too much or has of another type is named too.
    """
    if not isinstance(before, dict) or not before:
        return ["fingerprint not recorded"]
    always = (
        ["the GPU adds up an embedding's gradient in no fixed order"] if now.get("kernels") == "cupy" else []
    )
    return always + [
        f"{str(name)[:SHOWN]} {_shown(before, name)} -> {_shown(now, name)}"
        for name in sorted({*before, *now}, key=str)
        if name not in before or name not in now or before[name] != now[name]
    ]


def _kernels(backend: str) -> str:
    if backend != "numpy":
        return backend
    name = kernels_in_use()
    # Another compiler may order or fuse arithmetic in another way.
    return f"{name} {version(name)}, llvmlite {version('llvmlite')}" if name == "numba" else name


def _backend(backend: Backend) -> str:
    if backend.name != "cupy":
        return backend.name
    cupy = backend.xp
    device = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    parts = [
        f"cupy {cupy.__version__}",
        device["name"].decode(errors="replace"),
        f"driver {cupy.cuda.runtime.driverGetVersion()}",
        f"runtime {cupy.cuda.runtime.runtimeGetVersion()}",
        f"cublas {cupy.cuda.cublas.getVersion(cupy.cuda.device.get_cublas_handle())}",
        *(f"{name}={os.environ[name]}" for name in ("CUPY_ACCELERATORS", "CUPY_TF32") if name in os.environ),
    ]
    return ", ".join(parts)


def _shown(values: dict[str, str], name: str) -> str:
    value = values.get(name, "not recorded")
    return value[:SHOWN] if isinstance(value, str) else "not a text"
