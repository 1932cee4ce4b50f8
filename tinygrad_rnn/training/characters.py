"""Training a character model by truncated back-propagation through time (Williams & Peng, 1990).

The text is read a window at a time. The hidden state at the end of a window is where the next one starts,
but cut off from its history, so that gradients flow back to the start of the window and no further. It
starts at zero with each epoch, when the streams jump back to their beginnings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, DataError
from ..models import CharLM, detach_state, files, join_states, split_state
from ..text import Corpus, Vocabulary, Windows, sample
from ..text.sampling import opening
from . import events
from .checkpoint import state_arrays, state_from
from .config import TrainConfig
from .divergence import DivergenceError
from .estimate import check_memory
from .evaluation import evaluate
from .events import bits
from .trainer import Trainer, Validation, read_from

SAMPLE_LENGTH, SAMPLE_TEMPERATURE = 200, 0.8


class CharTrainer(Trainer[TrainConfig]):
    """Trains a character model on `corpus`."""

    model: CharLM
    other_data = "another text"
    refusal = (
        "the text is not the one that {} was trained on; bring the old one back, or go on with this one: "
        "--force"
    )
    speed_name = "chars_per_second"

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        emit: Callable[[events.Event], None] = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.corpus = corpus
        self.windows, self.val_windows = split_windows(corpus, config)
        check_memory(config, len(corpus.vocabulary), self.windows, self.val_windows)
        symbols, steps = len(corpus.vocabulary), len(self.windows)
        super().__init__(config, corpus.name, corpus.sha256, symbols, steps, emit, clock)

    def new_model(self) -> CharLM:
        self.state: Any = None
        config = self.config
        return CharLM(
            vocab_size=len(self.corpus.vocabulary),
            kind=config.kind,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            num_layers=config.layers,
            dropout=config.dropout,
            tie_weights=config.tie_weights,
            variational=config.variational,
            embedding_dropout=config.embedding_dropout,
            weight_dropout=config.weight_dropout,
        )

    def about(self) -> dict[str, int]:
        return {
            "vocabulary": len(self.corpus.vocabulary),
            "train_symbols": len(self.corpus.train),
            "val_symbols": len(self.corpus.held_out),
            "streams": self.windows.batch_size,
        }

    # --- a step -------------------------------------------------------------------------------------

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """A window (T, B) of the text, and the symbols that come next."""
        number = step % len(self.windows)
        if number == 0:
            self.state = None
        return self.windows[number]

    def losses(self, inputs: np.ndarray, targets: np.ndarray) -> Iterator[tuple[float, Any]]:
        streams = inputs.shape[1]
        parts = min(self.config.accumulate, streams)
        cuts = [streams * part // parts for part in range(parts + 1)]
        before = [self.state] if parts == 1 else split_state(self.state, cuts)
        states = []
        for (start, end), state in zip(pairwise(cuts), before, strict=True):
            loss, state = self.model.loss(inputs[:, start:end], targets[:, start:end], state)
            yield (end - start) / streams, loss
            states.append(detach_state(state))
        self._next_state = states[0] if parts == 1 else join_states(states)

    def accept(self) -> None:
        self.state = self._next_state

    def state_arrays(self) -> dict[str, np.ndarray]:
        return state_arrays(self.state)

    def restore_state(self, arrays: Mapping[str, np.ndarray], config: TrainConfig, same_data: bool) -> None:
        if same_data:  # the state belongs to a place in the text
            shape = (config.layers, self.windows.batch_size, config.hidden_size)
            parts = 2 if config.kind == "lstm" else 1
            self.state = state_from(arrays, parts, shape, self.config.backend)

    # --- after a step -------------------------------------------------------------------------------

    def validate(self) -> Validation | None:
        if self.val_windows is None:
            return None
        return Validation(evaluate(self.model, self.val_windows, self.going_on))

    def columns(self, of: str, loss: float | None) -> dict[str, float | None]:
        return {f"{of}_bits": None if loss is None else bits(loss)}

    def sample(self) -> str:
        """A text by the model."""
        vocabulary = self.corpus.vocabulary
        symbols = sample(
            self.model,
            opening(vocabulary),
            SAMPLE_LENGTH,
            SAMPLE_TEMPERATURE,
            seed=self.step,
            exclude=vocabulary.unknown,
        )
        try:
            return vocabulary.decode(list(symbols))
        except CheckpointError:  # finite weights, but so large that the predictions are not
            raise DivergenceError("the model's prediction is not finite") from None

    # --- checkpoints --------------------------------------------------------------------------------

    def save(self, path: Path, **of_training: Any) -> None:
        files.save(path, self.model, self.corpus.vocabulary, **of_training)

    def refuse_other_kind(self, header: Mapping[str, Any], file: Path) -> None:
        with read_from(file):
            vocabulary = Vocabulary.from_json(header["vocabulary"])
        if vocabulary != self.corpus.vocabulary:
            raise DataError(f"the text has other symbols than the model of {file} knows")


def split_windows(corpus: Corpus, config: TrainConfig) -> tuple[Windows, Windows | None]:
    """The windows to train on, and those held out if any. DataError if the text is too short for them."""
    name = ", ".join(config.corpus)
    try:
        windows = Windows(corpus.train, config.batch_size, config.seq_length)
    except DataError as error:
        raise DataError(
            f"the part of {name} to train on is {error} ({len(corpus.train) + len(corpus.held_out)} symbols "
            f"in all, {len(corpus.held_out)} held out); use a longer text or a smaller --seq-length"
        ) from None
    if len(corpus.held_out) == 0:
        return windows, None
    try:
        return windows, Windows(corpus.held_out, config.batch_size, config.seq_length, partial=True)
    except DataError as error:
        raise DataError(
            f"the held-out part of {name} is {error}; use a longer text, a larger --val-fraction, "
            "or --val-fraction 0"
        ) from None
