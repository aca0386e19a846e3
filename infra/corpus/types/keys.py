"""Converts keys to text: equal values give equal text, whatever their type and file format."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from barycenter.infra.corpus.types.casting import cast_exactly, is_uuid, logical_type, uuids_to_text
from barycenter.infra.corpus.types.values import to_text

KEY_TYPES = "text, numbers, true/false, dates, times, decimals, UUIDs and bytes"


def is_key_type(kind: pa.DataType) -> bool:
    """Whether values of a type can be keys: all but nested types and intervals.

    >>> is_key_type(pa.int64()), is_key_type(pa.list_(pa.int64()))
    (True, False)
    """
    if isinstance(kind, pa.BaseExtensionType):
        return is_key_type(kind.storage_type)
    return not (pa.types.is_nested(kind) or pa.types.is_interval(kind))


def json_keys(values: Sequence[object]) -> tuple[pa.Array, dict[int, str]]:
    """Converts JSON values to keys and returns problems by row, as ``key_texts``; 7 and 7.0 are the same key.

    >>> json_keys([7.0, 7, "7.0", float("nan"), ""])[0].to_pylist()
    ['7', '7', '7.0', None, None]
    """
    return _convert_keys(values, lambda value: _float_key(value) if isinstance(value, float) else to_text(value))


def key_texts(column: pa.ChunkedArray) -> tuple[pa.Array, dict[int, str]]:
    """Converts keys to text.

    Equal values give equal texts whatever their type: 7 and 7.0, 1.50 as decimal with two or four digits, a UUID as
    Parquet's type or as text. Null, NaN and the empty text are no keys.

    Args:
        column: Values of one type that :func:`is_key_type` allows.

    Returns:
        The texts, null where there is no key, and by row why a value has no text form.
    """
    texts: list[str | None] = []
    wrong: dict[int, str] = {}
    for chunk in column.chunks:
        array, problems = _chunk_key_texts(chunk)
        wrong |= {len(texts) + row: problem for row, problem in problems.items()}
        texts += array.to_pylist()
    return pa.array(texts, pa.string()), wrong


def _convert_keys(values: Sequence[Any], convert: Callable[[Any], str | None]) -> tuple[pa.Array, dict[int, str]]:
    """Converts values one by one; empty text becomes null, and text that is not UTF-8 a problem."""
    texts: list[str | None] = []
    wrong: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            text = None if value is None else convert(value) or None
            if text is not None:
                text.encode()
        except UnicodeDecodeError:
            text, wrong[row] = None, "not UTF-8 text"
        except UnicodeEncodeError:
            text, wrong[row] = None, "holds half a surrogate pair, which is not valid text"
        texts.append(text)
    return pa.array(texts, pa.string()), wrong


def _chunk_key_texts(array: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    if is_uuid(array.type):
        return uuids_to_text(array.storage), {}
    kind = logical_type(array.type)
    if pa.types.is_string(kind):
        kind = pa.binary()
    if kind != array.type:
        array = cast_exactly(array, kind)
    if pa.types.is_floating(kind):
        return _convert_keys(array.cast(pa.float64()).to_pylist(), _float_key)
    if pa.types.is_decimal(kind):
        return _convert_keys(array.to_pylist(), _decimal_key)
    if pa.types.is_fixed_size_binary(kind):
        return _convert_keys(array.to_pylist(), bytes.hex)
    if pa.types.is_binary(kind):
        return _convert_keys(array.to_pylist(), bytes.decode)
    return _convert_keys(_cast_to_text(array).to_pylist(), str)


def _cast_to_text(array: pa.Array) -> pa.Array:
    """Casts to text: dates and times in ISO form without trailing zeros, durations in nanoseconds."""
    kind = array.type
    if pa.types.is_duration(kind):
        scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
        values = array.cast(pa.int64()).to_pylist()
        return pa.array([None if value is None else str(value * scale) for value in values], pa.string())
    zone = "Z" if pa.types.is_timestamp(kind) and kind.tz is not None else ""
    if zone:
        array = array.cast(pa.int64()).cast(pa.timestamp(kind.unit))
    texts = array.cast(pa.string())
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        texts = pc.replace_substring_regex(texts, r"(\.\d*?)0+$", r"\1")
        texts = pc.replace_substring_regex(texts, r"\.$", "")
        texts = pc.binary_join_element_wise(texts, zone, "")
    return texts


def _float_key(number: float) -> str | None:
    """Formats a float, without a fraction if it is integral; None for NaN."""
    if math.isnan(number):
        return None
    return str(int(number)) if number.is_integer() else repr(number)


def _decimal_key(value: Any) -> str:
    """Formats a decimal without exponent and trailing zeros."""
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
