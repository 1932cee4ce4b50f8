"""What the VJP of each op is: in words, and as a NumPy expression of g, out and the names of the inputs.

Where the engine's VJP is one expression, that expression is read and its ops are written as NumPy's, so that
the two cannot differ. Of the others the formula stands here; a test evaluates each against the engine.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..engine.node import Node
from ..engine.op import Op
from .expression import FUNCTIONS
from .jacobian import input_shape

Formula = Callable[[Node, int], str | None]

IDEAS = {
    "add": "A sum passes the gradient on to each of its terms as it is.",
    "subtract": "Like a sum, but what is subtracted gets the gradient with the other sign.",
    "multiply": "The derivative of a b in a is b, and in b it is a: each factor gets g times the other one.",
    "divide": "a / b is a times 1/b; and the derivative of 1/b is -1/b^2.",
    "power": "The derivative of a^b is b a^(b-1) in a, and a^b log(a) in b.",
    "negative": "The sign turns round, forward and backward.",
    "abs": "The slope is 1 where x is positive and -1 where it is negative.",
    "sqrt": "The derivative of sqrt(x) is 1 / (2 sqrt(x)), and sqrt(x) is `out`.",
    "exp": "exp is its own derivative, and exp(x) is `out`.",
    "expm1": "The derivative is exp(x), which is out + 1.",
    "log": "The derivative of log(x) is 1/x.",
    "log1p": "The derivative of log(1 + x) is 1 / (1 + x).",
    "sin": "The derivative of the sine is the cosine.",
    "cos": "The derivative of the cosine is minus the sine.",
    "tanh": "The derivative of tanh is 1 - tanh^2, and tanh(x) is `out`.",
    "sigmoid": "The derivative of the sigmoid s is s (1 - s), and s is `out`: at most 1/4.",
    "relu": "The slope is 1 where the result is positive, else 0: the gradient passes or it does not.",
    "leaky_relu": "The slope is 1 where x is positive, else negative_slope.",
    "softplus": "The derivative of log(1 + exp(x)) is the sigmoid.",
    "maximum": "The larger of the two gets the gradient, the other one nothing; a tie is shared.",
    "minimum": "The smaller of the two gets the gradient, the other one nothing; a tie is shared.",
    "clip": "The gradient passes where x was within the limits.",
    "where": "The gradient goes to the input that was chosen, at each place.",
    "dropout_mask": "The same `mask` (0, or 1 / (1 - p)) that multiplied x multiplies the gradient.",
    "getitem": "What was picked gets its gradient, all else gets 0; what was picked twice gets the sum.",
    "scatter": "Each value was put at a place: it gets the gradient from there.",
    "matmul": "out = a b is linear in each factor. What one row of a gave goes back through b transposed; "
    "the gradient of b adds up, over the rows of a, the outer product of a row and its upstream gradient.",
    "einsum": "Linear in each operand: the same sum with g in place of the operand.",
    "cross_entropy": "The derivative of -log(softmax(logits)[target]) is softmax(logits), with 1 taken off "
    "at the target; the mean divides it by the number of predictions.",
    "mse": "The derivative of the square of a difference is twice the difference; the mean divides by n.",
    "binary_cross_entropy_with_logits": "In the logits it is the probability less the target, over n.",
    "sum": "Every element goes into its sum with weight 1: each gets the gradient of that sum.",
    "mean": "Every element goes into the mean of n with weight 1/n.",
    "var": "The derivative of the mean of (x - mean)^2 is 2 (x - mean) / n: the mean's own share cancels.",
    "max": "Only the largest element matters: it gets the gradient.",
    "min": "Only the smallest element matters: it gets the gradient.",
    "prod": "The derivative in one factor is the product of all others.",
    "logsumexp": "The derivative of log(sum(exp(x))) is the softmax of x, which is exp(x - out).",
    "softmax": "Each probability p depends on all x: dp_i/dx_j = p_i ([i = j] - p_j), and p is `out`.",
    "log_softmax": "d out_i / dx_j = [i = j] - p_j with p = exp(out): g, less p times the sum of g.",
    "cumsum": "An element goes into its own sum and all later ones: the running sum of g from the other end.",
    "norm": "The gradient of a length is the unit vector: x / norm(x).",
    "broadcast_to": "An element that was repeated gets the sum of the gradients of its copies.",
    "concatenate": "Each input gets the stretch of the gradient that it gave to the result.",
    "stack": "Each input gets its own slice of the gradient.",
    "split": "The gradients of the pieces, put together again.",
    "pad": "The gradient without the margin that was put around x.",
    "conv2d": "Linear in images and in kernels. A pixel gets g from each place of the result that it went "
    "into, times the number of the kernel it met there; a number of a kernel gets g times each pixel it met.",
    "conv2d_input": "Linear in both, the transpose of conv2d: its derivative in y is conv2d itself.",
    "conv2d_weight": "Linear in both: the derivative in x is conv2d's transpose, in y conv2d by g.",
    "batch_norm": "Mean and variance depend on every value of the channel: the part of g that is the same "
    "for all, and the part that goes along with y, would change nothing in the result and are taken out.",
    "max_pool2d": "Only the largest value of a window matters: it gets the gradient of that window.",
    "avg_pool2d": "Every value goes into the average of n with weight 1/n, in each window that it is in.",
    "interpolate": "A value gets g from each pixel that was made of it, times the weight it had there.",
    "astype": "A cast changes no value: the gradient is cast back.",
}
MOVED = "No value changes, only its place: the gradient goes back to where each element came from."
PASSED = "The result is x itself, and so the gradient is g itself."


def idea(node: Node) -> str:
    """In words, what the derivative of the op is; of a user's op, its documentation."""
    assert node.op is not None
    name = node.op.name
    if name in ("identity", "transfer"):
        return PASSED
    if name in ("reshape", "transpose", "swapaxes", "moveaxis", "expand_dims", "squeeze", "flip"):
        return MOVED
    return IDEAS.get(name) or f"{name}: {(node.op.doc or 'an op of your own').splitlines()[0]}"


