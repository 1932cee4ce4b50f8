"""`trnn train`: options to a configuration, events to the screen, signals to the trainer."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from json import dumps
from math import inf
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

from .corpus import complete_text
from .runs import RUNS, complete_run, find_run
from .terminal import busy, clock, counted, say_if_compiling

if TYPE_CHECKING:
    from tinygrad_rnn.text import Corpus
    from tinygrad_rnn.training import RunFolder, Trainer

    from .display import Display, JsonLines, Silence


EXAMPLES = """Try:

trnn train harbour

trnn train letters/ --kind lstm --hidden-size 256 --minutes 30 --run letters-model

trnn train --resume letters-model --minutes 60"""


def _beginning(words: Iterable[str]) -> Callable[[str], list[str]]:
    """For the shell: those of `words` that begin with what is typed already."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def _option(
    help: str, default: str | bool = False, completion: Callable[[str], list[str]] | None = None
) -> Any:
    return typer.Option(help=help, show_default=default, rich_help_panel=RUN, autocompletion=completion)


def _flag(name: str, help: str) -> Any:
    return typer.Option(name, help=help, show_default=False, rich_help_panel=RUN, metavar="")


def _with_settings(command: Callable) -> Callable:
    """Give a command an option for every setting of TrainConfig; one that is not given is None.

    Its own options are among those of the group RUN, which is the last one of its help.
    """
    types = get_type_hints(TrainConfig)
    own = inspect.signature(command, eval_str=True).parameters.values()
    settings: list[inspect.Parameter] = []
    for name, setting in SETTINGS.items():
        if name == "corpus":
            continue
        default = setting.metadata["unset"] or str(setting.default)
        option = typer.Option(
            help=setting.metadata["help"],
            show_default={"True": "yes", "False": "no"}.get(default, default),
            rich_help_panel=setting.metadata["group"],
            metavar="" if types[name] is bool else None,
            autocompletion=_beginning(setting.metadata["choices"]) if setting.metadata["choices"] else None,
        )
        annotation: Any = Annotated[types[name] | None, option]  # type: ignore[valid-type]
        settings.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )
    parameters = [
        *(p for p in own if p.kind == p.POSITIONAL_OR_KEYWORD),
        *(p for p in settings if SETTINGS[p.name].metadata["group"] != RUN),
        *(p for p in own if p.kind == p.KEYWORD_ONLY),
        *(p for p in settings if SETTINGS[p.name].metadata["group"] == RUN),
    ]
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
            autocompletion=complete_text,
        ),
    ] = None,
    *,
    run: Annotated[Path | None, _option("Folder to write to.", f"a new one in {RUNS}/")] = None,
    resume: Annotated[
        Path | None,
        _option(
            f"Go on with the run in this folder or of this name in {RUNS}/, or from one checkpoint of it.",
            completion=complete_run,
        ),
    ] = None,
    config: Annotated[Path | None, _option("A TOML file of settings; options win over it.")] = None,
    preset: Annotated[
        str | None,
        _option(f"Settings that are known to go well: {', '.join(PRESETS)}.", completion=_beginning(PRESETS)),
    ] = None,
    dry_run: Annotated[
        bool, _flag("--dry-run", "Print the model, its memory and the plan, and train nothing.")
    ] = False,
    require_exact: Annotated[
        bool,
        _flag("--require-exact", "Refuse to resume if the numbers may not be exactly those of one run."),
    ] = False,
    force: Annotated[bool, _flag("--force", "Resume although the text has changed.")] = False,
    json: Annotated[bool, _flag("--json", "Print each record as a JSON object.")] = False,
    quiet: Annotated[bool, _flag("--quiet", "Print nothing but errors.")] = False,
    **settings: Any,
) -> None:
    """Train a character model on a text.

    Ctrl-C finishes the step, saves a checkpoint and ends; --resume goes on from there, bit for bit.
    """
    from tinygrad_rnn.errors import DataError, UsageError
    from tinygrad_rnn.training import RunFolder
    from tinygrad_rnn.training.origin import corpus_of, noted
    from tinygrad_rnn.training.threads import with_threads

    given = {name: value for name, value in settings.items() if value is not None}
    if corpus:
        given["corpus"] = corpus
    if quiet:
        _refuse({"--json": json, "--dry-run": dry_run}, "prints, and --quiet does not; choose one")
    reading = nullcontext() if quiet else busy("reading the text")

    if resume is not None:
        new_only = {"--run": run, "--config": config, "--preset": preset, "--dry-run": dry_run}
        _refuse(new_only, "is for a new run; --resume goes on with the settings of the old one")
        path, checkpoint = _run_and_checkpoint(resume)
        with RunFolder.open(path) as folder:
            changed = _located(folder.config().changed(given))
            checkpoint = checkpoint or folder.latest_checkpoint()
            sha256 = noted(checkpoint)[1] if checkpoint is not None and not force else None
            try:
                with reading:
                    text = corpus_of(changed, sha256)
            except DataError as error:
                if corpus:
                    raise
                where = f"trnn train NEWPATH --resume {resume}"
                raise DataError(f"{error}; if the text is elsewhere now: {where}") from None
            if not quiet:
                _say_if_compiling(changed)
            trainer, display = _trainer(changed, text, json, quiet)
            trainer.resume(folder, checkpoint, force, require_exact)
            done = _nothing_left(trainer)
            if done is None:
                folder.write_config(changed)
            if done is None or json or quiet:
                _run(trainer, folder, display)
            else:
                print(done)
        return

    _refuse({"--force": force, "--require-exact": require_exact}, "is for --resume")
    chosen = {
        **(preset_settings(preset) if preset is not None else {}),
        **(read_toml(config) if config is not None else {}),
    }
    try:
        wanted = _located(TrainConfig.of({"corpus": [], **chosen, **given}))
    except UsageError:
        if chosen:  # its own mistakes under its own name
            TrainConfig.of({"corpus": ["-"], **chosen}, str(config or preset))
        raise
    with reading:
        text = corpus_of(wanted)
    if dry_run:
        _print_plan(wanted, text, json)
        return
    if not quiet:
        _say_if_compiling(wanted)  # which the trial of threads does first
    wanted = with_threads(wanted)
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


