"""An optimiser's update of a parameter, compiled: one pass over its arrays."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from .jit import compiled


@compiled
def adam(w, g, mean, square, factors, decoupled):
    """See Adam in optim/optimizers.py. All are flat; factors: lr / (1 - beta1^steps), the root of
    1 - beta2^steps, 1 - beta1, 1 - beta2, eps, and weight decay (times lr if it is decoupled)."""
    scale, root, a, b, eps, decay = factors
    kept = w.dtype.type(1) - decay if decoupled else w.dtype.type(1)
    pull = w.dtype.type(0) if decoupled else decay
    for k in range(w.size):
        slope = g[k] + pull * w[k]
        mean[k] += a * (slope - mean[k])
        square[k] += b * (slope * slope - square[k])
        w[k] = w[k] * kept - scale * mean[k] / (np.sqrt(square[k]) / root + eps)
