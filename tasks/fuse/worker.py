"""What a worker of the fuse stage does: embedding shards to feature files. Imports neither Prefect nor Ray."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.alignment import Alignment
from barycenter.fusion.dataset.schema import vectors_to_array
from barycenter.fusion.errors import Reason, RunError
from barycenter.infra.corpus import Shard
from barycenter.infra.storage import Storage
from barycenter.tasks.data.alignment_files import load_alignment
from barycenter.tasks.data.rows import RowReader, Rows
from barycenter.tasks.fuse.records import record_path
from barycenter.tasks.fuse.writers import FeatureWriters

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
    """Consecutive shards fused into one set of files."""

    index: int
    shards: tuple[Shard, ...]


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
            for rows in setting.reader.each(block.shards):
                bad = bad_inputs(rows)
                written = rows_written(rows, setting.on_bad_input)
                if len(bad) and setting.on_bad_input == "fail":
                    first = {name: values[0] for name, values in bad.slice(0, 1).to_pydict().items()}
                    raise RunError(
                        f"row {first['key']}: input {first['input']}: {first['reason']} ({first['detail']}), and "
                        "on_bad_input is fail; correct the row, or set on_bad_input to keep or drop"
                    )
                kept = rows.kept if written.all() else rows.kept.filter(pa.array(written))
                writers.write(self.table(rows, kept, written), kept)
                _count(record, rows, bad, written)
                rejects.append(bad)
        record["files"] = [asdict(file) for file in writers.files]
        record["rejects"] = _write_rejects(setting, block.index, pa.concat_tables(rejects))
        setting.storage.write(record_path(setting.version, block.index), json.dumps(record).encode())
        return record

    def table(self, rows: Rows, kept: pa.Table, written: NDArray[np.bool_]) -> pa.Table:
        """The feature rows of one shard.

        Raises:
            RunError: A vector does not fit ``output.dtype``.
        """
        setting = self.setting
        whole = bool(written.all())
        views = rows.views if whole else {name: view[written] for name, view in rows.views.items()}
        chosen = pa.array(written)
        columns: dict[str, pa.Array] = {setting.key: rows.key_column if whole else rows.key_column.filter(chosen)}
        columns |= {name: kept.column(name) for name in kept.column_names}
        dtype = setting.schema.field("fused").type.value_type.to_pandas_dtype()
        fused = self.alignment.fuse(views, average=setting.average, weights=setting.weights)
        columns["fused"] = vectors_to_array(_narrowed(fused, dtype, columns[setting.key]))
        present = {name: ~np.isnan(view[:, 0]) for name, view in views.items()}
        columns |= {f"has_{name}": pa.array(has) for name, has in present.items()}
        for name, status in rows.status.items():
            if f"count_{name}" in setting.schema.names:
                columns[f"count_{name}"] = status.column("count") if whole else status.column("count").filter(chosen)
        if setting.keep_aligned:
            for name, aligned in self.alignment.transform(views).items():
                there = np.where(present[name][:, None], aligned, 0)
                array = vectors_to_array(_narrowed(there, dtype, columns[setting.key]))
                columns[f"aligned_{name}"] = pa.FixedSizeListArray.from_arrays(
                    array.flatten(), type=array.type, mask=pa.array(~present[name])
                )
        schema = setting.schema
        return pa.Table.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema)


def _narrowed(vectors: NDArray[Any], dtype: Any, keys: pa.ChunkedArray) -> NDArray[Any]:
    """The vectors as ``dtype``, none of them beyond its range."""
    with np.errstate(over="ignore"):
        narrow = np.asarray(vectors, dtype=dtype)
    if not np.isfinite(narrow).all():
        row, place = (int(index) for index in np.argwhere(~np.isfinite(narrow))[0])
        half = np.dtype(dtype) == np.float16
        todo = "set output.dtype to float32" if half else "scale the inputs"
        raise RunError(
            f"row {keys[row].as_py()}: element {place} of its vector is {float(vectors[row, place]):g}, which "
            f"{np.dtype(dtype).name} cannot hold (output.dtype); {todo}; nothing was committed"
        )
    return narrow


def bad_inputs(rows: Rows) -> pa.Table:
    """The reject lines of some rows: every input that could not be used, values that do not fit, rows without a key."""
    misfits = [(row, column, problem) for row, of in rows.misfits.items() for column, problem in of.items()]
    tables = [_lines([(rows.keys[row], name, Reason.WRONG_TYPE, why, rows.origin(row)) for row, name, why in misfits])]
    for name, status in rows.status.items():
        tables.append(_bad_values(name, status, rows))
        if "rejects" in status.column_names:
            tables.append(_bad_members(name, status, rows))
    nameless = np.flatnonzero(rows.key_column.is_null().to_numpy()).tolist()
    whole = [(row, Reason.NULL_KEY) for row in nameless]
    whole += [(row, Reason.DUPLICATE_KEY) for row in rows.left_out if rows.keys[row] is not None]
    tables.append(_lines([(rows.keys[row], None, reason, None, rows.origin(row)) for row, reason in whole]))
    return pa.concat_tables([table.cast(REJECTS) for table in tables])


def _lines(lines: Sequence[tuple[str | None, ...]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(REJECTS.names, line, strict=True)) for line in lines], REJECTS)


def _bad_values(name: str, status: pa.Table, rows: Rows) -> pa.Table:
    """One line for each row of which an input could not be used."""
    bad = np.flatnonzero(~status.column("ok").to_numpy())
    failed = status.take(pa.array(bad))
    inputs = pa.array([name] * len(bad), pa.string())
    columns = [failed.column("key"), inputs, failed.column("reason"), failed.column("detail")]
    return pa.Table.from_arrays([*columns, _sources(failed.column("source"), bad, rows)], names=REJECTS.names)


def _bad_members(name: str, status: pa.Table, rows: Rows) -> pa.Table:
    """One line for each of a row's several values that was left out of its mean."""
    lists = status.column("rejects").combine_chunks()
    lines = lists.flatten()
    of = np.repeat(np.arange(len(lists)), lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    keys = status.column("key").combine_chunks().take(pa.array(of))
    inputs = pa.array([name] * len(lines), pa.string())
    columns = [keys, inputs, lines.field("reason"), lines.field("detail"), _sources(lines.field("source"), of, rows)]
    return pa.Table.from_arrays(columns, names=REJECTS.names)


def _sources(named: pa.Array | pa.ChunkedArray, numbers: NDArray[np.int64], rows: Rows) -> pa.Array:
    """The files that were refused; where the row itself holds the value, the row's file and number."""
    pairs = zip(named.to_pylist(), numbers.tolist(), strict=True)
    return pa.array([source or rows.origin(row) for source, row in pairs], pa.string())


def rows_written(rows: Rows, on_bad_input: str) -> NDArray[np.bool_]:
    """Which rows are written: those with a key of their own and, by ``on_bad_input``, any or every input good."""
    good = np.stack([~np.isnan(view[:, 0]) for view in rows.views.values()])
    written = np.asarray(good.all(axis=0) if on_bad_input == "drop" else good.any(axis=0))
    written &= rows.key_column.is_valid().to_numpy()
    written[list(rows.left_out)] = False
    return written


def _count(record: dict[str, Any], rows: Rows, bad: pa.Table, written: NDArray[np.bool_]) -> None:
    record["read"] += len(written)
    record["written"] += int(written.sum())
    record["rejected"] += int((~written).sum())
    record["missing"].update({name: int(np.isnan(view[written, 0]).sum()) for name, view in rows.views.items()})
    record["bad"].update(bad.column("reason").to_pylist())


def _write_rejects(setting: FuseSetting, index: int, rejects: pa.Table) -> list[str]:
    if not rejects.num_rows:
        return []
    path = f"rejects/{setting.version}/part-{index:05d}.parquet"
    setting.storage.write_table(path, rejects)
    return [path]
