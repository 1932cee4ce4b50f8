"""kernels.cu without a GPU: compiled by a C++ compiler, its blocks run one after the other, each thread of a
block as one of the processor's, and the arrays are NumPy's.

It shows that the kernels compute what they should, and that threads wait for each other where they must. Of
speed, and of what a real GPU does with them, it says nothing.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_rnn.engine.backend import NUMPY, Backend
from tinygrad_rnn.engine.ops.fused import device

SHARED = 48 * 1024  # bytes that a block may share on any GPU, unless more is asked for
CPP = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread"]


def _compiler() -> str | None:
    """One that knows barriers."""
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        return None
    tried = [found, *CPP, "-x", "c++", "-o", os.devnull, "-"]
    works = subprocess.run(tried, input=b"#include <barrier>\nstd::barrier<> b(1);", capture_output=True)
    return found if works.returncode == 0 else None


COMPILER = _compiler()

BEFORE = r"""
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstddef>
#include <thread>
#include <vector>
using std::min;
#define __device__ static
struct Place { unsigned x, y; };
thread_local Place threadIdx, blockIdx;
Place blockDim, gridDim;
Real* shared_memory;
std::barrier<>* together;
#define __syncthreads() together->arrive_and_wait()
static float tanh(float x) { return std::tanh(x); }
static float exp(float x) { return std::exp(x); }
static float log(float x) { return std::log(x); }
static float sqrt(float x) { return std::sqrt(x); }
"""

AFTER = r"""
template <class F> void over_the_grid(unsigned x, unsigned y, unsigned threads, size_t shared, F kernel)
{
    gridDim = {x, y}, blockDim = {threads, 1};
    for (unsigned j = 0; j < y; j++) for (unsigned i = 0; i < x; i++) {
        std::vector<Real> memory(shared + 1, Real(NAN));  // as good as whatever was there before
        std::barrier<> barrier(threads);
        shared_memory = memory.data(), together = &barrier;
        std::vector<std::thread> all;
        for (unsigned t = 0; t < threads; t++) all.emplace_back([=, &barrier] {
            threadIdx = {t, 0}, blockIdx = {i, j};
            kernel();
            barrier.arrive_and_drop();
        });
        for (auto& one : all) one.join();
    }
}
"""


@functools.cache
def _library(source: str, options: tuple[str, ...]) -> tuple[ctypes.CDLL, dict[str, list[str]]]:
    """The compiled kernels, and the types of the arguments of each."""
    kernels = {}
    for part in source.split("\nKERNEL ")[1:]:
        name, rest = part.split("(", 1)
        kernels[name] = [argument.strip() for argument in rest.split(")", 1)[0].split(",")]
    text = (
        BEFORE + source.replace("extern __shared__ Real shared[];", "Real* shared = shared_memory;") + AFTER
    )
    text = re.sub("#define KERNEL .*", "#define KERNEL static void", text)
    for name, arguments in kernels.items():
        names = ", ".join(argument.split()[-1].lstrip("*") for argument in arguments)
        grid = "unsigned x, unsigned y, unsigned threads, size_t shared"
        text += (
            f'extern "C" void on_cpu_{name}({grid}, {", ".join(arguments)})\n'
            f"{{ over_the_grid(x, y, threads, shared, [=] {{ {name}({names}); }}); }}\n"
        )
    folder = Path(tempfile.mkdtemp())
    (folder / "kernels.cpp").write_text(text)
    command = [COMPILER, *CPP, *options, "-o", "kernels.so", "kernels.cpp"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "kernels.so"))
    shutil.rmtree(folder)
    return library, kernels


class RawModule:
    """As CuPy's."""

    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        self._library, self._kernels = _library(code, options)
        self._real = ctypes.c_float if "-DReal=float" in options else ctypes.c_double

    def get_function(self, name: str) -> Any:
        function, kinds = self._library[f"on_cpu_{name}"], self._kernels[name]

        def call(blocks: tuple, threads: tuple, arguments: tuple, shared_mem: int) -> None:
            assert len(arguments) == len(kinds)
            assert 0 < threads[0] <= device.THREADS and len(threads) == 1 and min(blocks) > 0
            assert shared_mem <= SHARED
            given = [self._converted(*pair) for pair in zip(arguments, kinds, strict=True)]
            x, y = (*blocks, 1)[:2]
            shared = ctypes.c_size_t(-(-shared_mem // ctypes.sizeof(self._real)))
            function(x, y, threads[0], shared, *given)

        return call

    def _converted(self, argument: Any, kind: str) -> Any:
        """CuPy looks at the argument alone; here it must also be what the kernel takes."""
        if "*" in kind:
            if isinstance(argument, np.ndarray):
                assert argument.flags.c_contiguous
                integers = "long long" in kind
                assert argument.dtype == (np.int64 if integers else np.dtype(self._real))
                return ctypes.c_void_p(argument.ctypes.data)
            assert isinstance(argument, np.uintp) and argument == 0
            return ctypes.c_void_p(None)
        if kind.startswith("int "):
            assert isinstance(argument, np.int32)
            return ctypes.c_int(argument.item())
        assert kind.startswith("Real ") and argument.dtype == np.dtype(self._real)
        return self._real(argument.item())


class Library:
    """NumPy with RawModule: to the engine a library whose arrays live on a GPU."""

    RawModule = RawModule

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


ON_CPU = Backend(
    name="cuda on the cpu",
    xp=Library(),
    array_type=np.ndarray,
    from_host=np.array,
    to_host=np.array,
    scatter_add=NUMPY.scatter_add,
)
