"""One table of the report as plain strings."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    """One table as plain strings.

    Attributes:
        title: What it shows.
        header: Column names; the first column is words, the others are numbers unless in ``words``.
        rows: Cells.
        words: Further columns that hold words.
        strong: Cells (row, column) to stand out.
        meaning: What the figures mean, in a line.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: frozenset[int] = frozenset({0})
    strong: frozenset[tuple[int, int]] = frozenset()
    meaning: str = ""
