"""Parquet: rows are found by row group and read batch by batch in bounded memory."""

import threading
from collections.abc import Iterator
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus.base import KEYS, Format, Problems, Shard, SourceIndex, Types, UnreadableError
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.corpus.types.casting import cast_column, logical_type
from barycenter.infra.corpus.types.keys import key_texts
from barycenter.infra.job.paths import is_uri
from barycenter.infra.storage.errors import first_line, is_transient, storage_errors

_BATCH_ROWS = 1024


class Parquet(Format):
    """Parquet files; folders named ``column=value`` add text columns, as for every other format.

    Several files may order their columns differently, lack some, or differ in number width; text in one and numbers
    in another is an error. Memory holds one batch and the pages of one row group, whatever the file's size.
    """

    declares_types = True

    def index_source(self, files: Files, entry: Entry, rows_per_shard: int, sample_rows: int) -> SourceIndex:
        """Takes rows and types from the file's footer."""
        del rows_per_shard, sample_rows
        try:
            with files.open_ranges(entry.uri, entry.size) as stream:
                file = pq.ParquetFile(stream)
                names = file.schema_arrow.names
                if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                    raise UnreadableError(f"has two columns named {twice[0]!r}; rename one")
                _check_row_counts(file.metadata)
                types = {column.name: logical_type(column.type) for column in file.schema_arrow}
                return SourceIndex(file.metadata.num_rows, types)
        except (pa.ArrowException, OSError) as error:
            if _is_storage_failure(error):
                raise
            raise UnreadableError(f"is not a whole Parquet file ({first_line(error)}); write it again") from error

    def read(self, files: Files, shard: Shard, columns: Types, key: str | None = None) -> tuple[pa.Table, Problems]:
        """Reads the shard's rows; continues the open reader where the shard before was the last one read."""
        with storage_errors(shard.uri):
            table = _read_rows(files, shard, tuple(dict.fromkeys([*columns, *filter(None, [key])])))
        problems = Problems([None] * table.num_rows)
        arrays: dict[str, pa.ChunkedArray | pa.Array] = {}
        for name in table.column_names:
            if name in columns:
                arrays[name], wrong = cast_column(table.column(name), columns[name])
                problems.add_misfits(name, wrong)
        if key in table.column_names:
            arrays[KEYS], wrong = key_texts(table.column(key))
            problems.add_misfits(str(key), wrong)
        return pa.table(arrays) if arrays else table.select([]), problems


def _read_rows(files: Files, shard: Shard, columns: tuple[str, ...]) -> pa.Table:
    try:
        if _last_reader.reader is None or _last_reader.reader.key != (shard.uri, shard.stamp, columns):
            _last_reader.reader = _RowReader(files, shard, columns)
        table = _last_reader.reader.read_rows(shard.start, shard.stop)
    except BaseException as error:
        _last_reader.reader = None
        if isinstance(error, pa.ArrowException | OSError) and not _is_storage_failure(error):
            raise RunError(
                f"{shard.uri} is damaged: rows {shard.start} to {shard.stop} cannot be read ({first_line(error)}); "
                "write the file again or take it out of the corpus"
            ) from error
        raise
    if table.num_rows < shard.rows:
        raise RunError(
            f"{shard.uri} is damaged: its columns hold {table.num_rows} of the {shard.rows} rows from {shard.start} on "
            "that its footer states; write the file again or take it out of the corpus"
        )
    return table


def _check_row_counts(metadata: pq.FileMetaData) -> None:
    rows = sum(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    if rows != metadata.num_rows:
        raise UnreadableError(
            f"is damaged: its footer states {metadata.num_rows} rows, its row groups {rows}; write it again"
        )


def _is_storage_failure(error: BaseException) -> bool:
    """Whether an error comes from the disk or the object store rather than from the file's content."""
    return isinstance(error, OSError) and (error.errno is not None or is_transient(error))


class _RowReader:
    """Reads rows of one Parquet file, fastest in ascending order; ``position`` is the row after the last one read."""

    def __init__(self, files: Files, shard: Shard, columns: tuple[str, ...]) -> None:
        self.key = (shard.uri, shard.stamp, columns)
        self._files, self._uri, self._size = files, shard.uri, shard.size
        with files.open_ranges(self._uri, self._size) as stream:
            file = pq.ParquetFile(stream)
            self._metadata = file.metadata
            self._columns = [name for name in columns if name in file.schema_arrow.names]
            self._schema = pa.schema([file.schema_arrow.field(name) for name in self._columns])
        groups = range(self._metadata.num_row_groups)
        self._group_stops = list(accumulate(self._metadata.row_group(group).num_rows for group in groups))
        self.position = 0
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._unread: pa.RecordBatch | None = None

    def read_rows(self, start: int, stop: int) -> pa.Table:
        """Reads the rows from ``start`` up to ``stop``; fewer where the file ends before."""
        if not self._columns:
            rows = max(0, min(stop, self._metadata.num_rows) - start)
            return pa.table({"": pa.nulls(rows)}).select([])
        self._seek_row_group(start)
        taken: list[pa.RecordBatch] = []
        while self.position < stop and (batch := self._next_batch()) is not None:
            begin = max(0, start - self.position)
            end = min(batch.num_rows, stop - self.position)
            if end > begin:
                taken.append(batch.slice(begin, end - begin))
            self._unread = batch.slice(end) if end < batch.num_rows else None
            self.position += end
        return pa.Table.from_batches(taken, self._schema)

    def _seek_row_group(self, start: int) -> None:
        """Moves to the row group of a row, unless that row can be reached by reading on."""
        group = next((number for number, stop in enumerate(self._group_stops) if start < stop), len(self._group_stops))
        first = self._group_stops[group - 1] if group else 0
        if not first <= self.position <= start or self.position == 0:
            self.position, self._unread = first, None
            self._batches = self._read_batches_from(group)

    def _next_batch(self) -> pa.RecordBatch | None:
        """Returns the rest of the batch last read, else the next batch; None at the end of the file."""
        if self._unread is not None:
            batch, self._unread = self._unread, None
            return batch
        return next(self._batches, None)

    def _read_batches_from(self, first: int) -> Iterator[pa.RecordBatch]:
        """Yields the batches of a row group and of those after it."""
        for group in range(first, len(self._group_stops)):
            with self._files.open_ranges(self._uri, self._size) as stream:
                options = {"pre_buffer": is_uri(self._uri), "page_checksum_verification": True}
                file = pq.ParquetFile(stream, metadata=self._metadata, **options)
                batches = file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=self._columns, use_threads=False)
                yield from (batch.select(self._columns) for batch in batches)


class _LastReader(threading.local):
    reader: _RowReader | None = None


_last_reader = _LastReader()
