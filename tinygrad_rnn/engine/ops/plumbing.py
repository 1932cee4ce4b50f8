"""Ops that move a tensor without changing what it means: identity, cast, transfer between backends.

The engine itself uses them: promotion of dtypes records casts, higher derivatives pass through identities.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DtypeError
from ..backend import Backend, get_backend
from ..op import TABLE, op
from ..tensor import Tensor, apply


@op(lambda F, g, out, x: g)
def identity(xp: Any, x: Any) -> Any:
    """The same tensor, with a node of its own."""
    return x


@op(lambda F, g, out, x, dtype: F.astype(g, dtype=x.dtype), shapes="x", name="astype")
def _astype(xp: Any, x: Any, dtype: Any) -> Any:
    """Cast to a dtype. The gradient is cast back."""
    return x.astype(dtype)


def astype(x: Tensor, dtype: Any) -> Tensor:
    """Cast to a dtype. The gradient is cast back; through integers and booleans there is none."""
    try:
        floating = np.dtype(dtype).kind == "f"
    except TypeError as error:
        raise DtypeError(f"astype: {error}") from None
    return _astype(x if floating else x.detach(), dtype)


@op(lambda F, g, out, x, source, target: F.transfer(g, source=target, target=source), moves=True)
def transfer(xp: Any, x: Any, source: Backend, target: Backend) -> Any:
    """Copy from one array library to another, by way of the host."""
    return target.from_host(source.to_host(x))


def to(x: Tensor, backend: str | Backend) -> Tensor:
    """The tensor in another backend (itself if it is there already); gradients travel back."""
    target = get_backend(backend)
    if target is x.backend:
        return x
    return apply(TABLE["transfer"], (x,), {"source": x.backend, "target": target})
