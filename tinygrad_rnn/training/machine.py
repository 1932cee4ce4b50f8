"""What this machine lets a training use: processor cores and memory, with the limits of containers."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
LIMITS = [  # of memory, and what of it is in use (cgroup 2 and 1)
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
]


def usable_cores() -> int:
    """Cores that this process may use: those it is pinned to, or fewer if a control group says so."""
    pinned = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(pinned(0)) if pinned else os.cpu_count() or 1
    for group in _control_groups("cpu"):
        version_1 = [_text(group / f"cpu.cfs_{what}_us") for what in ("quota", "period")]
        for quota in (_text(group / "cpu.max").split(), version_1):
            match [_number(text) for text in quota]:
                case [float(time), float(period)] if time > 0 and period > 0:
                    cores = min(cores, max(1, math.ceil(time / period)))
    return cores


def processor() -> str:
    """What the processor calls itself, or at least its kind."""
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def memory() -> tuple[int | None, int | None]:
    """Bytes of memory in all, and those that are still to be had; None where the system does not say."""
    values = _table(_text("/proc/meminfo").replace(":", "").replace(" kB", ""))
    total, available = (
        None if name not in values else 1024 * values[name] for name in ("MemTotal", "MemAvailable")
    )
    if total is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if total is None:
        return None, None
    machine = total
    for group in _control_groups("memory"):
        stat = _table(_text(group / "memory.stat"))
        # What the group has in use, less its copies of files: those are dropped when memory is wanted.
        files = sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in ("active_file", "inactive_file"))
        for limit_in, used_in in LIMITS:
            limit, used = _number(_text(group / limit_in)), _number(_text(group / used_in)) or 0
            if limit is None or limit >= machine:
                continue
            total = min(total, int(limit))
            if available is not None:
                available = min(available, max(int(limit - used) + files, 0))
    return total, available


def load_average() -> float | None:
    """Programs that wanted a core at once, mean of the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups, its own first (cgroup 1 and 2)."""
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        group = root / path.lstrip("/")
        yield from (folder for folder in [group, *group.parents] if folder.is_relative_to(root))


def _table(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = [line.split() for line in text.splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "max"
        return None
