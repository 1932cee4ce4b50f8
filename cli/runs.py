"""`trnn runs`: where runs live and how one is found by its name, a table of them, and several compared."""

from __future__ import annotations

from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .terminal import clock, reader_may_leave

if TYPE_CHECKING:
    from tinygrad_rnn.training.history import RunSummary

RUNS = Path("runs")
MAIN_SETTINGS = (
    *("corpus", "kind", "layers", "hidden_size", "images", "model", "depth", "width"),
    *("optimizer", "lr", "batch_size", "seq_length"),
)
TABLE_STEPS = 10  # of the curves that are printed as numbers
PIPED_WIDTH = 60  # of a curve, where there is no terminal to say

EXAMPLES = """Try:

trnn runs

trnn runs --json

trnn runs compare first second"""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON array.")]


# --- from a name to a run -----------------------------------------------------------------------------


def find_run(name: Path) -> Path:
    """The file or folder of that name, else the run of that name in runs/; of neither, the name as it is."""
    return RUNS / name if not name.exists() and (RUNS / name).exists() else name


def find_checkpoint(name: Path, which: str = "best") -> Path:
    """The checkpoint file of that name, or the "best" or "last" one of the run that find_run() finds."""
    from tinygrad_rnn import models
    from tinygrad_rnn.errors import CheckpointError
    from tinygrad_rnn.training.history import read_run

    path = find_run(name)
    if not path.exists():
        raise CheckpointError(f"{name} does not exist, neither here nor in {RUNS}/")
    try:
        return models.find_checkpoint(path, which)
    except CheckpointError:
        if not (path / "config.toml").is_file():
            raise
        run = read_run(path)
        if run.problem is not None:
            raise CheckpointError(f"{name} has no checkpoint yet; {run.problem}") from None
        further = "wait for it" if run.running else f"train it further: {run.command} --resume {name}"
        raise CheckpointError(f"{name} has no checkpoint yet; {further}") from None


def complete_run(incomplete: str) -> list[str]:
    """For the shell: the runs in runs/ whose names begin so; where it is told of none it offers files."""
    return sorted(
        path.parent.name for path in RUNS.glob("*/config.toml") if path.parent.name.startswith(incomplete)
    )


Run = Annotated[
    Path,
    typer.Argument(
        help=f"A run folder, the name of a run in {RUNS}/, or a checkpoint file.",
        show_default=False,
        autocompletion=complete_run,
    ),
]


# --- trnn runs ----------------------------------------------------------------------------------------


