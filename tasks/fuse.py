"""Fuse: embedding shards through the alignment into few, large Parquet files per partition, then the manifest."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from fusion.alignment import Alignment
from fusion.errors import Reason, RunError
from fusion.features import feature_schema, vectors_to_array
from infra.cluster import Cluster
from infra.commit import commit_manifest, point_to_newest, read_manifest
from infra.corpus import Shard
from infra.dispatch import Work, dispatch
from infra.storage import Storage
from infra.versions import find_version
from tasks.align import Fitted, load_alignment
from tasks.artifacts import dataset_committed
from tasks.digest import digest
from tasks.moments import block_workers
from tasks.partitions import count_partitions
from tasks.progress import StageProgress
from tasks.rows import RowReader, Rows, duplicates
from tasks.run import Run
from tasks.writers import FeatureWriters

_FILE_BYTES = 256 * 2**20
_LEAST_FILE_BYTES = 64 * 2**20

REJECTS = pa.schema([(name, pa.string()) for name in ("key", "input", "reason", "detail", "source")])


@dataclass(frozen=True, slots=True)
class FuseSetting:
    """What a worker needs to fuse blocks of shards.

    The schema travels serialized: pickled Arrow types forget, in some processes, that elements are not null.
    """

    reader: RowReader
    storage: Storage
    key: str
    alignment_id: str
    average: str
    weights: dict[str, float] | None
    version: str
    serialized_schema: bytes
    partition_by: tuple[str, ...]
    keep_aligned: bool
    on_bad_input: str

    @property
    def schema(self) -> pa.Schema:
        """The schema of the feature files."""
        return pa.ipc.read_schema(pa.py_buffer(self.serialized_schema))


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive shards fused into one set of files, and the rows of them that repeat an earlier key."""

    index: int
    shards: tuple[Shard, ...]
    repeated: dict[str, tuple[int, ...]]


class FuseWorker:
    """Holds the alignment and fuses the blocks that it is handed."""

    def __init__(self, setting: FuseSetting) -> None:
        self.setting = setting
        self.alignment: Alignment = load_alignment(setting.storage, setting.alignment_id)

    def run(self, payload: Block) -> dict[str, Any]:
        """Writes the feature files, the rejects and the record of one block.

        Returns:
            The record: files written and rows counted.
        """
        setting, block = self.setting, payload
        record: dict[str, Any] = {"read": 0, "written": 0, "rejected": 0, "missing": Counter(), "bad": Counter()}
        rejects: list[pa.Table] = []
        folder = f"features/{setting.version}"
        writers = FeatureWriters(setting.storage, folder, block.index, setting.schema, setting.partition_by)
        with writers:
            for shard, rows in zip(block.shards, setting.reader.each(block.shards), strict=True):
                repeated = block.repeated.get(shard.id, ())
                bad = bad_inputs(rows, repeated)
                written = rows_written(rows, repeated, setting.on_bad_input)
                if len(bad) and setting.on_bad_input == "fail":
                    first = {name: values[0] for name, values in bad.slice(0, 1).to_pydict().items()}
                    raise RunError(
                        f"row {first['key']}: input {first['input']}: {first['reason']} ({first['detail']}); "
                        "on_bad_input is fail"
                    )
                kept = rows.kept if written.all() else rows.kept.filter(pa.array(written))
                writers.write(self.table(rows, kept, written), kept)
                _count(record, rows, bad, written)
                rejects.append(bad)
        record["files"] = writers.files
        record["rejects"] = _write_rejects(setting, block.index, pa.concat_tables(rejects))
        setting.storage.write(_record_path(setting.version, block.index), json.dumps(record).encode())
        return record

    def table(self, rows: Rows, kept: pa.Table, written: NDArray[np.bool_]) -> pa.Table:
        """The feature rows of one shard, partition columns left out."""
        setting = self.setting
        whole = bool(written.all())
        views = rows.views if whole else {name: view[written] for name, view in rows.views.items()}
        chosen = pa.array(written)
        columns: dict[str, pa.Array] = {setting.key: rows.key_column if whole else rows.key_column.filter(chosen)}
        columns |= {name: kept.column(name) for name in kept.column_names}
        dtype = setting.schema.field("fused").type.value_type.to_pandas_dtype()
        fused = self.alignment.fuse(views, average=setting.average, weights=setting.weights)
        columns["fused"] = vectors_to_array(np.asarray(fused, dtype=dtype))
        present = {name: ~np.isnan(view[:, 0]) for name, view in views.items()}
        columns |= {f"has_{name}": pa.array(there) for name, there in present.items()}
        for name, status in rows.status.items():
            if f"count_{name}" in setting.schema.names:
                columns[f"count_{name}"] = status.column("count") if whole else status.column("count").filter(chosen)
        if setting.keep_aligned:
            for name, aligned in self.alignment.transform(views).items():
                array = vectors_to_array(np.nan_to_num(aligned.astype(dtype)))
                columns[f"aligned_{name}"] = pa.FixedSizeListArray.from_arrays(
                    array.flatten(), type=array.type, mask=pa.array(~present[name])
                )
        schema = setting.schema
        return pa.Table.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema)


