"""Join phase of the external hash join: one bucket of all tables is joined on the key and written to one file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from barycenter.infra.corpus.base import BAD, MISFITS, Problems, Shard, SourceIndex, Types, misfits_by_row
from barycenter.infra.corpus.corpus import Corpus
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.formats.tables import Parquet
from barycenter.infra.corpus.join.partition import KEY, Indices, Join
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.job.models import CorpusJob
from barycenter.infra.storage import Storage

_PARQUET_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}


def join_bucket(join: Join, storage: Storage, spilled: Sequence[Sequence[str]], bucket: int) -> dict[str, Any]:
    """Joins one bucket of all tables and writes it to a Parquet file.

    ``spilled`` has for each table of the join the paths of its spill files, in order.

    Returns:
        ``name`` (None where the bucket is empty), ``rows``, ``bytes`` and, for each input with a table of its own, the
        number of joined rows whose key is in the corpus and that table (``both``) or in that table alone
        (``table_only``).
    """
    tables = [_read_bucket(storage, paths, bucket) for paths in spilled]
    ranks, keys = _rank_keys(tables)
    base, own = tables[0], list(zip(join.tables[1:], tables[1:], ranks[1:], strict=True))
    out_rank, out_row = _output_rows(ranks, base)
    found = pa.array(out_row, mask=out_row < 0)
    columns: dict[str, pa.Array] = {join.key: keys.take(pa.array(out_rank))}
    for name, kind in {BAD: pa.string(), MISFITS: pa.string(), **join.tables[0].types}.items():
        columns[name] = base.column(name).take(found) if base is not None else pa.nulls(len(out_rank), kind)
    counted: dict[str, Any] = {}
    for source, table, rank in own:
        groups = _RowsByKey(table, rank, len(keys))
        for name, kind in source.types.items():
            columns[name] = groups.lists(None if table is None else table.column(name), out_rank, kind)
        columns[BAD] = pa.compute.coalesce(columns[BAD], groups.unreadable(out_rank, out_row < 0))
        columns[MISFITS] = _merge_misfits(columns[MISFITS], out_rank, groups.misfits(source.columns))
        there = groups.counts[out_rank] > 0
        both, alone = (int((there & chosen).sum()) for chosen in (out_row >= 0, out_row < 0))
        counted[str(source.input)] = {"both": both, "table_only": alone}
    if not len(out_rank):
        return {"name": None, "rows": 0, "bytes": 0} | counted
    schema = pa.schema([pa.field(name, kind) for name, kind in join.types.items()])
    whole = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    return _write_bucket(join, storage, whole, bucket) | counted


def open_joined_corpus(join: Join, record: Mapping[str, Any], storage: Storage, job: CorpusJob, files: Files) -> Corpus:
    """Opens the joined corpus from its record, the content of ``join.json``."""
    root = storage.uri(join.folder)
    types = {name: kind for name, kind in join.types.items() if name not in (BAD, MISFITS)}
    indexes = {
        Entry(f"{root}/{file['name']}", file["name"], file["bytes"], _digest_in_name(file["name"])): SourceIndex(
            file["rows"], types
        )
        for file in record["files"]
    }
    return Corpus(root, files, JoinedParquet(), job, indexes)


class JoinedParquet(Parquet):
    """Parquet files of a joined corpus; the digest in a file's name is its stamp."""

    def size_and_stamp(self, files: Files, shard: Shard) -> tuple[int, str]:
        """Returns the present size of the source and the digest in its name."""
        return files.stat(shard.uri)[0], _digest_in_name(shard.uri)

    def read(self, files: Files, shard: Shard, columns: Types, key: str | None = None) -> tuple[pa.Table, Problems]:
        """Reads the rows; adds the problems that the tables had before the join."""
        notes = {BAD: pa.string(), MISFITS: pa.string()}
        table, problems = super().read(files, shard, {**columns, **notes}, key)
        bad: list[str | None] = table.column(BAD).to_pylist()
        return table.drop_columns(list(notes)), Problems(bad, problems.misfits | misfits_by_row(table))


