"""`Module`, `Parameter` and `Buffer`: how a network holds its arrays and finds them again by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


class Buffer(Tensor):
    """A tensor that belongs to the state of a Module and is not learnt, such as a running mean."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        made = tensor(data)
        super().__init__(made.array, None, 0, made.backend)


_STATE = (Parameter, Buffer)


class Module:
    """A part of a network: parameters, buffers and further modules as attributes, and `forward`.

    Calling the module calls forward. `training` says whether dropout and the like are active.
    """

    training = True
    _path: str | None = None  # where the module stands in the one whose call is annotated

    def __setattr__(self, name: str, value: Any) -> None:
        present = self.__dict__.get(name)
        for kind in (Parameter, Buffer):
            if isinstance(present, kind) and isinstance(value, Tensor) and not isinstance(value, kind):
                raise GraphError(
                    f"{name} is a {kind.__name__.lower()} and would be lost; assign an nn.{kind.__name__}, "
                    "or change it in place (copy_, or -= inside tg.no_grad())"
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
        return self._named(Parameter)

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Every buffer once, with its dotted name (the first one, where it is shared)."""
        return self._named(Buffer)

    def _named(self, kind: Any) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, kind) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def buffers(self) -> Iterator[Buffer]:
        """Every buffer once."""
        return (buffer for _, buffer in self.named_buffers())

    def register_buffer(self, name: str, value: Any) -> None:
        """Hold a tensor or array as the attribute `name`: it is part of state_dict(), and not learnt."""
        setattr(self, name, Buffer(value))

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
        """Move all parameters and buffers to another backend, in place; gradients are forgotten."""
        target = get_backend(backend)
        for _, held in self._named(_STATE):
            if held.backend is not target:
                held.array = target.from_host(held.numpy())
                held.backend = target
                if held.node is not None:  # a buffer has none, and a parameter that was frozen stays so
                    held.node = leaf_node(held.array, target)
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Name -> value of all parameters and buffers, as copies in host memory."""
        return {name: held.numpy() for name, held in self._named(_STATE)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Overwrite parameters and buffers. Names and shapes must match; ShapeError lists what does not."""
        own = dict(self._named(_STATE))
        wrong = [f"{name} is missing" for name in own if name not in state]
        wrong += [f"{name} is not part of this model" for name in state if name not in own]
        for name, held in own.items():
            if name in state and tuple(state[name].shape) != held.shape:
                wrong.append(f"{name} has shape {tuple(state[name].shape)} instead of {held.shape}")
        if wrong:
            raise ShapeError("these weights do not fit the model: " + "; ".join(wrong))
        with no_grad():
            for name, held in own.items():
                held.copy_(tensor(state[name], dtype=held.dtype, backend=held.backend))

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

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, str(number)) for number in range(self._count))

    def forward(self, x: Any) -> Any:
        for step in self:
            x = step(x)
        return x


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """In this block the module does not train: no dropout, no new running statistics, nothing recorded."""
    training = module.training
    if training:
        module.eval()
    try:
        with no_grad():
            yield
    finally:
        if training:
            module.train()
