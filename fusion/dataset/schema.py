"""The feature format: the Parquet schema of fused vectors, how they are encoded, and the manifest that lists them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.errors import RunError

ROW_GROUP_ROWS = 2048
"""Rows of one row group: the unit that a reader reads, shuffles and shards by."""

PARTITION_TEXT = pa.dictionary(pa.int32(), pa.string())
"""Type of a partition column of text inside the files."""

_ELEMENT = "element"


def vector_type(dim: int, dtype: Literal["float32", "float16", "float64"] = "float32") -> pa.FixedSizeListType:
    """``fixed_size_list<dtype not null>[dim]``; non-null elements read several times faster than nullable ones.

    >>> str(vector_type(3))
    'fixed_size_list<element: float not null>[3]'
    """
    return pa.list_(pa.field(_ELEMENT, pa.from_numpy_dtype(np.dtype(dtype)), nullable=False), dim)


def feature_schema(
    key: str | pa.Field,
    kept: Sequence[pa.Field],
    dim: int,
    dtype: Literal["float32", "float16"],
    inputs: Sequence[str],
    aligned: bool,
    metadata: Mapping[str, str],
    counted: Sequence[str] = (),
) -> pa.Schema:
    """Schema of a feature file: key, kept columns, ``fused``, ``has_<input>``, ``count_<input>``, ``aligned_<input>``.

    Args:
        key: Name of the key column (string, not null), or its field.
        kept: Columns carried over from the corpus; columns that the files are partitioned by are left out.
        dim: Width of ``fused`` and of every aligned vector.
        dtype: Element type of the vectors.
        inputs: Names of the inputs, in order.
        aligned: Whether aligned vectors are written; they are null where the input is missing.
        metadata: File metadata.
        counted: Inputs with several values a row; how many were averaged is written.

    Raises:
        ValueError: If two columns share a name.

    >>> feature_schema("id", [pa.field("label", pa.string())], 8, "float32", ["text"], True, {}).names
    ['id', 'label', 'fused', 'has_text', 'aligned_text']
    """
    vector = vector_type(dim, dtype)
    columns = [key if isinstance(key, pa.Field) else pa.field(key, pa.string(), nullable=False), *kept]
    columns.append(pa.field("fused", vector, nullable=False))
    columns += [pa.field(f"has_{name}", pa.bool_(), nullable=False) for name in inputs]
    columns += [pa.field(f"count_{name}", pa.int32(), nullable=False) for name in counted]
    if aligned:
        columns += [pa.field(f"aligned_{name}", vector) for name in inputs]
    names = [column.name for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"feature columns share a name: {', '.join(twice)}; rename or leave out the kept column")
    return pa.schema(columns, metadata=dict(metadata))


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Keyword arguments of ``pyarrow.parquet.ParquetWriter`` for a feature schema.

    Vectors have no dictionary and no statistics; those of float32 are byte-stream-split, those of float16 plain,
    because DuckDB reads no byte-stream-split halves. Everything is zstd level 1. Row groups are given to
    ``write_table``: ``row_group_size=ROW_GROUP_ROWS``.
    """
    vectors = {
        f"{column.name}.list.{_ELEMENT}": "PLAIN" if column.type.value_type == pa.float16() else "BYTE_STREAM_SPLIT"
        for column in schema
        if is_vector(column.type)
    }
    others = [column.name for column in schema if not pa.types.is_nested(column.type)]
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": others or False,
        "column_encoding": vectors or None,
        "write_statistics": others or False,
    }


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column type is a vector of floats of fixed width."""
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def vectors_to_array(vectors: NDArray[np.floating]) -> pa.FixedSizeListArray:
    """An Arrow array over the same memory.

    Args:
        vectors: (n, dim) float16, float32 or float64; copied only where it is not C-contiguous.

    >>> vectors_to_array(np.zeros((2, 3), np.float32)).type == vector_type(3)
    True
    """
    if vectors.ndim != 2:
        raise ValueError(f"expected (n, dim) vectors, got shape {vectors.shape}")
    kind = pa.list_(pa.field(_ELEMENT, pa.from_numpy_dtype(vectors.dtype), nullable=False), vectors.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), type=kind)


def array_to_vectors(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """The vectors of a fixed-size-list column, over the same memory where the column is one chunk without nulls.

    Returns:
        (n, dim) of the column's element type, read-only where it is not a copy; a null vector becomes a row of NaN, a
        null element NaN.

    Raises:
        TypeError: If the column holds no vectors of fixed width.
    """
    if not is_vector(column.type):
        raise TypeError(f"expected a fixed-size list of floats, got {column.type}")
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 1:
            return array_to_vectors(column.chunk(0))
        if column.num_chunks:
            return np.concatenate([array_to_vectors(chunk) for chunk in column.chunks])
        return np.empty((0, column.type.list_size), column.type.value_type.to_pandas_dtype())
    elements = column.flatten()
    flat = elements.to_numpy(zero_copy_only=not elements.null_count).reshape(-1, column.type.list_size)
    if not column.null_count:
        return np.asarray(flat)
    vectors = np.full((len(column), column.type.list_size), np.nan, flat.dtype)
    vectors[column.is_valid().to_numpy(zero_copy_only=False)] = flat
    return vectors


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """One Parquet file of a version.

    Attributes:
        path: Relative to the output folder.
        rows: Number of rows.
        bytes: Size.
        sha256: Of its bytes, hexadecimal.
        partition: Values of the partition columns; :func:`partition_scalar` gives them their type.
    """

    path: str
    rows: int
    bytes: int = 0
    sha256: str = ""
    partition: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What one version of a fused data set consists of; readers believe only what it lists.

    Attributes:
        version: The version's hash, which names the features folder.
        name: Name of the job.
        job: Hash of the job.
        settings: The job itself, as its hash sees it.
        key: Name of the key column.
        kept: Kept columns, those the files are partitioned by included.
        partition_by: Names of the columns that the files are partitioned by.
        partition_types: Their Arrow types.
        dim: Width of the fused vectors.
        dtype: Their element type.
        inputs: ``{name: {kind, encoder, encoder_id, embedding_id, dim, fingerprint, spec}}``, in order.
        alignment_id: Which alignment.
        alignment: Its method, dim and how it was chosen.
        average: Method and weights.
        rows: Counts: read, written, rejected, missing by input, bad by reason.
        files: The feature files, in row order.
        rejects: Paths of the files of rejects.
        shards: Ids of the shards, in corpus order.
        sources: The files of the corpus.
        listing: How many files were taken and passed over.
        join: Which join of the inputs' own tables, if any.
        code: Version of the package.
        parent: Number of the version this one was built on.
        number: Running number of the version; 0 before it is committed.
        term: Term of the output's lease under which it was committed.
        promote: ``auto`` if readers saw it when it was committed, ``manual`` if it waited for a promotion.
        committed: When it was committed, in UTC.
        other_keys: Every other key of the JSON form.
    """

    version: str
    name: str = ""
    job: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    key: str
    kept: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    partition_types: dict[str, str] = field(default_factory=dict)
    dim: int
    dtype: str
    inputs: dict[str, dict[str, Any]]
    alignment_id: str = ""
    alignment: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    files: tuple[FeatureFile, ...]
    rejects: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    sources: tuple[dict[str, Any], ...] = ()
    listing: dict[str, Any] = field(default_factory=dict)
    join: str | None = None
    code: str = ""
    parent: int | None = None
    number: int = 0
    term: int = 0
    promote: Literal["auto", "manual"] = "auto"
    committed: str = ""
    other_keys: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A manifest of its JSON form.

        Raises:
            RunError: If something that every manifest has is not there.
        """
        try:
            given: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
                if name in _KEYS
            }
            given["files"] = tuple(_file(entry) for entry in values["files"])
            return cls(**given, other_keys={name: value for name, value in values.items() if name not in _KEYS})
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"not a manifest of fused features: {error}") from error

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """A manifest of the bytes of its file.

        Raises:
            RunError: If they are no JSON, or no manifest.
        """
        try:
            values = json.loads(content)
        except ValueError as error:
            raise RunError(f"not a manifest ({error})") from error
        if not isinstance(values, dict):
            raise RunError("not a manifest (it is no JSON object)")
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; :meth:`from_dict` reads it back."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "other_keys"}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return plain | {"files": [asdict(file) for file in self.files]} | self.other_keys

    def to_json(self) -> bytes:
        """The bytes of its file."""
        return json.dumps(self.to_dict(), indent=1).encode() + b"\n"

    @classmethod
    def read(cls, source: str | Path | IO[bytes]) -> Self:
        """Reads a manifest from a local path or an open file.

        Raises:
            RunError: If it is not there, is no JSON, or is no manifest.
        """
        name = str(getattr(source, "name", "manifest")) if hasattr(source, "read") else str(source)
        try:
            return cls.from_json(source.read() if hasattr(source, "read") else Path(source).read_bytes())
        except FileNotFoundError as error:
            raise RunError(f"{name}: no manifest here; nothing has been committed") from error
        except RunError as error:
            raise RunError(f"{name}: {error}") from error


def partition_scalar(value: str | float | bool | None, kind: str) -> pa.Scalar:
    """A partition value of a manifest.

    Args:
        value: As JSON holds it: dates and numbers that are not finite are text.
        kind: Arrow's name of the column's type.

    >>> partition_scalar("2024-01-31", "date32[day]")
    <pyarrow.Date32Scalar: datetime.date(2024, 1, 31)>
    """
    wanted = pa.type_for_alias(kind)
    if isinstance(value, str) and not pa.types.is_string(wanted):
        return pa.scalar(value).cast(wanted)
    return pa.scalar(value, wanted)


def _file(entry: Mapping[str, Any]) -> FeatureFile:
    return FeatureFile(**{name: value for name, value in entry.items() if name in _FILE_KEYS})


_KEYS = frozenset(entry.name for entry in fields(Manifest)) - {"other_keys"}
_FILE_KEYS = frozenset(entry.name for entry in fields(FeatureFile))
