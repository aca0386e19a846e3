"""The row groups of a manifest's files, on any filesystem, filtered and scanned in any order."""

import os
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from barycenter.fusion.dataset.row_ranges import RowRange
from barycenter.fusion.dataset.schema import FeatureFile, Manifest, partition_scalar
from barycenter.fusion.errors import RunError

Filter: TypeAlias = Any
"""A pyarrow expression, ``[(column, operator, value), ...]`` or None."""

_FOOTER_THREADS = 16
_FRAGMENTS_AT_ONCE = 1024
_NULLABLE = (pa.types.is_integer, pa.types.is_boolean)


@dataclass(frozen=True, slots=True)
class ColumnBounds:
    """Bounds of a column of integers or booleans.

    Attributes:
        has_nulls: Whether a value may be null.
        max_abs: The largest absolute value, or more.
    """

    has_nulls: bool = False
    max_abs: int = 0

    def union(self, other: "ColumnBounds") -> "ColumnBounds":
        """The bounds of both columns together."""
        return ColumnBounds(self.has_nulls or other.has_nulls, max(self.max_abs, other.max_abs))


class FeatureReader:
    """A version of a fused data set: which row groups there are and how many rows of each pass the filter.

    Args:
        location: Output folder or one of its manifest files, local or a URI.
        version: Number or hash of a version; None is the newest (or the manifest named by ``location``).
        filesystem: A pyarrow or fsspec filesystem; None takes it from the URI.
        filter: Rows to read, as a pyarrow expression or ``[(column, operator, value), ...]``, all of which must hold.

    Raises:
        RunError: If nothing is committed there, the version is unknown, or a file is missing or not as listed.
        ValueError: If the filter names an unknown column.
    """

    def __init__(self, location: str | Path, version: int | str | None, filesystem: Any, filter: Filter) -> None:
        self._filesystem, path = open_location(location, filesystem)
        self._root, self.manifest = find_manifest(self._filesystem, path, version)
        self._pid = os.getpid()
        self._fragments: dict[int, pads.ParquetFileFragment] = {}
        self.filter = None if filter is None else _to_expression(filter)
        self.files: tuple[FeatureFile, ...] = self.manifest.files
        self.schema = self._schema()
        self._check_filter()
        self.row_group_file, self.row_group_number, self.row_group_rows, self.bounds = self._read_row_groups()

    @property
    def rows(self) -> int:
        """Rows that pass the filter."""
        return int(self.row_group_rows.sum())

    def path(self, file: FeatureFile) -> str:
        """Where a file lies on its filesystem."""
        return f"{self._root}/{file.path}"

    def arrow(self) -> pads.FileSystemDataset:
        """All files as one pyarrow dataset, partition columns included; the filter is not applied."""
        return self._dataset([self._fragment(index) for index in range(len(self.files))])

    def _dataset(self, fragments: list[pads.ParquetFileFragment]) -> pads.FileSystemDataset:
        return pads.FileSystemDataset(fragments, self.schema, pads.ParquetFileFormat(), self._current_filesystem())

    def scan(self, row_ranges: Iterator[RowRange], columns: Sequence[str], threads: bool) -> Iterator[pa.RecordBatch]:
        """Record batches that hold exactly the rows of the pieces, in their order."""
        while some := list(islice(row_ranges, _FRAGMENTS_AT_ONCE)):
            yield from self._scan(some, columns, threads)

    def _scan(self, row_ranges: list[RowRange], columns: Sequence[str], threads: bool) -> Iterator[pa.RecordBatch]:
        fragments = [
            self._fragment(int(self.row_group_file[row_range.row_group])).subset(
                row_group_ids=[int(self.row_group_number[row_range.row_group])]
            )
            for row_range in row_ranges
        ]
        batches = self._batches(fragments, columns, threads)
        waiting = iter(row_ranges)
        row_range, seen = next(waiting), 0
        for batch in batches:
            while len(batch):
                rows = int(self.row_group_rows[row_range.row_group])
                here = min(len(batch), rows - seen)
                first, last = max(row_range.start - seen, 0), min(row_range.stop - seen, here)
                if first < last:
                    yield batch.slice(first, last - first)
                batch, seen = batch.slice(here), seen + here
                if seen == rows:
                    row_range, seen = next(waiting, row_range), 0

    def _batches(
        self, fragments: list[pads.ParquetFileFragment], columns: Sequence[str], threads: bool
    ) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._dataset(fragments).to_batches(
                columns=list(columns), filter=self.filter, use_threads=threads
            )
        except FileNotFoundError as error:
            raise self._file_missing(str(error).partition(". Detail")[0]) from error

    def _file_missing(self, path: str) -> RunError:
        number = self.manifest.number
        return RunError(
            f"{path}: a file of version {number} is not there; `barycenter gc` may have deleted it; open another "
            f"version, or restore the file; `barycenter pin {self._root} {number}` keeps a version for a long training"
        )

    def _schema(self) -> pa.Schema:
        if not self.files:
            return pa.schema([])
        try:
            physical = self._fragment(0).physical_schema
        except FileNotFoundError as error:
            raise self._file_missing(self.path(self.files[0])) from error
        for name, kind in self.manifest.partition_types.items():
            field = pa.field(name, pa.type_for_alias(kind))
            place = physical.get_field_index(name)
            physical = physical.append(field) if place < 0 else physical.set(place, field)
        return physical

    def _check_filter(self) -> None:
        if self.filter is not None and self.files:
            try:
                pads.Scanner.from_batches(iter([]), schema=self.schema, filter=self.filter)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ValueError(f"filter: {str(error).splitlines()[0]}") from error

    def _read_row_groups(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], dict[str, ColumnBounds]]:
        with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
            found = list(pool.map(self._row_groups_of, range(len(self.files))))
        row_groups = [(index, group, rows) for index, (groups, _) in enumerate(found) for group, rows in groups if rows]
        table = np.array(row_groups, dtype=np.int64).reshape(-1, 3)
        bounds: dict[str, ColumnBounds] = {}
        for _, own in found:
            for name, one in own.items():
                bounds[name] = bounds.get(name, ColumnBounds()).union(one)
        return table[:, 0], table[:, 1], table[:, 2], bounds

    def _row_groups_of(self, index: int) -> tuple[list[tuple[int, int]], dict[str, ColumnBounds]]:
        """(row group, rows that pass the filter) of one file, and the bounds of its integer and boolean columns."""
        file = self.files[index]
        fragment = self._fragment(index)
        if self.filter is not None and not list(self._dataset([fragment]).get_fragments(filter=self.filter)):
            return [], {}
        try:
            metadata = fragment.metadata
        except FileNotFoundError as error:
            raise self._file_missing(self.path(file)) from error
        if metadata.num_rows != file.rows:
            raise RunError(f"{self.path(file)}: {metadata.num_rows} rows, the manifest says {file.rows}; fuse again")
        if self.filter is None:
            return [(group.id, group.num_rows) for group in fragment.row_groups], self._column_bounds(metadata, file)
        parts = fragment.split_by_row_group(filter=self.filter, schema=self.schema)
        rows = [(part.row_groups[0].id, self._dataset([part]).count_rows(filter=self.filter)) for part in parts]
        return rows, self._column_bounds(metadata, file)

    def _column_bounds(self, metadata: pq.FileMetaData, file: FeatureFile) -> dict[str, ColumnBounds]:
        columns = {column.name: column.type for column in self.schema if any(kind(column.type) for kind in _NULLABLE)}
        bounds = {
            name: ColumnBounds(value is None, _magnitude(value))
            for name, value in file.partition.items()
            if name in columns
        }
        for group in range(metadata.num_row_groups):
            for position in range(metadata.num_columns):
                column = metadata.row_group(group).column(position)
                name = column.path_in_schema
                if name in columns and name not in file.partition:
                    bounds[name] = bounds.get(name, ColumnBounds()).union(
                        _statistics_bounds(column.statistics, columns[name])
                    )
        return bounds

    def _fragment(self, index: int) -> pads.ParquetFileFragment:
        filesystem = self._current_filesystem()
        if index not in self._fragments:
            file = self.files[index]
            guarantee = None
            for name, value in file.partition.items():
                typed = partition_scalar(value, self.manifest.partition_types[name])
                same = pc.field(name) == typed if typed.is_valid else pc.field(name).is_null()
                guarantee = same if guarantee is None else guarantee & same
            self._fragments[index] = pads.ParquetFileFormat().make_fragment(
                self.path(file), filesystem=filesystem, partition_expression=guarantee
            )
        return self._fragments[index]

    def _current_filesystem(self) -> pafs.FileSystem:
        """The filesystem, made anew in another process: connections do not survive a fork."""
        if self._pid != os.getpid():
            self._filesystem = pickle.loads(pickle.dumps(self._filesystem))  # noqa: S301
            self._fragments, self._pid = {}, os.getpid()
        return self._filesystem

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_fragments": {}}


