"""Element-wise ops: arithmetic, comparisons, exponentials, activations, dropout.

One line an op where the array library has the function: its name, a VJP an argument, and what those read.
`g` is the upstream gradient, `out` the result. Sums back to broadcast shapes are left to the engine.
"""

from __future__ import annotations

import math
from typing import Any

from ...errors import ShapeError
from ..op import TABLE, op, ufunc
from ..random import Key, keep_mask, next_key
from ..tensor import Tensor, apply
from .fused import chooses_compiled

# --- arithmetic ----------------------------------------------------------------------------------

add = ufunc(
    "add",
    lambda F, g, out, a, b: g,
    lambda F, g, out, a, b: g,
    arguments="a b",
    doc="a + b",
)
subtract = ufunc(
    "subtract",
    lambda F, g, out, a, b: g,
    lambda F, g, out, a, b: -g,
    arguments="a b",
    doc="a - b",
)
multiply = ufunc(
    "multiply",
    lambda F, g, out, a, b: g * b,
    lambda F, g, out, a, b: g * a,
    arguments="a b",
    saves="*",
    doc="a * b",
)
divide = ufunc(
    "divide",
    lambda F, g, out, a, b: g / b,
    lambda F, g, out, a, b: -g * (a / b) / b,
    arguments="a b",
    saves="*",
    floating=True,
    doc="a / b. Of integers: float32.",
)


def _power_base(F: Any, g: Any, out: Any, a: Any, b: Any) -> Any:
    """b * a**(b-1); where b is 0 that is 0 also at a = 0."""
    if isinstance(b, (int, float)):
        return g * 0.0 if b == 0 else g * (b * a ** (b - 1))
    return g * b * a ** F.where(F.logical_and(a == 0, b == 0), 1.0, b - 1)


def _power_exponent(F: Any, g: Any, out: Any, a: Any, b: Any) -> Any:
    """a**b * log(a); at a = 0, where the function of b is constant, 0."""
    if isinstance(a, (int, float)):
        return g * out * (math.log(a) if a > 0 else 0.0 if a == 0 else math.nan)
    return g * out * F.log(F.where(a == 0, 1.0, a))


power = ufunc(
    "power",
    _power_base,
    _power_exponent,
    arguments="a b",
    saves="a b out",
    doc="a ** b. For a < 0 and b no integer: NaN.",
)
negative = ufunc("negative", lambda F, g, out, x: -g, arguments="x", doc="-x")

# --- comparisons and logic: constant almost everywhere, so without a derivative --------------------

equal = ufunc("equal", arguments="a b", doc="a == b, element by element")
not_equal = ufunc("not_equal", arguments="a b", doc="a != b")
less = ufunc("less", arguments="a b", doc="a < b")
less_equal = ufunc("less_equal", arguments="a b", doc="a <= b")
greater = ufunc("greater", arguments="a b", doc="a > b")
greater_equal = ufunc("greater_equal", arguments="a b", doc="a >= b")
logical_and = ufunc("logical_and", arguments="a b", doc="a and b, element by element")
logical_or = ufunc("logical_or", arguments="a b", doc="a or b")
logical_not = ufunc("logical_not", arguments="x", doc="not x")
sign = ufunc("sign", arguments="x", doc="-1, 0 or 1")
isfinite = ufunc("isfinite", arguments="x", doc="neither infinite nor NaN")

# --- powers, exponentials, trigonometry -----------------------------------------------------------

abs = ufunc(
    "abs",
    lambda F, g, out, x: g * F.sign(x),
    arguments="x",
    library="absolute",
    saves="x",
    doc="|x|. Its derivative at 0 is taken as 0.",
)
sqrt = ufunc(
    "sqrt",
    lambda F, g, out, x: g * 0.5 / out,
    arguments="x",
    saves="out",
    floating=True,
    doc="Square root. The derivative at 0 is infinite.",
)
exp = ufunc(
    "exp",
    lambda F, g, out, x: g * out,
    arguments="x",
    saves="out",
    floating=True,
    doc="e**x",
)
expm1 = ufunc(
    "expm1",
    lambda F, g, out, x: g * (out + 1),
    arguments="x",
    saves="out",
    floating=True,
    doc="exp(x) - 1, exact near 0",
)
log = ufunc(
    "log",
    lambda F, g, out, x: g / x,
    arguments="x",
    saves="x",
    floating=True,
    doc="Natural logarithm",
)
log1p = ufunc(
    "log1p",
    lambda F, g, out, x: g / (1 + x),
    arguments="x",
    saves="x",
    floating=True,
    doc="log(1 + x), exact near 0",
)
sin = ufunc(
    "sin",
    lambda F, g, out, x: g * F.cos(x),
    arguments="x",
    saves="x",
    floating=True,
    doc="Sine",
)
cos = ufunc(
    "cos",
    lambda F, g, out, x: -g * F.sin(x),
    arguments="x",
    saves="x",
    floating=True,
    doc="Cosine",
)
tanh = ufunc(
    "tanh",
    # (1 - out**2) would lose all digits where out is near 1; 1 / cosh(x)**2 overflows (JAX's form).
    lambda F, g, out, x: (g + g * out) * (1 - out),
    arguments="x",
    saves="out",
    floating=True,
    doc="Hyperbolic tangent",
)

# --- activations ----------------------------------------------------------------------------------


