import numpy as np
import pytest

from fusion.alignment import CCA, significance
from fusion.alignment.significance import _pairing


def test_pure_noise_claims_nothing():
    rng = np.random.default_rng(0)
    views = {"a": rng.normal(size=(400, 60)), "b": rng.normal(size=(400, 60))}
    found = significance(CCA(dim=10, regularization=0.1), views)
    assert found.n_significant == 0
    in_sample = CCA(dim=10, regularization=0.1).fit(views).correlations_[0]
    assert in_sample > 0.6 > found.noise_edge


def test_shared_components_are_counted():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(1000, 3))
    views = {m: np.hstack([z + rng.normal(size=z.shape), rng.normal(size=(1000, 7))]) for m in ("a", "b", "c")}
    assert significance(CCA(dim=8, regularization=0.1), views).n_significant == 3


def test_copies_in_a_group_are_not_evidence():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 25)
    views = {m: rng.normal(size=(40, 6))[groups] for m in ("a", "b")}
    grouped = significance(CCA(dim=6, regularization=0.1), views, groups)
    assert grouped.n_significant == 0
    assert grouped.noise_edge > 0.15


def test_pairing_moves_whole_groups():
    labels = np.array([3, 1, 1, 2, 3, 2, 3])
    rows = _pairing(labels, np.random.default_rng(0))
    for label in (1, 2, 3):
        assert len(set(labels[rows[labels == label]])) == 1


def test_too_little_is_an_error():
    with pytest.raises(ValueError, match="at least two inputs"):
        significance(CCA(), {"a": np.zeros((10, 2))})
    with pytest.raises(ValueError, match="too few"):
        significance(CCA(), {"a": np.eye(4), "b": np.eye(4)})
