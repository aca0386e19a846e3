"""Keys as text: one form for one value, whatever type or file it comes from."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from barycenter.infra.corpus.types.casting import cast, is_uuid, plain, uuid_texts
from barycenter.infra.corpus.types.values import text_of

KEY_TYPES = "text, numbers, true/false, dates, times, decimals, UUIDs and bytes"


def is_key_type(kind: pa.DataType) -> bool:
    """Whether values of a type have a text form that names them.

    >>> is_key_type(pa.int64()), is_key_type(pa.list_(pa.int64()))
    (True, False)
    """
    if isinstance(kind, pa.BaseExtensionType):
        return is_key_type(kind.storage_type)
    return not (pa.types.is_nested(kind) or pa.types.is_interval(kind))


def json_keys(values: Sequence[object]) -> tuple[pa.Array, dict[int, str]]:
    """JSON values as keys: a whole number without a fraction, whether it was written 7 or 7.0.

    >>> json_keys([7.0, 7, "7.0", float("nan"), ""])[0].to_pylist()
    ['7', '7', '7.0', None, None]
    """
    return _texts(values, lambda value: _number_text(value) if isinstance(value, float) else text_of(value))


def key_texts(column: pa.ChunkedArray) -> tuple[pa.Array, dict[int, str]]:
    """Keys as text.

    Equal values give equal texts whatever their type: 7 and 7.0, 1.50 as decimal with two or four digits, a UUID as
    Parquet's type or as text. Not a number is no key, as null and the empty text are none.

    Args:
        column: Values of one type that :func:`is_key_type` allows.

    Returns:
        The texts, null where there is no key, and by row why a value has no text.
    """
    texts: list[str | None] = []
    wrong: dict[int, str] = {}
    for chunk in column.chunks:
        array, problems = _chunk_texts(chunk)
        wrong |= {len(texts) + row: problem for row, problem in problems.items()}
        texts += array.to_pylist()
    return pa.array(texts, pa.string()), wrong


def _texts(values: Sequence[Any], convert: Callable[[Any], str | None]) -> tuple[pa.Array, dict[int, str]]:
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
            text, wrong[row] = None, "holds half a surrogate pair, which is no text"
        texts.append(text)
    return pa.array(texts, pa.string()), wrong


def _chunk_texts(array: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    if is_uuid(array.type):
        return uuid_texts(array.storage), {}
    kind = plain(array.type)
    if pa.types.is_string(kind):
        kind = pa.binary()
    if kind != array.type:
        array = cast(array, kind)
    if pa.types.is_floating(kind):
        return _texts(array.cast(pa.float64()).to_pylist(), _number_text)
    if pa.types.is_decimal(kind):
        return _texts(array.to_pylist(), _decimal_text)
    if pa.types.is_fixed_size_binary(kind):
        return _texts(array.to_pylist(), bytes.hex)
    if pa.types.is_binary(kind):
        return _texts(array.to_pylist(), bytes.decode)
    return _texts(_strings(array).to_pylist(), str)


def _strings(array: pa.Array) -> pa.Array:
    """Dates and times in ISO form, no zeros at their end; true and false; durations as whole numbers of nanoseconds."""
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


def _number_text(number: float) -> str | None:
    if math.isnan(number):
        return None
    return str(int(number)) if number.is_integer() else repr(number)


def _decimal_text(value: Any) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
