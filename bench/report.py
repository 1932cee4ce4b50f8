"""RESULTS.md: the results as tables that a person reads. Nothing is measured or judged by hand here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinygrad_rnn.training.bench import milliseconds

from .works import JAX, OURS, PROGRAM, PYTORCH, RESNET_PEERS

PEERS = (PYTORCH, JAX, PROGRAM)
SIZES = {
    "hidden_size": "hidden size",
    "batch_size": "batch size",
    "seq_length": "length of a window",
    "layers": "layers",
    "symbols": "vocabulary",
}


def report(results: dict[str, Any]) -> str:
    """The text of RESULTS.md; of what was not measured nothing is said."""
    parts = ["# Side by side", _machine(results)]
    if rows := results.get("rows"):
        parts += [_steps(rows), _images(rows), _sampling(rows), _shares(rows)]
    for name, section in SECTIONS.items():
        if results.get(name):
            parts.append(section(results[name]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(results: dict[str, Any]) -> str:
    m = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    memory = f", {m['memory'] / 1e9:.0f} GB of memory" if m["memory"] else ""
    load = "not known" if m["load"] is None else f"{m['load']:.1f}"
    said = (
        f"Made by `make bench` on {m['date']}: {m['processor']} ({m['system']}), {_count(m['cores'], 'core')}"
        f"{memory}, load average {load} at the start. NumPy calls {m['blas']}, kernel {m['blas_kernel']}, "
        f"up to {_count(m['blas_threads'], 'thread')}. {versions}.\n\n"
        f"Medians of {_count(results['rounds'], 'round')}; in each round every contestant works in turn, "
        "in a process of its own. A factor is the time of the fastest peer over ours."
    )
    if "gpu" in m:
        said += f" The GPU is {m['gpu']}, TF32 {'on' if m['tf32'] else 'off'}."
    if results.get("checked"):
        said += (
            " Before that, all computed the same loss and gradients from the same weights, and with Adam and "
            f"SGD the same steps: {', '.join(results['checked'])}."
        )
    return said


def _steps(rows: Sequence[dict[str, Any]]) -> str:
    rows = [row for row in rows if not row["sampling"] and not _of_images(row)]
    lines = [[row["name"], *_times(row, _milliseconds), *_verdict(row)] for row in rows]
    return _section(
        "A training step",
        "Forward, cross-entropy over 65 symbols, backward, clipping, the optimiser (Adam; in the classic "
        "program Adagrad), the hidden state carried on; float32. All begin with an embedding of 64 numbers "
        "a symbol, but the classic program, which has columns of zeros with a single one, in float64. In "
        "milliseconds, and in brackets with how many threads.",
        ["work", OURS, *PEERS, "factor", "goal", "reached"],
        lines,
    )


def _images(rows: Sequence[dict[str, Any]]) -> str:
    rows = [row for row in rows if _of_images(row)]
    lines = [[row["name"], *_times(row, _milliseconds, RESNET_PEERS), *_verdict(row)] for row in rows]
    return _section(
        "A training step on images",
        "Forward, cross-entropy over 10 classes, backward, clipping, SGD with momentum and weight decay; "
        "batch normalisation, float32. In milliseconds, and in brackets with how many threads.",
        ["work", OURS, *RESNET_PEERS, "factor", "goal", "reached"],
        lines,
    )


def _of_images(row: dict[str, Any]) -> bool:
    return row["work"]["kind"] == "resnet"


def _sampling(rows: Sequence[dict[str, Any]]) -> str:
    rows = [row for row in rows if row["sampling"]]
    lines = [[row["name"], *_times(row, _per_second, (PYTORCH,)), *_verdict(row)] for row in rows]
    return _section(
        "Sampling",
        "One stream, symbols a second.",
        ["work", OURS, PYTORCH, "factor", "goal", "reached"],
        lines,
    )


def _shares(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            row["name"],
            f"{row['matrix_rate']:.0f}",
            f"{100 * row['share']:.0f} %",
            f"{100 * row['share_goal']:.0f} %" if row["share_goal"] else "",
            _yes(row["share"] >= row["share_goal"]) if row["share_goal"] else "",
        ]
        for row in rows
        if row.get("share") is not None
    ]
    return _section(
        "How near to the machine's limit",
        "Of the best rate of large matrix products, measured in the same rounds, the share that a step of "
        "ours reaches: 6 x weights x symbols / time, the embedding table not counted. On images, 6 x the "
        "products of the convolutions / time, but 4 x those of the first one.",
        ["work", "GFLOP/s", "share", "goal", "reached"],
        lines,
    )


def _limits(limits: dict[str, float]) -> str:
    return _section(
        "The machine",
        "",
        ["what", "measured"],
        [
            ["matrix product 1024 x 1024, float32, one core", f"{limits['matrix_rate_one']:.0f} GFLOP/s"],
            ["the same, all cores", f"{limits['matrix_rate_all']:.0f} GFLOP/s"],
            [
                "copying a large array, bytes read and written",
                f"{limits['copied_per_second'] / 1e9:.1f} GB/s",
            ],
            ["NumPy's tanh, per element in the cache", f"{limits['tanh'] * 1e9:.2f} ns"],
        ],
    )


def _per_op(found: dict[str, Any]) -> str:
    lines = [
        [name, *(f"{engine[part] * 1e6:.2f}" for part in ("forward", "backward", "together"))]
        for name, engine in found["engines"].items()
    ]
    ours, goal = found["engines"][OURS]["together"], found["goal"]
    return _section(
        "The engine, op by op",
        "1,000 times (matrix product, add, tanh) of 4x16, and the gradients; microseconds an op. The goal is "
        f"less than {goal * 1e6:.0f}: {'reached' if ours < goal else 'not reached'}.",
        ["engine", "forward", "backward", "together"],
        lines,
    )


def _memory(found: dict[str, Any]) -> str:
    taken = found["bytes"]
    lines = [[name, f"{size / 1e6:.0f} MB"] for name, size in taken.items()]
    said = f"What a process grows by, at most, for {found['work']}: weights, optimiser, and two steps."
    if PYTORCH in taken:
        factor = taken[PYTORCH] / taken[OURS]
        said += (
            f" PyTorch takes {factor:.2f} times as much as we do; the goal is {found['goal']:g} times: "
            f"{'reached' if factor >= found['goal'] else 'not reached'}."
        )
    return _section("Memory", said, ["contestant", "memory"], lines)


def _start(found: dict[str, float]) -> str:
    lines = [[name, f"{seconds:.2f} s"] for name, seconds in found.items()]
    return _section("Start-up", "A Python that imports it, and ends.", ["what", "time"], lines)


def _growth(found: dict[str, Any]) -> str:
    lines = [
        [
            SIZES[size],
            ", ".join(f"{value}: {milliseconds(seconds)}" for value, seconds in grown["seconds"]),
            f"{grown['exponent']:.2f}",
        ]
        for size, grown in found["sizes"].items()
    ]
    return _section(
        "How the cost of a step grows",
        f"Of ours, from {found['base']}, one size changed at a time: milliseconds, and the exponent of the "
        "power that fits them best.",
        ["size", "milliseconds", "exponent"],
        lines,
    )


SECTIONS = {
    "limits": _limits,
    "per_op": _per_op,
    "memory": _memory,
    "start": _start,
    "growth": _growth,
}


def _section(title: str, said: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    table = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    text = "\n".join(_line(cells) for cells in table)
    return "\n\n".join(part for part in (f"## {title}", said, text) if part)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _times(row: dict[str, Any], written: Any, peers: Sequence[str] = PEERS) -> list[str]:
    found = row["contestants"]
    return [written(found[name]) if name in found else "" for name in (OURS, *peers)]


def _milliseconds(found: dict[str, Any]) -> str:
    return f"{milliseconds(found['median'])} ({_threads(found)})"


def _per_second(found: dict[str, Any]) -> str:
    return f"{1 / found['median']:,.0f} ({_threads(found)})"


def _threads(found: dict[str, Any]) -> str:
    return "?" if found["threads"] is None else str(found["threads"])


def _verdict(row: dict[str, Any]) -> list[str]:
    goal = f"{row['goal']:g}"
    if row["factor"] is None:
        return ["", goal, ""]
    return [f"{row['factor']:.2f}", goal, _yes(row["factor"] >= row["goal"])]


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


def _count(number: int | None, what: str) -> str:
    return f"{'?' if number is None else number} {what}{'' if number == 1 else 's'}"
