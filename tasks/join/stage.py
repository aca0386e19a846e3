"""Join: the inputs' own tables brought to the corpus on the key, once, as a corpus of their own in the output."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus.join.partition import Join, JoinTable, check_bucket_sizes, spill_path
from barycenter.infra.dispatch.api import Work, run_all
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.storage.json_files import read_json
from barycenter.tasks.join.worker import BucketWorker, SpillWorker
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.workers import block_workers


@dataclass
class _Join:
    """One join under way."""

    run: Run
    join: Join
    cluster: Cluster
    progress: StageProgress

    def spill(self) -> list[list[str]]:
        """Cuts every table; the spill files of each table."""
        units = list(self.join.units())
        sizes = np.zeros(self.join.buckets, np.int64)

        def done(work: Work, part: NDArray[np.int64]) -> None:
            nonlocal sizes
            sizes = sizes + part
            self.progress.advance(work.rows)

        rows = [sum(shard.rows for shard in unit.shards) for unit in units]
        work = [Work(f"{unit.table}-{unit.number}", unit, n) for unit, n in zip(units, rows, strict=True)]
        self._run(work, SpillWorker, (self.join, self.run.storage), done)
        check_bucket_sizes(self.join, sizes)
        return [
            [spill_path(self.join, unit) for unit in units if unit.table == number]
            for number in range(len(self.join.tables))
        ]

    def buckets(self, spilled: list[list[str]]) -> list[dict[str, Any]]:
        """Joins every bucket; what was written, in order."""
        written: dict[int, dict[str, Any]] = {}
        self._run(
            [Work(str(number), number, 0) for number in range(self.join.buckets)],
            BucketWorker, (self.join, self.run.storage, spilled),
            lambda work, record: written.__setitem__(int(work.id), record),
        )  # fmt: skip
        return [written[number] for number in range(self.join.buckets)]

    def _run(self, work: list[Work], worker: Any, args: tuple[Any, ...], done: Any) -> None:
        workers = block_workers(self.cluster, self.run.job.ray, len(work))
        executor = self.cluster.executor(worker, args, workers, f"{self.run.job.name}-join")
        run_all(work, executor, what="joining", on_done=done)


def join_tables(run: Run, cluster: Cluster) -> dict[str, Any]:
    """Joins the inputs' own tables to the corpus, or finds them joined, and gives the run its shards.

    Returns:
        Figures for report.json: rows read, seconds, rows_per_s, and for each input how many rows have it.
    """
    if run.join is None:
        return {}
    if not run.unjoined:
        return {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0} | _matches(run, run.join)
    total = sum(shard.rows for unit in run.join.units() for shard in unit.shards)
    with StageProgress("join", total, storage=run.storage) as progress:
        joining = _Join(run, run.join, cluster, progress)
        spilled = joining.spill()
        written = joining.buckets(spilled)
        record = {
            "files": [{key: file[key] for key in ("name", "rows", "bytes")} for file in written if file["name"]],
            "matches": _added(run.join, written),
        }
        run.storage.write(run.join.record, json.dumps(record, indent=1).encode())
        run.storage.remove([path for paths in spilled for path in paths])
        figures: dict[str, Any] = progress.figures()
    run.open_joined()
    return figures | _matches(run, run.join)


def _added(join: Join, written: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    matches: dict[str, dict[str, int]] = {}
    for table in join.tables[1:]:
        counts: Counter[str] = Counter()
        for bucket in written:
            counts.update(bucket[str(table.input)])
        matches[str(table.input)] = dict(counts)
    return matches


def _matches(run: Run, join: Join) -> dict[str, Any]:
    matches: dict[str, Any] = read_json(run.storage, join.record)["matches"]
    for table in join.tables[1:]:
        if not matches[str(table.input)]["both"]:
            raise RunError(_strangers(join, table))
    return {"matches": matches, "buckets": join.buckets}


def _strangers(join: Join, table: JoinTable) -> str:
    """What is wrong with a table that has no key in common with the corpus, with a key of each."""
    base, own = (_first_key(each, join.rows_per_shard) for each in (join.tables[0], table))
    return (
        f"inputs.{table.input}.corpus: no row of this table has a key of the corpus: "
        f"column {table.corpus.key_column!r} begins with {own!r}, "
        f"{join.tables[0].corpus.key_column!r} of the corpus with {base!r}; spell them alike, or name another "
        f"column (inputs.{table.input}.corpus.key)"
    )


def _first_key(table: JoinTable, rows_per_shard: int) -> str | None:
    for shard in table.corpus.shards(rows_per_shard):
        keys = table.corpus.keys(shard, table.corpus.read(shard, []))
        if found := next((key for key in keys if key is not None), None):
            return found
    return None
