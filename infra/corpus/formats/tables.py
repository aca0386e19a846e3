"""Parquet: rows addressed through row groups, read batch by batch in bounded memory."""

import threading
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus.base import KEYS, Format, Peek, Problems, Shard, UnreadableError
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.corpus.types.casting import fitted, plain
from barycenter.infra.corpus.types.keys import key_texts
from barycenter.infra.job.paths import is_uri
from barycenter.infra.storage.errors import is_transient, storage_errors

_BATCH = 1024


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
                if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                    raise UnreadableError(f"has two columns of the name {twice[0]!r}; rename one")
                _check_counts(file.metadata)
                types = {column.name: plain(column.type) for column in file.schema_arrow}
                return Peek(file.metadata.num_rows, types)
        except (pa.ArrowException, OSError) as error:
            if _is_of_storage(error):
                raise
            raise UnreadableError(f"is not a whole Parquet file ({_reason(error)})") from error

    def read(
        self, files: Files, shard: Shard, columns: Mapping[str, pa.DataType], key: str | None = None
    ) -> tuple[pa.Table, Problems]:
        """Reads the shard's rows, going on from the shard before where that was the last one read."""
        with storage_errors(shard.uri):
            table = _taken(files, shard, tuple(dict.fromkeys([*columns, *filter(None, [key])])))
        problems = Problems([None] * table.num_rows)
        arrays: dict[str, pa.ChunkedArray | pa.Array] = {}
        for name in table.column_names:
            if name in columns:
                arrays[name], wrong = fitted(table.column(name), columns[name])
                problems.add(name, wrong)
        if key in table.column_names:
            arrays[KEYS], wrong = key_texts(table.column(key))
            problems.add(str(key), wrong)
        return pa.table(arrays) if arrays else table.select([]), problems


def _taken(files: Files, shard: Shard, columns: tuple[str, ...]) -> pa.Table:
    try:
        table = _reader(files, shard, columns).take(shard.start, shard.stop)
    except BaseException as error:
        _last.reader = None
        if isinstance(error, pa.ArrowException | OSError) and not _is_of_storage(error):
            raise RunError(
                f"{shard.uri} is damaged: rows {shard.start} to {shard.stop} cannot be read ({_reason(error)}); "
                "write the file again or take it out of the corpus"
            ) from error
        raise
    if table.num_rows < shard.rows:
        raise RunError(
            f"{shard.uri} is damaged: its columns hold {table.num_rows} of the {shard.rows} rows from {shard.start} on "
            "that its footer names; write the file again or take it out of the corpus"
        )
    return table


def _check_counts(metadata: pq.FileMetaData) -> None:
    """Refuses a footer that contradicts itself."""
    rows = sum(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    if rows != metadata.num_rows:
        raise UnreadableError(f"is damaged: its footer names {metadata.num_rows} rows, its row groups {rows}")


def _is_of_storage(error: BaseException) -> bool:
    """Whether it was not the file's content that failed, but the way to it."""
    return isinstance(error, OSError) and (error.errno is not None or is_transient(error))


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


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
                file = pq.ParquetFile(
                    stream, metadata=self._metadata, pre_buffer=remote, page_checksum_verification=True
                )
                batches = file.iter_batches(_BATCH, row_groups=[group], columns=self._columns, use_threads=False)
                yield from (batch.select(self._columns) for batch in batches)


class _Last(threading.local):
    """The reader last used in this thread."""

    reader: _Reader | None = None


_last = _Last()


def _reader(files: Files, shard: Shard, columns: tuple[str, ...]) -> _Reader:
    if _last.reader is None or _last.reader.key != (shard.uri, shard.stamp, columns):
        _last.reader = _Reader(files, shard, columns)
    return _last.reader
