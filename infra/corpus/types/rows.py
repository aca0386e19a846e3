"""Parsed records to a table: columns of settled types, keys as text, and what could not be read."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from barycenter.infra.corpus.base import KEYS, Parsed, Problems
from barycenter.infra.corpus.types.keys import json_keys
from barycenter.infra.corpus.types.values import column_of, settled


def table_of(rows: Sequence[Parsed], columns: Mapping[str, pa.DataType], key: str | None) -> tuple[pa.Table, Problems]:
    """The columns, the key as text in ``KEYS`` where there is one, and the problems of rows and values."""
    problems = Problems([problem for _, problem in rows])
    arrays: dict[str, pa.Array] = {}
    for name, kind in columns.items():
        arrays[name], wrong = column_of([row.get(name) for row, _ in rows], settled(kind))
        problems.add(name, wrong)
    if key is not None:
        arrays[KEYS], wrong = json_keys([row.get(key) for row, _ in rows])
        problems.add(key, wrong)
    return pa.table(arrays), problems
