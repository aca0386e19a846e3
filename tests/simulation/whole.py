"""Whole runs with built-in encoders on simulated storage: ``python -m tests.simulation.whole N=100``.

Embed, fit and fuse are the real ones, in one process a run; the seed draws who runs beside whom, over which state of
the corpus, deaths, pauses and storage faults. Afterwards one of the jobs runs through and gives the bytes of an
undisturbed run in an empty output, whatever rows it takes over.
"""

import hashlib
import json
import os
import pickle
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

from barycenter.fusion.alignment import AlignmentSearch, Sample
from barycenter.fusion.moments import FoldMoments
from barycenter.infra.job.models import Job
from barycenter.infra.versions.garbage import collect_garbage
from barycenter.infra.versions.lease import hold
from barycenter.infra.versions.manifests import newest_manifest, verify
from barycenter.tasks.embed.shard_rows import COUNTED
from barycenter.tasks.pipeline import PLAIN, Stages, run_job
from barycenter.tasks.planning.plan import held
from barycenter.tasks.run.workers import THIS_PROCESS
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines
from tests.simulation.kernel import Chooser
from tests.simulation.scenario import Actor, read
from tests.simulation.schedule import QUIET, Explorer
from tests.simulation.world import World, entered, simulated

_fit_moments = AlignmentSearch.fit_moments
ROWS = 40
KINDS = ("local", "s3")


@lru_cache(maxsize=3)
def _corpus(state: int) -> Path:
    """The corpus as it is at first, with a row more before the others, or written backwards with one row edited."""
    rows = text_and_vector_rows(ROWS)
    if state == 1:
        rows = [*text_and_vector_rows(1, first=ROWS), *rows]
    elif state == 2:
        rows = [row | ({"text": "edited"} if number == 3 else {}) for number, row in enumerate(reversed(rows))]
    return write_lines(Path(tempfile.mkdtemp()) / "rows.jsonl", rows)


def job_of(uri: str, dim: int, state: int = 0) -> Job:
    """A job of two inputs whose features have ``dim`` columns."""
    alignment = {"method": "pca", "dim": dim, "regularization": 0.1}
    data = text_and_vector_job(_corpus(state), Path("out"), "whole", alignment=alignment)
    data["output"] = {"path": uri}
    return Job.model_validate(data)


def run_whole(world: World, dim: int, state: int = 0, refit: bool = False) -> None:
    """One run, but for its report."""
    with held(job_of(world.uri, dim, state), refit=refit) as run:
        run_job(run, THIS_PROCESS, Stages(report=lambda *_: {}))


def features(world: World) -> list[bytes]:
    """Content of the newest version's files, in order."""
    storage = world.storage()
    manifest = newest_manifest(storage)
    assert manifest is not None
    if problems := verify(storage, manifest):
        world.violated("verifies", "; ".join(problems))
    return [storage.read(file.path) for file in manifest.files]


@lru_cache(maxsize=16)
def undisturbed(kind: str, dim: int, state: int = 0) -> tuple[bytes, ...]:
    """The features of a run that nobody disturbs."""
    world, found = World(kind, "undisturbed", QUIET), []
    with entered(world):
        world.start("run-1", lambda: (run_whole(world, dim, state), found.extend(features(world))))
        world.kernel.run()
    return tuple(found)


def play_whole(seed: int, chooser: Chooser | None = None) -> World:
    """Plays one seed; raises what was found wrong."""
    draw = random.Random(f"whole {seed}")
    kind, dims = draw.choice(KINDS), draw.sample((3, 4), draw.choice((1, 1, 2)))
    jobs = [(dim, draw.choice((0, 0, 1, 2))) for dim in dims]
    for job in jobs:
        undisturbed(kind, *job)
    world = World(kind, seed, chooser or Explorer(f"whole {seed}"))
    with entered(world):
        for number, job in enumerate(jobs, 1):
            world.start(f"run-{number}", partial(run_whole, world, *job), host=draw.choice("ab"))
        world.start("reader-9", lambda: read(world, Actor("reader-9")))
        if kind == "local":
            world.kernel.on_event["power"] = world.lose_power
        world.kernel.run()
        world.start("afterwards", lambda: _afterwards(world, kind, *draw.choice(jobs)), host="c")
        world.kernel.run(QUIET)
    assert world.outcomes["afterwards: done"] == 1, world.errors
    return world