@task(name="fuse", cache_policy=NO_CACHE)
def fuse_features(
    run: Run, cluster: Cluster, fitted: Fitted, average: str, weights: dict[str, float] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes features/<version> and commits its manifest, or finds it committed.

    Returns:
        The manifest, and figures for report.json.
    """
    setting = _setting(run, fitted, average, weights)
    parent = point_to_newest(run.storage)
    newest = read_manifest(run.storage, parent) if parent else None
    if newest is not None and newest["version"] == setting.version:
        return newest, {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    if (known := find_version(run.storage, setting.version)) is not None:
        record = known["rows"] | {name: known[name] for name in ("files", "rejects")}
        return _commit(run, setting, fitted, [record], parent), {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    records: dict[int, dict[str, Any]] = _records(run.storage, setting.version)
    blocks = run.blocks(_rows_per_block(run, fitted.alignment.dim_))
    repeated = duplicates(setting.reader, run.shards)
    todo = [
        Block(index, shards, {shard.id: repeated[shard.id] for shard in shards if shard.id in repeated})
        for index, shards in enumerate(blocks)
        if index not in records
    ]
    total = sum(shard.rows for block in todo for shard in block.shards)
    with StageProgress("fuse", total, skipped=run.rows - total, storage=run.storage) as progress:

        def done(work: Work, record: dict[str, Any]) -> None:
            records[int(work.id)] = record
            progress.advance(work.rows)

        failed = dispatch(
            [Work(str(block.index), block, sum(shard.rows for shard in block.shards)) for block in todo],
            worker=FuseWorker,
            args=(setting,),
            plan=block_workers(run, cluster, len(todo)),
            name=f"{run.job.name}-fuse",
            on_done=done,
        )
        figures = progress.figures()
    if failed:
        raise RunError(f"fusing block {failed[0].id} failed: {failed[0].detail}")
    return _commit(run, setting, fitted, [records[index] for index in range(len(blocks))], parent), figures


def _commit(
    run: Run, setting: FuseSetting, fitted: Fitted, records: Sequence[dict[str, Any]], parent: int | None
) -> dict[str, Any]:
    manifest = _manifest(run, setting, fitted, records)
    _check_loss(run, manifest["rows"])
    _remove_strays(run.storage, setting.version, manifest)
    manifest["number"] = commit_manifest(run.storage, manifest | {"parent": parent})
    dataset_committed(run, manifest)
    return manifest


def _rows_per_block(run: Run, dim: int) -> int:
    """Rows that make files of 64 to 256 MiB in every partition, in eight blocks or more where there are so many."""
    bytes_per_row = dim * np.dtype(run.job.output.dtype).itemsize
    file_rows = min(max(run.rows // 8, _LEAST_FILE_BYTES // bytes_per_row), _FILE_BYTES // bytes_per_row)
    return max(4096, file_rows * count_partitions(run))


def bad_inputs(rows: Rows, repeated: Sequence[int]) -> pa.Table:
    """The reject lines of some rows: every input that could not be used, and rows without a key of their own."""
    tables = []
    for name, status in rows.status.items():
        failed = status.filter(pa.compute.invert(status.column("ok")))
        tables.append(
            pa.table(
                {
                    "key": failed.column("key"),
                    "input": pa.array([name] * failed.num_rows, pa.string()),
                    "reason": failed.column("reason"),
                    "detail": failed.column("detail"),
                    "source": failed.column("source"),
                }
            )
        )
        if "rejects" in status.column_names:
            tables.append(_bad_members(name, status))
    whole: list[tuple[str | None, Reason]] = [(None, Reason.NULL_KEY)] * rows.key_column.null_count
    whole += [(rows.keys[row], Reason.DUPLICATE_KEY) for row in repeated if rows.keys[row] is not None]
    if whole:
        nothing = pa.nulls(len(whole), pa.string())
        keys, reasons = zip(*whole, strict=True)
        columns = [pa.array(keys, pa.string()), nothing, pa.array(map(str, reasons), pa.string()), nothing, nothing]
        tables.append(pa.Table.from_arrays(columns, names=REJECTS.names))
    return pa.concat_tables([table.cast(REJECTS) for table in tables])


def _bad_members(name: str, status: pa.Table) -> pa.Table:
    """One line for each of a row's several values that was left out of its mean."""
    lists = status.column("rejects").combine_chunks()
    lines = lists.flatten()
    rows = np.repeat(np.arange(len(lists)), lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    keys = status.column("key").combine_chunks().take(pa.array(rows))
    columns = [keys, pa.array([name] * len(lines), pa.string()), *(lines.field(part) for part in REJECTS.names[2:])]
    return pa.Table.from_arrays(columns, names=REJECTS.names)


def rows_written(rows: Rows, repeated: Sequence[int], on_bad_input: str) -> NDArray[np.bool_]:
    """Which rows are written: those with a key of their own and, by ``on_bad_input``, any or every input good."""
    good = np.stack([~np.isnan(view[:, 0]) for view in rows.views.values()])
    written = np.asarray(good.all(axis=0) if on_bad_input == "drop" else good.any(axis=0))
    written &= rows.key_column.is_valid().to_numpy()
    written[list(repeated)] = False
    return written


def _count(record: dict[str, Any], rows: Rows, bad: pa.Table, written: NDArray[np.bool_]) -> None:
    record["read"] += len(written)
    record["written"] += int(written.sum())
    record["rejected"] += int((~written).sum())
    record["missing"].update({name: int(np.isnan(view[written, 0]).sum()) for name, view in rows.views.items()})
    record["bad"].update(bad.column("reason").to_pylist())


def _setting(run: Run, fitted: Fitted, average: str, weights: dict[str, float] | None) -> FuseSetting:
    job = run.job
    key = job.corpus.key or "key"
    fuse = [average, weights, job.output.dtype, job.output.partition_by, job.output.keep_aligned, job.corpus.keep]
    fuse += [job.on_bad_input, key]
    version = digest(fitted.alignment_id, run.embeddings_key(), fuse)
    partitions = tuple(job.output.partition_by)
    kept = [pa.field(name, run.corpus.columns[name]) for name in job.corpus.keep if name not in partitions]
    inputs = {
        name: run.encoders[name].fingerprint | {"encoder_id": run.encoders[name].encoder_id} for name in run.inputs
    }
    told = {"inputs": inputs, "alignment_id": fitted.alignment_id, "code": package_version("barycenter")}
    schema = feature_schema(
        key, kept, fitted.alignment.dim_, job.output.dtype, list(run.inputs), job.output.keep_aligned,
        {"barycenter": json.dumps(told, sort_keys=True)}, [name for name in run.inputs if run.several(name)],
    )  # fmt: skip
    return FuseSetting(
        RowReader.of(run), run.storage, key, fitted.alignment_id, average, weights, version,
        schema.serialize().to_pybytes(), partitions, job.output.keep_aligned, job.on_bad_input,
    )  # fmt: skip


def _record_path(version: str, index: int) -> str:
    return f"features/{version}/_blocks/{index:05d}.json"


def _records(storage: Storage, version: str) -> dict[int, dict[str, Any]]:
    prefix = f"features/{version}/_blocks"
    paths = [path for path in storage.list(prefix) if path.endswith(".json")]
    return {int(path.rsplit("/", 1)[1][:5]): json.loads(storage.read(path)) for path in paths}


def _write_rejects(setting: FuseSetting, index: int, rejects: pa.Table) -> list[str]:
    if not rejects.num_rows:
        return []
    path = f"rejects/{setting.version}/part-{index:05d}.parquet"
    setting.storage.write_table(path, rejects)
    return [path]


def _manifest(run: Run, setting: FuseSetting, fitted: Fitted, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    missing: Counter[str] = Counter(dict.fromkeys(run.inputs, 0))
    bad: Counter[str] = Counter()
    for record in records:
        missing.update(record["missing"])
        bad.update(record["bad"])
    counts = {name: sum(record[name] for record in records) for name in ("read", "written", "rejected")}
    if counts["read"] != counts["written"] + counts["rejected"] or counts["read"] != run.rows:
        raise RunError(f"rows do not add up: {counts}, corpus {run.rows}; nothing was committed")
    job = run.job
    return {
        "version": setting.version,
        "name": job.name,
        "job": job.fingerprint(),
        "key": setting.key,
        "kept": list(job.corpus.keep),
        "partition_by": list(setting.partition_by),
        "dim": fitted.alignment.dim_,
        "dtype": job.output.dtype,
        "inputs": {
            name: {
                "kind": run.specs[name].kind,
                "encoder": job.inputs[name].encoder,
                "encoder_id": run.encoders[name].encoder_id,
                "dim": run.encoders[name].dim,
                "fingerprint": run.encoders[name].fingerprint,
                "spec": job.inputs[name].model_dump(mode="json"),
            }
            for name in run.inputs
        },
        "alignment_id": fitted.alignment_id,
        "alignment": {name: value for name, value in fitted.summary.items() if name != "warnings"},
        "average": {"method": setting.average, "weights": setting.weights},
        "rows": counts | {"missing": dict(missing), "bad": dict(bad)},
        "files": [file for record in records for file in record["files"]],
        "rejects": [path for record in records for path in record["rejects"]],
        "shards": [shard.id for shard in run.shards],
        "sources": [asdict(source) for source in run.sources],
        "join": run.join.id if run.join is not None else None,
        "code": package_version("barycenter"),
    }


def _check_loss(run: Run, rows: dict[str, Any]) -> None:
    allowed = run.job.limits.max_bad_fraction
    if not rows["written"]:
        raise RunError("no row has a usable input; nothing was committed (see embeddings/<input> for the reasons)")
    worst = max(run.inputs, key=lambda name: rows["missing"][name])
    share = (rows["missing"][worst] + rows["rejected"]) / rows["read"]
    if share > allowed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(rows["bad"]).most_common(3))
        raise RunError(
            f"{share:.0%} of the rows lack a good `{worst}` (limits.max_bad_fraction is {allowed:g}): {reasons}; "
            "nothing was committed"
        )


def _remove_strays(storage: Storage, version: str, manifest: dict[str, Any]) -> None:
    """Removes what a killed run left; temporary files may be a live run's: gc takes them."""
    listed = {file["path"] for file in manifest["files"]}
    paths = storage.list(f"features/{version}")
    storage.remove([path for path in paths if path not in listed and not storage.is_temporary(path)])
