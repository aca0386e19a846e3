"""Fuse: embedding shards through the alignment into few, large Parquet files per partition, then the manifest."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa

from barycenter.fusion.dataset.schema import FeatureFile, Manifest, feature_schema
from barycenter.fusion.encoders.fingerprint import installed_version
from barycenter.fusion.errors import BadInputsError, Reason, RunError
from barycenter.infra.dispatch.api import Work, run_all
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import commit_manifest, show_newest
from barycenter.infra.versions.history import find_version
from barycenter.infra.versions.manifests import newest_manifest
from barycenter.tasks.data.alignment_files import FittedAlignment
from barycenter.tasks.data.duplicates import counted_reader
from barycenter.tasks.data.rows import RowReader
from barycenter.tasks.fuse.kept_columns import kept_type
from barycenter.tasks.fuse.partitions import Partitions, check_folders, sample_partitions
from barycenter.tasks.fuse.records import done_blocks, remove_records, remove_unlisted
from barycenter.tasks.fuse.worker import Block, FuseSetting, FuseWorker
from barycenter.tasks.observability.events import dataset_committed
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids, version_id
from barycenter.tasks.run.workers import block_workers

_FILE_BYTES = 256 * 2**20
_LEAST_FILE_BYTES = 64 * 2**20


def fuse_features(
    run: Run, cluster: Cluster, fitted: FittedAlignment, average: str, weights: dict[str, float] | None
) -> tuple[Manifest, dict[str, Any]]:
    """Writes features/<version> and commits its manifest, or finds it committed.

    Returns:
        The manifest, and figures for report.json.
    """
    partitions = sample_partitions(run)
    setting = _setting(run, fitted, average, weights, partitions)
    newest = newest_manifest(run.storage)
    parent = newest.number if newest is not None else None
    if newest is not None and newest.version == setting.version and version_is_whole(run.storage, newest):
        with run.held() as lease:
            show_newest(run.storage, newest, lease, run.job.output.promote)
        remove_records(run.storage, setting.version)
        return newest, {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    if (known := find_version(run.storage, setting.version)) is not None and version_is_whole(run.storage, known):
        record = known.rows | {"files": [asdict(file) for file in known.files], "rejects": known.rejects}
        manifest = _manifest(run, setting, partitions, fitted, [record], parent)
        return _commit(run, manifest, partitions), {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    records: dict[int, dict[str, Any]] = done_blocks(run.storage, setting.version)
    row_bytes = fitted.alignment.dim_ * np.dtype(run.job.output.dtype).itemsize
    blocks = run.blocks(_rows_per_block(run.rows, row_bytes, partitions.count))
    setting = replace(setting, reader=counted_reader(run))
    todo = [Block(index, shards) for index, shards in enumerate(blocks) if index not in records]
    total = sum(shard.rows for block in todo for shard in block.shards)
    with StageProgress("fuse", total, skipped=run.rows - total, storage=run.storage) as progress:

        def done(work: Work, record: dict[str, Any]) -> None:
            records[int(work.id)] = record
            progress.advance(work.rows)

        work = [Work(str(block.index), block, sum(shard.rows for shard in block.shards)) for block in todo]
        workers = block_workers(cluster, run.job.ray, len(todo))
        executor = cluster.executor(FuseWorker, (setting,), workers, f"{run.job.name}-fuse")
        run_all(work, executor, what="fusing block", on_done=done)
        figures = progress.figures()
    _check_embeddings(run, fitted, setting)
    in_order = [records[index] for index in range(len(blocks))]
    return _commit(run, _manifest(run, setting, partitions, fitted, in_order, parent), partitions), figures


def version_is_whole(storage: Storage, manifest: Manifest) -> bool:
    """Whether every file of a version is there, in its size."""
    there = storage.sizes(f"features/{manifest.version}")
    rejects = set(storage.walk(f"rejects/{manifest.version}")) if manifest.rejects else set()
    return all(there.get(file.path) == file.bytes for file in manifest.files) and rejects >= set(manifest.rejects)


def _check_embeddings(run: Run, fitted: FittedAlignment, setting: FuseSetting) -> None:
    """Refuses features during whose writing another run made embeddings again: they may be of both."""
    if version_id(run, fitted.alignment_id, setting.average, setting.weights) != setting.version:
        remove_records(run.storage, setting.version)
        raise RunError("another run made embeddings again while these features were written; run again")


def _commit(run: Run, manifest: Manifest, partitions: Partitions) -> Manifest:
    _check_loss(run, manifest.rows)
    inside = [field.name for field in partitions.fields]
    check_folders(run.storage, manifest.files, partitions.types, inside)
    remove_unlisted(run.storage, manifest.version, manifest.files)
    with run.held() as lease:
        manifest = commit_manifest(run.storage, manifest, lease, run.job.output.promote)
    remove_records(run.storage, manifest.version)
    dataset_committed(run, manifest)
    return manifest


def _rows_per_block(rows: int, row_bytes: int, partitions: int) -> int:
    """Rows that make files of 64 to 256 MiB in every partition, but in eight blocks or more.

    A block is what a worker does at a time and what a rerun keeps, so that many partitions mean smaller files rather
    than fewer blocks; blocks of less than 64 MiB are none the better.

    >>> _rows_per_block(4_000_000, 1024, 1), _rows_per_block(4_000_000, 1024, 100)
    (262144, 500000)
    """
    file_rows = min(max(rows // 8, _LEAST_FILE_BYTES // row_bytes), _FILE_BYTES // row_bytes)
    return max(4096, min(file_rows * partitions, max(rows // 8, _LEAST_FILE_BYTES // row_bytes)))


def _setting(
    run: Run, fitted: FittedAlignment, average: str, weights: dict[str, float] | None, sampled: Partitions
) -> FuseSetting:
    job = run.job
    key = job.corpus.key or "key"
    version = version_id(run, fitted.alignment_id, average, weights)
    partitions = tuple(job.output.partition_by)
    kept = [pa.field(name, kept_type(run.corpus.columns[name])) for name in job.corpus.keep if name not in partitions]
    kept += sampled.fields
    inputs = {name: known.fingerprint | {"encoder_id": known.encoder_id} for name, known in run.encoders.items()}
    made_of = {"inputs": inputs, "alignment_id": fitted.alignment_id, "code": installed_version("barycenter")}
    schema = feature_schema(
        key, kept, fitted.alignment.dim_, job.output.dtype, list(run.inputs), job.output.keep_aligned,
        {"barycenter": json.dumps(made_of, sort_keys=True)}, [name for name in run.inputs if run.is_multi_value(name)],
    )  # fmt: skip
    return FuseSetting(
        RowReader.of(run), run.storage, key, fitted.alignment_id, average, weights, version,
        schema.serialize().to_pybytes(), partitions, job.output.keep_aligned, job.on_bad_input,
    )  # fmt: skip


def _manifest(
    run: Run,
    setting: FuseSetting,
    partitions: Partitions,
    fitted: FittedAlignment,
    records: Sequence[dict[str, Any]],
    parent: int | None,
) -> Manifest:
    """The manifest to commit: files and counts of all blocks' records, what they were made of, the version before."""
    missing: Counter[str] = Counter(dict.fromkeys(run.inputs, 0))
    bad: Counter[str] = Counter()
    for record in records:
        missing.update(record["missing"])
        bad.update(record["bad"])
    counts = {name: sum(record[name] for record in records) for name in ("read", "written", "rejected")}
    if counts["read"] != counts["written"] + counts["rejected"] or counts["read"] != run.rows:
        raise RunError(
            f"the rows written and rejected do not add up to those of the corpus ({counts}, corpus {run.rows}); "
            "nothing was committed; run again"
        )
    job = run.job
    return Manifest(
        version=setting.version,
        name=job.name,
        job=job.fingerprint(),
        settings=job.settings(),
        key=setting.key,
        kept=tuple(job.corpus.keep),
        partition_by=setting.partition_by,
        partition_types=partitions.types,
        dim=fitted.alignment.dim_,
        dtype=job.output.dtype,
        inputs={
            name: {
                "kind": run.specs[name].kind,
                "encoder": job.inputs[name].encoder,
                "encoder_id": run.encoders[name].encoder_id,
                "embedding_id": embedding_id,
                "dim": run.encoders[name].dim,
                "fingerprint": run.encoders[name].fingerprint,
                "spec": job.inputs[name].model_dump(mode="json"),
            }
            for name, embedding_id in embedding_ids(run).items()
        },
        alignment_id=fitted.alignment_id,
        alignment={name: value for name, value in fitted.summary.items() if name != "warnings"},
        average={"method": setting.average, "weights": setting.weights},
        rows=counts | {"missing": dict(missing), "bad": dict(bad)},
        files=tuple(FeatureFile(**file) for record in records for file in record["files"]),
        rejects=tuple(path for record in records for path in record["rejects"]),
        shards=tuple(shard.id for shard in run.shards),
        sources=tuple(asdict(source) for source in run.sources),
        listing=run.listing,
        join=run.join.id if run.join is not None else None,
        code=installed_version("barycenter"),
        parent=parent,
    )