def formula(node: Node, number: int) -> str | None:
    """The VJP for an input as an expression that evaluates to what the engine computes. None for an op that
    is more than an expression, as a whole sequence is."""
    op = node.op
    assert op is not None
    made = FORMULAS.get(op.name)
    text = made(node, number) if made is not None else _of_lambda(op, number, node.params)
    return None if text is None else _summed(text, node, number, op)


def rule(node: Node, number: int) -> str:
    """The engine's own text of the VJP; where that calls a helper of its own, the formula if there is one."""
    text = source(node, number)
    return (formula(node, number) or text) if re.search(r"\b_\w+\(|\bbuiltins\.", text) else text


def source(node: Node, number: int) -> str:
    """The engine's own text of the VJP: an expression, or where it is more, what it says of itself."""
    assert node.op is not None
    lines = node.op.derivative()
    return lines[0] if node.op.joint is not None else lines[number].partition("= ")[2]


def relabelled(text: str, labels: Mapping[str, str]) -> str:
    """The expression with other names."""
    tree = ast.parse(text, mode="eval")
    for part in ast.walk(tree):
        if isinstance(part, ast.Name) and part.id in labels:
            part.id = labels[part.id]
    return ast.unparse(tree)


def with_a_gap(text: str, inputs: list[str]) -> str:
    """The expression with one thing left out: the last input or `out` in it, or else the last g."""
    tree = ast.parse(text, mode="eval")
    names = [part for part in ast.walk(tree) if isinstance(part, ast.Name)]
    names.sort(key=lambda part: part.col_offset)
    telling = [part for part in names if part.id in [*inputs, "out"]]
    (telling or [part for part in names if part.id == "g"])[-1].id = "___"
    return ast.unparse(tree)


# --- of VJPs that are one expression --------------------------------------------------------------


def _of_lambda(op: Op, number: int, params: Mapping[str, Any]) -> str | None:
    if op.joint is not None or inspect.unwrap(op.vjps[number]).__name__ != "<lambda>":  # type: ignore[arg-type]
        return None
    try:
        tree = ast.parse(op.derivative()[number].partition("= ")[2], mode="eval")
    except SyntaxError:  # the source is not at hand
        return None
    translated = _Translated(params)
    tree = ast.fix_missing_locations(translated.visit(tree))
    return ast.unparse(tree) if translated.possible else None


