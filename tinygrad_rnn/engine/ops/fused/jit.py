"""What the compiled kernels are made with: the compiler, with a cache that cannot be stale.

Compiled code is kept in the user's cache folder, in a sub-folder named after the content of these kernels and
the versions of what compiled them. So an upgrade of any of them finds an empty folder and compiles anew.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped]
import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

CONFIG: Any = numba.config
# "contract" fuses a product and a sum; nothing else of IEEE arithmetic is given up.
OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy"}
INLINED: dict[str, Any] = {"forceinline": True, **OPTIONS}


def cache_folder() -> Path:
    """Where the compiled code of this version of the kernels is kept: in the user's cache folder, or in
    NUMBA_CACHE_DIR."""
    from platformdirs import user_cache_path

    content = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        content.update(file.read_bytes())
    python = sys.implementation.cache_tag
    versions = (python, numba.__version__, llvmlite.__version__, np.__version__)
    content.update(repr(versions).encode())
    home = Path(CONFIG.CACHE_DIR) if CONFIG.CACHE_DIR else user_cache_path("tinygrad_rnn", appauthor=False)
    return home / "compiled" / content.hexdigest()[:16]


def compiled(function: Callable) -> Any:
    """The function compiled when it is first called, and from then on loaded from the cache."""
    made: Any = numba.njit(function, nogil=True, **OPTIONS)
    made._cache = _cache_of(function) or made._cache
    return made


def c_function(function: Callable, *arguments: Any) -> Any:
    """The function compiled for arguments of these types, or loaded from the cache: it is called by its
    `address` and returns nothing."""
    made: Any = CFunc(function, (arguments, types.void), locals={}, options=OPTIONS)
    made._cache = _cache_of(function) or made._cache
    made.compile()
    return made


def _cache_of(function: Callable) -> FunctionCache | None:
    before, CONFIG.CACHE_DIR = CONFIG.CACHE_DIR, str(_folder)
    try:
        cache = _Cache(function)
        # Where it cannot be written to Numba takes a folder whose name says nothing of what is inside. Then
        # the function is rather compiled each time.
        return cache if Path(cache.cache_path).is_relative_to(_folder) else None
    except RuntimeError:  # no folder can be written to
        return None
    finally:
        CONFIG.CACHE_DIR = before


class _Cache(FunctionCache):
    """Numba's, but never in the way: what cannot be read is compiled anew, what cannot be written is not."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        wanted = tuple(getattr(sig, "args", sig))  # of a C function it is a signature
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # a damaged file fails in any way
            found = None
            with suppress(Exception):
                self.flush()
        # Two processes that compile at once may have given two signatures the same file.
        return found if found is None or tuple(found.signature.args) == wanted else None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):  # a full disk
            super().save_overload(sig, data)


_folder = cache_folder()


def inlined(function: Callable) -> Any:
    """A function that is only called by compiled ones, and becomes a part of them."""
    return numba.njit(function, **INLINED)


@intrinsic
def float_of_bits(context, bits):  # type: ignore[no-untyped-def]
    """The float32 of these 32 bits."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate
