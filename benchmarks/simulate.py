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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from barycenter.infra.clock import SystemClock, use_clock
from barycenter.infra.corpus.base import SourceIndex
from barycenter.infra.corpus.corpus import Corpus
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.formats.tables import Parquet
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.dispatch.api import Work, dispatch
from barycenter.infra.dispatch.executor import Done, StartedWorker
from barycenter.infra.job.models import CorpusJob
from barycenter.tasks.embed.worker import ShardJob
from barycenter.tasks.run.digest import digest
from benchmarks.harness import finish, note, table

SHARDS = 1_000_000
ROWS_PER_SHARD = 4096
FILES = 10_000
START_SECONDS = 10.0
RUNS = ((16, 1_000_000), (256, 200_000), (1024, 50_000))
"""Workers, and shards that they do."""
ROWS_PER_WORKER_SECOND = 1_000.0


class Clock(SystemClock):
    """Real time, and the time that is waited without waiting."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def monotonic(self) -> float:  # type: ignore[override]
        return time.perf_counter() + self.skipped


@dataclass
class Imagined:
    """A worker: when it has ended the calls it was given."""

    free_at: float


class ImaginedExecutor:
    """Workers that finish one call after the other when the clock says so."""

    concurrency = 1
    start_seconds = None

    def __init__(self, clock: Clock, workers: int, seconds: float) -> None:
        self.workers = self.at_first = workers
        self._clock, self._seconds = clock, seconds
        self._due: list[tuple[float, int]] = []
        self._numbers = itertools.count()

    def start(self) -> StartedWorker:
        worker = Imagined(self._clock.monotonic())
        return StartedWorker(f"imagined-{next(self._numbers)}", worker, self._call(worker, START_SECONDS))

    def submit(self, worker: StartedWorker, method: str, *args: Any) -> int:
        del method, args
        return self._call(worker.handle, self._seconds)

    def wait(self, calls: Sequence[int], seconds: float) -> list[int]:
        del calls
        end, now = self._clock.monotonic() + seconds, self._clock.monotonic()
        if not self._due or self._due[0][0] > end:
            self._clock.skipped += max(0.0, end - now)
            return []
        due, number = heapq.heappop(self._due)
        self._clock.skipped += max(0.0, due - now)
        return [number]

    def outcome(self, call: int) -> Done:
        del call
        return Done(None)

    def kill(self, worker: StartedWorker) -> None:
        """Nothing to kill."""

    def check_alive(self) -> None:
        """It is."""

    def leaving(self) -> frozenset[Any]:
        return frozenset()

    def reserve_memory(self, least: int | None = None) -> None:
        del least

    def shortage(self) -> str:
        return ""

    def _call(self, worker: Imagined, seconds: float) -> int:
        worker.free_at = max(worker.free_at, self._clock.monotonic()) + seconds
        number = next(self._numbers)
        heapq.heappush(self._due, (worker.free_at, number))
        return number


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
    began, cpu = clock.monotonic(), time.process_time()
    done = 0

    def on_done(*_: Any) -> None:
        nonlocal done
        done += 1

    with use_clock(clock):
        work = (Work(shard.id, ShardJob(shard, 64), shard.rows) for shard in shards)
        dispatch(work, ImaginedExecutor(clock, workers, seconds), on_done=on_done)
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