class _TableUnlessToldOtherwise(TyperGroup):
    """`trnn runs` and `trnn runs FOLDER` are `trnn runs list` and `trnn runs list FOLDER`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        completing = ctx.resilient_parsing and not args
        if not completing and (not args or args[0] not in (*self.commands, *ctx.help_option_names)):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_TableUnlessToldOtherwise,
    help="A table of the runs in a folder, the newest last, or some of them compared.",
    epilog=EXAMPLES,
)


@app.command("list", epilog="Try: trnn runs, or: trnn runs elsewhere --json")
def list_runs(
    folder: Annotated[Path | None, typer.Argument(help="A folder of runs.", show_default=f"{RUNS}/")] = None,
    as_json: Json = False,
) -> None:
    """A table of runs, the newest last: what, how far, the best validation, when, how long.

    On a narrow terminal the columns go that say the least; --json has all.
    """
    from tinygrad_rnn.training.history import runs_in

    from .layout import print_json, print_paragraph, print_table

    runs = [] if folder is None and not RUNS.exists() else runs_in(folder or RUNS)
    with reader_may_leave():
        if as_json:
            print_json([run.as_json() for run in runs])
        elif not runs:
            print(f"no runs in {folder or RUNS}/; train one: trnn train harbour")
        else:
            header = "run data model parameters steps nats bits accuracy started trained state".split()
            rows = [_row(run) for run in runs]
            columns = dict(zip(header, zip(*rows, strict=True), strict=True))
            for name in ("bits", "accuracy"):  # of texts, and of images
                if set(columns[name]) == {"-"}:
                    del columns[name]
            # What the names of runs tell, unless the user chose them, goes first.
            spare = "started data parameters bits model trained".split()
            print_table(
                list(columns),
                list(zip(*columns.values(), strict=True)),
                right="parameters steps nats bits accuracy trained".split(),
                spare=[name for name in spare if name in columns],
            )
            for run in runs:
                if run.problem is not None:
                    print_paragraph(run.problem)


@app.command("compare", epilog="Try: trnn runs compare first second")
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help=f"Run folders, or names of runs in {RUNS}/.", metavar="RUN", autocompletion=complete_run
        ),
    ],
    as_json: Json = False,
) -> None:
    """Settings (the main ones, and all that differ), best losses and validation curves side by side."""
    from tinygrad_rnn.errors import DataError, UsageError
    from tinygrad_rnn.training.history import read_run

    from .layout import print_json

    if len(runs) < 2:
        raise UsageError("compare takes two runs or more")
    found = [read_run(find_run(run)) for run in runs]
    for run in found:
        if run.problem is not None:
            raise DataError(run.problem)
    with reader_may_leave():
        if as_json:
            curves = ({"curve": [evaluation._asdict() for evaluation in run.curve]} for run in found)
            print_json([run.as_json() | curve for run, curve in zip(found, curves, strict=True)])
        else:
            _print_comparison(found)


def _row(run: RunSummary) -> list[str]:
    nats, bits, accuracy = _best(run)
    return [
        *(
            run.path.absolute().name,
            run.corpus,
            run.model,
            _count(run.parameters),
            _count(run.steps),
            nats,
            bits,
            accuracy,
        ),
        *(f"{run.started:%Y-%m-%d %H:%M}", clock(run.seconds), run.state),
    ]


def _print_comparison(runs: list[RunSummary]) -> None:
    from .layout import print_facts, print_table

    letters = [ascii_uppercase[i] if i < len(ascii_uppercase) else str(i + 1) for i in range(len(runs))]
    print_facts(zip(letters, (str(run.path) for run in runs), strict=True))
    print()
    print_table(["", *letters], [*_settings(runs), *_results(runs)])
    if any(run.curve for run in runs):
        print()
        _print_curves(letters, runs)


def _settings(runs: list[RunSummary]) -> list[list[str]]:
    """The main settings, then those that differ."""
    values = {
        name: [_setting(run.settings.get(name)) for run in runs]
        for name in dict.fromkeys([*MAIN_SETTINGS, *(name for run in runs for name in run.settings)])
        if any(name in run.settings for run in runs)
    }
    return [
        [name.replace("_", " "), *row]
        for name, row in values.items()
        if name in MAIN_SETTINGS or len(set(row)) > 1
    ]


def _results(runs: list[RunSummary]) -> list[list[str]]:
    best = [run.best for run in runs]
    nats, bits, accuracy = zip(*map(_best, runs), strict=True)
    return [
        ["parameters", *(_count(run.parameters) for run in runs)],
        ["best nats", *nats],
        *(row for row in (["best bits", *bits], ["accuracy", *accuracy]) if set(row[1:]) != {"-"}),
        ["at step", *(_count(b and b.step) for b in best)],
        ["after", *("-" if b is None else clock(b.seconds) for b in best)],
        ["steps", *(_count(run.steps) for run in runs)],
        ["trained", *(clock(run.seconds) for run in runs)],
        ["state", *(run.state for run in runs)],
    ]


def _print_curves(letters: list[str], runs: list[RunSummary]) -> None:
    """The validation losses as numbers at some steps, and drawn over all steps on one scale."""
    from tinygrad_rnn.training.history import losses_at

    from .layout import GAP, padded, print_paragraph, print_table, sparkline, width

    measured = [{evaluation.step: f"{evaluation.loss:.4f}" for evaluation in run.curve} for run in runs]
    steps = sorted({step for losses in measured for step in _spread(list(losses), TABLE_STEPS)})
    header = ["step", *letters]
    rows = [[_count(step), *(losses.get(step, "") for losses in measured)] for step in steps]
    print_table(header, rows, right=header)
    print()

    margin, last = max(map(len, letters)) + GAP, steps[-1]
    room = max((width() or PIPED_WIDTH) - margin, 1)
    lowest = min(evaluation.loss for run in runs for evaluation in run.curve)
    # What lies before a tenth of the way would press the rest flat.
    highest = max(evaluation.loss for run in runs for evaluation in run.curve if evaluation.step >= last / 10)
    for letter, run in zip(letters, runs, strict=True):
        drawn = losses_at(run.curve, [round(last * (i + 1) / room) for i in range(room)])
        print(f"{padded(letter, margin)}{sparkline(drawn, lowest, highest)}".rstrip())
    print_paragraph(f"validation loss {lowest:.4f} to {highest:.4f} nats, step 1 to {last:,}")


def _spread(steps: list[int], at_most: int) -> list[int]:
    """So many of the steps, evenly, with the last one."""
    count = min(at_most, len(steps))
    return [steps[len(steps) * (i + 1) // count - 1] for i in range(count)]


def _best(run: RunSummary) -> tuple[str, str, str]:
    """The loss in nats, and of a text in bits; of images the accuracy."""
    if (best := run.best) is None:
        return "-", "-", "-"
    in_bits = "-" if best.bits is None else f"{best.bits:.3f}"
    accuracy = "-" if best.accuracy is None else f"{100 * best.accuracy:.2f} %"
    return f"{best.loss:.4f}", in_bits, accuracy


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
