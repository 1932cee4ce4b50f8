"""The trainer: steps, what is due after one, and what happens when numbers stop being numbers.

Of what it trains, and on what, it knows nothing: that is said by CharTrainer (characters.py) and ImageTrainer
(images.py), in the methods that are named first.

All that a step depends on is in the checkpoint (see checkpoint.py), so that a training that was killed and
goes on computes the same numbers to the last bit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from ..atomic import write_atomically
from ..engine import random
from ..engine.ops.fused import use_kernels
from ..errors import (
    CheckpointError,
    DataError,
    DivergedError,
    InexactError,
    StorageError,
    TinygradError,
)
from ..models import files
from ..nn import Module
from ..optim import Average, by_name, clip_grad_norm_, schedules
from . import events
from .checkpoint import Mean, Standing, remembered, restore_remembered, seconds
from .divergence import DivergenceError, cause, check_arrays, check_weights, finite, worst_weight
from .evaluation import StoppedError
from .fingerprint import differences, fingerprint
from .plan import Plan
from .run import RunFolder
from .settings import Settings, refuse_changes
from .threads import limited_threads

SAMPLES = 5  # in a run
HISTORY_EVERY = 10  # steps
MOST_SKIPPED, MOST_REWOUND = 10, 5  # steps in a row; times in all
WORSE_THAN_GUESSING = 1000  # times: nothing comes back from there


Config = TypeVar("Config", bound=Settings)


class Validation(NamedTuple):
    """loss: mean over what is held out, in nats. measures: what else was found, for history and events."""

    loss: float
    measures: Mapping[str, float] = MappingProxyType({})


class Trainer(ABC, Generic[Config]):
    """Trains the model that `config` describes.

    data_name, data_sha256  of what is trained on
    choices                 what a guess chooses from: different symbols, or classes
    steps_per_epoch         after which all data have been seen once more
    emit   is called with each event (see events.py)
    clock  gives seconds; the run's time limit and its schedule go by it
    """

    other_data: ClassVar[str]  # what is said of data that a run did not begin with: "another text"
    refusal: ClassVar[str]  # of such data, to be completed by the checkpoint's name
    speed_name: ClassVar[str]  # in history.jsonl

    # --- what is trained ------------------------------------------------------------------------------

    @abstractmethod
    def new_model(self) -> Module:
        """The model before its first step, in host memory."""

    @abstractmethod
    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of a step, which is counted from 0 over all epochs."""

    @abstractmethod
    def losses(self, inputs: np.ndarray, targets: np.ndarray) -> Iterator[tuple[float, Any]]:
        """The mean losses of the parts of a batch, and how much of it each part is. The one that is given is
        differentiated before the next one is asked for."""

    @abstractmethod
    def validate(self) -> Validation | None:
        """The model's loss on what is held out, if anything is. It is told by going_on() when to stop."""

    @abstractmethod
    def about(self) -> dict[str, int]:
        """How much there is to train on, for those who listen."""

    @abstractmethod
    def save(self, path: Path, **of_training: Any) -> None:
        """A checkpoint: the model, all it takes to use it, and what belongs to its training."""

    @abstractmethod
    def refuse_other_kind(self, header: Mapping[str, Any], file: Path) -> None:
        """Raise DataError if the checkpoint's model is for other inputs or outputs than those of the data."""

    def is_best(self, found: Validation) -> bool:
        """Whether no validation before it came to a better result; the model is kept then."""
        return self.standing.best_loss is None or found.loss < self.standing.best_loss

    def accept(self) -> None:
        """The last gradient was finite, and a step is made with it."""

    def state_arrays(self) -> dict[str, np.ndarray]:
        """What is carried from step to step beside the model, as state/name."""
        return {}

    def restore_state(self, arrays: Mapping[str, np.ndarray], config: Config, same_data: bool) -> None:
        """The inverse. CheckpointError for what state_arrays() has not made with these settings."""

    def columns(self, of: str, loss: float | None) -> dict[str, float | None]:
        """What history.jsonl says besides of a loss "train" or "val"."""
        return {}

    def sample(self) -> str | None:
        """What a person reads to see how far the model is; None if there is no such thing."""
        return None

    # --- its life -------------------------------------------------------------------------------------

    def __init__(
        self,
        config: Config,
        data_name: str,
        data_sha256: str,
        choices: int,
        steps_per_epoch: int,
        emit: Callable[[events.Event], None],
        clock: Callable[[], float],
    ) -> None:
        self.config = config
        self._emit, self._clock = emit, clock
        self._data_name, self._data_sha256, self._choices = data_name, data_sha256, choices
        self.plan = Plan.of(config, steps_per_epoch)
        self._stop_requested = False
        self._resumed: events.Resumed | None = None
        self._last: Path | None = None  # checkpoint, which rewinding goes back to
        self._rewound_to: int | None = None  # step, while no checkpoint has been written since
        self._takes_any_data = False  # --force
        self._inexact: list[str] = []  # why the numbers may not be those of an uninterrupted run
        self._start()

    def _start(self) -> None:
        """Everything as it is before the first step."""
        config = self.config
        random.manual_seed(config.seed)
        self.model = self.new_model().to(config.backend)
        self._named = list(self.model.named_parameters())
        self.parameters = [parameter for _, parameter in self._named]
        # The mean is of the running statistics of batch normalisation as well.
        averaged = [*self._named, *(b for b in self.model.named_buffers() if b[1].dtype.kind == "f")]
        self.names, self._averaged_names = ([name for name, _ in some] for some in (self._named, averaged))
        self.optimizer = by_name(config.optimizer)(self.parameters, lr=config.lr, **config.optimizer_options)
        self.average = Average([one for _, one in averaged], config.average) if config.average else None
        self.schedule = schedules.by_name(config.schedule)
        self.standing = Standing()
        self._elapsed_before = 0.0
        self._began = self._clock()
        self._since_record = self._began

    @property
    def step(self) -> int:
        """Steps done."""
        return self.standing.step

    @property
    def epoch(self) -> int:
        """The epoch that the last step belonged to, from 1."""
        return max(self.step - 1, 0) // self.plan.steps_per_epoch + 1

    @property
    def elapsed(self) -> float:
        """Seconds of training, also before it was resumed."""
        return self._elapsed_before + self._clock() - self._began

    def stop(self) -> None:
        """Finish the step that is running, save, and end. May be called from a signal handler."""
        self._stop_requested = True

    def resume(
        self, run: RunFolder, file: Path | None = None, force: bool = False, require_exact: bool = False
    ) -> events.Resumed:
        """Go on from a checkpoint of `run`, the newest unless `file`, or from the beginning if it has none.

        Raises CheckpointError for one that is damaged, UsageError if a setting differs that must not,
        DataError if the data are not those that the run began with, unless `force`, and under
        `require_exact` InexactError if the numbers may not be those of a run without interruption.
        """
        self._takes_any_data = force
        file = file or run.latest_checkpoint()
        length = None
        if file is not None:
            length = self._length_changed(self._restore(file))
        if self._inexact and require_exact:
            raise InexactError(f"resuming {run.path} would be inexact ({'; '.join(self._inexact)})")
        run.go_back(self.step, self.standing.samples_size)
        numbered = run.checkpoint(self.step)
        # The best is saved first: a process that dies then leaves the numbered one of that step to the next.
        left_out = file == run.best and not numbered.exists() and self._saves(self._reason_to_end())
        if file is not None and (left_out or file.parent == run.path / "superseded"):
            write_atomically(numbered, file.read_bytes())
            file = numbered
        self._last = file
        self._resumed = events.Resumed(self.step, file, tuple(self._inexact), length)
        return self._resumed

    def train(self, run: RunFolder) -> events.Finished:
        """Train to the end, and keep the checkpoints in `run`.

        Raises DivergedError if a loss, a gradient or a weight is not finite (see Settings.on_nan), and
        StorageError if a file of the run cannot be written.
        """
        self.run = run
        self._since_record += self._clock() - self._began  # what came between does not count
        self._began = self._clock()
        self._emit(
            events.Started(
                run=run.path, parameters=self.model.num_parameters(), about=self.about(), plan=self.plan
            )
        )
        if self._resumed is not None:
            self._emit(self._resumed)
        reason = self._reason_to_end() if self.step and not self.standing.unfinished else None
        # What is not finite is found below, with a better message than NumPy's.
        with np.errstate(all="ignore"), use_kernels(self.config.kernels), limited_threads(self.config):
            self._fingerprint = fingerprint(self.config.backend)
            while reason is None:
                try:
                    stepped = self._left_unfinished() or self.train_step()
                    reason = self._after(stepped)
                except DivergenceError as error:
                    self._rewind(str(error))
                except OSError as error:
                    raise StorageError(
                        f"cannot write {error.filename or run.path} at step {self.step}: "
                        f"{error.strerror or error}; {self._kept()}"
                    ) from None
        assert self._last is not None
        finished = events.Finished(
            step=self.step,
            epoch=self.epoch,
            reason=reason,
            val_loss=self.standing.best_loss,
            val_step=self.standing.best_step,
            elapsed=self.elapsed,
            run=run.path,
            checkpoint=self._last,
            measures=self.standing.best_measures,
        )
        self._emit(finished)
        return finished

    def _reason_to_end(self) -> str | None:
        patience = self.config.patience
        if self.plan.steps is not None and self.step >= self.plan.steps:
            return "steps"
        if self.plan.seconds is not None and self.elapsed >= self.plan.seconds:
            return "minutes"
        if patience is not None and self.standing.evaluations_waiting >= patience:
            return "patience"
        return "interrupted" if self._stop_requested else None

    # --- a step -------------------------------------------------------------------------------------

    def train_step(self) -> events.Stepped:
        """A step, without what may be due after one: records, validation, samples, checkpoints."""
        began = self._clock()
        inputs, targets = self.batch(self.step)
        self.optimizer.lr = self._learning_rate()
        self.standing.step += 1

        loss, grad_norm, skipped = math.nan, math.nan, None
        before = [buffer.array.copy() for buffer in self.model.buffers()]
        try:
            loss = self.gradient(inputs, targets)
            grad_norm = finite(clip_grad_norm_(self.parameters, self.config.clip), "the norm of the gradient")
        except DivergenceError as error:
            skipped = self._skip(str(error), inputs, targets)
            for buffer, array in zip(self.model.buffers(), before, strict=True):
                buffer.array[...] = array
        else:
            self.standing.skipped = 0
            self.accept()
            self.optimizer.step()
            if self.average is not None:
                self.average.update()
            for mean in (self.standing.since_record, self.standing.since_evaluation):
                mean.add(loss, targets.size)

        stepped = events.Stepped(
            step=self.step,
            epoch=self.epoch,
            loss=loss,
            grad_norm=grad_norm,
            lr=self.optimizer.lr,
            examples=targets.size,
            duration=self._clock() - began,
            elapsed=self.elapsed,
            progress=self.plan.progress(self.step, self.elapsed),
            skipped=skipped,
        )
        self._emit(stepped)
        return stepped

    def _left_unfinished(self) -> events.Stepped | None:
        """The last step, if a stop came before what follows a step was done."""
        unfinished, self.standing.unfinished = self.standing.unfinished, None
        if unfinished is None:
            return None
        grad_norm, lr = unfinished["grad_norm"], unfinished["lr"]
        return events.Stepped(
            step=self.step,
            epoch=self.epoch,
            loss=math.nan,
            grad_norm=math.nan if grad_norm is None else grad_norm,
            lr=lr or 0.0,
            examples=0,
            duration=0.0,
            elapsed=self.elapsed,
            progress=self.plan.progress(self.step, self.elapsed),
        )

    def _learning_rate(self) -> float:
        factor = self.schedule(self.plan.progress(self.step, self.elapsed))
        factor *= schedules.warmup(self.step, self.config.warmup)
        return self.config.lr * factor * 0.5**self.standing.rewound

    def gradient(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """The gradients of a batch, left on the parameters; its mean loss in nats.

        It is taken in `accumulate` parts one after the other. A part's mean loss counts as much as it holds
        of the batch, so the gradients add up to that of the whole.
        """
        random.set_step(self.step - 1, self.config.seed)  # of the masks
        self.optimizer.zero_grad()
        nats = 0.0
        for share, loss in self.losses(inputs, targets):
            (loss * share if share < 1 else loss).backward()
            # Not before: a GPU would be waited for, and stand idle until it is told of the backward pass.
            nats += share * finite(loss.item(), "the loss")
            if nats > WORSE_THAN_GUESSING * math.log(max(self._choices, 2)):
                raise DivergenceError(f"the loss is {nats:.4g}")
        return nats

    # --- what is not finite -------------------------------------------------------------------------

    def _skip(self, what: str, inputs: np.ndarray, targets: np.ndarray) -> str:
        """Leave everything as it was before the step, if that is what the settings say."""
        why = cause(self._named, lambda: self.gradient(inputs, targets))
        reason = f"{what} ({why})" if why else what
        self.standing.skipped += 1
        if self.config.on_nan == "skip" and self.standing.skipped < MOST_SKIPPED:
            self.optimizer.zero_grad()
            return reason
        if self.config.on_nan == "skip":
            reason += f", the {MOST_SKIPPED}th step in a row that would be skipped"
        raise DivergenceError(reason)

    def _rewind(self, reason: str) -> None:
        """Go back to the last checkpoint with half the learning rate, if that is what the settings say."""
        at, rewound, elapsed = self.step, self.standing.rewound + 1, self.elapsed
        if self.config.on_nan != "rewind" or rewound > MOST_REWOUND:
            again = f" after {MOST_REWOUND} rewinds" if self.config.on_nan == "rewind" else ""
            also = ", or --on-nan skip or rewind," if self.config.on_nan == "stop" else ""
            with suppress(OSError):  # a full disk is not what ended it
                self.run.append_history(
                    {"step": at, "epoch": self.epoch, "seconds": round(elapsed, 3), "diverged": reason}
                )
            raise DivergedError(
                f"at step {at}{again}, {reason}; {self._kept()}; a smaller --lr "
                f"(it is {self.config.lr:g}) or --clip (it is {self.config.clip:g}){also} may help"
            )
        if self._rewound_to is not None:
            self._last = self._earlier(self._rewound_to)
        if self._last is not None:
            self._restore(self._last)
        else:
            self._start()
        self._rewound_to = self.step
        self._elapsed_before = elapsed  # time does not come back
        self.standing.rewound = rewound
        self.run.go_back(self.step, self.standing.samples_size)
        self._emit(events.Rewound(at, self.step, reason, self._learning_rate()))

    def _earlier(self, step: int) -> Path | None:
        """The checkpoint before that of `step`, which has led here twice: its weights may be finite, and yet
        nothing comes back from them. None from before the best one, whose weights went well."""
        best = self.standing.best_step or 0
        earlier = [file for file in files.numbered(self.run.path) if best <= files.step_of(file) < step]
        return earlier[-1] if earlier else self.run.best if 0 < best < step else self._last

    def _kept(self) -> str:
        return f"the last good checkpoint is {self._last}" if self._last else "there is no checkpoint yet"

    # --- after a step -------------------------------------------------------------------------------

    def _after(self, stepped: events.Stepped) -> str | None:
        """Evaluate, write down, sample and save what is due; the reason to end if this was the last step."""
        step, plan = self.step, self.plan
        reason = self._reason_to_end()
        evaluates = step % plan.eval_every == 0 or reason not in (None, "interrupted")
        validation = None
        try:
            with self._averaged():
                if evaluates:
                    validation = self._evaluate()
                # First of all: if there can be none, this step has no other record than that.
                text = self.sample() if self._samples_now(stepped) else None
                if evaluates or step % HISTORY_EVERY == 0:
                    self._record(stepped, validation)
                if text is not None:
                    self._keep_sample(text)
        except DivergenceError as error:
            raise DivergenceError(f"{error} ({worst_weight(self._named)})") from None
        except StoppedError:  # a validation may take long; a resume begins with it
            grad_norm = stepped.grad_norm if math.isfinite(stepped.grad_norm) else None
            self.standing.unfinished = {"grad_norm": grad_norm, "lr": stepped.lr}
            reason, evaluates = "interrupted", False
        if evaluates:  # patience, or the time it took, may end the training, but nothing without a validation
            reason = self._reason_to_end()
        best = evaluates and self.standing.best_step == step
        saves, finished = self._saves(reason), reason not in (None, "interrupted")
        if best or saves:
            self.run.flush()
        if best:
            self._write(self.run.best, validation, finished)
            self._last, self._rewound_to = self.run.best, None
        if saves:
            path = self.run.checkpoint(step)
            self._write(path, validation, finished)
            self._last, self._rewound_to = path, None
            self.run.drop_old_checkpoints(self.config.keep)
            self._emit(events.Saved(step, path))
        return reason

    def _saves(self, reason: str | None) -> bool:
        """Whether a numbered checkpoint is due after this step, or after the last one, which has a reason."""
        return self.step % self.plan.checkpoint_every == 0 or reason is not None

    def _averaged(self) -> AbstractContextManager[Any]:
        """In this block the weights are their running mean, where one is kept."""
        return nullcontext() if self.average is None else self.average.applied()

    def _samples_now(self, stepped: events.Stepped) -> bool:
        if self.plan.sample_every is not None:
            return self.step % self.plan.sample_every == 0
        # Spread over the whole run, none before there is something to see.
        return stepped.progress * SAMPLES >= self.standing.samples + 1

    def _evaluate(self) -> Validation | None:
        """The validation loss, if there is something held out; keeps the model if it is the best so far."""
        standing, best = self.standing, False
        if (found := self.validate()) is not None:
            val_loss = finite(found.loss, "the validation loss")
            best = self.is_best(found)
            standing.evaluations_waiting = 0 if best else standing.evaluations_waiting + 1
            if isinstance(self.schedule, schedules.Plateau):
                self.schedule.step(val_loss)
        train_loss = standing.since_evaluation.loss
        standing.since_evaluation = Mean()
        if best and found is not None:
            standing.best_loss, standing.best_step = found.loss, self.step
            standing.best_measures = dict(found.measures)
        self._emit(
            events.Evaluated(
                step=self.step,
                epoch=self.epoch,
                train_loss=train_loss,
                val_loss=None if found is None else found.loss,
                measures={} if found is None else dict(found.measures),
                best=best,
                elapsed=self.elapsed,
            )
        )
        return found

    def going_on(self, done: float) -> bool:
        """Whether a validation that is so far, from 0 to 1, may go on."""
        self._emit(events.Evaluating(self.step, done))
        return not self._stop_requested

    def _record(self, stepped: events.Stepped, validation: Validation | None) -> None:
        """Add to the history; the training loss is the mean since the record before."""
        mean, self.standing.since_record = self.standing.since_record, Mean()
        before, self._since_record = self._since_record, self._clock()
        seconds = self._since_record - before
        val_loss, measures = (None, {}) if validation is None else validation
        record = {
            "step": self.step,
            "epoch": self.epoch,
            "train_loss": mean.loss,
            **self.columns("train", mean.loss),
            "val_loss": val_loss,
            **self.columns("val", val_loss),
            **measures,
            "grad_norm": stepped.grad_norm if math.isfinite(stepped.grad_norm) else None,
            "lr": stepped.lr,
            self.speed_name: round(mean.symbols / seconds) if seconds > 0 else None,
            "seconds": round(self.elapsed, 3),
        }
        self.run.append_history(record)
        self._emit(events.Recorded(record))

    def _keep_sample(self, text: str) -> None:
        self.standing.samples += 1
        self.run.append_sample(f"step {self.step}, epoch {self.epoch}", text)
        self.standing.samples_size = self.run.samples_size()
        self._emit(events.Sampled(self.step, self.epoch, text))

    # --- checkpoints --------------------------------------------------------------------------------

    def _write(self, path: Path, validation: Validation | None, finished: bool) -> None:
        """A checkpoint. DivergenceError if it would hold a number that is not finite."""
        check_weights([*self._named, *self.model.named_buffers()])
        meta = {
            "step": self.step,
            "epoch": self.epoch,
            "val_loss": None if validation is None else validation.loss,
            **({} if validation is None else validation.measures),
            "parameters": self.model.num_parameters(),
            "corpus": self._data_name,
            "finished": finished,
        }
        training = {
            "config": self.config.to_json(),
            "standing": self.standing.to_json(),
            "optimizer_steps": self.optimizer.steps,
            "plateau": self.schedule.state_dict() if isinstance(self.schedule, schedules.Plateau) else None,
            "random": random.snapshot(),
            "corpus_sha256": self._data_sha256,
            "fingerprint": self._fingerprint,
            "inexact": self._inexact,
            "time": {"elapsed": self.elapsed, "since_record": self._clock() - self._since_record},
        }
        arrays = {**remembered("optimizer", self.optimizer, self.names), **self.state_arrays()}
        if self.average is not None:
            training["average_steps"] = self.average.steps
            arrays |= remembered("average", self.average, self._averaged_names)
            arrays |= {f"weights/{name}": array for name, array in self.model.state_dict().items()}
        # A square of a gradient may be infinite where the weights are not.
        check_arrays((f"the array {name}", array) for name, array in arrays.items())
        with self._averaged():
            self.save(path, meta=meta, training=training, arrays=arrays)

    def _restore(self, file: Path) -> Config:
        """Everything as the checkpoint has it; the settings it was written with."""
        _, header, arrays = files.read(file)
        training = header.get("training")
        if not isinstance(training, dict):
            raise CheckpointError(f"{file} holds a model only; a training cannot go on from it")
        with read_from(file):
            settings = type(self.config).of(training["config"], str(file))
            inexact = list(training["inexact"])
            if not all(isinstance(reason, str) for reason in inexact):
                raise TypeError("inexact is not a list of reasons")
        refuse_changes(settings, self.config, f" in {file}")
        self.refuse_other_kind(header, file)  # first: --force would not help
        same_data = training.get("corpus_sha256") == self._data_sha256
        if not same_data and not self._takes_any_data:
            raise DataError(self.refusal.format(file))
        inexact += [] if same_data else [self.other_data]
        with use_kernels(self.config.kernels), limited_threads(self.config):
            inexact += differences(training.get("fingerprint", {}), fingerprint(self.config.backend))
        self._start()
        self._inexact = list(dict.fromkeys(inexact))
        with read_from(file):
            own = self.model.state_dict()
            weights = {name: arrays[f"weights/{name}" if self.average else name] for name in own}
            self.model.load_state_dict(weights)
            steps = training["optimizer_steps"]
            restore_remembered("optimizer", self.optimizer, self.names, steps, arrays)
            if self.average is not None:
                names, steps = self._averaged_names, training["average_steps"]
                restore_remembered("average", self.average, names, steps, arrays)
            if isinstance(self.schedule, schedules.Plateau):
                self.schedule.load_state_dict(training["plateau"])
            self.standing = Standing.from_json(training["standing"])
            self.restore_state(arrays, settings, same_data)
            random.restore(training["random"])
            self._elapsed_before = seconds(training["time"]["elapsed"])
            self._since_record = self._began - seconds(training["time"]["since_record"])
        return settings

    def _length_changed(self, before: Config) -> str | None:
        """What a person should know whose learning rate goes by a length that is not what it was."""
        old, new = Plan.of(before, self.plan.steps_per_epoch), self.plan
        by_progress = not isinstance(self.schedule, schedules.Plateau) and self.config.schedule != "constant"
        if not by_progress or (old.steps, old.seconds) == (new.steps, new.seconds):
            return None
        factor = self.schedule(old.progress(self.step, self.elapsed))
        was = self.config.lr * factor * 0.5**self.standing.rewound
        return (
            "the run has another length now, and the learning rate goes by it: "
            f"{was:.3g} -> {self._learning_rate():.3g}"
        )


@contextmanager
def read_from(file: Path) -> Iterator[None]:
    """What is wrong in this block is wrong with the checkpoint."""
    try:
        yield
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OverflowError,
        TinygradError,
    ) as error:
        raise CheckpointError(f"{file} does not hold a training of this program: {error}") from None
