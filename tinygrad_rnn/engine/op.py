"""The op record, the table of all ops, and the decorators that fill it.

An op says all there is to say about itself: how it computes its result on raw arrays, what it keeps
for the backward pass, whether it broadcasts, and its vector-Jacobian products (VJPs). The ops
themselves are in `ops/`, one file a family; here is only what they have in common.

A VJP is written once, as `vjp(F, g, out, *inputs, **params)`, and used in two worlds:

- in an ordinary backward pass `F` is an `ArrayOps`: every op as a function of raw arrays, and nothing
  is recorded;
- with `create_graph=True` `F` is `TensorOps` and `g`, `out`, `inputs` are tensors, so the derivative is
  itself recorded and can be differentiated again.

That is why a VJP never writes into its arguments and uses only operators and ops of the table.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from ..errors import DtypeError, ShapeError, TinygradError

if TYPE_CHECKING:
    from .backend import Backend

P = ParamSpec("P")


@dataclass(frozen=True, eq=False, repr=False)
class Op:
    """One differentiable (or constant) operation.

    name        what it is called in the table, in `F` and in error messages
    forward     `forward(xp, *inputs, **params)` on raw arrays; a string names the array library's own
                function, which is then called without any detour
    input_names names of the leading arguments, which are tensors; None: any number of them
    params      the arguments after them, with their defaults
    vjps        one VJP an input; None for an input that has no derivative
    joint       or one VJP for all: `joint(F, g, out, *inputs, needs, **params)` gives a tuple, with
                anything at the places where `needs` is False
    saves       names of the inputs whose values the VJPs read; "out" for the result; "*" for all inputs
    shapes      names of the inputs of which they read only shape and dtype; "*" for all inputs.
                Anything else arrives as None
    broadcasts  gradients are summed back to the inputs' shapes by the engine
    promotes    inputs of different dtypes are cast to the common one by the engine, as nodes of the graph
    floating    integer inputs are cast to the default float first
    needs_backend  forward wants the Backend instead of its array namespace
    moves       the result lives in another backend, the one given as `target`
    has_residuals  forward takes `keep=` and gives `(result, residuals)`: what only its own VJP reads,
                handed to it as `residuals=`
    gives_away  the joint VJP's arrays are new at every call and held by nobody else: the engine may keep them
    reference   `reference(F, *inputs, **params)`: the same function in ordinary ops; what higher
                derivatives differentiate and what anomaly detection replays
    numpy       name of the NumPy function that this op stands for, if it has one
    source      "built-in", or "user" for what `custom_op` added
    """

    name: str
    forward: Callable | str
    input_names: tuple[str, ...] | None
    params: dict[str, Any]
    vjps: tuple[Callable | None, ...] = ()
    joint: Callable | None = None
    saves: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    broadcasts: bool = False
    promotes: bool = False
    floating: bool = False
    needs_backend: bool = False
    moves: bool = False
    has_residuals: bool = False
    gives_away: bool = False
    reference: Callable | None = None
    numpy: str | None = None
    source: str = "built-in"
    doc: str = ""

    def __post_init__(self) -> None:
        # Worked out once, so that the fast path of apply() has only to look.
        put = object.__setattr__
        put(self, "differentiable", bool(self.vjps) or self.joint is not None)
        put(self, "saves_out", "out" in self.saves)
        put(self, "saves_all", "*" in self.saves)
        put(self, "saves_none", not (set(self.saves) - {"out"}) and not self.shapes)
        if self.input_names is not None and not self.saves_all and not self.saves_none:
            put(self, "keep", tuple(_keep(self, name) for name in self.input_names))

    differentiable: bool = False
    saves_out: bool = False
    saves_all: bool = False
    saves_none: bool = False
    keep: tuple[str, ...] | None = None  # "value", "shape" or "nothing" an input

    def bind(self, backend: Backend) -> Callable:
        """The forward function on one backend."""
        if self.name in backend.fused:
            return backend.fused[self.name]
        if isinstance(self.forward, str):
            return getattr(backend.xp, self.forward)
        return functools.partial(self.forward, backend if self.needs_backend else backend.xp)

    def derivative(self) -> list[str]:
        """What each VJP computes, as source text: the documentation cannot differ from the code."""
        if self.joint is not None:
            return [_source(self.joint)]
        names = self.input_names or ()
        return [
            f"d{name} = {_source(vjp)}" if vjp is not None else f"d{name}: none"
            for name, vjp in zip(names, self.vjps, strict=True)
        ]

    def __repr__(self) -> str:
        inputs = self.input_names if self.input_names is not None else ("*inputs",)
        empty = inspect.Parameter.empty
        options = [k if v is empty else f"{k}={v!r}" for k, v in self.params.items()]
        lines = [f"{self.name}({', '.join([*inputs, *options])})"]
        if self.saves:
            lines.append(f"saves {', '.join(self.saves)}")
        lines += self.derivative() if self.differentiable else ["has no derivative"]
        return "\n".join(lines).replace("\n", "\n  ")


def _keep(op: Op, name: str) -> str:
    if name in op.saves:
        return "value"
    return "shape" if name in op.shapes or "*" in op.shapes else "nothing"


def _source(vjp: Callable) -> str:
    """What a VJP computes: the body of a lambda, the docstring (a formula) of a named function."""
    vjp = inspect.unwrap(vjp)
    if vjp.__name__ != "<lambda>":
        return inspect.getdoc(vjp) or f"{vjp.__name__}(...)"
    code = vjp.__code__
    places = [(line, first) for line, _, first, last in code.co_positions() if first != last]
    around = [
        node.body
        for node in ast.walk(_parsed(code.co_filename))
        if isinstance(node, ast.Lambda) and places and _starts(node.body) <= places[0] < _ends(node.body)
    ]
    return ast.unparse(max(around, key=_starts)) if around else "(its source is not at hand)"


def _starts(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _ends(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0


@functools.lru_cache(maxsize=32)
def _parsed(filename: str) -> ast.AST:
    text = "".join(linecache.getlines(filename))  # also of notebook cells
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


TABLE: dict[str, Op] = {}
"""Every op by its name. What is not here does not exist."""


class ArrayOps:
    """`F` of an ordinary backward pass: every op as a function of one backend's raw arrays."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __getattr__(self, name: str) -> Callable:
        op = _look_up(name)
        forward = self.backend.forward[op]
        function: Any
        if op.has_residuals:

            def without_residuals(*inputs: Any, **params: Any) -> Any:
                return forward(*inputs, keep=False, **params)[0]

            function = without_residuals
        elif op.input_names is None:

            def of_sequence(sequence: Any, *values: Any, **params: Any) -> Any:
                return forward(*sequence, **dict(zip(op.params, values, strict=False)), **params)

            function = of_sequence
        else:
            function = forward
        if op.source == "built-in":  # another may be replaced
            setattr(self, name, function)
        return function


