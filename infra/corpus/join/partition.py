"""Joining the inputs' own tables to the corpus on the key: an external hash partition, then one bucket at a time.

A unit of some shards of one table is cut by the hash of the key into one spill file with a record batch a bucket;
then every bucket is joined by itself and written as one Parquet file named by its content. Both steps hold a fraction
of ``limits.join_memory_mb``, whatever the size of the tables, and are plain functions that any worker can run.
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
_BUCKET_SHARE, _UNIT_SHARE = 4, 6
_MOST_BYTES = 512 * 2**20
_MOST_GRAINS = 1024
_VERSION = 2
_SPILL = pa.ipc.IpcWriteOptions(compression="lz4")

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Side:
    """One table of a join.

    Attributes:
        input: The input whose own table it is; None for the corpus itself.
        corpus: Its rows.
        columns: {name in the joined corpus: column of the table}.
        paths: Names in the joined corpus whose values are pictures; paths among them keep the folder they start from.
    """

    input: str | None
    corpus: Corpus
    columns: Mapping[str, str]
    paths: frozenset[str]

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Types of the columns before rows of one key become a list."""
        types = {name: self.corpus.columns[column] for name, column in self.columns.items()}
        return {name: _placed_type(kind) if name in self.paths else kind for name, kind in types.items()}


@dataclass(frozen=True, slots=True)
class Unit:
    """Some shards of one side, and the number of their first row in it."""

    side: int
    number: int
    shards: tuple[Shard, ...]
    first: int


