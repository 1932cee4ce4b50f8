"""`CharLM`: a recurrent language model over characters (or bytes, or any symbols)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ..engine.op import TABLE
from ..engine.ops.loss import cross_entropy
from ..engine.ops.shape import concatenate
from ..engine.tensor import Tensor, apply, no_grad, tensor
from ..errors import UsageError
from ..nn import GRU, LSTM, RNN, Dropout, Embedding, Linear, Module

KINDS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # of a layer


class CharLM(Module):
    """Embedding -> recurrent stack -> a score for each symbol that may come next.

    vocab_size: number of symbols V. kind: "lstm", "gru" or "rnn".
    dropout: probability, in training, on the embeddings, between the layers and before the scores.
    embedding_dropout: probability on the embeddings, where it is to be another one.
    weight_dropout: probability on the recurrent weights.
    variational: what dropout zeroes in one time step of a call it zeroes in all (see nn.Dropout).
    tie_weights: the output layer uses the embedding table (embedding_size must equal hidden_size).
    """

    def __init__(
        self,
        vocab_size: int,
        kind: str = "lstm",
        embedding_size: int = 64,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
        tie_weights: bool = False,
        variational: bool = False,
        embedding_dropout: float | None = None,
        weight_dropout: float = 0.0,
    ) -> None:
        if kind not in KINDS:
            raise UsageError(f"no kind of network is called {kind!r}; there are {', '.join(KINDS)}")
        sizes = {
            "vocab_size": vocab_size,
            "embedding_size": embedding_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            if size < 1:
                raise UsageError(f"{name} must be at least 1, not {size}")
        probabilities = {
            "dropout": dropout,
            "embedding_dropout": dropout if embedding_dropout is None else embedding_dropout,
            "weight_dropout": weight_dropout,
        }
        for name, p in probabilities.items():
            if not 0 <= p < 1:
                raise UsageError(f"{name} must be at least 0 and below 1, not {p}")
        if tie_weights and embedding_size != hidden_size:
            raise UsageError(
                f"tied weights need equal sizes, not embedding_size {embedding_size}, hidden_size "
                f"{hidden_size}; set embedding_size to {hidden_size}"
            )
        self.vocab_size, self.kind, self.tie_weights = vocab_size, kind, tie_weights
        self.embedding_dropout = embedding_dropout
        self.embedding = Embedding(vocab_size, embedding_size)
        self.input_dropout = Dropout(probabilities["embedding_dropout"], variational)
        self.rnn: Any = KINDS[kind](
            embedding_size,
            hidden_size,
            num_layers,
            dropout=dropout,
            variational=variational,
            weight_dropout=weight_dropout,
        )
        self.output_dropout = Dropout(dropout, variational)
        self.output = Linear(hidden_size, vocab_size)
        if tie_weights:
            self.output.weight = self.embedding.weight
            with no_grad():  # scores of a tied table start as small as those of a Linear
                self.embedding.weight.copy_(self.embedding.weight * hidden_size**-0.5)
        if kind == "lstm":
            _open_forget_gates(self.rnn)

    def config(self) -> dict[str, Any]:
        """The arguments that make this model again."""
        return {
            "vocab_size": self.vocab_size,
            "kind": self.kind,
            "embedding_size": self.rnn.input_size,
            "hidden_size": self.rnn.hidden_size,
            "num_layers": self.rnn.num_layers,
            "dropout": self.rnn.dropout,
            "tie_weights": self.tie_weights,
            "variational": self.rnn.variational,
            "embedding_dropout": self.embedding_dropout,
            "weight_dropout": self.rnn.weight_dropout,
        }

    def forward(self, symbols: Any, state: Any = None) -> tuple[Tensor, Any]:
        """Scores (T, B, V) for the symbol after each of `symbols` (T, B), and the state after the last.

        symbols: integers, an array or a tensor. state: as a call before returned it, or None for zeros.
        """
        outputs, state = self.rnn(self.input_dropout(self.embedding(symbols)), state)
        return self.output(self.output_dropout(outputs)), state

    def loss(self, symbols: Any, targets: Any, state: Any = None) -> tuple[Tensor, Any]:
        """Mean cross-entropy in nats of `targets` (T, B), the symbols that did come next; and the state.

        The compiled kernels make the gradients of this loss together with it: one that is only looked at is
        best computed under no_grad().
        """
        if self._is_one_op(symbols, targets):
            symbols, targets = (x if hasattr(x, "dtype") else np.asarray(x) for x in (symbols, targets))
            return self._whole_loss(symbols, targets, state)
        logits, state = self(symbols, state)
        if not isinstance(targets, Tensor):
            targets = tensor(targets, backend=logits.backend)
        return cross_entropy(logits, targets), state

    def _is_one_op(self, symbols: Any, targets: Any) -> bool:
        """Whether nothing stands between the layers."""
        dropout = self.training and max(
            self.rnn.dropout, self.rnn.weight_dropout, self.input_dropout.p, self.output_dropout.p
        )
        plain = not isinstance(symbols, Tensor) and not isinstance(targets, Tensor)
        return self.is_plain() and not dropout and plain

    def is_plain(self) -> bool:
        """Whether it is what the constructor makes: a subclass may go another way forward, and any part may
        have been replaced by another."""
        return (
            type(self).forward is CharLM.forward
            and self.rnn.fused
            and getattr(self.rnn, "nonlinearity", "tanh") == "tanh"
            and type(self.embedding) is Embedding
            and type(self.rnn) is KINDS[self.kind]
            and type(self.output) is Linear
        )

    def _whole_loss(self, symbols: Any, targets: Any, state: Any) -> tuple[Tensor, Any]:
        inputs = self.inputs(state, symbols.shape[-1])
        options = {"symbols": symbols, "targets": targets, "kind": self.kind}
        loss, *ends = apply(TABLE["language_model"], tuple(inputs), options)
        return loss, tuple(ends) if self.rnn.states > 1 else ends[0]

    def inputs(self, state: Any, streams: int) -> list[Tensor]:
        """What the op language_model takes, in its order (see its Parts); zeros for a state of None."""
        rnn, weight = self.rnn, self.embedding.weight
        if state is None:
            shape = (rnn.num_layers, streams, rnn.hidden_size)
            state = Tensor(weight.backend.xp.zeros(shape, weight.dtype), None, 0, weight.backend)
            state = (state,) * rnn.states
        starts = state if isinstance(state, tuple) else (state,)
        inputs = [weight, self.output.weight, self.output.bias, *starts]
        for layer in range(rnn.num_layers):
            inputs += [getattr(rnn, f"{name}_l{layer}") for name in WEIGHTS]
        return inputs


def detach_state(state: Any) -> Any:
    """The state cut off from its history: this is what truncates back-propagation through time."""
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


def split_state(state: Any, cuts: list[int]) -> list[Any]:
    """The states of streams cuts[0]:cuts[1], cuts[1]:cuts[2] and so on; of no state, none each."""
    parts = pairwise(cuts)
    if state is None:
        return [None for _ in parts]
    if isinstance(state, tuple):
        return [tuple(s[:, start:end] for s in state) for start, end in parts]
    return [state[:, start:end] for start, end in parts]


def join_states(states: list[Any]) -> Any:
    """The inverse of split_state()."""
    if isinstance(states[0], tuple):
        return tuple(concatenate(parts, axis=1) for parts in zip(*states, strict=True))
    return concatenate(states, axis=1)


def _open_forget_gates(lstm: Any) -> None:
    """Start with the forget gates open (bias 1), so that the cells remember (Jozefowicz et al., 2015)."""
    H = lstm.hidden_size
    with no_grad():
        for layer in range(lstm.num_layers):
            getattr(lstm, f"bias_ih_l{layer}")[H : 2 * H] = 1.0
            getattr(lstm, f"bias_hh_l{layer}")[H : 2 * H] = 0.0
