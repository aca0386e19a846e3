"""A million shards through the real planner and the real dispatcher, with workers that exist on a clock only.

The corpus is listed but not there, Ray is replaced by a queue of finishing times, and time passes as the shards would
take it plus what the driver itself takes. So it shows where the driver becomes the limit: milliseconds of its own for
each shard, its memory, and how much longer than ideal a run takes as workers are added (with more of them fewer shards,
for what the driver does for each does not depend on how many there are).
"""

import heapq
import itertools
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import barycenter.infra.dispatch.scheduler as driver_module

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from barycenter.infra.corpus.base import SourceIndex
from barycenter.infra.corpus.corpus import Corpus
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.formats.tables import Parquet
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.dispatch.actor import Done
from barycenter.infra.dispatch.api import Work, dispatch
from barycenter.infra.job.models import CorpusJob
from barycenter.infra.ray.connection import WorkerPlan
from barycenter.tasks.embed.worker import ShardJob
from barycenter.tasks.run.context import digest
from benchmarks.harness import finish, note, table

SHARDS = 1_000_000
ROWS_PER_SHARD = 4096
FILES = 10_000
START_SECONDS = 10.0
RUNS = ((16, 1_000_000), (256, 200_000), (1024, 50_000))
"""Workers, and shards that they do."""
ROWS_PER_WORKER_SECOND = 1_000.0


class Clock:
    """Real time, and the time that is waited without waiting."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def monotonic(self) -> float:
        return time.perf_counter() + self.skipped


class Imagined:
    """What the driver uses of Ray: actors that finish one call after the other when the clock says so."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self._due: list[tuple[float, int]] = []
        self._numbers = itertools.count()

    def remote(self, _: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: self._actor()))

    def _actor(self) -> Any:
        free_at = self._clock.monotonic()

        def call(seconds: float) -> int:
            nonlocal free_at
            free_at = max(free_at, self._clock.monotonic()) + seconds
            number = next(self._numbers)
            heapq.heappush(self._due, (free_at, number))
            return number

        return SimpleNamespace(
            load=SimpleNamespace(remote=lambda *_: call(START_SECONDS)),
            run=SimpleNamespace(remote=lambda *_: call(self._seconds)),
        )

    def wait(self, refs: Sequence[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        del refs, num_returns
        end, now = self._clock.monotonic() + timeout, self._clock.monotonic()
        if not self._due or self._due[0][0] > end:
            self._clock.skipped += max(0.0, end - now)
            return [], []
        due, number = heapq.heappop(self._due)
        self._clock.skipped += max(0.0, due - now)
        return [number], []

    def get(self, _: int) -> Done:
        return Done(None)

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": "here"}]

    def kill(self, *_: Any, **__: Any) -> None:
        """Nothing to kill."""


class Nothing:
    def run(self, payload: Any) -> None:
        del payload


def plan() -> tuple[tuple[Any, ...], float]:
    """The shards of an imagined corpus, and the seconds that planning them took."""
    rows = SHARDS * ROWS_PER_SHARD // FILES
    entries = {
        Entry(f"s3://corpus/part-{n:05d}.parquet", f"part-{n:05d}.parquet", 1, f"{n}"): SourceIndex(rows, {})
        for n in range(FILES)
    }
    start = time.perf_counter()
    job = CorpusJob(path="s3://corpus", rows_per_shard=ROWS_PER_SHARD)
    shards = tuple(Corpus("s3://corpus", Files(), Parquet(), job, entries).shards(ROWS_PER_SHARD))
    digest([shard.id for shard in shards])
    return shards, time.perf_counter() - start


def simulate(shards: Sequence[Any], workers: int) -> dict[str, float]:
    """One stage over all shards on so many workers."""
    clock = Clock()
    seconds = ROWS_PER_SHARD / ROWS_PER_WORKER_SECOND
    real = driver_module.ray, driver_module.time
    driver_module.ray, driver_module.time = Imagined(clock, seconds), clock  # type: ignore[assignment]
    began, cpu = clock.monotonic(), time.process_time()
    done = 0

    def on_done(*_: Any) -> None:
        nonlocal done
        done += 1

    try:
        dispatch(
            (Work(shard.id, ShardJob(shard, 64), shard.rows) for shard in shards),
            worker=Nothing, plan=WorkerPlan(workers, 1), name="simulated", on_done=on_done,
        )  # fmt: skip
    finally:
        driver_module.ray, driver_module.time = real
    assert done == len(shards)
    took = clock.monotonic() - began
    ideal = START_SECONDS + -(-len(shards) // workers) * seconds
    return {
        "workers": workers,
        "shards": len(shards),
        "hours": took / 3600,
        "of_ideal": took / ideal,
        "driver_ms_per_shard": 1000 * (time.process_time() - cpu) / len(shards),
    }


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    before = peak_mb()
    shards, seconds = plan()
    note(f"{len(shards):,} shards planned in {seconds:.1f} s; peak {peak_mb()} MB, {before} MB before")
    results = [simulate(shards[:count], workers) for workers, count in RUNS]
    table(results)
    finish(
        {
            "plan_s": round(seconds, 2),
            "plan_mb_per_million_shards": peak_mb() - before,
            "driver_ms_per_shard": {str(each["workers"]): round(each["driver_ms_per_shard"], 4) for each in results},
            "of_ideal": {str(each["workers"]): round(each["of_ideal"], 4) for each in results},
        }
    )


if __name__ == "__main__":
    main()
