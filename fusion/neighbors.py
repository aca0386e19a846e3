"""Nearest rows by fused vector: an exact cosine index in half precision (FAISS), built in parts, kept as bytes."""

from typing import Self

import faiss
import numpy as np
from numpy.typing import NDArray

from fusion.metrics import unit_rows


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
        self._index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._index.d)

    def add(self, vectors: NDArray[np.floating]) -> None:
        """Appends (n, dim) vectors of any float type; rows are numbered in the order they come."""
        self._index.add(unit_rows(vectors))

    def vector(self, row: int) -> NDArray[np.float32]:
        """(dim,) the vector of a row, at unit length."""
        return np.asarray(self._index.reconstruct(row), dtype=np.float32)

    def search(self, queries: NDArray[np.floating], top: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The rows most similar to each query.

        Args:
            queries: (n, dim).
            top: How many rows; fewer where the index holds fewer.

        Returns:
            Cosine similarities and row numbers, both (n, top), the most similar first.
        """
        similarity, rows = self._index.search(unit_rows(queries), min(top, len(self)))
        return similarity, rows

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
