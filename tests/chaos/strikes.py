"""One strike: a run, something of it killed at a drawn moment of a drawn stage, the rerun, and what must hold then."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barycenter.infra.storage import Storage
from barycenter.infra.versions.garbage import collect_garbage
from barycenter.infra.versions.lease import hold
from barycenter.infra.versions.manifests import read_manifest, verify
from tests.chaos.world import Actor, Nodes, PrefectServer, actors, start_run, wait_until
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines

VICTIMS = ("worker", "node", "driver", "prefect")
STAGES = ("embed", "fit", "fuse", "train")
NAME = "chaos"


@dataclass(frozen=True)
class Strike:
    """What is killed, in which stage, and when: drawn from the seed; 16 consecutive seeds are the whole matrix."""

    seed: int

    @property
    def victim(self) -> str:
        return VICTIMS[self.seed % len(VICTIMS)]

    @property
    def stage(self) -> str:
        return STAGES[self.seed // len(VICTIMS) % len(STAGES)]

    @property
    def moment(self) -> float:
        """Fraction of the stage's undisturbed time after which the blow falls."""
        return 0.9 * random.Random(self.seed).random()


@dataclass
class Outcome:
    """What came of a strike; ``wrong`` is empty when everything held."""

    struck: str = "nothing"
    delay: float = 0.0
    exit_code: int = 0
    line: str = ""
    done_before: int = 0
    rerun: dict[str, Any] = field(default_factory=dict)
    features: str = ""
    wrong: list[str] = field(default_factory=list)


