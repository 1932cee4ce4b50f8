"""`Average`: a running mean of the parameters, often a better model than where the last step ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..engine.node import writes
from ..engine.tensor import Tensor
from ..errors import UsageError
from .per_parameter import PerParameter


class Average(PerParameter):
    """mean += a (w - mean),  a = (1 - decay) / (1 - decay^n) at the n-th update.

    So it is the mean of all parameters seen, each weighed by decay^(updates since), with no trace of the
    start; decay=1 weighs all alike (a = 1 / n). Before the first update it is the parameters as given.

        optimizer.step(); average.update()            # in training
        with average.applied(): evaluate(model)       # the mean in place of the parameters

    Polyak & Juditsky, 1992, "Acceleration of stochastic approximation by averaging"; Izmailov et al., 2018,
    "Averaging weights leads to wider optima and better generalization".
    """

    slots = ("average",)

    def __init__(self, params: Iterable[Tensor], decay: float = 0.999) -> None:
        if not 0 <= decay <= 1:
            raise UsageError(f"the decay of an average is between 0 and 1, not {decay}")
        super().__init__(params)
        self.decay = decay
        for p, own in zip(self.params, self.state, strict=True):
            own["average"][...] = p.array

    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.steps += 1
        a = 1 / self.steps if self.decay == 1 else (1 - self.decay) / (1 - self.decay**self.steps)
        for p, own in zip(self.params, self.state, strict=True):
            mean = own["average"]
            mean += a * (p.array - mean)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The mean in place of the parameters, which come back at the end, bit for bit: a change made to
        them in this block is lost."""
        before = [p.array.copy() for p in self.params]
        try:
            self._put([own["average"] for own in self.state])
            yield
        finally:
            self._put(before)

    def _put(self, arrays: list) -> None:
        for p, array in zip(self.params, arrays, strict=True):
            p.array[...] = array
            writes.note(p.array)