def _check_loss(run: Run, rows: dict[str, Any]) -> None:
    allowed = run.job.limits.max_bad_fraction
    if not rows["written"]:
        raise BadInputsError(
            f"no row of {run.job.corpus.path} has an input that can be used; nothing was committed; see the column "
            f"reason of the files in {run.storage.uri('embeddings')}, correct the inputs and run again with --retry-bad"
        )
    worst = max(run.inputs, key=lambda name: rows["missing"][name])
    share = (rows["missing"][worst] + rows["rejected"]) / rows["read"]
    if share <= allowed:
        return
    bad = Counter(rows["bad"])
    if 2 * (repeated := bad[Reason.DUPLICATE_KEY]) > bad.total():
        raise BadInputsError(
            f"{repeated:,} of {rows['read']:,} rows repeat the key of another, and limits.max_bad_fraction is "
            f"{allowed:g}; nothing was committed; set corpus.key to a column without repeats, or raise the limit"
        )
    reasons = ", ".join(f"{reason} {count}" for reason, count in bad.most_common(3))
    raise BadInputsError(
        f"{share:.0%} of the rows have no good input {worst}, and limits.max_bad_fraction is {allowed:g}: "
        f"{reasons}; nothing was committed; correct them and run again with --retry-bad, or raise the limit"
    )
