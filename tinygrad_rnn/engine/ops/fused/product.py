"""Matrix products for compiled code: some rows times weights that stay the same over many time steps.

A BLAS library copies the weights into an order of its own at every call. That pays for large matrices. Here a
time step has a few dozen rows, and its weights are those of the step before: so they are copied once, by
pack(), and add_product() reads them from beginning to end.

The weights W (K, N) are cut into panels of a few vector registers' width. A panel is stored row by row. A
tile of the result, some rows by the width of a panel, is kept in registers while k runs over its K terms:

    c[r, :] += a[r, k] * W[k, :]    for the rows r of the tile

The sum over k is always taken in the same order, whatever the number of rows.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import functools
import platform
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, from_dtype, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .jit import c_function, compiled, inlined


def _registers() -> tuple[int, int]:
    """Bytes of a vector register of the processor that Numba compiles for, and vectors of a panel."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    if "+avx512f" in features:
        return 64, 4
    if "+avx2" in features:
        return 32, 2
    return 16, 4 if platform.machine().lower() in ("arm64", "aarch64") else 2


# A tile of ROWS by VECTORS registers leaves some of the 32 (or 16) for what is multiplied.
(BYTES, VECTORS), ROWS = _registers(), 6


@intrinsic
def _tile(context, a, a_row, a_k, panel, c, c_row, K, rows, vectors):  # type: ignore[no-untyped-def]
    """c (rows, vectors' width) += a (rows, K) panel (K, vectors' width), with the strides of a and c in
    elements. Only for 1 to ROWS rows, 1 to VECTORS vectors and K > 0.

    The code is made for every size of a tile: the sums of all rows and vectors are values that LLVM keeps in
    registers. A tile of a single row does two terms a turn: its few sums would wait for the loop (77 instead
    of 58 GFLOP/s for 1x128x512).
    """
    i64 = types.int64
    signature = types.void(a, i64, i64, panel, c, i64, i64, i64, i64)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        a_, a_row, a_k, panel_, c_, c_row, K, rows, vectors = args
        single = a.dtype == types.float32
        number = ir.FloatType() if single else ir.DoubleType()
        lanes = BYTES // (4 if single else 8)
        vector = ir.VectorType(number, lanes)
        whole = lambda value: ir.Constant(ir.IntType(64), value)  # noqa: E731
        start_a, start_w, start_c = (
            context.make_array(array)(context, builder, value=value).data
            for array, value in ((a, a_), (panel, panel_), (c, c_))
        )
        fma = builder.module.declare_intrinsic(
            f"llvm.fmuladd.v{lanes}f{32 if single else 64}", fnty=ir.FunctionType(vector, [vector] * 3)
        )
        undefined = ir.Constant(vector, ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)

        def at(start, *offsets):
            for offset in offsets:
                start = builder.gep(start, [offset])
            return start

        def vector_at(start, *offsets):
            return builder.bitcast(at(start, *offsets), vector.as_pointer())

        def joined(ways):
            """The sums after one of several blocks."""
            rows = []
            for row in ways[0][1]:
                rows.append([builder.phi(vector) for _ in row])
            for block, sums in ways:
                for r, row in enumerate(rows):
                    for v, value in enumerate(row):
                        value.add_incoming(sums[r][v], block)
            return rows

        def one_size(m: int, n: int) -> None:
            """The code for m rows and n vectors."""
            a_rows = [at(start_a, builder.mul(whole(r), a_row)) for r in range(m)]
            places = [
                [vector_at(start_c, builder.mul(whole(r), c_row), whole(v * lanes)) for v in range(n)]
                for r in range(m)
            ]
            begun = [[builder.load(place, align=4) for place in row] for row in places]

            def grown(sums, k):
                """The sums with the terms of this k."""
                row = builder.mul(k, whole(n * lanes))
                weights = [builder.load(vector_at(start_w, row, whole(v * lanes)), align=4) for v in range(n)]
                place, rows = builder.mul(k, a_k), []
                for r in range(m):
                    factor = builder.insert_element(undefined, builder.load(at(a_rows[r], place)), zero)
                    factors = builder.shuffle_vector(factor, undefined, first)
                    rows.append([builder.call(fma, [factors, weights[v], sums[r][v]]) for v in range(n)])
                return rows

            # A tile of few registers does two terms a turn, the first one alone if their number is odd.
            terms = 2 if m == 1 else 1
            odd = builder.and_(K, whole(terms - 1))
            loop, after = (builder.append_basic_block(f"{what}_{m}_{n}") for what in ("loop", "after"))
            ways = [(builder.block, begun)]
            if terms == 1:
                builder.branch(loop)
            else:
                alone, rest = (builder.append_basic_block(f"{what}_{m}_{n}") for what in ("alone", "rest"))
                builder.cbranch(builder.trunc(odd, ir.IntType(1)), alone, rest)
                builder.position_at_end(alone)
                ways.append((alone, grown(begun, whole(0))))
                builder.branch(rest)
                builder.position_at_end(rest)
                begun = joined(ways)
                ways = [(rest, begun)]
                builder.cbranch(builder.icmp_signed("<", odd, K), loop, after)
            builder.position_at_end(loop)
            k = builder.phi(ir.IntType(64))
            sums = joined(ways)
            new = sums
            for term in range(terms):
                new = grown(new, builder.add(k, whole(term)))
            following = builder.add(k, whole(terms))
            k.add_incoming(odd, ways[0][0])
            k.add_incoming(following, loop)
            for r in range(m):
                for v in range(n):
                    sums[r][v].add_incoming(new[r][v], loop)
            builder.cbranch(builder.icmp_signed("<", following, K), loop, after)
            builder.position_at_end(after)
            ways = ([] if terms == 1 else ways) + [(loop, new)]
            for row, sums in zip(places, joined(ways), strict=True):
                for place, value in zip(row, sums, strict=True):
                    builder.store(value, place, align=4)

        end = builder.append_basic_block("end")
        sizes = [(m, n) for m in range(1, ROWS + 1) for n in range(1, VECTORS + 1)]
        case = builder.add(builder.mul(rows, whole(VECTORS)), vectors)
        switch = builder.switch(case, end)
        for m, n in sizes:
            block = builder.append_basic_block(f"tile_{m}_{n}")
            switch.add_case(whole(m * VECTORS + n), block)
            builder.position_at_end(block)
            one_size(m, n)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


