"""Hive partitioning: columns whose values are in folder names, ``column=value``."""

from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from barycenter.infra.corpus.base import Problems

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_values(relative: str) -> dict[str, str | None]:
    """Returns the values of a file's partition columns, from the names of its folders.

    >>> partition_values("year=2020/kind=__HIVE_DEFAULT_PARTITION__/part-0.parquet")
    {'year': '2020', 'kind': None}
    """
    parts = (part.partition("=") for part in relative.split("/")[:-1])
    return {
        unquote(name): None if value == _NULL else unquote(value) for name, equals, value in parts if equals and name
    }


def fill_from_partition(column: pa.ChunkedArray, text: str | None, name: str, problems: Problems) -> pa.ChunkedArray:
    """Replaces the nulls of a column that are neither misfits nor of unreadable rows with the file's partition value.

    The partition value is ``text``; None leaves the column as it is. One that does not fit the column's type is added
    to the problems.
    """
    if text is None or not column.null_count:
        return column
    empty = {row for row, missing in enumerate(column.is_null().to_pylist()) if missing}
    empty -= {row for row, wrong in problems.misfits.items() if name in wrong}
    empty -= {row for row, problem in enumerate(problems.unreadable) if problem is not None}
    try:
        value = pa.scalar(text, pa.string()).cast(column.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        problems.add_misfits(
            name, dict.fromkeys(sorted(empty), f"the value {text[:40]!r} in the folder name does not fit {column.type}")
        )
        return column
    chosen = pa.array([row in empty for row in range(len(column))], pa.bool_())
    whole: pa.ChunkedArray = pc.if_else(chosen, value, column)
    return whole
