"""`python -m bench`: check that all compute the same, measure, and write down what was found.

A whole run writes bench/results.json and bench/RESULTS.md; one of a part, or in haste, only prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tinygrad_rnn.errors import BackendError

from . import environment, works
from .check import DifferentError
from .measure import Bench
from .report import report

FOLDER = Path(__file__).parent
ROUNDS, SECONDS = 15, 0.3
QUICK_ROUNDS, QUICK_SECONDS = 3, 0.05


def arguments() -> argparse.Namespace:
    names = [row.name for row in works.ROWS]
    names += [works.PER_OP, works.START, works.MEMORY, works.GROWTH, works.LIMIT]
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog="What there is to measure:\n  " + "\n  ".join(names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gpu", action="store_true", help="training on a GPU, against PyTorch's cuDNN")
    parser.add_argument("--tf32", action="store_true", help="on the GPU, let all round to TF32")
    parser.add_argument("--quick", action="store_true", help="few and short rounds, to see that all runs")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="only what has this in its name; may be repeated"
    )
    parser.add_argument("--rounds", type=int, help=f"of each race; {ROUNDS}, in haste {QUICK_ROUNDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file as well")
    given = parser.parse_args()
    if given.rounds is None:
        given.rounds = QUICK_ROUNDS if given.quick else ROUNDS
    if given.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {given.rounds}")
    unknown = [o for o in given.only or () if not any(o.lower() in name.lower() for name in names)]
    if unknown:
        parser.error(f"nothing has {unknown[0]!r} in its name; there are: {'; '.join(names)}")
    return given


def on_gpu(bench: Bench, tf32: bool) -> dict[str, Any]:
    """The results with --gpu."""
    environment.round_to_tf32(tf32)
    machine = environment.describe() | {"gpu": environment.gpu(), "tf32": tf32}
    rows = [bench.race(row) for row in works.GPU_ROWS]
    return {"machine": machine, "rounds": bench.rounds, "rows": rows}


def measured(bench: Bench, only: list[str] | None) -> dict[str, Any]:
    """The results, as far as they are asked for."""

    def wanted(name: str) -> bool:
        return not only or any(part.lower() in name.lower() for part in only)

    results: dict[str, Any] = {"machine": environment.describe(), "rounds": bench.rounds}
    results["checked"] = bench.check()
    if wanted(works.LIMIT):
        results["limits"] = bench.limits()
    results["rows"] = [bench.race(row) for row in works.ROWS if wanted(row.name)]
    for name, key, measure in (
        (works.PER_OP, "per_op", bench.per_op),
        (works.MEMORY, "memory", bench.memory),
        (works.START, "start", bench.start),
        (works.GROWTH, "growth", bench.growth),
    ):
        if wanted(name):
            results[key] = measure()
    return results


def main() -> int:
    given = arguments()
    environment.without_settings()
    bench = Bench(given.rounds, QUICK_SECONDS if given.quick else SECONDS, _say)
    try:
        results = on_gpu(bench, given.tf32) if given.gpu else measured(bench, given.only)
    except (DifferentError, BackendError) as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        bench.close()
    written = json.dumps(results, indent=1) + "\n"
    text = report(results)
    if given.json:
        given.json.write_text(written)
    if not given.quick and not given.only and not given.gpu:
        (FOLDER / "results.json").write_text(written)
        (FOLDER / "RESULTS.md").write_text(text)
    print(text, end="")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
