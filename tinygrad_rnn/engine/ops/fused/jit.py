"""What the compiled kernels are made with: the compiler with a cache that cannot be stale, and calls of BLAS.

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
from numba.extending import intrinsic

from ...blas import routines

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112
_found = routines()
CONFIG: Any = numba.config
INTEGER = ir.IntType(_found.integer_bits if _found else 64)


def cache_folder() -> Path:
    """Where the compiled code of this version of the kernels is kept: in the user's cache folder, or in
    NUMBA_CACHE_DIR."""
    from platformdirs import user_cache_path

    content = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        content.update(file.read_bytes())
    python = sys.implementation.cache_tag
    versions = (python, numba.__version__, llvmlite.__version__, np.__version__, INTEGER.width)
    content.update(repr(versions).encode())
    home = Path(CONFIG.CACHE_DIR) if CONFIG.CACHE_DIR else user_cache_path("tinygrad_rnn", appauthor=False)
    return home / "compiled" / content.hexdigest()[:16]


def compiled(function: Callable) -> Any:
    """The function compiled when it is first called, and from then on loaded from the cache."""
    # "contract" fuses a product and a sum; nothing else of IEEE arithmetic is given up. See compiled.py.
    made: Any = numba.njit(function, nogil=True, fastmath={"contract"}, error_model="numpy")
    before, CONFIG.CACHE_DIR = CONFIG.CACHE_DIR, str(_folder)
    try:
        cache = _Cache(function)
        # Where it cannot be written to Numba takes a folder whose name says nothing of what is inside. Then
        # the function is rather compiled each time.
        if Path(cache.cache_path).is_relative_to(_folder):
            made._cache = cache
    except RuntimeError:  # no folder can be written to
        pass
    finally:
        CONFIG.CACHE_DIR = before
    return made


class _Cache(FunctionCache):
    """Numba's, but never in the way: what cannot be read is compiled anew, what cannot be written is not."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # a damaged file fails in any way
            found = None
            with suppress(Exception):
                self.flush()
        # Two processes that compile at once may have given two signatures the same file.
        return found if found is None or tuple(found.signature.args) == tuple(sig) else None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):  # a full disk
            super().save_overload(sig, data)


_folder = cache_folder()


INLINED: dict[str, Any] = {"forceinline": True, "fastmath": {"contract"}, "error_model": "numpy"}


def inlined(function: Callable) -> Any:
    """A function that is only called by compiled ones, and becomes a part of them."""
    return numba.njit(function, **INLINED)


def _call(builder: Any, address: Any, arguments: list) -> None:
    function = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(builder.inttoptr(address, function.as_pointer()), arguments)


def _element(array: Any) -> tuple[ir.Type, Callable]:
    kind = ir.FloatType() if array.dtype == types.float32 else ir.DoubleType()
    return kind, lambda value: ir.Constant(kind, value)


def _int32(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(32), value)


