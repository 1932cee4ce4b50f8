"""What optimisers and averages have in common: arrays remembered for each parameter, and how these travel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..engine.tensor import Tensor
from ..errors import ShapeError, UsageError


class PerParameter:
    """Parameters, an array of zeros for each of them in every slot, and the number of steps made."""

    slots: tuple[str, ...] = ()  # names of the arrays remembered for each parameter

    def __init__(self, params: Iterable[Tensor]) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor):
            raise UsageError(f"{name} takes a list of parameters, such as model.parameters()")
        self.params = list(params)
        if len({id(p) for p in self.params}) != len(self.params):
            raise UsageError(f"a parameter is given to {name} twice")
        for i, p in enumerate(self.params):
            if not isinstance(p, Tensor) or not p.is_leaf:
                raise UsageError(f"parameter {i} is no leaf tensor, so {name} could not change it: {p!r}")
        if not self.params:
            raise UsageError(f"{name} needs at least one parameter")
        self.steps = 0
        self.state: list[dict[str, Any]] = [
            {slot: p.backend.xp.zeros_like(p.array) for slot in self.slots} for p in self.params
        ]

    def state_dict(self) -> dict[str, Any]:
        """What has been remembered: {"steps": int, "slots": {slot: [an array per parameter, in order]}}.

        The arrays are copies in host memory. Rates and other options are not in it: they are the caller's.
        """
        slots = {
            slot: [p.backend.to_host(own[slot]) for p, own in zip(self.params, self.state, strict=True)]
            for slot in self.slots
        }
        return {"steps": self.steps, "slots": slots}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what state_dict() gave, of parameters on any backend.

        UsageError for other slots, or arrays for another number of parameters; ShapeError for arrays of
        another shape or dtype. Then nothing has been changed.
        """
        name = type(self).__name__
        if set(state) != {"steps", "slots"}:
            raise UsageError(f"a state of {name} holds steps and slots, not {', '.join(state) or 'nothing'}")
        steps, slots = state["steps"], state["slots"]
        if type(steps) is not int or steps < 0:
            raise UsageError(f"the steps of {name} are counted from 0, not {steps!r}")
        if set(slots) != set(self.slots):
            raise UsageError(
                f"this is no state of {name}: it remembers {', '.join(slots) or 'nothing'} "
                f"instead of {', '.join(self.slots) or 'nothing'}"
            )
        for slot, arrays in slots.items():
            if len(arrays) != len(self.params):
                raise UsageError(f"{slot} has {len(arrays)} arrays for {len(self.params)} parameters")
            for i, (p, array) in enumerate(zip(self.params, arrays, strict=True)):
                if array.shape != p.shape or array.dtype != p.dtype:
                    raise ShapeError(
                        f"{slot} of parameter {i} is {array.dtype} of shape {array.shape} "
                        f"instead of {p.dtype} of shape {p.shape}"
                    )
        self.steps = steps
        for slot, arrays in slots.items():
            for p, own, array in zip(self.params, self.state, arrays, strict=True):
                own[slot][...] = p.backend.from_host(array)
