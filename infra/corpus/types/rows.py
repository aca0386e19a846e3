"""Builds an Arrow table, with keys as text, from parsed records."""

from collections.abc import Sequence

import pyarrow as pa

from barycenter.infra.corpus.base import KEYS, ParsedRecord, Problems, Types
from barycenter.infra.corpus.types.keys import json_keys
from barycenter.infra.corpus.types.values import null_as_string, to_arrow


def records_to_table(rows: Sequence[ParsedRecord], columns: Types, key: str | None) -> tuple[pa.Table, Problems]:
    """Converts records to a table of ``columns``, with ``KEYS`` (the key as text) where a key column is given."""
    problems = Problems([problem for _, problem in rows])
    arrays: dict[str, pa.Array] = {}
    for name, kind in columns.items():
        arrays[name], wrong = to_arrow([row.get(name) for row, _ in rows], null_as_string(kind))
        problems.add_misfits(name, wrong)
    if key is not None:
        arrays[KEYS], wrong = json_keys([row.get(key) for row, _ in rows])
        problems.add_misfits(key, wrong)
    return pa.table(arrays), problems
