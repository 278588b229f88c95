"""CPU cores and memory that the process may use, within the limits of containers and schedulers.

Docker, Kubernetes and Slurm set limits through control groups, which most numerical libraries ignore. Sources:
https://docs.kernel.org/admin-guide/cgroup-v2.html (``cpu.max``, ``memory.max``) and, for version 1,
https://docs.kernel.org/scheduler/sched-bwc.html and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")
#: Limits above this are none; version 1 writes the greatest multiple of the page size instead of "max".
_NO_LIMIT_MB = 1 << 40


def available_cpus(groups: Path = _GROUPS, own: Path = _OWN_GROUP) -> int:
    """Return the number of CPU cores that the process may use: the smallest of machine, affinity and quota.

    Parameters
    ----------
    groups : Path
        Where control groups are mounted.
    own : Path
        File that names the groups of the process.

    Examples
    --------
    >>> 1 <= available_cpus() <= (os.cpu_count() or 1)
    True
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    # A quota of 2.5 cores keeps three threads busy in part of each period; two never wait.
    quotas = [max(1, math.floor(quota)) for quota in _cpu_quotas(groups, own)]
    return min([cores, *quotas])


def thread_limit() -> int | None:
    """Return `available_cpus` where that is less than the machine has, else ``None``."""
    cpus = available_cpus()
    return cpus if cpus < (os.cpu_count() or 1) else None


def memory_limit_mb(groups: Path = _GROUPS, own: Path = _OWN_GROUP) -> float:
    """Return the memory that the process may use, MB: the smallest of machine and control groups.

    Parameters
    ----------
    groups : Path
        Where control groups are mounted.
    own : Path
        File that names the groups of the process.

    Returns
    -------
    float
        Infinite where nothing is known, as on macOS and Windows.
    """
    limits = [_machine_memory_mb()]
    for folder in _folders(groups, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            words = _words(folder / name)
            if words and words[0].isdigit():
                limits.append(int(words[0]) / 2**20)
    return min([limit for limit in limits if limit < _NO_LIMIT_MB], default=math.inf)


def _machine_memory_mb() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (AttributeError, OSError, ValueError):
        return math.inf


def _cpu_quotas(groups: Path, own: Path) -> Iterator[float]:
    for folder in _folders(groups, own, "cpu"):
        words = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]) > 0:
            yield int(words[0]) / int(words[1])


def _folders(groups: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of the process that can limit a resource, and those above them."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [groups / controllers, groups / controller] if controllers else [groups, groups / "unified"]
        for mount in dict.fromkeys(mounts):
            # Inside a container the group of the process is often mounted as the root.
            parts = Path(path.lstrip("/"))
            yield mount
            yield from (mount / parent for parent in (parts, *parts.parents) if str(parent) != ".")


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []
