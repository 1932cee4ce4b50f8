"""`Tensor`, the handle that users hold, and `apply`, through which every op goes.

`apply` is the heart of the forward pass: it takes the raw arrays out of the tensors, computes the
result, and, if any input needs a gradient, makes the `Node` that the backward walk (walk.py) will visit.
The operators and methods of `Tensor` are attached from the op table in ops/methods.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BackendError, DtypeError, GraphError, IndexingError, ShapeError, TinygradError
from . import annotate
from .backend import Backend, get_backend, library_of
from .node import Node, Shaped, mode, writes
from .op import TABLE, Op

if TYPE_CHECKING:
    from .walk import HookHandle

DEFAULT_DTYPE = np.dtype(np.float32)


class _Nothing(dict):
    """n -> a tuple of n times None, made once: what is kept of n inputs whose values nobody needs."""

    def __missing__(self, n: int) -> tuple[None, ...]:
        self[n] = nothing = (None,) * n
        return nothing


_NOTHING = _Nothing()
_NO_PARAMS: dict[str, Any] = {}


class Tensor:
    """An array, and (where a gradient is needed) its place in the graph.

    array    the raw array of the backend
    node     the Node that made it, or a leaf's own node; None where no gradient is needed
    output   which of the node's results it is
    backend  the array library it lives in
    """

    __slots__ = ("__weakref__", "array", "backend", "node", "output")
    __array_priority__ = 1000  # np.float32(2) * tensor asks the tensor first

    def __init__(self, array: Any, node: Node | None, output: int, backend: Backend) -> None:
        self.array = array
        self.node = node
        self.output = output
        self.backend = backend

    # --- what it is ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def size(self) -> int:
        return self.array.size

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def is_leaf(self) -> bool:
        """True unless an op recorded in the graph made it."""
        return self.node is None or self.node.op is None

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.node is None:
            self.node = leaf_node(self.array, self.backend)
        elif not value and self.node is not None:
            if not self.is_leaf:
                raise GraphError(
                    "requires_grad can be switched off for leaves only; use detach() for a tensor that "
                    f"{self.node.op.name} made"  # type: ignore[union-attr]
                )
            self.node = None

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient: of a leaf, or of any tensor after retain_grad(). None before
        backward(), and for a tensor that is no leaf and was not told to retain it."""
        node = self.node
        if node is None:
            return None
        if node.op is None:
            return node.grad
        return None if node.listeners is None else node.listeners.retained.get(self.output)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is None and self.node is None:
            return
        if self.node is None or self.node.op is not None:
            raise GraphError("grad can be set on leaves that require a gradient only")
        if value is not None and (not isinstance(value, Tensor) or value.backend is not self.backend):
            raise DtypeError(
                f"a gradient is a tensor in {self.backend.name} (tg.tensor makes one), not {value!r}"
            )
        if value is not None and (value.shape != self.shape or value.dtype != self.dtype):
            raise ShapeError(
                f"the gradient of a {self.dtype} tensor of shape {self.shape} cannot be "
                f"{value.dtype} of shape {value.shape}"
            )
        self.node.grad = value

    def __repr__(self) -> str:
        values = np.array2string(self.backend.to_host(self.array), separator=", ", prefix="tensor(")
        notes = [] if self.dtype in (np.float32, np.int64, np.bool_) else [f"dtype={self.dtype}"]
        if self.size == 0:
            notes.append(f"shape={self.shape}")
        if self.backend.name != "numpy":
            notes.append(f"backend={self.backend.name!r}")
        if self.node is not None:
            notes.append("requires_grad=True" if self.node.op is None else f"op={self.node.op.name!r}")
        return f"tensor({', '.join([values, *notes])})"

    # --- out of the graph, into Python and NumPy -------------------------------------------------

    def numpy(self) -> np.ndarray:
        """A copy in host memory, cut off from the graph."""
        return self.backend.to_host(self.array)

    def item(self) -> float | int | bool:
        """The value of a tensor of one element as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item() needs one element; this tensor has shape {self.shape}")
        return self.array.item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self.numpy().tolist()

    def detach(self) -> Tensor:
        """The same array without its history. It is shared, not copied."""
        return Tensor(self.array, None, 0, self.backend)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DtypeError(f"only an integer tensor can be an index, not {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(
                f"the truth of a tensor of shape {self.shape} is ambiguous; compare single elements, "
                "or use sum() of the comparison"
            )
        return bool(self.item())

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("a tensor of no dimensions has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __hash__(self) -> int:  # == compares elements, so identity serves
        return id(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.node is not None:
            raise GraphError(
                "this tensor requires a gradient, and an array would lose it; use tensor.detach().numpy()"
            )
        if self.backend.name != "numpy":
            raise BackendError(f"this tensor lives in {self.backend.name}; use tensor.numpy()")
        return self.numpy().astype(dtype or self.dtype, copy=False)

    # --- backward --------------------------------------------------------------------------------

    def backward(self, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Add d(self)/d(leaf) to the `grad` of every leaf that self depends on.

        gradient: the upstream gradient, of self's shape; needed unless self has one element.
        retain_graph: keep what the graph saved, so that it can be walked again.
        create_graph: record the derivative itself, for derivatives of it (implies retain_graph).

        Raises GraphError if self has no graph, or the graph was walked before and so was freed.
        """
        from .walk import backward

        backward(self, gradient, retain_graph, create_graph)

    def retain_grad(self) -> None:
        """Keep this tensor's gradient in `.grad` though it is no leaf."""
        if self.node is None:
            raise GraphError("retain_grad() on a tensor that needs no gradient")
        if self.node.op is not None:
            self.node.listened().retained.setdefault(self.output, None)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> HookHandle:
        """Call `hook(gradient)` when this tensor's gradient is complete, before it travels on.

        What the hook returns, unless None, replaces the gradient. The handle's remove() takes it away.
        """
        from .walk import HookHandle

        if self.node is None:
            raise GraphError("register_hook() on a tensor that needs no gradient")
        return HookHandle(self.node, self.output, hook)

    # --- in-place writing, which only arrays outside the graph allow ------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        self._refuse_write("writing into it")
        array = value.array if isinstance(value, Tensor) else value
        if isinstance(value, Tensor) and value.backend is not self.backend:
            raise BackendError(f"cannot write {value.backend.name} values into {self.backend.name}")
        if isinstance(value, Tensor) and value.node is not None and mode.recording:
            raise GraphError(
                "the value written requires a gradient, which writing in place would lose; "
                "build the result with tg.where, tg.concatenate or tg.stack instead"
            )
        place = raw_index(self, index)
        try:
            self.array[place] = array
        except (ValueError, IndexError, TypeError, OverflowError) as error:
            kind = ShapeError if isinstance(error, (ValueError, IndexError)) else DtypeError
            raise kind(f"writing into a {self.dtype} tensor of shape {self.shape}: {error}") from error
        writes.note(self.array)

    def _refuse_write(self, what: str) -> None:
        if self.node is not None and self.node.op is not None:
            raise GraphError(
                f"this tensor was made by {self.node.op.name} and the graph needs its value: {what} is "
                "refused; build a new tensor with tg.where, tg.concatenate or arithmetic instead"
            )
        if self.node is not None and mode.recording:
            raise GraphError(
                f"this leaf requires a gradient: {what} is refused; do it inside tg.no_grad(), or build "
                "a new tensor with tg.where or arithmetic"
            )

    def __deepcopy__(self, memo: dict) -> Tensor:
        if not self.is_leaf:
            raise GraphError("only leaves can be copied; use detach() for a tensor that an op made")
        twin = self.__class__.__new__(self.__class__)
        array = self.array.copy()
        node = None if self.node is None else leaf_node(array, self.backend)
        Tensor.__init__(twin, array, node, 0, self.backend)
        return twin

    def copy_(self, values: Any) -> Tensor:
        """Overwrite the elements in place (inside no_grad() for a leaf that requires a gradient)."""
        self[...] = values
        return self

    # --- NumPy's functions on tensors -------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        op = _numpy_names().get(ufunc.__name__)
        if method != "__call__" or kwargs or op is None:
            what = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
            hint = (
                f"use tg.{op.name} without {', '.join(kwargs) or method}" if op else _instead(ufunc.__name__)
            )
            raise DtypeError(f"{what} does not work on tensors; {hint}")
        return apply(op, inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        import tinygrad_rnn

        name = function.__name__
        if name in ("shape", "ndim", "size") and len(args) == 1 and not kwargs:
            return getattr(args[0], name)
        ours = getattr(tinygrad_rnn, {"amax": "max", "amin": "min"}.get(name, name), None)
        module = getattr(function, "__module__", "numpy")
        if module not in ("numpy", "numpy.linalg") or ours is None or not callable(ours):
            raise DtypeError(f"{module}.{name} does not work on tensors; {_instead(name)}")
        try:
            return ours(*args, **kwargs)
        except TypeError as error:
            raise DtypeError(f"np.{name} on a tensor is tg.{name}: {error}") from error

    # --- for type checkers; ops/methods.py attaches the real ones from the op table ----------------

    if TYPE_CHECKING:

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def to(self, backend: str | Backend) -> Tensor: ...
        def astype(self, dtype: Any) -> Tensor: ...
        def abs(self) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def expm1(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def log1p(self) -> Tensor: ...
        def sqrt(self) -> Tensor: ...
        def sin(self) -> Tensor: ...
        def cos(self) -> Tensor: ...
        def tanh(self) -> Tensor: ...
        def sigmoid(self) -> Tensor: ...
        def relu(self) -> Tensor: ...
        def clip(self, a_min: Any = None, a_max: Any = None) -> Tensor: ...
        def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def var(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Tensor: ...
        def max(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def min(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def prod(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def argmax(self, axis: int | None = None) -> Tensor: ...
        def argmin(self, axis: int | None = None) -> Tensor: ...
        def logsumexp(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def softmax(self, axis: int = -1) -> Tensor: ...
        def log_softmax(self, axis: int = -1) -> Tensor: ...
        def cumsum(self, axis: int | None = None) -> Tensor: ...
        def norm(self, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: Any) -> Tensor: ...
        @property
        def T(self) -> Tensor: ...  # noqa: N802 - NumPy's name
        def swapaxes(self, axis1: int, axis2: int) -> Tensor: ...
        def squeeze(self, axis: Any = None) -> Tensor: ...
        def split(self, indices_or_sections: Any, axis: int = 0) -> tuple[Tensor, ...]: ...
        def take(self, indices: Any, axis: int | None = None) -> Tensor: ...


_COUNTERPARTS = {  # what to write in place of NumPy functions that have no op of the same name
    "square": "x * x",
    "reciprocal": "1 / x",
    "log2": "tg.log(x) / math.log(2)",
    "log10": "tg.log(x) / math.log(10)",
    "exp2": "2 ** x",
    "dot": "tg.matmul",
    "inner": "tg.einsum",
    "outer": "tg.einsum",
    "tensordot": "tg.einsum",
    "std": "tg.sqrt(tg.var(x))",
    "average": "tg.mean",
    "ravel": "x.reshape(-1)",
    "vstack": "tg.concatenate",
    "hstack": "tg.concatenate",
    "array_split": "tg.split",
    "isnan": "x != x",
    "ones_like": "tg.ones(x.shape)",
    "full_like": "tg.full(x.shape, value)",
}


def _instead(numpy_name: str) -> str:
    if numpy_name in _COUNTERPARTS:
        return f"use {_COUNTERPARTS[numpy_name]}"
    return "use tg's own functions, or leave the graph with tensor.detach().numpy()"


def _numpy_names() -> dict[str, Op]:
    return {op.numpy: op for op in TABLE.values() if op.numpy}


def raw_index(tensor: Tensor, index: Any) -> Any:
    """An index with tensors, lists and NumPy arrays in it turned into raw arrays of tensor's backend.

    Arrays are copied: the graph keeps the index, and the user may reuse a buffer.
    """
    if isinstance(index, tuple):
        return tuple(raw_index(tensor, part) for part in index)
    if isinstance(index, Tensor):
        if index.backend is not tensor.backend:
            raise BackendError(
                f"an index in {index.backend.name} for a tensor in {tensor.backend.name}; move one"
            )
        if index.dtype.kind not in "iub":
            raise DtypeError(f"an index must be of integers or booleans, not {index.dtype}")
        return index.array.copy()
    if isinstance(index, (list, np.ndarray)):
        array = np.asarray(index)
        if array.size == 0 and isinstance(index, list):
            array = array.astype(np.int64)
        if array.dtype.kind not in "iub":
            raise DtypeError(f"an index must be of integers or booleans, not {array.dtype}")
        return tensor.backend.from_host(array)
    if isinstance(index, np.generic):
        return index.item()
    return index


# --- making tensors -------------------------------------------------------------------------------


def leaf_node(array: Any, backend: Backend) -> Node:
    """The node of a leaf that requires a gradient."""
    if array.dtype.kind != "f":
        raise DtypeError(
            f"a tensor of {array.dtype} cannot require a gradient; give it a float dtype, for example "
            "dtype='float32'"
        )
    return Node(None, (), (), None, None, array.shape, array.dtype, backend)


def tensor(
    data: Any,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: str | Backend | None = None,
) -> Tensor:
    """A new leaf holding a copy of `data`: a number, nested lists, an array, or another tensor.

    Python floats become float32, integers int64; arrays keep their dtype. Unless `backend` says otherwise,
    tensors and CuPy arrays stay where they are, and everything else goes to the default backend.
    """
    raw = data.array if isinstance(data, Tensor) else data
    library = library_of(raw)
    stays = isinstance(data, Tensor) or (library is not None and library.name != "numpy")
    target = library if stays and library is not None and backend is None else get_backend(backend)
    if library is target:
        array = target.xp.array(raw, order="C")
    else:
        array = target.from_host(_host_array(raw, dtype) if library is None else library.to_host(raw))
    wanted = np.dtype(array.dtype if dtype is None else dtype).newbyteorder("=")
    _check_kind(array.dtype)
    _check_kind(wanted)
    if array.dtype != wanted:
        array = array.astype(wanted)
    return Tensor(array, leaf_node(array, target) if requires_grad else None, 0, target)


def _check_kind(dtype: Any) -> None:
    if dtype.kind not in "fiub":
        raise DtypeError(f"data of type {dtype} makes no tensor; numbers and booleans do")


def _host_array(data: Any, dtype: Any) -> np.ndarray:
    """Numbers and nested lists as a NumPy array, Python's floats in the default dtype unless one is given."""
    if isinstance(data, (list, tuple)) and _holds_tensors(data):
        raise DtypeError("a list of tensors is not data; join them with tg.stack or tg.concatenate")
    try:
        host = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"nested lists of unequal length make no tensor ({error})") from None
    _check_kind(host.dtype)
    narrow = dtype is None and host.dtype == np.float64 and not _holds_arrays(data)
    return host.astype(DEFAULT_DTYPE) if narrow else host


def _holds_tensors(data: Any) -> bool:
    return any(
        isinstance(item, Tensor) or (isinstance(item, (list, tuple)) and _holds_tensors(item))
        for item in data
    )


def _holds_arrays(data: Any) -> bool:
    if isinstance(data, (list, tuple)):
        return any(_holds_arrays(item) for item in data)
    return isinstance(data, (np.ndarray, np.generic))


# --- applying ops ---------------------------------------------------------------------------------


def apply(op: Op, inputs: tuple, params: dict[str, Any] = _NO_PARAMS) -> Any:
    """Compute `op` on tensors and Python numbers, and record it if a gradient will be needed.

    Returns a Tensor, or a tuple of them for an op with several results.
    """
    arrays: list[Any] = []
    parents: list[Node | None] = []
    backend: Any = None
    dtype: Any = None
    tracked = used = mixed = odd = False
    for x in inputs:
        if isinstance(x, Tensor):
            array = x.array
            arrays.append(array)
            if x.backend is not backend:
                if backend is None:
                    backend = x.backend
                else:
                    raise _mixed_backends(op, inputs)
            if array.dtype is not dtype:
                if dtype is None:
                    dtype = array.dtype
                else:
                    mixed = True
            node = x.node
            parents.append(node)
            if node is not None:
                tracked = True
                if x.output:
                    used = True
        elif x is None or x.__class__ is float or x.__class__ is int:
            arrays.append(x)
            parents.append(None)
            odd = True
        else:
            return apply(op, _as_tensors(op, inputs), params)
    if mixed or odd or (op.floating and dtype.kind != "f"):
        if backend is None:
            return apply(op, _as_tensors(op, inputs, numbers=True), params)
        better = _promoted(op, inputs)
        if better is not None:
            return apply(op, better, params)

    recording = tracked and op.differentiable and mode.recording
    residuals = None
    try:
        if op.has_residuals:
            out, residuals = backend.forward[op](*arrays, keep=recording, **params)
        elif params:
            out = backend.forward[op](*arrays, **params)
            if op.moves:
                backend = params["target"]
        else:
            out = backend.forward[op](*arrays)
    except (ValueError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise _explained(op, inputs, params, error) from error

    if out.__class__ is not backend.array_type:
        if out.__class__ is tuple or out.__class__ is list:
            used_by = _outputs_used(inputs) if used else None
            return _several(op, inputs, arrays, parents, used_by, params, out, residuals, recording, backend)
        out = backend.xp.asarray(out)
    if not recording:
        result = Tensor(out, None, 0, backend)
        if mode.watching:
            annotate.after_forward(op, inputs, params, out, None)
        return result

    node = Node(
        op,
        parents,
        arrays if op.saves_all else _NOTHING[len(arrays)] if op.saves_none else _saved(op, arrays),
        out if op.saves_out else None,
        params,
        out.shape,
        out.dtype,
        backend,
    )
    if used:
        node.outputs_used = _outputs_used(inputs)
    if residuals is not None:
        node.residuals = residuals
    if mode.watching:
        annotate.after_forward(op, inputs, params, out, node)
    return Tensor(out, node, 0, backend)


def _several(
    op: Op,
    inputs: tuple,
    arrays: list,
    parents: list,
    outputs_used: tuple[int, ...] | None,
    params: dict,
    outs: Any,
    residuals: Any,
    recording: bool,
    backend: Backend,
) -> tuple[Tensor, ...]:
    """The end of apply() for an op with several results: one node, a tensor for each output number."""
    node = None
    outs = tuple([backend.xp.asarray(out) for out in outs])
    if recording:
        node = Node(
            op,
            parents,
            _saved(op, arrays),
            outs if op.saves_out else None,
            params,
            tuple([out.shape for out in outs]),
            tuple([out.dtype for out in outs]),
            backend,
        )
        node.outputs = len(outs)
        node.outputs_used = outputs_used
        node.residuals = residuals
    if mode.watching:
        annotate.after_forward(op, inputs, params, outs, node)
    return tuple([Tensor(out, node, number, backend) for number, out in enumerate(outs)])


def _outputs_used(inputs: tuple) -> tuple[int, ...]:
    return tuple(x.output if isinstance(x, Tensor) else 0 for x in inputs)


def _saved(op: Op, arrays: list) -> tuple:
    """What the node keeps of each input: its value, its shape, or nothing."""
    if op.saves_all:
        return tuple(arrays)
    if op.input_names is None:  # any number of inputs: all are treated alike
        if not op.shapes:
            return (None,) * len(arrays)
        return tuple(Shaped(a.shape, a.dtype) for a in arrays)
    kept = []
    for array, keep in zip(arrays, op.keep or (), strict=False):
        if keep == "value" or not hasattr(array, "shape"):
            kept.append(array)
        else:
            kept.append(Shaped(array.shape, array.dtype) if keep == "shape" else None)
    return tuple(kept) or (None,) * len(arrays)


def _as_tensors(op: Op, inputs: tuple, numbers: bool = False) -> tuple:
    """Inputs with raw arrays, NumPy scalars, lists and booleans made tensors (copied: the graph may
    keep them), and also Python numbers if asked for."""
    backend = next((x.backend for x in inputs if isinstance(x, Tensor)), None)
    converted = []
    for x in inputs:
        if x is None or isinstance(x, Tensor) or (x.__class__ in (float, int) and not numbers):
            converted.append(x)
            continue
        library = None if isinstance(x, np.generic) else library_of(x)
        if backend is not None and library is not None and library is not backend:
            raise BackendError(
                f"{op.name}: a {library.name} array and a tensor in {backend.name} do not mix; "
                f"use tg.tensor(array, backend={backend.name!r})"
            )
        try:
            converted.append(tensor(x, backend=backend))
        except DtypeError as error:
            raise DtypeError(f"{op.name}: {error}") from None
    if numbers and any(x is None for x in converted):
        raise DtypeError(f"{op.name}: None is no tensor")
    return tuple(converted)


def _promoted(op: Op, inputs: tuple) -> tuple | None:
    """Inputs cast to a common dtype where the op needs it; None if nothing is to be done.

    NumPy's promotion, except that an integer meeting a float takes the float's dtype (float32 for a
    Python float, or a function that is not defined on integers), as in PyTorch.
    """
    values = [  # an input without a derivative beside others that have one (a condition) is no number
        x for i, x in enumerate(inputs) if isinstance(x, Tensor) and (not op.vjps or op.vjps[i] is not None)
    ]
    if not (op.promotes or op.floating):
        return None
    if not values:  # numbers only, beside a condition: what they become alone
        return _as_tensors(op, inputs, numbers=True)
    dtypes = [x.dtype for x in values]
    common = np.result_type(*([d for d in dtypes if d.kind == "f"] or dtypes))
    if common.kind != "f" and (op.floating or any(x.__class__ is float for x in inputs)):
        common = DEFAULT_DTYPE
    wrong = {id(x) for x in values if x.dtype != common}
    cast = TABLE["astype"]
    if not wrong:
        return None
    return tuple(apply(cast, (x,), {"dtype": common}) if id(x) in wrong else x for x in inputs)


def _named(op: Op, inputs: tuple) -> list[tuple[Any, str]]:
    names = op.input_names or ("",) * len(inputs)
    return list(zip(inputs, names, strict=True))


def _describe(inputs: tuple) -> str:
    return ", ".join(f"{x.dtype}{list(x.shape)}" if isinstance(x, Tensor) else repr(x) for x in inputs)


def _mixed_backends(op: Op, inputs: tuple) -> BackendError:
    where = ", ".join(
        f"{name or f'operand {i}'} {list(x.shape)} in {x.backend.name}"
        for i, (x, name) in enumerate(_named(op, inputs))
        if isinstance(x, Tensor)
    )
    return BackendError(f"{op.name}: operands live in different backends ({where}); use .to(...) on one")


def _explained(op: Op, inputs: tuple, params: dict, error: Exception) -> Exception:
    """An array library's complaint with the op and the shapes that it was about."""
    if isinstance(error, (TinygradError, MemoryError)):
        return error
    shown = "".join(f", {k}={v!r}" for k, v in params.items() if not hasattr(v, "shape"))
    kind: type[TinygradError] = IndexingError if isinstance(error, IndexError) else ShapeError
    if isinstance(error, (TypeError, OverflowError)):
        kind = DtypeError
    return kind(f"{op.name}({_describe(inputs)}{shown}): {error}")


# --- whether to record ----------------------------------------------------------------------------


class _Recording:
    """A context manager, and a decorator, that switches the recording of the graph."""

    value: bool

    def __init__(self) -> None:
        self._before: list[bool] = []  # one for each time that it is entered

    def __enter__(self) -> None:
        self._before.append(mode.recording)
        mode.recording = self.value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        mode.recording = self._before.pop()

    def __call__(self, function: Callable) -> Callable:
        import functools

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapped


class no_grad(_Recording):  # noqa: N801 - PyTorch's name
    """Record nothing: `with tg.no_grad():`, or `@tg.no_grad()` on a function."""

    value = False


class enable_grad(_Recording):  # noqa: N801 - PyTorch's name
    """Record again inside a no_grad()."""

    value = True
