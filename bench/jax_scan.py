"""JAX as its users write it: `lax.scan` over time, the whole step under `jit`, and optax.

The input product of a layer is taken out of the scan, and the buffers of the parameters are donated. Weights
lie as (inputs, outputs) there, so they are turned on their way in, and their gradients on their way out.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from tinygrad_rnn.training.bench import Work


def rnn(gates, state, w_hh, b_hh):
    (h,) = state
    return (jnp.tanh(gates + h @ w_hh + b_hh),)


def lstm(gates, state, w_hh, b_hh):
    h, c = state
    i, f, g, o = jnp.split(gates + h @ w_hh + b_hh, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gru(gates, state, w_hh, b_hh):
    (h,) = state
    r_x, z_x, n_x = jnp.split(gates, 3, axis=-1)
    r_h, z_h, n_h = jnp.split(h @ w_hh + b_hh, 3, axis=-1)
    r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
    n = jnp.tanh(n_x + r * n_h)
    return ((1 - z) * n + z * h,)


CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru}


def loss_of(weights, state, inputs, targets, cell, layers):
    x = weights["embedding.weight"][inputs]
    ends = []
    for layer in range(layers):
        w_ih, w_hh, b_ih, b_hh = (
            weights[f"rnn.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )

        def one_step(before, gates, w_hh=w_hh, b_hh=b_hh):
            after = cell(gates, before, w_hh, b_hh)
            return after, after[0]

        end, x = lax.scan(one_step, state[layer], x @ w_ih + b_ih)
        ends.append(end)
    logits = x @ weights["output.weight"] + weights["output.bias"]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
    return loss, ends


def turned(name: str, array: Any) -> Any:
    return array.T if array.ndim == 2 and name != "embedding.weight" else array


class Training:
    def __init__(self, work: Work, start: dict[str, np.ndarray], threads: int | None) -> None:
        jax.clear_caches()
        self.threads = threads
        self._weights = {n: jnp.array(turned(n, a)) for n, a in start.items() if "." in n}
        self._windows = [jnp.array(start[name], dtype=jnp.int32) for name in ("inputs", "targets")]
        optimizer = optax.chain(optax.clip_by_global_norm(work.clip), optax.adam(work.lr))
        self._moments = optimizer.init(self._weights)
        states = 2 if work.kind == "lstm" else 1
        zero = jnp.zeros((work.batch_size, work.hidden_size))
        self._state = [(zero,) * states] * work.layers
        self._done = 0
        loss = partial(loss_of, cell=CELLS[work.kind], layers=work.layers)
        self._gradient = jax.value_and_grad(loss, has_aux=True)

        @partial(jax.jit, donate_argnums=(0, 1))
        def step(weights, moments, state, inputs, targets):
            (value, state), gradient = self._gradient(weights, state, inputs, targets)
            updates, moments = optimizer.update(gradient, moments, weights)
            return optax.apply_updates(weights, updates), moments, state, value

        self._step = step

    def step(self) -> float:
        number = self._done % len(self._windows[0])
        window = (windows[number] for windows in self._windows)
        self._weights, self._moments, self._state, loss = self._step(
            self._weights, self._moments, self._state, *window
        )
        self._done += 1
        return float(loss)

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        window = (windows[0] for windows in self._windows)
        (loss, _), gradient = jax.jit(self._gradient)(self._weights, self._state, *window)
        return float(loss), {name: turned(name, np.asarray(g)) for name, g in gradient.items()}