def _afterwards(world: World, kind: str, dim: int, state: int) -> None:
    world.kernel.sleep(800)
    run_whole(world, dim, state, refit=True)
    if tuple(features(world)) != undisturbed(kind, dim, state):
        world.violated("bytes", "the rerun's features are not the undisturbed run's")
    world.keeps["afterwards"] = 1
    storage = world.storage()
    with hold(storage, "gc", deletes=True) as lease:
        collect_garbage(storage, lease, 1)
    if left := [path for path in storage.list() if storage.is_temporary(path) or "_blocks" in path]:
        world.violated("garbage", f"left after a collection: {left}")
    _check_rows_are_taken_over(world, dim, state)


def _check_rows_are_taken_over(world: World, dim: int, state: int) -> None:
    """All rows of another state of the corpus are there, but for one."""
    with held(job_of(world.uri, dim, (state + 1) % 3)) as run:
        reuse = PLAIN.embed_inputs(run, THIS_PROCESS)["embed text"]["reuse"]
    if reuse["encoded"] > 1 or reuse["read"] != sum(reuse[part] for part in ("kept", *COUNTED)):
        world.violated("taken over", f"of a changed corpus: {reuse}")


@lru_cache(maxsize=1)
def _known_fits() -> dict[bytes, tuple[bytes, list[warnings.WarningMessage]]]:
    return {}


def _fit_once(self: AlignmentSearch, folds: FoldMoments, sample: Sample) -> AlignmentSearch:
    """As ``fit_moments``, which asks nobody and writes nothing: calculated once for one and the same input."""
    given = [(part.dims, part.precision, part.to_arrays()) for part in folds]
    key = hashlib.sha256(pickle.dumps((self.get_params(), given, sample))).digest()
    if key not in _known_fits():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            _fit_moments(self, folds, sample)
        _known_fits()[key] = pickle.dumps(self.__dict__), said
    fitted, said = _known_fits()[key]
    for each in said:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    self.__dict__.update(pickle.loads(fitted))  # noqa: S301 - our own bytes
    return self


@contextmanager
def quick() -> Iterator[None]:
    """Storage is simulated, progress is silent, objects are sent whole, equal moments are fitted once."""
    with ExitStack() as stack:
        stack.enter_context(simulated())
        stack.enter_context(mock.patch.object(AlignmentSearch, "fit_moments", _fit_once))
        stack.enter_context(mock.patch("barycenter.infra.storage.remote._PART", 2**26))
        stack.enter_context(redirect_stderr(stack.enter_context(Path(os.devnull).open("w"))))
        yield


def explore_whole(first: int, count: int) -> dict[str, Any]:
    """Plays seeds; how many steps, what failed."""
    facts: dict[str, Any] = {"schedules": 0, "steps": 0, "failed": {}}
    with quick():
        for seed in range(first, first + count):
            facts["schedules"] += 1
            try:
                facts["steps"] += play_whole(seed).kernel.steps
            except Exception as error:  # noqa: BLE001 - a finding
                facts["failed"][seed] = f"{type(error).__name__}: {error}"
    return facts


def main(arguments: list[str]) -> int:
    """Plays ``N`` seeds from ``SEED`` on and prints a line of JSON."""
    given = dict(argument.split("=", 1) for argument in arguments)
    first, workers = int(given.get("SEED", 0)), int(given.get("WORKERS", os.cpu_count() or 1))
    count = int(given.get("N", 1 if "SEED" in given else 100))
    began, size = time.perf_counter(), max(1, min(10, -(-count // workers)))
    with ProcessPoolExecutor(workers) as pool:
        starts = range(first, first + count, size)
        parts = [
            part.result()
            for part in [pool.submit(explore_whole, start, min(size, first + count - start)) for start in starts]
        ]
    facts = {name: sum(part[name] for part in parts) for name in ("schedules", "steps")}
    failed = {seed: line for part in parts for seed, line in part["failed"].items()}
    print(json.dumps(facts | {"failed": failed, "seconds": round(time.perf_counter() - began, 1)}))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