@dataclass(frozen=True, slots=True)
class Join:
    """What is joined to what, and into how many buckets; picklable.

    Attributes:
        id: Hash of the tables' contents and of the settings; names the folder of the joined corpus.
        key: Name of the key in the joined corpus.
        sides: The corpus first, then the inputs' own tables.
        buckets: A power of two.
        memory: Bytes that one step may hold.
        rows_per_shard: Rows of a row group.
    """

    id: str
    key: str
    sides: tuple[Side, ...]
    buckets: int
    memory: int
    rows_per_shard: int

    @classmethod
    def of(cls, key: str, sides: Sequence[Side], job: CorpusJob, memory: int) -> "Join":
        """Plans a join; reads the first shard of every side to learn how wide its rows are."""
        shards = [side.corpus.shards(job.rows_per_shard) for side in sides]
        rows = [sum(shard.rows for shard in found) for found in shards]
        total = sum(_row_bytes(side, found) * count for side, found, count in zip(sides, shards, rows, strict=True))
        needed = total / min(memory / _BUCKET_SHARE, _MOST_BYTES)
        grains = min(max(rows) // job.rows_per_shard, _MOST_GRAINS)
        buckets = max(_power_of_two(needed), _power_of_two(grains + 1) // 2, 1)
        described_sides = [
            [side.input, side.corpus.key_column, dict(side.columns), sorted(side.paths), [shard.id for shard in found]]
            for side, found in zip(sides, shards, strict=True)
        ]
        text = json.dumps([_VERSION, key, buckets, job.rows_per_shard, described_sides])
        identity = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
        return cls(identity, key, tuple(sides), buckets, memory, job.rows_per_shard)

    @property
    def folder(self) -> str:
        """Where the joined corpus lies in the output."""
        return f"corpus/{self.id}"

    @property
    def record(self) -> str:
        """The file that lists the joined corpus; it is there when the join is done."""
        return f"{self.folder}/join.json"

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Columns of the joined corpus: an input's own table gives lists."""
        types = {self.key: pa.string(), BAD: pa.string(), MISFITS: pa.string()}
        for side in self.sides:
            types |= {name: kind if side.input is None else pa.list_(kind) for name, kind in side.types.items()}
        return types

    def units(self) -> Iterator[Unit]:
        """The sides cut into units of work that fit in memory."""
        for number, side in enumerate(self.sides):
            shards = side.corpus.shards(self.rows_per_shard)
            most = min(self.memory / _UNIT_SHARE, _MOST_BYTES) / _row_bytes(side, shards)
            held: list[Shard] = []
            first = rows = units = 0
            for shard in shards:
                if held and rows + shard.rows > most:
                    yield Unit(number, units, tuple(held), first)
                    first, rows, units, held = first + rows, 0, units + 1, []
                held.append(shard)
                rows += shard.rows
            if held:
                yield Unit(number, units, tuple(held), first)


def spill_path(join: Join, unit: Unit) -> str:
    """The spill file of one unit."""
    return f"{join.folder}/spill/{unit.side}-{unit.number:06d}.arrow"


def spill(join: Join, storage: Storage, unit: Unit) -> NDArray[np.int64]:
    """Cuts a unit by the hash of the key and writes its spill file.

    Returns:
        (buckets,) bytes that the unit puts into each bucket.
    """
    side = join.sides[unit.side]
    parts = [_keyed(side, shard) for shard in unit.shards]
    table = pa.concat_tables(parts).combine_chunks()
    rows = np.arange(unit.first, unit.first + table.num_rows)
    table = table.append_column(ROW, pa.array(rows, pa.int64()))
    hashes = stable_hash(key if key is not None else row for row, key in zip(rows, _texts(table), strict=True))
    bucket = (hashes % np.uint64(join.buckets)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    counts = np.bincount(bucket, minlength=join.buckets)
    present = np.flatnonzero(counts)
    table = table.take(pa.array(order)).combine_chunks()
    sizes = np.zeros(join.buckets, np.int64)
    schema = table.schema.with_metadata({"buckets": json.dumps(present.tolist())})
    stops = np.cumsum(counts)
    with storage.writing(spill_path(join, unit)) as sink, pa.ipc.new_file(sink, schema, options=_SPILL) as writer:
        for number in present:
            part = table.slice(stops[number] - counts[number], counts[number])
            sizes[number] = part.nbytes
            writer.write_table(part)
    return sizes


def _keyed(side: Side, shard: Shard) -> pa.Table:
    """One shard's rows with their keys as text, columns under their names in the joined corpus."""
    table = side.corpus.read(shard, list(dict.fromkeys(side.columns.values())))
    arrays = {KEY: pa.array(side.corpus.keys(shard, table), pa.string())}
    arrays |= {name: table.column(name).combine_chunks() for name in (BAD, MISFITS)}
    for name, column in side.columns.items():
        values = table.column(column)
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
        arrays[name] = _placed(values, shard.folder) if name in side.paths else values
    return pa.table(arrays)


def _placed_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_placed_type(kind.value_type))
    if pa.types.is_string(kind):
        return pa.struct([("path", pa.string()), ("folder", pa.string())])
    if pa.types.is_struct(kind):
        return pa.struct([*kind, pa.field("folder", pa.string())])
    return kind


def _placed(values: pa.Array, folder: str) -> pa.Array:
    """Picture paths with the folder that they start from; encoded bytes as they are."""
    kind = values.type
    if pa.types.is_list(kind):
        flat = _placed(values.flatten(), folder)
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


def _texts(table: pa.Table) -> list[str | None]:
    keys: list[str | None] = table.column(KEY).to_pylist()
    return keys


def _row_bytes(side: Side, shards: Sequence[Shard]) -> float:
    """Bytes of a row in memory, as the first shard has them."""
    if not shards:
        return 1.0
    return float(max(1.0, _keyed(side, shards[0]).nbytes / max(1, shards[0].rows)))


def _power_of_two(value: float) -> int:
    """The least power of two that is not below ``value``.

    >>> [_power_of_two(value) for value in (0, 1, 3, 4, 4.5)]
    [1, 1, 4, 4, 8]
    """
    return 1 << max(0, int(np.ceil(np.log2(max(value, 1)))))


def check_sizes(join: Join, sizes: NDArray[np.int64]) -> None:
    """Refuses a bucket that does not fit in memory, which only a key of very many rows can make.

    Raises:
        RunError: Naming the key of the job file that allows more.
    """
    largest = int(sizes.max(initial=0))
    if largest > join.memory:
        raise RunError(
            f"the join has a bucket of {largest >> 20} MiB, more than limits.join_memory_mb ({join.memory >> 20}): one "
            "key has very many rows; raise limits.join_memory_mb or take rows out of that table"
        )
