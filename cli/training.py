"""What `trnn train` and `trnn train-image` have in common: an option for every setting, beginning a run and
going on with one, signals to the trainer.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from json import dumps
from math import inf
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from tinygrad_rnn.models.files import run_of
from tinygrad_rnn.training.config import ImageConfig, TrainConfig
from tinygrad_rnn.training.settings import RUN, Settings

from .runs import RUNS, complete_run, find_run
from .terminal import clock, counted

if TYPE_CHECKING:
    from tinygrad_rnn.errors import DataError
    from tinygrad_rnn.training import RunFolder
    from tinygrad_rnn.training.estimate import Estimate
    from tinygrad_rnn.training.events import Started
    from tinygrad_rnn.training.trainer import Trainer

    from .display import Display, JsonLines, Silence


def beginning(words: Iterable[str]) -> Callable[[str], list[str]]:
    """For the shell: those of `words` that begin with what is typed already."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def option(
    help: str, default: str | bool = False, completion: Callable[[str], list[str]] | None = None
) -> Any:
    return typer.Option(help=help, show_default=default, rich_help_panel=RUN, autocompletion=completion)


def flag(name: str, help: str) -> Any:
    return typer.Option(name, help=help, show_default=False, rich_help_panel=RUN, metavar="")


Kind = TypeVar("Kind", bound=Settings)

Resume = Annotated[
    Path | None,
    option(
        f"Go on with the run in this folder or of this name in {RUNS}/, or from one checkpoint of it.",
        completion=complete_run,
    ),
]
NewRun = Annotated[Path | None, option("Folder to write to.", f"a new one in {RUNS}/")]
Config = Annotated[Path | None, option("A TOML file of settings; options win over it.")]
DryRun = Annotated[bool, flag("--dry-run", "Print the model, its memory and the plan, and train nothing.")]
RequireExact = Annotated[
    bool, flag("--require-exact", "Refuse to resume if the numbers may not be exactly those of one run.")
]
Json = Annotated[bool, flag("--json", "Print each record as a JSON object.")]
Quiet = Annotated[bool, flag("--quiet", "Print nothing but errors.")]


