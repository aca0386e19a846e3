"""Record batches to torch: which column goes where, slices without a copy, and shuffling inside a block."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.utils.dlpack
from numpy.typing import NDArray

from barycenter.fusion.dataset.reader import ColumnBounds
from barycenter.fusion.dataset.schema import Manifest, array_to_vectors, is_vector

Arrays = dict[str, NDArray[Any]]
Batch = dict[str, Any]

_INT64_LIMIT, _FLOAT64_LIMIT = 2**63, 2**53
_TENSOR_TYPES = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)


@dataclass(frozen=True, slots=True)
class Column:
    """One feature column and its place in a batch.

    Attributes:
        name: In the file.
        batch_path: Key in the batch, or (group, input) for ``has`` and ``aligned``.
        kind: ``vector`` and ``number`` become tensors, ``float`` too with NaN for null, ``object`` a list: also whole
            numbers that neither of the others holds exactly.
    """

    name: str
    batch_path: tuple[str, ...]
    kind: Literal["vector", "number", "float", "object"]


def batch_columns(
    manifest: Manifest, schema: pa.Schema, bounds: Mapping[str, ColumnBounds], columns: Sequence[str] | None
) -> tuple[Column, ...]:
    """The columns to read and where each goes.

    Args:
        manifest: Names the key and the inputs.
        schema: Of the files, with partition columns.
        bounds: What columns of integers and booleans hold.
        columns: Names to read; ``has`` and ``aligned`` name all of theirs. None: everything but aligned vectors.

    Raises:
        ValueError: On an unknown column, or a kept column that is called like a group.
    """
    groups = {
        group: [name for name in (f"{group}_{one}" for one in manifest.inputs) if name in schema.names]
        for group in ("has", "aligned")
    }
    if columns is None:
        columns = [name for name in schema.names if name not in groups["aligned"]]
    wanted = [name for given in columns for name in ([given] if given in schema.names else groups.get(given, [given]))]
    return tuple(
        _column(name, manifest, schema, groups, bounds.get(name, ColumnBounds())) for name in dict.fromkeys(wanted)
    )


def _column(
    name: str, manifest: Manifest, schema: pa.Schema, groups: Mapping[str, list[str]], bounds: ColumnBounds
) -> Column:
    if name not in schema.names:
        raise ValueError(f"columns: no column {name!r}; there are {', '.join(schema.names)}")
    batch_path: tuple[str, ...] = ("key",) if name == manifest.key else (name,)
    for group, names in groups.items():
        if name in names:
            batch_path = (group, name.removeprefix(f"{group}_"))
    if name in ("key", "has", "aligned") and name != manifest.key:
        raise ValueError(f"columns: the kept column {name!r} has a name of the batch's own; leave it out by columns=")
    kind = schema.field(name).type
    if is_vector(kind):
        return Column(name, batch_path, "vector")
    if any(test(kind) for test in _TENSOR_TYPES):
        beyond = pa.types.is_unsigned_integer(kind) and bounds.max_abs >= _INT64_LIMIT
        if beyond or (bounds.has_nulls and pa.types.is_integer(kind) and bounds.max_abs > _FLOAT64_LIMIT):
            return Column(name, batch_path, "object")
        return Column(name, batch_path, "float" if bounds.has_nulls else "number")
    return Column(name, batch_path, "object")


def to_arrays(batch: pa.RecordBatch, columns: Sequence[Column]) -> Arrays:
    """The columns as NumPy arrays, vectors and numbers over the same memory where they hold no null."""
    return {column.name: _to_array(batch.column(column.name), column) for column in columns}


def empty_arrays(schema: pa.Schema, columns: Sequence[Column]) -> Arrays:
    """The columns without rows."""
    return to_arrays(pa.RecordBatch.from_pylist([], schema=schema), columns)


def _to_array(array: pa.Array, column: Column) -> NDArray[Any]:
    if column.kind == "vector":
        elements = array.flatten()
        if array.null_count or elements.null_count:
            return array_to_vectors(array)
        return _zero_copy(elements).reshape(-1, array.type.list_size)
    if column.kind != "object":
        if column.kind == "float":
            array = array.cast(pa.float64())
        elif pa.types.is_unsigned_integer(array.type):
            array = array.cast(pa.int64())
        plain = not array.null_count and not pa.types.is_boolean(array.type)
        return _zero_copy(array) if plain else np.array(array.to_numpy(zero_copy_only=False))
    values = np.empty(len(array), dtype=object)
    text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    values[:] = array.to_numpy(zero_copy_only=False) if text else array.to_pylist()
    return values


def _zero_copy(array: pa.Array) -> NDArray[Any]:
    """A writable view: torch warns about read-only memory, and this memory belongs to the batch alone."""
    return np.asarray(torch.utils.dlpack.from_dlpack(array).numpy()) if len(array) else np.array(array.to_numpy())


def to_batch(arrays: Mapping[str, NDArray[Any]], columns: Sequence[Column]) -> Batch:
    """Torch tensors over the arrays' memory, and lists for what is no number, each at its place."""
    batch: Batch = {}
    for column in columns:
        array = arrays[column.name]
        value = array.tolist() if column.kind == "object" else torch.from_numpy(array)
        if len(column.batch_path) == 1:
            batch[column.batch_path[0]] = value
        else:
            batch.setdefault(column.batch_path[0], {})[column.batch_path[1]] = value
    return batch


def rebatch(parts: Iterator[Arrays], size: int) -> Iterator[Arrays]:
    """Regroups rows into arrays of ``size`` rows, the last shorter; copies only those that cross two parts."""
    pending: list[Arrays] = []
    rows = 0
    for part in parts:
        start, length = 0, _rows(part)
        while length - start >= size - rows:
            stop = start + size - rows
            yield _concatenate([*pending, _slice(part, start, stop)])
            pending, rows, start = [], 0, stop
        if start < length:
            pending.append(_slice(part, start, length))
            rows += length - start
    if rows:
        yield _concatenate(pending)


def shuffle_block(parts: Iterator[Arrays], rows: int, size: int, destination: NDArray[np.int64]) -> Iterator[Arrays]:
    """One block of rows, every row written once to its place in a random order, as arrays of ``size`` rows.

    Args:
        parts: The block's rows.
        rows: How many they are.
        size: Rows of a batch.
        destination: (rows,) permutation; row i of the block becomes row ``destination[i]``.
    """
    block: Arrays = {}
    filled = 0
    for part in parts:
        length = _rows(part)
        to = destination[filled : filled + length]
        for name, values in part.items():
            if name not in block:
                block[name] = np.empty((rows, *values.shape[1:]), values.dtype)
            block[name][to] = values
        filled += length
    for start in range(0, filled, size):
        yield _slice(block, start, min(start + size, filled))


def _rows(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _slice(arrays: Arrays, start: int, stop: int) -> Arrays:
    return {name: values[start:stop] for name, values in arrays.items()}


def _concatenate(parts: Sequence[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
