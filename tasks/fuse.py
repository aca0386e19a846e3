"""Fuse: embedding shards through the alignment into few, large Parquet files per partition, then the manifest."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from fusion.alignment import Alignment
from fusion.errors import Reason, RunError
from fusion.features import ROW_GROUP_ROWS, feature_schema, parquet_options, vectors_to_array
from infra.cluster import Cluster
from infra.commit import commit_manifest, point_to_newest, read_manifest
from infra.corpus import Shard
from infra.dispatch import Work, dispatch
from infra.storage import Storage
from tasks.align import Fitted, block_workers, load_alignment
from tasks.artifacts import dataset_committed
from tasks.progress import StageProgress
from tasks.rows import RowReader, Rows, duplicates
from tasks.run import Run, digest

_FILE_BYTES = 256 * 2**20
_MAX_PARTITIONS = 1000

REJECTS = pa.schema([(name, pa.string()) for name in ("key", "input", "reason", "detail", "source")])


@dataclass(frozen=True, slots=True)
class FuseSetting:
    """What a worker needs to fuse blocks of shards."""

    reader: RowReader
    storage: Storage
    key: str
    alignment_id: str
    average: str
    weights: dict[str, float] | None
    version: str
    schema: pa.Schema
    partition_by: tuple[str, ...]
    keep_aligned: bool
    on_bad_input: str


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
        with _PartitionWriters(setting, block.index) as writers:
            for shard in block.shards:
                rows = setting.reader.read(shard)
                repeated = block.repeated.get(shard.id, ())
                bad = bad_inputs(rows, repeated)
                written = rows_written(rows, repeated, setting.on_bad_input)
                if len(bad) and setting.on_bad_input == "fail":
                    first = {name: values[0] for name, values in bad.slice(0, 1).to_pydict().items()}
                    raise RunError(
                        f"row {first['key']}: input {first['input']}: {first['reason']} ({first['detail']}); "
                        "on_bad_input is fail"
                    )
                writers.write(self.table(rows, written), rows.kept.filter(pa.array(written)))
                _count(record, rows, bad, written)
                rejects.append(bad)
        record["files"] = writers.files
        record["rejects"] = _write_rejects(setting, block.index, pa.concat_tables(rejects))
        setting.storage.write(_record_path(setting.version, block.index), json.dumps(record).encode())
        return record

    def table(self, rows: Rows, written: NDArray[np.bool_]) -> pa.Table:
        """The feature rows of one shard, partition columns left out."""
        setting = self.setting
        views = {name: view[written] for name, view in rows.views.items()}
        columns: dict[str, pa.Array] = {setting.key: pa.array(rows.keys, pa.string()).filter(pa.array(written))}
        kept = rows.kept.filter(pa.array(written))
        columns |= {name: kept.column(name).combine_chunks() for name in kept.column_names}
        dtype = setting.schema.field("fused").type.value_type.to_pandas_dtype()
        fused = self.alignment.fuse(views, average=setting.average, weights=setting.weights)
        columns["fused"] = vectors_to_array(np.asarray(fused, dtype=dtype))
        present = {name: ~np.isnan(view[:, 0]) for name, view in views.items()}
        columns |= {f"has_{name}": pa.array(there) for name, there in present.items()}
        if setting.keep_aligned:
            for name, aligned in self.alignment.transform(views).items():
                array = vectors_to_array(np.nan_to_num(aligned.astype(dtype)))
                columns[f"aligned_{name}"] = pa.FixedSizeListArray.from_arrays(
                    array.flatten(), type=array.type, mask=pa.array(~present[name])
                )
        schema = setting.schema
        return pa.Table.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema)


class _PartitionWriters:
    """One open Parquet file for each partition value that a block meets."""

    def __init__(self, setting: FuseSetting, index: int) -> None:
        self.setting, self.index = setting, index
        self.files: list[dict[str, Any]] = []
        self._open: dict[tuple[object, ...], tuple[str, pq.ParquetWriter, BinaryIO]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "_PartitionWriters":
        return self

    def write(self, table: pa.Table, kept: pa.Table) -> None:
        """Appends rows to the files of their partitions."""
        names = self.setting.partition_by
        if not names:
            self._writer(()).write_table(table, row_group_size=ROW_GROUP_ROWS)
            return
        values = list(zip(*(kept.column(name).to_pylist() for name in names), strict=True))
        for value in dict.fromkeys(values):
            mask = pa.array([other == value for other in values])
            self._writer(value).write_table(table.filter(mask), row_group_size=ROW_GROUP_ROWS)

    def _writer(self, value: tuple[object, ...]) -> pq.ParquetWriter:
        if value not in self._open:
            if len(self._open) >= _MAX_PARTITIONS:
                raise RunError(
                    f"output.partition_by: more than {_MAX_PARTITIONS} values of "
                    f"{', '.join(self.setting.partition_by)} in one block; partition by a column with fewer values"
                )
            parts = zip(self.setting.partition_by, value, strict=True)
            folder = "".join(f"{name}={_hive(part)}/" for name, part in parts)
            path = f"features/{self.setting.version}/{folder}part-{self.index:05d}.parquet"
            sink = self._stack.enter_context(self.setting.storage.writing(path))
            writer = pq.ParquetWriter(sink, self.setting.schema, **parquet_options(self.setting.schema))
            self._open[value] = (path, writer, sink)
        return self._open[value][1]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        for _, writer, _ in self._open.values():
            writer.close()
        self._stack.close()
        for value, (path, _, _) in self._open.items():
            partition = dict(zip(self.setting.partition_by, value, strict=True))
            self.files.append(_described_file(self.setting.storage, path) | {"partition": partition})


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
    records: dict[int, dict[str, Any]] = _records(run.storage, setting.version)
    rows_per_file = max(
        4096, _FILE_BYTES // (fitted.alignment.dim_ * setting.schema.field("fused").type.value_type.bit_width // 8)
    )
    blocks = run.blocks(rows_per_file)
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
    ordered = [records[index] for index in range(len(blocks))]
    manifest = _manifest(run, setting, fitted, ordered)
    _check_loss(run, manifest["rows"])
    _remove_strays(run.storage, setting.version, manifest)
    manifest["number"] = commit_manifest(run.storage, manifest | {"parent": parent})
    dataset_committed(run, manifest)
    return manifest, figures


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
    whole: list[tuple[str | None, Reason]] = [(None, Reason.NULL_KEY) for key in rows.keys if key is None]
    whole += [(rows.keys[row], Reason.DUPLICATE_KEY) for row in repeated if rows.keys[row] is not None]
    if whole:
        nothing = pa.nulls(len(whole), pa.string())
        keys, reasons = zip(*whole, strict=True)
        columns = [pa.array(keys, pa.string()), nothing, pa.array(map(str, reasons), pa.string()), nothing, nothing]
        tables.append(pa.Table.from_arrays(columns, names=REJECTS.names))
    return pa.concat_tables([table.cast(REJECTS) for table in tables])


def rows_written(rows: Rows, repeated: Sequence[int], on_bad_input: str) -> NDArray[np.bool_]:
    """Which rows are written: those with a key of their own and, by ``on_bad_input``, any or every input good."""
    good = np.stack([~np.isnan(view[:, 0]) for view in rows.views.values()])
    written = np.asarray(good.all(axis=0) if on_bad_input == "drop" else good.any(axis=0))
    written &= np.array([key is not None for key in rows.keys], dtype=bool)
    written[list(repeated)] = False
    return written


def _count(record: dict[str, Any], rows: Rows, bad: pa.Table, written: NDArray[np.bool_]) -> None:
    record["read"] += len(rows.keys)
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
        {"barycenter": json.dumps(told, sort_keys=True)},
    )  # fmt: skip
    return FuseSetting(
        RowReader.of(run), run.storage, key, fitted.alignment_id, average, weights, version, schema, partitions,
        job.output.keep_aligned, job.on_bad_input,
    )  # fmt: skip


def _record_path(version: str, index: int) -> str:
    return f"features/{version}/_blocks/{index:05d}.json"


def _records(storage: Storage, version: str) -> dict[int, dict[str, Any]]:
    prefix = f"features/{version}/_blocks"
    paths = [path for path in storage.list(prefix) if path.endswith(".json")]
    return {int(path.rsplit("/", 1)[1][:5]): json.loads(storage.read(path)) for path in paths}


def _hive(value: object) -> str:
    return "__HIVE_DEFAULT_PARTITION__" if value is None else quote(str(value), safe="")


def _described_file(storage: Storage, path: str) -> dict[str, Any]:
    content = hashlib.sha256()
    size = 0
    with storage.open(path) as source:
        while piece := source.read(1 << 20):
            content.update(piece)
            size += len(piece)
        source.seek(0)
        rows = pq.ParquetFile(source).metadata.num_rows
    return {"path": path, "rows": rows, "bytes": size, "sha256": content.hexdigest()}


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
        "sources": [asdict(source) for source in run.corpus.sources],
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
    listed = {file["path"] for file in manifest["files"]}
    storage.remove([path for path in storage.list(f"features/{version}") if path not in listed])
