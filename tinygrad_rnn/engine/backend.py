"""Array libraries: one frozen record each. The rest of the engine never asks which one it runs on.

`numpy` is always there. `cupy` is imported when it is first asked for. A test adds a third one that
refuses everything CuPy would refuse, so that the switch stays honest on a machine without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BackendError

if TYPE_CHECKING:
    from .op import ArrayOps, Op


class _Forwards(dict):
    """Op -> its forward function bound to one backend, made when first asked for."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __missing__(self, op: Op) -> Callable:
        self[op] = bound = op.bind(self.backend)
        return bound


@dataclass(frozen=True, eq=False)
class Backend:
    """What the engine needs of an array library.

    xp           its array namespace (`numpy`, `cupy`)
    array_type   the class of its arrays
    from_host    NumPy array -> its array
    to_host      its array -> NumPy array, always a copy
    scatter_add  (out, index, values): `out[index] += values` in place, repeated indices accumulate
    fused        op name -> forward function that replaces the generic one on this backend
    """

    name: str
    xp: Any
    array_type: Any
    from_host: Callable[[np.ndarray], Any]
    to_host: Callable[[Any], np.ndarray]
    scatter_add: Callable[[Any, Any, Any], None]
    fused: Mapping[str, Callable] = field(default_factory=dict)
    forward: dict[Op, Callable] = field(init=False)  # each op's forward function, bound to this backend
    F: ArrayOps = field(init=False)  # the ops on raw arrays, as VJPs see them

    def __repr__(self) -> str:
        return f"<Backend {self.name}>"

    def __deepcopy__(self, memo: dict) -> Backend:
        return self

    def __post_init__(self) -> None:
        # Plain attributes, since every op reads them.
        from .op import ArrayOps

        object.__setattr__(self, "forward", _Forwards(self))
        object.__setattr__(self, "F", ArrayOps(self))


def _numpy_scatter_add(out: np.ndarray, index: Any, values: np.ndarray) -> None:
    # The one case that matters for speed is the gradient of an embedding: rows picked by integers.
    # Sorting the picks and summing runs of equal ones is several times faster than np.add.at.
    rows = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if isinstance(rows, np.ndarray) and rows.dtype.kind in "iu" and rows.size:
        flat = rows.reshape(-1).astype(np.intp)  # an index of 8 bits could not hold the number of rows
        flat = flat % out.shape[0] if out.shape[0] else flat
        values = np.broadcast_to(values, rows.shape + out.shape[1:])
        values = values.reshape(flat.size, *out.shape[1:])
        order = np.argsort(flat, kind="stable")
        flat = flat[order]
        starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
        out[flat[starts]] += np.add.reduceat(values[order], starts, axis=0)
    else:
        np.add.at(out, index, values)


NUMPY = Backend(
    name="numpy",
    xp=np,
    array_type=np.ndarray,
    from_host=np.array,
    to_host=np.array,
    scatter_add=_numpy_scatter_add,
)


def _cupy() -> Backend:
    try:
        import cupy  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise BackendError(
            "the cupy backend needs CuPy: pip install cupy-cuda13x for CUDA 13, cupy-cuda12x for CUDA 12"
        ) from None
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f"the cupy backend finds no usable GPU: {error}") from None
    if not devices:
        raise BackendError("the cupy backend finds no GPU; use the numpy backend")
    return Backend(
        name="cupy",
        xp=cupy,
        array_type=cupy.ndarray,
        from_host=cupy.array,
        to_host=cupy.asnumpy,
        scatter_add=cupy.add.at,
    )


_backends: dict[str, Backend] = {"numpy": NUMPY}
_makers: dict[str, Callable[[], Backend]] = {"cupy": _cupy}


class _Default:
    backend = NUMPY


_default = _Default()


def register_backend(backend: Backend) -> None:
    """Make a further array library known by its name."""
    _backends[backend.name] = backend


def get_backend(name: str | Backend | None = None) -> Backend:
    """The backend of that name; the default one for None.

    Raises BackendError if there is none of that name or its library or device is missing.
    """
    if name is None:
        return _default.backend
    if isinstance(name, Backend):
        return name
    if name not in _backends:
        if name not in _makers:
            known = ", ".join(sorted({*_backends, *_makers}))
            raise BackendError(f"no backend is called {name!r}; there are {known}")
        _backends[name] = _makers[name]()
    return _backends[name]


def library_of(array: Any) -> Backend | None:
    """The backend whose raw array this is; None for anything else (numbers, lists, tensors)."""
    for backend in _backends.values():
        if isinstance(array, backend.array_type):
            return backend
    return NUMPY if isinstance(array, np.generic) else None


class use_backend:  # noqa: N801 - used like a function
    """Make a backend the default for new tensors, from here on or for a `with` block.

    >>> use_backend("cupy")            # from here on
    >>> with use_backend("numpy"): ... # in the block
    """

    def __init__(self, name: str | Backend) -> None:
        self._backend = get_backend(name)
        self._before = _default.backend
        _default.backend = self._backend

    def __enter__(self) -> None:
        _default.backend = self._backend

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _default.backend = self._before
