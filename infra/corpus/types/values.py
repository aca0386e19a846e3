"""Infers column types from JSON values, and converts values to Arrow columns of one type with misfits by row."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_INT64 = 2**63


def infer_type(value: object) -> pa.DataType:
    """Infers the Arrow type of one JSON value.

    Objects, lists that hold objects or mix lists with single values, lists more than two deep, and whole numbers
    beyond 64 bits are text.

    >>> infer_type([1, 2.5]), infer_type({"a": 1}), infer_type([{"a": 1}])
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
    return _infer_list_type(value) if isinstance(value, list) else pa.string()


def _infer_list_type(values: Sequence[object]) -> pa.DataType:
    """Infers the Arrow type of a JSON list; text where its items have no common type."""
    item = pa.null()
    for part in values:
        kind = infer_type(part)
        lost = isinstance(part, dict) or (isinstance(part, list) and not pa.types.is_list(kind))
        if lost or _mixes_list_and_value(item, kind):
            return pa.string()
        item = common_type(item, kind)
    if item == pa.float64() and any(type(part) is int and not _is_exact_float(part) for part in values):
        item = pa.string()
    deep = pa.types.is_list(item) and pa.types.is_nested(item.value_type)
    return pa.string() if deep else pa.list_(item)


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Returns the type for values of both types: float for integers and floats, text for other mixtures."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    numbers = (pa.int64(), pa.float64())
    if a in numbers and b in numbers:
        return pa.float64()
    if pa.types.is_list(a) and pa.types.is_list(b) and not _mixes_list_and_value(a.value_type, b.value_type):
        inner = common_type(a.value_type, b.value_type)
        both_lists = pa.types.is_list(a.value_type) and pa.types.is_list(b.value_type)
        return pa.string() if both_lists and not pa.types.is_list(inner) else pa.list_(inner)
    return pa.string()


def _mixes_list_and_value(a: pa.DataType, b: pa.DataType) -> bool:
    """Whether one type is a list and the other that of a single value."""
    return not (pa.types.is_null(a) or pa.types.is_null(b)) and pa.types.is_list(a) != pa.types.is_list(b)


def _is_exact_float(number: int) -> bool:
    try:
        return int(float(number)) == number
    except OverflowError:
        return False


def null_as_string(kind: pa.DataType) -> pa.DataType:
    """Replaces the null type, also that of list items, by text; such a column has only nulls or empty lists."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(null_as_string(kind.value_type))
    return kind


def infer_column_types(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.DataType]:
    """Infers column types from rows, in the order of first appearance; a column of nulls alone has the null type.

    A column of floats, or lists of them, with integers that floats do not represent exactly is text: digits count.
    """
    types: dict[str, pa.DataType] = {}
    inexact: set[str] = set()
    for row in rows:
        for name, value in row.items():
            known = types.get(name)
            if known is None or known != pa.string():
                types[name] = infer_type(value) if known is None else common_type(known, infer_type(value))
            if _has_inexact_float(value):
                inexact.add(name)
    return {name: pa.string() if name in inexact and _is_float_type(kind) else kind for name, kind in types.items()}


def _has_inexact_float(value: object) -> bool:
    """Whether a value is, or is a list with, an integer that floats do not represent exactly."""
    if isinstance(value, list):
        return any(map(_has_inexact_float, value))
    return type(value) is int and not _is_exact_float(value)


def _is_float_type(kind: pa.DataType) -> bool:
    """Whether a type is float, or a list of floats."""
    return _is_float_type(kind.value_type) if pa.types.is_list(kind) else bool(pa.types.is_floating(kind))


def to_text(value: object) -> str | None:
    """Converts a JSON value to text: strings as they are, other values as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _MisfitError(Exception):
    """A value that its column's type does not hold."""


def to_arrow(values: Sequence[object], kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """Converts values to one Arrow array.

    Args:
        values: One value a row; None is null.
        kind: The column's type.

    Returns:
        The array, null where a value does not fit, and the problems by row number.
    """
    try:
        return pa.array([_convert(value, kind) for value in values], type=kind), {}
    except (_MisfitError, pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    kept: list[object] = []
    wrong: dict[int, str] = {}
    for row, value in enumerate(values):
        problem = _misfit_problem(value, kind)
        kept.append(_convert(value, kind) if problem is None else None)
        if problem is not None:
            wrong[row] = problem
    return pa.array(kept, type=kind), wrong


def _convert(value: object, kind: pa.DataType) -> object:
    """Converts a value; ``_MisfitError`` also for what Arrow converts silently, such as 1.5 to 1 or true to 1."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        return to_text(value)
    if pa.types.is_floating(kind):
        return _convert_to_float(value)
    if pa.types.is_list(kind):
        return _convert_list(value, kind.value_type)
    if pa.types.is_integer(kind) and type(value) is not int:
        raise _MisfitError
    return value


def _convert_to_float(value: object) -> float:
    if isinstance(value, float):
        return value
    if type(value) is int and _is_exact_float(value):
        return float(value)
    raise _MisfitError


def _convert_list(value: object, item: pa.DataType) -> list[object]:
    if not isinstance(value, list):
        raise _MisfitError
    if pa.types.is_floating(item) and set(map(type, value)) <= {float}:
        return value
    return [_convert(part, item) for part in value]


def _misfit_problem(value: object, kind: pa.DataType) -> str | None:
    try:
        pa.array([_convert(value, kind)], type=kind)
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is not valid text"
    except (_MisfitError, pa.ArrowException, ValueError, TypeError, OverflowError):
        shown = to_text(value) if not isinstance(value, bytes) else repr(value)
        return f"{(shown or '')[:40]!r} is not {describe_type(kind)}"
    return None


def describe_type(kind: pa.DataType) -> str:
    """Describes a column type for a message, with its article."""
    if pa.types.is_integer(kind):
        return "a whole number"
    if pa.types.is_floating(kind):
        return "a number"
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_list(kind):
        return f"a list of {'numbers' if pa.types.is_floating(kind.value_type) else kind.value_type}"
    return str(kind)
