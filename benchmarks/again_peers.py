"""What does a second run cost after a change of the corpus: Barycenter beside CocoIndex and Pixeltable.

The same rows, the same all-MiniLM-L6-v2, whose own code writes down each row that it is run on (``again.py``). Each run
is a process of its own, as a nightly one is: seconds of the clock and of the processor from its start until it is done,
imports included. Every change begins from the state after the first run. Afterwards the ids and texts in the output are
compared with the corpus'.

CocoIndex runs as its guide does (a component a file) and with a component a row. Pixeltable gets the whole file again,
or the difference that its user found by hand. Barycenter embeds the texts beside an input of vectors, aligns, and
writes fused vectors, which neither peer does; it runs from the command line without Ray. Pixeltable's PostgreSQL is
left running between its runs; what the server takes of the processor is not counted. Where we are root, it runs as a
user ``pgserver``, whom Pixeltable makes.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness

if __name__ == "__main__":
    harness.with_peers("cocoindex==1.0.26", "pixeltable==0.7.21")

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}
os.environ |= {"HF_HUB_OFFLINE": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
os.environ |= {"COCOINDEX_DISABLE_USAGE_TRACKING": "1"}

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.again import ModelLog, logging_model

ROWS = int(os.environ.get("ROWS", "500"))
OTHER = "another output"


@dataclass
class World:
    """A corpus in any layout."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    name: str = "rows"
    files: int = 1
    format: str = "jsonl"

    def write(self) -> None:
        """Writes all files anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        step = -(-len(self.rows) // self.files)
        for number, start in enumerate(range(0, len(self.rows), step)):
            part, path = self.rows[start : start + step], self.folder / f"{self.name}{number}.{self.format}"
            if self.format == "jsonl":
                path.write_text("".join(json.dumps(row) + "\n" for row in part))
            else:
                pq.write_table(pa.Table.from_pylist(part), path)

    def texts(self) -> dict[str, str]:
        return {row["id"]: row["text"] for row in self.rows}


def generated() -> list[dict[str, Any]]:
    """Rows of eight words and a vector."""
    chance = random.Random(0)
    words = [word for word in (harness.minilm() / "vocab.txt").read_text().split("\n") if word.isalpha()]
    return [
        {"id": f"row{number}", "text": " ".join(chance.choices(words, k=8)), "v": _vector(chance)}
        for number in range(ROWS)
    ]


def _vector(chance: random.Random) -> list[float]:
    return [round(chance.gauss(0, 1), 4) for _ in range(8)]


def share(world: World) -> list[int]:
    """Places of 1 % of the rows."""
    return random.Random(1).sample(range(len(world.rows)), max(1, len(world.rows) // 100))


def same(world: World) -> None:
    del world  # the files are written anew in any case


def append(world: World) -> None:
    world.rows += [world.rows[n] | {"id": f"new{n}", "text": f"a new thing, number {n}"} for n in share(world)]


def edit(world: World) -> None:
    for number in share(world):
        world.rows[number] = world.rows[number] | {"text": f"an edited thing, number {number}"}


def delete(world: World) -> None:
    gone = set(share(world))
    world.rows = [row for number, row in enumerate(world.rows) if number not in gone]


def reorder(world: World) -> None:
    random.Random(2).shuffle(world.rows)


def rename(world: World) -> None:
    world.name = "renamed"


def move(world: World) -> None:
    shutil.rmtree(world.folder)
    world.folder = world.folder.parent / "moved" / "corpus"


def split(world: World) -> None:
    world.files = 5


def as_parquet(world: World) -> None:
    world.format = "parquet"


CHANGES: dict[str, Callable[[World], None]] = {
    "file written again": same, "1 % appended": append, "1 % edited": edit, "1 % deleted": delete,
    "reordered": reorder, "file renamed": rename, "folder moved": move, "split in five": split,
    "as Parquet": as_parquet, OTHER: same,
}  # fmt: skip


Run = Callable[[World, str], dict[str, Any]]
"""What a contender does with a corpus after a change; the first run's change is empty."""