class TensorOps:
    """`F` under create_graph: every op as a recorded function of tensors."""

    def __getattr__(self, name: str) -> Callable:
        op = _look_up(name)
        function = public_function(op)
        if op.source == "built-in":  # another may be replaced
            setattr(self, name, function)
        return function


def _look_up(name: str) -> Op:
    try:
        return TABLE[name]
    except KeyError:
        raise AttributeError(f"no op is called {name!r}") from None


TENSOR_OPS = TensorOps()


def add_to_table(op: Op) -> Op:
    """Enter an op. A user's op may be entered again (a notebook cell run twice), a built-in may not."""
    present = TABLE.get(op.name)
    if present is not None and present.source == "built-in":
        raise TinygradError(f"an op called {op.name!r} exists already; choose another name")
    if op.differentiable and op.joint is None and len(op.vjps) != len(op.input_names or ()):
        raise TinygradError(
            f"op {op.name!r} has {len(op.input_names or ())} inputs and {len(op.vjps)} VJPs; "
            "give one for each input, None where there is no derivative"
        )
    if op.has_residuals and op.reference is None:
        raise TinygradError(
            f"op {op.name!r} keeps residuals, which are functions of its inputs: higher derivatives need its "
            "reference= in ordinary ops"
        )
    unknown = {*op.saves, *op.shapes} - {"*", "out", *(op.input_names or ())}
    if unknown:
        raise TinygradError(f"op {op.name!r} saves {sorted(unknown)}, which are not inputs of it")
    TABLE[op.name] = op
    return op


def op(
    *vjps: Callable | None,
    inputs: int | None = 1,
    name: str | None = None,
    joint: Callable | None = None,
    saves: str = "",
    shapes: str = "",
    **traits: Any,
) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Any]]:
    """Decorate `forward(xp, *inputs, **params)`: enters the op, gives the function users call.

    `inputs` is the number of leading tensor arguments; None means that the first argument is a
    sequence of them (as in `concatenate`), which forward and VJPs receive spread out. `saves` and
    `shapes` are names separated by spaces. The rest is as in `Op`.
    """

    def decorate(forward: Callable[Concatenate[Any, P], Any]) -> Callable[P, Any]:
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        if traits.get("has_residuals"):
            parameters = [p for p in parameters if p.name != "keep"]
        leading = 1 if inputs is None else inputs
        names = tuple(p.name for p in parameters[:leading])
        record = add_to_table(
            Op(
                name=name or forward.__name__,
                forward=forward,
                input_names=None if inputs is None else names,
                params={p.name: p.default for p in parameters[leading:]},
                vjps=vjps,
                joint=joint,
                saves=tuple(saves.split()),
                shapes=tuple(shapes.split()),
                doc=inspect.getdoc(forward) or "",
                **traits,
            )
        )
        return public_function(record)

    return decorate