def digests(out: Path, folder: str = "features", suffix: str = ".parquet") -> dict[str, str]:
    """SHA-256 of the files of an output, by relative path."""
    paths = sorted(path for path in (out / folder).rglob(f"*{suffix}") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def summary(files: dict[str, str]) -> str:
    """One hash of several."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


class Range:
    """Where strikes happen: one corpus, its undisturbed run, and a new output for every strike.

    Args:
        folder: Where corpus and outputs go.
        nodes: The Ray cluster.
        server: The Prefect server.
        rows: Rows of the corpus, twenty a shard, two inputs.
    """

    def __init__(self, folder: Path, nodes: Nodes, server: PrefectServer, rows: int = 1600) -> None:
        self.folder, self.nodes, self.server = folder, nodes, server
        self._corpus = write_lines(folder / "corpus" / "rows.jsonl", text_and_vector_rows(rows))
        self.expected: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def job(self, name: str, head: str = "linear") -> tuple[Path, Path]:
        """A job file and its output."""
        out = self.folder / name
        data = text_and_vector_job(
            self._corpus,
            out,
            NAME,
            ray={"address": self.nodes.address, "workers": 2, "threads_per_worker": 1},
            train={"target": "label", "head": head},
        )
        return write_job(self.folder / f"{name}.yaml", data), out

    def undisturbed(self) -> None:
        """Runs the job undisturbed: its features are what every other run must end with."""
        job, out = self.job("undisturbed")
        process = start_run(job, self.server.url)
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the undisturbed run failed: {errors}")
        self.expected = digests(out)
        speed = json.loads((out / "report/report.json").read_text())["speed"]
        self.seconds = {
            "embed": speed["embed text"]["seconds"] + speed["embed vec"]["seconds"],
            "fit": speed["align"]["seconds"],
            "fuse": speed["fuse"]["seconds"],
            "train": speed["train"]["seconds"] + speed["report"]["seconds"],
        }

    def strike(self, strike: Strike) -> Outcome:
        """Strikes once and returns what came of it."""
        outcome = Outcome(delay=strike.moment * self.seconds[strike.stage])
        job, out = self.job(f"seed{strike.seed}", "mlp" if strike.stage == "train" else "linear")
        shutil.rmtree(out, ignore_errors=True)
        process = start_run(job, self.server.url)
        worker = wait_until(lambda: process.poll() is not None or reached(strike.stage, out))
        time.sleep(outcome.delay)
        if process.poll() is None:
            blow = self._blow(strike, worker, process)
            blow(outcome)
        _, errors = process.communicate()
        outcome.exit_code, outcome.line = process.returncode, last_line(errors)
        self.nodes.mend()
        self.server.mend()
        self._after(job, out, outcome)
        shutil.rmtree(out)
        return outcome

    def _blow(self, strike: Strike, worker: Any, process: subprocess.Popen[str]) -> Callable[[Outcome], None]:
        def next_worker(outcome: Outcome) -> None:
            there = wait_until(lambda: workers(strike.stage) or process.poll() is not None)
            for actor in there if isinstance(there, list) else []:
                os.kill(actor.pid, signal.SIGKILL)
                outcome.struck = f"worker {actor.name}"
                break

        def node(outcome: Outcome) -> None:
            there = workers(strike.stage)
            first = there[0] if there else worker
            self.nodes.kill(first.node_id if isinstance(first, Actor) else None)
            outcome.struck = f"node of {first.name}" if isinstance(first, Actor) else "node"

        def driver(outcome: Outcome) -> None:
            process.kill()
            outcome.struck = "driver"

        def prefect(outcome: Outcome) -> None:
            self.server.kill()
            outcome.struck = "Prefect server"

        return {"worker": next_worker, "node": node, "driver": driver, "prefect": prefect}[strike.victim]

    def _after(self, job: Path, out: Path, outcome: Outcome) -> None:
        """Reruns and checks all that must hold."""
        wrong = outcome.wrong
        if not wait_until(lambda: not actors(NAME)):
            wrong.append(f"workers outlived their run: {[actor.name for actor in actors(NAME)]}")
        before = stamps(out)
        outcome.done_before = len(before)
        process = start_run(job, self.server.url)
        _, errors = process.communicate()
        if process.returncode:
            wrong.append(f"the rerun ended with {process.returncode}: {last_line(errors)}")
            return
        after = stamps(out)
        again = [path for path, stamp in before.items() if after.get(path) != stamp]
        if again:
            wrong.append(f"{len(again)} shards that were done were done again, such as {again[0]}")
        speed = json.loads((out / "report/report.json").read_text())["speed"]
        outcome.rerun = {stage: speed[stage]["rows"] for stage in ("embed text", "embed vec", "align", "fuse")}
        wrong += checked(out, self.expected)
        outcome.features = summary(digests(out))


def checked(out: Path, expected: dict[str, str]) -> list[str]:
    """What is wrong with an output that must equal another: features, manifest, what is left after gc."""
    wrong = []
    storage = Storage(str(out))
    if digests(out) != expected:
        wrong.append(f"features differ from the undisturbed run: {digests(out)} instead of {expected}")
    wrong += verify(storage, read_manifest(storage))
    with hold(storage, "gc", deletes=True) as lease:
        collect_garbage(storage, lease)
    if left := temporary_files(storage):
        wrong.append(f"temporary files after gc: {left}")
    if digests(out) != expected:
        wrong.append("gc took features")
    return wrong


def temporary_files(storage: Storage) -> list[str]:
    """What killed writers left behind, sorted."""
    return sorted(path for path in storage.walk() if storage.is_temporary(path))


def prefix(stage: str) -> str:
    """How the names of a stage's actors begin."""
    return f"{NAME}-{stage}"


def workers(stage: str) -> list[Actor]:
    """The living workers of a stage."""
    return actors(prefix(stage))


def reached(stage: str, out: Path) -> Any:
    """An actor of the stage, or True where it has none and its first file is there."""
    if stage == "train":
        return (out / "manifest.json").exists()
    return next(iter(workers(stage)), None)


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every embedding file."""
    files = sorted((out / "embeddings").glob("[!.]*/*/*.parquet")) if out.exists() else []
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def last_line(errors: str) -> str:
    """The last line of a run's stderr."""
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else ""
