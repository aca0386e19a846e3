"""Loosely typed values to Arrow columns of one fixed type; what does not fit is reported row by row."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_INT64 = 2**63


def type_of(value: object) -> pa.DataType:
    """The Arrow type of one JSON value.

    Objects, lists that hold objects or mix lists with single values, lists more than two deep, and whole numbers
    beyond 64 bits are text.

    >>> type_of([1, 2.5]), type_of({"a": 1}), type_of([{"a": 1}])
    (ListType(list<item: double>), DataType(string), DataType(string))
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
    return _type_of_list(value) if isinstance(value, list) else pa.string()


def _type_of_list(values: Sequence[object]) -> pa.DataType:
    item = pa.null()
    for part in values:
        kind = type_of(part)
        lost = isinstance(part, dict) or (isinstance(part, list) and not pa.types.is_list(kind))
        if lost or _mixes(item, kind):
            return pa.string()
        item = joined(item, kind)
    if item == pa.float64() and any(type(part) is int and not _is_exact(part) for part in values):
        item = pa.string()
    deep = pa.types.is_list(item) and pa.types.is_nested(item.value_type)
    return pa.string() if deep else pa.list_(item)


def joined(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type that holds values of both: whole numbers become real ones, everything else mixed becomes text."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    numbers = (pa.int64(), pa.float64())
    if a in numbers and b in numbers:
        return pa.float64()
    if pa.types.is_list(a) and pa.types.is_list(b) and not _mixes(a.value_type, b.value_type):
        inner = joined(a.value_type, b.value_type)
        both_lists = pa.types.is_list(a.value_type) and pa.types.is_list(b.value_type)
        return pa.string() if both_lists and not pa.types.is_list(inner) else pa.list_(inner)
    return pa.string()


def _mixes(a: pa.DataType, b: pa.DataType) -> bool:
    """Whether one is a list and the other a single value."""
    return not (pa.types.is_null(a) or pa.types.is_null(b)) and pa.types.is_list(a) != pa.types.is_list(b)


def _is_exact(number: int) -> bool:
    """Whether a float holds a whole number with every digit."""
    try:
        return int(float(number)) == number
    except OverflowError:
        return False


def settled(kind: pa.DataType) -> pa.DataType:
    """A type for a column of which only nulls or empty lists were seen: text."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(settled(kind.value_type))
    return kind


def types_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.DataType]:
    """Column types over some rows, columns in the order of their first appearance; all-null columns stay null.

    A column of fractions, or of lists of them, with whole numbers that no fraction holds exactly is text: digits count.
    """
    types: dict[str, pa.DataType] = {}
    inexact: set[str] = set()
    for row in rows:
        for name, value in row.items():
            known = types.get(name)
            if known is None or known != pa.string():
                types[name] = type_of(value) if known is None else joined(known, type_of(value))
            if _has_inexact(value):
                inexact.add(name)
    return {name: pa.string() if name in inexact and _is_real(kind) else kind for name, kind in types.items()}


def _has_inexact(value: object) -> bool:
    """Whether a value is a whole number, or a list with one, that no float holds with every digit."""
    if isinstance(value, list):
        return any(map(_has_inexact, value))
    return type(value) is int and not _is_exact(value)


def _is_real(kind: pa.DataType) -> bool:
    """Whether a type is that of fractions, or of lists of them."""
    return _is_real(kind.value_type) if pa.types.is_list(kind) else bool(pa.types.is_floating(kind))


def text_of(value: object) -> str | None:
    """A JSON value as text: strings as they are, everything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _MisfitError(Exception):
    """A value that its column's type does not hold."""


def column_of(values: Sequence[object], kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """Values as one Arrow array.

    Args:
        values: One value a row; None is null.
        kind: The column's type.

    Returns:
        The array, null where a value does not fit, and what is wrong by row number.
    """
    try:
        return pa.array([_converted(value, kind) for value in values], type=kind), {}
    except (_MisfitError, pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    kept: list[object] = []
    wrong: dict[int, str] = {}
    for row, value in enumerate(values):
        problem = _misfit(value, kind)
        kept.append(_converted(value, kind) if problem is None else None)
        if problem is not None:
            wrong[row] = problem
    return pa.array(kept, type=kind), wrong


def _converted(value: object, kind: pa.DataType) -> object:
    """The value as ``kind`` holds it, where Arrow would change it silently: 1.5 to 1, true to 1.0, bytes to text.

    Raises:
        _MisfitError: It does not fit.
    """
    if value is None:
        return None
    if pa.types.is_string(kind):
        return text_of(value)
    if pa.types.is_floating(kind):
        return _real(value)
    if pa.types.is_list(kind):
        return _list(value, kind.value_type)
    whole = pa.types.is_integer(kind)
    if whole and (not isinstance(value, int) or isinstance(value, bool)):
        raise _MisfitError
    return value


def _real(value: object) -> float:
    if isinstance(value, float):
        return value
    if type(value) is int and _is_exact(value):
        return float(value)
    raise _MisfitError


def _list(value: object, item: pa.DataType) -> list[object]:
    if not isinstance(value, list):
        raise _MisfitError
    if pa.types.is_floating(item) and set(map(type, value)) <= {float}:
        return value
    return [_converted(part, item) for part in value]


def _misfit(value: object, kind: pa.DataType) -> str | None:
    try:
        pa.array([_converted(value, kind)], type=kind)
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is no text"
    except (_MisfitError, pa.ArrowException, ValueError, TypeError, OverflowError):
        shown = text_of(value) if not isinstance(value, bytes) else repr(value)
        return f"{(shown or '')[:40]!r} is not {words_for(kind)}"
    return None


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
