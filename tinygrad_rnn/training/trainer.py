"""The trainer: truncated back-propagation through time (Williams & Peng, 1990).

The text is read a window at a time. The hidden state at the end of a window is where the next one starts,
but cut off from its history, so that gradients flow back to the start of the window and no further. It
starts at zero with each epoch, when the streams jump back to their beginnings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..engine.random import manual_seed, set_step
from ..errors import CheckpointError, DataError, DivergedError
from ..models import CharLM, detach_state, files
from ..optim import by_name, clip_grad_norm_
from ..optim.schedules import cosine
from ..text import Corpus, Windows, sample
from ..text.sampling import opening
from . import events
from .config import Plan, TrainConfig
from .evaluation import evaluate
from .events import bits
from .run import RunFolder
from .threads import limited_threads

SAMPLE_LENGTH, SAMPLE_TEMPERATURE, SAMPLES = 200, 0.8, 5
HISTORY_EVERY = 10  # steps


class Trainer:
    """Trains the model that `config` describes on `corpus`.

    emit   is called with each event (see events.py)
    clock  gives seconds; the run's time limit and its schedule go by it
    """

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        emit: Callable[[events.Event], None] = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.corpus = config, corpus
        self._emit, self._clock = emit, clock
        self.windows, self.val_windows = split_windows(corpus, config)
        self.plan = Plan.of(config, len(self.windows))

        manual_seed(config.seed)
        self.model = CharLM(
            vocab_size=len(corpus.vocabulary),
            kind=config.kind,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            num_layers=config.layers,
            dropout=config.dropout,
        ).to(config.backend)
        self.parameters = list(self.model.parameters())
        self.optimizer = by_name(config.optimizer)(self.parameters, lr=config.lr)

        self.step = 0  # steps done
        self.state: Any = None
        self.best_loss: float | None = None
        self.best_step: int | None = None
        self._samples = 0
        self._stop_requested = False
        self._since_record = _Mean()
        self._since_evaluation = _Mean()

    @property
    def epoch(self) -> int:
        """The epoch that the last step belonged to, from 1."""
        return max(self.step - 1, 0) // len(self.windows) + 1

    @property
    def elapsed(self) -> float:
        """Seconds since train() began."""
        return self._clock() - self._began

    def stop(self) -> None:
        """Finish the step that is running, save, and end. May be called from a signal handler."""
        self._stop_requested = True

    def train(self, run: RunFolder) -> events.Finished:
        """Train to the end, and keep the checkpoints in `run`.

        Raises DivergedError if a loss, a gradient or a weight is not finite.
        """
        self.run = run
        self._began = self._clock()
        train, held_out = self.corpus.train, self.corpus.held_out
        self._emit(
            events.Started(
                run=run.path,
                parameters=self.model.num_parameters(),
                vocabulary=len(self.corpus.vocabulary),
                train_symbols=len(train),
                val_symbols=len(held_out),
                streams=self.windows.batch_size,
                plan=self.plan,
            )
        )
        reason = None
        # What is not finite is found below, with a better message than NumPy's.
        with np.errstate(all="ignore"), limited_threads(self.config):
            while reason is None:
                stepped = self._train_step()
                reason = self._reason_to_end()
                self._after(stepped, reason)
        finished = events.Finished(
            step=self.step,
            epoch=self.epoch,
            reason=reason,
            val_loss=self.best_loss,
            val_step=self.best_step,
            elapsed=self.elapsed,
            checkpoint=self.run.checkpoint(self.step),
        )
        self._emit(finished)
        return finished

    def _reason_to_end(self) -> str | None:
        if self._stop_requested:
            return "interrupted"
        if self.plan.steps is not None and self.step >= self.plan.steps:
            return "steps"
        if self.plan.seconds is not None and self.elapsed >= self.plan.seconds:
            return "minutes"
        return None

    def _train_step(self) -> events.Stepped:
        began = self._clock()
        number = self.step % len(self.windows)
        if number == 0:
            self.state = None
        inputs, targets = self.windows[number]
        set_step(self.step)
        self.optimizer.lr = self.config.lr * cosine(self.plan.progress(self.step, self.elapsed))
        self.step += 1

        self.optimizer.zero_grad()
        loss, state = self.model.loss(inputs, targets, self.state)
        self.state = detach_state(state)
        nats = self._finite(loss.item(), "the loss")
        if nats > 1000 * math.log(
            max(len(self.corpus.vocabulary), 2)
        ):  # a thousand times worse than guessing
            self._diverged(f"the loss is {nats:.4g}")
        loss.backward()
        grad_norm = self._finite(
            clip_grad_norm_(self.parameters, self.config.clip), "the norm of the gradient"
        )
        self.optimizer.step()

        duration = self._clock() - began
        for mean in (self._since_record, self._since_evaluation):
            mean.add(nats, targets.size, duration)
        stepped = events.Stepped(
            step=self.step,
            epoch=self.epoch,
            loss=nats,
            grad_norm=grad_norm,
            lr=self.optimizer.lr,
            symbols=targets.size,
            duration=duration,
            elapsed=self.elapsed,
            progress=self.plan.progress(self.step, self.elapsed),
        )
        self._emit(stepped)
        return stepped

    def _after(self, stepped: events.Stepped, reason: str | None) -> None:
        """Evaluate, write down, save and sample what is due after a step; `reason` if it was the last."""
        step, plan = self.step, self.plan
        interrupted = reason == "interrupted"
        evaluates = (step % plan.eval_every == 0 or reason is not None) and not interrupted
        saves = step % plan.checkpoint_every == 0 or reason is not None
        val_loss = self._evaluate() if evaluates else None
        if evaluates or saves or step % HISTORY_EVERY == 0:
            self._record(stepped, val_loss)
        if saves:
            path = self.run.checkpoint(step)
            self._write(path, val_loss)
            self.run.drop_old_checkpoints()
            self._emit(events.Saved(step, path))
        if plan.sample_every is not None:
            samples = step % plan.sample_every == 0
        else:  # spread over the whole run, none before there is something to see
            samples = stepped.progress * SAMPLES >= self._samples + 1
        if samples and not interrupted:
            self._sample()

    def _evaluate(self) -> float | None:
        """The validation loss, if there is a held-out part; keeps the model if it is the best so far."""
        val_loss, best = None, False
        if self.val_windows is not None:
            val_loss = self._finite(evaluate(self.model, self.val_windows), "the validation loss")
            best = self.best_loss is None or val_loss < self.best_loss
        if best:
            self.best_loss, self.best_step = val_loss, self.step
            self._write(self.run.best, val_loss)
        train_loss, self._since_evaluation = self._since_evaluation.loss, _Mean()
        self._emit(events.Evaluated(self.step, self.epoch, train_loss, val_loss, best, self.elapsed))
        return val_loss

    def _record(self, stepped: events.Stepped, val_loss: float | None) -> None:
        """Add to the history; the training loss is the mean since the record before."""
        mean, self._since_record = self._since_record, _Mean()
        self.run.append_history(
            {
                "step": self.step,
                "epoch": self.epoch,
                "train_loss": mean.loss,
                "train_bits": bits(mean.loss),
                "val_loss": val_loss,
                "val_bits": None if val_loss is None else bits(val_loss),
                "grad_norm": stepped.grad_norm,
                "lr": stepped.lr,
                "chars_per_second": round(mean.symbols / mean.seconds) if mean.seconds else None,
                "seconds": round(self.elapsed, 3),
            }
        )

    def _write(self, path: Path, val_loss: float | None) -> None:
        for name, parameter in self.model.named_parameters():
            self._finite(float(np.abs(parameter.numpy()).max()), f"the weight {name}")
        meta = {"step": self.step, "epoch": self.epoch, "val_loss": val_loss, "corpus": self.corpus.name}
        files.save(path, self.model, self.corpus.vocabulary, meta)

    def _sample(self) -> None:
        self._samples += 1
        vocabulary = self.corpus.vocabulary
        symbols = sample(self.model, opening(vocabulary), SAMPLE_LENGTH, SAMPLE_TEMPERATURE, seed=self.step)
        try:
            text = vocabulary.decode(list(symbols))
        except CheckpointError:  # finite weights, but so large that the predictions are not
            self._finite(math.nan, "the model's prediction")
            raise
        self.run.append_sample(f"step {self.step}, epoch {self.epoch}", text)
        self._emit(events.Sampled(self.step, self.epoch, text))

    def _finite(self, value: float, what: str) -> float:
        """`value`, unless it is NaN or infinite: DivergedError says when, and what is left."""
        if not math.isfinite(value):
            self._diverged(f"{what} is {value}")
        return value

    def _diverged(self, what: str) -> NoReturn:
        try:
            kept = f"the last good checkpoint is {files.find_checkpoint(self.run.path, 'last')}"
        except CheckpointError:
            kept = "there is no checkpoint from before"
        raise DivergedError(
            f"{what} at step {self.step}; {kept}; a smaller --lr (it is {self.config.lr:g}) or "
            f"--clip (it is {self.config.clip:g}) may help"
        )


class _Mean:
    """The mean training loss over some steps, and how fast they went."""

    def __init__(self) -> None:
        self.symbols, self.seconds, self._nats = 0, 0.0, 0.0

    def add(self, loss: float, symbols: int, seconds: float) -> None:
        self.symbols += symbols
        self.seconds += seconds
        self._nats += loss * symbols

    @property
    def loss(self) -> float:
        return self._nats / self.symbols


def split_windows(corpus: Corpus, config: TrainConfig) -> tuple[Windows, Windows | None]:
    """The windows to train on, and those held out if any. DataError if the text is too short for them."""
    train, held_out = corpus.train, corpus.held_out
    try:
        windows = Windows(train, config.batch_size, config.seq_length)
    except DataError as error:
        raise DataError(
            f"the part of {config.corpus} to train on is {error} "
            f"({len(train) + len(held_out)} symbols in all, {len(held_out)} held out); "
            "use a longer text or a smaller --seq-length"
        ) from None
    if len(held_out) == 0:
        return windows, None
    try:
        return windows, Windows(held_out, config.batch_size, config.seq_length, partial=True)
    except DataError as error:
        raise DataError(
            f"the held-out part of {config.corpus} is {error}; use a longer text, a larger --val-fraction, "
            "or --val-fraction 0"
        ) from None
