"""One sample for each op of the table: how to draw its arguments, and what it computes, said in NumPy.

`SAMPLES` at the end is the table to read; before it are the strategies that it is written in. Values are
multiples of 1/8, so that float32 and float64 hold the same numbers. Samples keep away from kinks and ties, so
that every drawn case has a derivative; what happens at a kink is tested by name in test_ops.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
from hypothesis import assume
from hypothesis.strategies import SearchStrategy

import tinygrad_rnn as tg
from tinygrad_rnn.engine.backend import NUMPY, Backend
from tinygrad_rnn.engine.op import Op, public_function
from tinygrad_rnn.engine.random import keep_mask
from tinygrad_rnn.engine.tensor import Tensor, leaf_node


class Case(NamedTuple):
    """Arguments of one call: arrays, Python numbers or None as inputs, and the parameters."""

    inputs: tuple
    params: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Sample:
    """reference: the op on NumPy arrays, `reference(*inputs, **params)`
    cases: draws a Case
    examples: how many to draw, where one is expensive
    function: calls the op on tensors, where its record alone is not enough
    """

    reference: Callable
    cases: SearchStrategy[Case]
    examples: int | None = None
    function: Callable | None = None

    def call(self, op: Op, inputs: tuple, params: dict[str, Any]) -> tuple[Tensor, ...]:
        """The op on tensors; its outputs as a tuple."""
        if self.function is not None:
            out = self.function(*inputs, **params)
        elif op.input_names is None:
            out = public_function(op)(inputs, **params)
        else:
            out = public_function(op)(*inputs, **params)
        return out if isinstance(out, tuple) else (out,)

    def expected(self, case: Case) -> tuple[np.ndarray, ...]:
        """The reference's outputs as a tuple."""
        out = self.reference(*case.inputs, **case.params)
        return tuple(np.asarray(o) for o in (out if isinstance(out, (tuple, list)) else (out,)))


# --- making tensors of a case ---------------------------------------------------------------------


def is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def cast(case: Case, dtype: Any) -> Case:
    """The case with its float arrays in another dtype (and the same layout in memory)."""
    inputs = tuple(x.astype(dtype) if is_float(x) else x for x in case.inputs)
    return case._replace(inputs=inputs)


def leaf(array: np.ndarray, backend: Backend = NUMPY, requires_grad: bool | None = None) -> Tensor:
    """A leaf around the array itself, strides and all (tg.tensor would copy). Floats require a gradient."""
    raw = array if backend is NUMPY else backend.from_host(array)
    wanted = is_float(array) if requires_grad is None else requires_grad
    return Tensor(raw, leaf_node(raw, backend) if wanted else None, 0, backend)


def tensors(case: Case, backend: Backend = NUMPY) -> tuple[tuple, dict[str, Any]]:
    """The inputs as leaves and the parameters, both on a backend."""
    inputs = tuple(leaf(x, backend) if isinstance(x, np.ndarray) else x for x in case.inputs)
    return inputs, {key: _on(value, backend) for key, value in case.params.items()}


def _on(value: Any, backend: Backend) -> Any:
    if isinstance(value, np.ndarray):  # an index
        return backend.from_host(value)
    if isinstance(value, tuple):
        return tuple(_on(item, backend) for item in value)
    return backend if value is NUMPY else value  # where a transfer starts or ends


def leaves_of(inputs: tuple) -> list[Tensor]:
    return [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]


# --- numbers, shapes, arrays ----------------------------------------------------------------------


def grid(low: float, high: float, step: float = 1 / 8, without: tuple = ()) -> list[float]:
    count = round((high - low) / step)
    return [low + i * step for i in range(count + 1) if low + i * step not in without]


REALS = grid(-3, 3)
NONZERO = grid(-3, 3, without=(0,))
POSITIVE = grid(1 / 4, 3)
ABOVE_MINUS_ONE = grid(-3 / 4, 3)
PROBABILITIES = grid(1 / 8, 7 / 8)
QUARTERS = grid(-3, 3, 1 / 4)  # never equal to one of BETWEEN
BETWEEN = grid(-3 + 1 / 8, 3, 1 / 4)
WHOLE = grid(-2, 2, 1)  # ties are frequent
UNRELATED = [float(np.float32(x)) for x in np.random.default_rng(0).uniform(-2, 2, 99)]  # no sum of them is 0
TRUTH = [True, False]

_FULL = [(3,), (2, 2), (2, 3), (1,), (3, 1), (1, 3), (3, 3), (4,), (2, 3, 2), (1, 2, 1), (2, 1, 3), (2, 2, 2)]
_EMPTY = [(0,), (0, 3), (2, 0), (2, 0, 1)]
SHAPES = st.sampled_from([(), *_FULL, *_EMPTY])
FULL_SHAPES = st.sampled_from([(), *_FULL])
WITH_AXES = st.sampled_from([*_FULL, *_EMPTY])


def arrays(shape: tuple[int, ...], elements: list, unique: bool = False) -> SearchStrategy[np.ndarray]:
    """Elements picked by a drawn seed: quicker than one by one, and seldom all alike."""

    def pick(seed: int) -> np.ndarray:
        return np.asarray(np.random.default_rng(seed).choice(elements, shape, replace=not unique))

    return st.integers(0, 2**16).map(pick)


