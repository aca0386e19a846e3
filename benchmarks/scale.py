"""Whether cost grows in proportion to rows and memory not at all: fit and fuse at three sizes, the plan, the dispatch.

Vector inputs of 384 and 512 dimensions are written, embedded (passed through), fitted and fused at 250,000, 1,000,000
and 4,000,000 rows, on a real Ray, without Prefect; fewer where disk or time do not allow it, which is said. Figures:

- ``seconds_per_million``: fit (the pass over the data) and fuse together, once every worker has done its first unit;
- ``peak_rss_mb``: the largest of the driver and its workers;
- ``fuse_vs_copy_per_core``: rows per second of fuse over those of as many one-threaded processes as fuse has workers,
  which only read the same embedding files and write the same feature bytes with pyarrow, in the same run, at a million
  rows: a core against a core; ``fuse_vs_copy`` over those of one such process with pyarrow's threads;
- ``plan_million_s``, with its peak memory on stderr: a million shards planned;
- ``dispatch_ms_per_shard``: the dispatch loop over 20,000 units of a worker that does nothing.
"""

import json
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import finish, in_new_process, median, note, sample, table, versions

SIZES = (250_000, 1_000_000, 4_000_000)
WIDTHS = {"a": 384, "b": 512}
DIM = 256
MILLION = 1_000_000
COPIED = 1_000_000
FILE_ROWS = 250_000
BYTES_PER_ROW = 2 * 4 * sum(WIDTHS.values()) + 4 * DIM + 500
BUDGET_S = 900.0
RAY_CPUS = 2


def job_of(folder: Path, rows_per_shard: int = 4096, dim: int = DIM) -> Any:
    from barycenter.infra.job.models import Job

    return Job.model_validate(
        {
            "name": "scale",
            "corpus": {"path": str(folder / "corpus"), "key": "id", "rows_per_shard": rows_per_shard},
            "inputs": {name: {"kind": "vector", "column": name} for name in WIDTHS},
            "alignment": {"method": "joint", "dim": dim, "regularization": 0.01},
            "output": {"path": str(folder / "out")},
        }
    )


def write_corpus(folder: Path, rows: int) -> None:
    """Two views of a common 32-dimensional signal in noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    maps = {name: rng.standard_normal((32, width), np.float32) for name, width in WIDTHS.items()}
    for start in range(0, rows, FILE_ROWS):
        writer = None
        for first in range(start, min(start + FILE_ROWS, rows), 16_384):
            count = min(16_384, start + FILE_ROWS - first, rows - first)
            signal = rng.standard_normal((count, 32), np.float32)
            columns = {"id": pa.array([f"row{row:09d}" for row in range(first, first + count)])}
            for name, width in WIDTHS.items():
                values = rng.standard_normal((count, width), np.float32)
                values += signal @ maps[name]
                columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
            part = pa.table(columns)
            writer = writer or pq.ParquetWriter(
                folder / f"{start:09d}.parquet", part.schema, compression="none", use_dictionary=False
            )
            writer.write_table(part)
        assert writer is not None
        writer.close()


class Peaks:
    """The largest peak memory of this process's Ray workers, read from /proc while they live."""

    def __init__(self) -> None:
        self.worker_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            for status in Path("/proc").glob("[0-9]*/status"):
                try:
                    lines = status.read_text().splitlines()
                    command = (status.parent / "cmdline").read_bytes()
                except OSError:
                    continue
                if re.match(rb"ray::\w+Worker", command):
                    peak = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0 kB")
                    self.worker_mb = max(self.worker_mb, int(peak.split()[1]) / 1024)


class Watch:
    """What the driver reports of the running dispatch: when its first worker was ready, when which unit was done."""

    def __init__(self) -> None:
        from barycenter.infra.dispatch.pool import Finished, WorkerPool

        self.loaded: float | None = None
        self.done: list[tuple[float, str, int]] = []
        take = WorkerPool._take

        def taken(pool: Any, member: Any, call: Any) -> Any:
            result = take(pool, member, call)
            if isinstance(result, Finished):
                self.done.append((time.perf_counter(), member.started.name, result.unit.work.rows))
            elif self.loaded is None:
                self.loaded = time.perf_counter()
            return result

        WorkerPool._take = taken  # type: ignore[method-assign]

    def timed(self, stage: Callable[[], Any]) -> tuple[Any, float]:
        """The result, and seconds since the first worker was ready."""
        self.loaded, self.done = None, []
        result = stage()
        assert self.loaded is not None
        return result, time.perf_counter() - self.loaded

    def steady_seconds_per_million(self) -> float:
        """Seconds that a million rows take once every worker has done its first unit."""
        first: dict[str, float] = {}
        for at, worker, _ in self.done:
            first.setdefault(worker, at)
        warm = max(first.values())
        rows = sum(rows for at, _, rows in self.done if at > warm)
        return (self.done[-1][0] - warm) / rows * MILLION


