"""`grads`, `params`, `hist`: what is in the parameters, and in any value or gradient."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.cells import cell_len

from ..engine.ops.fused import use_kernels
from ..engine.tensor import tensor
from ..errors import UsageError
from ..optim import Adam, by_name
from . import address
from .command import command, option
from .do import LR
from .operands import Values, norm, parts, shape_text
from .session import Session
from .view import Facts, Line, Span, Table, Text, View, number

BINS = 16

COLUMNS = {
    "name": "parameter",
    "shape": "shape",
    "weight": "|w|",
    "gradient": "|grad|",
    "mean": "mean",
    "zero": "zero",
    "bad": "not finite",
    "ratio": "update/w",
}


# --- parameters -----------------------------------------------------------------------------------


def parameters(session: Session) -> list[tuple[str, np.ndarray, np.ndarray | None]]:
    """Name, value and gradient of each: the model's; of another graph than the window's its leaves."""
    tape = session.focus
    if session.at_window:
        named = [(name, p.node, p.numpy()) for name, p in session.model.named_parameters()]
    else:
        leaves = [(address.label(session, n), n, tape.value(n)) for n in tape.nodes if n.op is None]
        named = [leaf for leaf in leaves if leaf[2] is not None]
    return [(name, value, None if node is None else tape.gradients.get(node)) for name, node, value in named]


@command(
    "Look",
    "grads --sort gradient",
    option("--sort", choices=list(COLUMNS), help="the largest first; names by the alphabet"),
    option("--filter", metavar="TEXT", complete=address.parameters, help="only names that contain it"),
)
def grads(session: Session, arguments: argparse.Namespace) -> View:
    """The gradient of each parameter in one table, and how far a step would change it.

        |w|, |grad|    Euclidean norms of the parameter and of its gradient
        mean, zero     the mean of the gradient's elements; the share of them that is exactly 0
        not finite     the share of them that is NaN or infinite
        update/w       |change| / |w| of the first step of a new optimiser

    The optimiser and its learning rate are those that `train` goes on with: of the run, or where there was
    none Adam (Kingma & Ba, 2015) at 0.003. The first step of Adam moves every number whose gradient is not 0
    by the learning rate, so that update/w says how large it is for these weights. The model is not changed.

        grads --sort ratio
        grads --filter weight_hh
    """
    given = [one for one in parameters(session) if (arguments.filter or "") in one[0]]
    if not given:
        names = ", ".join(name for name, _, _ in parameters(session))
        raise UsageError(f"no name contains {arguments.filter!r}; there are {names}")
    optimizer, lr, decay = _optimizer(session)
    rows: list[dict[str, Any]] = []
    for name, value, gradient in given:
        of_gradient = None if gradient is None else statistics(gradient)
        rows.append(
            {
                "name": name,
                "shape": value.shape,
                "weight": norm(value),
                "gradient": None if gradient is None else norm(gradient),
                "mean": of_gradient and of_gradient["mean"],
                "zero": of_gradient and of_gradient["zero"],
                "bad": of_gradient and of_gradient["not finite"],
                "ratio": None if gradient is None else update_ratio(value, gradient, optimizer, lr, **decay),
            }
        )
    column = arguments.sort
    if column in ("name", "shape"):
        rows.sort(key=lambda row: row[column])
    elif column is not None:
        rows.sort(key=lambda row: _rank(row[column]), reverse=True)
    table = Table(
        [*COLUMNS.values()],
        [[_shown(column, row[column]) for column in COLUMNS] for row in rows],
        ["mean", "shape", "|w|", "not finite", "zero", "update/w"],
    )
    root = "the loss" if session.at_window else address.label(session, session.focus.nodes[-1])
    note = f"update/w: of the first step of a new {optimizer.__name__}, lr {number(lr)}"
    data = {"optimizer": optimizer.__name__, "lr": lr, "rows": rows}
    return View(f"The gradient of {root} in each parameter", [table, Text(note, "dim")], data)


def _optimizer(session: Session) -> tuple[type[Any], float, dict[str, float]]:
    """What `train` makes its steps with: the class, the learning rate, the weight decay if one is set."""
    config = session.config if session.trainer is None else session.trainer.config
    if config is None:
        return Adam, LR, {}
    decay = {} if config.weight_decay is None else {"weight_decay": config.weight_decay}
    return by_name(config.optimizer), config.lr, decay


def _rank(value: float | None) -> float:
    """None below all, NaN above."""
    return -np.inf if value is None else np.inf if np.isnan(value) else value


def _shown(column: str, value: Any) -> Any:
    if value is None:
        return "none" if column == "gradient" else ""
    if column in ("zero", "bad"):
        return share_text(value)
    return str(value) if column == "shape" else value


def update_ratio(
    value: np.ndarray, gradient: np.ndarray, optimizer: type[Any], lr: float, **settings: float
) -> float:
    """|change| / |w| of the first step of an optimiser, on a copy; of all zeros infinite."""
    copy = tensor(value.copy(), requires_grad=True)
    copy.grad = tensor(gradient)
    with np.errstate(all="ignore"), use_kernels("numpy"):  # a compiled one takes longer to load
        optimizer([copy], lr, **settings).step()
        return float(np.divide(norm(copy.numpy() - value), norm(value)))


@command("Look", "params")
def params(session: Session, arguments: argparse.Namespace) -> View:
    """The parameters: their shapes, how many numbers they are, and how these are spread.

    weight_ih reads the input, weight_hh the state before. The gates lie one below the other in the rows:
    i, f, g, o of an LSTM; r, z, n of a GRU.
    """
    rows = []
    for name, value, _ in parameters(session):
        found = statistics(value)
        spread = {key: found[key] for key in ("mean", "std", "min", "max")}
        rows.append({"name": name, "shape": value.shape, "count": value.size, **spread})
    total = sum(row["count"] for row in rows)
    cells = [[*row.values()] for row in rows]
    for row in cells:
        row[1] = str(row[1])
    cells.append(["total", "", total, None, None, None, None])
    header = ["parameter", "shape", "numbers", "mean", "std", "min", "max"]
    of = session.name if session.at_window else address.label(session, session.focus.nodes[-1])
    table = Table(header, cells, ["shape", "mean", "min", "max"])
    return View(f"The parameters of {of}", [table], {"total": total, "rows": rows})


# --- histograms -----------------------------------------------------------------------------------


@command(
    "Look",
    "hist weight_hh_l0 --grad",
    option(
        "node",
        nargs="?",
        metavar="NAME",
        complete=address.names,
        help="what `cd` takes; none: where one stands",
    ),
    option("--grad", action="store_true", help="of its gradient"),
    option("--bins", type=int, default=BINS, metavar="N", help=f"so many bars, {BINS} unless given"),
)
def hist(session: Session, arguments: argparse.Namespace) -> View:
    """How the numbers in a parameter, a value or a gradient are spread: a histogram.

    A bar holds the numbers from the one at its left to the one at the left of the next; the last bar has
    its end as well. What is exactly zero, and what is not finite, is counted below.

        hist weight_hh_l0
        hist f[3]             the forget gates at a time step: near 1 they keep, near 0 they forget
        hist h[0] --grad      dL/dh
    """
    node = (
        (session.here or session.focus.nodes[-1])
        if arguments.node is None
        else address.find(session, arguments.node)
    )
    label = address.label(session, node)
    if not 1 <= arguments.bins <= 200:
        raise UsageError(f"hist: --bins {arguments.bins}; say 1 to 200")
    value = session.focus.gradients.get(node) if arguments.grad else Values(session).of(node)
    if value is None and arguments.grad:
        raise UsageError(f"no gradient reached {label}; `why none {label}` says where it was lost")
    if value is None:
        raise UsageError(f"nobody kept the value of {label}; `hist {label} --grad` shows its gradient")
    elements = _elements(value)
    finite = elements[np.isfinite(elements)]
    try:
        counts, ends = np.histogram(finite, bins=arguments.bins)
    except ValueError:  # they lie closer to one another than such numbers do
        counts, ends = np.array([finite.size]), np.array([finite.min(), finite.max()])
    bars = Bars([number(end) for end in ends[:-1]], counts)
    zeros, bad = int((elements == 0).sum()), int(elements.size - finite.size)
    found = statistics(value)
    texts = [f"{key} {number(found[key])}" for key in ("min", "mean", "max", "std") if found[key] is not None]
    facts = [
        ("numbers", f"{elements.size:,}; exactly 0: {zeros:,}; not finite: {bad:,}"),
        ("spread", ", ".join(texts) or "no finite number"),
    ]
    title = f"The {'gradient of' if arguments.grad else 'numbers in'} {label} {shape_text(node.shape)}"
    data = {"label": label, "counts": counts, "ends": ends, "size": elements.size, "zero": zeros, "bad": bad}
    return View(title, [*([bars] if finite.size else []), Facts(facts)], data)


@dataclass(frozen=True)
class Bars:
    """A bar a row, its length as its count."""

    labels: Sequence[str]
    counts: np.ndarray

    def lines(self, width: int) -> Iterator[Line]:
        margin = max(map(cell_len, self.labels))
        numbers = [f"{count:,}" for count in self.counts]
        room = max(width - margin - max(map(len, numbers)) - 3, 1)
        for label, count, text in zip(self.labels, self.counts, numbers, strict=True):
            length = round(room * int(count) / max(int(self.counts.max()), 1))
            bar = "█" * length if length or not count else "·"
            yield [Span(label.rjust(margin), "label"), Span(f" {bar}", "good"), Span(f" {text}", "dim")]


# --- statistics -----------------------------------------------------------------------------------


@np.errstate(all="ignore")  # the squares of the largest numbers are infinite
def statistics(value: Any) -> dict[str, Any]:
    """Of an array, or of all arrays of a list: min, mean, max, std and norm of the finite elements, None
    where there are none, and the shares of elements that are zero and that are not finite."""
    elements = _elements(value)
    finite = elements[np.isfinite(elements)]
    some = finite.size > 0
    return {
        "min": float(finite.min()) if some else None,
        "mean": float(finite.mean()) if some else None,
        "max": float(finite.max()) if some else None,
        "std": float(finite.std()) if some else None,
        "norm": norm(finite) if some else None,
        "zero": float((elements == 0).mean()) if elements.size else 0.0,
        "not finite": float((~np.isfinite(elements)).mean()) if elements.size else 0.0,
    }


def _elements(value: Any) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts(value)])


def share_text(share: float) -> str:
    """Per cent; never 0% or 100% for what is not quite that."""
    if share in (0, 1):
        return f"{share:.0%}"
    return "<0.1%" if share < 0.001 else ">99.9%" if share > 0.999 else f"{share:.1%}"
