"""A job small enough for thousands of runs: real scheduler, ledger, lease, commit; rows that are a few letters each."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, cast

import pyarrow.parquet as pq

from barycenter.fusion.dataset.schema import FeatureFile, Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.dispatch.api import Work, dispatch, run_all
from barycenter.infra.dispatch.executor import Executor
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import commit_manifest, show_newest
from barycenter.infra.versions.embedding_files import Repairs, done_shards, embedding_path, repairs
from barycenter.infra.versions.history import find_version
from barycenter.infra.versions.lease import Lease, hold
from barycenter.infra.versions.manifests import newest_manifest
from barycenter.tasks.fuse.records import done_blocks, record_path, remove_records, remove_unlisted
from barycenter.tasks.fuse.writers import FeatureWriters
from tests.simulation.features import ROWS, SCHEMA, rows_to_write

SHARDS_PER_BLOCK = 2
INPUT = "text"


@dataclass(frozen=True)
class TinyJob:
    """What is asked for: a corpus of ``shards`` shards of four rows, encoded and fused.

    Attributes:
        encoder: Name of the encoder: other embeddings.
        dim: Of the alignment: other features of the same embeddings.
        shards: How many.
        poisoned: (shard, row) of rows that bring their worker down.
        bad: Shards whose third row cannot be read until it was mended.
        retry_bad: Whether shards with bad rows are made again; what was bad is mended by then.
        busy: What to do where another process holds the output.
        promote: Whether readers see the new version at once.
    """

    encoder: str = "e1"
    dim: int = 8
    shards: int = 3
    poisoned: tuple[tuple[int, int], ...] = ()
    bad: tuple[int, ...] = ()
    retry_bad: bool = False
    busy: Any = "wait"
    promote: Any = "auto"

    @property
    def ids(self) -> list[str]:
        return [f"s{number}" for number in range(self.shards)]

    @property
    def blocks(self) -> list[list[str]]:
        return [self.ids[start : start + SHARDS_PER_BLOCK] for start in range(0, self.shards, SHARDS_PER_BLOCK)]


@dataclass(frozen=True)
class Unit:
    """A shard to embed, without the rows in ``skip``."""

    shard: int
    replace: bool
    skip: tuple[int, ...] = ()


def embedding(job: TinyJob, shard: int, skip: Sequence[int], mended: bool) -> bytes:
    """The content of an embedding file: a state for each row."""
    bad = [2] if shard in job.bad and not mended else []
    states = ["poisoned" if row in skip else "bad" if row in bad else "good" for row in range(ROWS)]
    return json.dumps({"encoder": job.encoder, "shard": shard, "rows": states}).encode()


def write_features(
    storage: Storage, folder: str, dim: int, index: int, embeddings: Sequence[bytes]
) -> tuple[list[FeatureFile], list[str]]:
    """Writes the feature files of a block, and gives its rejects."""
    rejects: list[str] = []
    with FeatureWriters(storage, folder, index, SCHEMA, ("part",)) as writers:
        for content in embeddings:
            table, kept, rejected = rows_to_write(dim, content)
            writers.write(table, kept)
            rejects += rejected
    return writers.files, rejects


@lru_cache(maxsize=1024)
def features(dim: int, index: int, embeddings: tuple[bytes, ...]) -> list[bytes]:
    """What the feature files of a block hold, in order."""
    memory = _Memory()
    files, _ = write_features(cast(Storage, memory), "", dim, index, embeddings)
    return [memory.streams[file.path].getvalue() for file in files]


class _Memory:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.streams: dict[str, io.BytesIO] = {}

    @contextmanager
    def writing(self, path: str) -> Iterator[io.BytesIO]:
        self.streams[path] = io.BytesIO()
        yield self.streams[path]


@lru_cache(maxsize=4096)
def rows_of(content: bytes) -> int:
    """Rows of a feature file."""
    return int(pq.ParquetFile(io.BytesIO(content)).metadata.num_rows)


class EmbedWorker:
    """Embeds shards; a poisoned row brings its process down."""

    def __init__(self, job: TinyJob, storage: Storage, mended: Callable[[], bool], notes: "Notes") -> None:
        self._job, self._storage, self._mended, self._notes = job, storage, mended, notes

    def run(self, unit: Unit) -> str:
        self._notes.begins(f"embed {unit.shard}", unit.replace)
        self._fall(unit.shard, [row for row in range(ROWS) if row not in unit.skip])
        path = embedding_path(INPUT, self._job.encoder, f"s{unit.shard}")
        content = embedding(self._job, unit.shard, unit.skip, self._mended())
        if unit.replace:
            self._storage.write(path, content)
        else:
            self._storage.create(path, content)
        return path

    def try_rows(self, unit: Unit, rows: Sequence[int]) -> None:
        self._fall(unit.shard, rows)

    def _fall(self, shard: int, rows: Sequence[int]) -> None:
        if any((shard, row) in self._job.poisoned for row in rows):
            self._notes.crash()


class FuseWorker:
    """Fuses blocks of shards."""

    def __init__(self, job: TinyJob, storage: Storage, version: str, notes: "Notes") -> None:
        self._job, self._storage, self._version, self._notes = job, storage, version, notes
        storage.read(f"alignment/al-{job.dim}/alignment.json")

    def run(self, block: tuple[int, list[str]]) -> dict[str, Any]:
        index, shards = block
        self._notes.begins(f"fuse {index}")
        there = [self._storage.read(embedding_path(INPUT, self._job.encoder, shard)) for shard in shards]
        files, rejects = write_features(self._storage, f"features/{self._version}", self._job.dim, index, there)
        written = sum(file.rows for file in files)
        record: dict[str, Any] = {"read": ROWS * len(shards), "written": written, "rejected": len(rejects)}
        record |= {"files": [asdict(file) for file in files], "rejects": []}
        if rejects:
            record["rejects"] = [f"rejects/{self._version}/part-{index:05d}.parquet"]
            self._storage.write(record["rejects"][0], "\n".join(rejects).encode())
        self._storage.write(record_path(self._version, index), json.dumps(record).encode())
        return record


class Notes:
    """What one run did, unit by unit.

    ``violated`` is called with what must not be, ``mended`` says whether bad rows are good by now, ``there`` are the
    units that were done before.
    """

    def __init__(
        self, crash: Callable[[], None], violated: Callable[[str, str], None], mended: Callable[[], bool]
    ) -> None:
        self.crash, self._violated, self.mended = crash, violated, mended
        self.done: Counter[str] = Counter()
        self.there: set[str] = set()

    def begins(self, unit: str, again: bool = False) -> None:
        """A worker begins a unit; ``again`` if it was asked for although it is done."""
        if self.done[unit] or (unit in self.there and not again):
            self._violated("once", f"{unit} is begun again although it is done")

    def ended(self, unit: str) -> None:
        """The driver knows that a unit is done."""
        self.done[unit] += 1
        if self.done[unit] > 1:
            self._violated("once", f"{unit} was done {self.done[unit]} times")


def run(
    job: TinyJob,
    storage: Storage,
    executor: Callable[[Callable[[], object]], Executor],
    notes: Notes,
    there: Callable[[], set[str]],
) -> Manifest:
    """The whole run: what is missing is embedded, fused and committed; ``there`` says which units are done already."""
    with hold(storage, f"run {job.encoder} {job.dim}", busy=job.busy) as lease:
        notes.there = there()
        _embed(job, storage, executor, notes)
        _align(job, storage)
        return _fuse(job, storage, executor, notes, lease)


def _embed(job: TinyJob, storage: Storage, executor: Callable[..., Executor], notes: Notes) -> None:
    done = done_shards(storage, INPUT, job.encoder)
    again = [shard for shard in job.ids if shard in done and job.retry_bad and _has_bad(job, storage, shard)]
    todo = [shard for shard in job.ids if shard not in done or shard in again]
    mended = Repairs(storage, [embedding_path(INPUT, job.encoder, shard) for shard in again])
    units = [Work(f"embed {shard[1:]}", Unit(int(shard[1:]), shard in again), ROWS) for shard in todo]
    if units:
        failed = dispatch(
            units,
            executor(lambda: EmbedWorker(job, storage, notes.mended, notes)),
            on_done=lambda work, _: notes.ended(work.id),
            without_rows=lambda work, rows: replace(
                work, payload=replace(work.payload, skip=(*work.payload.skip, *rows))
            ),
        )
        if whole := [each for each in failed if not each.rows]:
            raise RunError(f"{len(whole)} shards failed, such as {whole[0].id}; run again")
    mended.settle()


def _has_bad(job: TinyJob, storage: Storage, shard: str) -> bool:
    return "bad" in json.loads(storage.read(embedding_path(INPUT, job.encoder, shard)))["rows"]


def _align(job: TinyJob, storage: Storage) -> None:
    path = f"alignment/al-{job.dim}/alignment.json"
    if not storage.exists(path):
        storage.write(path, json.dumps({"dim": job.dim}).encode())


def version_of(job: TinyJob, mended: dict[str, str]) -> str:
    """Names the features: settings, embeddings, and what was made again."""
    ours = {embedding_path(INPUT, job.encoder, shard) for shard in job.ids}
    named = [job.encoder, job.dim, job.ids, sorted((path, sha) for path, sha in mended.items() if path in ours)]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12]


def _fuse(job: TinyJob, storage: Storage, executor: Callable[..., Executor], notes: Notes, lease: Lease) -> Manifest:
    version = version_of(job, repairs(storage))
    newest = newest_manifest(storage)
    parent = newest.number if newest is not None else None
    if newest is not None and newest.version == version:
        show_newest(storage, newest, lease, job.promote)
        remove_records(storage, version)
        return newest
    if (known := find_version(storage, version)) is not None:
        record = known.rows | {"files": [asdict(file) for file in known.files], "rejects": known.rejects}
        return _commit(job, storage, version, [record], parent, lease)
    records = done_blocks(storage, version)
    todo = [(index, block) for index, block in enumerate(job.blocks) if index not in records]

    def done(work: Work, record: dict[str, Any]) -> None:
        notes.ended(work.id)
        records[work.payload[0]] = record

    work = [Work(f"fuse {index}", (index, block), ROWS * len(block)) for index, block in todo]
    if work:
        run_all(work, executor(lambda: FuseWorker(job, storage, version, notes)), "fusing block", done)
    if version_of(job, repairs(storage)) != version:
        remove_records(storage, version)
        raise RunError("another run made embeddings again while these features were written; run again")
    return _commit(job, storage, version, [records[index] for index in range(len(job.blocks))], parent, lease)


def _commit(
    job: TinyJob, storage: Storage, version: str, records: list[dict[str, Any]], parent: int | None, lease: Lease
) -> Manifest:
    manifest = Manifest(
        version=version,
        name=f"{job.encoder} {job.dim}",
        key="key",
        dim=job.dim,
        dtype="float32",
        inputs={INPUT: {"encoder_id": job.encoder, "embedding_id": job.encoder}},
        alignment_id=f"al-{job.dim}",
        rows={name: sum(record[name] for record in records) for name in ("read", "written", "rejected")},
        files=tuple(FeatureFile(**file) for record in records for file in record["files"]),
        rejects=tuple(path for record in records for path in record["rejects"]),
        shards=tuple(job.ids),
        parent=parent,
    )
    remove_unlisted(storage, version, manifest.files)
    manifest = commit_manifest(storage, manifest, lease, job.promote)
    remove_records(storage, version)
    return manifest
