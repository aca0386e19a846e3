"""Feature files as a block of shards writes them: one open file a partition, hashed on its way out."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from barycenter.fusion.dataset.schema import ROW_GROUP_ROWS, FeatureFile, parquet_options
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.tasks.fuse.folders import (
    MAX_PARTITIONS,
    PartitionValue,
    folder,
    stored,
    too_many_partitions,
    value_problem,
)

_BUFFERED_BYTES = 256 * 2**20

Values = tuple[object, ...]


class FeatureWriters:
    """Appends feature rows to the files of their partitions; a context manager that completes the files at its end.

    The files go to ``folder`` of the storage; ``index``, the number of the block, is in their names.
    """

    def __init__(
        self, storage: Storage, folder: str, index: int, schema: pa.Schema, partition_by: tuple[str, ...]
    ) -> None:
        self.files: list[FeatureFile] = []
        self._storage, self._folder, self._index = storage, folder, index
        self._schema, self._names = schema, partition_by
        self._open: dict[str, _File] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "FeatureWriters":
        return self

    def write(self, table: pa.Table, kept: pa.Table) -> None:
        """Appends feature rows; ``kept`` are the same rows' kept columns, those to partition by among them.

        Raises:
            RunError: The partition columns have too many values, or one that cannot be a folder.
        """
        for place, value, part in _parted(table, kept, self._names):
            self._file(place, value).add(part)
        while sum(file.held_bytes for file in self._open.values()) > _BUFFERED_BYTES:
            max(self._open.values(), key=lambda file: file.held_bytes).flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            for file in self._open.values():
                file.abandon()
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            for file in self._open.values():
                file.close()
        self.files = [file.entry() for file in self._open.values()]

    def _file(self, place: str, value: Values) -> "_File":
        if place not in self._open:
            if len(self._open) >= MAX_PARTITIONS:
                raise RunError(f"output.partition_by: {too_many_partitions(self._names, len(self._open) + 1)}")
            for name, part in zip(self._names, value, strict=True):
                if (problem := value_problem(name, part)) is not None:
                    raise RunError(f"output.partition_by: {problem}; nothing was committed")
            path = f"{self._folder}/{place}part-{self._index:05d}.parquet"
            partition = {name: stored(part) for name, part in zip(self._names, value, strict=True)}
            sink = self._stack.enter_context(self._storage.writing(path))
            self._open[place] = _File(path, partition, sink, self._schema)
        return self._open[place]


class _File:
    """One Parquet file: rows are held until they fill row groups."""

    def __init__(self, path: str, partition: dict[str, PartitionValue], sink: BinaryIO, schema: pa.Schema) -> None:
        self._path, self._partition = path, partition
        self._sink = _Hashed(sink)
        self._writer = pq.ParquetWriter(self._sink, schema, **parquet_options(schema))
        self._held: list[pa.Table] = []
        self._rows = self._written = 0
        self.held_bytes = 0

    def add(self, table: pa.Table) -> None:
        self._held.append(table)
        self._rows += table.num_rows
        if self._rows >= ROW_GROUP_ROWS:
            self._write(self._rows - self._rows % ROW_GROUP_ROWS)
        self.held_bytes = sum(part.nbytes for part in self._held)

    def flush(self) -> None:
        self._write(self._rows)
        self.held_bytes = 0

    def close(self) -> None:
        if self._rows:
            self.flush()
        self._writer.close()

    def abandon(self) -> None:
        """Ends the writer without another byte."""
        self._sink.abandoned = True
        self._writer.close()

    def entry(self) -> FeatureFile:
        sink = self._sink
        return FeatureFile(self._path, self._written, sink.size, sink.digest.hexdigest(), dict(self._partition))

    def _write(self, rows: int) -> None:
        whole = pa.concat_tables(self._held)
        self._writer.write_table(whole.slice(0, rows), row_group_size=ROW_GROUP_ROWS)
        self._written += rows
        self._rows -= rows
        self._held = [whole.slice(rows)] if self._rows else []


class _Hashed(io.RawIOBase):
    """A stream that takes the SHA-256 of what goes through it; the storage flushes and closes the one below."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self.digest = hashlib.sha256()
        self.size = 0
        self.abandoned = False

    def write(self, data: Any) -> int:
        if self.abandoned:
            return len(data)
        self.digest.update(data)
        self.size += len(data)
        return self._sink.write(data)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size


def _parted(table: pa.Table, kept: pa.Table, names: tuple[str, ...]) -> Iterator[tuple[str, Values, pa.Table]]:
    """The rows of each folder, in order: (folder, its values, rows). Values that make one folder are one value."""
    if not table.num_rows:
        return
    if not names:
        yield "", (), table
        return
    code = np.zeros(table.num_rows, np.int64)
    for name in names:
        numbers, count = _codes(name, kept.column(name))
        code = np.unique(code * count + numbers, return_inverse=True)[1]
    order = np.argsort(code, kind="stable")
    firsts = np.flatnonzero(np.diff(code[order], prepend=-1))
    sorted_table = table.take(pa.array(order))
    for start, stop in zip(firsts, [*firsts[1:], len(order)], strict=True):
        value = tuple(kept.column(name)[int(order[start])].as_py() for name in names)
        place = "".join(f"{folder(name, part)}/" for name, part in zip(names, value, strict=True))
        yield place, value, sorted_table.slice(start, stop - start)


def _codes(name: str, column: pa.ChunkedArray) -> tuple[NDArray[np.int64], int]:
    """(n,) the number of each row's folder, and how many there are."""
    encoded = column.combine_chunks().dictionary_encode()
    folders = [folder(name, value) for value in [*encoded.dictionary.to_pylist(), None]]
    numbers = {place: number for number, place in enumerate(dict.fromkeys(folders))}
    places = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    return np.array([numbers[place] for place in folders], np.int64)[places], len(numbers)