class _Translated(ast.NodeTransformer):
    """F's ops as NumPy's; parameters as their values, where these can be written down."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params, self.possible = params, True

    def visit_Attribute(self, part: ast.Attribute) -> ast.AST:
        if isinstance(part.value, ast.Name) and part.value.id == "F":
            if part.attr in FUNCTIONS and not hasattr(np, part.attr):
                return ast.Name(part.attr, ast.Load())
            self.possible &= hasattr(np, part.attr)
            return ast.Attribute(ast.Name("np", ast.Load()), part.attr, ast.Load())
        return self.generic_visit(part)

    def visit_Name(self, part: ast.Name) -> ast.AST:
        if part.id in self.params and isinstance(self.params[part.id], (int, float, tuple, type(None))):
            value = self.params[part.id]
            if not isinstance(value, tuple) or all(isinstance(one, int) for one in value):
                return ast.Constant(value)
        return part


# --- of the others --------------------------------------------------------------------------------


def _summed(text: str, node: Node, number: int, op: Op) -> str:
    """With the sum over what was stretched, if anything was."""
    if not op.broadcasts or op.name in ("matmul", "einsum"):
        return text
    shape, out = input_shape(node, number), node.shape
    extra = len(out) - len(shape)
    axes = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 and out[extra + i] != 1))
    if not axes:
        return text
    kept = len(axes) > extra
    axis = str(axes) if len(axes) > 1 else str(axes[0])
    summed = f"np.sum({text}, axis={axis}{', keepdims=True' if kept else ''})"
    return f"{summed}.reshape({shape})" if kept and extra else summed


def _axes(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    axis = node.params["axis"]
    if axis is None:
        return tuple(range(len(shape)))
    return tuple(sorted(a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))))


def _reduction(text: str) -> Formula:
    """G and O: g and out with the axes that were reduced; AXIS: these; N: how many elements along them."""

    def made(node: Node, number: int) -> str:
        shape = input_shape(node, number)
        axes = _axes(node, shape)
        gone = len(axes) < len(shape) and not node.params["keepdims"]
        axis = str(axes[0] if len(axes) == 1 else axes)
        spread = {
            "G": f"np.expand_dims(g, {axis})" if gone else "g",
            "O": f"np.expand_dims(out, {axis})" if gone else "out",
            "AXIS": "None" if len(axes) == len(shape) else axis,
            "N": str(math.prod(shape[a] for a in axes) - node.params.get("ddof", 0)),
        }
        return relabelled(text, spread)

    return made


def _matmul(node: Node, number: int) -> str | None:
    a, b = (len(saved.shape) for saved in node.inputs)
    if b > 2:
        if node.inputs[0].shape[:-2] != node.inputs[1].shape[:-2]:  # one of them was stretched
            return None
        return "np.swapaxes(a, -1, -2) @ g" if number else "g @ np.swapaxes(b, -1, -2)"
    if number == 0:
        if b == 1:
            return "g * b" if a == 1 else "g[..., None] * b"
        return "g @ b.T"
    if a == 1:
        return "g * a" if b == 1 else "np.outer(a, g)"
    if a == 2:
        return "a.T @ g"
    last = "a.reshape(-1, a.shape[-1]).T @ g.reshape(-1"
    return f"{last}, g.shape[-1])" if b == 2 else f"{last})"


def _einsum(node: Node, number: int) -> str | None:
    left, result = node.params["subscripts"].split("->")
    letters = left.split(",")
    rest = [i for i in range(len(letters)) if i != number]
    shapes = {c: n for i, term in enumerate(letters) for c, n in zip(term, node.inputs[i].shape, strict=True)}
    known = set(result).union(*(letters[i] for i in rest))
    stretched = any(
        1 in [node.inputs[i].shape[letters[i].index(c)] for i in range(len(letters)) if c in letters[i]]
        for c in shapes
    )
    if set(letters[number]) - known or stretched:
        return None
    spec = ",".join([result, *(letters[i] for i in rest)]) + "->" + letters[number]
    return f"np.einsum({', '.join([repr(spec), 'g', *(f'x{i}' for i in rest)])})"


def _cross_entropy(node: Node, number: int) -> str | None:
    if node.params["ignore_index"] is not None:
        return None
    classes, count = node.inputs[0].shape[-1], math.prod(node.inputs[1].shape)
    text = f"(softmax(logits) - one_hot(targets, {classes}))"
    if node.params["reduction"] == "none":
        return f"g[..., None] * {text}"
    return f"g * {text}" + (f" / {count}" if node.params["reduction"] == "mean" else "")


def _loss(*texts: str) -> Formula:
    def made(node: Node, number: int) -> str:
        count = math.prod(node.inputs[number].shape)
        return f"g * {texts[number]}" + (f" / {count}" if node.params["reduction"] == "mean" else "")

    return made


def _clip(node: Node, number: int) -> str:
    low, high = node.params["a_min"], node.params["a_max"]
    conditions = [f"(x >= {low})"] * (low is not None) + [f"(x <= {high})"] * (high is not None)
    return f"g * {' * '.join(conditions)}" if conditions else "g"


def _transpose(node: Node, number: int) -> str:
    axes = node.params["axes"]
    if axes is None:
        return "g.T"
    return f"g.transpose({tuple(int(i) for i in np.argsort([a % len(axes) for a in axes]))})"


def _part(axis: int, what: str) -> str:
    return f"g[{':, ' * axis}{what}]"


def _stack(node: Node, number: int) -> str:
    return _part(node.params["axis"] % len(node.shape), str(number))


def _concatenate(node: Node, number: int) -> str:
    axis = node.params["axis"]
    shapes = [saved.shape for saved in node.inputs]
    if axis is None:
        start = sum(math.prod(shape) for shape in shapes[:number])
        return f"g[{start}:{start + math.prod(shapes[number])}].reshape({shapes[number]})"
    axis %= len(node.shape)
    start = sum(shape[axis] for shape in shapes[:number])
    return _part(axis, f"{start}:{start + shapes[number][axis]}")


def _pad(node: Node, number: int) -> str:
    shape = input_shape(node, number)
    widths = np.broadcast_to(np.asarray(node.params["pad_width"]), (len(shape), 2)).tolist()
    return f"g[{', '.join(f'{w[0]}:{w[0] + n}' for w, n in zip(widths, shape, strict=True))}]"


def _cumsum(node: Node, number: int) -> str:
    axis = node.params["axis"]
    flat = f"np.flip(np.cumsum(np.flip(g, {axis or 0}), {axis or 0}), {axis or 0})"
    return f"{flat}.reshape({input_shape(node, number)})" if axis is None else flat


def _plain(*texts: str) -> Formula:
    return lambda node, number: texts[number]


FORMULAS: dict[str, Formula] = {
    "power": _plain("g * b * a ** (b - 1)", "g * out * np.log(a)"),
    "clip": _clip,
    "dropout_mask": _plain("g * mask"),
    "getitem": _plain("scatter(g, index, x.shape)"),
    "scatter": _plain("g[index]"),
    "matmul": _matmul,
    "einsum": _einsum,
    "conv2d": lambda node, number: "np.sum(g, axis=(0, 2, 3))" if number == 2 else None,
    "cross_entropy": _cross_entropy,
    "mse": _loss("2 * (input - target)", "2 * (target - input)"),
    "binary_cross_entropy_with_logits": _loss("(sigmoid(logits) - targets)", "-logits"),
    "identity": _plain("g"),
    "astype": _plain("g.astype(x.dtype)"),
    "transfer": _plain("g"),
    "sum": _reduction("G * np.ones(x.shape)"),
    "mean": _reduction("G * np.ones(x.shape) / N"),
    "var": _reduction("G * 2 * (x - np.mean(x, axis=AXIS, keepdims=True)) / N"),
    "max": _reduction("G * (x == O) / np.sum(x == O, axis=AXIS, keepdims=True)"),
    "min": _reduction("G * (x == O) / np.sum(x == O, axis=AXIS, keepdims=True)"),
    "prod": _reduction("G * O / x"),
    "logsumexp": _reduction("G * np.exp(x - O)"),
    "norm": _reduction("G * x / O"),
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "split": lambda node, number: f"np.concatenate(g, axis={node.params['axis']})",
    "pad": _pad,
    "cumsum": _cumsum,
}
"""The engine's VJPs know the exceptions as well: a product with a factor 0, a norm of 0."""
