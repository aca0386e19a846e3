"""From the columns of an input to its values, one or several a row, and from their vectors to the embedding table."""

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.dataset.schema import vectors_to_array
from barycenter.fusion.encoders.multiple_values import PooledResult, embed_unique, embed_vectors, pool_values
from barycenter.fusion.encoders.pipeline import Pipeline
from barycenter.fusion.errors import BadInputError, Reason
from barycenter.fusion.splits import stable_hash
from barycenter.infra.corpus import Picture, Pictures
from barycenter.tasks.run.read_pictures import ReadPictures
from barycenter.tasks.run.row_digests import digest_column, row_digests, text_digest, vector_digests

_ALWAYS = ("vector", "ok", "key_hash", "count")
REJECT = pa.struct([("reason", pa.string()), ("detail", pa.string()), ("source", pa.string())])


@dataclass(frozen=True, slots=True)
class Columns:
    """How a table holds the values of an input; plain data.

    Attributes:
        kind: text, image or vector.
        names: The columns; several only for text.
        weights: Column of weights for several values a row, or None.
        multi_value: Whether the columns hold lists of values.
        pictures: Finds pictures; None for other kinds.
    """

    kind: str
    names: tuple[str, ...]
    weights: str | None
    multi_value: bool
    pictures: Pictures | None


def is_multi_value(kind: pa.DataType, vector: bool) -> bool:
    """Whether a column's values are lists of an input's values.

    >>> is_multi_value(pa.list_(pa.float32()), vector=True), is_multi_value(pa.list_(pa.string()), vector=False)
    (False, True)
    """
    return bool(pa.types.is_list(kind) and (not vector or pa.types.is_nested(kind.value_type)))


def hash_keys(keys: Sequence[str | None]) -> NDArray[np.uint64]:
    """(n,) hashes of keys, to find repeated ones; a null key equals no other."""
    return stable_hash(("\0", row) if key is None else key for row, key in enumerate(keys))


