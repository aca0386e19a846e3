"""Loosely typed values to Arrow columns of one fixed type; what does not fit is told row by row."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_INT64 = 2**63


def type_of(value: object) -> pa.DataType:
    """The Arrow type of one JSON value; objects, and whole numbers beyond 64 bits, are text.

    >>> type_of([1, 2.5]), type_of({"a": 1})
    (ListType(list<item: double>), DataType(string))
    """
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -_INT64 <= value < _INT64 else pa.string()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, bytes):
        return pa.binary()
    if isinstance(value, list):
        item = pa.null()
        for part in value:
            item = joined(item, type_of(part))
        deep = pa.types.is_list(item) and pa.types.is_nested(item.value_type)
        return pa.list_(item) if not deep else pa.string()
    return pa.string()


def joined(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type that holds values of both: whole numbers become real ones, everything else mixed becomes text."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    numbers = (pa.int64(), pa.float64())
    if a in numbers and b in numbers:
        return pa.float64()
    if pa.types.is_list(a) and pa.types.is_list(b):
        return pa.list_(joined(a.value_type, b.value_type))
    return pa.string()


def settled(kind: pa.DataType) -> pa.DataType:
    """A type for a column of which only nulls or empty lists were seen: text."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(settled(kind.value_type))
    return kind


def types_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.DataType]:
    """Column types over some rows, columns in the order of their first appearance; all-null columns stay null."""
    types: dict[str, pa.DataType] = {}
    for row in rows:
        for name, value in row.items():
            known = types.get(name)
            if known is None or known != pa.string():
                types[name] = type_of(value) if known is None else joined(known, type_of(value))
    return types


def text_of(value: object) -> str | None:
    """A JSON value as text: strings as they are, everything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def column_of(values: Sequence[object], kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """Values as one Arrow array.

    Args:
        values: One value a row; None is null.
        kind: The column's type.

    Returns:
        The array, null where a value does not fit, and what is wrong by row number.
    """
    if kind == pa.string():
        values = [text_of(value) for value in values]
    if pa.types.is_floating(kind):
        values = [float(value) if type(value) is int else value for value in values]
    try:
        if all(_fits(value, kind) for value in values):
            return pa.array(values, type=kind), {}
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    kept: list[object] = []
    wrong: dict[int, str] = {}
    for row, value in enumerate(values):
        problem = _misfit(value, kind)
        kept.append(value if problem is None else None)
        if problem is not None:
            wrong[row] = problem
    return pa.array(kept, type=kind), wrong


def _fits(value: object, kind: pa.DataType) -> bool:
    """Guards where Arrow would convert silently: 1.5 to 1, true to 1.0, bytes to text."""
    if value is None:
        return True
    if pa.types.is_integer(kind):
        return isinstance(value, int) and not isinstance(value, bool)
    if pa.types.is_floating(kind):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if pa.types.is_list(kind):
        return isinstance(value, list)
    return True


def _misfit(value: object, kind: pa.DataType) -> str | None:
    try:
        if _fits(value, kind):
            pa.array([value], type=kind)
            return None
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is no text"
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    shown = text_of(value) or ""
    return f"{shown[:40]!r} is not {words_for(kind)}"


def words_for(kind: pa.DataType) -> str:
    """A column type in the words of a message."""
    if pa.types.is_integer(kind):
        return "a whole number"
    if pa.types.is_floating(kind):
        return "a number"
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_list(kind):
        return f"a list of {'numbers' if pa.types.is_floating(kind.value_type) else kind.value_type}"
    return str(kind)
