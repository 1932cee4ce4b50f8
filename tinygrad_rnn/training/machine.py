"""What this machine lets a training use: processor cores and memory, with the limits of containers."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may use: those it is pinned to, or fewer if a control group says so."""
    pinned = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(pinned(0)) if pinned else os.cpu_count() or 1
    quotas = [text.split() for text in _control_groups("cpu", "cpu.max")]
    version_1 = (_control_groups("cpu", f"cpu.cfs_{what}_us") for what in ("quota", "period"))
    quotas += map(list, zip(*version_1, strict=False))
    for quota in quotas:
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
    values = {}
    for line in _text("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        kibibytes = _number(value.removesuffix("kB"))
        if kibibytes is not None:
            values[name] = int(kibibytes) * 1024
    total, available = values.get("MemTotal"), values.get("MemAvailable")
    if total is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory.limit_in_bytes"):
        for text in _control_groups("memory", name):
            limit = _number(text)
            if limit is not None and total is not None and limit < total:
                total = int(limit)
    if available is not None and total is not None:
        available = min(available, total)
    return total, available


def load_average() -> float | None:
    """Programs that wanted a core at once, mean of the last minute; None where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _control_groups(controller: str, file: str) -> Iterator[str]:
    """What `file` says in each control group of this process, its own first (cgroup 1 and 2)."""
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        group = root / path.lstrip("/")
        for folder in [group, *group.parents]:
            if folder.is_relative_to(root) and (text := _text(folder / file)):
                yield text


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
