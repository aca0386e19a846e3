"""What every corpus format shares: listed files, sources, shards, and the interface of a format."""

import hashlib
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
"""Name of the column that says why a row could not be read; null where it could."""

MISFITS = "__misfits__"
"""Name of the column of values that do not fit: JSON ``{column: problem}``; null where every value of the row fits."""


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
class Peek:
    """What one look at a source shows.

    Attributes:
        rows: Number of rows.
        types: Column types seen.
        marks: Byte offsets of every ``stride``-th row and, last, of the end; None for formats with row addresses.
        stamps: For sources of many files, one (size, stamp) a shard in place of the source's.
        passed_over: How many members of a tar are part of no row: links, and names without a key or an ending.
    """

    rows: int
    types: Mapping[str, pa.DataType]
    marks: NDArray[np.int64] | None = None
    stamps: Sequence[tuple[int, str]] | None = None
    passed_over: int = 0


Parsed = tuple[dict[str, Any], str | None]
"""The values of one record, and why it could not be read."""


@dataclass(slots=True)
class Problems:
    """What could not be read of some rows.

    Attributes:
        rows: For each row why none of it could be read, or None.
        values: {row: {column: why its value does not fit}}; such a value is null, the rest of the row counts.
    """

    rows: list[str | None]
    values: dict[int, dict[str, str]] = field(default_factory=dict)

    def add(self, column: str, wrong: Mapping[int, str]) -> None:
        """Records the values of one column that do not fit, by row; those of unreadable rows need no record."""
        for row, problem in wrong.items():
            if self.rows[row] is None:
                self.values.setdefault(row, {})[column] = problem

    def misfits(self) -> pa.Array:
        """The column ``MISFITS``."""
        if not self.values:
            return pa.nulls(len(self.rows), pa.string())
        lines = [json.dumps(self.values[row]) if row in self.values else None for row in range(len(self.rows))]
        return pa.array(lines, pa.string())


def misfits_of(table: pa.Table) -> dict[int, dict[str, str]]:
    """``{row: {column: why its value does not fit}}`` of a table that ``Corpus.read`` returned."""
    column = table.column(MISFITS)
    if column.null_count == table.num_rows:
        return {}
    return {row: json.loads(line) for row, line in enumerate(column.to_pylist()) if line is not None}


class UnreadableError(Exception):
    """A source that is not what its name says; the message goes after the file's name."""


class Format(ABC):
    """How the rows of one family of files are counted and read. Instances are plain, small and picklable."""

    default_key: str | None = None
    """Column that names a row uniquely without the user's saying so."""

    strict = False
    """Whether the files declare their types, so that two that disagree are an error and not text."""

    def entries(self, listing: Listing) -> list[Entry]:
        """The sources among the listed files."""
        return list(listing.entries)

    @abstractmethod
    def peek(self, files: Files, entry: Entry, stride: int, sample: int) -> Peek:
        """Counts the rows of a source and looks at the first ``sample`` of them.

        Args:
            files: Access to the files.
            entry: The source.
            stride: Rows in a shard.
            sample: Rows to take the types from.

        Raises:
            UnreadableError: The file is damaged or no such format.
        """

    def state(self, files: Files, shard: Shard) -> tuple[int, str]:
        """Size and stamp of the shard's source now."""
        return files.stat(shard.uri)

    @abstractmethod
    def read(
        self, files: Files, shard: Shard, columns: Mapping[str, pa.DataType], key: str | None = None
    ) -> tuple[pa.Table, Problems]:
        """Reads rows of a source.

        Args:
            files: Access to the files.
            shard: Which rows.
            columns: Wanted columns with the type each must come in; those that the source lacks may be left out.
            key: Column whose values name the rows; they come as text in the further column ``KEYS``.

        Returns:
            The table in row order, and what could not be read of it. May hold fewer rows than the shard if the source
            has shrunk.
        """


def shard_id(relative: str, size: int, stamp: str, start: int, stop: int) -> str:
    """Names a shard by content: 24 hexadecimal digits, the same wherever the corpus folder lies."""
    text = f"{relative}\0{size}\0{stamp}\0{start}\0{stop}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
