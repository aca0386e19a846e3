"""External hash join of the inputs' own tables to the corpus on the key; this module is its partition phase.

The rows of some shards of one table are partitioned by the hash of the key into one spill file, a record batch a
bucket; then each bucket is joined by itself and written as one Parquet file named by its content. Both phases hold a
fraction of ``limits.join_memory_mb``, whatever the size of the tables, in functions that any worker can run.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.errors import RunError
from barycenter.fusion.splits import stable_hash
from barycenter.infra.corpus.base import BAD, MISFITS, Shard
from barycenter.infra.corpus.corpus import Corpus
from barycenter.infra.job.models import CorpusJob
from barycenter.infra.storage import Storage

KEY, ROW = "__key__", "__row__"
_BUCKETS_IN_MEMORY, _UNITS_IN_MEMORY = 4, 6
_MAX_STEP_BYTES = 512 * 2**20
_MAX_SHARDS_AS_BUCKETS = 1024
_VERSION = 2
_SPILL_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class JoinTable:
    """One table of a join: the corpus, or an input's own table.

    Attributes:
        input: The input whose own table it is; None for the corpus itself.
        corpus: Its rows.
        columns: {name in the joined corpus: column of the table}.
        paths: Names in the joined corpus whose values are pictures; their relative paths are kept with their folder.
    """

    input: str | None
    corpus: Corpus
    columns: Mapping[str, str]
    paths: frozenset[str]

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Types of the columns by their names in the joined corpus, before rows of one key become lists."""
        types = {name: self.corpus.columns[column] for name, column in self.columns.items()}
        return {name: _type_with_folder(kind) if name in self.paths else kind for name, kind in types.items()}


@dataclass(frozen=True, slots=True)
class Unit:
    """Shards of one table that are partitioned together.

    Attributes:
        table: Index in ``Join.tables``.
        number: Index among the units of the table.
        shards: The shards.
        first: Number of their first row in the table.
    """

    table: int
    number: int
    shards: tuple[Shard, ...]
    first: int


