"""Checks for dates and durations that Python or pandas cannot hold: outside the years 1 to 9999, too long."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

_SECONDS_PER_DAY = 86_400
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_MAX_DURATION_SECONDS = (2**63 - 1) // 10**6
_TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INT64 = 2**63 - 1


def has_times(kind: pa.DataType) -> bool:
    """Whether a type holds dates, timestamps or durations, or is nested and does.

    >>> has_times(pa.list_(pa.date32())), has_times(pa.int64())
    (True, False)
    """
    return holds(kind, pa.types.is_date, pa.types.is_timestamp, pa.types.is_duration)


def holds(kind: pa.DataType, *tests: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type passes one of the tests of ``pa.types``, or is nested and a type in it does."""
    if pa.types.is_nested(kind):
        return any(holds(kind.field(number).type, *tests) for number in range(kind.num_fields))
    return any(test(kind) for test in tests)


def check_times(array: pa.Array) -> None:
    """Raises where an array holds a date or duration that Python or pandas cannot represent.

    Raises:
        pa.ArrowInvalid: The array holds one.
    """
    kind = array.type
    if pa.types.is_nested(kind):
        for part in _child_arrays(array):
            check_times(part)
    elif has_times(kind):
        low, high, problem = _allowed_range(kind)
        numbers = array.cast(pa.int32()) if pa.types.is_date32(kind) else array.cast(pa.int64())
        found = pc.min_max(numbers)
        least, most = found["min"].as_py(), found["max"].as_py()
        if least is not None and (least < low or most > high):
            raise pa.ArrowInvalid(problem)


def _child_arrays(array: pa.Array) -> list[pa.Array]:
    if pa.types.is_struct(array.type):
        return list(array.flatten())
    if pa.types.is_map(array.type):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return [part.slice(first, last - first) for part in (array.keys, array.items)]
    return [array.flatten()]


def _allowed_range(kind: pa.DataType) -> tuple[int, int, str]:
    """Returns the smallest and largest integer allowed for a temporal type, and the problem of values beyond them."""
    if pa.types.is_duration(kind):
        ticks = min(_MAX_DURATION_SECONDS * _TICKS_PER_SECOND[kind.unit], _INT64)
        return -ticks, ticks, "a duration that readers cannot hold"
    problem = "a date outside the years 1 to 9999"
    if pa.types.is_date32(kind):
        return _FIRST_SECOND // _SECONDS_PER_DAY, _LAST_SECOND // _SECONDS_PER_DAY, problem
    ticks = 10**3 if pa.types.is_date64(kind) else _TICKS_PER_SECOND[kind.unit]
    margin = _SECONDS_PER_DAY if pa.types.is_timestamp(kind) and kind.tz is not None else 0
    low, high = (_FIRST_SECOND + margin) * ticks, (_LAST_SECOND - margin) * ticks + ticks - 1
    return max(low, -_INT64), min(high, _INT64), problem
