"""Matrix products: matmul in every case of NumPy's, and einsum."""

from __future__ import annotations

import math
from typing import Any

from ...errors import ShapeError
from ..op import TABLE, op, ufunc
from ..tensor import Tensor, apply, tensor


def _matmul_a(F: Any, g: Any, out: Any, a: Any, b: Any) -> Any:
    """g b^T"""
    if a.ndim == b.ndim == 2:
        return g @ b.T
    if b.ndim == 1:
        return g * b if a.ndim == 1 else F.expand_dims(g, -1) * b
    if a.ndim == 1:
        return F.squeeze(F.matmul(b, F.expand_dims(g, -1)), -1)
    return F.matmul(g, F.swapaxes(b, -1, -2))


def _matmul_b(F: Any, g: Any, out: Any, a: Any, b: Any) -> Any:
    """a^T g"""
    if a.ndim == b.ndim == 2:
        return a.T @ g
    if a.ndim == 1:
        return g * a if b.ndim == 1 else F.expand_dims(a, -1) * F.expand_dims(g, -2)
    if b.ndim == 1:
        return F.squeeze(F.matmul(F.swapaxes(a, -1, -2), F.expand_dims(g, -1)), -1)
    if a.ndim > 2 and b.ndim == 2:  # one large product instead of many small ones and a sum
        rows = math.prod(a.shape[:-1])
        a, g = F.reshape(a, (rows, b.shape[0])), F.reshape(g, (rows, b.shape[1]))
    return F.matmul(F.swapaxes(a, -1, -2), g)


matmul = ufunc(
    "matmul",
    _matmul_a,
    _matmul_b,
    arguments="a b",
    saves="*",
    doc="a @ b: (..., n, k) by (..., k, m) gives (..., n, m); vectors (k,) count as one row or column.",
)


# --- einsum ---------------------------------------------------------------------------------------


def _einsum_vjp(F: Any, g: Any, out: Any, *operands: Any, needs: tuple[bool, ...], subscripts: str) -> tuple:
    """The same sum with the upstream gradient in place of the operand, arranged as the operand was."""
    left, result = subscripts.split("->")
    letters = left.split(",")
    gradients: list[Any] = []
    for i, need in enumerate(needs):
        if not need:
            gradients.append(None)
            continue
        rest = [j for j in range(len(operands)) if j != i]
        known = set(result).union(*(letters[j] for j in rest))
        kept = "".join(c for c in letters[i] if c in known)
        spec = ",".join([result, *(letters[j] for j in rest)]) + "->" + kept
        gradient = F.einsum([g, *(operands[j] for j in rest)], subscripts=spec)
        # Letters that this operand alone has, or has alone in full size, were summed over: spread again.
        size = dict(zip(letters[i], operands[i].shape, strict=True))
        grown = dict.fromkeys(letters[i], 1) | dict(zip(kept, gradient.shape, strict=True))
        full = tuple(size[c] if grown[c] == 1 else grown[c] for c in letters[i])
        if full != gradient.shape:
            gradient = F.reshape(gradient, tuple(grown[c] for c in letters[i]))
            gradient = F.broadcast_to(gradient, full)
        gradients.append(gradient)
    return tuple(gradients)


@op(inputs=None, joint=_einsum_vjp, saves="*", broadcasts=True, promotes=True, name="einsum")
def _einsum(xp: Any, *operands: Any, subscripts: str) -> Any:
    """Sum of products by Einstein's convention; explicit letters, none twice in one operand."""
    return xp.einsum(subscripts, *operands)


def einsum(subscripts: str, *operands: Any) -> Tensor:
    """Sum of products by Einstein's convention: `einsum("ij,jk->ik", a, b)` is a @ b.

    Everything NumPy's string form takes: implicit results, an ellipsis, a letter twice in one operand
    (its diagonal).
    """
    home = next((x.backend for x in operands if isinstance(x, Tensor)), None)
    tensors = [x if isinstance(x, Tensor) else tensor(x, backend=home) for x in operands]
    left, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise ShapeError(f"einsum: {subscripts!r} names {len(terms)} operands, {len(tensors)} are given")
    spare = [c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in subscripts]
    extra = 0
    for term, x in zip(terms, tensors, strict=True):
        if "..." in term:
            extra = max(extra, x.ndim - len(term.replace("...", "")))
        elif len(term) != x.ndim:
            raise ShapeError(f"einsum: {term!r} has {len(term)} letters for an operand of shape {x.shape}")
    ellipsis = "".join(spare[:extra])
    for n, (term, x) in enumerate(zip(terms, tensors, strict=True)):
        if "..." in term:
            own = x.ndim - len(term.replace("...", ""))
            terms[n] = term.replace("...", ellipsis[len(ellipsis) - own :])
    if arrow:
        if ellipsis and "..." not in result:
            raise ShapeError(f"einsum: {subscripts!r} sums over '...'; name it in the result")
        result = result.replace("...", ellipsis)
    else:
        joined = "".join(terms)
        once = sorted(c for c in set(joined) if joined.count(c) == 1 and c not in ellipsis)
        result = ellipsis + "".join(once)
    for n, term in enumerate(terms):
        terms[n], tensors[n] = _diagonals(term, tensors[n])
    spec = ",".join(terms) + "->" + result
    return apply(TABLE["einsum"], tuple(tensors), {"subscripts": spec})


def _diagonals(term: str, x: Tensor) -> tuple[str, Tensor]:
    """An operand with a letter twice: its elements where the two indices agree, the letter once."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            size = x.shape[first]
            if x.shape[second] != size:
                raise ShapeError(f"einsum: letter {letter!r} stands for {size} and {x.shape[second]}")
            along = Tensor(x.backend.xp.arange(size), None, 0, x.backend)
            moved = apply(TABLE["moveaxis"], (x,), {"source": (first, second), "destination": (0, 1)})
            x = moved[along, along]  # the diagonal comes first
            x = apply(TABLE["moveaxis"], (x,), {"source": 0, "destination": first})
            term = term[:second] + term[second + 1 :]
    return term, x
