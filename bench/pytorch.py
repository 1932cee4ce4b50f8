"""PyTorch as its users write it: modules, Adam, clip_grad_norm_, and a loop of single steps to sample."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn

from tinygrad_rnn.training.bench import Work

from .environment import TF32

if torch.cuda.is_available():
    rounded = os.environ.get(TF32) == "1"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = rounded

KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Model(nn.Module):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.embedding = nn.Embedding(work.symbols, work.embedding_size)
        self.rnn = KINDS[work.kind](work.embedding_size, work.hidden_size, work.layers)
        self.output = nn.Linear(work.hidden_size, work.symbols)

    def forward(self, symbols, state=None):
        outputs, state = self.rnn(self.embedding(symbols), state)
        return self.output(outputs), state


def model_of(work: Work, start: dict[str, np.ndarray]) -> Model:
    model = Model(work)
    model.load_state_dict({n: torch.from_numpy(a) for n, a in start.items() if "." in n})
    return model.to(device_of(work))


def device_of(work: Work) -> str:
    return "cuda" if work.backend == "cupy" else "cpu"


class Training:
    def __init__(self, work: Work, start: dict[str, np.ndarray], threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self._clip = work.clip
        self._model = model_of(work, start)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=work.lr)
        self._windows = [torch.from_numpy(start[name]).to(device_of(work)) for name in ("inputs", "targets")]
        self._done, self._state = 0, None

    def _loss(self, number: int) -> torch.Tensor:
        inputs, targets = (windows[number] for windows in self._windows)
        logits, state = self._model(inputs, self._state)
        self._state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def step(self) -> float:
        loss = self._loss(self._done % len(self._windows[0]))
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        self._optimizer.step()
        self._done += 1
        return loss.item()

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        loss = self._loss(0)
        loss.backward()
        self._state = None
        return loss.item(), {name: p.grad.cpu().numpy() for name, p in self._model.named_parameters()}


class Sampling:
    def __init__(self, work: Work, start: dict[str, np.ndarray], threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self._model = model_of(work, start).eval()

    @torch.no_grad()
    def __call__(self, length: int) -> list[int]:
        symbol, state, written = torch.zeros(1, 1, dtype=torch.long), None, []
        for _ in range(length):
            logits, state = self._model(symbol, state)
            symbol = torch.multinomial(torch.softmax(logits[-1], dim=-1), 1)
            written.append(symbol.item())
        return written
