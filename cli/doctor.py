"""`trnn doctor`: what a training has to work with here, and what holds it back."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import reader_may_leave

if TYPE_CHECKING:
    from tinygrad_rnn.training.doctor import Findings


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at this machine, measure its matrix rate, and give advice.

    It takes a second or two. Run it when nothing else does.
    """
    from tinygrad_rnn.training.doctor import advice, examine

    from .layout import print_facts, print_json, print_paragraph

    found = examine()
    with reader_may_leave():
        if as_json:
            print_json(found.as_json() | {"terminal": _terminal()})
            return
        print_facts(facts(found))
        print()
        for piece in advice(found) or ["Nothing holds this machine back."]:
            print_paragraph(piece, "* ", "  ")


def facts(found: Findings) -> list[tuple[str, str]]:
    from tinygrad_rnn.training.doctor import CORETYPE, gigabytes

    threads = "threads cannot be held" if found.blas_threads is None else f"threads {found.blas_threads}"
    blas = [found.blas or "not found", f"kernel {found.blas_kernel}" if found.blas_kernel else "", threads]
    rate = f"{found.rate:.0f} GFLOP/s" + ("" if found.blas_threads is None else " on one core")
    if found.rate_all is not None:
        rate += f", {found.rate_all:.0f} on {found.cores}"
    if found.other_rate is not None:
        rate += f"; without {CORETYPE}: {found.other_rate:.0f} on one core ({found.other_kernel})"
    gpu = found.gpu or "none that CuPy finds"
    if found.gpu_memory is not None:
        gpu += f", {gigabytes(found.gpu_memory)}"
    memory = [gigabytes(found.memory) if found.memory else "not known"]
    if found.memory_available is not None:
        memory.append(f"{gigabytes(found.memory_available)} available")
    terminal = _terminal()
    shown = [
        f"{terminal['columns']} columns" if terminal["is_terminal"] else "none, standard output is piped",
        terminal["encoding"],
        "colour" if terminal["colour"] else "no colour",
        f"TERM={terminal['TERM']}",
        "NO_COLOR" if terminal["NO_COLOR"] else "",
    ]
    return [
        ("trnn", found.tinygrad_rnn),
        ("Python", found.python),
        ("NumPy", found.numpy),
        ("BLAS", ", ".join(filter(None, blas))),
        ("matrix rate", rate),
        ("Numba", found.numba or "not installed"),
        ("CuPy", found.cupy or found.gpu_problem or "not installed"),
        ("GPU", gpu),
        ("memory", ", ".join(memory)),
        ("cores", f"{found.cores}" + (f", load average {found.load:.1f}" if found.load is not None else "")),
        ("terminal", ", ".join(filter(None, shown))),
    ]


def _terminal() -> dict[str, Any]:
    from rich.console import Console

    return {
        "is_terminal": sys.stdout.isatty(),
        "columns": shutil.get_terminal_size().columns,
        "encoding": sys.stdout.encoding,
        "colour": Console().color_system is not None,
        "TERM": os.environ.get("TERM"),
        "NO_COLOR": bool(os.environ.get("NO_COLOR")),
    }
