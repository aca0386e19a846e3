"""Values as readers give them against those of the corpus."""

import datetime as dt
import math
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tests.fuzz.case import Case
from tests.fuzz.loose import matches


def same(
    case: Case,
    name: str,
    values: Sequence[Any],
    keys: Sequence[str],
    expected: Any,
    *,
    missing: bool = False,
    folder: bool = False,
) -> None:
    """Compares a column that was read with the corpus's.

    Args:
        case: The case.
        name: The column.
        values: As read.
        keys: Of the rows read.
        expected: Rows and misfits, as ``tests.fuzz.oracle`` has them.
        missing: Null and NaN are the same to the reader, and numbers with nulls are floats.
        folder: The values are those of folder names.
    """
    assert sorted(keys) == sorted(expected.rows), (name, keys, expected.rows)
    for key, value in zip(keys, values, strict=True):
        row = expected.rows[key]
        want = None if (row, name) in expected.misfits else case.value(name, row)
        want = want or "" if case.family == "csv" else want
        fine = _fits(case, name, want, value, missing, folder)
        assert fine, (name, case.columns[name].kind, key, row, value, want)


def _fits(case: Case, name: str, want: Any, value: Any, missing: bool, folder: bool) -> bool:
    if folder and case.family == "json" and isinstance(want, dict | list):
        return matches(want, value, missing)
    if folder and not isinstance(want, str):
        return folder_value(value) == folder_value(want)
    if folder and isinstance(value, int | np.integer):
        return str(value) == want
    if case.family == "csv":
        return bool(value == want)
    if missing and isinstance(want, bool) and isinstance(value, float):
        return value == float(want)
    if missing and isinstance(want, int) and isinstance(value, float) and not isinstance(want, bool):
        return float(want) == value
    if case.family == "json":
        return matches(want, value, missing)
    if case.family == "files" and _widened(want, value):
        return True
    return bool(canonical(value, missing) == canonical(want, missing))


def _widened(want: Any, value: Any) -> bool:
    """The same value in the type that two files share."""
    if isinstance(want, dt.date) and isinstance(value, dt.datetime):
        return value == dt.datetime(want.year, want.month, want.day)
    if isinstance(want, dict) and isinstance(value, dict):
        return all(canonical(part) == canonical(want.get(name)) for name, part in value.items())
    if isinstance(want, Decimal) and isinstance(value, float):
        return Decimal(repr(value)) == want
    numbers = (int, float, Decimal)
    if isinstance(want, numbers) and isinstance(value, numbers) and not isinstance(value, bool):
        return bool(want == value)
    return False


def folder_value(value: Any) -> str | None:
    """The value of a folder's name, whatever type a reader takes it for."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if str(value).lower() in ("nan", "true", "false"):
        return None if str(value).lower() == "nan" else str(value).lower()
    try:
        return str(float(value) + 0.0)  # one folder for both zeros
    except (TypeError, ValueError, OverflowError):
        return str(value)


def canonical(value: Any, missing: bool = False) -> Any:
    """A value that can be compared and hashed: NaN equals itself, times are numbers, sequences tuples."""
    if value is None or value is pd.NaT:
        return None
    if isinstance(value, bool | np.bool_):
        return ("bool", bool(value))
    if isinstance(value, float | np.floating):
        return (None if missing else "nan") if math.isnan(value) else float(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, Decimal):
        return value.normalize() if value else Decimal(0)
    if isinstance(value, pd.Timestamp | dt.datetime):
        stamp = pd.Timestamp(value)
        return stamp.tz_convert("UTC").tz_localize(None).isoformat() if stamp.tz else stamp.isoformat()
    if isinstance(value, pd.Timedelta | dt.timedelta):
        return ("duration", pd.Timedelta(value).isoformat())
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, dict):
        return tuple(sorted((name, _inner(part, missing)) for name, part in value.items()))
    if isinstance(value, list | tuple | np.ndarray):
        parts = [_inner(part, missing) for part in value]
        return None if missing and parts and all(part is None for part in parts) else tuple(parts)
    return value


def _inner(value: Any, missing: bool) -> Any:
    """A part of a nested value, in which pandas takes whole numbers beside nulls for floats."""
    number = missing and isinstance(value, int | np.integer) and not isinstance(value, bool)
    return float(value) if number else canonical(value, missing)


def pairs_of_maps(column: pa.ChunkedArray, kind: pa.DataType | None) -> list[Any]:
    """A column's values; a map that came as a list of key and value is one of pairs again."""
    values = column.to_pylist()
    if kind is None or not pa.types.is_map(kind) or pa.types.is_map(column.type):
        return values
    return [None if value is None else [(part["key"], part["value"]) for part in value] for value in values]
