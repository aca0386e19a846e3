import numpy as np
import pytest

from barycenter.fusion.dataset.neighbors import NeighborIndex


def test_an_empty_index_finds_nothing():
    similarity, rows = NeighborIndex(3).search(np.ones((2, 3)), 5)
    assert similarity.shape == rows.shape == (2, 0)


def test_what_does_not_fit_is_refused():
    index = NeighborIndex(3)
    index.add(np.eye(3))
    for work in (index.add, lambda values: index.search(values, 1)):
        with pytest.raises(ValueError, match=r"expected \(n, 3\), got shape \(2, 2\)"):
            work(np.ones((2, 2)))
        with pytest.raises(ValueError, match="row 1 is not finite"):
            work(np.array([[1.0, 0, 0], [np.nan, 0, 0]]))
        with pytest.raises(ValueError, match=r"expected an \(n, d\) array"):
            work(np.ones(3))
    assert len(index) == 3
    for row in (-1, 3):
        with pytest.raises(IndexError, match=f"row {row} of an index of 3 rows"):
            index.vector(row)
    with pytest.raises(ValueError, match="top must be at least 1"):
        index.search(np.ones((1, 3)), 0)
    with pytest.raises(ValueError, match="dim must be at least 1"):
        NeighborIndex(0)
