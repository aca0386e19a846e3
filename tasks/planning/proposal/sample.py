"""A bounded look at a corpus: its columns, and what evenly spaced rows of it hold."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from barycenter.fusion.errors import JobError
from barycenter.fusion.heads.targets import is_empty
from barycenter.infra.corpus import BAD, Corpus, Shard, open_sample
from barycenter.infra.job.models import CorpusJob, LimitsJob
from barycenter.infra.words import counted
from barycenter.tasks.data.rows import evenly_spaced

_SHARD_ROWS = 64
_SHARDS, _SHARDS_OF_SMALL = 8, 64
_PICTURE_SHARDS, _PICTURE_ROWS = 4, 8
_KEY_ROWS = 200_000


@dataclass(frozen=True)
class Column:
    """A column as the rows that were read show it.

    Attributes:
        name: Its name.
        kind: Its type.
        values: Those that are there: neither null nor blank text nor NaN.
        folders: The folder of each value's table, relative to the corpus root.
        rows: Rows that were read for it.
    """

    name: str
    kind: pa.DataType
    values: list[Any]
    folders: list[str]
    rows: int

    @cached_property
    def distinct(self) -> int:
        """How many different values there are."""
        return len({repr(value) for value in self.values})

    @property
    def is_complete(self) -> bool:
        """Whether every row has a value."""
        return len(self.values) == self.rows

    @property
    def is_text(self) -> bool:
        """Whether the values are single texts."""
        return bool(pa.types.is_string(self.kind))

    @property
    def holds_bytes(self) -> bool:
        """Whether the values are bytes, or hold some."""
        return holds_bytes(self.kind)

    @cached_property
    def flat(self) -> list[tuple[Any, str]]:
        """Each value with its folder, lists one by one."""
        pairs = zip(self.values, self.folders, strict=True)
        return [(leaf, folder) for value, folder in pairs for leaf in _leaves(value)]


@dataclass(frozen=True)
class Sample:
    """What was seen of a corpus.

    Attributes:
        corpus: The corpus, or of a large one the part that was opened.
        limits: Under which it was opened.
        whole: Whether that is all of it.
        read: Rows that were read.
        columns: The columns by name.
        unusable: Why the other columns cannot be read.
    """

    corpus: Corpus
    limits: LimitsJob
    whole: bool
    read: int
    columns: dict[str, Column]
    unusable: list[str]

    @property
    def rows(self) -> int:
        """Rows of what was opened."""
        return sum(source.rows for source in self.corpus.sources)

    def described(self) -> str:
        """What was looked at, for a comment."""
        files = self.corpus.listing["files"]["taken"]
        opened = f"{files:,} file{'s' if files > 1 else ''}"
        if self.whole:
            return f"{opened}, {counted(self.rows, 'row')}" + (
                f", {self.read:,} of them read" if self.read < self.rows else ""
            )
        sources = len(self.corpus.sources)
        return f"{opened}, {counted(self.read, 'row')} of {f'{sources:,} of them' if files > 1 else 'it'} read"

    def is_unique(self, name: str) -> tuple[bool, str]:
        """Whether a column could be the key as far as was seen, and why.

        Of a small corpus all rows are read; a value that is missing or occurs twice means no.
        """
        column = self.columns[name]
        if len(column.values) < column.rows:
            return False, f"empty in {column.rows - len(column.values):,} of {column.rows:,} rows read"
        if column.distinct < column.rows:
            return False, f"values repeat: {column.distinct:,} different ones in {column.rows:,} rows read"
        if not self.whole or self.rows > _KEY_ROWS:
            return True, f"no value is empty or repeats in {counted(column.rows, 'row')} read"
        seen: set[str] = set()
        for shard in self.corpus.shards(_SHARD_ROWS):
            for value in self.corpus.read(shard, [name]).column(name).to_pylist():
                if is_empty(value):
                    return False, "empty in some rows"
                if repr(value) in seen:
                    return False, f"values repeat, such as {value!r:.40}"
                seen.add(repr(value))
        return True, f"no value is empty or repeats in {counted(self.rows, 'row')}"


def read_sample(job: CorpusJob, limits: LimitsJob, storage_options: dict[str, Any]) -> Sample:
    """Opens a corpus, of a large one a part, and reads rows from all over it.

    Raises:
        JobError: As :func:`barycenter.infra.corpus.open_sample`.
    """
    corpus, whole = open_sample(job.model_copy(update={"rows_per_shard": _SHARD_ROWS}), limits, storage_options)
    shards = corpus.shards(_SHARD_ROWS)
    usable, problems = [], []
    for name in corpus.columns:
        try:
            corpus.check_columns({"": name})
            usable.append(name)
        except JobError as error:
            problems.append(error.problem)
    light = [name for name in usable if not holds_bytes(corpus.columns[name])]
    heavy = [name for name in usable if name not in light]
    spread = evenly_spaced(shards, _SHARDS_OF_SMALL if whole else _SHARDS)
    columns = _read(corpus, spread, light) | (_read(corpus, list(_heads(shards)), heavy) if heavy else {})
    read = max((column.rows for column in columns.values()), default=0)
    return Sample(corpus, limits, whole, read, {name: columns[name] for name in usable}, problems)


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of a type are bytes, or lists or structs with bytes in them.

    >>> holds_bytes(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    True
    """
    if pa.types.is_nested(kind) and not pa.types.is_map(kind):
        return any(holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_binary(kind))


def _heads(shards: list[Shard]) -> Iterator[Shard]:
    """The first rows of some sources: in a Parquet file later ones would mean to read all pictures before them."""
    firsts = [shard for shard in shards if shard.start == 0]
    for shard in evenly_spaced(firsts, _PICTURE_SHARDS):
        yield replace(shard, stop=min(shard.stop, _PICTURE_ROWS))


def _read(corpus: Corpus, shards: list[Shard], names: list[str]) -> dict[str, Column]:
    values: dict[str, list[Any]] = {name: [] for name in names}
    folders: dict[str, list[str]] = {name: [] for name in names}
    rows = 0
    for shard in shards:
        table = corpus.read(shard, names)
        table = table.filter(table.column(BAD).is_null())
        rows += table.num_rows
        for name in names:
            there = [value for value in table.column(name).to_pylist() if not is_empty(value)]
            values[name] += there
            folders[name] += [shard.folder] * len(there)
    return {name: Column(name, corpus.columns[name], values[name], folders[name], rows) for name in names}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    elif not is_empty(value):
        yield value
