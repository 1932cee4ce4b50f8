"""The command `trnn`: its subcommands, and how an error becomes one line and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from difflib import get_close_matches
from shutil import get_terminal_size
from typing import Annotated, Any

import typer

from . import (
    bench,
    classify,
    corpus,
    doctor,
    evaluate,
    info,
    inspect,
    lab,
    repl,
    runs,
    sample,
    score,
    train,
    train_image,
)
from .terminal import reader_may_leave, say_error

EXIT_CODES = (
    "Exit codes: 0 done, 1 failure, 2 usage, 3 bad input data, 4 bad checkpoint, 5 folder in use, "
    "6 diverged, 129 hung up, 130 interrupted, 143 terminated."
)
ROOM_FOR_PANELS = 60  # columns that help needs to look well
EXAMPLES = "Try: trnn train harbour, then: trnn sample"

# What other tools call it, and what it is called here; a beginning or a slip of a name is seen without this.
ELSEWHERE = {
    "model": "kind",
    "rnn-size": "hidden-size",
    "learning-rate": "lr",
    "steps": "max-steps",
    "gpu": "backend cupy",
    "device": "backend",
}

app = typer.Typer(
    help="Train character models on a text, and let them write; train networks that tell images apart.",
    epilog=f"{EXAMPLES}\n\n{EXIT_CODES}",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_COMMANDS: list[tuple[str, Any, Any]] = [
    ("train", train, train.train),
    ("train-image", train_image, train_image.train_image),
    ("classify", classify, classify.classify),
    ("sample", sample, sample.sample),
    ("eval", evaluate, evaluate.evaluate),
    ("score", score, score.score),
    ("info", info, info.info),
    ("repl", repl, repl.repl),
    ("inspect", inspect, inspect.inspect),
    ("lab", lab, lab.lab),
]
for name, module, command in _COMMANDS:
    app.command(name, epilog=f"{module.EXAMPLES}\n\n{EXIT_CODES}")(command)
app.command("doctor", epilog=EXIT_CODES)(doctor.doctor)
app.command("bench", epilog=EXIT_CODES)(bench.bench)
app.add_typer(corpus.app, name="corpus")
app.add_typer(runs.app, name="runs")


def _print_version(wanted: bool) -> None:
    if wanted:
        from tinygrad_rnn import __version__

        print(f"trnn {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: list[str]) -> int:
    """Run `trnn` with these arguments; the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the program runs
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal cannot show is no reason to die
            stream.reconfigure(errors="replace")
    # A small product of OpenBLAS loads what lies beside its numbers, and NumPy tells of it if that is a NaN.
    # A real one is seen where it counts: in a loss, a gradient, a weight.
    warnings.filterwarnings("ignore", "invalid value encountered in matmul", RuntimeWarning)
    # In panels of a narrow terminal every word is cut short.
    app.rich_markup_mode = "rich" if get_terminal_size().columns >= ROOM_FOR_PANELS else None
    try:
        code = 0
        with reader_may_leave():
            code = app(arguments, prog_name="trnn", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        see = f" (see {context.command_path} --help)" if context is not None else ""
        return _fail(f"{_wrong_option(error) or _wrong_value(error)}{see}", error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    except MemoryError as error:
        return _fail(f"not enough memory: {error}", 1)
    except Exception as error:
        from tinygrad_rnn.errors import SettingError, TinygradError

        if isinstance(error, SettingError):
            return _fail(f"--{error.name.replace('_', '-')} {error.problem}", error.exit_code)
        if not isinstance(error, TinygradError):
            raise  # a mistake in this program: show where
        return _fail(str(error), error.exit_code)


def _wrong_option(error: Any) -> str | None:
    """Of an option that does not exist, which one may have been meant; None of another error."""
    if not hasattr(error, "possibilities"):
        return None
    given = error.option_name.lstrip("-").replace("_", "-")
    parameters = error.ctx.command.params
    known = [o[2:] for p in parameters for o in (*p.opts, *p.secondary_opts) if o.startswith("--")]
    meant = ELSEWHERE.get(given, given)
    if meant.split()[0] in known:
        near = [meant]
    else:
        near = [name for name in known if name.startswith(given)] or get_close_matches(given, known, n=1)
    question = f"; did you mean {' or '.join('--' + name for name in near)}?" if near else ""
    return f"{error.message}{question}"


def _wrong_value(error: typer.TyperException) -> str:
    """What typer says of it, without the manner of speaking of pydantic, which it asks."""
    message = error.format_message()
    if error.__cause__ is None or not hasattr(error.__cause__, "errors"):
        return message
    [problem, *_] = error.__cause__.errors()
    said = problem["msg"].removeprefix("Value error, ").split(", unable to")[0]
    said = said.replace("Input should be", f"{problem['input']!r} is not").replace("a valid", "a")
    return message.replace(problem["msg"], said.replace("a integer", "an integer").rstrip("."))


def _fail(message: str, exit_code: int) -> int:
    say_error(message)
    return exit_code