def _statistics_bounds(statistics: pq.Statistics | None, kind: pa.DataType) -> ColumnBounds:
    """What a column chunk spans; without statistics, the most that its type may."""
    largest = 0 if pa.types.is_boolean(kind) else 2 ** (kind.bit_width - pa.types.is_signed_integer(kind))
    if statistics is None:
        return ColumnBounds(True, largest)
    has_nulls = not statistics.has_null_count or statistics.null_count > 0
    if not statistics.has_min_max:
        return ColumnBounds(has_nulls, 0 if statistics.num_values == 0 else largest)
    return ColumnBounds(has_nulls, max(_magnitude(statistics.min), _magnitude(statistics.max)))


def _magnitude(value: Any) -> int:
    return abs(int(value)) if isinstance(value, int) else 0


def _to_expression(given: Filter) -> pc.Expression:
    return given if isinstance(given, pc.Expression) else pq.filters_to_expression(list(given))


def open_location(location: str | Path, filesystem: Any) -> tuple[pafs.FileSystem, str]:
    """A filesystem and a path on it."""
    text = str(location)
    if filesystem is None and "://" in text:
        opened, path = pafs.FileSystem.from_uri(text)
        return opened, path.rstrip("/")
    if filesystem is None:
        return pafs.LocalFileSystem(), str(Path(text).absolute())
    if not isinstance(filesystem, pafs.FileSystem):
        filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))
    return filesystem, text.split("://", 1)[-1].rstrip("/")