def stretchable(draw: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to `shape`."""
    if draw(st.booleans()):
        return shape
    own = tuple(draw(st.sampled_from([size, 1])) for size in shape)
    return own[draw(st.integers(0, len(own))) :]


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.T.copy().T,
    "reversed": lambda x: np.flip(np.flip(x).copy()) if x.ndim else x,
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x,
}


@st.composite
def laid_out(draw: Any, case: Case) -> Case:
    """The same case with its arrays laid out differently in memory."""
    change = lambda x: LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](x)  # noqa: E731
    return case._replace(inputs=tuple(change(x) if isinstance(x, np.ndarray) else x for x in case.inputs))


def drawn(draw: Any, given: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Parameters from values, strategies, and functions of the shape that give strategies."""
    params = {}
    for key, value in given.items():
        value = value(shape) if callable(value) and not isinstance(value, SearchStrategy) else value
        params[key] = draw(value) if isinstance(value, SearchStrategy) else value
    return params


# --- parameters that depend on the shape ----------------------------------------------------------


def axis(shape: tuple[int, ...]) -> SearchStrategy[int]:
    return st.integers(-len(shape), len(shape) - 1)


def axis_or_none(shape: tuple[int, ...]) -> SearchStrategy[int | None]:
    return st.none() | axis(shape) if shape else st.none()


def axes(shape: tuple[int, ...]) -> SearchStrategy[Any]:
    """None, one axis, or a tuple of them, counted from either end."""
    if not shape:
        return st.sampled_from([None, ()])
    signed = hnp.valid_tuple_axes(len(shape), min_size=0)
    return st.none() | axis(shape) | signed


def filled_axes(shape: tuple[int, ...]) -> SearchStrategy[Any]:
    """Axes over which there are elements, for reductions that have no value for none."""
    return axes(shape).filter(lambda chosen: 0 not in _sizes(shape, chosen))


def _sizes(shape: tuple[int, ...], chosen: Any) -> list[int]:
    if chosen is None:
        return list(shape)
    return [shape[a] for a in (chosen if isinstance(chosen, tuple) else (chosen,))]


def filled_axis(shape: tuple[int, ...]) -> SearchStrategy[int]:
    return axis(shape).filter(lambda chosen: shape[chosen] > 0)


def new_shapes(shape: tuple[int, ...]) -> SearchStrategy[Any]:
    """Shapes with as many elements, one of them also with -1."""
    size = math.prod(shape)
    options: list[Any] = [size, (size,), (1, size, 1), shape[::-1], (*shape, 1)]
    options += [(-1,), -1] if size else []
    options += [(d, size // d) for d in range(2, size) if size % d == 0]
    options += [(d, -1) for d in range(2, size) if size % d == 0]
    options += [()] if size == 1 else []
    return st.sampled_from(options)


def orders(shape: tuple[int, ...]) -> SearchStrategy[Any]:
    dims = range(len(shape))
    signed = st.permutations(dims).map(lambda p: tuple(a - len(p) if a % 2 else a for a in p))
    return st.none() | signed


def places(shape: tuple[int, ...]) -> SearchStrategy[Any]:
    """Where to put new axes."""
    return st.integers(-len(shape) - 1, len(shape)) | st.sampled_from([(0, 1), (0, -1), (-1,)])


def axes_of_one(shape: tuple[int, ...]) -> SearchStrategy[Any]:
    ones = [a for a, size in enumerate(shape) if size == 1]
    single = st.sampled_from([a - len(shape) for a in ones] + ones) if ones else st.nothing()
    return st.none() | single | st.just(tuple(ones))


def widths(shape: tuple[int, ...]) -> SearchStrategy[Any]:
    pair = st.tuples(st.integers(0, 2), st.integers(0, 2))
    each = st.tuples(*[pair] * len(shape)) if shape else pair
    return st.integers(0, 2) | pair | pair.map(lambda p: (p,)) | st.just((1,)) | each


def indices(shape: tuple[int, ...]) -> SearchStrategy[Any]:
    """Every kind of index: integers, slices, None, ellipsis, boolean and integer arrays, mixtures."""
    kinds = [hnp.basic_indices(shape, allow_newaxis=True)]
    kinds.append(arrays(shape, TRUTH))
    if shape and 0 not in shape:
        kinds.append(hnp.integer_array_indices(shape))
        picks = arrays((4,), list(range(-shape[0], shape[0])))
        kinds.append(picks)  # repeats are certain
        kinds.append(st.tuples(st.just(Ellipsis), arrays((4,), list(range(shape[-1])))))
        kinds.append(arrays(shape[:1], TRUTH))
        if len(shape) > 1:
            kinds.append(st.tuples(picks, st.sampled_from([0, slice(None, None, -1), None])))
            kinds.append(st.tuples(picks, st.just(slice(0, 1)), st.just(Ellipsis)))
    return st.one_of(kinds)


# --- whole cases ----------------------------------------------------------------------------------


def one(
    reference: Callable,
    elements: list = REALS,
    shapes: SearchStrategy = SHAPES,
    unique: bool = False,
    **params: Any,
) -> Sample:
    """An op of one tensor."""

    @st.composite
    def cases(draw: Any) -> Case:
        shape = draw(shapes)
        chosen = drawn(draw, params, shape)
        return Case((draw(arrays(shape, elements, unique)),), chosen)

    return Sample(reference, cases())


def pair(reference: Callable, first: list = REALS, second: list = REALS, numbers: bool = True) -> Sample:
    """An op of two tensors that broadcast, or of a tensor and a Python number on either side."""

    @st.composite
    def cases(draw: Any) -> Case:
        shape = draw(SHAPES)
        inputs: list[Any] = [draw(arrays(stretchable(draw, shape), e)) for e in (first, second)]
        number = draw(st.sampled_from([None, None, None, 0, 1])) if numbers else None
        if number is not None:
            value = draw(st.sampled_from((first, second)[number]))
            inputs[number] = int(value) if value == int(value) and draw(st.booleans()) else value
        return Case(tuple(inputs))

    return Sample(reference, cases())


@st.composite
def where_cases(draw: Any) -> Case:
    shape = draw(SHAPES)
    inputs: list[Any] = [draw(arrays(stretchable(draw, shape), e)) for e in (TRUTH, REALS, REALS)]
    number = draw(st.sampled_from([None, None, 1, 2]))
    if number is not None:
        inputs[number] = draw(st.sampled_from([0.5, -2]))
    return Case(tuple(inputs))


@st.composite
def scatter_cases(draw: Any) -> Case:
    shape = draw(WITH_AXES)
    index = draw(indices(shape))
    picked = np.zeros(shape)[index].shape
    return Case((draw(arrays(picked, REALS)),), {"index": index, "shape": shape})


MATRICES = [
    ((2, 3), (3, 2)),
    ((2, 2), (2, 2)),
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2,), (3, 2, 2)),
    ((3, 2, 2), (2,)),
    ((2, 2, 3), (3, 2)),
    ((2, 3), (2, 3, 1)),
    ((2, 1, 2, 2), (3, 2, 1)),
    ((1, 2, 2), (2, 2, 2)),
    ((2, 0), (0, 3)),
    ((0, 2), (2, 3)),
    ((2, 3, 0), (0, 0)),
    ((0,), (0,)),
    ((2, 0, 3), (3, 2)),
]


@st.composite
def matmul_cases(draw: Any) -> Case:
    return Case(tuple(draw(arrays(shape, REALS)) for shape in draw(st.sampled_from(MATRICES))))


EINSUMS = [
    ("ij,jk->ik", (2, 3), (3, 2)),
    ("ij,kj->ikj", (2, 2), (3, 2)),
    ("ij->ji", (2, 3)),
    ("ij->", (2, 3)),
    ("ij,j->i", (3, 2), (2,)),
    ("i,j->ij", (2,), (3,)),
    ("ijk,ik->j", (2, 3, 2), (2, 2)),
    ("i,i,i->i", (3,), (3,), (3,)),
    ("ij,k->i", (2, 2), (3,)),
    ("i,i->", (3,), (1,)),
    ("ij,ij->j", (1, 2), (3, 2)),
    ("ij,jk->ik", (2, 0), (0, 3)),
    (",i->i", (), (3,)),
]


@st.composite
def einsum_cases(draw: Any) -> Case:
    subscripts, *shapes = draw(st.sampled_from(EINSUMS))
    return Case(tuple(draw(arrays(s, REALS)) for s in shapes), {"subscripts": subscripts})


REDUCTIONS = st.sampled_from(["mean", "sum", "none"])


@st.composite
def loss_cases(draw: Any, targets: list) -> Case:
    shape = draw(SHAPES)
    inputs = (draw(arrays(shape, REALS)), draw(arrays(shape, targets)))
    return Case(inputs, {"reduction": draw(REDUCTIONS)})


@st.composite
def cross_entropy_cases(draw: Any) -> Case:
    shape = draw(st.sampled_from([(), (1,), (2,), (0,), (2, 2), (0, 1)]))
    classes = draw(st.integers(1, 3))
    ignore_index = draw(st.sampled_from([None, 0, -100]))
    allowed = [*range(classes), *([] if ignore_index is None else [ignore_index])]
    inputs = (draw(arrays((*shape, classes), REALS)), draw(arrays(shape, allowed)))
    return Case(inputs, {"ignore_index": ignore_index, "reduction": draw(REDUCTIONS)})


@st.composite
def join_cases(draw: Any, new_axis: bool) -> Case:
    shape = list(draw(WITH_AXES))
    place = draw(axis(tuple(shape)))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        if not new_axis:
            shape[place] = draw(st.integers(0, 3))
        parts.append(draw(arrays(tuple(shape), REALS)))
    flat = not new_axis and draw(st.booleans())
    return Case(tuple(parts), {"axis": None if flat else place})


@st.composite
def split_cases(draw: Any) -> Case:
    shape = draw(WITH_AXES)
    place = draw(axis(shape))
    size = shape[place]
    equal = st.sampled_from([n for n in range(1, size + 1) if size % n == 0] or [2])
    cuts = st.lists(st.integers(0, size), max_size=2).map(sorted)
    sections = draw(equal | cuts)
    return Case((draw(arrays(shape, REALS)),), {"indices_or_sections": sections, "axis": place})


@st.composite
def broadcast_cases(draw: Any) -> Case:
    shape = draw(SHAPES)
    return Case((draw(arrays(stretchable(draw, shape), REALS)),), {"shape": shape})


SIZES = st.sampled_from([(1, 1, 1, 1), (2, 1, 1, 1), (2, 2, 1, 1), (3, 1, 2, 1), (2, 1, 1, 2), (1, 2, 2, 2)])


@st.composite
def sequence_cases(draw: Any, gates: int, states: int, sizes: SearchStrategy = SIZES, **params: Any) -> Case:
    """x, states, weight_ih, weight_hh, bias_ih, bias_hh (each bias perhaps None); sizes are T, B, D, H."""
    T, B, D, H = draw(sizes)
    shapes = [(T, B, D), *[(B, H)] * states, (gates * H, D), (gates * H, H)]
    inputs = [draw(arrays(shape, UNRELATED)) for shape in shapes]
    biases = [draw(st.none() | arrays((gates * H,), UNRELATED)) for _ in range(2)]
    return Case((*inputs, *biases), drawn(draw, params, ()))


@st.composite
def language_model_cases(draw: Any) -> Case:
    """The op's inputs (see its Parts) of one or two layers, and symbols (T, B) of a vocabulary of V."""
    kind = draw(st.sampled_from(["rnn", "lstm", "gru"]))
    T, B, V, D, H, layers = draw(st.tuples(*(st.integers(1, most) for most in (3, 2, 4, 2, 2, 2))))
    gates, states = {"rnn": (1, 1), "lstm": (4, 2), "gru": (3, 1)}[kind]
    shapes = [(V, D), (V, H), (V,), *[(layers, B, H)] * states]
    for layer in range(layers):
        shapes += [(gates * H, H if layer else D), (gates * H, H), (gates * H,), (gates * H,)]
    text = st.lists(st.integers(0, V - 1), min_size=T * B, max_size=T * B)
    symbols, targets = (np.array(draw(text)).reshape(T, B) for _ in range(2))
    params = {"symbols": symbols, "targets": targets, "kind": kind}
    return Case(tuple(draw(arrays(shape, UNRELATED)) for shape in shapes), params)


@st.composite
def batch_norm_cases(draw: Any) -> Case:
    """x, weight, bias (either perhaps None); never two equal values, since a variance of 0 bends sharply."""
    shape = draw(st.sampled_from([(2, 1), (3, 2), (2, 2), (1, 2, 3), (2, 2, 2), (2, 1, 1, 2), (2, 2, 2, 1)]))
    affine = [draw(st.none() | arrays(shape[1:2], UNRELATED)) for _ in range(2)]
    x, eps = draw(arrays(shape, UNRELATED, unique=True)), draw(st.sampled_from([0.5, 1.0]))
    return Case((x, *affine), {"eps": eps})


IMAGES = [(1, 1, 3, 3), (2, 1, 2, 3), (1, 2, 4, 2), (2, 2, 2, 2), (1, 2, 2, 1), (0, 1, 3, 3)]


def windows_along(
    n: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False
) -> list[list[int]]:
    """The places of each window along an axis of n values, those in the padding too."""
    spread, begins = dilation * (kernel - 1) + 1, []
    begin = -padding
    while begin + spread <= n + padding:
        begins.append(begin)
        begin += stride
    if ceil_mode and begins and begins[-1] + spread < n + padding and begin < n:
        begins.append(begin)
    return [[begin + dilation * place for place in range(kernel)] for begin in begins]


def windows_of(size: tuple, kernel_size: Any, stride: Any, padding: Any, *rest: Any) -> list[list[list[int]]]:
    """windows_along, of height and width; `rest`: dilation, ceil_mode."""
    two = lambda value: value if isinstance(value, tuple) else (value, value)  # noqa: E731
    given = [kernel_size, kernel_size if stride is None else stride, padding, *rest]
    return [windows_along(n, *options) for n, *options in zip(size, *map(two, given), strict=True)]


@st.composite
def pooling_params(draw: Any, size: tuple, dilations: list, ceil_modes: list) -> dict[str, Any]:
    """Windows that fit images of that size, none of them in the padding alone."""
    params = {
        "kernel_size": draw(st.sampled_from([2, 1, (1, 2), (2, 1), 3])),
        "stride": draw(st.sampled_from([None, 1, (2, 1), 3])),
        "padding": draw(st.sampled_from([0, 0, 1, (0, 1), (1, 0)])),
        "dilation": draw(st.sampled_from(dilations)),
    }
    kernel, padding = (np.broadcast_to(params[name], 2) for name in ("kernel_size", "padding"))
    params["padding"] = tuple(np.minimum(padding, kernel // 2).tolist())
    ceil_mode = draw(st.sampled_from(ceil_modes))
    axes = windows_of(size, *params.values(), ceil_mode)
    assume(all(axes))
    assume(all(any(0 <= i < n for i in w) for n, axis in zip(size, axes, strict=True) for w in axis))
    return {**params, "ceil_mode": ceil_mode}


@st.composite
def max_pool_cases(draw: Any) -> Case:
    shape = draw(st.sampled_from(IMAGES))
    params = draw(pooling_params(shape[2:], [1, 1, 2, (1, 2)], TRUTH))
    return Case((draw(arrays(shape, REALS, unique=True)),), params)


@st.composite
def winners_cases(draw: Any, put: bool) -> Case:
    """Any places in the windows; those in the padding have no value."""
    shape = draw(st.sampled_from(IMAGES))
    params = draw(pooling_params(shape[2:], [1, 2], TRUTH))
    ceil_mode = params.pop("ceil_mode")
    counts = tuple(map(len, windows_of(shape[2:], *params.values(), ceil_mode)))
    places = list(range(math.prod(np.broadcast_to(params["kernel_size"], 2).tolist())))
    winners = draw(arrays((*shape[:2], *counts), places)).astype(np.uint8)
    if put:
        return Case((draw(arrays(winners.shape, REALS)), winners), {"size": shape[2:], **params})
    return Case((draw(arrays(shape, REALS)), winners), params)


@st.composite
def avg_pool_cases(draw: Any, gradient: bool) -> Case:
    shape = draw(st.sampled_from(IMAGES))
    params = draw(pooling_params(shape[2:], [1], TRUTH))
    counts = tuple(map(len, windows_of(shape[2:], *params.values())))
    del params["dilation"]
    params["count_include_pad"] = draw(st.booleans())
    if gradient:
        return Case((draw(arrays((*shape[:2], *counts), REALS)),), {"size": shape[2:], **params})
    return Case((draw(arrays(shape, REALS)),), params)


@st.composite
def interpolate_cases(draw: Any, gradient: bool) -> Case:
    shape, size = draw(st.sampled_from(IMAGES)), draw(st.tuples(*[st.integers(1, 5)] * 2))
    scales = draw(st.none() | st.just(tuple(m / n * 1.01 for n, m in zip(shape[2:], size, strict=True))))
    mode, align_corners = draw(st.sampled_from([("nearest", False), ("bilinear", False), ("bilinear", True)]))
    params = {"scales": scales, "mode": mode, "align_corners": align_corners}
    if gradient:
        return Case((draw(arrays((*shape[:2], *size), REALS)),), {"size": shape[2:], **params})
    return Case((draw(arrays(shape, REALS)),), {"size": size, **params})


CONVOLUTIONS = [(1, 3), (1, 3), (0, 2), (1, 2), (0, 2)]  # kernel, stride, padding, dilation, spare rows
CHANNELS = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 2), (0, 1, 2)]  # images; a group's in and out


@st.composite
def convolution_cases(draw: Any, inputs: str) -> Case:
    """Two of images x, kernels w and images y of the result's shape: "xw" (and a bias), "yw" or "xy"."""
    pairs = [(draw(st.integers(low, high)), draw(st.integers(low, high))) for low, high in CONVOLUTIONS]
    kernel, stride, padding, dilation, more = pairs
    ways = list(zip(kernel, padding, dilation, more, strict=True))
    size = tuple(max(1, d * (k - 1) + 1 - 2 * p) + m for k, p, d, m in ways)
    N, members, outs = draw(st.sampled_from(CHANNELS))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    shapes = {"x": (N, groups * members, *size), "w": (groups * outs, members, *kernel)}
    shapes["y"] = conv2d(np.zeros(shapes["x"]), np.zeros(shapes["w"]), None, **options).shape
    arguments: list[Any] = [draw(arrays(shapes[name], REALS)) for name in inputs]
    if inputs == "xw":
        arguments.append(draw(st.none() | arrays((groups * outs,), REALS)))
    else:
        options["size" if inputs == "yw" else "kernel_size"] = size if inputs == "yw" else kernel
    return Case(tuple(arguments), options)


# --- what the ops without a NumPy function compute ------------------------------------------------


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x)))


