"""The loss of a model on a text that it does not learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..text.batches import Windows
from ..text.sampling import evaluating

if TYPE_CHECKING:
    from ..models import CharLM


def evaluate(model: CharLM, windows: Windows) -> float:
    """Mean loss in nats a symbol over all windows. The state starts at zero and is carried through them.

    Leaves the model, its gradients and all random generators as they were.
    """
    total, symbols = 0.0, 0
    state: Any = None
    with evaluating(model):
        for inputs, targets in windows:
            loss, state = model.loss(inputs, targets, state)
            total += loss.item() * targets.size
            symbols += targets.size
    return total / symbols