def packed_size(K: int, N: int, itemsize: int) -> int:
    """Elements of W (K, N) packed."""
    lanes = BYTES // itemsize
    return K * -(-N // lanes) * lanes


@intrinsic
def _room_for_a_tile(context, like):  # type: ignore[no-untyped-def]
    """Memory for a tile of numbers like those of an array, on the stack: in a C function nothing may fail."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        room = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(8), ROWS * VECTORS * BYTES))
        return builder.bitcast(room, context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(like), generate


def _add_panels(a, w, c, a_row, a_k, c_row, M, K, N):
    """add_product(), given where matrices begin and their strides in elements. The last panel may be wider
    than what is left of c: its tiles go by way of one of their own."""
    a, w, c = carray(a, EVERYTHING), carray(w, EVERYTHING), carray(c, EVERYTHING)
    lanes = BYTES // c.itemsize
    tiles = (M + ROWS - 1) // ROWS
    whole = carray(_room_for_a_tile(c), ROWS * VECTORS * lanes)
    for start in range(0, N, VECTORS * lanes):
        left = min(N - start, VECTORS * lanes)
        vectors = (left + lanes - 1) // lanes
        width, panel = vectors * lanes, w[start * K :]
        m = 0
        for tile in range(tiles, 0, -1):
            rows = (M - m) // tile  # about equal
            into = c[m * c_row + start :]
            if left == width:
                _tile(a[m * a_row :], a_row, a_k, panel, into, c_row, K, rows, vectors)
            else:
                for r in range(rows):
                    for n in range(width):
                        whole[r * width + n] = into[r * c_row + n] if n < left else 0
                _tile(a[m * a_row :], a_row, a_k, panel, whole, width, K, rows, vectors)
                for r in range(rows):
                    for n in range(left):
                        into[r * c_row + n] = whole[r * width + n]
            m += rows


EVERYTHING = 2**40  # elements, of memory whose end is not known


@functools.cache
def _product(dtype: Any) -> Any:
    number = types.CPointer(from_dtype(dtype))
    return c_function(_add_panels, number, number, number, *[types.int64] * 6)


def multiplier(dtype: Any) -> int:
    """The address of the compiled product for this dtype, which compiled functions are given. (As a part of
    each of them it would be compiled again with each.)"""
    return _product(dtype).address


@intrinsic
def _call(context, address, a, w, c, a_row, a_k, c_row, M, K, N):  # type: ignore[no-untyped-def]
    """The function at `address`, called as _add_panels() is."""
    i64 = types.int64
    signature = types.void(address, a, w, c, i64, i64, i64, i64, i64, i64)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address, *given = args
        for n, array in enumerate((a, w, c)):
            given[n] = context.make_array(array)(context, builder, value=given[n]).data
        function = ir.FunctionType(ir.VoidType(), [value.type for value in given])
        builder.call(builder.inttoptr(address, function.as_pointer()), given)
        return context.get_dummy_value()

    return signature, generate


@inlined
def add_product(multiply, a, w, c):
    """c (M, N) += a (M, K) W, with W (K, N) packed in w. Strides of a are not negative, rows of c contiguous.

    multiply: the multiplier() for their dtype.
    """
    if a.size:
        size = a.itemsize
        rows, columns, into = a.strides[0] // size, a.strides[1] // size, c.strides[0] // size
        _call(multiply, a, w, c, rows, columns, into, a.shape[0], a.shape[1], c.shape[1])


@compiled
def pack(weight, w, at, K):
    """Rows of W (K, N), from `at` on, packed into w: those of `weight`, contiguous."""
    rows, N = weight.shape
    lanes = BYTES // w.itemsize
    for k in range(rows):
        for start in range(0, N, VECTORS * lanes):
            row = weight[k, start : start + VECTORS * lanes]
            width = (row.size + lanes - 1) // lanes * lanes
            place = start * K + (at + k) * width
            into = w[place : place + width]
            for n in range(row.size):
                into[n] = row[n]
            for n in range(row.size, width):  # beside the last columns
                into[n] = 0


@intrinsic
def _transpose(context, a, a_row, scale, b, b_row):  # type: ignore[no-untyped-def]
    """A square as wide as a register: b[k, n] = scale[n] a[n, k], with the strides in elements.

    Numbers change places across the diagonal of 2x2 blocks, then of 4x4 blocks, and so on: of two rows, the
    one takes what lies right in its own place and the other what lies left.
    """
    i64 = types.int64
    signature = types.void(a, i64, scale, b, i64)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        a_, a_row, scale_, b_, b_row = args
        single = a.dtype == types.float32
        number, i32 = ir.FloatType() if single else ir.DoubleType(), ir.IntType(32)
        lanes = BYTES // (4 if single else 8)
        vector, splat = ir.VectorType(number, lanes), ir.VectorType(i32, lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        start_a, start_scale, start_b = (
            context.make_array(array)(context, builder, value=value).data
            for array, value in ((a, a_), (scale, scale_), (b, b_))
        )
        whole = lambda value: ir.Constant(ir.IntType(64), value)  # noqa: E731

        def row_of(start, n, stride):
            return builder.bitcast(builder.gep(start, [builder.mul(whole(n), stride)]), vector.as_pointer())

        rows = []
        for n in range(lanes):
            factor = builder.load(builder.gep(start_scale, [whole(n)]))
            factor = builder.insert_element(undefined, factor, ir.Constant(i32, 0))
            factor = builder.shuffle_vector(factor, undefined, ir.Constant(splat, [0] * lanes))
            rows.append(builder.fmul(builder.load(row_of(start_a, n, a_row), align=4), factor))
        apart = 1
        while apart < lanes:
            upper = [lane + lanes - apart if lane & apart else lane for lane in range(lanes)]
            lower = [lane + lanes if lane & apart else lane + apart for lane in range(lanes)]
            for n in range(lanes):
                if not n & apart:
                    pair = rows[n], rows[n | apart]
                    rows[n] = builder.shuffle_vector(*pair, ir.Constant(splat, upper))
                    rows[n | apart] = builder.shuffle_vector(*pair, ir.Constant(splat, lower))
            apart *= 2
        for n, row in enumerate(rows):
            builder.store(row, row_of(start_b, n, b_row), align=4)
        return context.get_dummy_value()

    return signature, generate


@compiled
def pack_transposed(weight, scale, w):
    """W (K, N) packed into w, where column n of W is scale[n] times row n of `weight`, contiguous."""
    N, K = weight.shape
    lanes = BYTES // w.itemsize
    flat = weight.reshape(N * K)
    for start in range(0, N, VECTORS * lanes):
        left = min(N - start, VECTORS * lanes)
        width = (left + lanes - 1) // lanes * lanes
        panel = w[start * K : start * K + K * width]
        squares, most = left // lanes * lanes, K // lanes * lanes
        for n in range(0, squares, lanes):
            for k in range(0, most, lanes):
                _transpose(flat[(start + n) * K + k :], K, scale[start + n :], panel[k * width + n :], width)
        for n in range(left):  # what is left below and beside the squares
            row, factor = weight[start + n], scale[start + n]
            for k in range(most if n < squares else 0, K):
                panel[k * width + n] = row[k] * factor
        for k in range(K):
            for n in range(left, width):
                panel[k * width + n] = 0


def packed(weight: Any) -> np.ndarray:
    """A matrix W (K, N) packed."""
    K, N = weight.shape
    w = np.empty(packed_size(K, N, weight.itemsize), weight.dtype)
    pack(np.ascontiguousarray(weight), w, 0, len(weight))
    return w


def packed_transposed(weight: Any, scale: Any = None) -> np.ndarray:
    """W (K, N) packed, with column n of W scale[n] (or once) times row n of `weight`."""
    N, K = weight.shape
    if scale is None:
        scale = np.ones(N, weight.dtype)
    w = np.empty(packed_size(K, N, weight.itemsize), weight.dtype)
    pack_transposed(np.ascontiguousarray(weight), scale, w)
    return w
