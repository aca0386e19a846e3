"""Casts Arrow columns to the one type that the corpus has for a column; values that do not fit become misfits."""

import uuid
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from barycenter.infra.corpus.types.times import check_times, has_times, holds

_MAX_CAST_BYTES = 1 << 30
"""Most bytes that are cast at once, so that the result's 32-bit offsets suffice."""


def logical_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type of a column's values: no dictionaries, runs, views or 64-bit offsets; UUIDs are text.

    >>> logical_type(pa.dictionary(pa.int8(), pa.large_string()))
    DataType(string)
    """
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return logical_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or is_uuid(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if _is_variable_list(kind):
        return pa.list_(logical_type(kind.value_type))
    if pa.types.is_fixed_size_list(kind) and logical_type(kind.value_type) != kind.value_type:
        return pa.list_(logical_type(kind.value_type), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(logical_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        key, item = (field.with_type(logical_type(field.type)) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item, kind.keys_sorted)
    if isinstance(kind, pa.BaseExtensionType):
        return logical_type(kind.storage_type)
    return kind


def is_uuid(kind: pa.DataType) -> bool:
    """Whether a type is Arrow's extension type for UUIDs."""
    return isinstance(kind, pa.UuidType)


def cast_column(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, dict[int, str]]:
    """Casts a column to ``kind``, with no value changed.

    Returns:
        The column, null where a value does not fit or is text that is not UTF-8, and the problems by row number.
    """
    chunks: list[pa.Array] = []
    wrong: dict[int, str] = {}
    first = 0
    for chunk in _split_large_chunks(column):
        array, problems = _cast_or_bisect(chunk, kind)
        chunks.append(array)
        wrong |= {first + row: problem for row, problem in problems.items()}
        first += len(chunk)
    return pa.chunked_array(chunks, kind), wrong


def _split_large_chunks(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    """Yields the chunks of a column, halved until each has at most ``_MAX_CAST_BYTES``."""
    waiting = list(column.chunks)[::-1]
    while waiting:
        chunk = waiting.pop()
        if len(chunk) > 1 and _byte_size(chunk) > _MAX_CAST_BYTES:
            half = len(chunk) // 2
            waiting += [chunk.slice(half), chunk.slice(0, half)]
        else:
            yield chunk


def _byte_size(array: pa.Array) -> int:
    """Returns the bytes of an array; 0 for types whose size pyarrow cannot compute."""
    try:
        return int(array.nbytes)
    except pa.ArrowException:
        return 0


def _cast_or_bisect(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, dict[int, str]]:
    """Casts an array; where that fails, its halves, down to the single misfits."""
    try:
        whole = cast_exactly(array, kind)
        if holds(kind, pa.types.is_string):
            whole.validate(full=True)
        if has_times(kind):
            check_times(whole)
        return whole, {}
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        if len(array) == 1:
            return pa.nulls(1, kind), {0: _misfit_problem(error, kind)}
    half = len(array) // 2
    left, wrong = _cast_or_bisect(array.slice(0, half), kind)
    right, more = _cast_or_bisect(array.slice(half), kind)
    return pa.concat_arrays([left, right]), wrong | {half + row: problem for row, problem in more.items()}


def _misfit_problem(error: Exception, kind: pa.DataType) -> str:
    reason = str(error).splitlines()[0]
    return "not UTF-8 text" if "UTF8" in reason or "utf-8" in reason else f"does not fit {kind}: {reason[:120]}"


def cast_exactly(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Casts an array to ``kind``; no value may change by it.

    Raises:
        pa.ArrowInvalid: A value does not fit.
    """
    if array.type == kind:
        return array
    if is_uuid(array.type) and pa.types.is_string(kind):
        return uuids_to_text(array.storage)
    if isinstance(array.type, pa.BaseExtensionType):
        return cast_exactly(array.storage, kind)
    if pa.types.is_run_end_encoded(array.type):
        return cast_exactly(pc.run_end_decode(array), kind)
    if pa.types.is_dictionary(array.type):
        return cast_exactly(array.dictionary, kind).take(array.indices)
    if pa.types.is_struct(array.type) and pa.types.is_struct(kind) and array.type.num_fields:
        return _cast_struct(array, kind)
    if (nested := _cast_list_or_map(array, kind)) is not None:
        return nested
    try:
        copied = array.take(pa.array(range(len(array)), pa.int64()))
    except pa.ArrowNotImplementedError:
        copied = array
    if pa.types.is_floating(kind) and (pa.types.is_integer(array.type) or pa.types.is_decimal(array.type)):
        return _cast_to_float(copied, kind)
    return copied.cast(kind)


def _cast_struct(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Casts a struct field by field, since pyarrow casts slices of structs wrongly."""
    values = {field.name: part for field, part in zip(array.type, array.flatten(), strict=True)}
    parts = [
        cast_exactly(values[field.name], field.type) if field.name in values else pa.nulls(len(array), field.type)
        for field in kind
    ]
    return pa.StructArray.from_arrays(parts, fields=list(kind), mask=array.is_null())


def _cast_list_or_map(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Casts the values of a list or map, where pyarrow casts no UUIDs and checks no digits; None for other types."""
    if _is_variable_list(array.type) and pa.types.is_list(kind):
        stops = pc.cumulative_sum(array.value_lengths().fill_null(0).cast(pa.int64())).cast(pa.int32())
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), stops])
        return pa.ListArray.from_arrays(
            offsets, cast_exactly(array.flatten(), kind.value_type), kind, mask=array.is_null()
        )
    if pa.types.is_fixed_size_list(array.type) and pa.types.is_fixed_size_list(kind):
        size = array.type.list_size
        if size != kind.list_size:
            return None
        values = cast_exactly(array.values.slice(array.offset * size, len(array) * size), kind.value_type)
        return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=array.is_null())
    if pa.types.is_map(array.type) and pa.types.is_map(kind):
        offsets, first, last = array.offsets, array.offsets[0].as_py(), array.offsets[-1].as_py()
        keys, items = (part.slice(first, last - first) for part in (array.keys, array.items))
        keys, items = cast_exactly(keys, kind.key_type), cast_exactly(items, kind.item_type)
        return pa.MapArray.from_arrays(pc.subtract(offsets, first), keys, items, kind, mask=array.is_null())
    return None


def _is_variable_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
    return any(test(kind) for test in tests)


def _cast_to_float(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Casts integers and decimals to floats; decimals by way of text, else pyarrow does not give the nearest float."""
    real = (array.cast(pa.string()) if pa.types.is_decimal(array.type) else array).cast(kind)
    if not real.cast(array.type).equals(array):
        raise pa.ArrowInvalid("a number of more digits than a float holds")
    return real


def uuids_to_text(storage: pa.Array) -> pa.Array:
    """Converts UUIDs of 16 bytes to text in canonical form."""
    values = storage.to_pylist()
    return pa.array([None if value is None else str(uuid.UUID(bytes=value)) for value in values], pa.string())
