"""Fold moments of a run's training rows, reduced by workers; kept, and grown by new shards only."""

import json
from collections.abc import Iterable, Sequence

from barycenter.fusion.moments import FoldMoments
from barycenter.infra.corpus import Shard
from barycenter.infra.dispatch.api import Work, run_all
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import embedding_path, repairs
from barycenter.tasks.align.worker import MomentsWorker, Reduction
from barycenter.tasks.data.alignment_files import read_moments, write_moments
from barycenter.tasks.data.rows import RowReader
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.run.context import Run, blocks_of
from barycenter.tasks.run.digest import digest
from barycenter.tasks.run.identities import embedding_ids
from barycenter.tasks.run.workers import block_workers

BLOCK_ROWS = 262_144
LEAST_BLOCK_ROWS = 32_768


def reduce_rows(
    run: Run,
    cluster: Cluster,
    reduction: Reduction,
    progress: StageProgress | None = None,
    base: FoldMoments | None = None,
    shards: Sequence[Shard] | None = None,
) -> FoldMoments:
    """The moments of ``shards`` (all of the run by default) added to ``base``, blocks merged in their order.

    Raises:
        RunError: If a block cannot be reduced.
    """
    shards = run.shards if shards is None else shards
    rows = sum(shard.rows for shard in shards)
    blocks = blocks_of(shards, min(max(rows // 4, LEAST_BLOCK_ROWS), BLOCK_ROWS))
    merged = _OrderedMerge(base)

    def done(work: Work, part: FoldMoments) -> None:
        merged.add(int(work.id), part)
        if progress is not None:
            progress.advance(work.rows)

    work = [Work(str(index), block, sum(shard.rows for shard in block)) for index, block in enumerate(blocks)]
    workers = block_workers(cluster, run.job.ray, len(blocks))
    executor = cluster.executor(MomentsWorker, (RowReader.of(run), reduction), workers, f"{run.job.name}-fit")
    run_all(work, executor, what="moments of block", on_done=done)
    assert merged.whole is not None
    return merged.whole


def stored_moments(run: Run, cluster: Cluster, reduction: Reduction, key: str, progress: StageProgress) -> FoldMoments:
    """As :func:`reduce_rows`, but kept in the storage: a later run with more shards reads only those that are new.

    Moments that grew differ in their last bits from those of one pass, so ``--refit`` takes none that did. ``key``
    names everything but the shards that the moments depend on.
    """
    folder = f"alignment/moments/{key}"
    marks = _shard_fingerprints(run)
    path, found = f"{folder}/{digest(sorted(marks))}", _largest(run.storage, folder, marks, whole=run.refit)
    if found == path:
        return read_moments(run.storage, f"{path}.safetensors")
    if run.refit:
        found = None
    before = set(json.loads(run.storage.read(f"{found}.json"))["marks"]) if found else set()
    base = read_moments(run.storage, f"{found}.safetensors") if found else None
    fresh = [shard for mark, shard in zip(marks, run.shards, strict=True) if mark not in before]
    moments = reduce_rows(run, cluster, reduction, progress, base, fresh)
    write_moments(run.storage, f"{path}.safetensors", moments)
    run.storage.write(f"{path}.json", json.dumps({"marks": marks, "grown": found is not None}).encode())
    if found:
        run.storage.remove([f"{found}.json", f"{found}.safetensors"])
    return moments


def _shard_fingerprints(run: Run) -> list[str]:
    """A name for the content of every shard's embeddings, in order."""
    repaired = repairs(run.storage)
    if not repaired:
        return [shard.id for shard in run.shards]
    ids = embedding_ids(run).items()
    return [
        digest(shard.id, [repaired.get(embedding_path(name, embedding_id, shard.id)) for name, embedding_id in ids])
        for shard in run.shards
    ]


def _largest(storage: Storage, folder: str, marks: Iterable[str], *, whole: bool = False) -> str | None:
    """The kept moments, by path without suffix, of the most shards that are all among these; ``whole``: of one pass."""
    known, best, most = set(marks), None, 0
    for path in sorted(path for path in storage.list(folder) if path.endswith(".json")):
        kept = json.loads(storage.read(path))
        held = kept["marks"]
        if whole and kept["grown"]:
            continue
        if len(held) > most and known.issuperset(held):
            best, most = path.removesuffix(".json"), len(held)
    return best


class _OrderedMerge:
    """Merges parts in the order of their numbers, however they arrive, and keeps none that is merged."""

    def __init__(self, base: FoldMoments | None) -> None:
        self.whole = base
        self._waiting: dict[int, FoldMoments] = {}
        self._next = 0

    def add(self, number: int, part: FoldMoments) -> None:
        self._waiting[number] = part
        while (following := self._waiting.pop(self._next, None)) is not None:
            self.whole = following if self.whole is None else self.whole.merge(following)
            self._next += 1
