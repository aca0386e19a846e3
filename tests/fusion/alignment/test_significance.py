import numpy as np
import pytest

from barycenter.fusion.alignment import CCA, significance
from barycenter.fusion.alignment.significance import _blocks, _pairing


def test_pure_noise_rarely_claims_anything():
    claims = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        views = {"a": rng.normal(size=(120, 20)), "b": rng.normal(size=(120, 20))}
        found = significance(CCA(dim=4, regularization=0.1), views, permutations=19)
        claims += found.n_significant > 0
    assert claims <= 4
    in_sample = CCA(dim=4, regularization=0.1).fit(views).correlations_[0]
    assert in_sample > 0.6 > found.noise_edge


def test_shared_components_are_counted():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(1000, 3))
    views = {m: np.hstack([z + rng.normal(size=z.shape), rng.normal(size=(1000, 7))]) for m in ("a", "b", "c")}
    assert significance(CCA(dim=8, regularization=0.1), views).n_significant == 3


def test_copies_in_a_group_are_not_evidence():
    groups = np.repeat(np.arange(40), 25)
    claims = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        views = {m: rng.normal(size=(40, 6))[groups] for m in ("a", "b")}
        grouped = significance(CCA(dim=6, regularization=0.1), views, groups, permutations=19)
        claims += grouped.n_significant > 0
        assert grouped.noise_edge > 0.15
    assert claims <= 4


def test_pairing_moves_whole_groups():
    labels = np.array([3, 1, 1, 2, 3, 2, 3, 4, 4, 5, 5])
    rows = _pairing(_blocks(labels), np.random.default_rng(0))
    assert sorted(rows) == list(range(11))
    assert (labels[rows[labels == 3]] == 3).all()
    for label in (1, 2, 4, 5):
        assert len(set(labels[rows[labels == label]])) == 1
    assert (labels[rows] != labels).any()


def test_groups_that_cannot_move_are_reported():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(15), np.arange(10, 25))
    views = {m: rng.normal(size=(len(groups), 3)) for m in ("a", "b")}
    with pytest.warns(UserWarning, match="without one of equal size"):
        found = significance(CCA(dim=2, regularization=0.1), views, groups)
    assert found.n_significant == 0


@pytest.mark.filterwarnings("ignore:.*rank")
def test_too_little_is_an_error():
    with pytest.raises(ValueError, match="at least two inputs"):
        significance(CCA(), {"a": np.zeros((10, 2))})
    with pytest.raises(ValueError, match="cannot tell"):
        significance(CCA(), {"a": np.eye(4), "b": np.eye(4)}, permutations=5)
    with pytest.raises(ValueError, match="too few"):
        significance(CCA(), {"a": np.eye(4), "b": np.eye(4)})
