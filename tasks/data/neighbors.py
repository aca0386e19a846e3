"""Nearest rows of a fused data set: one index a version, stored beside its features."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from barycenter.fusion.dataset.neighbors import NeighborIndex
from barycenter.fusion.dataset.schema import Manifest, array_to_vectors
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.storage import Storage
from barycenter.tasks.data.labeled_rows import read_file

SIMILARITY = "similarity"


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """The index of one version and what is stored of its rows.

    Attributes:
        index: Every fused vector, numbered in row order.
        rows: Key and kept columns of every row, in the same order; the key first.
    """

    index: NeighborIndex
    rows: pa.Table

    @property
    def key(self) -> str:
        """Name of the key column."""
        return str(self.rows.column_names[0])

    def of_key(self, key: str, top: int) -> pa.Table:
        """The rows nearest to one row, itself left out.

        Raises:
            JobError: If no row has that key.
        """
        column = self.rows.column(0)
        row = pc.index(column, pa.scalar(key, column.type)).as_py()
        if row < 0:
            raise JobError("--key", f"no row has the key {key!r}; keys are in column `{self.key}` of the features")
        found = self.of_vector(self.index.vector(row), top + 1)
        return found.filter(pc.not_equal(found.column(0), pa.scalar(key, column.type))).slice(0, top)

    def of_vector(self, vector: NDArray[np.floating], top: int) -> pa.Table:
        """The rows nearest to a fused vector: key, similarity (cosine) and the kept columns, the nearest first.

        Raises:
            RunError: If the vector has another width than those of the index.
        """
        if vector.shape[-1] != self.index.dim:
            raise RunError(
                f"the vector has {vector.shape[-1]} numbers, those of the index {self.index.dim}; give a fused "
                "vector of this data set"
            )
        similarity, numbers = self.index.search(vector.reshape(1, -1), top)
        return self.rows.take(pa.array(numbers[0])).add_column(1, SIMILARITY, pa.array(similarity[0]))


def open_neighborhood(storage: Storage, manifest: Manifest) -> Neighborhood:
    """The index of a version, built on first use and stored under ``index/``."""
    index_path, rows_path = index_paths(manifest.version)
    if storage.exists(index_path):
        return Neighborhood(NeighborIndex.from_bytes(storage.read(index_path)), storage.read_table(rows_path))
    built = _build(storage, manifest)
    storage.write_table(rows_path, built.rows)
    storage.write(index_path, built.index.to_bytes())
    return built


def index_paths(version: str) -> tuple[str, str]:
    """Where an output holds the index of a version and its keys."""
    return f"index/{version}.faiss", f"index/{version}.keys.parquet"


def _build(storage: Storage, manifest: Manifest) -> Neighborhood:
    index = NeighborIndex(manifest.dim)
    columns = [manifest.key, *(name for name in manifest.kept if name != manifest.key)]
    tables = []
    for file in manifest.files:
        table = read_file(storage, manifest, file, [*columns, "fused"])
        index.add(array_to_vectors(table.column("fused")))
        tables.append(table.select(columns))
    return Neighborhood(index, pa.concat_tables(tables, promote_options="default"))
