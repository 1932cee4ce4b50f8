"""`trnn lab`: experiments about deep networks, each with its tables, pictures and verdict."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import clock, printable, reader_may_leave, say_if_compiling, unfailing

if TYPE_CHECKING:
    from tinygrad_rnn.labs.finding import Finding, Report

LABS = Path("labs")

EXAMPLES = """Try:

trnn lab

trnn lab residual-identity

trnn lab gradient-by-depth --seeds 5 --out figures"""


def _complete(incomplete: str) -> list[str]:
    from tinygrad_rnn.labs import LABS

    return [name for name in LABS if name.startswith(incomplete)]


def lab(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Of the experiment.", show_default="a list of all of them", autocompletion=_complete
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to.", show_default=f"{LABS}/NAME; with --json none"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds: 0, 1, 2 ...", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Ask a question about deep networks, and see what the numbers say.

    It writes NAME.json, and NAME.png and NAME.svg where matplotlib is installed.
    """
    from tinygrad_rnn.errors import UsageError

    if name is None:
        if out is not None:
            raise UsageError("--out is for one experiment; name it: trnn lab NAME --out FOLDER")
        _list(as_json)
        return
    folder = out if out is not None or as_json else LABS / name
    began = time.monotonic()
    found = _run(name, seeds, folder)
    seconds = time.monotonic() - began
    paths: list[Path] = []
    try:
        if folder is not None:
            paths = _write(found, folder, seconds)
    finally:  # what took minutes to find is shown in any case
        with reader_may_leave():
            if as_json:
                print(_json(found, seconds), end="")
            else:
                _show(found, paths, seconds)


def _list(as_json: bool) -> None:
    from tinygrad_rnn.labs import LABS

    from .layout import print_facts, print_json

    with reader_may_leave():
        if as_json:
            print_json(
                [{"lab": name, "question": lab.question, "takes": lab.takes} for name, lab in LABS.items()]
            )
            return
        print_facts((name, f"{lab.question} ({lab.takes})") for name, lab in LABS.items())


def _run(name: str, seeds: int, folder: Path | None) -> Finding:
    """Raises UsageError for a name that there is not, and OSError for a folder that cannot be made. On Ctrl-C
    one line is said and the command ends."""
    from difflib import get_close_matches

    from tinygrad_rnn.errors import UsageError
    from tinygrad_rnn.labs import LABS
    from tinygrad_rnn.training.allocator import keep_freed_memory

    if name not in LABS:
        near = get_close_matches(name, LABS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(LABS)}"
        raise UsageError(f"no lab is called {name!r}; {meant}")
    keep_freed_memory()
    say_if_compiling("multiply_images", "moments")
    try:
        with _made(folder), _progress(name) as report:
            return LABS[name].run(seeds=range(seeds), report=report)
    except KeyboardInterrupt:
        print("trnn: interrupted; nothing is written", file=unfailing(sys.stderr))
        raise typer.Exit(130) from None


@contextmanager
def _made(folder: Path | None) -> Iterator[None]:
    """Make the folder now, and a file in it that is gone at once, since what is wrong with it is better known
    now than in minutes. If the block fails, nothing has happened."""
    from tinygrad_rnn.atomic import naming

    new = [] if folder is None else [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with naming(folder), TemporaryFile(dir=folder):
                pass
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):  # what somebody else has put there meanwhile stays
                path.rmdir()
        raise


@contextmanager
def _progress(name: str) -> Iterator[Report]:
    """What a lab tells of its progress, in one line at the foot of the terminal, where there is one."""
    from rich.console import Console
    from rich.text import Text

    from tinygrad_rnn.labs.finding import silent

    console = Console(file=unfailing(sys.stderr), highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield silent
        return
    began, shown = time.monotonic(), 0.0
    with console.status(Text(name)) as status:

        def report(share: float, doing: str) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < 0.1:
                return
            shown = now
            left = f", {clock((now - began) * (1 - share) / share)} left" if share > 0.02 else ""
            line = Text(f"{100 * share:.0f} %{left}: {doing}", no_wrap=True, overflow="ellipsis")
            line.truncate(max(console.width - 3, 1), overflow="ellipsis")  # beside the spinner
            status.update(line)

        yield report


def _json(found: Finding, seconds: float) -> str:
    import json

    return json.dumps({**found.view().to_dict(), "seconds": round(seconds, 1)}, indent=2) + "\n"


def _write(found: Finding, folder: Path, seconds: float) -> list[Path]:
    """The numbers, and where matplotlib is installed the pictures."""
    from tinygrad_rnn.atomic import write_atomically
    from tinygrad_rnn.labs import figure

    numbers = folder / f"{found.lab}.json"
    write_atomically(numbers, _json(found, seconds).encode())
    return [numbers, *(figure.save(found, folder) if figure.can_draw() else [])]


def _show(found: Finding, paths: list[Path], seconds: float) -> None:
    from tinygrad_rnn.labs.figure import INSTALL

    from .layout import print_paragraph
    from .looking import print_view

    print_view(found.view())
    if not paths:
        return
    print()
    print(f"{clock(seconds)}; wrote")
    for path in paths:  # whole, for whoever copies it
        print(printable(str(path)))
    if len(paths) == 1:
        print_paragraph(f"pictures take matplotlib: {INSTALL}")
