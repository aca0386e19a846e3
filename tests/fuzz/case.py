"""A fuzzed corpus: its files, which column is what, and what every row holds."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa


@dataclass
class Column:
    """The values of a column, one a row.

    Attributes:
        kind: Name of its kind.
        values: As its files hold them, for an oracle to compare with.
        arrays: For Parquet, its array in each file.
        may_not_fit: Rows whose value may be a reject of the reason ``wrong_type``.
    """

    kind: str
    values: list[Any]
    arrays: list[pa.Array] = field(default_factory=list)
    may_not_fit: set[int] = field(default_factory=set)

    @property
    def type(self) -> pa.DataType | None:
        """Arrow's type in the first file, if it has one."""
        return self.arrays[0].type if self.arrays else None


@dataclass
class Case:
    """A corpus.

    Attributes:
        family: ``parquet``, ``files`` (Parquet files whose types differ), ``json`` or ``csv``.
        form: Ending of its files.
        cuts: Rows of each file.
        columns: Every column by name.
        kept: The columns that are kept.
        inputs: Columns that are inputs: ``vec``, ``other``, ``txt``.
        key: The key column, or None.
        partition: Columns that files are partitioned by.
        target: The target, or None.
        broken: Rows of text files that cannot be read.
        sample: Rows that the types of JSON Lines come from.
        turn: Says which of the slower readers read it.
    """

    family: str
    form: str
    cuts: list[int]
    columns: dict[str, Column]
    kept: list[str]
    inputs: list[str]
    key: str | None
    partition: list[str]
    target: str | None
    broken: set[int] = field(default_factory=set)
    sample: int = 10_000
    turn: int = 0

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(self.cuts)

    def row_of(self, source: str) -> int:
        """The row that a reject's ``file#row`` names."""
        name, _, row = source.rpartition("#")
        return sum(self.cuts[: int(name.partition("-")[0])]) + int(row)

    def value(self, name: str, row: int) -> Any:
        """What a row holds; None where none of it can be read."""
        return None if row in self.broken else self.columns[name].values[row]