def scatter(values: Any, index: Any, shape: tuple) -> np.ndarray:
    out = np.zeros(shape)
    np.add.at(out, index, values)
    return out


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def prod_or_sum(losses: np.ndarray, reduction: str, count: int) -> Any:
    if reduction == "none":
        return losses
    return losses.sum() / (max(count, 1) if reduction == "mean" else 1)


def cross_entropy(logits: np.ndarray, targets: np.ndarray, ignore_index: int | None, reduction: str) -> Any:
    losses, count = np.zeros(targets.shape), 0
    for place, target in np.ndenumerate(targets):
        if target != ignore_index:
            losses[place] = -np.log(softmax(logits[place], -1)[target])
            count += 1
    return prod_or_sum(losses, reduction, count)


def mse(x: np.ndarray, target: np.ndarray, reduction: str) -> Any:
    return prod_or_sum((x - target) ** 2, reduction, x.size)


def binary_cross_entropy(x: np.ndarray, t: np.ndarray, reduction: str) -> Any:
    p = sigmoid(x)
    return prod_or_sum(-(t * np.log(p) + (1 - t) * np.log(1 - p)), reduction, x.size)


def dropout_mask(x: np.ndarray, p: float, key: tuple, shared_axis: int | None) -> np.ndarray:
    shape = x.shape if shared_axis is None else np.sum(x, axis=shared_axis, keepdims=True).shape
    return x * 0 if p == 1 else x * keep_mask(key, shape, p) / (1 - p)


