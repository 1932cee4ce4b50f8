"""`Visit`: what the backward pass does at one node, by the names that the op's equations use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..engine.node import Node, Shaped
from ..errors import UsageError
from .address import label
from .jacobian import extent
from .operands import Values, input_names, norm, shape_text
from .session import Session
from .tape import Tape, require_saved
from .view import number as shown

FEW = 8  # elements that are shown one by one


class Delivery(NamedTuple):
    """A contribution on its way into the gradient of an input.

    number          which input of the node visited
    gradient        what is added
    before, after   the sum so far; before the first one None
    place, total    it is the place-th of `total` contributions to that input
    """

    number: int
    gradient: np.ndarray
    before: np.ndarray | None
    after: np.ndarray
    place: int
    total: int


@dataclass(frozen=True)
class Visit:
    """One step of the backward pass that a session looks at."""

    session: Session
    node: Node

    def __post_init__(self) -> None:
        require_saved(self.node)

    @property
    def tape(self) -> Tape:
        return self.session.focus

    @property
    def step(self) -> int:
        """Which step of the backward pass visits the node, from 1. UsageError where none does."""
        if self.node not in self.tape.steps:
            raise UsageError(f"no gradient reaches {self.label}, so the backward pass never visits it")
        return self.tape.steps[self.node]

    @cached_property
    def label(self) -> str:
        return label(self.session, self.node)

    @property
    def g(self) -> Any:
        """The upstream gradient: a host array; of several outputs a list, None where one has none."""
        return self.tape.gradients[self.node]

    @property
    def inputs(self) -> list[str]:
        return input_names(self.node)

    def input_label(self, number: int) -> str:
        """The name of what stands there: #17, weight_hh_l0, 2.0; of one of several outputs #17.0"""
        parent = self.node.parents[number]
        if parent is not None:
            name = label(self.session, parent)
            return name if parent.outputs is None else f"{name}.{self.node.output_used(number)}"
        saved = self.node.inputs[number]
        if isinstance(saved, (int, float)):
            return shown(saved)
        shape = getattr(saved, "shape", None)
        return "constant" if shape is None else f"constant {tuple(shape)}"

    @cached_property
    def values(self) -> dict[str, Any]:
        """What an expression may name: g, out, the inputs, the op's parameters. Of an input whose value
        nobody knows the shape, or None; of g, outputs that no gradient reaches are zeros."""
        node, op, known = self.node, self.node.op, Values(self.session)
        g, out = self.tape.gradients.get(node), known.of(node)
        if op is None:
            return {"g": g, "out": out}
        if node.outputs is not None and g is not None:
            places = zip(g, node.shape, node.dtype, strict=True)
            g = [np.zeros(shape, dtype) if one is None else one for one, shape, dtype in places]
        names = {"g": g, "out": out}
        for number, (name, operand) in enumerate(zip(self.inputs, known.operands(node), strict=False)):
            names[name] = operand.value
            if operand.unknown and operand.node is not None:
                output = node.output_used(number)
                names[name] = Shaped(operand.node.shape_of(output), operand.node.dtype_of(output))
        if op.name == "dropout_mask":
            ones = node.backend.from_host(np.ones(node.shape, node.dtype))
            names["mask"] = node.backend.to_host(node.backend.forward[op](ones, **node.params))
        return names | {name: value for name, value in node.params.items() if name not in names}

    @cached_property
    def deliveries(self) -> list[Delivery]:
        """What the visit adds to the gradients of the inputs, in order."""
        found = []
        for number, parent in enumerate(self.node.parents):
            if parent is None:
                continue
            output = self.node.output_used(number)
            into = [
                c for c in self.tape.contributions.get(parent, ()) if c.node.output_used(c.number) == output
            ]
            places = [i for i, c in enumerate(into) if c.node is self.node and c.number == number]
            if not places:  # nothing is differentiated in that input
                continue
            before: Any = None
            for earlier in into[: places[0]]:
                before = earlier.gradient if before is None else before + earlier.gradient
            gradient = into[places[0]].gradient
            after = gradient if before is None else before + gradient
            found.append(Delivery(number, gradient, before, after, places[0] + 1, len(into)))
        return found

    @property
    def hooked(self) -> bool:
        """Whether a hook may have changed the gradient before the VJP saw it."""
        return self.node.listeners is not None and bool(self.node.listeners.hooks)

    def written(self) -> str:
        """How it was computed: #17 = multiply(f[3], c[2])"""
        node = self.node
        if node.op is None:
            return f"{self.label}, a leaf"
        inside = ", ".join(map(self.input_label, range(len(node.parents))))
        if len(node.parents) > 4:
            inside = f"{self.input_label(0)}, ..., {self.input_label(len(node.parents) - 1)}"
        return f"{self.label} = {node.op.name}({inside})"

    def number_of(self, name: str | None) -> int:
        """The input of that name, or the first one that needs a gradient. UsageError says which there are."""
        able = {self.inputs[d.number]: d.number for d in self.deliveries}
        if not able:
            raise UsageError(f"{self.label} is a leaf: nothing is handed on there, so there is no VJP")
        if name is not None and name not in able:
            raise UsageError(f"{name}: the inputs of {self.label} that need a gradient: {', '.join(able)}")
        return able[name] if name is not None else next(iter(able.values()))


def gradient_text(gradient: Any, shape: bool = True) -> str:
    """A few elements one by one, more by their norm and extent; exactly zero and not finite are said."""
    if gradient is None:
        return "none: nothing that was used depends on it"
    if not gradient.size:
        text = "empty"
    elif gradient.size <= FEW:
        text = " ".join(map(shown, gradient.ravel().tolist()))
    else:
        text = "all exactly 0" if not gradient.any() else f"norm {shown(norm(gradient))}, {extent(gradient)}"
    return f"{shape_text(gradient.shape)}: {text}" if shape and gradient.shape else text


def upstream(visit: Visit) -> list[tuple[str, str]]:
    """Facts: the gradient that arrives at a node, of several outputs one each."""
    if visit.node.outputs is None:
        return [("g", f"{derivative_in(visit.label)}, {gradient_text(visit.g)}")]
    return [
        (f"g[{output}]", f"{derivative_in(f'{visit.label}.{output}')}, {gradient_text(one)}")
        for output, one in enumerate(visit.g)
    ]


def derivative_in(name: str) -> str:
    """dL/dh[3]; of a longer name dL/d output.bias"""
    return f"dL/d {name}" if name[0].isalpha() and "." in name else f"dL/d{name}"


def gradient_data(gradient: Any) -> Any:
    """The same for a program: norm, extent, and of few elements the values."""
    if gradient is None or isinstance(gradient, list):
        return None if gradient is None else [gradient_data(one) for one in gradient]
    data: dict[str, Any] = {"shape": list(gradient.shape), "norm": norm(gradient)}
    if gradient.size:
        data |= {"min": gradient.min(), "max": gradient.max()}
    return data | ({"values": gradient} if gradient.size <= FEW * FEW else {})