def ufunc(
    name: str,
    *vjps: Callable | None,
    doc: str,
    arguments: str,
    library: str | None = None,
    saves: str = "",
    **traits: Any,
) -> Callable[..., Any]:
    """Enter an element-wise op that array libraries have ready made, under the name `library`.

    One line an op: name, a VJP for each argument, what they read.
    """
    library = library or name
    several = len(arguments.split()) > 1
    record = Op(
        name=name,
        forward=library,
        input_names=tuple(arguments.split()),
        params={},
        vjps=vjps,
        saves=tuple(saves.split()),
        numpy=library,
        doc=doc,
        **{"broadcasts": several, "promotes": several, **traits},
    )
    return public_function(add_to_table(record))


def public_function(record: Op) -> Callable[..., Any]:
    """The function of tensors that users call: sorts inputs from parameters and applies the op."""
    from .tensor import apply

    function: Any
    names, params = record.input_names, record.params
    if names is None:

        def variadic(sequence: Any, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(sequence, (tuple, list)):
                raise TypeError(
                    f"{record.name}() takes a sequence of tensors first, not {type(sequence).__name__}"
                )
            if not sequence:
                raise ShapeError(f"{record.name}() of no tensors at all")
            return apply(record, tuple(sequence), _parameters(record, args, kwargs))

        function = variadic
    elif len(names) == 1 and not params:

        def unary(x: Any, /) -> Any:
            return apply(record, (x,))

        function = unary
    elif len(names) == 2 and not params:

        def binary(a: Any, b: Any, /) -> Any:
            return apply(record, (a, b))

        function = binary
    else:
        count = len(names)

        def general(*args: Any, **kwargs: Any) -> Any:
            if len(args) < count:  # inputs given by keyword
                missing = [n for n in names[len(args) :] if n not in kwargs]
                if missing:
                    raise TypeError(f"{record.name}() misses {', '.join(missing)}")
                args += tuple(kwargs.pop(n) for n in names[len(args) :])
            return apply(record, args[:count], _parameters(record, args[count:], kwargs))

        function = general
    function.__name__ = function.__qualname__ = record.name
    function.__doc__ = record.doc
    function.op = record
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    lead = inspect.Parameter.POSITIONAL_ONLY if names and len(names) < 3 and not params else kind
    arguments = [inspect.Parameter(n, lead) for n in names or ("inputs",)]
    arguments += [inspect.Parameter(n, kind, default=default) for n, default in params.items()]
    function.__signature__ = inspect.Signature(arguments)
    return function


def _parameters(record: Op, args: tuple, kwargs: dict) -> dict[str, Any]:
    """All parameters of a call by name, defaults filled in, so that VJPs can rely on them."""
    if len(args) > len(record.params):
        raise TypeError(
            f"{record.name}() takes at most {len(record.params)} parameters: "
            f"{', '.join(record.params) or 'none'}"
        )
    given = dict(zip(record.params, args, strict=False))
    for key, value in kwargs.items():
        if key not in record.params or key in given:
            known = ", ".join(record.params) or "none"
            raise TypeError(f"{record.name}() got {key}= wrongly; its parameters are: {known}")
        given[key] = value
    merged = {**record.params, **given}
    for key, value in merged.items():
        if value is inspect.Parameter.empty:
            raise TypeError(f"{record.name}() misses {key}=")
        if hasattr(value, "node"):
            raise DtypeError(f"{record.name}(): {key} is a plain value, not a tensor, and gets no gradient")
        if isinstance(value, list):  # the graph keeps it, and the caller may change it
            merged[key] = _frozen(value)
    return merged


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value


def custom_op(
    *vjps: Callable | None,
    saves: str = "*",
    **traits: Any,
) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Any]]:
    """Add an op of your own to the table.

    >>> @tg.custom_op(lambda F, g, out, x: g * (out + F.sigmoid(x) * (1 - out)), saves="x out")
    ... def swish(xp, x):
    ...     return x / (1 + xp.exp(-x))

    The decorated function computes the result on raw arrays of the namespace `xp` (NumPy or CuPy).
    Each VJP gives the gradient of one tensor argument: `vjp(F, g, out, *inputs, **params)`, where `g`
    is the gradient of the result. Written with operators and `F`'s ops alone, it serves for derivatives
    of any order. `inputs=2` for two tensor arguments; `saves` names what the VJPs read ("out" is the
    result); see `Op` for the other traits. Check it with `tg.gradcheck(fn, inputs, order=2)`.

    Raises TinygradError if the name belongs to a built-in op or the VJPs do not match the inputs.
    """
    traits.setdefault("inputs", max(1, len(vjps)))
    return op(*vjps, saves=saves, source="user", **traits)