_NO_MANIFEST = (
    "not there: nothing has been committed (or promoted) yet, or `barycenter gc` deleted the version; "
    "`barycenter inspect --versions` lists those there are"
)


def find_manifest(filesystem: pafs.FileSystem, path: str, version: int | str | None) -> tuple[str, Manifest]:
    """The output folder and a version's manifest, from the folder or from one of its manifest files.

    Raises:
        RunError: If nothing is committed there, or not this version.
    """
    if path.endswith(".json"):
        folder = PurePosixPath(path).parent
        return str(folder.parent if folder.name == "manifests" else folder), _read(filesystem, path)
    if version is None:
        return path, _read(filesystem, f"{path}/manifest.json")
    if isinstance(version, int):
        return path, _read(filesystem, f"{path}/manifests/{version}.json")
    listed = filesystem.get_file_info(pafs.FileSelector(f"{path}/manifests", allow_not_found=True))
    for info in sorted(listed, key=lambda info: (len(info.path), info.path), reverse=True):  # 10 is newer than 9
        if info.path.endswith(".json") and info.size and (manifest := _read(filesystem, info.path)).version == version:
            return path, manifest
    raise RunError(f"{path}: no version {version}; `barycenter inspect` lists those there are")


def _read(filesystem: pafs.FileSystem, path: str) -> Manifest:
    try:
        with filesystem.open_input_stream(path) as stream:
            content = stream.read()
    except FileNotFoundError as error:
        raise RunError(f"{path}: {_NO_MANIFEST}") from error
    if not content:
        raise RunError(f"{path}: {_NO_MANIFEST}")
    try:
        return Manifest.from_json(content)
    except RunError as error:
        raise RunError(f"{path}: {error}") from error