def _located(config: TrainConfig) -> TrainConfig:
    """With the paths of its texts such that a resume finds them from anywhere; a name stays as it is."""
    from tinygrad_rnn.errors import UsageError

    def absolute(source: str) -> str:
        return str(Path(source).absolute()) if Path(source).exists() else source

    for source in config.corpus:
        if _is_run(Path(source)):
            raise UsageError(f"{source} is a run; to go on with it: trnn train --resume {source}")
    val_file = None if config.val_file is None else absolute(config.val_file)
    return replace(config, corpus=tuple(map(absolute, config.corpus)), val_file=val_file)


def _is_run(folder: Path) -> bool:
    return (folder / "config.toml").is_file() and (folder / "checkpoints").is_dir()


def _run_and_checkpoint(named: Path) -> tuple[Path, Path | None]:
    """The run to go on with, and the checkpoint if it is one that --resume names."""
    from tinygrad_rnn.errors import CheckpointError, UsageError
    from tinygrad_rnn.models import archive

    path = find_run(named)
    if not path.exists():
        raise UsageError(f"{named} does not exist, neither here nor in {RUNS}/")
    run = run_of(path)
    if path.is_file():
        if path.suffix != ".safetensors":
            whole = f"; to go on with the run: trnn train --resume {run}" if _is_run(run) else ""
            raise CheckpointError(f"{path} is not a checkpoint{whole}")
        if not _is_run(run):
            archive.check(path)
            raise UsageError(f"{path} does not lie in the folder of a run, and it takes one to go on")
        return run, path
    return (path.parent if path.name == "checkpoints" and _is_run(path.parent) else path), None


def _say_if_compiling(config: TrainConfig) -> None:
    from tinygrad_rnn.engine.ops.fused import use_kernels

    if config.backend == "numpy":
        with use_kernels(config.kernels):
            say_if_compiling(f"{config.kind}_backward", "cross_entropy")


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


def _nothing_left(trainer: Trainer) -> str | None:
    """If a run that was resumed is at its end already, what to say of it; else None."""
    config, plan, step = trainer.config, trainer.plan, trainer.step
    bad_validations = trainer.standing.evaluations_waiting
    if step == 0 or trainer.standing.unfinished:  # a validation is to be made up for
        return None
    if plan.steps is not None and step >= plan.steps:
        limit = "--max-steps" if config.max_steps == plan.steps else "--epochs"
        return f"nothing left to do: at step {step:,} of {plan.steps:,}; raise {limit}"
    if plan.seconds is not None and trainer.elapsed >= plan.seconds:
        return f"nothing left to do: {clock(trainer.elapsed)} of {clock(plan.seconds)} used; raise --minutes"
    if config.patience is not None and bad_validations >= config.patience:
        return f"nothing left to do: no better validation in {bad_validations}; raise --patience"
    return None


def _print_plan(config: TrainConfig, text: Corpus, json: bool) -> None:
    """What --dry-run shows."""
    from tinygrad_rnn.training.config import Plan
    from tinygrad_rnn.training.estimate import Estimate, check_memory, gigabytes
    from tinygrad_rnn.training.events import Started
    from tinygrad_rnn.training.machine import memory
    from tinygrad_rnn.training.trainer import split_windows

    from .display import describe
    from .layout import print_paragraph

    windows, val_windows = split_windows(text, config)
    check_memory(config, len(text.vocabulary), windows, val_windows)
    estimate = Estimate.of(config, len(text.vocabulary), windows, val_windows)
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
    if json:
        facts = {name: value for name, value in asdict(started).items() if name != "run"}
        # --clip inf: JSON has no word for it.
        settings = {name: None if value == inf else value for name, value in config.to_json().items()}
        facts |= {"memory": estimate.bytes, "free_memory": free, "settings": settings}
        print(dumps(facts, allow_nan=False))
        return
    lines = [
        *describe(config, started),
        f"an epoch: {counted(plan.steps_per_epoch, 'step')} of {started.streams} x {config.seq_length} "
        "symbols",
        f"a validation every {counted(plan.eval_every, 'step')}, "
        f"a checkpoint every {counted(plan.checkpoint_every, 'step')}",
        f"memory: about {gigabytes(estimate.bytes)}"
        + ("" if free is None else f" of {gigabytes(free)} free"),
        "nothing is trained: --dry-run",
    ]
    for line in lines:
        print_paragraph(line)


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
            # On a terminal there may be a live line, and ^C behind it.
            start = "\r\x1b[2K" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "\r"
            with suppress(OSError):  # not print(), which the signal may have interrupted
                os.write(sys.stderr.fileno(), f"{start}{note}\n".encode())

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # One that is ignored stays so: nohup wants the training to outlive its terminal.
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