@dataclass(frozen=True, slots=True)
class Join:
    """The plan of a join: its tables and the number of buckets. Picklable.

    Attributes:
        id: Hash of the tables' contents and of the settings; names the folder of the joined corpus.
        key: Name of the key in the joined corpus.
        tables: The corpus first, then the inputs' own tables.
        buckets: A power of two.
        memory: Bytes of ``limits.join_memory_mb``.
        rows_per_shard: Rows in a shard of the tables, and in a row group of the joined corpus.
    """

    id: str
    key: str
    tables: tuple[JoinTable, ...]
    buckets: int
    memory: int
    rows_per_shard: int

    @classmethod
    def plan(cls, key: str, tables: Sequence[JoinTable], job: CorpusJob, memory: int) -> "Join":
        """Plans a join; reads the first shard of each table to estimate the bytes of its rows."""
        shards = [table.corpus.shards(job.rows_per_shard) for table in tables]
        rows = [sum(shard.rows for shard in found) for found in shards]
        total = sum(_row_bytes(table, found) * count for table, found, count in zip(tables, shards, rows, strict=True))
        needed = total / min(memory / _BUCKETS_IN_MEMORY, _MAX_STEP_BYTES)
        full_shards = min(max(rows) // job.rows_per_shard, _MAX_SHARDS_AS_BUCKETS)
        buckets = max(_power_of_two(needed), _power_of_two(full_shards + 1) // 2, 1)
        described = [
            [
                table.input,
                table.corpus.key_column,
                dict(table.columns),
                sorted(table.paths),
                [each.id for each in found],
            ]
            for table, found in zip(tables, shards, strict=True)
        ]
        text = json.dumps([_VERSION, key, buckets, job.rows_per_shard, described])
        identity = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
        return cls(identity, key, tuple(tables), buckets, memory, job.rows_per_shard)

    @property
    def folder(self) -> str:
        """Folder of the joined corpus, relative to the output."""
        return f"corpus/{self.id}"

    @property
    def record(self) -> str:
        """Path of the JSON file that lists the joined corpus; written last, when the join is complete."""
        return f"{self.folder}/join.json"

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Types of the joined corpus's columns; those of an input's own table are lists."""
        types = {self.key: pa.string(), BAD: pa.string(), MISFITS: pa.string()}
        for table in self.tables:
            types |= {name: kind if table.input is None else pa.list_(kind) for name, kind in table.types.items()}
        return types

    def units(self) -> Iterator[Unit]:
        """Yields the units of all tables; each fits in memory."""
        for number, table in enumerate(self.tables):
            shards = table.corpus.shards(self.rows_per_shard)
            max_rows = min(self.memory / _UNITS_IN_MEMORY, _MAX_STEP_BYTES) / _row_bytes(table, shards)
            held: list[Shard] = []
            first = rows = units = 0
            for shard in shards:
                if held and rows + shard.rows > max_rows:
                    yield Unit(number, units, tuple(held), first)
                    first, rows, units, held = first + rows, 0, units + 1, []
                held.append(shard)
                rows += shard.rows
            if held:
                yield Unit(number, units, tuple(held), first)


def spill_path(join: Join, unit: Unit) -> str:
    """Returns the path of a unit's spill file, relative to the output."""
    return f"{join.folder}/spill/{unit.table}-{unit.number:06d}.arrow"


def partition_unit(join: Join, storage: Storage, unit: Unit) -> NDArray[np.int64]:
    """Partitions the rows of a unit by the hash of the key and writes them to its spill file.

    Returns:
        (buckets,) bytes of the unit's rows in each bucket.
    """
    parts = [_read_with_keys(join.tables[unit.table], shard) for shard in unit.shards]
    table = pa.concat_tables(parts).combine_chunks()
    rows = np.arange(unit.first, unit.first + table.num_rows)
    table = table.append_column(ROW, pa.array(rows, pa.int64()))
    hashes = stable_hash(
        key if key is not None else row for row, key in zip(rows, table.column(KEY).to_pylist(), strict=True)
    )
    bucket = (hashes % np.uint64(join.buckets)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    counts = np.bincount(bucket, minlength=join.buckets)
    present = np.flatnonzero(counts)
    table = table.take(pa.array(order)).combine_chunks()
    sizes = np.zeros(join.buckets, np.int64)
    schema = table.schema.with_metadata({"buckets": json.dumps(present.tolist())})
    stops = np.cumsum(counts)
    with (
        storage.writing(spill_path(join, unit)) as sink,
        pa.ipc.new_file(sink, schema, options=_SPILL_OPTIONS) as writer,
    ):
        for number in present:
            part = table.slice(stops[number] - counts[number], counts[number])
            sizes[number] = part.nbytes
            writer.write_table(part)
    return sizes


def _read_with_keys(source: JoinTable, shard: Shard) -> pa.Table:
    """Reads a shard: keys as text, and columns under their names in the joined corpus."""
    table = source.corpus.read(shard, list(source.columns.values()))
    arrays = {KEY: pa.array(source.corpus.keys(shard, table), pa.string())}
    arrays |= {name: table.column(name).combine_chunks() for name in (BAD, MISFITS)}
    for name, column in source.columns.items():
        values = table.column(column)
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
        arrays[name] = _with_folder(values, shard.folder) if name in source.paths else values
    return pa.table(arrays)


def _type_with_folder(kind: pa.DataType) -> pa.DataType:
    """Returns the type that ``_with_folder`` gives to values of a type."""
    return _with_folder(pa.array([], kind), "").type


def _with_folder(values: pa.Array, folder: str) -> pa.Array:
    """Adds to each picture path the folder it is relative to, as a struct; encoded bytes stay as they are."""
    kind = values.type
    if pa.types.is_list(kind):
        flat = _with_folder(values.flatten(), folder)
        lengths = values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, flat, mask=values.is_null())
    folders = pa.repeat(pa.scalar(folder, pa.string()), len(values))
    if pa.types.is_string(kind):
        return pa.StructArray.from_arrays([values, folders], ["path", "folder"], mask=values.is_null())
    if pa.types.is_struct(kind):
        fields = [*kind, pa.field("folder", pa.string())]
        return pa.StructArray.from_arrays([*values.flatten(), folders], fields=fields, mask=values.is_null())
    return values


def _row_bytes(source: JoinTable, shards: Sequence[Shard]) -> float:
    """Returns the mean bytes in memory of a row in the first shard; 1 for an empty table."""
    if not shards:
        return 1.0
    return float(max(1.0, _read_with_keys(source, shards[0]).nbytes / max(1, shards[0].rows)))


def _power_of_two(value: float) -> int:
    """Returns the smallest power of two from ``value`` up.

    >>> [_power_of_two(value) for value in (0, 1, 3, 4, 4.5)]
    [1, 1, 4, 4, 8]
    """
    return 1 << max(0, int(np.ceil(np.log2(max(value, 1)))))


def check_bucket_sizes(join: Join, sizes: NDArray[np.int64]) -> None:
    """Raises where a bucket does not fit in memory, which happens only if one key has very many rows.

    Raises:
        RunError: A bucket is larger than ``limits.join_memory_mb``.
    """
    largest = int(sizes.max(initial=0))
    if largest > join.memory:
        raise RunError(
            f"the join has a bucket of {largest >> 20} MiB, more than limits.join_memory_mb ({join.memory >> 20}): one "
            "key has very many rows; raise limits.join_memory_mb or remove rows of that key"
        )
