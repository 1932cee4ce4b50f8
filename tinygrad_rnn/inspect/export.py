"""`export`: the graph as a file that other programs read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ..atomic import write_atomically
from ..engine.node import Node
from ..errors import StorageError, UsageError
from . import address
from .command import command, find, option
from .operands import norm
from .session import Session
from .view import Facts, Line, Span, View, plain


@command(
    "Do",
    "export dot",
    option("format", choices=["dot", "json", "svg"]),
    option(
        "file", nargs="?", metavar="FILE", help="a file that is not there yet; without it the text is shown"
    ),
)
def export(session: Session, arguments: argparse.Namespace) -> View:
    """The graph that is looked at as a file: for Graphviz, for a program, or as a picture.

    dot   every node and edge, a cluster a time step: `dot -Tsvg graph.dot > graph.svg` draws it
    json  nodes (number, op, shape, what they are called, module, time step, parents, norm of the gradient)
          and edges ([from, to, which input of it, which output])
    svg   what `graph` shows

        export json
        export dot graph.dot
    """
    text = {"dot": dot, "json": as_json, "svg": svg}[arguments.format](session)
    nodes = len(session.focus.nodes)
    data = {"format": arguments.format, "nodes": nodes, "file": arguments.file}
    if arguments.file is None:
        return View("", [Verbatim(text)], {**data, "text": text})
    file = Path(arguments.file).expanduser()
    if file.exists():
        raise UsageError(f"{file} exists already; choose another name")
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise StorageError(f"export: cannot write {file}: {error.strerror or error}") from None
    facts = [("file", str(file)), ("size", f"{nodes:,} nodes, {len(text.encode()):,} bytes")]
    return View(f"The graph as {arguments.format}", [Facts(facts)], data)


@dataclass(frozen=True)
class Verbatim:
    """A text for programs: as it is, whatever the width."""

    text: str

    def lines(self, width: int) -> Iterator[Line]:
        for line in self.text.splitlines():
            yield [Span(line)]


def edges(session: Session) -> list[tuple[int, int, int, int]]:
    """(from, to, which input of it, which output of the one that it is from): numbers of nodes as in #17."""
    numbers = session.focus.numbers
    return [
        (numbers[parent], numbers[node], number, node.output_used(number))
        for node in session.focus.nodes
        for number, parent in enumerate(node.parents)
        if parent is not None
    ]


def dot(session: Session) -> str:
    """In the language of Graphviz. Time goes to the right."""
    tape = session.focus
    lines = ["digraph tape {", "  rankdir=LR;", "  node [fontname=monospace];"]
    in_time = sorted((n for n in tape.nodes if n.time_step is not None), key=_place)
    lines += [f"  {_dot_node(session, node)}" for node in tape.nodes if node.time_step is None]
    for step, of_step in groupby(in_time, key=lambda node: node.time_step):
        lines += [f"  subgraph cluster_t{step} {{", f'    label="t={step}";']
        for number, (module, nodes) in enumerate(groupby(of_step, key=lambda node: node.module)):
            lines += [f"    subgraph cluster_t{step}_{number} {{", f"      label={_quoted(module or '')};"]
            lines += [*(f"      {_dot_node(session, node)}" for node in nodes), "    }"]
        lines.append("  }")
    lines += [f"  n{parent} -> n{node};" for parent, node, _, _ in edges(session)]
    return "\n".join([*lines, "}", ""])


def _place(node: Node) -> tuple[int, str, int]:
    return node.time_step or 0, node.module or "", node.seq


def _dot_node(session: Session, node: Node) -> str:
    label = f"{address.label(session, node)}\n{'leaf' if node.op is None else node.op.name} {node.shape}"
    shape = ", shape=box" if node.op is None else ""
    return f"n{session.focus.numbers[node]} [label={_quoted(label)}{shape}];"


def _quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def as_json(session: Session) -> str:
    """A line a node and a line an edge."""
    nodes = ",\n".join(json.dumps(plain(_described(session, node))) for node in session.focus.nodes)
    joined = ",\n".join(json.dumps(edge) for edge in edges(session))
    root = session.focus.numbers[session.focus.nodes[-1]]
    return f'{{"root": {root},\n"nodes": [\n{nodes}\n],\n"edges": [\n{joined}\n]}}\n'


def _described(session: Session, node: Node) -> dict[str, Any]:
    tape = session.focus
    gradient = tape.gradients.get(node)
    dtypes = node.dtype if isinstance(node.dtype, tuple) else [node.dtype]
    return {
        "number": tape.numbers[node],
        "label": address.label(session, node),
        "op": None if node.op is None else node.op.name,
        "shape": node.shape,
        "dtype": [str(dtype) for dtype in dtypes] if node.outputs is not None else str(node.dtype),
        "name": node.name,
        "module": node.module,
        "time_step": node.time_step,
        "parents": [None if parent is None else tape.numbers[parent] for parent in node.parents],
        "gradient_norm": None if gradient is None else norm(gradient),
    }


def svg(session: Session) -> str:
    """What `graph` shows, as a picture."""
    return find("graph")(session, "").svg()