class InputValues:
    """The values of one input in some rows.

    Relative picture paths start in ``folder``; rows in ``refused`` must not be encoded, for the reason beside them.

    Attributes:
        values: What the encoder gets, row after row; of pictures, what reads them.
        pictures: The pictures that were found; None for other kinds.
        vectors: The column, flattened, of a vector input; else None.
        offsets: Where the values of each row begin, and the end.
        weights: One a value, or None.
    """

    def __init__(
        self, table: pa.Table, columns: Columns, folder: str, refused: Mapping[int, BadInputError] | None = None
    ) -> None:
        self.columns = columns
        self.refused = dict(refused or {})
        self.pictures: ReadPictures | None = None
        self.values: list[object] = []
        self.vectors: pa.Array | None = None
        self.offsets: NDArray[np.int64] = np.arange(table.num_rows + 1)
        self._digests: list[bytes | None] = []
        if columns.kind == "vector":
            self.vectors = self._vectors(table)
        else:
            rows = _texts(table, columns) if columns.kind == "text" else table.column(columns.names[0]).to_pylist()
            for row in self.refused:
                rows[row] = None
            if columns.multi_value:
                rows = self._flat(rows)
            self.values = rows if columns.pictures is None else self._find(rows, columns.pictures, folder)
        self.weights = self._weights(table)

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return len(self.offsets) - 1

    def embed(self, pipeline: Pipeline, *, batch: int) -> PooledResult:
        """Encodes the values, equal ones once, and averages those of each row."""
        if self.vectors is not None:
            flat, encoded = embed_vectors(pipeline.encoder, self.vectors), len(self.vectors)
            self._digests = vector_digests(flat.vectors, flat.ok)
        else:
            identities: list[Hashable] = list(
                self._text_digests() if self.pictures is None else self.pictures.identities()
            )
            flat, encoded = embed_unique(pipeline, self.values, identities, batch_size=batch)
            if self.pictures is not None:
                self.pictures.share(identities)
        pooled = pool_values(flat, encoded, self.offsets, self.weights)
        for row, error in self.refused.items():
            pooled.reject_row(row, error)
        return pooled

    def digests(self) -> list[bytes | None]:
        """What each row is known by, None where a value of it is bad or was not read yet."""
        if self.vectors is not None:
            values = self._digests
        else:
            values = self._text_digests() if self.pictures is None else self.pictures.digests
        rows = row_digests(values, self.offsets, self.weights)
        return [None if row in self.refused else digest for row, digest in enumerate(rows)]

    def seen(self) -> list[bytes | None]:
        """As :meth:`digests`, of places, sizes and stamps of the pictures; None for other kinds."""
        if self.pictures is None:
            return [None] * self.rows
        rows = row_digests(self.pictures.seen(), self.offsets, self.weights)
        return [None if row in self.refused else digest for row, digest in enumerate(rows)]

    def positions(self, rows: Sequence[int]) -> list[int]:
        """Places of the values of some rows."""
        stops = self.offsets.tolist()
        return [place for row in rows for place in range(stops[row], stops[row + 1])]

    def take(self, rows: Sequence[int]) -> "InputValues":
        """Some of the rows, with what was read of them."""
        places = self.positions(rows)
        taken = copy(self)
        taken.offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[list(rows)])]).astype(np.int64)
        taken.weights = None if self.weights is None else self.weights[places]
        taken.refused = {new: self.refused[old] for new, old in enumerate(rows) if old in self.refused}
        taken.vectors = None if self.vectors is None else self.vectors.take(pa.array(places, pa.int64()))
        taken.values = [self.values[place] for place in places] if self.values else []
        taken._digests = [self._digests[place] for place in places] if self._digests else []
        if self.pictures is not None:
            taken.pictures = self.pictures.take(places)
            taken.values = taken._readers(taken.values)
        return taken

    def table(
        self, keys: Sequence[str | None], result: PooledResult, digests: Sequence[bytes | None] | None = None
    ) -> pa.Table:
        """The embedding file's rows; ``digests`` of all rows, where not all were read here."""
        sources = self._row_sources()
        columns: dict[str, pa.Array] = {
            "key": pa.array(keys, pa.string()),
            "key_hash": pa.array(hash_keys(keys)),
            "vector": vectors_to_array(result.vectors),
            "ok": pa.array(result.ok),
            "reason": pa.array([None if reason is None else str(reason) for reason in result.reasons], pa.string()),
            "detail": pa.array(result.details, pa.string()),
            "source": pa.array([uri for uri, _, _ in sources], pa.string()),
            "source_size": pa.array([size for _, size, _ in sources], pa.int64()),
            "source_stamp": pa.array([stamp for _, _, stamp in sources], pa.string()),
            "digest": digest_column(self.digests() if digests is None else digests, result.ok.tolist()),
            "seen": digest_column(self.seen(), result.ok.tolist()),
        }
        if self.columns.multi_value:
            columns["count"] = pa.array(result.counts, pa.int32())
            columns["rejects"] = self._rejects(result)
        fields = [pa.field(name, array.type, nullable=name not in _ALWAYS) for name, array in columns.items()]
        return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))

    def stamps(self) -> list[str | None]:
        """What each row's pictures are stamped with; of several, a digest."""
        return [stamp for _, _, stamp in self._row_sources()]

    def _row_sources(self) -> list[tuple[str | None, int | None, str | None]]:
        """(uri of the first picture, bytes of all, stamp) of every row."""
        if self.pictures is None:
            return [(None, None, None)] * self.rows
        states: list[tuple[str | None, int | None, str | None]] = []
        for start, stop in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            pictures = self.pictures.found[start:stop]
            first = next((picture for picture in pictures if picture is not None), None)
            if first is None:
                states.append((None, None, None))
            elif len(pictures) == 1:
                states.append((self._place(first), first.size, first.stamp))
            else:
                stamps = "\0".join(str(picture and picture.stamp) for picture in pictures)
                digest = hashlib.blake2b(stamps.encode(), digest_size=10).hexdigest()
                states.append(
                    (self._place(first), sum((picture and picture.size) or 0 for picture in pictures), digest)
                )
        return states

    def _place(self, picture: Picture | None) -> str | None:
        pictures = self.columns.pictures
        return pictures.relative_uri(picture.uri) if pictures and picture and picture.uri is not None else None

    def _rejects(self, result: PooledResult) -> pa.Array:
        lines: list[list[dict[str, str | None]]] = [[] for _ in result.reasons]
        starts = self.offsets.tolist()
        for bad in result.bad:
            picture = self.pictures.found[starts[bad.row] + bad.position] if self.pictures else None
            detail = f"value {bad.position + 1}: {bad.detail}" if bad.detail else f"value {bad.position + 1}"
            source = self._place(picture)
            lines[bad.row].append({"reason": bad.reason, "detail": detail, "source": source})
        return pa.array([line or None for line in lines], pa.list_(REJECT))

    def _vectors(self, table: pa.Table) -> pa.Array:
        column = table.column(self.columns.names[0])
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if not self.columns.multi_value:
            return column
        while is_multi_value(column.type, vector=True):
            lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            if not (lengths > 0).all():
                filler = pa.array([[None]], column.type)
                at = np.where(lengths > 0, np.arange(len(column)), len(column))
                column = pa.concat_arrays([column, filler]).take(pa.array(at))
                lengths = np.maximum(lengths, 1)
            stops = np.concatenate([[0], np.cumsum(lengths)])
            self.offsets = stops[self.offsets]
            column = column.flatten()
        return column

    def _flat(self, rows: Sequence[object]) -> list[object]:
        flat: list[object] = []
        stops = [0]
        for row in rows:
            flat += _leaves(row) if isinstance(row, list) else [row]
            stops.append(len(flat))
        self.offsets = np.array(stops, np.int64)
        return flat

    def _find(self, values: Sequence[object], pictures: Pictures, folder: str) -> list[object]:
        found: list[object] = [value if callable(value) else find_picture(pictures, value, folder) for value in values]
        self.pictures = ReadPictures([each if isinstance(each, Picture) else None for each in found])
        return self._readers([partial(_refused, each) if isinstance(each, BadInputError) else each for each in found])

    def _readers(self, values: Sequence[object]) -> list[object]:
        """What reads each picture; a value without one raises what is wrong with it."""
        assert self.pictures is not None
        return [
            value if picture is None else self.pictures.reader(place)
            for place, (value, picture) in enumerate(zip(values, self.pictures.found, strict=True))
        ]

    def _text_digests(self) -> list[bytes | None]:
        if not self._digests:
            self._digests = [text_digest(value) for value in self.values]
        return self._digests

    def _weights(self, table: pa.Table) -> NDArray[np.float64] | None:
        """One weight a value; a row that has another number of weights than values is refused."""
        if self.columns.weights is None:
            return None
        given = table.column(self.columns.weights).to_pylist()
        lengths = np.diff(self.offsets).tolist()
        flat: list[float] = []
        for row, (weights, length) in enumerate(zip(given, lengths, strict=True)):
            listed = list(_leaves(weights)) if isinstance(weights, list) else [weights]
            if len(listed) != length and weights is not None:
                problem = f"{len(listed)} weights for {length} values"
                self.refused.setdefault(row, BadInputError(Reason.WRONG_LENGTH, problem))
            if len(listed) != length:
                listed = [1.0] * length
            flat += [float(weight) if isinstance(weight, int | float) else float("nan") for weight in listed]
        return np.array(flat, np.float64)


