"""Names that columns of a corpus may not have, because the output, its readers or a table on its way have them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

_OF_A_TABLE = {"__bad__", "__keys__", "__misfits__"}
_OF_ARROW = {"__fragment_index", "__batch_index", "__last_in_fragment", "__filename"}
_OF_A_BATCH = {"key", "has", "aligned"}

Problem = tuple[str, str]
"""A key in the job file, and what is wrong."""


def name_problems(
    key: str | None, keep: Sequence[str], inputs: Iterable[str], read: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    """What is wrong with the names of columns.

    Args:
        key: The key column, or None.
        keep: The kept columns.
        inputs: Names of the inputs.
        read: Every column that is read, by the key in the job file that names it.
    """
    taken = {"fused", *({"key"} if key is None else ())}
    taken |= {f"{prefix}_{name}".lower() for name in inputs for prefix in ("has", "aligned", "count")}
    for column in [*keep, *filter(None, [key])]:
        where = "corpus.key" if column == key else "corpus.keep"
        if column.lower() in taken:
            yield where, f"{column!r} is a column that the output itself has; rename it in the corpus"
        elif column in _OF_ARROW or (column != key and column in _OF_A_BATCH):
            yield where, f"{column!r} is a name that readers of the output have for their own; rename it in the corpus"
    for where, columns in read.items():
        for column in sorted(_OF_A_TABLE.intersection(columns)):
            yield where, f"{column!r} is a name that rows have for their own while they are read; rename it"
    for column in keep:
        if "\0" in column:
            yield "corpus.keep", f"{column!r} holds a NUL, which ends names in readers; rename it in the corpus"
    yield from _twins([*filter(None, [key]), *keep])


def _twins(columns: Iterable[str]) -> Iterator[Problem]:
    """Columns whose names differ by case alone; DuckDB renames one of them."""
    seen: dict[str, str] = {}
    for column in columns:
        first = seen.setdefault(column.lower(), column)
        if first != column:
            yield "corpus.keep", f"{first!r} and {column!r} differ by case alone, and DuckDB renames one; rename it"
