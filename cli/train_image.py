"""`trnn train-image`: an image classifier, by the trainer that `trnn train` has too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinygrad_rnn.training.config import ImageConfig
from tinygrad_rnn.training.settings import Settings, read_toml

from .runs import RUNS
from .terminal import busy, counted, one_line, say_if_compiling, unfailing
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
    print_plan,
    refuse,
    run_to_its_end,
    with_settings,
)

if TYPE_CHECKING:
    from tinygrad_rnn.training import ImageTrainer
    from tinygrad_rnn.vision import ImageSet

EXAMPLES = """Try:

trnn train-image digits

trnn train-image photos/ --size 32 --flip --crop 4 --minutes 30 --run photos-model

trnn train-image --resume photos-model --minutes 60"""
LISTED = 10  # of the files that are left out
COMPILED = ("multiply_images", "moments")  # of the kernels, those that take longest to compile


@with_settings(ImageConfig)
def train_image(
    images: Annotated[
        str | None,
        typer.Argument(
            help="digits (of scikit-learn), shapes (drawn here), or a folder: with a sub-folder of images "
            "for each class, with MNIST's IDX files, or with CIFAR-10's binary files.",
            show_default=False,
            autocompletion=beginning(("digits", "shapes")),
        ),
    ] = None,
    *,
    run: NewRun = None,
    resume: Resume = None,
    config: Config = None,
    dry_run: DryRun = False,
    require_exact: RequireExact = False,
    force: Annotated[bool, flag("--force", "Resume although the images have changed.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Train a deep network to tell classes of images apart: ResNet, its plain twin, VGG.

    Ctrl-C finishes the step, saves a checkpoint and ends; --resume goes on from there, bit for bit.
    """
    from tinygrad_rnn.errors import DataError
    from tinygrad_rnn.training import RunFolder
    from tinygrad_rnn.training.images import images_of
    from tinygrad_rnn.training.threads import with_threads

    given = {name: value for name, value in settings.items() if value is not None}
    if images:
        given["images"] = images
    if quiet:
        refuse({"--json": json, "--dry-run": dry_run}, "prints, and --quiet does not; choose one")
    reading = nullcontext() if quiet else busy("reading the images")

    if resume is not None:
        new_only = {"--run": run, "--config": config, "--dry-run": dry_run}
        refuse(new_only, "is for a new run; --resume goes on with the settings of the old one")

        def trainer_of(settings: Settings, checkpoint: Path | None) -> Any:
            assert isinstance(settings, ImageConfig)
            changed = _located(settings)
            try:
                with reading:
                    found = images_of(changed)
            except DataError as error:
                if images:
                    raise
                where = f"trnn train-image NEWPATH --resume {resume}"
                raise DataError(f"{error}; if the images are elsewhere now: {where}") from None
            if not quiet:
                _say_skipped(found.skipped, json)
            return _trainer(changed, found, json, quiet)

        go_on(resume, ImageConfig, given, trainer_of, force, require_exact, say_done=not (json or quiet))
        return

    refuse({"--force": force, "--require-exact": require_exact}, "is for --resume")
    chosen = read_toml(config) if config is not None else {}
    wanted = _located(new_settings(ImageConfig, chosen, given, config))
    try:
        with reading:
            found = images_of(wanted)
    except DataError as error:
        raise for_other_command(error, wanted, [wanted.images]) from None
    if not quiet and not (dry_run and json):
        _say_skipped(found.skipped, json)
    wanted = with_threads(wanted)
    trainer, display = _trainer(wanted, found, json, quiet or dry_run)
    if dry_run:
        _print_plan(trainer, json)
        return
    with (
        RunFolder.create(run, wanted) if run is not None else RunFolder.create_new(RUNS, found.name, wanted)
    ) as folder:
        run_to_its_end(trainer, folder, display)


def _located(config: ImageConfig) -> ImageConfig:
    """With the path of its images such that a resume finds them from anywhere; a name stays as it is."""
    from tinygrad_rnn.errors import UsageError

    source = Path(config.images)
    if is_run(source):
        raise UsageError(f"{source} is a run; to go on with it: {command_of(source)} --resume {source}")
    return replace(config, images=str(source.absolute())) if source.exists() else config


def _say_skipped(files: Sequence[str], json: bool) -> None:
    """Which files were left out, and why: one record of all of them, or a line each of the first ones."""
    if json and files:
        print(dumps({"event": "skipped", "files": files}), file=unfailing(sys.stdout), flush=True)
        return
    lines = [f"skipped: {file}" for file in files[:LISTED]]
    if more := len(files) - len(lines):
        lines.append(f"skipped: {counted(more, 'more file')}")
    for line in lines:
        print(one_line(line), file=unfailing(sys.stderr))


def _trainer(config: ImageConfig, found: ImageSet, json: bool, quiet: bool) -> tuple[ImageTrainer, Any]:
    from tinygrad_rnn.engine.ops.fused import use_kernels
    from tinygrad_rnn.training import ImageTrainer
    from tinygrad_rnn.training.allocator import keep_freed_memory

    from .display import listener

    keep_freed_memory()
    display = listener(config, json, quiet)
    if not quiet and config.backend == "numpy":
        with use_kernels(config.kernels):
            say_if_compiling(*COMPILED)
    return ImageTrainer(config, found, display), display


def _print_plan(trainer: ImageTrainer, json: bool) -> None:
    from tinygrad_rnn.training.estimate import Estimate
    from tinygrad_rnn.training.events import Started

    config = trainer.config
    estimate = Estimate.of_images(config, trainer.images)
    started = Started(Path(), estimate.parameters, trainer.about(), trainer.plan)
    step = counted(max(trainer.batches.sizes), "image")
    print_plan(config, started, step, estimate, json, {"skipped": trainer.images.skipped})
