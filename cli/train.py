"""`trnn train`: options to a configuration, events to the screen, signals to the trainer."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_rnn.training.config import PRESETS, TrainConfig, preset_settings
from tinygrad_rnn.training.settings import Settings, read_toml

from .corpus import complete_text
from .runs import RUNS
from .terminal import busy, say_if_compiling
from .training import (
    Config,
    DryRun,
    Json,
    NewRun,
    Quiet,
    RequireExact,
    Resume,
    beginning,
    command_of,
    flag,
    for_other_command,
    go_on,
    is_run,
    new_settings,
    option,
    print_plan,
    refuse,
    run_to_its_end,
    with_settings,
)

if TYPE_CHECKING:
    from tinygrad_rnn.text import Corpus
    from tinygrad_rnn.training import CharTrainer

    from .display import Display, JsonLines, Silence


EXAMPLES = """Try:

trnn train harbour

trnn train letters/ --kind lstm --hidden-size 256 --minutes 30 --run letters-model

trnn train --resume letters-model --minutes 60"""


@with_settings(TrainConfig)
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
    run: NewRun = None,
    resume: Resume = None,
    config: Config = None,
    preset: Annotated[
        str | None,
        option(f"Settings that are known to go well: {', '.join(PRESETS)}.", completion=beginning(PRESETS)),
    ] = None,
    dry_run: DryRun = False,
    require_exact: RequireExact = False,
    force: Annotated[bool, flag("--force", "Resume although the text has changed.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Train a character model on a text.

    Ctrl-C finishes the step, saves a checkpoint and ends; --resume goes on from there, bit for bit.
    """
    from tinygrad_rnn.errors import DataError
    from tinygrad_rnn.training import RunFolder
    from tinygrad_rnn.training.origin import corpus_of, noted
    from tinygrad_rnn.training.threads import with_threads

    given = {name: value for name, value in settings.items() if value is not None}
    if corpus:
        given["corpus"] = corpus
    if quiet:
        refuse({"--json": json, "--dry-run": dry_run}, "prints, and --quiet does not; choose one")
    reading = nullcontext() if quiet else busy("reading the text")

    if resume is not None:
        new_only = {"--run": run, "--config": config, "--preset": preset, "--dry-run": dry_run}
        refuse(new_only, "is for a new run; --resume goes on with the settings of the old one")

        def text_of(changed: TrainConfig, checkpoint: Path | None) -> Corpus:
            sha256 = noted(checkpoint)[1] if checkpoint is not None and not force else None
            try:
                with reading:
                    return corpus_of(changed, sha256)
            except DataError as error:
                if corpus:
                    raise
                where = f"trnn train NEWPATH --resume {resume}"
                raise DataError(f"{error}; if the text is elsewhere now: {where}") from None

        def trainer_of(settings: Settings, checkpoint: Path | None) -> Any:
            assert isinstance(settings, TrainConfig)
            changed = _located(settings)
            text = text_of(changed, checkpoint)
            if not quiet:
                _say_if_compiling(changed)
            return _trainer(changed, text, json, quiet)

        go_on(resume, TrainConfig, given, trainer_of, force, require_exact, say_done=not (json or quiet))
        return

    refuse({"--force": force, "--require-exact": require_exact}, "is for --resume")
    chosen = {
        **(preset_settings(preset) if preset is not None else {}),
        **(read_toml(config) if config is not None else {}),
    }
    wanted = _located(new_settings(TrainConfig, chosen, given, config or preset))
    try:
        with reading:
            text = corpus_of(wanted)
    except DataError as error:
        raise for_other_command(error, wanted, wanted.corpus) from None
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
        run_to_its_end(trainer, folder, display)


def _located(config: TrainConfig) -> TrainConfig:
    """With the paths of its texts such that a resume finds them from anywhere; a name stays as it is."""
    from tinygrad_rnn.errors import UsageError

    def absolute(source: str) -> str:
        return str(Path(source).absolute()) if Path(source).exists() else source

    for source in config.corpus:
        if is_run(Path(source)):
            raise UsageError(
                f"{source} is a run; to go on with it: {command_of(Path(source))} --resume {source}"
            )
    val_file = None if config.val_file is None else absolute(config.val_file)
    return replace(config, corpus=tuple(map(absolute, config.corpus)), val_file=val_file)


def _say_if_compiling(config: TrainConfig) -> None:
    from tinygrad_rnn.engine.ops.fused import use_kernels

    if config.backend == "numpy":
        with use_kernels(config.kernels):
            say_if_compiling(f"{config.kind}_backward", "cross_entropy")


def _trainer(
    config: TrainConfig, text: Corpus, json: bool, quiet: bool
) -> tuple[CharTrainer, Display | JsonLines | Silence]:
    from tinygrad_rnn.training import CharTrainer
    from tinygrad_rnn.training.allocator import keep_freed_memory

    from .display import listener

    keep_freed_memory()
    display = listener(config, json, quiet)
    return CharTrainer(config, text, display), display


def _print_plan(config: TrainConfig, text: Corpus, json: bool) -> None:
    from tinygrad_rnn.training.characters import split_windows
    from tinygrad_rnn.training.estimate import Estimate, check_memory
    from tinygrad_rnn.training.events import Started
    from tinygrad_rnn.training.plan import Plan

    windows, val_windows = split_windows(text, config)
    check_memory(config, len(text.vocabulary), windows, val_windows)
    estimate = Estimate.of(config, len(text.vocabulary), windows, val_windows)
    started = Started(
        run=Path(),
        parameters=estimate.parameters,
        about={
            "vocabulary": len(text.vocabulary),
            "train_symbols": len(text.train),
            "val_symbols": len(text.held_out),
            "streams": windows.batch_size,
        },
        plan=Plan.of(config, len(windows)),
    )
    print_plan(config, started, f"{windows.batch_size} x {config.seq_length} symbols", estimate, json)
