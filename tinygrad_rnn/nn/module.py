"""`Module` and `Parameter`: how a network holds its weights and finds them again by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from ..engine.annotate import module_scope
from ..engine.backend import Backend, get_backend
from ..engine.node import mode
from ..engine.tensor import Tensor, leaf_node, no_grad, tensor
from ..errors import GraphError, ShapeError

Self = TypeVar("Self", bound="Module")


class Parameter(Tensor):
    """A leaf that requires a gradient; a Module finds it among its attributes."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        made = tensor(data)
        super().__init__(made.array, leaf_node(made.array, made.backend), 0, made.backend)


class Module:
    """A part of a network: parameters and further modules as attributes, and `forward`.

    Calling the module calls forward. `training` says whether dropout and the like are active.
    """

    training = True
    _path: str | None = None  # where the module stands in the one whose call is annotated

    def __setattr__(self, name: str, value: Any) -> None:
        present = self.__dict__.get(name)
        if isinstance(present, Parameter) and isinstance(value, Tensor) and not isinstance(value, Parameter):
            raise GraphError(
                f"{name} is a parameter and would be lost; assign an nn.Parameter, or change it in place "
                "(copy_, or -= inside tg.no_grad())"
            )
        object.__setattr__(self, name, value)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if not mode.watching:
            return self.forward(*inputs, **options)
        outermost = self._path is None
        if outermost:
            for path, module in self.named_modules():
                module._path = path
        try:
            with module_scope(self._path or type(self).__name__):
                return self.forward(*inputs, **options)
        finally:
            if outermost:
                for _, module in self.named_modules():
                    module._path = None

    # --- what is inside -----------------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all inside it, with dotted paths; the outermost has the path ""."""
        yield prefix, self
        for name, child in vars(self).items():
            if isinstance(child, Module):
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, with its dotted name (the first one, where it is shared)."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def num_parameters(self) -> int:
        """How many numbers are learnt."""
        return sum(parameter.size for parameter in self.parameters())

    # --- states of the whole -------------------------------------------------------------------

    def train(self: Self, mode: bool = True) -> Self:
        """Switch dropout and the like on (off with mode=False), in all modules inside."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Switch dropout and the like off."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self: Self, backend: str | Backend) -> Self:
        """Move all parameters to another backend, in place; their gradients are forgotten."""
        target = get_backend(backend)
        for parameter in self.parameters():
            if parameter.backend is not target:
                parameter.array = target.from_host(parameter.numpy())
                parameter.backend = target
                if parameter.node is not None:  # one that was frozen stays so
                    parameter.node = leaf_node(parameter.array, target)
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Name -> value, as copies in host memory."""
        return {name: parameter.numpy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Overwrite all parameters. Names and shapes must match; ShapeError lists what does not."""
        own = dict(self.named_parameters())
        wrong = [f"{name} is missing" for name in own if name not in state]
        wrong += [f"{name} is not part of this model" for name in state if name not in own]
        for name, parameter in own.items():
            if name in state and tuple(state[name].shape) != parameter.shape:
                wrong.append(f"{name} has shape {tuple(state[name].shape)} instead of {parameter.shape}")
        if wrong:
            raise ShapeError("these weights do not fit the model: " + "; ".join(wrong))
        with no_grad():
            for name, parameter in own.items():
                parameter.copy_(tensor(state[name], dtype=parameter.dtype, backend=parameter.backend))

    def __repr__(self) -> str:
        children = [(n, m) for n, m in vars(self).items() if isinstance(m, Module)]
        head = f"{type(self).__name__}({self._describe()}"
        if not children:
            return head + ")"
        lines = [f"  {name}: {child!r}".replace("\n", "\n  ") for name, child in children]
        return "\n".join([head, *lines, ")"])

    def _describe(self) -> str:
        """What repr() says of this module between the brackets."""
        return ""


class Sequential(Module):
    """Modules (or plain functions) applied one after the other."""

    def __init__(self, *steps: Module | Callable) -> None:
        self._count = len(steps)
        for number, step in enumerate(steps):
            setattr(self, str(number), step)

    def forward(self, x: Any) -> Any:
        for number in range(self._count):
            x = getattr(self, str(number))(x)
        return x
