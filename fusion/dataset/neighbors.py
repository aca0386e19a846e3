"""Nearest rows by fused vector: an exact cosine index in half precision (FAISS), built in parts, kept as bytes."""

from typing import Self

import faiss
import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.arrays import FloatArray
from barycenter.fusion.metrics import finite_rows, unit_rows


class NeighborIndex:
    """Every vector at unit length and 16 bits a number, compared with all others: 2 bytes a number and row.

    Args:
        dim: Width of the vectors.

    >>> index = NeighborIndex(2)
    >>> index.add(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]))
    >>> index.search(np.array([[5.0, 1.0]]), 2)[1].tolist()
    [[0, 2]]
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, not {dim}")
        self._index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._index.d)

    def add(self, vectors: NDArray[np.floating]) -> None:
        """Appends (n, dim) vectors of any float type; rows are numbered in the order they come.

        Raises:
            ValueError: On another width, and naming the first row that is not finite; then none is added.
        """
        self._index.add(unit_rows(self._checked("vectors", vectors)))

    def vector(self, row: int) -> NDArray[np.float32]:
        """(dim,) the vector of a row, at unit length.

        Raises:
            IndexError: If there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of an index of {len(self)} rows")
        return np.asarray(self._index.reconstruct(row), dtype=np.float32)

    def search(self, queries: NDArray[np.floating], top: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The rows most similar to each query.

        Args:
            queries: (n, dim).
            top: How many rows, at least 1; fewer where the index holds fewer.

        Returns:
            Cosine similarities and row numbers, both (n, top), the most similar first; (n, 0) of an empty index.

        Raises:
            ValueError: On another width, a query that is not finite, or a ``top`` below 1.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, not {top}")
        queries = unit_rows(self._checked("queries", queries))
        if not len(self):
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        similarity, rows = self._index.search(queries, min(top, len(self)))
        return similarity, rows

    def _checked(self, name: str, vectors: object) -> FloatArray:
        values = finite_rows(name, vectors)
        if values.shape[1] != self.dim:
            raise ValueError(f"{name}: expected (n, {self.dim}), got shape {values.shape}")
        return values

    def to_bytes(self) -> bytes:
        """The index as ``faiss.write_index`` would write it; ``faiss.read_index`` reads such a file."""
        return bytes(faiss.serialize_index(self._index).tobytes())

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The index that :meth:`to_bytes` gave.

        Raises:
            ValueError: If the bytes are no such index.
        """
        try:
            found = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
        except RuntimeError as error:
            raise ValueError(f"not a vector index: {error}") from error
        if not isinstance(found, faiss.IndexScalarQuantizer):
            raise ValueError(f"not an index of this kind but {type(found).__name__}")
        index = cls.__new__(cls)
        index._index = found
        return index
