"""CPUs and memory that a container, a job or an affinity leave a process."""

import os
from pathlib import Path

import pytest

from barycenter.fusion import machine_limits
from barycenter.fusion.machine_limits import usable_cpus, usable_memory, whole_cpus

GIB = 1 << 30


def machine(root: Path, groups: str, files: dict[str, str], memory: int = 64 * GIB) -> Path:
    """A machine's files, as far as they are looked at."""
    written = {"proc/self/cgroup": groups, "proc/meminfo": f"MemTotal:  {memory >> 10} kB\nMemFree: 1 kB\n"}
    written |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture(autouse=True)
def sixteen(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


CASES = {
    "nothing set": ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"}, 16, 64),
    "a container": ("0::/\n", {"cpu.max": "150000 100000", "memory.max": str(3 * GIB)}, 1.5, 3),
    "a job below its user": (
        "0::/slurm/job/step\n",
        {"slurm/cpu.max": "max 100000", "slurm/job/cpu.max": "400000 100000", "slurm/job/memory.max": str(8 * GIB),
         "slurm/memory.max": str(20 * GIB)}, 4, 8,
    ),
    "the path of the host": ("0::/kubepods/pod1/c2\n", {"cpu.max": "100000 100000", "memory.max": str(GIB)}, 1, 1),
    "version 1": (
        "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n1:name=systemd:/docker/a\n",
        {"cpu,cpuacct/docker/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000",
         "memory/docker/a/memory.limit_in_bytes": str(2 * GIB)}, 0.5, 2,
    ),
    "version 1 without a limit": (
        "4:memory:/\n1:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
         "memory/memory.limit_in_bytes": "9223372036854771712"}, 16, 64,
    ),
    "a soft limit": ("0::/\n", {"memory.max": "max", "memory.high": str(5 * GIB)}, 16, 5),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "files", "cpus", "memory"), CASES.values(), ids=CASES)
def test_the_least_of_all_limits_counts(tmp_path, groups, files, cpus, memory):
    root = machine(tmp_path, groups, files)
    assert usable_cpus(root) == cpus
    assert usable_memory(root) == memory * GIB


def test_an_affinity_is_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7, 9}, raising=False)
    assert usable_cpus(machine(tmp_path, "0::/\n", {"cpu.max": "800000 100000"})) == 3


def test_where_nothing_says_memory_it_is_unknown(tmp_path):
    assert usable_memory(tmp_path) is None
    assert usable_cpus(tmp_path) == 16


@pytest.mark.parametrize(("cpus", "whole"), [(0.3, 1), (1.0, 1), (3.9, 3)])
def test_a_part_of_a_cpu_is_none_but_the_first(monkeypatch, cpus, whole):
    monkeypatch.setattr(machine_limits, "usable_cpus", lambda: cpus)
    assert whole_cpus() == whole