def find_picture(pictures: Pictures, value: object, folder: str) -> Picture | BadInputError:
    """The picture that a value names, or what is wrong with it."""
    try:
        return pictures.find(value, folder)
    except BadInputError as error:
        return error


def _refused(error: BadInputError) -> object:
    raise error


def _leaves(value: Sequence[object]) -> Iterator[object]:
    """The values of nested lists; an empty one counts as a bad value."""
    if not value:
        yield partial(_refused, BadInputError(Reason.EMPTY, "an empty list"))
    for part in value:
        if isinstance(part, list):
            yield from _leaves(part)
        else:
            yield part


def _texts(table: pa.Table, columns: Columns) -> list[object]:
    """The text of each row, or list of texts; columns joined by newline."""
    parts = [table.column(name).to_pylist() for name in columns.names]
    if len(parts) == 1:
        return list(parts[0])
    join = _joined_lists if columns.multi_value else _joined
    return [join(row) for row in zip(*parts, strict=True)]


def _joined(parts: Sequence[object]) -> str | None:
    return "\n".join(str(part) for part in parts if part is not None) or None


def _joined_lists(parts: Sequence[object]) -> list[str | None] | None:
    lists = [part if isinstance(part, list) else [part] for part in parts if part is not None]
    return [_joined(row) for row in zip_longest(*lists)] if lists else None
