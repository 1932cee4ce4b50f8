"""A NumPy expression that was typed at the prompt, evaluated over the arrays of one node.

This is no sandbox: who types it owns the machine. It has no builtins so that a slip is one clear line instead
of something that happens, and so that nothing outlives the line.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import CodeType
from typing import Any

import numpy as np

from ..errors import UsageError
from .operands import norm


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x)))


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) along an axis."""
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def one_hot(targets: Any, classes: int) -> np.ndarray:
    """1 at the place of each target along a new last axis."""
    return (np.asarray(targets)[..., None] == np.arange(classes)).astype(np.float64)


def scatter(values: Any, index: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros of a shape with values added at an index: what undoes x[index]."""
    out = np.zeros(shape, np.asarray(values).dtype)
    np.add.at(out, index, values)
    return out


FUNCTIONS: dict[str, Any] = {
    "np": np,
    "norm": norm,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "one_hot": one_hot,
    "scatter": scatter,
    "abs": np.abs,
    "sum": np.sum,
    "min": np.min,
    "max": np.max,
    "len": len,
    "range": range,
    "float": float,
    "int": int,
    "slice": slice,
}
FUNCTIONS |= {name: getattr(np, name) for name in "exp log sqrt tanh sin cos sign where outer dot".split()}


def compiled(text: str) -> CodeType:
    """UsageError for what is no expression of Python."""
    if not text.strip():
        raise UsageError("an expression is missing; for example g * out")
    try:
        return compile(text.strip(), "<expression>", "eval")
    except (SyntaxError, ValueError) as error:
        said = getattr(error, "msg", None) or str(error)
        raise UsageError(f"{text.strip()}: {said}; it must be one expression, as g * out") from None


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value: an array, a number or a truth value. UsageError in one line for anything else.

    names: what the expression may use beside FUNCTIONS; None for what is not at hand here.
    """
    code = compiled(text)
    unknown = [name for name in code.co_names if name in names and names[name] is None]
    if unknown:
        raise UsageError(f"{unknown[0]} was not kept: this op's derivative does not need it")
    try:
        with np.errstate(all="ignore"):
            value = eval(code, {"__builtins__": {}, **FUNCTIONS, **names})
    except NameError as error:
        name = error.name or ""
        near = get_close_matches(name, [*names, *FUNCTIONS], n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise UsageError(f"there is no {name!r} here{guess}; there are {', '.join(names)} and np") from None
    except Exception as error:  # whatever NumPy has to say of the user's own line
        said = " ".join(str(error).split())
        raise UsageError(f"{text.strip()}: {said or type(error).__name__}") from None
    if (
        isinstance(value, (bool, int, float, np.ndarray, np.generic))
        and np.asarray(value).dtype.kind in "biuf"
    ):
        return value
    raise UsageError(f"{text.strip()} gives a {type(value).__name__}, not numbers")
