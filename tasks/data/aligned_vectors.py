"""Aligned vectors of feature rows: as written, or from the embeddings through the alignment."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from barycenter.fusion.alignment import Alignment
from barycenter.fusion.dataset.schema import Manifest, array_to_vectors
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.data.alignment_files import load_alignment
from barycenter.tasks.data.embeddings import Vectors, read_embeddings


class AlignedRows:
    """Looks up the aligned vectors of rows in the order of the feature files.

    Where the features hold no ``aligned_<input>`` columns, embedding shards are read in corpus order as their keys
    come up; a row is forgotten once it is asked for, so that about one block of rows is held.

    Attributes:
        columns: Columns of the feature files to hand to :meth:`of`, beside the key.
    """

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self._storage, self._manifest = storage, manifest
        self._alignment: Alignment | None = None
        self._shards = iter(manifest.shards)
        self._held: dict[str, dict[str, Vectors]] = {}
        self.columns = [f"aligned_{name}" for name in manifest.inputs]
        there = [storage.parquet_metadata(file.path).schema.to_arrow_schema().names for file in manifest.files[:1]]
        if not there or not set(self.columns) <= set(there[0]):
            self.columns = []

    def of(self, table: pa.Table) -> dict[str, Vectors]:
        """``{input: (n, dim)}`` for rows of one feature file, the key and ``columns``; NaN where an input is missing.

        Raises:
            RunError: If the embeddings that the features were made of are gone.
        """
        names = list(self._manifest.inputs)
        if self.columns:
            columns = {name: array_to_vectors(table.column(f"aligned_{name}")) for name in names}
            return {name: np.asarray(column, dtype=np.float32) for name, column in columns.items()}
        keys: Sequence[str] = table.column(self._manifest.key).to_pylist()
        missing = {key for key in keys if key not in self._held}
        while missing:
            missing -= self._read_shard().keys()
        rows = [self._held.pop(key) for key in keys]
        dim = self._manifest.dim
        return {
            name: np.stack([row[name] for row in rows]) if rows else np.zeros((0, dim), np.float32) for name in names
        }

    def _read_shard(self) -> dict[str, dict[str, Vectors]]:
        shard = next(self._shards, None)
        if shard is None:
            raise RunError("the embeddings no longer hold every row of the features; run the job again")
        views: dict[str, Vectors] = {}
        keys: list[str | None] = []
        for name, entry in self._manifest.inputs.items():
            path = embedding_path(name, entry["embedding_id"], shard)
            if not self._storage.exists(path):
                raise RunError(
                    f"{self._storage.uri(path)} is gone, and the features hold no aligned vectors; run the job again, "
                    "or with output.keep_aligned"
                )
            views[name], table = read_embeddings(self._storage, path, ["key"])
            keys = table.column("key").to_pylist()
        if self._alignment is None:
            self._alignment = load_alignment(self._storage, self._manifest.alignment_id)
        aligned = self._alignment.transform(views)
        read = {
            key: {name: aligned[name][row] for name in aligned}
            for row, key in reversed(list(enumerate(keys)))
            if key is not None
        }
        self._held |= {key: row for key, row in read.items() if key not in self._held}
        return read
