"""What every benchmark shares: peers in an environment of their own, interleaved rounds, one line of JSON.

A benchmark takes no arguments. Notes go to stderr; the last line of stdout is one JSON object. The same figures, with
what was noted, each round's, the commit, the machine and the versions, go to a file (``benchmarks/result_files.py``).
It finds shared data by ``$BARYCENTER_SHARED`` (default ``../shared`` beside the repository), and exits 1 when a
required peer is missing.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import result_files

ROOT = result_files.ROOT
SHARED = Path(os.environ.get("BARYCENTER_SHARED", ROOT.parent / "shared"))
_BENCH = (ROOT / ".venv-bench").resolve()

_COMMIT, _MACHINE = result_files.commit(), result_files.machine()
_samples: dict[str, list[float]] = {}
_versions: dict[str, str] = {}
_output: list[str] = []


def note(*words: object) -> None:
    """Prints something on stderr."""
    print(*words, file=sys.stderr, flush=True)
    _output.extend(" ".join(map(str, words)).splitlines())


def sample(contender: str, value: float) -> None:
    """Keeps what a contender took or reached in one round."""
    _samples.setdefault(contender, []).append(value)


def finish(figures: Mapping[str, Any], name: str | None = None) -> None:
    """Writes the result to its file and prints the figures as the last line of stdout.

    Args:
        figures: What was found.
        name: Of the file; None is the script's.
    """
    commit, dirty = _COMMIT
    kept = result_files.Result(
        command=result_files.command(),
        date=result_files.today(),
        commit=commit,
        kept_in=None,
        dirty=dirty,
        machine=_MACHINE,
        versions=_versions or versions(),
        note="",
        rounds=max(map(len, _samples.values()), default=None),
        samples=_samples,
        figures=figures,
        output=_output,
    )
    note("written to", result_files.keep(name or Path(sys.argv[0]).stem, kept))
    print(json.dumps(figures), flush=True)


def missing(what: str) -> NoReturn:
    """Ends the benchmark: something that it must have is not there."""
    note(f"benchmark: {what}")
    raise SystemExit(1)


def shared(path: str) -> Path:
    """A shared file or folder that the benchmark cannot do without."""
    found = SHARED / path
    if not found.exists():
        missing(f"{found} is not there; set BARYCENTER_SHARED")
    return found


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, fetched once for a clone."""
    folder = ROOT / "out" / "models" / "all-MiniLM-L6-v2"
    if (
        not (folder / "config.json").is_file()
        and subprocess.run([shared("get-minilm"), folder], check=False).returncode
    ):
        missing("get-minilm failed")
    return folder


def with_peers(*requirements: str, optional: Sequence[str] = ()) -> None:
    """Goes on in ``.venv-bench``, where the peers are installed beside what ``.venv`` has.

    Call it first: it replaces the process unless it runs there already.

    Args:
        requirements: Peers that the benchmark must have.
        optional: What pip is asked for, one after the other; peers that do not go with our versions are left out.
    """
    python = _BENCH / "bin" / "python"
    if Path(sys.prefix).resolve() == _BENCH:
        return
    if not python.exists():
        note("making", _BENCH.name)
        venv.create(_BENCH, with_pip=True)
    theirs = next((_BENCH / "lib").glob("python*/site-packages"))
    ours = next((ROOT / ".venv" / "lib").glob("python*/site-packages"), None)
    if ours is None:
        missing("no .venv; run `make install` first")
    (theirs / "barycenter.pth").write_text(f"import site; site.addsitedir({str(ours)!r})\n")
    asked = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "infra" / "constraints.txt"]
    if requirements and subprocess.run([*asked, *requirements], stdout=sys.stderr, check=False).returncode:
        missing(f"cannot install {', '.join(requirements)}")
    for peer in optional:
        if subprocess.run([*asked, *peer.split()], stdout=sys.stderr, check=False).returncode:
            note("going on without", peer)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.execv(python, [str(python), *sys.argv])


def in_new_process(module: str, call: str, *args: object) -> Any:
    """The result of a call in a process of its own, so that its memory is its own.

    Args:
        module: A benchmark.
        call: What of it is called, such as ``measure(Path(sys.argv[1]))``; what it returns goes through JSON.
        args: ``sys.argv[1:]`` there, as strings.
    """
    code = "import json, sys; from pathlib import Path; "
    code += f"from benchmarks import {module}; print(json.dumps({module}.{call}))"
    words = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def versions(*names: str) -> dict[str, str]:
    """Versions of packages, and of Python."""
    found = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}
    _versions.update(found)
    return found


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender in every round; each round runs all of them, in an order that rotates."""
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - start)
            sample(name, round(seconds[name][-1], 4))
            note(f"round {number + 1}/{rounds} {name}: {seconds[name][-1]:.3f} s")
    return seconds


def median(values: Sequence[float]) -> float:
    """The median."""
    return float(statistics.median(values))


def table(rows: Sequence[Mapping[str, object]]) -> None:
    """Prints rows with equal keys as a table, on stderr."""
    names = list(rows[0])
    cells = [names, *([_cell(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        note("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