class _RowsByKey:
    """Rows of one table grouped by ``rank``, (rows,), the rank of their key; ``counts``, (ranks,), of each key."""

    def __init__(self, table: pa.Table | None, rank: Indices, ranks: int) -> None:
        self._table = table
        self._order = np.argsort(rank, kind="stable")
        self.counts = np.bincount(rank, minlength=ranks)
        self._starts = np.cumsum(self.counts) - self.counts
        self._rank = rank

    def lists(self, column: pa.ChunkedArray | None, out_rank: Indices, kind: pa.DataType) -> pa.Array:
        """Returns for each output row the list of the values of its key; null where the table lacks the key."""
        lengths = self.counts[out_rank]
        if column is None or not lengths.any():
            return pa.nulls(len(out_rank), pa.list_(kind))
        stops = np.cumsum(lengths)
        within = np.arange(stops[-1]) - np.repeat(stops - lengths, lengths)
        rows = self._order[np.repeat(self._starts[out_rank], lengths) + within]
        values = column.combine_chunks().take(pa.array(rows))
        offsets = pa.array(np.concatenate([[0], stops]), pa.int32())
        return pa.ListArray.from_arrays(offsets, values, mask=pa.array(lengths == 0))

    def unreadable(self, out_rank: Indices, alone: NDArray[np.bool_]) -> pa.Array:
        """Returns why output rows in this table ``alone`` could not be read; null where one of their rows could."""
        if self._table is None:
            return pa.nulls(len(out_rank), pa.string())
        problems = self._table.column(BAD).combine_chunks()
        bad = ~np.asarray(problems.is_null().to_numpy(zero_copy_only=False))
        all_bad = np.bincount(self._rank, weights=bad, minlength=len(self.counts)) == self.counts
        chosen = alone & all_bad[out_rank] & (self.counts[out_rank] > 0)
        first = np.zeros(len(out_rank), np.int64)
        first[chosen] = self._order[self._starts[out_rank[chosen]]]
        return problems.take(pa.array(first, mask=~chosen))

    def misfits(self, names: Mapping[str, str]) -> dict[int, dict[str, str]]:
        """Returns ``{rank: {name: problem}}`` where no row of the rank has a value that fits.

        ``names`` is ``{column of the joined corpus: column of this table}``.
        """
        problems = {} if self._table is None else misfits_by_row(self._table)
        found: dict[int, dict[str, list[str]]] = {}
        for row, wrong in problems.items():
            of_rank = found.setdefault(int(self._rank[row]), {})
            for name, column in names.items():
                of_rank.setdefault(name, []).extend([wrong[column]] if column in wrong else [])
        whole = {
            rank: {name: wrong[0] for name, wrong in columns.items() if len(wrong) == self.counts[rank]}
            for rank, columns in found.items()
        }
        return {rank: columns for rank, columns in whole.items() if columns}


def _merge_misfits(column: pa.Array, out_rank: Indices, misfits: Mapping[int, Mapping[str, str]]) -> pa.Array:
    """Adds the misfits of another table, by rank, to a column ``MISFITS``."""
    if not misfits:
        return column
    lines = column.to_pylist()
    for row in np.flatnonzero(np.isin(out_rank, list(misfits))).tolist():
        lines[row] = json.dumps({**json.loads(lines[row] or "{}"), **misfits[int(out_rank[row])]})
    return pa.array(lines, pa.string())


def _read_bucket(storage: Storage, paths: Sequence[str], bucket: int) -> pa.Table | None:
    """Reads the rows of a bucket from one table's spill files, in the order of the table; None if there are none."""
    batches: list[pa.Table] = []
    for path in paths:
        with storage.open(path) as stream:
            reader = pa.ipc.open_file(stream)
            present = json.loads(reader.schema.metadata[b"buckets"])
            if bucket in present:
                batch = reader.get_batch(present.index(bucket))
                batches.append(pa.Table.from_batches([batch]).replace_schema_metadata(None))
    return pa.concat_tables(batches).combine_chunks() if batches else None


def _rank_keys(tables: Sequence[pa.Table | None]) -> tuple[list[Indices], pa.Array]:
    """Returns for each table the rank of every row's key among all keys in order, and the keys by rank.

    A null key equals no other: each has a rank of its own, after all others.
    """
    columns = [pa.array([], pa.string()) if table is None else table.column(KEY).combine_chunks() for table in tables]
    whole = pa.concat_arrays(columns)
    encoded = whole.dictionary_encode()
    order = pa.compute.sort_indices(encoded.dictionary).to_numpy()
    rank_of = np.empty(len(order), np.int64)
    rank_of[order] = np.arange(len(order))
    valid = whole.is_valid().to_numpy(zero_copy_only=False)
    ranks = np.empty(len(whole), np.int64)
    ranks[valid] = rank_of[encoded.indices.drop_null().to_numpy()]
    ranks[~valid] = len(order) + np.arange(int((~valid).sum()))
    keys = pa.concat_arrays([encoded.dictionary.take(pa.array(order)), pa.nulls(int((~valid).sum()), pa.string())])
    stops = np.cumsum([len(column) for column in columns])
    return np.split(ranks, stops[:-1]), keys


def _output_rows(ranks: Sequence[Indices], base: pa.Table | None) -> tuple[Indices, Indices]:
    """Returns the key rank and the corpus row (-1 where the corpus lacks the key) of every joined row, by rank."""
    rows = np.arange(0 if base is None else base.num_rows)
    others = np.unique(np.concatenate(ranks[1:])) if len(ranks) > 1 else np.empty(0, np.int64)
    alone = np.setdiff1d(others, ranks[0], assume_unique=False)
    rank = np.concatenate([ranks[0], alone]).astype(np.int64)
    row = np.concatenate([rows, np.full(len(alone), -1)]).astype(np.int64)
    order = np.argsort(rank, kind="stable")
    return rank[order], row[order]


def _write_bucket(join: Join, storage: Storage, table: pa.Table, bucket: int) -> dict[str, Any]:
    """Writes the rows of a bucket to a Parquet file named by its content; returns name, rows and bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=join.rows_per_shard, **_PARQUET_OPTIONS)
    content = sink.getvalue()
    name = f"bucket-{bucket:05d}-{hashlib.blake2b(content, digest_size=10).hexdigest()}.parquet"
    storage.write(f"{join.folder}/{name}", content)
    return {"name": name, "rows": table.num_rows, "bytes": content.size}


def _digest_in_name(name: str) -> str:
    return name.removesuffix(".parquet").rpartition("-")[2]
