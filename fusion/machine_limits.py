"""What of this machine the process may use: the CPUs and the memory that its container, job or affinity leave it."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def usable_cpus(root: Path = _ROOT) -> float:
    """CPUs that this process may use: by its affinity, and by the CPU quotas of its control groups.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for group in _groups(root, "cpu"):
        quota, period = [*_read(group / "cpu.max").split(), "", ""][:2]
        if not quota:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            cpus = min(cpus, int(quota) / int(period))
    return cpus


def whole_cpus() -> int:
    """Whole CPUs that this process may use; of less than one, one."""
    return max(1, int(usable_cpus()))


def usable_memory(root: Path = _ROOT) -> int | None:
    """Bytes of memory that this process may use: of the machine, and by its control groups; None where unknown.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    limits = []
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, size = line.partition(":")
        if name == "MemTotal":
            limits.append(int(size.split()[0]) << 10)
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = _read(group / name)
            if text.isdigit():
                limits.append(int(text))
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the process's control groups that may limit it, of versions 1 and 2, innermost first.

    Within a container the path may be that of the host: the folder that is mounted is then the container's own.
    """
    top = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounted = top / controllers if (top / controllers).is_dir() else top / controller
        mounted = mounted if controllers else next(filter(Path.is_dir, [top / "unified"]), top)
        inner = PurePosixPath(path.lstrip("/"))
        yield from (mounted / part for part in (inner, *inner.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
