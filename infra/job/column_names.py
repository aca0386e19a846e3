"""Column names that a corpus may not have, because the output, its readers or tables while reading use them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_RESERVED_WHILE_READING = {"__bad__", "__keys__", "__misfits__"}
_RESERVED_BY_ARROW = {"__fragment_index", "__batch_index", "__last_in_fragment", "__filename"}
_RESERVED_BY_BATCHES = {"key", "has", "aligned"}

Problem = tuple[str, str]
"""A job key and its problem."""


def with_named_columns_kept(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a job's values with every column that ``train`` and ``output.partition_by`` name in ``corpus.keep``.

    Values of other types are left for the validation to refuse.

    >>> with_named_columns_kept({"corpus": {"keep": ["a"]}, "train": {"target": "b", "split": "a"}})["corpus"]
    {'keep': ['a', 'b']}
    """
    corpus = values.get("corpus")
    keep = corpus.get("keep", []) if isinstance(corpus, Mapping) else None
    if not isinstance(corpus, Mapping) or not isinstance(keep, list | tuple):
        return values
    train, output = values.get("train"), values.get("output")
    named = [train.get(key) for key in ("target", "split", "group_by")] if isinstance(train, Mapping) else []
    folders = output.get("partition_by") if isinstance(output, Mapping) else None
    named += folders if isinstance(folders, list | tuple) else []
    further = [name for name in named if isinstance(name, str) and name not in keep and name != corpus.get("key")]
    return {**values, "corpus": {**corpus, "keep": [*keep, *dict.fromkeys(further)]}} if further else values


def column_name_problems(
    key: str | None, keep: Sequence[str], inputs: Iterable[str], read: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    """Yields the problems of column names.

    Args:
        key: The key column, or None.
        keep: Columns that the features keep.
        inputs: Names of the inputs, from which the output makes columns of its own.
        read: Every column that is read, by the job key that names it.
    """
    taken = {"fused", *({"key"} if key is None else ())}
    taken |= {f"{prefix}_{name}".lower() for name in inputs for prefix in ("has", "aligned", "count")}
    for column in [*keep, *filter(None, [key])]:
        where = next((job_key for job_key, columns in read.items() if column in columns), "corpus.keep")
        if column.lower() in taken:
            yield where, f"{column!r} is a column of the output; rename it in the corpus"
        elif column in _RESERVED_BY_ARROW or (column != key and column in _RESERVED_BY_BATCHES):
            yield where, f"{column!r} is reserved by readers of the output; rename it in the corpus"
    for where, columns in read.items():
        for column in sorted(_RESERVED_WHILE_READING.intersection(columns)):
            yield where, f"{column!r} is reserved while rows are read; rename it in the corpus"
    for column in keep:
        if "\0" in column:
            yield (
                "corpus.keep",
                f"{column!r} holds a NUL character, which cuts names off in readers; rename it in the corpus",
            )
    yield from _case_conflicts([*filter(None, [key]), *keep])


def _case_conflicts(columns: Iterable[str]) -> Iterator[Problem]:
    """Yields problems of columns whose names differ only by case, one of which DuckDB renames."""
    seen: dict[str, str] = {}
    for column in columns:
        first = seen.setdefault(column.lower(), column)
        if first != column:
            yield (
                "corpus.keep",
                f"{first!r} and {column!r} differ only by case, and DuckDB renames one; rename it in the corpus",
            )
