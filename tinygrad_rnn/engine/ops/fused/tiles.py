"""Matrix products whose matrices are never made: rows and terms lie wherever tables say, for compiled code.

A convolution multiplies the patches of an image by weights. Copied side by side the patches would be a
matrix, many times as large as the image. Here they stay where they are: the row of a place begins at `a_at`
of it, and its terms are segments, runs of equally distant numbers (a row of the kernel, all channels), which
begin at `segments` from there:

    c[c_at[m] + n] = sum over s and k of  a[a_at[m] + segments[s] + k a_k] * W[s K + k, n]

So a product has any stride, dilation or padding, and the gradients of a convolution are such products as
well. A tile of the result, some rows by a few vector registers, is kept in registers while all terms are
added; the order of the sum is always the same.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from .jit import compiled, inlined
from .product import BYTES, ROWS, VECTORS

# Rows of a tile that is narrower than a panel: of fewer sums each would wait for itself.
TALL = 8
CACHED = 1 << 16  # numbers of W, about, that all tiles are multiplied by before the next


@intrinsic
def _tile(context, a, a_at, a_m, a_start, a_k, segments, K, w, w_start, c, c_at, c_m, c_start, add, vectors):  # type: ignore[no-untyped-def]
    """ROWS or TALL rows of the product above, of so many vectors; with `add` they are added to c.

    The rows are those from a_m on of the table a_at, and from c_m on of c_at. a, w and c begin at their
    starts, in elements; W (S K, vectors' width) lies row by row. K > 0.
    """
    i64 = types.int64
    signature = types.void(
        a, a_at, i64, i64, i64, segments, i64, w, i64, c, c_at, i64, i64, types.boolean, i64
    )

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        a_, a_at_, a_m, a_start, a_k, segments_, K, w_, w_start, c_, c_at_, c_m, c_start, add, vectors = args
        S = builder.extract_value(context.make_array(segments)(context, builder, value=segments_).shape, 0)
        single = a.dtype == types.float32
        number, index = ir.FloatType() if single else ir.DoubleType(), ir.IntType(64)
        lanes = BYTES // (4 if single else 8)
        vector = ir.VectorType(number, lanes)
        whole = lambda value: ir.Constant(index, value)  # noqa: E731
        start_a, rows_a, places_s, start_w, start_c, rows_c = (
            context.make_array(array)(context, builder, value=value).data
            for array, value in (
                (a, a_), (a_at, a_at_), (segments, segments_), (w, w_), (c, c_), (c_at, c_at_),
            )
        )  # fmt: skip
        fma = builder.module.declare_intrinsic(
            f"llvm.fmuladd.v{lanes}f{32 if single else 64}", fnty=ir.FunctionType(vector, [vector] * 3)
        )
        undefined = ir.Constant(vector, ir.Undefined)
        nothing = ir.Constant(vector, [0.0] * lanes)
        zero = ir.Constant(ir.IntType(32), 0)
        first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)

        def one_size(rows: int, n: int) -> None:
            """The code for so many rows and n vectors."""
            sums_of = range(rows * n)

            def place_of(start, begin, table, m, r):
                """Where row r begins."""
                offset = builder.load(builder.gep(table, [builder.add(m, whole(r))]))
                return builder.gep(start, [builder.add(begin, offset)])

            a_rows = [place_of(start_a, a_start, rows_a, a_m, r) for r in range(rows)]
            head, segment, term, next_segment, after, added, put, done = (
                builder.append_basic_block(f"{what}_{n}")
                for what in ("head", "segment", "term", "next", "after", "added", "put", "done")
            )
            before = builder.block
            builder.branch(head)

            builder.position_at_end(head)
            s, w_at = builder.phi(index), builder.phi(index)
            sums = [builder.phi(vector) for _ in sums_of]
            builder.cbranch(builder.icmp_signed("<", s, S), segment, after)

            builder.position_at_end(segment)
            offset = builder.load(builder.gep(places_s, [s]))
            w_end = builder.add(w_at, builder.mul(K, whole(n * lanes)))
            builder.branch(term)

            builder.position_at_end(term)
            a_place, w_place = builder.phi(index), builder.phi(index)
            grown = [builder.phi(vector) for _ in sums_of]
            weights = []
            for v in range(n):
                place = builder.gep(start_w, [builder.add(w_place, whole(v * lanes))])
                weights.append(builder.load(builder.bitcast(place, vector.as_pointer()), align=number_bytes))
            new = []
            for r in range(rows):
                factor = builder.load(builder.gep(a_rows[r], [a_place]))
                factor = builder.insert_element(undefined, factor, zero)
                factor = builder.shuffle_vector(factor, undefined, first)
                new += [builder.call(fma, [factor, weights[v], grown[r * n + v]]) for v in range(n)]
            a_next, w_next = builder.add(a_place, a_k), builder.add(w_place, whole(n * lanes))
            builder.cbranch(builder.icmp_signed("<", w_next, w_end), term, next_segment)
            a_place.add_incoming(offset, segment)
            a_place.add_incoming(a_next, term)
            w_place.add_incoming(w_at, segment)
            w_place.add_incoming(w_next, term)
            for value, begun, following in zip(grown, sums, new, strict=True):
                value.add_incoming(begun, segment)
                value.add_incoming(following, term)

            builder.position_at_end(next_segment)
            s_next = builder.add(s, whole(1))
            builder.branch(head)
            s.add_incoming(whole(0), before)
            s.add_incoming(s_next, next_segment)
            w_at.add_incoming(w_start, before)
            w_at.add_incoming(w_end, next_segment)
            for value, following in zip(sums, new, strict=True):
                value.add_incoming(nothing, before)
                value.add_incoming(following, next_segment)

            builder.position_at_end(after)
            places = []
            for r in range(rows):
                row = place_of(start_c, c_start, rows_c, c_m, r)
                places += [
                    builder.bitcast(builder.gep(row, [whole(v * lanes)]), vector.as_pointer())
                    for v in range(n)
                ]
            builder.cbranch(add, added, put)
            builder.position_at_end(added)  # first all are read: the rows at the end may be one, repeated
            old = [builder.load(place, align=number_bytes) for place in places]
            for place, value, more in zip(places, old, sums, strict=True):
                builder.store(builder.fadd(value, more), place, align=number_bytes)
            builder.branch(done)
            builder.position_at_end(put)
            for place, value in zip(places, sums, strict=True):
                builder.store(value, place, align=number_bytes)
            builder.branch(done)
            builder.position_at_end(done)

        number_bytes = 4 if single else 8
        end = builder.append_basic_block("end")
        switch = builder.switch(vectors, end)
        for n in range(1, VECTORS + 1):
            block = builder.append_basic_block(f"tile_{n}")
            switch.add_case(whole(n), block)
            builder.position_at_end(block)
            one_size(ROWS if n == VECTORS else TALL, n)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


@inlined
def _copy(image, into, top, left):
    """An image (H, W, C) into the middle of a larger one."""
    length = image.shape[1] * image.shape[2]
    rows = image.reshape(len(image), length)
    around = into.reshape(len(into), into.shape[1] * into.shape[2])
    start = left * into.shape[2]
    for r in range(len(rows)):
        for k in range(length):
            around[top + r, start + k] = rows[r, k]


@inlined
def _pack(w, start, N, into):
    """The columns from `start` on, N, of w (T, columns): panel after panel, each row by row, the last one
    filled up with zeros."""
    lanes = BYTES // w.itemsize
    at = 0
    for panel in range(0, N, VECTORS * lanes):
        left = min(N - panel, VECTORS * lanes)
        width = (left + lanes - 1) // lanes * lanes
        for t in range(len(w)):
            for n in range(left):
                into[at + n] = w[t, start + panel + n]
            for n in range(left, width):
                into[at + n] = 0
            at += width


@inlined
def _panels(a, a_start, a_k, a_at, segments, K, w, w_start, c, c_start, c_at, N, add, own, own_at):
    """The product of one image, with W packed: a panel of it after the other. A tile of the last one, beside
    whose last column c has no room, goes by way of `own`."""
    lanes, S, M = BYTES // c.itemsize, len(segments), len(c_at) - TALL + 1
    for start in range(0, N, VECTORS * lanes):
        left = min(N - start, VECTORS * lanes)
        vectors = (left + lanes - 1) // lanes
        width, rows = vectors * lanes, ROWS if vectors == VECTORS else TALL
        fits = left == width
        into, into_at, into_start = (c, c_at, c_start + start) if fits else (own, own_at, 0)
        together = max(CACHED // (K * width), 1)
        for s in range(0, max(S, 1), together):
            several, more = segments[s : s + together], add or s > 0
            w_at = w_start + start * S * K + s * K * width
            for m in range(0, M, rows):
                _tile(
                    a, a_at, m, a_start, a_k, several, K, w, w_at, into, into_at, m if fits else 0,
                    into_start, more and fits, vectors,
                )  # fmt: skip
                if not fits:
                    for r in range(min(rows, M - m)):
                        row, place = own_at[r], c_at[m + r] + c_start + start
                        for n in range(left):
                            c[place + n] = own[row + n] + (c[place + n] if more else 0)


@compiled
def multiply_images(x, around, w, c, c_image, a_at, segments, K, a_k, c_at, N, add, first, last):
    """The products of the images from `first` to `last`, group by group.

    x       (images, H, W, C): an image, with zeros around it, is a
    around  its size with them, and where it begins: height, width, top, left
    w       (1 or images, S K, groups N): each group's W side by side, the same for all images or not
    c       of the first image; that of the next lies c_image further on, and a group's N after another's
    a_at, c_at    of each row, the last one TALL times
    """
    height, width, top, left = around
    H, W, C = x.shape[1:]
    terms, columns = w.shape[1:]
    groups = columns // N
    lanes = BYTES // c.itemsize
    whole = columns == N and N % lanes == 0 and VECTORS * lanes >= N  # w is packed as it is
    size = 0 if whole else terms * ((N + lanes - 1) // lanes * lanes)
    packed = np.empty(groups * size, c.dtype)
    matrices = w.reshape(w.size) if whole else packed
    flat_x = x.reshape(x.size)
    inside = (height, width) == (H, W)
    room = np.zeros((0 if inside else height, width, C), c.dtype)
    a = flat_x if inside else room.reshape(room.size)
    own = np.empty(TALL * VECTORS * lanes, c.dtype)
    own_at = np.arange(TALL) * (VECTORS * lanes)
    for n in range(first, last):
        if not inside:
            _copy(x[n], room, top, left)
        if not whole and (n == first or len(w) > 1):
            for group in range(groups):
                _pack(w[n % len(w)], group * N, N, packed[group * size : (group + 1) * size])
        for group in range(groups):
            a_start = (n * H * W * C if inside else 0) + group * (C // groups)
            w_start = (n % len(w)) * terms * N if whole else group * size
            _panels(
                a, a_start, a_k, a_at, segments, K, matrices, w_start, c, n * c_image + group * N, c_at, N,
                add, own, own_at,
            )  # fmt: skip
