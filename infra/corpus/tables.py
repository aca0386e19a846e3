"""Parquet: rows addressed through row groups, read batch by batch in bounded memory."""

import threading
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from infra._faults import told
from infra.corpus.base import Format, Peek, Shard, UnreadableError
from infra.corpus.files import Files
from infra.corpus.listing import Entry
from infra.jobpaths import is_uri

_BATCH = 1024


def plain(kind: pa.DataType) -> pa.DataType:
    """A Parquet column's type without its storage details: no dictionaries, views or 64-bit offsets.

    >>> plain(pa.dictionary(pa.int8(), pa.large_string()))
    DataType(string)
    """
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(plain(kind.value_type))
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    return kind


class Parquet(Format):
    """Parquet files; folders named ``column=value`` add text columns, as for every other format.

    Several files may order their columns differently, lack some, or differ in number width; text here and numbers
    there is an error. Memory holds one batch and the pages of one row group, whatever the file's size.
    """

    strict = True

    def peek(self, files: Files, entry: Entry, stride: int, sample: int) -> Peek:
        """Reads the footer."""
        del stride, sample
        try:
            with files.open_ranges(entry.uri, entry.size) as stream:
                file = pq.ParquetFile(stream)
                names = file.schema_arrow.names
                if len(set(names)) < len(names):
                    raise UnreadableError("two columns have the same name")
                types = {column.name: plain(column.type) for column in file.schema_arrow}
                return Peek(file.metadata.num_rows, types)
        except pa.ArrowException as error:
            raise UnreadableError(f"is not a whole Parquet file ({str(error).splitlines()[0][:120]})") from error

    def read(self, files: Files, shard: Shard, columns: Mapping[str, pa.DataType]) -> tuple[pa.Table, list[str | None]]:
        """Reads the shard's rows, going on from the shard before where that was the last one read."""
        with told(shard.uri):
            reader = _reader(files, shard, tuple(columns))
            try:
                table = reader.take(shard.start, shard.stop)
            except BaseException:
                _last.reader = None
                raise
        for number, name in enumerate(table.column_names):
            if table.column(name).type != columns[name]:
                table = table.set_column(number, name, _cast(table.column(name), columns[name]))
        return table, [None] * table.num_rows


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column as ``kind``; copied first, since pyarrow casts slices of structs wrongly."""
    return column.take(pa.array(range(len(column)), pa.int64())).cast(kind)


class _Reader:
    """Rows of one Parquet file in ascending order."""

    def __init__(self, files: Files, shard: Shard, columns: tuple[str, ...]) -> None:
        self.key = (shard.uri, shard.stamp, columns)
        self._files, self._uri = files, shard.uri
        self._size = shard.size
        with files.open_ranges(self._uri, self._size) as stream:
            file = pq.ParquetFile(stream)
            self._metadata = file.metadata
            self._columns = [name for name in columns if name in file.schema_arrow.names]
            self._schema = pa.schema([file.schema_arrow.field(name) for name in self._columns])
        self._stops: list[int] = []
        for group in range(self._metadata.num_row_groups):
            self._stops.append((self._stops[-1] if group else 0) + self._metadata.row_group(group).num_rows)
        self.position = 0
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None

    def take(self, start: int, stop: int) -> pa.Table:
        if not self._columns:
            rows = max(0, min(stop, self._metadata.num_rows) - start)
            return pa.table({"": pa.nulls(rows)}).select([])
        self._seek(start)
        taken: list[pa.RecordBatch] = []
        while self.position < stop and (batch := self._next()) is not None:
            begin = max(0, start - self.position)
            end = min(batch.num_rows, stop - self.position)
            if end > begin:
                taken.append(batch.slice(begin, end - begin))
            self._rest = batch.slice(end) if end < batch.num_rows else None
            self.position += end
        return pa.Table.from_batches(taken, self._schema)

    def _seek(self, start: int) -> None:
        group = next((number for number, stop in enumerate(self._stops) if start < stop), len(self._stops))
        first = self._stops[group - 1] if group else 0
        if not first <= self.position <= start or self.position == 0:
            self.position, self._rest = first, None
            self._batches = self._groups(group)

    def _next(self) -> pa.RecordBatch | None:
        if self._rest is not None:
            batch, self._rest = self._rest, None
            return batch
        return next(self._batches, None)

    def _groups(self, first: int) -> Iterator[pa.RecordBatch]:
        remote = is_uri(self._uri)
        for group in range(first, len(self._stops)):
            with self._files.open_ranges(self._uri, self._size) as stream:
                file = pq.ParquetFile(stream, metadata=self._metadata, pre_buffer=remote)
                yield from file.iter_batches(_BATCH, row_groups=[group], columns=self._columns, use_threads=False)


class _Last(threading.local):
    """The reader last used in this thread."""

    reader: _Reader | None = None


_last = _Last()


def _reader(files: Files, shard: Shard, columns: tuple[str, ...]) -> _Reader:
    if _last.reader is None or _last.reader.key != (shard.uri, shard.stamp, columns):
        _last.reader = _Reader(files, shard, columns)
    return _last.reader
