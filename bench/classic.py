"""The character model that many learnt from: a simple RNN in plain NumPy, a symbol at a time.

One text, 100 units, windows of 25 symbols as columns of zeros with a single one, the loss their sum; back
through time by hand, every gradient clipped to +-5, Adagrad, and all in float64, as NumPy does by itself.
"""

from __future__ import annotations

import numpy as np

from tinygrad_rnn.training.bench import Work


def loss_and_gradients(inputs, targets, h_before, W_xh, W_hh, W_hy, b_h, b_y):
    """The loss of a window of symbols, the gradient of each weight, and the last hidden state (H, 1)."""
    xs, hs, ps = {}, {-1: h_before}, {}
    loss = 0.0
    for t in range(len(inputs)):
        xs[t] = np.zeros((W_xh.shape[1], 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(np.dot(W_xh, xs[t]) + np.dot(W_hh, hs[t - 1]) + b_h)
        scores = np.dot(W_hy, hs[t]) + b_y
        ps[t] = np.exp(scores) / np.sum(np.exp(scores))
        loss -= np.log(ps[t][targets[t], 0])
    dW_xh, dW_hh, dW_hy = np.zeros_like(W_xh), np.zeros_like(W_hh), np.zeros_like(W_hy)
    db_h, db_y = np.zeros_like(b_h), np.zeros_like(b_y)
    dh_later = np.zeros_like(h_before)
    for t in reversed(range(len(inputs))):
        dscores = np.copy(ps[t])
        dscores[targets[t]] -= 1
        dW_hy += np.dot(dscores, hs[t].T)
        db_y += dscores
        dh = np.dot(W_hy.T, dscores) + dh_later
        da = (1 - hs[t] * hs[t]) * dh
        db_h += da
        dW_xh += np.dot(da, xs[t].T)
        dW_hh += np.dot(da, hs[t - 1].T)
        dh_later = np.dot(W_hh.T, da)
    gradients = [dW_xh, dW_hh, dW_hy, db_h, db_y]
    for gradient in gradients:
        np.clip(gradient, -5, 5, out=gradient)
    return loss, gradients, hs[len(inputs) - 1]


class Training:
    """From the weights of a CharLM: its embedding and input weights make one matrix, its two biases one."""

    def __init__(self, work: Work, start: dict[str, np.ndarray], threads: int | None) -> None:
        weights = {name: array.astype(float) for name, array in start.items() if "." in name}
        self._embedding, self._w_ih = weights["embedding.weight"], weights["rnn.weight_ih_l0"]
        self._weights = [
            self._w_ih @ self._embedding.T,
            weights["rnn.weight_hh_l0"],
            weights["output.weight"],
            (weights["rnn.bias_ih_l0"] + weights["rnn.bias_hh_l0"])[:, None],
            weights["output.bias"][:, None],
        ]
        self._memory = [np.zeros_like(w) for w in self._weights]
        self._lr = work.lr
        self._h = np.zeros((work.hidden_size, 1))
        self._inputs, self._targets = (start[name][:, :, 0].tolist() for name in ("inputs", "targets"))
        self._done, self.threads = 0, threads

    def step(self) -> float:
        number = self._done % len(self._inputs)
        inputs, targets = self._inputs[number], self._targets[number]
        loss, gradients, self._h = loss_and_gradients(inputs, targets, self._h, *self._weights)
        for weight, gradient, memory in zip(self._weights, gradients, self._memory, strict=True):
            memory += gradient * gradient
            weight += -self._lr * gradient / np.sqrt(memory + 1e-8)
        self._done += 1
        return loss / len(inputs)

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Of the mean loss, as CharLM has it."""
        inputs, targets = self._inputs[0], self._targets[0]
        loss, gradients, _ = loss_and_gradients(inputs, targets, self._h, *self._weights)
        dW_xh, dW_hh, dW_hy, db_h, db_y = (gradient / len(inputs) for gradient in gradients)
        return loss / len(inputs), {
            "embedding.weight": dW_xh.T @ self._w_ih,
            "rnn.weight_ih_l0": dW_xh @ self._embedding,
            "rnn.weight_hh_l0": dW_hh,
            "rnn.bias_ih_l0": db_h[:, 0],
            "rnn.bias_hh_l0": db_h[:, 0],
            "output.weight": dW_hy,
            "output.bias": db_y[:, 0],
        }