@contextmanager
def local_ray() -> Iterator[Any]:
    from barycenter.infra.ray.connection import connect

    with connect("local") as cluster:
        yield cluster


def run_size(folder: Path) -> dict[str, Any]:
    """Embeds, fits and fuses one corpus; seconds and peaks."""
    from barycenter.tasks.align.stage import _fit, fold_moments
    from barycenter.tasks.data.alignment_files import FittedAlignment, save_alignment
    from barycenter.tasks.embed.stage import embed_input
    from barycenter.tasks.fuse.stage import fuse_features
    from barycenter.tasks.observability.progress import StageProgress
    from barycenter.tasks.planning.plan import prepare

    run = prepare(job_of(folder))
    figures: dict[str, Any] = {"rows": run.rows, "shards": len(run.shards)}
    watch = Watch()
    with local_ray() as cluster, Peaks() as peaks:
        for name in run.inputs:
            figures[f"embed_{name}_s"] = watch.timed(lambda name=name: embed_input(run, name, cluster))[1]
        with StageProgress("fit", run.rows) as progress:
            moments, figures["fit_s"] = watch.timed(lambda: fold_moments(run, cluster, progress))
        figures["fit_per_million"] = watch.steady_seconds_per_million()
        start = time.perf_counter()
        alignment, summary = _fit(run, cluster, lambda held=moments: held)
        figures["solve_s"] = time.perf_counter() - start
        fitted = FittedAlignment(alignment, save_alignment(run.storage, alignment), summary)
        del moments
        (manifest, _), figures["fuse_s"] = watch.timed(lambda: fuse_features(run, cluster, fitted, "mean", None))
        figures["fuse_per_million"] = watch.steady_seconds_per_million()
        figures["workers"] = cluster.machines().allocate_workers("auto", 1, 0).workers
    figures["files"] = [round(file.bytes / 2**20) for file in manifest.files]
    figures["worker_mb"] = peaks.worker_mb
    figures["driver_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def copy_part(folder: Path, part: int, parts: int, barrier: Any, results: Any) -> None:
    """Reads the embeddings behind every ``parts``-th feature file and writes that file again, with pyarrow alone."""
    if parts > 1:
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
    from barycenter.fusion.dataset.schema import ROW_GROUP_ROWS, parquet_options

    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    mine = [(number, file) for number, file in enumerate(manifest["files"]) if number % parts == part]
    starts = np.cumsum([0, *(file["rows"] for file in manifest["files"])])
    shards = manifest["shards"]
    rows_of = [pq.read_metadata(embedding(folder, manifest, "a", shard)).num_rows for shard in shards]
    shard_starts = np.cumsum([0, *rows_of])
    barrier.wait()
    seconds, rows = 0.0, 0
    for number, file in mine:
        features = pq.ParquetFile(folder / "out" / file["path"]).read()
        inside = [s for s, at in zip(shards, shard_starts, strict=False) if starts[number] <= at < starts[number + 1]]
        start = time.perf_counter()
        for shard in inside:
            for name in WIDTHS:
                pq.ParquetFile(embedding(folder, manifest, name, shard), memory_map=True).read(use_threads=parts == 1)
        with (folder / f"copy-{part}.parquet").open("wb") as sink:
            pq.write_table(features, sink, row_group_size=ROW_GROUP_ROWS, **parquet_options(features.schema))
            sink.flush()
            os.fsync(sink.fileno())
        seconds += time.perf_counter() - start
        rows += file["rows"]
    results.put((rows, seconds))


def embedding(folder: Path, manifest: dict[str, Any], name: str, shard: str) -> Path:
    return folder / "out" / "embeddings" / name / manifest["inputs"][name]["embedding_id"] / f"{shard}.parquet"


def copy_rate(folder: Path, workers: int) -> float:
    """Rows per second of ``workers`` processes that copy at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=copy_part, args=(folder, part, workers, barrier, results)) for part in range(workers)
    ]
    for process in processes:
        process.start()
    parts = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(rows / seconds for rows, seconds in parts if rows)


def plan_million(folder: Path) -> dict[str, float]:
    """A million shards of one row each, in a hundred files, planned from nothing."""
    from barycenter.tasks.planning.plan import describe_plan, prepare

    start = time.perf_counter()
    run = prepare(job_of(folder, rows_per_shard=1, dim=2))
    plan = describe_plan(run)
    run.embeddings_key()
    seconds = time.perf_counter() - start
    assert plan["shards"] == MILLION
    return {"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


class Nothing:
    """A worker that does nothing."""

    def run(self, payload: Any) -> None:
        del payload


def dispatch_nothing(units: int) -> float:
    """Milliseconds a unit."""
    from barycenter.infra.dispatch.api import Work, dispatch

    watch = Watch()
    with local_ray() as cluster:
        _, seconds = watch.timed(
            lambda: dispatch(
                (Work(str(number), number, 1) for number in range(units)),
                cluster.executor(Nothing, (), cluster.machines().allocate_workers(2, 1, 0), "nothing"),
                on_done=lambda *_: None,
            )
        )  # fmt: skip
    return 1000 * seconds / units


def measure(folder: Path, rows: int) -> dict[str, Any]:
    start = time.perf_counter()
    write_corpus(folder / "corpus", rows)
    note(f"{rows:,} rows written in {time.perf_counter() - start:.0f} s")
    figures: dict[str, Any] = in_new_process("scale", "run_size(Path(sys.argv[1]))", folder)
    figures["seconds_per_million"] = figures["fit_per_million"] + figures["fuse_per_million"]
    figures["total_s"] = time.perf_counter() - start
    if rows == COPIED:
        for name, processes in (("copy_rows_per_s", 1), ("copy_rows_per_s_all_cores", figures["workers"])):
            rates = [copy_rate(folder, processes) for _ in range(2)]
            for rate in rates:
                sample(f"bare copies, {processes} process(es), rows/s", round(rate))
            figures[name] = median(rates)
            note(f"bare copies, {processes} process(es): {', '.join(f'{rate:,.0f}' for rate in rates)} rows/s")
    return figures


def main() -> None:
    note("scale:", versions("pyarrow", "numpy", "ray"), f"{os.cpu_count()} cores")
    begun = time.perf_counter()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        for rows in SIZES:
            needed, free = rows * BYTES_PER_ROW * 1.2 / 2**30, shutil.disk_usage(root).free / 2**30
            if needed > free:
                note(f"{rows:,} rows need {needed:.0f} GiB of disk, {free:.0f} are free: left out")
                continue
            expected = results[-1]["total_s"] * rows / results[-1]["rows"] if results else 0.0
            if time.perf_counter() - begun + expected > BUDGET_S:
                note(f"{rows:,} rows would take about {expected:.0f} s more than the time allows: left out")
                continue
            results.append(measure(root / str(rows), rows))
            note(json.dumps(results[-1]))
            shutil.rmtree(root / str(rows))
        planned = plan_in(root / "million")
        dispatched = in_new_process("scale", "dispatch_nothing(int(sys.argv[1]))", 20_000)
    report(results, planned, dispatched)


def plan_in(folder: Path) -> dict[str, float]:
    (folder / "corpus").mkdir(parents=True)
    one = [pa.FixedSizeListArray.from_arrays(pa.array(np.ones(width * 10_000, np.float32)), width) for width in (2, 3)]
    for number in range(100):
        keys = [f"row{row:09d}" for row in range(number * 10_000, (number + 1) * 10_000)]
        pq.write_table(pa.table({"id": keys, "a": one[0], "b": one[1]}), folder / "corpus" / f"{number:03d}.parquet")
    planned: dict[str, float] = in_new_process("scale", "plan_million(Path(sys.argv[1]))", folder)
    return planned


def vs_copy(figures: dict[str, Any], copy: str) -> float:
    return round(figures["rows"] / figures["fuse_s"] / float(figures[copy]), 3)


def report(results: list[dict[str, Any]], planned: dict[str, float], dispatched: float) -> None:
    names = [
        "rows",
        "embed_a_s",
        "embed_b_s",
        "fit_s",
        "solve_s",
        "fuse_s",
        "fit_per_million",
        "fuse_per_million",
        "seconds_per_million",
        "driver_mb",
        "worker_mb",
    ]
    table([{name: result[name] for name in names} for result in results])
    note(f"a million shards planned in {planned['seconds']:.1f} s, peak {planned['mb']:.0f} MB")
    copied = next((result for result in results if "copy_rows_per_s" in result), None)
    finish(
        {
            "seconds_per_million": {str(each["rows"]): round(each["seconds_per_million"], 2) for each in results},
            "peak_rss_mb": {str(each["rows"]): round(max(each["driver_mb"], each["worker_mb"])) for each in results},
            "fuse_vs_copy": copied and vs_copy(copied, "copy_rows_per_s"),
            "plan_million_s": round(planned["seconds"], 2),
            "dispatch_ms_per_shard": round(dispatched, 3),
            "fit_seconds_per_million": {str(each["rows"]): round(each["fit_per_million"], 2) for each in results},
            "fuse_seconds_per_million": {str(each["rows"]): round(each["fuse_per_million"], 2) for each in results},
            "fuse_vs_copy_per_core": copied and vs_copy(copied, "copy_rows_per_s_all_cores"),
            "plan_million_mb": round(planned["mb"]),
            "sizes": results,
        }
    )


if __name__ == "__main__":
    main()
