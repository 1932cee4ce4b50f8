"""How ops read the options that are plain numbers: kernel sizes, strides, numbers of groups, eps.

One rule for all of them. What is not such a number at all (1.5 for an integer; True, None, "2", a tensor) is
a DtypeError; integers that are too small, too many or too few are a ShapeError. Where PyTorch also takes a
tensor, or a sequence of one number for all directions, these do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import DtypeError, ShapeError


def integer(name: str, what: str, value: Any, least: int | None = None) -> int:
    """One integer, the option `what` of the function `name`."""
    return _checked(name, what, value, (value,), "an integer", least)[0]


def integers(
    name: str,
    what: str,
    value: Any,
    count: int | None = None,
    least: int | None = None,
    words: tuple[str, ...] = (),
) -> tuple[int, ...]:
    """`count` integers (None: however many there are), or one that holds for all of them. `words` are taken
    by the caller: here they are only named."""
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,) * (count or 1)
    several = "" if count == 1 else f" or {count or 'several'} of them"
    wanted = "".join(f"{word!r}, " for word in words) + "an integer" + several
    found = _checked(name, what, value, given, wanted, least)
    if count is not None and len(found) != count:
        raise ShapeError(f"{name}: {what} must be {wanted}, not {said(value)}")
    return found


def number(name: str, what: str, value: Any) -> float:
    """One number, whole or not."""
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise DtypeError(f"{name}: {what} must be a number, not {said(value)}")
    return float(value)


def said(value: Any) -> str:
    """What was given, in a few words on one line."""
    text = repr(value)
    return text if len(text) <= 80 and "\n" not in text else f"a {type(value).__name__}"


def _checked(
    name: str, what: str, value: Any, given: tuple, wanted: str, least: int | None
) -> tuple[int, ...]:
    for one in given:
        if not isinstance(one, (int, np.integer)) or isinstance(one, bool):
            raise DtypeError(f"{name}: {what} must be {wanted}, not {said(value)}")
        if least is not None and one < least:
            raise ShapeError(f"{name}: {what} must be at least {least}, not {said(value)}")
    return tuple(map(int, given))
