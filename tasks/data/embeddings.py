"""The one reader of embedding files: vectors, NaN where an input could not be used, beside the other columns."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from barycenter.fusion.dataset.schema import array_to_vectors
from barycenter.infra.storage import Storage

Vectors = NDArray[np.float32]

NOTE = b"barycenter.rows"
"""Under this name an embedding file says what became of its rows, and what they hold."""

_UNREAD = ("key_hash", "source_size", "source_stamp", "digest", "seen")


def read_embeddings(
    storage: Storage, path: str, columns: Sequence[str] | None = None, rows: int | None = None
) -> tuple[Vectors, pa.Table]:
    """Reads one embedding file; by default all columns that later stages use.

    ``rows`` keeps the first so many; the whole file is read in any case.

    Returns:
        (n, d) vectors, all-NaN in rows that are not ``ok`` and perhaps read-only; and the other columns with ``ok``.
    """
    with storage.parquet(path) as file:
        others = file.schema_arrow.names if columns is None else ["vector", "ok", *columns]
        table = file.read(columns=[name for name in others if name not in _UNREAD], use_threads=False)
    beginning = table.slice(0, rows)
    vectors, good = array_to_vectors(beginning.column("vector")), beginning.column("ok").to_numpy().astype(bool)
    if not good.all():
        vectors = np.where(good[:, None], vectors, np.float32(np.nan))
    elif beginning.num_rows < table.num_rows:
        vectors = vectors.copy()  # lets go of the rest of the file
    return vectors, beginning.drop_columns(["vector"])


def read_note(storage: Storage, path: str) -> dict[str, Any]:
    """What an embedding file's writer noted, from its footer; empty where it noted nothing.

    Raises:
        RunError: The file is damaged.
    """
    return note_of(storage.parquet_metadata(path))


def note_of(footer: pq.FileMetaData) -> dict[str, Any]:
    """What the writer of an embedding file noted; empty where it noted nothing."""
    noted: dict[str, Any] = json.loads((footer.metadata or {}).get(NOTE, b"{}"))
    return noted
