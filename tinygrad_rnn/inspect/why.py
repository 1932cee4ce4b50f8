"""`why nan`, `why zero X`, `why none X`: what is the matter with a gradient."""

from __future__ import annotations

from argparse import Namespace

from ..engine.tensor import Tensor
from ..errors import UsageError
from . import address
from .command import command, option
from .session import Session
from .view import View
from .why_nan import why_nan
from .why_none import why_none
from .why_zero import why_zero


def _names(session: Session) -> list[str]:
    tensors = [name for name, value in session.namespace.items() if isinstance(value, Tensor)]
    return [*tensors, *address.names(session)]


@command(
    "Why",
    "why zero h[3]",
    option("question", choices=("nan", "zero", "none"), help="what is the matter"),
    option("name", nargs="?", metavar="X", complete=_names, help="a node, a parameter, or a tensor of yours"),
)
def why(session: Session, arguments: Namespace) -> View:
    """Why a value is NaN, why a gradient is zero, why `.grad` is None.

    `why nan` finds the first value that is not finite, in the order of the forward pass; if all are finite,
    the first gradient, in the order of the backward pass. It was born there, when all that it was made of is
    finite, or came in with a constant or a parameter. Shown are the rule that made it, the index and the
    operands at that index, and whom it infected on the way: one NaN in a sum makes the sum NaN.

    `why zero X` asks where the gradient of X was lost. Each step back through a node multiplies the norm of
    the gradient by |contribution| / |upstream gradient|, the share that is kept: a saturated tanh has a slope
    1 - tanh(x)^2 near 0, a sigmoid s (1 - s) of 1/4 at most, a gate multiplies by itself, a relu that is off
    by 0. The steps are those of the way from the loss to X on which the least is lost. If the gradient is
    exactly 0, all places are shown at which a gradient came and nothing went on.

    `why none X` says why X.grad is None: X is no leaf, needs no gradient, is not what the loss was computed
    from, was detached on the way, or nobody has called backward() yet.

        why nan
        why zero weight_hh_l0
        why none h[3]
    """
    question, name = arguments.question, arguments.name
    if question == "nan":
        if name is not None:
            raise UsageError(f"`why nan` asks about the whole graph, not about {name}; leave it out")
        return why_nan(session)
    if name is None:
        raise UsageError(f"why {question} what? say for example `why {question} {_names(session)[0]}`")
    return why_zero(session, name) if question == "zero" else why_none(session, name)