class Barycenter:
    """``barycenter run`` over the folder; another output reuses the first one's embeddings."""

    def __init__(self, scratch: Path, model: Path) -> None:
        self._scratch, self._model, self._out = scratch, model, scratch / "out"

    def run(self, world: World, change: str) -> dict[str, Any]:
        if change:
            shutil.rmtree(self._out)
            shutil.copytree(self._scratch / "before", self._out)
        out = self._scratch / "other" if change == OTHER else self._out
        job = {
            "name": "again",
            "corpus": {"path": str(world.folder / f"*.{world.format}"), "key": "id"},
            "inputs": {
                "text": {"kind": "text", "column": "text", "encoder": str(self._model), "trust_remote_code": True},
                "v": {"kind": "vector", "column": "v"},
            },
            "alignment": {"method": "cca", "dim": 8},
            "output": {"path": str(out)} | ({"reuse": [str(self._out)]} if change == OTHER else {}),
        }
        path = self._scratch / "job.yaml"
        path.write_text(yaml.safe_dump(job))
        program = harness.ROOT / ".venv" / "bin" / "barycenter"
        words = [str(program), "run", str(path), "--set", "ray.address=none"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if not change:
            shutil.copytree(out, self._scratch / "before")
        manifest = json.loads((out / "manifest.json").read_text())
        keys: list[str] = []
        for file in manifest["files"]:
            keys += pq.read_table(out / file["path"], columns=["id"], partitioning=None)["id"].to_pylist()
        return {
            "seconds": seconds,
            "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "as the corpus": sorted(keys) == sorted(world.texts()),
        }


class CocoIndex:
    """Its app, a component a file or a row; another output is a second table of the same app."""

    def __init__(self, scratch: Path, way: str) -> None:
        self._scratch, self._way, self._state = scratch / way, way, scratch / way / "state"

    def run(self, world: World, change: str, app: str = "again") -> dict[str, Any]:
        before = self._scratch / "before"
        if change:
            shutil.rmtree(self._state)
            shutil.copytree(before, self._state)
        call = "update(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])"
        tables = 2 if change == OTHER and app == "again" else 1
        found = in_process("again_cocoindex", call, world, self._way, world.folder, self._state, tables, app)
        if not change:
            shutil.copytree(self._state, before)
        return found


class Pixeltable:
    """Its table; another output is another table, with the vectors copied."""

    def __init__(self, way: str) -> None:
        self._way = way

    def run(self, world: World, change: str) -> dict[str, Any]:
        function = {"": "first", OTHER: "other"}.get(change, self._way)
        return in_process("again_pixeltable", f"{function}(Path(sys.argv[1]))", world, world.folder)


def in_process(module: str, call: str, world: World, *args: object) -> dict[str, Any]:
    """A peer's run in a process of its own, and whether its output is as the corpus."""
    began = time.time()
    found = harness.in_new_process(module, call, *args)
    right = found["texts"] == world.texts()
    return {"seconds": found["until"] - began, "processor": found["processor"], "as the corpus": right}


def measured(world: World, log: ModelLog, run: Run, change: str) -> dict[str, Any]:
    """A run with the rows that the model was run on."""
    log.clear()
    found = run(world, change)
    return {"rows to the model": log.rows(list(world.texts().values()))} | found


def stop_server(home: Path) -> None:
    """Ends the PostgreSQL that Pixeltable left running."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        number = int((home / "pgdata" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(number, signal.SIGINT)
        while (home / "pgdata" / "postmaster.pid").exists():
            time.sleep(0.1)


def compared(scratch: Path) -> dict[str, Any]:
    """Every change for every contender."""
    model = logging_model(scratch / "model")
    log = ModelLog(scratch / "log.jsonl", model)
    os.environ |= {"AGAIN_MODEL": str(model), "PIXELTABLE_HOME": str(scratch / "pixeltable")}
    rows = generated()
    base = World(scratch / "world" / "corpus", rows)
    base.write()
    row_by_row = CocoIndex(scratch, "by_row")
    contenders: dict[str, Run] = {
        "Barycenter": Barycenter(scratch, model).run,
        "CocoIndex, a component a file": CocoIndex(scratch, "by_file").run,
        "CocoIndex, a component a row": row_by_row.run,
        "Pixeltable, all rows again": Pixeltable("whole").run,
        "Pixeltable, difference by hand": Pixeltable("difference").run,
    }
    first = {}
    for name, run in contenders.items():
        if name != "Pixeltable, difference by hand":  # it is the same table
            first[name] = measured(base, log, run, "")
            harness.note("first", name, first[name])
    figures = []
    for change, made in CHANGES.items():
        world = World(base.folder, [dict(row) for row in rows])
        world.write()
        made(world)
        world.write()
        found = {}
        for name, run in contenders.items():
            found[name] = measured(world, log, run, change)
            harness.sample(f"{name}, {change}", round(found[name]["seconds"], 2))
            harness.note(change, name, found[name])
        figures.append({"change": change, "rows": len(world.rows), "found": found})
        shutil.rmtree(world.folder)
    base.write()
    other_app = measured(base, log, partial(row_by_row.run, app="other"), OTHER)
    harness.note("another app of CocoIndex", other_app)
    return {"rows": ROWS, "first": first, "changes": figures, "another app of CocoIndex": other_app}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        scratch.chmod(0o755)  # Pixeltable's server runs as a user of its own where we are root
        try:
            found = compared(scratch)
        finally:
            stop_server(scratch / "pixeltable")
    harness.finish(found | {"versions": harness.versions("cocoindex", "pixeltable", "torch", "transformers")})


if __name__ == "__main__":
    main()