def with_settings(kind: type[Settings]) -> Callable[[Callable], Callable]:
    """Give a command an option for every setting of this kind of training; one that is not given is None.

    Its own options are among those of the group RUN, which is the last one of its help.
    """

    def decorate(command: Callable) -> Callable:
        types = get_type_hints(kind)
        own = inspect.signature(command, eval_str=True).parameters.values()
        settings: list[inspect.Parameter] = []
        for name, setting in kind.settings().items():
            choices = setting.metadata["choices"]
            if name == kind.source:
                continue
            default = setting.metadata["unset"] or str(setting.default)
            option = typer.Option(
                help=setting.metadata["help"],
                show_default={"True": "yes", "False": "no"}.get(default, default),
                rich_help_panel=setting.metadata["group"],
                metavar="" if types[name] is bool else None,
                autocompletion=beginning(choices) if choices else None,
            )
            annotation: Any = Annotated[types[name] | None, option]  # type: ignore[valid-type]
            settings.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            )
        parameters = [
            *(p for p in own if p.kind == p.POSITIONAL_OR_KEYWORD),
            *(p for p in settings if kind.settings()[p.name].metadata["group"] != RUN),
            *(p for p in own if p.kind == p.KEYWORD_ONLY),
            *(p for p in settings if kind.settings()[p.name].metadata["group"] == RUN),
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def refuse(options: Mapping[str, object], because: str) -> None:
    from tinygrad_rnn.errors import UsageError

    for name, value in options.items():
        if value:
            raise UsageError(f"{name} {because}")


def new_settings(
    kind: type[Kind], chosen: Mapping[str, Any], given: Mapping[str, Any], source: object
) -> Kind:
    """Of a new run: those of a file or preset, called `source`, and over them those that are given."""
    from tinygrad_rnn.errors import UsageError

    try:
        return kind.of({**chosen, **given})
    except UsageError:
        if chosen:  # its own mistakes under its own name
            kind.of({kind.source: "-", **chosen}, str(source))
        raise


def for_other_command(error: DataError, config: Settings, sources: Iterable[str]) -> DataError:
    """The same, and the other command that trains, if what was named is for that one."""
    from tinygrad_rnn.errors import DataError
    from tinygrad_rnn.text.sources import holds_text, shortened
    from tinygrad_rnn.vision import holds_images

    for source in sources:
        other: type[Settings] = ImageConfig if holds_images(source) else TrainConfig
        if other.task != config.task and (other is ImageConfig or holds_text(source)):
            what = "images" if other is ImageConfig else "a text"
            named = "FOLDER" if other is ImageConfig and Path(source).is_file() else shortened(source)
            return DataError(f"{error}; for {what}: {other.command} {named}")
    return error


def go_on(
    resume: Path,
    kind: type[Settings],
    given: Mapping[str, Any],
    trainer_of: Callable[[Settings, Path | None], tuple[Trainer, Any]],
    force: bool,
    require_exact: bool,
    say_done: bool,
) -> None:
    """Go on with the run or checkpoint that --resume names.

    given       settings that are others now
    trainer_of  makes the trainer, and what listens to it, of settings and checkpoint
    say_done    of a run that is at its end already it is only said so
    """
    from tinygrad_rnn.errors import UsageError
    from tinygrad_rnn.training import RunFolder

    path, checkpoint = _run_and_checkpoint(resume)
    with RunFolder.open(path) as folder:
        config = folder.config()
        if not isinstance(config, kind):
            raise UsageError(
                f"{resume} is a run that trains {config.task}; to go on with it: "
                f"{config.command} --resume {resume}"
            )
        checkpoint = checkpoint or folder.latest_checkpoint()
        trainer, display = trainer_of(config.changed(given), checkpoint)
        trainer.resume(folder, checkpoint, force, require_exact)
        done = _nothing_left(trainer)
        if done is None:
            folder.write_config(trainer.config)
        if done is None or not say_done:
            run_to_its_end(trainer, folder, display)
        else:
            print(done)


def is_run(folder: Path) -> bool:
    return (folder / "config.toml").is_file() and (folder / "checkpoints").is_dir()


def command_of(run: Path) -> str:
    """What goes on with a run."""
    from tinygrad_rnn.training import RunFolder

    return RunFolder(run).config().command


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
            whole = f"; to go on with the run: {command_of(run)} --resume {run}" if is_run(run) else ""
            raise CheckpointError(f"{path} is not a checkpoint{whole}")
        if not is_run(run):
            archive.check(path)
            raise UsageError(f"{path} does not lie in the folder of a run, and it takes one to go on")
        return run, path
    return (path.parent if path.name == "checkpoints" and is_run(path.parent) else path), None


def run_to_its_end(trainer: Trainer, folder: RunFolder, display: Display | JsonLines | Silence) -> None:
    """Train; exit as a process does that a signal ends, if one came."""
    with stopping(trainer) as received, display.live():
        finished = trainer.train(folder)
    if finished.reason == "interrupted":
        raise typer.Exit(128 + received[-1])


def print_plan(
    config: Settings,
    started: Started,
    step: str,
    estimate: Estimate,
    json: bool,
    besides: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """What --dry-run shows. step: what is read in one. besides: what --json says as well."""
    from tinygrad_rnn.training.estimate import gigabytes
    from tinygrad_rnn.training.machine import memory

    from .display import describe
    from .layout import print_paragraph

    plan, free = started.plan, memory()[1]
    if json:
        facts = {"parameters": started.parameters, **started.about, "plan": asdict(plan)}
        # --clip inf: JSON has no word for it.
        settings = {name: None if value == inf else value for name, value in config.to_json().items()}
        facts |= {"memory": estimate.bytes, "free_memory": free, **besides, "settings": settings}
        print(dumps(facts, allow_nan=False))
        return
    of_free = "" if free is None else f" of {gigabytes(free)} free"
    for line in [
        *describe(config, started),
        f"an epoch: {counted(plan.steps_per_epoch, 'step')} of {step}",
        f"a validation every {counted(plan.eval_every, 'step')}, "
        f"a checkpoint every {counted(plan.checkpoint_every, 'step')}",
        f"memory: about {gigabytes(estimate.bytes)}{of_free}",
        "nothing is trained: --dry-run",
    ]:
        print_paragraph(line)


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
