import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barycenter.fusion import metrics
from barycenter.fusion.metrics import (
    accuracy,
    bootstrap_gap,
    chance_r10,
    correct,
    r2,
    retrieval,
)
from tests.fusion.calibration import expected_calibration_error


def test_perfect_reversed_and_scaled_retrieval():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8))
    assert retrieval(x, x * 7) == {"r1": 1.0, "r5": 1.0, "r10": 1.0, "mrr": 1.0}
    assert retrieval(x, -x)["r10"] == 0.0


def test_ranks_against_a_plain_count(monkeypatch):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 83, 5))
    y += x
    ux, uy = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    similarity = ux @ uy.T
    ranks = 1 + (similarity > np.diag(similarity)[:, None]).sum(1)
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", 4 * 83 * 10)
    found = retrieval(x, y)
    assert found["r5"] == (ranks <= 5).mean()
    assert found["mrr"] == pytest.approx((1 / ranks).mean())


def test_duplicates_get_their_middle_rank():
    same = np.ones((5, 3), np.float32)
    found = retrieval(same, same)
    assert (found["r1"], found["r5"], found["mrr"]) == (0.0, 1.0, pytest.approx(1 / 3))
    twice = np.repeat(np.eye(4), 2, axis=0)
    assert retrieval(twice, twice)["mrr"] == pytest.approx(1 / 1.5)


def test_random_retrieval_is_chance():
    rng = np.random.default_rng(2)
    found = retrieval(*rng.normal(size=(2, 1000, 16)))
    assert abs(found["r10"] - chance_r10(1000)) < 0.01
    assert chance_r10(5) == 1.0
    assert np.isfinite(list(retrieval(np.zeros((3, 2)), np.zeros((3, 2))).values())).all()


@pytest.mark.parametrize("shape", [(0, 3), (4, 3)])
def test_shapes_that_do_not_match_are_refused(shape):
    with pytest.raises(ValueError, match="equal shape"):
        retrieval(np.zeros(shape), np.zeros((0, 3)))


def test_accuracy_compares_label_lists_as_sets():
    assert accuracy([["a", "b"], ["c"]], [["b", "a"], []]) == 0.5
    assert correct(["x", None], np.array(["x", "y"])).tolist() == [True, False]
    assert np.isnan(accuracy([], []))


def test_r2_of_mean_and_of_constant_targets():
    y = np.array([1.0, 2.0, 4.0])
    assert r2(y, np.full(3, y.mean())) == pytest.approx(0.0)
    assert np.isnan(r2(np.ones(3), np.ones(3)))


@given(st.integers(0, 1000))
def test_the_interval_holds_the_mean_and_a_gap_with_itself_is_nothing(seed):
    rng = np.random.default_rng(seed)
    a, b, groups = rng.random(60) < 0.7, rng.random(60) < 0.5, rng.integers(0, 20, 60)
    mean, low, high = bootstrap_gap(a, b, groups, n=200, seed=seed)
    assert low <= mean <= high
    assert mean == pytest.approx(a.mean() - b.mean())
    assert bootstrap_gap(a, a, groups, n=10) == (0.0, 0.0, 0.0)


def test_groups_widen_the_interval_and_the_seed_fixes_it():
    rng = np.random.default_rng(0)
    per_group = rng.random(30) < 0.6
    a, groups = np.repeat(per_group, 20), np.repeat(np.arange(30), 20)
    b = np.zeros(600)
    _, low, high = bootstrap_gap(a, b, groups)
    _, alone_low, alone_high = bootstrap_gap(a, b, range(600))
    assert high - low > 3 * (alone_high - alone_low)
    assert bootstrap_gap(a, b, groups, seed=4) == bootstrap_gap(a, b, groups, seed=4)
    sd = np.sqrt(per_group.mean() * (1 - per_group.mean()) / 30)
    assert high - low == pytest.approx(2 * 1.96 * sd, rel=0.15)


def test_calibration_error():
    assert expected_calibration_error(np.full(10, 1.0), np.ones(10, bool)) == 0.0
    assert expected_calibration_error(np.full(10, 0.9), np.arange(10) < 5) == pytest.approx(0.4)


def test_a_candidate_near_to_everything_is_no_find():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(200, 10))
    candidates = queries + 1.5 * rng.normal(size=(200, 10))
    middle = queries.mean(axis=0)
    queries = queries + 3
    hubs = candidates + 3
    hubs[:20] = middle + 3
    plain, scaled = retrieval(queries, hubs), retrieval(queries, hubs, temperature=20)
    assert scaled["r10"] > plain["r10"]