@op(lambda F, g, out, x: g * (out * (1 - out)), saves="out", floating=True)
def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)), computed without overflow and to full relative precision for any x."""
    e = xp.exp(-xp.absolute(x))
    return xp.where(x >= 0, 1, e) / (1 + e)


@op(lambda F, g, out, x: F.where(out > 0, g, 0.0), saves="out")
def relu(xp: Any, x: Any) -> Any:
    """max(x, 0). Its derivative at 0 is taken as 0."""
    if chooses_compiled(xp, x):
        from .fused import compiled_choice

        return compiled_choice.relu(x)
    return xp.maximum(x, 0)


@op(
    lambda F, g, out, x, negative_slope: F.where(x > 0, g, negative_slope * g),
    saves="x",
    floating=True,
)
def leaky_relu(xp: Any, x: Any, negative_slope: float = 0.01) -> Any:
    """x where it is positive, negative_slope * x elsewhere; the derivative at 0 is negative_slope."""
    return xp.where(x > 0, x, negative_slope * x)


@op(lambda F, g, out, x: g * F.sigmoid(x), saves="x", floating=True)
def softplus(xp: Any, x: Any) -> Any:
    """log(1 + exp(x)) for any finite x."""
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.absolute(x)))


# --- choosing -------------------------------------------------------------------------------------

maximum = ufunc(
    "maximum",
    lambda F, g, out, a, b: F.where(a == b, 0.5 * g, F.where(a > b, g, 0.0)),
    lambda F, g, out, a, b: F.where(a == b, 0.5 * g, F.where(b > a, g, 0.0)),
    arguments="a b",
    saves="*",
    doc="The larger of a and b. Where they tie, each gets half of the gradient.",
)
minimum = ufunc(
    "minimum",
    lambda F, g, out, a, b: F.where(a == b, 0.5 * g, F.where(a < b, g, 0.0)),
    lambda F, g, out, a, b: F.where(a == b, 0.5 * g, F.where(b < a, g, 0.0)),
    arguments="a b",
    saves="*",
    doc="The smaller of a and b. Where they tie, each gets half of the gradient.",
)


def _clip_vjp(F: Any, g: Any, out: Any, x: Any, a_min: Any, a_max: Any) -> Any:
    """g [a_min <= x <= a_max]"""
    if a_min is not None:
        g = F.where(x >= a_min, g, 0.0)
    return g if a_max is None else F.where(x <= a_max, g, 0.0)


@op(_clip_vjp, saves="x", numpy="clip")
def clip(xp: Any, x: Any, a_min: float | None = None, a_max: float | None = None) -> Any:
    """x limited to a_min..a_max (numbers; None for no limit). At a limit the gradient still passes."""
    if a_min is not None and a_max is not None and a_min > a_max:
        raise ShapeError(f"clip: a_min {a_min} is larger than a_max {a_max}")
    return x if a_min is None and a_max is None else xp.clip(x, a_min, a_max)


@op(
    None,
    lambda F, g, out, condition, a, b: F.where(condition, g, 0.0),
    lambda F, g, out, condition, a, b: F.where(condition, 0.0, g),
    inputs=3,
    saves="condition",
    broadcasts=True,
    promotes=True,
    numpy="where",
)
def where(xp: Any, condition: Any, a: Any, b: Any) -> Any:
    """a where condition is true, b elsewhere."""
    alike = getattr(condition, "shape", None) == getattr(a, "shape", ())
    if alike and condition.dtype.kind == "b" and isinstance(b, (int, float)) and chooses_compiled(xp, a):
        from .fused import compiled_choice

        return compiled_choice.where(condition, a, b)
    return xp.where(condition, a, b)


# --- dropout --------------------------------------------------------------------------------------


@op(
    lambda F, g, out, x, p, key, shared_axis: F.dropout_mask(g, p=p, key=key, shared_axis=shared_axis),
    floating=True,
)
def dropout_mask(xp: Any, x: Any, p: float, key: Key, shared_axis: int | None = None) -> Any:
    """x with each element zeroed with probability p and the rest scaled by 1 / (1 - p).

    The mask is a function of `key` alone and made anew in the backward pass, so nothing is stored.
    """
    if p >= 1:
        return xp.zeros(x.shape, x.dtype)
    shape = list(x.shape)
    if shared_axis is not None:
        shape[shared_axis] = 1
    mask = xp.asarray(keep_mask(key, tuple(shape), p))
    return x * mask * (1 / (1 - p))


def dropout(
    x: Tensor,
    p: float = 0.5,
    training: bool = True,
    key: Key | None = None,
    shared_axis: int | None = None,
) -> Tensor:
    """Zero each element with probability p and scale the others by 1 / (1 - p); x itself if not training.

    key: (seed, step, draw), three integers of which the mask is a function; the next one of the seed
    that tg.manual_seed() set unless given. Srivastava et al., 2014.
    shared_axis: the axis along which one mask serves all, such as time (Gal & Ghahramani, 2016).
    """
    if not 0 <= p <= 1:
        raise ShapeError(f"dropout: p is a probability between 0 and 1, not {p}")
    if shared_axis is not None and not -x.ndim <= shared_axis < x.ndim:
        raise ShapeError(f"dropout: there is no axis {shared_axis} to share in shape {x.shape}")
    if not training or p == 0:
        return x
    params = {"p": p, "key": key or next_key(), "shared_axis": shared_axis}
    return apply(TABLE["dropout_mask"], (x,), params)
