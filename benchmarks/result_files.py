"""What a benchmark found, where, and of which commit: a list of runs, newest last, for each benchmark.

``benchmarks/results/<benchmark>.json`` are kept. A run writes to ``out/bench/results``; ``RESULTS=benchmarks/results``
before the command adds it to those that are kept, and ``python -m benchmarks.tables`` then fills the pages anew.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "results"
_SETTINGS = ("LOSS_EVERY", "ROWS", "MANY", "PARTS", "ROUNDS", "LOCAL", "REMOTE", "FAULT_EVERY", "JOB")
"""Variables that some benchmark reads."""


@dataclass(frozen=True)
class Machine:
    """Where a benchmark ran; None where nobody noted it.

    Args:
        processor: The processor's model.
        cores: Cores that the process may use.
        avx512: Whether the processor has AVX-512.
        memory_gib: Memory of the machine.
        gpu: Name of the GPU.
        load: Load average of the last minute, when the benchmark began.
    """

    processor: str | None = None
    cores: int | None = None
    avx512: bool | None = None
    memory_gib: int | None = None
    gpu: str | None = None
    load: float | None = None


@dataclass(frozen=True)
class Result:
    """One run of a benchmark.

    Args:
        command: What was typed.
        date: ISO date.
        commit: The commit that was measured; None where nobody noted it.
        kept_in: Where ``commit`` is None, the commit that brought the result.
        dirty: Whether tracked files differed from that commit.
        machine: Where it ran.
        versions: Of Python and of packages.
        note: What else was running, what was left out.
        rounds: How often each contender ran; None where there were no rounds.
        samples: What each contender took or reached in every round.
        figures: What the benchmark printed last.
        output: What it printed before.
    """

    command: str
    date: str
    commit: str | None
    kept_in: str | None
    dirty: bool | None
    machine: Machine
    versions: Mapping[str, str]
    note: str
    rounds: int | None
    samples: Mapping[str, Sequence[float]]
    figures: Any
    output: Sequence[str]


def load(name: str, folder: Path = KEPT) -> list[Result]:
    """All runs of a benchmark, newest last."""
    runs = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return [Result(**run | {"machine": Machine(**run["machine"])}) for run in runs]


def keep(name: str, result: Result) -> Path:
    """Adds a run to the file of its benchmark, in the folder that ``$RESULTS`` names."""
    folder = Path(os.environ.get("RESULTS", ROOT / "out" / "bench" / "results"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    path.write_text(json.dumps([*runs, asdict(result)], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def command() -> str:
    """How this process was called, with the settings that it got as variables."""
    given = [f"{name}={os.environ[name]}" for name in _SETTINGS if name in os.environ]
    script = Path(sys.argv[0]).resolve()
    shown = str(script.relative_to(ROOT)) if script.is_relative_to(ROOT) else script.name
    if script.name == "__main__.py":
        shown = f"-m {'.'.join(script.parent.relative_to(ROOT).parts)}"
    return " ".join([*given, "python", shown, *sys.argv[1:]])


def commit() -> tuple[str | None, bool | None]:
    """The commit of this checkout and whether tracked files differ from it; None where it is not one."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        return head, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def machine() -> Machine:
    """This machine, as its benchmarks begin."""
    cpu = _fields(Path("/proc/cpuinfo"))
    memory = _fields(Path("/proc/meminfo")).get("MemTotal")
    flags = cpu.get("flags")
    return Machine(
        processor=cpu.get("model name") or platform.processor() or None,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        avx512="avx512f" in flags.split() if flags else None,
        memory_gib=round(int(memory.split()[0]) / 2**20) if memory else None,
        gpu=_gpu(),
        load=round(os.getloadavg()[0], 1),
    )


def today() -> str:
    """The date, ISO."""
    return time.strftime("%Y-%m-%d")


def _gpu() -> str | None:
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    return names[0] if names else None


def _fields(path: Path) -> dict[str, str]:
    """Fields of the first part of a file of ``name: value`` lines."""
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