def split(x: np.ndarray, indices_or_sections: Any, axis: int) -> list[np.ndarray]:
    return np.split(x, indices_or_sections, axis)


def rnn(x, h, w_ih, w_hh, b_ih, b_hh, nonlinearity):
    outputs = []
    for x_t in x:
        a = x_t @ w_ih.T + _bias(b_ih) + h @ w_hh.T + _bias(b_hh)
        h = np.tanh(a) if nonlinearity == "tanh" else np.maximum(a, 0)
        outputs.append(h)
    return np.stack(outputs), h


def lstm(x, h, c, w_ih, w_hh, b_ih, b_hh):
    outputs = []
    for x_t in x:
        i, f, g, o = np.split(x_t @ w_ih.T + _bias(b_ih) + h @ w_hh.T + _bias(b_hh), 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


def gru(x, h, w_ih, w_hh, b_ih, b_hh):
    outputs = []
    for x_t in x:
        xr, xz, xn = np.split(x_t @ w_ih.T + _bias(b_ih), 3, -1)
        hr, hz, hn = np.split(h @ w_hh.T + _bias(b_hh), 3, -1)
        z = sigmoid(xz + hz)
        h = (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * h
        outputs.append(h)
    return np.stack(outputs), h


def language_model(embedding, w, b, *rest, symbols, targets, kind):
    layer, count = {"rnn": (rnn, 1), "lstm": (lstm, 2), "gru": (gru, 1)}[kind]
    x, ends, option = embedding[symbols], [], ("tanh",) if kind == "rnn" else ()
    for number in range(len(rest[count:]) // 4):
        weights = rest[count + 4 * number : count + 4 * number + 4]
        x, *end = layer(x, *(state[number] for state in rest[:count]), *weights, *option)
        ends.append(end)
    loss = cross_entropy(x @ w.T + b, targets, None, "mean")
    return loss, *(np.stack([end[i] for end in ends]) for i in range(count))


def conv2d(x, w, bias, stride, padding, dilation, groups):
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    ways = zip(padded.shape[2:], w.shape[2:], stride, dilation, strict=True)
    y = np.zeros((len(x), len(w), *(len(range(0, n - d * (k - 1), s)) for n, k, s, d in ways)))
    for place in np.ndindex(y.shape):
        y[place] = np.sum(padded[_met(place, w.shape, stride, dilation, groups)] * w[place[1]])
    return y if bias is None else y + bias[:, None, None]


def conv2d_input(y, w, size, stride, padding, dilation, groups):
    (H, W), (above, left) = size, padding
    padded = np.zeros((len(y), groups * w.shape[1], H + 2 * above, W + 2 * left))
    for place, value in np.ndenumerate(y):
        padded[_met(place, w.shape, stride, dilation, groups)] += value * w[place[1]]
    return padded[:, :, above : above + H, left : left + W]


def conv2d_weight(x, y, kernel_size, stride, padding, dilation, groups):
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    w = np.zeros((y.shape[1], x.shape[1] // groups, *kernel_size))
    for place, value in np.ndenumerate(y):
        w[place[1]] += value * padded[_met(place, w.shape, stride, dilation, groups)]
    return w


def _met(place: tuple, weight: tuple, stride: tuple, dilation: tuple, groups: int) -> tuple:
    """The part of the padded images that a place (n, o, row, column) of a convolution's result is made of."""
    n, o, *corner = place
    outs, members, *kernel = weight
    group = o // (outs // groups)
    ways = zip(corner, kernel, stride, dilation, strict=True)
    rows_and_columns = (slice(at * s, at * s + d * (k - 1) + 1, d) for at, k, s, d in ways)
    return (n, slice(group * members, (group + 1) * members), *rows_and_columns)


def _bias(b: Any) -> Any:
    return 0.0 if b is None else b


def batch_norm(x: np.ndarray, weight: Any, bias: Any, eps: float) -> tuple:
    channels = [x[:, c] for c in range(x.shape[1])]
    mean, var = (np.array([f(values) for values in channels]) for f in (np.mean, np.var))
    outs = [(values - np.mean(values)) / np.sqrt(np.var(values) + eps) for values in channels]
    weight, bias = (np.full(len(mean), n) if p is None else p for p, n in ((weight, 1), (bias, 0)))
    return np.stack([out * w + b for out, w, b in zip(outs, weight, bias, strict=True)], 1), mean, var


def pooled(x: np.ndarray, windows: list, choose: Callable) -> np.ndarray:
    """`choose` of each window of each image: a list of (number of the place, row, column), image."""
    rows, columns = windows
    out = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for n, c, i, j in np.ndindex(out.shape):
        places = [(row, column) for row in rows[i] for column in columns[j]]
        inside = [
            (number, row, column)
            for number, (row, column) in enumerate(places)
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
        ]
        out[n, c, i, j] = choose(inside, x[n, c], (n, c, i, j))
    return out


def max_pool2d(x: np.ndarray, **params: Any) -> np.ndarray:
    windows = windows_of(x.shape[2:], *params.values())
    return pooled(x, windows, lambda w, image, _: max(image[p[1:]] for p in w))


def max_pool2d_winners(x: np.ndarray, **params: Any) -> np.ndarray:
    windows = windows_of(x.shape[2:], *params.values())
    return pooled(x, windows, lambda w, image, _: max(w, key=lambda p: image[p[1:]])[0]).astype(np.uint8)


def take_winners(x: np.ndarray, winners: np.ndarray, **params: Any) -> np.ndarray:
    windows = windows_of(x.shape[2:], *params.values(), True)
    windows = [axis[:count] for axis, count in zip(windows, winners.shape[2:], strict=True)]
    return pooled(x, windows, lambda w, image, at: sum(image[p[1:]] for p in w if p[0] == winners[at]))


def avg_pool2d(
    x: np.ndarray, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool
) -> np.ndarray:
    windows = windows_of(x.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    ends = [n + p for n, p in zip(x.shape[2:], np.broadcast_to(padding, 2), strict=True)]

    def average(inside: list, image: np.ndarray, at: tuple) -> float:
        sides = [sum(p < end for p in axis[o]) for axis, o, end in zip(windows, at[2:], ends, strict=True)]
        count = math.prod(sides) if count_include_pad else len(inside)
        return sum(image[p[1:]] for p in inside) / count

    return pooled(x, windows, average)


def interpolate(x: np.ndarray, size: tuple, scales: Any, mode: str, align_corners: bool) -> np.ndarray:
    rows, columns = (
        resizing(n, m, scale, mode, align_corners)
        for n, m, scale in zip(x.shape[2:], size, scales or (None, None), strict=True)
    )
    return rows @ x @ columns.T


def resizing(n: int, m: int, scale: float | None, mode: str, align_corners: bool) -> np.ndarray:
    """The matrix (m, n) that makes m values of n."""
    matrix = np.zeros((m, n))
    step = n / m if scale is None or n == m else 1 / scale
    for o in range(m):
        if mode == "nearest":
            matrix[o, min(math.floor(o * step + 1e-6), n - 1)] = 1
            continue
        at = o * (n - 1) / max(m - 1, 1) if align_corners else min(max((o + 0.5) * step - 0.5, 0), n - 1)
        matrix[o] = np.maximum(1 - np.abs(np.arange(n) - at), 0)
    return matrix


def transpose_of(linear: Callable) -> Callable:
    """The reference of a linear op's derivative: g by the transpose of its matrix, column by column."""

    def transposed(g: np.ndarray, *rest: Any, size: tuple, **params: Any) -> np.ndarray:
        out = np.zeros((*g.shape[:2], *size))
        for place in np.ndindex(out.shape):
            one = np.zeros(out.shape)
            one[place] = 1
            params_of = {"size": g.shape[2:], **params} if linear is interpolate else params
            out[place] = np.sum(g * linear(one, *rest, **params_of))
        return out

    return transposed


# --- the table ------------------------------------------------------------------------------------

KEEP = st.booleans()

SAMPLES: dict[str, Sample] = {
    # arithmetic
    "add": pair(np.add),
    "subtract": pair(np.subtract),
    "multiply": pair(np.multiply),
    "divide": pair(np.divide, second=NONZERO),
    "power": pair(np.power, first=POSITIVE),
    "negative": one(np.negative),
    # comparisons and logic
    "equal": pair(np.equal, WHOLE, WHOLE),
    "not_equal": pair(np.not_equal, WHOLE, WHOLE),
    "less": pair(np.less, WHOLE, WHOLE),
    "less_equal": pair(np.less_equal, WHOLE, WHOLE),
    "greater": pair(np.greater, WHOLE, WHOLE),
    "greater_equal": pair(np.greater_equal, WHOLE, WHOLE),
    "logical_and": pair(np.logical_and, TRUTH, TRUTH, numbers=False),
    "logical_or": pair(np.logical_or, TRUTH, TRUTH, numbers=False),
    "logical_not": one(np.logical_not, TRUTH),
    "sign": one(np.sign),
    "isfinite": one(np.isfinite, [*REALS, math.inf, -math.inf, math.nan]),
    # powers, exponentials, trigonometry
    "abs": one(np.abs, NONZERO),
    "sqrt": one(np.sqrt, POSITIVE),
    "exp": one(np.exp),
    "expm1": one(np.expm1),
    "log": one(np.log, POSITIVE),
    "log1p": one(np.log1p, ABOVE_MINUS_ONE),
    "sin": one(np.sin),
    "cos": one(np.cos),
    "tanh": one(np.tanh),
    # activations
    "sigmoid": one(sigmoid),
    "relu": one(lambda x: x * (x > 0), NONZERO),
    "leaky_relu": one(
        lambda x, negative_slope: np.where(x > 0, x, negative_slope * x),
        NONZERO,
        negative_slope=st.sampled_from([0.01, 0.25, 2]),
    ),
    "softplus": one(lambda x: np.logaddexp(0, x)),
    # choosing
    "maximum": pair(np.maximum, QUARTERS, BETWEEN),
    "minimum": pair(np.minimum, QUARTERS, BETWEEN),
    "clip": one(
        np.clip, BETWEEN, a_min=st.sampled_from([None, -1.0, -1]), a_max=st.sampled_from([None, 1.5, 0])
    ),
    "where": Sample(np.where, where_cases()),
    "dropout_mask": one(
        dropout_mask,
        p=st.sampled_from([0.25, 0.5, 1.0]),
        key=st.tuples(*[st.integers(0, 99)] * 3),
        shared_axis=axis_or_none,
    ),
    # indexing
    "getitem": one(lambda x, index: x[index], shapes=WITH_AXES, index=indices),
    "scatter": Sample(scatter, scatter_cases()),
    "one_hot": one(
        lambda x, num_classes, dtype: np.equal.outer(x, np.arange(num_classes)).astype(dtype),
        [0, 1, 2, 3],
        num_classes=st.sampled_from([3, 4]),
        dtype=st.sampled_from(["float32", "float64"]),
    ),
    # products
    "matmul": Sample(np.matmul, matmul_cases()),
    "einsum": Sample(lambda *x, subscripts: np.einsum(subscripts, *x), einsum_cases()),
    # losses
    "cross_entropy": Sample(cross_entropy, cross_entropy_cases()),
    "mse": Sample(mse, loss_cases(REALS)),
    "binary_cross_entropy_with_logits": Sample(binary_cross_entropy, loss_cases(PROBABILITIES)),
    # reductions
    "sum": one(np.sum, axis=axes, keepdims=KEEP),
    "mean": one(np.mean, axis=filled_axes, keepdims=KEEP),
    "var": one(np.var, shapes=FULL_SHAPES, axis=axes, ddof=st.just(0), keepdims=KEEP),
    "max": one(np.max, unique=True, axis=filled_axes, keepdims=KEEP),
    "min": one(np.min, unique=True, axis=filled_axes, keepdims=KEEP),
    "argmax": one(np.argmax, WHOLE, FULL_SHAPES, axis=axis_or_none),
    "argmin": one(np.argmin, WHOLE, FULL_SHAPES, axis=axis_or_none),
    "prod": one(np.prod, axis=axes, keepdims=KEEP),
    "logsumexp": one(np.logaddexp.reduce, axis=filled_axes, keepdims=KEEP),
    "softmax": one(softmax, shapes=WITH_AXES, axis=axis),
    "log_softmax": one(lambda x, axis: np.log(softmax(x, axis)), shapes=WITH_AXES, axis=axis),
    "cumsum": one(np.cumsum, axis=axis_or_none),
    "norm": one(
        lambda x, ord, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
        NONZERO,
        ord=None,
        axis=axes,
        keepdims=KEEP,
    ),
    # shapes
    "reshape": one(np.reshape, shape=new_shapes),
    "transpose": one(np.transpose, axes=orders),
    "swapaxes": one(np.swapaxes, shapes=WITH_AXES, axis1=axis, axis2=axis),
    "moveaxis": one(np.moveaxis, shapes=WITH_AXES, source=axis, destination=axis),
    "expand_dims": one(np.expand_dims, axis=places),
    "squeeze": one(np.squeeze, axis=axes_of_one),
    "broadcast_to": Sample(np.broadcast_to, broadcast_cases()),
    "flip": one(np.flip, axis=axes),
    "concatenate": Sample(lambda *x, axis: np.concatenate(x, axis), join_cases(new_axis=False)),
    "stack": Sample(lambda *x, axis: np.stack(x, axis), join_cases(new_axis=True)),
    "split": Sample(split, split_cases()),
    "pad": one(
        lambda x, pad_width, constant_values: np.pad(x, pad_width, constant_values=constant_values),
        pad_width=widths,
        constant_values=st.sampled_from([0, 1.5]),
    ),
    "zeros_like": one(
        lambda x, shape: np.zeros(x.shape if shape is None else shape), shape=st.none() | SHAPES
    ),
    # plumbing
    "identity": one(lambda x: x),
    "astype": one(lambda x, dtype: x.astype(dtype), dtype=st.just("float64")),
    "transfer": one(lambda x, source, target: x, source=st.just(NUMPY), target=st.just(NUMPY)),
    "checkpoint": Sample(
        lambda x: x * np.tanh(x),
        one(np.tanh).cases,
        function=lambda x: tg.checkpoint(lambda v: v * tg.tanh(v), x),
    ),
    # normalisation, pooling, resampling
    "batch_norm": Sample(batch_norm, batch_norm_cases(), examples=8),
    "max_pool2d": Sample(max_pool2d, max_pool_cases(), examples=10),
    "max_pool2d_winners": Sample(max_pool2d_winners, max_pool_cases()),
    "take_winners": Sample(take_winners, winners_cases(put=False), examples=10),
    "put_winners": Sample(transpose_of(take_winners), winners_cases(put=True), examples=10),
    "avg_pool2d": Sample(avg_pool2d, avg_pool_cases(gradient=False), examples=10),
    "avg_pool2d_gradient": Sample(transpose_of(avg_pool2d), avg_pool_cases(gradient=True), examples=10),
    "interpolate": Sample(interpolate, interpolate_cases(gradient=False), examples=10),
    "interpolate_gradient": Sample(transpose_of(interpolate), interpolate_cases(gradient=True), examples=10),
    # convolution
    "conv2d": Sample(conv2d, convolution_cases("xw")),
    "conv2d_input": Sample(conv2d_input, convolution_cases("yw")),
    "conv2d_weight": Sample(conv2d_weight, convolution_cases("xy")),
    # sequences
    "rnn": Sample(rnn, sequence_cases(1, 1, nonlinearity=st.sampled_from(["tanh", "relu"])), examples=8),
    "lstm": Sample(lstm, sequence_cases(4, 2), examples=5),
    "gru": Sample(gru, sequence_cases(3, 1), examples=5),
    "language_model": Sample(language_model, language_model_cases(), examples=6),
}
