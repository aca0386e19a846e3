import faiss
import numpy as np
import pytest

from barycenter.fusion.dataset.neighbors import NeighborIndex


def test_an_empty_index_finds_nothing():
    similarity, rows = NeighborIndex(3).search(np.ones((2, 3)), 5)
    assert similarity.shape == rows.shape == (2, 0)


def test_what_does_not_fit_is_refused():
    index = NeighborIndex(3)
    index.add(np.eye(3))
    for name, work in (("vectors", index.add), ("queries", lambda values: index.search(values, 1))):
        with pytest.raises(ValueError, match=rf"^{name}: expected \(n, 3\), got shape \(2, 2\)"):
            work(np.ones((2, 2)))
        with pytest.raises(ValueError, match=f"^{name}: row 1 is not finite"):
            work(np.array([[1.0, 0, 0], [np.nan, 0, 0]]))
        with pytest.raises(ValueError, match=rf"^{name}: expected an \(n, d\) array"):
            work(np.ones(3))
    assert len(index) == 3
    for row in (-1, 3):
        with pytest.raises(IndexError, match=f"row {row} of an index of 3 rows"):
            index.vector(row)
    with pytest.raises(ValueError, match="top must be at least 1"):
        index.search(np.ones((1, 3)), 0)
    with pytest.raises(ValueError, match="dim must be at least 1"):
        NeighborIndex(0)


def test_a_vector_is_that_of_its_row_at_unit_length():
    index = NeighborIndex(1)
    index.add(np.array([[2.0], [-4.0]]))
    assert (index.dim, index.vector(0).tolist(), index.vector(1).tolist()) == (1, [1.0], [-1.0])
    similarity, rows = index.search(np.array([[-3.0]]), 5)
    assert (similarity.tolist(), rows.tolist()) == ([[1.0, -1.0]], [[1, 0]])


def test_an_index_survives_as_bytes_and_others_are_refused():
    index = NeighborIndex(3)
    index.add(np.eye(3))
    back = NeighborIndex.from_bytes(index.to_bytes())
    assert (len(back), back.dim) == (3, 3)
    assert back.search(np.array([[0.0, 9.0, 1.0]]), 2)[1].tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="not a vector index"):
        NeighborIndex.from_bytes(b"no index at all")
    with pytest.raises(ValueError, match="not an index of this kind but IndexFlatIP"):
        NeighborIndex.from_bytes(faiss.serialize_index(faiss.IndexFlatIP(3)).tobytes())
