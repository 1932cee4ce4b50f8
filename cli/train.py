"""`trnn train`: options to a configuration, events to the screen, signals to the trainer."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from tinygrad_rnn.models.files import run_of
from tinygrad_rnn.training.config import (
    PRESETS,
    RUN,
    SETTINGS,
    TrainConfig,
    preset_settings,
    read_toml,
)

from .runs import RUNS
from .terminal import busy, printable

if TYPE_CHECKING:
    from tinygrad_rnn.text import Corpus
    from tinygrad_rnn.training import RunFolder, Trainer

    from .display import Display, JsonLines, Silence


def _option(help: str, default: str | bool = False, *names: str) -> Any:
    return typer.Option(*names, help=help, show_default=default, rich_help_panel=RUN)


def _with_settings(command: Callable) -> Callable:
    """Give a command an option for every setting of TrainConfig; one that is not given is None."""
    types = get_type_hints(TrainConfig)
    parameters = [
        p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD
    ]
    for name, setting in SETTINGS.items():
        if name == "corpus":
            continue
        default = setting.metadata["unset"] or str(setting.default)
        option = typer.Option(
            help=setting.metadata["help"],
            show_default={"True": "yes", "False": "no"}.get(default, default),
            rich_help_panel=setting.metadata["group"],
        )
        annotation: Any = Annotated[types[name] | None, option]  # type: ignore[valid-type]
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


@_with_settings
def train(
    corpus: Annotated[
        list[str] | None,
        typer.Argument(
            help="Text files, folders, - for standard input, or names of known texts such as harbour.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[Path | None, _option("Folder to write to.", f"a new one in {RUNS}/")] = None,
    resume: Annotated[
        Path | None, _option("Go on with the run in this folder, or from one of its checkpoints.")
    ] = None,
    config: Annotated[Path | None, _option("A TOML file of settings; options win over it.")] = None,
    preset: Annotated[
        str | None, _option(f"Settings that are known to go well: {', '.join(PRESETS)}.")
    ] = None,
    dry_run: Annotated[
        bool, _option("Print the model, its memory and the plan, and train nothing.", False, "--dry-run")
    ] = False,
    require_exact: Annotated[
        bool,
        _option(
            "Refuse to resume if the numbers may not be exactly those of one run.", False, "--require-exact"
        ),
    ] = False,
    force: Annotated[bool, _option("Resume although the text has changed.", False, "--force")] = False,
    json: Annotated[bool, _option("Print each record as a JSON object.", False, "--json")] = False,
    quiet: Annotated[bool, _option("Print nothing but errors.", False, "--quiet")] = False,
    **settings: Any,
) -> None:
    """Train a character model on a text.

    Ctrl-C finishes the step, saves a checkpoint and ends; --resume goes on from there, bit for bit.
    """
    from tinygrad_rnn.training import RunFolder
    from tinygrad_rnn.training.origin import corpus_of, noted

    given = {name: value for name, value in settings.items() if value is not None}
    if corpus:
        given["corpus"] = [_absolute(source) for source in corpus]
    if "val_file" in given:
        given["val_file"] = _absolute(given["val_file"])
    reading = nullcontext() if quiet else busy("reading the text")

    if resume is not None:
        new_only = {"--run": run, "--config": config, "--preset": preset, "--dry-run": dry_run}
        _refuse(new_only, "is for a new run; --resume goes on with the settings of the old one")
        with RunFolder.open(run_of(resume) if resume.is_file() else resume) as folder:
            changed = folder.config().changed(given)
            checkpoint = resume if resume.is_file() else folder.latest_checkpoint()
            sha256 = noted(checkpoint)[1] if checkpoint is not None and not force else None
            with reading:
                text = corpus_of(changed, sha256)
            trainer, display = _trainer(changed, text, json, quiet)
            trainer.resume(folder, checkpoint, force, require_exact)
            folder.write_config(changed)
            _run(trainer, folder, display)
        return

    _refuse({"--force": force, "--require-exact": require_exact}, "is for --resume")
    chosen = {
        **(preset_settings(preset) if preset is not None else {}),
        **(read_toml(config) if config is not None else {}),
    }
    TrainConfig.of({"corpus": ["-"], **chosen}, str(config or preset))  # its own mistakes under its own name
    wanted = TrainConfig.of({"corpus": [], **chosen, **given})
    with reading:
        text = corpus_of(wanted)
    if dry_run:
        _print_plan(wanted, text)
        return
    trainer, display = _trainer(wanted, text, json, quiet)
    with (
        RunFolder.create(run, wanted) if run is not None else RunFolder.create_new(RUNS, text.name, wanted)
    ) as folder:
        _run(trainer, folder, display)


def _refuse(options: Mapping[str, object], because: str) -> None:
    from tinygrad_rnn.errors import UsageError

    for name, value in options.items():
        if value:
            raise UsageError(f"{name} {because}")


def _absolute(source: str) -> str:
    """A file's path such that a resume finds it from anywhere; a name as it is."""
    return str(Path(source).absolute()) if Path(source).exists() else source


def _trainer(
    config: TrainConfig, text: Corpus, json: bool, quiet: bool
) -> tuple[Trainer, Display | JsonLines | Silence]:
    from tinygrad_rnn.training import Trainer
    from tinygrad_rnn.training.allocator import keep_freed_memory

    from .display import Display, JsonLines, Silence

    keep_freed_memory()
    display = Silence() if quiet else JsonLines() if json else Display(config)
    return Trainer(config, text, display), display


def _run(trainer: Trainer, folder: RunFolder, display: Display | JsonLines | Silence) -> None:
    with stopping(trainer) as received, display.live():
        finished = trainer.train(folder)
    if finished.reason == "interrupted":
        raise typer.Exit(128 + received[-1])


def _print_plan(config: TrainConfig, text: Corpus) -> None:
    """What --dry-run shows."""
    from tinygrad_rnn.training.config import Plan
    from tinygrad_rnn.training.estimate import Estimate, gigabytes
    from tinygrad_rnn.training.events import Started
    from tinygrad_rnn.training.machine import memory
    from tinygrad_rnn.training.trainer import split_windows

    from .display import describe

    windows, _ = split_windows(text, config)
    estimate = Estimate.of(config, len(text.vocabulary), windows.batch_size)
    plan = Plan.of(config, len(windows))
    started = Started(
        run=Path(),
        parameters=estimate.parameters,
        vocabulary=len(text.vocabulary),
        train_symbols=len(text.train),
        val_symbols=len(text.held_out),
        streams=windows.batch_size,
        plan=plan,
    )
    free = memory()[1]
    lines = [
        *describe(config, started),
        f"an epoch: {plan.steps_per_epoch:,} steps of {started.streams} x {config.seq_length} symbols",
        f"a validation every {plan.eval_every:,} steps, a checkpoint every {plan.checkpoint_every:,}",
        f"memory: about {gigabytes(estimate.bytes)}"
        + ("" if free is None else f" of {gigabytes(free)} free"),
        "nothing is trained: --dry-run",
    ]
    print(printable("\n".join(lines)))


@contextmanager
def stopping(trainer: Trainer) -> Iterator[list[int]]:
    """In this block Ctrl-C, SIGTERM and SIGHUP ask the trainer to stop; a second Ctrl-C ends at once.

    Gives the list of the signals that came.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        trainer.stop()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            note = "finishing this step, then saving; Ctrl-C again ends at once"
            with suppress(OSError):  # not print(), which the signal may have interrupted
                os.write(sys.stderr.fileno(), f"\r{note}\n".encode())

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # One that is ignored stays so: nohup wants the training to outlive its terminal.
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
