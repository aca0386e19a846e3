"""Sources, shards, problems of rows, and the interface that every corpus format implements."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.listing import Entry, Listing

KEYS = "__keys__"
"""Name of the column of keys as text; null where a row has none."""

BAD = "__bad__"
"""Name of the column with the reason why a row could not be read; null where it could."""

MISFITS = "__misfits__"
"""Name of the column of a row's misfits as JSON ``{column: problem}``; null where every value of the row fits."""


Types = Mapping[str, pa.DataType]
"""The type of each column by its name."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the corpus (for a folder of pictures: one folder).

    Attributes:
        uri: Absolute local path or URI.
        relative: Path relative to the corpus root, ``/``-separated; folders end in ``/``.
        size: Bytes.
        stamp: Modification time in nanoseconds, or the object store's etag.
        rows: Number of rows.
    """

    uri: str
    relative: str
    size: int
    stamp: str
    rows: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive rows of one source: the unit of work and of commit.

    Attributes:
        id: Hash of the source's relative path, size and stamp and of the row range.
        index: Position among all shards of the corpus.
        source: Relative path of the source.
        uri: Absolute local path or URI of the source.
        start: First row in the source.
        stop: Row after the last.
        offset: Byte where the first row begins (uncompressed), for formats read by bytes; else 0.
        length: Bytes up to the end of the last row, 0 where the rows lie scattered; for a folder of pictures, the rows
            planned; else 0.
        size: Size of the source when the shard was planned.
        stamp: Stamp of the source when the shard was planned.
    """

    id: str
    index: int
    source: str
    uri: str
    start: int
    stop: int
    offset: int = 0
    length: int = 0
    size: int = 0
    stamp: str = ""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    @property
    def folder(self) -> str:
        """Folder of the source relative to the corpus root; picture paths are read from it. Empty for the root."""
        return self.source.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class SourceIndex:
    """Result of reading a source once: its rows, its column types and where its shards begin.

    Attributes:
        rows: Number of rows.
        types: Column types seen.
        shard_offsets: Byte offsets of each shard's first row and, last, of the end; None where rows have numbers.
        shard_stamps: For sources of many files, one (size, stamp) a shard in place of the source's.
        passed_over: How many members of a tar are part of no row: links, and names without a key or an extension.
    """

    rows: int
    types: Types
    shard_offsets: NDArray[np.int64] | None = None
    shard_stamps: Sequence[tuple[int, str]] | None = None
    passed_over: int = 0


ParsedRecord = tuple[dict[str, Any], str | None]
"""The values of one record, and why it could not be read (None where it could)."""


@dataclass(slots=True)
class Problems:
    """Unreadable rows and misfits of one table.

    Attributes:
        unreadable: For each row why it could not be read, or None.
        misfits: ``{row: {column: problem}}``; such a value is null, the rest of the row counts.
    """

    unreadable: list[str | None]
    misfits: dict[int, dict[str, str]] = field(default_factory=dict)

    def add_misfits(self, column: str, problems: Mapping[int, str]) -> None:
        """Adds the misfits of one column, by row; those of unreadable rows are left out."""
        for row, problem in problems.items():
            if self.unreadable[row] is None:
                self.misfits.setdefault(row, {})[column] = problem

    def misfit_column(self) -> pa.Array:
        """Returns the column ``MISFITS``."""
        rows = range(len(self.unreadable))
        lines = [json.dumps(self.misfits[row]) if row in self.misfits else None for row in rows]
        return pa.array(lines, pa.string())


def misfits_by_row(table: pa.Table) -> dict[int, dict[str, str]]:
    """Parses the column ``MISFITS`` of a table that ``Corpus.read`` returned, to ``{row: {column: problem}}``."""
    column = table.column(MISFITS)
    if column.null_count == table.num_rows:
        return {}
    return {row: json.loads(line) for row, line in enumerate(column.to_pylist()) if line is not None}


class UnreadableError(Exception):
    """A source is damaged or not of its format; the message continues the file's name."""


class Format(ABC):
    """Interface of a file format: counts and reads the rows of its files. Instances are small and picklable."""

    default_key: str | None = None
    """Key column where the job names none."""

    declares_types = False
    """Whether files declare column types, so that types with no common one are an error rather than text."""

    most_rows: int | None = None
    """Where a format has to read a file to count its rows, so many are enough; the others are then not there."""

    def find_sources(self, listing: Listing) -> list[Entry]:
        """Returns the sources among the listed files."""
        return list(listing.entries)

    @abstractmethod
    def index_source(self, files: Files, entry: Entry, rows_per_shard: int, sample_rows: int) -> SourceIndex:
        """Counts a source's rows, infers column types from its first ``sample_rows`` and finds where shards begin.

        Raises:
            UnreadableError: The file is damaged or not of this format.
        """

    def size_and_stamp(self, files: Files, shard: Shard) -> tuple[int, str]:
        """Returns the present size and stamp of the shard's source."""
        return files.stat(shard.uri)

    def has_raw_rows(self, shard: Shard) -> bool:
        """Whether some bytes alone decide what a shard's rows are."""
        del shard
        return False

    def raw_rows(self, files: Files, shard: Shard) -> bytes:
        """Returns those bytes."""
        raise NotImplementedError(f"{type(self).__name__} has no raw rows")

    def parse(self, raw: bytes, shard: Shard, columns: Types, key: str | None = None) -> tuple[pa.Table, Problems]:
        """Does what ``read`` does, with the bytes that ``raw_rows`` returned."""
        raise NotImplementedError(f"{type(self).__name__} has no raw rows")

    @abstractmethod
    def read(self, files: Files, shard: Shard, columns: Types, key: str | None = None) -> tuple[pa.Table, Problems]:
        """Reads columns of the rows of a shard; those that the source lacks may be missing from the result.

        The values of the column ``key`` are returned as text in the additional column ``KEYS``.

        Returns:
            The table in row order, and its problems. May hold fewer rows than the shard if the source has shrunk.
        """