@intrinsic
def _gemm(context, address, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, beta, c, ldc):  # type: ignore[no-untyped-def]
    """c = a b + beta c, row-major, by the cblas_?gemm at `address`; a and b 1-D arrays, as is c."""
    i8, i64 = types.int64, types.int64
    signature = types.void(address, i8, i8, i64, i64, i64, a, i64, b, i64, i64, c, i64)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address, ta, tb, m, n, k, a_, lda, b_, ldb, beta, c_, ldc = args
        kind, constant = _element(a)
        data = [
            context.make_array(array)(context, builder, value=value).data
            for array, value in ((a, a_), (b, b_), (c, c_))
        ]
        flag = lambda value: builder.add(builder.trunc(value, ir.IntType(32)), _int32(PLAIN))  # noqa: E731
        integer = lambda value: builder.trunc(value, INTEGER) if INTEGER.width < 64 else value  # noqa: E731
        _call(
            builder,
            address,
            [
                _int32(ROW_MAJOR),
                flag(ta),
                flag(tb),
                *map(integer, (m, n, k)),
                constant(1.0),
                data[0],
                integer(lda),
                data[1],
                integer(ldb),
                builder.sitofp(beta, kind),
                data[2],
                integer(ldc),
            ],
        )
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _gemv(context, address, transpose, rows, columns, a, lda, x, beta, y):  # type: ignore[no-untyped-def]
    """y = a x + beta y (or a transposed), a row-major of (rows, columns), by the cblas_?gemv at `address`."""
    i64 = types.int64
    signature = types.void(address, i64, i64, i64, a, i64, x, i64, y)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address, transpose, rows, columns, a_, lda, x_, beta, y_ = args
        kind, constant = _element(a)
        data = [
            context.make_array(array)(context, builder, value=value).data
            for array, value in ((a, a_), (x, x_), (y, y_))
        ]
        integer = lambda value: builder.trunc(value, INTEGER) if INTEGER.width < 64 else value  # noqa: E731
        one = ir.Constant(INTEGER, 1)
        _call(
            builder,
            address,
            [
                _int32(ROW_MAJOR),
                builder.add(builder.trunc(transpose, ir.IntType(32)), _int32(PLAIN)),
                integer(rows),
                integer(columns),
                constant(1.0),
                data[0],
                integer(lda),
                data[1],
                one,
                builder.sitofp(beta, kind),
                data[2],
                one,
            ],
        )
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def float_of_bits(context, bits):  # type: ignore[no-untyped-def]
    """The float32 of these 32 bits."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


# Each takes `blas`, the addresses (gemm, gemv) for the arrays' dtype, and flat arrays of row-major matrices.


@inlined
def product(blas, a, b, c, m, k, n, beta):  # type: ignore[no-untyped-def]
    """c (m, n) = a (m, k) b (k, n) + beta c"""
    if n == 1:
        _gemv(blas[1], 0, m, k, a, k, b, beta, c)
    else:
        _gemm(blas[0], 0, 0, m, n, k, a, k, b, n, beta, c, n)


@inlined
def product_transposed(blas, a, b, c, m, k, n):  # type: ignore[no-untyped-def]
    """c (m, n) = a^T b, with a (k, m) and b (k, n)"""
    if n == 1:
        _gemv(blas[1], 1, k, m, a, m, b, 0, c)
    else:
        _gemm(blas[0], 1, 0, m, n, k, a, m, b, n, 0, c, n)


@inlined
def lay_down(step, side, place, batch, stride):  # type: ignore[no-untyped-def]
    """Put a step's array (features, B) beside others: into the columns of `side` (features, stride) from
    `place` on. Those of a batch of one are laid below one another instead, (stride, features)."""
    if batch == 1:
        for row in range(step.size):
            side[place * step.size + row] = step[row]
        return
    for row in range(step.size // batch):
        for b in range(batch):
            side[row * stride + place + b] = step[row * batch + b]


@inlined
def take_up(side, step, place, batch, stride):  # type: ignore[no-untyped-def]
    """What lay_down() does, the other way."""
    if batch == 1:
        for row in range(step.size):
            step[row] = side[place * step.size + row]
        return
    for row in range(step.size // batch):
        for b in range(batch):
            step[row * batch + b] = side[row * stride + place + b]


@inlined
def product_beside(blas, a, b, c, m, k, columns, batch, stride):  # type: ignore[no-untyped-def]
    """c (m) = a^T b for each of `columns` steps that were laid down in b (of k), with a (k, m)"""
    if batch == 1:
        _gemm(blas[0], 0, 0, columns, m, k, b, k, a, m, 0, c, m)
    else:
        _gemm(blas[0], 1, 0, m, columns, k, a, m, b, stride, 0, c, stride)


@inlined
def add_outer(blas, a, b, c, m, k, n, batch, stride):  # type: ignore[no-untyped-def]
    """c (m, n) += a b^T, the sum over the first k steps that were laid down in a (of m) and b (of n)"""
    if batch == 1:
        _gemm(blas[0], 1, 0, m, n, k, a, m, b, n, 1, c, n)
    else:
        _gemm(blas[0], 0, 1, m, n, k, a, stride, b, stride, 1, c, n)


@inlined
def add_sums(blas, a, ones, c, m, k, batch, stride):  # type: ignore[no-untyped-def]
    """c (m) += the sum over the first k steps that were laid down in a"""
    if batch == 1:
        _gemv(blas[1], 1, k, m, a, m, ones, 1, c)
    else:
        _gemv(blas[1], 0, m, k, a, stride, ones, 1, c)
