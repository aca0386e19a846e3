"""Arrow columns as files hold them to the type that a corpus has settled on; a misfit is a problem of its row."""

import uuid
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from barycenter.infra.corpus.types.times import check_times, has_times

_PIECE = 1 << 30
"""Bytes that are brought to a type of 32-bit offsets at a time."""


def plain(kind: pa.DataType) -> pa.DataType:
    """A Parquet column's type without its storage: no dictionaries, runs, views or 64-bit offsets; UUIDs are text.

    >>> plain(pa.dictionary(pa.int8(), pa.large_string()))
    DataType(string)
    """
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or is_uuid(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_fixed_size_list(kind) and plain(kind.value_type) != kind.value_type:
        return pa.list_(plain(kind.value_type), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        key, item = (field.with_type(plain(field.type)) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item, kind.keys_sorted)
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    return kind


def is_uuid(kind: pa.DataType) -> bool:
    """Whether a type is Parquet's and Arrow's UUID."""
    return isinstance(kind, pa.UuidType)


def fitted(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, dict[int, str]]:
    """A column as ``kind``.

    Returns:
        The column, null where a value does not fit or is text that is not UTF-8, and what is wrong by row number.
    """
    chunks: list[pa.Array] = []
    wrong: dict[int, str] = {}
    first = 0
    for piece in _pieces(column):
        array, problems = _fitted(piece, kind)
        chunks.append(array)
        wrong |= {first + row: problem for row, problem in problems.items()}
        first += len(piece)
    return pa.chunked_array(chunks, kind), wrong


def _pieces(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    """The chunks, those of very many bytes in halves."""
    waiting = list(column.chunks)[::-1]
    while waiting:
        piece = waiting.pop()
        if len(piece) > 1 and _bytes(piece) > _PIECE:
            half = len(piece) // 2
            waiting += [piece.slice(half), piece.slice(0, half)]
        else:
            yield piece


def _bytes(array: pa.Array) -> int:
    try:
        return int(array.nbytes)
    except pa.ArrowException:
        return 0


def _fitted(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    try:
        whole = cast(array, kind)
        if _has_text(kind):
            whole.validate(full=True)
        if has_times(kind):
            check_times(whole)
        return whole, {}
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        if len(array) == 1:
            return pa.nulls(1, kind), {0: _problem(error, kind)}
    half = len(array) // 2
    left, wrong = _fitted(array.slice(0, half), kind)
    right, more = _fitted(array.slice(half), kind)
    return pa.concat_arrays([left, right]), wrong | {half + row: problem for row, problem in more.items()}


def _problem(error: Exception, kind: pa.DataType) -> str:
    reason = str(error).splitlines()[0]
    return "not UTF-8 text" if "UTF8" in reason or "utf-8" in reason else f"does not fit {kind}: {reason[:120]}"


def _has_text(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_has_text(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_string(kind))


def cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """An array as ``kind``, no value changed by it.

    Raises:
        pa.ArrowInvalid: A value does not fit.
    """
    if array.type == kind:
        return array
    if is_uuid(array.type) and pa.types.is_string(kind):
        return uuid_texts(array.storage)
    if isinstance(array.type, pa.BaseExtensionType):
        return cast(array.storage, kind)
    if pa.types.is_run_end_encoded(array.type):
        return cast(pc.run_end_decode(array), kind)
    if pa.types.is_dictionary(array.type):
        return cast(array.dictionary, kind).take(array.indices)
    if pa.types.is_struct(array.type) and pa.types.is_struct(kind) and array.type.num_fields:
        return _struct(array, kind)
    if (nested := _nested(array, kind)) is not None:
        return nested
    try:
        copied = array.take(pa.array(range(len(array)), pa.int64()))
    except pa.ArrowNotImplementedError:
        copied = array
    if pa.types.is_floating(kind) and (pa.types.is_integer(array.type) or pa.types.is_decimal(array.type)):
        return _real(copied, kind)
    return copied.cast(kind)


def _struct(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """A struct field by field, since pyarrow casts slices of structs wrongly."""
    values = {field.name: part for field, part in zip(array.type, array.flatten(), strict=True)}
    parts = [
        cast(values[field.name], field.type) if field.name in values else pa.nulls(len(array), field.type)
        for field in kind
    ]
    return pa.StructArray.from_arrays(parts, fields=list(kind), mask=array.is_null())


def _nested(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """A list or map part by part, where its parts are to be cast; pyarrow knows no UUIDs and checks no digits there."""
    if _is_variable_list(array.type) and pa.types.is_list(kind):
        stops = pc.cumulative_sum(array.value_lengths().fill_null(0).cast(pa.int64())).cast(pa.int32())
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), stops])
        return pa.ListArray.from_arrays(offsets, cast(array.flatten(), kind.value_type), kind, mask=array.is_null())
    if pa.types.is_fixed_size_list(array.type) and pa.types.is_fixed_size_list(kind):
        size = array.type.list_size
        if size != kind.list_size:
            return None
        values = cast(array.values.slice(array.offset * size, len(array) * size), kind.value_type)
        return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=array.is_null())
    if pa.types.is_map(array.type) and pa.types.is_map(kind):
        offsets, first, last = array.offsets, array.offsets[0].as_py(), array.offsets[-1].as_py()
        keys, items = (part.slice(first, last - first) for part in (array.keys, array.items))
        keys, items = cast(keys, kind.key_type), cast(items, kind.item_type)
        return pa.MapArray.from_arrays(pc.subtract(offsets, first), keys, items, kind, mask=array.is_null())
    return None


def _is_variable_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
    return any(test(kind) for test in tests)


def _real(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Whole numbers and decimals as fractions; pyarrow makes the nearest of a decimal by way of text only."""
    real = (array.cast(pa.string()) if pa.types.is_decimal(array.type) else array).cast(kind)
    if not real.cast(array.type).equals(array):
        raise pa.ArrowInvalid("a number of more digits than a fraction holds")
    return real


def uuid_texts(storage: pa.Array) -> pa.Array:
    """UUIDs of 16 bytes in their canonical form."""
    return pa.array(
        [None if value is None else str(uuid.UUID(bytes=value)) for value in storage.to_pylist()], pa.string()
    )
