"""Columns that folders named ``column=value`` add, as Hive and Spark lay tables out."""

from collections.abc import Iterator
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from barycenter.infra.corpus.base import Problems

_NULL = "__HIVE_DEFAULT_PARTITION__"


def folder_values(relative: str) -> dict[str, str | None]:
    """Values in the folder names of a file, by column.

    >>> folder_values("year=2020/kind=__HIVE_DEFAULT_PARTITION__/part-0.parquet")
    {'year': '2020', 'kind': None}
    """
    return dict(_parts(relative)) if "=" in relative else {}


def _parts(relative: str) -> Iterator[tuple[str, str | None]]:
    for part in relative.split("/")[:-1]:
        name, equals, value = part.partition("=")
        if equals and name:
            yield unquote(name), None if value == _NULL else unquote(value)


def filled(column: pa.ChunkedArray, text: str | None, name: str, problems: Problems) -> pa.ChunkedArray:
    """A column with the value of the file's folder in every row that has none of its own.

    Args:
        column: The file's own values, or nulls where it has no such column.
        text: The value as the folder spells it.
        name: The column.
        problems: What is wrong with the rows; a folder that does not fit the column's type is added to it.
    """
    if text is None or not column.null_count:
        return column
    empty = {row for row, missing in enumerate(column.is_null().to_pylist()) if missing}
    empty -= {row for row, wrong in problems.values.items() if name in wrong}
    empty -= {row for row, problem in enumerate(problems.rows) if problem is not None}
    try:
        value = pa.scalar(text, pa.string()).cast(column.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        problems.add(name, dict.fromkeys(sorted(empty), f"the folder's {text[:40]!r} does not fit {column.type}"))
        return column
    chosen = pa.array([row in empty for row in range(len(column))], pa.bool_())
    whole: pa.ChunkedArray = pc.if_else(chosen, value, column)
    return whole
