"""How a training looks: a live line at the foot of the terminal, and above it a line an epoch.

Epochs and samples go to standard output. The live line needs a terminal for both outputs: were one of them
piped (`trnn train ... | tee log`), whoever is at the other end would write over it. Without it a plain line
comes on standard error now and then. JsonLines is the same for machines. Neither ever fails: a training
outlives the terminal that it was started from.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tinygrad_rnn.text.sources import STDIN, shortened, text_files
from tinygrad_rnn.training import ImageConfig, TrainConfig, events
from tinygrad_rnn.training.events import bits
from tinygrad_rnn.training.settings import Settings

from .layout import width
from .terminal import clock, counted, printable, unfailing

FIRST_PLAIN, PLAIN_EVERY = (
    10.0,
    60.0,
)  # seconds to the first progress line without a live one, and between two
INDENT = 4  # columns before a sample
SPARE = 4  # columns at the end of the live line, so that the terminal's ^C does not begin another
SMOOTHING = 0.05  # weight of the newest step in the loss and the speed of the live line


class Display:
    """Listens to a trainer. Use `live()` around its train()."""

    def __init__(self, config: TrainConfig | ImageConfig) -> None:
        self.config = config
        self.progress_console = Console(file=unfailing(sys.stderr), highlight=False)
        terminals = sys.stdout.isatty() and sys.stderr.isatty()
        self.has_live_line = terminals and not self.progress_console.is_dumb_terminal
        # One screen: lines go above the live one.
        self.console = (
            self.progress_console
            if self.has_live_line
            else Console(file=unfailing(sys.stdout), highlight=False)
        )
        self._unit = config.units
        self._loss = self._speed = 0.0
        self._last: events.Stepped | None = None
        self._validated: float | None = None  # how much, while a validation runs
        self._steps = 0
        self._next_plain: float | None = None
        self._epochs = ""

    def live(self) -> AbstractContextManager[Any]:
        """The live line, while this is open."""
        if not self.has_live_line:
            return nullcontext()
        return Live(
            console=self.progress_console,
            get_renderable=self._live_line,
            refresh_per_second=5,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Started():
                self._started(event)
            case events.Resumed():
                how = f"inexact ({'; '.join(event.reasons)})" if event.reasons else "exact"
                self.say(f"resume: {how}, after step {event.step:,}")
                if event.length_changed:
                    self.say(event.length_changed)
            case events.Stepped():
                self._stepped(event)
            case events.Evaluating():
                self._validated = event.done if event.done < 1 else None
            case events.Rewound():
                self.say(f"{event.reason} at step {event.at}; back to step {event.to}, lr {event.lr:.3g}")
            case events.Evaluated():
                self._evaluated(event)
            case events.Sampled():
                self._sampled(event)
            case events.Finished():
                self._finished(event)

    def _started(self, event: events.Started) -> None:
        if event.plan.steps is not None:
            self._epochs = f"/{-(-event.plan.steps // event.plan.steps_per_epoch)}"
        for line in describe(self.config, event):
            self.say(line)
        self.say(f"run: {event.run}")

    def _stepped(self, event: events.Stepped) -> None:
        if event.skipped is not None:
            self.say(f"{event.skipped} at step {event.step}; the step is skipped")
            return
        speed = event.examples / event.duration if event.duration > 0 else 0.0
        self._steps += 1
        weight = max(SMOOTHING, 1 / self._steps)  # a plain mean at first
        self._loss += weight * (event.loss - self._loss)
        self._speed += weight * (speed - self._speed)
        self._last = event
        if self._next_plain is None:
            self._next_plain = event.elapsed - event.duration + FIRST_PLAIN
        if not self.has_live_line and event.elapsed >= self._next_plain:
            self._next_plain = event.elapsed + PLAIN_EVERY
            parts = [f"step {event.step}", *self._parts(event).values()]
            self.progress_console.print(Text(", ".join(parts)), soft_wrap=True)

    def _evaluated(self, event: events.Evaluated) -> None:
        line = Text(f"epoch {event.epoch}{self._epochs}  step {event.step}")
        if event.train_loss is not None:
            line.append(f"  train {event.train_loss:.4f}")
        if event.val_loss is not None:
            line.append("  validation ").append(f"{event.val_loss:.4f}", "bold")
            line.append(self._besides(event.val_loss, event.measures))
            if event.best:
                line.append("  best", "green")
        self.say(line)

    def _sampled(self, event: events.Sampled) -> None:
        self.say(Text(f"--- step {event.step}, epoch {event.epoch} ---", "dim"))
        text = printable(event.text).strip("\n")
        lines = Text(text, "dim").split("\n", allow_blank=True)
        if (columns := width()) is not None:  # cut here, so that all of it is indented
            lines = Text(text, "dim").wrap(self.console, max(columns - INDENT, 1))
        for line in lines:
            self.console.print(Text(" " * INDENT) + line, soft_wrap=True)

    def _finished(self, event: events.Finished) -> None:
        if event.reason == "interrupted":
            self.say(f"interrupted at step {event.step}; saved {event.checkpoint}")
            self.say(f"to go on: {self.config.command} --resume {event.run}")
            return
        why = ": no better validation for a while" if event.reason == "patience" else ""
        line = f"done{why}: {counted(event.step, 'step')} in {clock(event.elapsed)}"
        if event.val_loss is not None:
            besides = self._besides(event.val_loss, event.measures)
            best = f"best validation loss {event.val_loss:.4f} nats{besides}"
            if "val_accuracy" in event.measures:  # which decides
                accuracy = 100 * event.measures["val_accuracy"]
                best = f"best accuracy {accuracy:.2f} %, loss {event.val_loss:.4f} nats,"
            line += f"; {best} at step {event.val_step:,}"
        self.say(line)

    def _besides(self, loss: float, measures: Mapping[str, float]) -> str:
        """What else is said of a validation: the loss in bits, or how many images were recognised."""
        if "val_accuracy" in measures:
            return f", accuracy {100 * measures['val_accuracy']:.2f} %"
        return f" = {bits(loss):.3f} bits/{self._unit}"

    def say(self, line: str | Text) -> None:
        """Print a line; on a terminal it is cut between words and nowhere else, so that whoever copies a path
        gets all of it."""
        text = Text(printable(line)) if isinstance(line, str) else line
        columns = width()
        for part in [text] if columns is None else _between_words(text, columns):
            self.console.print(part, soft_wrap=True)

    def _parts(self, event: events.Stepped) -> dict[str, str]:
        left = event.elapsed * (1 - event.progress) / max(event.progress, 1e-9)
        speed = self._speed
        parts = {
            "epoch": f"epoch {event.epoch}{self._epochs}",
            "loss": f"loss {self._loss:.3f}",
            "bits": f"{bits(self._loss):.2f} bits/{self._unit}",
            "speed": f"{speed:,.{0 if speed >= 10 else 1}f} {self._unit}/s",
            "time": f"{clock(left)} left",
        }
        if isinstance(self.config, ImageConfig):
            del parts["bits"]
        return parts

    def _live_line(self) -> RenderableType:
        last, validated = self._last, self._validated
        if last is None:
            return Group()
        room = self.progress_console.width - SPARE
        if validated is not None:
            text = f"validating {100 * validated:.0f} %"
        else:
            parts = self._parts(last)
            for dropped in ("epoch", "speed", "bits", "time"):  # which go first on a narrow terminal
                if len("  ".join(parts.values())) <= room:
                    break
                parts.pop(dropped, None)
            text = "  ".join(parts.values())
        room -= len(text) + 2
        if room < 10:
            return Text(text, no_wrap=True, overflow="crop")
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(
            ProgressBar(total=1.0, completed=last.progress, width=min(room, 40)), Text(text, no_wrap=True)
        )
        return line


class JsonLines:
    """Prints each event but the single steps as an object on a line of its own: {"event": "saved", ...}."""

    def __init__(self) -> None:
        self._out = unfailing(sys.stdout)

    def live(self) -> AbstractContextManager[Any]:
        """Nothing is alive here."""
        return nullcontext()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Evaluating) or (
            isinstance(event, events.Stepped) and event.skipped is None
        ):
            return
        record = event.record if isinstance(event, events.Recorded) else asdict(event)
        # What a training is about, and what a validation found, stands beside the rest.
        beside = {**record.pop("about", {}), **record.pop("measures", {})}
        record = {**record, **beside}
        # The loss of a skipped step is no number, and JSON has no other word for that.
        record = {name: None if _is_no_number(value) else value for name, value in record.items()}
        record = {"event": type(event).__name__.lower(), **record}
        print(json.dumps(record, default=str, allow_nan=False), file=self._out, flush=True)


class Silence:
    """Prints nothing."""

    def live(self) -> AbstractContextManager[Any]:
        """Nothing is alive here."""
        return nullcontext()

    def __call__(self, event: events.Event) -> None:
        pass


def listener(config: TrainConfig | ImageConfig, json: bool, quiet: bool) -> Display | JsonLines | Silence:
    """What listens to a training, as --json and --quiet say."""
    return Silence() if quiet else JsonLines() if json else Display(config)


def describe(config: Settings, started: events.Started) -> list[str]:
    """What is going to be trained, on what, for how long: a line each."""
    plan, limits = started.plan, []
    if plan.steps is not None:
        epochs = plan.steps / plan.steps_per_epoch
        limits.append(f"{counted(plan.steps, 'step')} ({epochs:,.{0 if epochs >= 10 else 1}f} epochs)")
    if plan.seconds is not None:
        limits.append(clock(plan.seconds))
    data = _text(config, started.about) if isinstance(config, TrainConfig) else _images(config, started.about)
    return [*data, f"{_model(config)}: {started.parameters:,} parameters, for {' or '.join(limits)}"]


def _text(config: TrainConfig, about: Mapping[str, int]) -> Iterable[str]:
    sources = ", ".join(map(_shown, config.corpus))
    symbols = "bytes" if config.encoding == "bytes" else "characters"
    held_out = f"{about['val_symbols']:,} held out" if about["val_symbols"] else "nothing held out"
    yield (
        f"{sources}: {about['train_symbols']:,} {symbols} to train on, {held_out}, "
        f"{about['vocabulary']} different"
    )
    if about["streams"] < config.batch_size:
        streams = counted(about["streams"], "stream")
        yield f"the text is short: {streams} instead of {config.batch_size}"


def _images(config: Settings, about: Mapping[str, int]) -> Iterable[str]:
    assert isinstance(config, ImageConfig)
    shape = " x ".join(str(about[name]) for name in ("channels", "height", "width"))
    held_out = f"{about['val_images']:,} held out" if about["val_images"] else "nothing held out"
    named = shortened(config.images)
    named = Path(config.images).name if named == "." else named
    yield (
        f"{named}: {counted(about['train_images'], 'image')} of {shape} to train on, "
        f"{held_out}, {about['classes']} classes"
    )


def _model(config: Settings) -> str:
    if isinstance(config, TrainConfig):
        return f"{config.kind} {config.layers}x{config.hidden_size}"
    return config.model_name


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _shown(source: str) -> str:
    """What a source is called, and of a folder how many files of it are taken."""
    if source == STDIN:
        return "standard input"
    if Path(source).is_dir():
        return f"{shortened(source)}/ ({counted(len(text_files(Path(source))), 'file')})"
    return shortened(source)


def _between_words(text: Text, columns: int) -> Iterable[Text]:
    """`text` cut where it would be wider; a word that is wider by itself stays whole."""
    cuts, used = [], 0
    for word in re.finditer(r"\S+\s*", text.plain):
        if used and used + cell_len(word[0].rstrip()) > columns:
            cuts.append(word.start())
            used = 0
        used += cell_len(word[0])
    parts = text.divide(cuts)
    for part in parts:
        part.rstrip()
    return parts
