"""Functions of single numbers for compiled code, which the compiler turns into vector instructions."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from .jit import INLINED, float_of_bits, inlined


def tanh_of(x: Any) -> Any:
    """tanh(x); of a float32 within 4 units in the last place."""
    raise NotImplementedError("for compiled code")


@overload(tanh_of, jit_options=INLINED)  # type: ignore[arg-type]
def _tanh_of(x):
    if x == types.float64:
        return lambda x: math.tanh(x)

    # A rational function, near enough up to its limit, that the compiler can vectorise; beyond 9 tanh rounds
    # to 1. Coefficients: Eigen, generic_fast_tanh_float. A NaN passes all comparisons.
    f = np.float32
    limit, full, tiny, one = f(7.90531110763549805), f(9), f(0.0004), f(1)
    a1, a3, a5 = f(4.89352455891786e-03), f(6.37261928875436e-04), f(1.48572235717979e-05)
    a7, a9 = f(5.12229709037114e-08), f(-8.60467152213735e-11)
    a11, a13 = f(2.00018790482477e-13), f(-2.76076847742355e-16)
    b0, b2 = f(4.89352518554385e-03), f(2.26843463243900e-03)
    b4, b6 = f(1.18534705686654e-04), f(1.19825839466702e-06)

    def rational(x):
        y = limit if x > limit else x
        y = -limit if y < -limit else y
        s = y * y
        above = y * ((((((a13 * s + a11) * s + a9) * s + a7) * s + a5) * s + a3) * s + a1)
        below = ((b6 * s + b4) * s + b2) * s + b0
        value = x if abs(x) < tiny else above / below
        return one if x > full else -one if x < -full else value

    return rational


@inlined
def tanh_all(a):
    for n in range(a.size):
        a[n] = tanh_of(a[n])


def exp_of(x: Any) -> Any:
    """exp(x) for x <= 0; of a float32 within 2 units in the last place, and 0 below -87."""
    raise NotImplementedError("for compiled code")


@overload(exp_of, jit_options=INLINED)  # type: ignore[arg-type]
def _exp_of(x):
    if x == types.float64:
        return lambda x: math.exp(x)

    # exp(x) = 2^n exp(r) with r = x - n ln 2 (ln 2 in two parts), |r| <= ln 2 / 2: a Taylor series.
    f = np.float32
    log2_e, ln2_high, ln2_low, least = f(1.44269504), f(0.693359375), f(-2.12194440e-4), f(-87.0)
    c2, c3, c4, c5, c6 = f(1 / 2), f(1 / 6), f(1 / 24), f(1 / 120), f(1 / 720)
    half, one = f(0.5), f(1.0)

    def series(x):
        y = least if x < least else x  # a NaN stays
        n = np.floor(y * log2_e + half)
        r = (y - n * ln2_high) - n * ln2_low
        power = (((((c6 * r + c5) * r + c4) * r + c3) * r + c2) * r) * r + r + one
        scaled = power * float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))
        return f(0) if x < least else scaled

    return series
