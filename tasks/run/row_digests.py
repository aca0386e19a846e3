"""What a row of an input is known by: a digest of exactly what is encoded, whatever file it is in."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.infra.versions.digest_index import content_digest, value_digest

DIGEST = pa.binary(16)


def text_digest(text: object) -> bytes | None:
    """Of a text as the encoder gets it; None for anything else."""
    return value_digest(text) if isinstance(text, str) else None


def vector_digests(vectors: NDArray[np.float32], ok: NDArray[np.bool_]) -> list[bytes | None]:
    """Of the bytes of (n, d) vectors, None where not ``ok``."""
    return [content_digest(row.tobytes()) if good else None for row, good in zip(vectors, ok.tolist(), strict=True)]


def row_digests(
    values: Sequence[bytes | None], offsets: NDArray[np.int64], weights: NDArray[np.float64] | None
) -> list[bytes | None]:
    """Of every row from those of its values; None where one of them has none.

    A row of one value without a weight is known by the value, so that a list of one text is the text.
    """
    if weights is None and len(offsets) == len(values) + 1:
        return list(values)
    rows: list[bytes | None] = []
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        parts = [value for value in values[start:stop] if value is not None]
        if not parts or len(parts) < stop - start:
            rows.append(None)
        elif weights is not None:
            rows.append(content_digest(*parts, weights[start:stop].tobytes()))
        else:
            rows.append(parts[0] if len(parts) == 1 else content_digest(*parts))
    return rows


def table_digest(table: pa.Table, vectors: NDArray[np.float32]) -> str:
    """Of what the rows of an embedding file hold: keys, which are good, vectors."""
    whole = hashlib.sha256(str(vectors.shape).encode())  # on many processors twice as fast as BLAKE2b
    for part in (table.column("key_hash").to_numpy(), table.column("ok").to_numpy(), vectors):
        whole.update(np.ascontiguousarray(part).data)
    return whole.hexdigest()[:32]


def values_digest(column: pa.ChunkedArray) -> str:
    """Of values as Python has them."""
    return content_digest(repr(column.to_pylist()).encode("utf-8", "surrogatepass")).hex()


def digest_column(digests: Iterable[bytes | None], keep: Iterable[bool]) -> pa.Array:
    """The digests as a column, null where they are not kept."""
    return pa.array([each if kept else None for each, kept in zip(digests, keep, strict=True)], DIGEST)
