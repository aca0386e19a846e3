import numpy as np
import pytest

from barycenter.fusion.evaluation.dimensions import dimension_curve, learning_curve, variance_kept
from barycenter.fusion.heads.targets import as_objects

N = 1200


@pytest.fixture(scope="module")
def rows():
    """Four components hold the label, twenty more are noise: features, labels, groups, training and test rows."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, N)
    fused = np.hstack([np.eye(4)[label] * 2 + rng.normal(size=(N, 4)), rng.normal(size=(N, 20))]).astype(np.float32)
    train = np.arange(N) % 3 > 0
    return fused, as_objects([f"c{value}" for value in label]), [f"g{row // 2}" for row in range(N)], train, ~train


def test_components_that_hold_nothing_are_no_loss(rows):
    curve = dimension_curve(*rows, "classification")
    assert [point["dim"] for point in curve] == [4, 8, 16, 24]
    first = curve[0]["loss"]
    assert first["low"] <= 0 <= first["high"] + 0.02
    assert curve[-1]["loss"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_components_that_hold_the_label_are_missed(rows):
    fused, *others = rows
    curve = dimension_curve(fused[:, ::-1].copy(), *others, "classification")
    assert curve[-2]["dim"] == 16
    loss = curve[-2]["loss"]
    assert loss["low"] > 0.1
    assert loss["mean"] == pytest.approx(curve[-1]["complete"] - curve[-2]["complete"])


def test_shares_of_the_rows_are_nested_and_whole_groups(rows):
    curve = learning_curve(*rows, "classification")
    sizes = [point["rows"] for point in curve]
    assert sizes == sorted(sizes)
    assert sizes[-1] == int(rows[3].sum())
    assert sizes[-2] == pytest.approx(sizes[-1] / 2, rel=0.15)
    assert all(point["low"] <= point["complete"] <= point["high"] for point in curve)


def test_few_rows_of_many_features_are_too_few(rows):
    fused, labels, groups, train, test = rows
    rng = np.random.default_rng(1)
    wide = np.hstack([fused, rng.normal(size=(N, 150))]).astype(np.float32)
    curve = learning_curve(wide, labels, groups, train, test, "classification")
    assert curve[0]["loss"]["low"] > 0


def test_shares_of_one_label_or_few_rows_are_left_out(rows):
    fused, labels, groups, train, test = rows
    few = train & (np.cumsum(train) <= 100)
    assert [point["rows"] for point in learning_curve(fused, labels, groups, few, test, "classification")][-1] == 100
    assert len(learning_curve(fused, labels, groups, few, test, "classification")) <= 2
    rare = as_objects(["odd" if row == np.flatnonzero(train)[-1] else "usual" for row in range(N)])
    assert len(learning_curve(fused, rare, groups, train, test, "classification")) <= 2


def test_without_rows_or_variance_there_is_no_curve(rows):
    fused, labels, groups, train, _ = rows
    nothing = np.zeros(N, dtype=bool)
    assert dimension_curve(fused, labels, groups, train, nothing, "classification") == []
    constant = as_objects([1.5] * N)
    assert learning_curve(fused, constant, groups, train, ~train, "regression") == []


def test_variance_that_is_kept_is_what_the_fused_vectors_tell_of_the_input():
    rng = np.random.default_rng(0)
    view = rng.normal(size=(4000, 4)) * np.sqrt([5, 3, 1, 1]) + 7
    assert variance_kept(view, view @ rng.normal(size=(4, 4)) - 3) == pytest.approx(1)
    assert variance_kept(view, 100 * view[:, :2] + 1) == pytest.approx(0.8, abs=0.02)
    assert variance_kept(view, np.zeros((4000, 2))) == pytest.approx(0)
    assert variance_kept(np.ones((5, 3)), np.ones((5, 2))) is None


def test_a_score_without_a_mistake_has_an_interval(rows):
    _, labels, groups, train, test = rows
    features = np.array([[float(label[1])] * 8 for label in labels], np.float32)
    features = (features == np.arange(8)).astype(np.float32) + np.arange(8) * features / 9
    point = dimension_curve(features, labels, groups, train, test, "classification")[0]
    assert (point["complete"], point["high"]) == (1.0, 1.0)
    assert 0.98 < point["low"] < 0.9999
    assert point["loss"]["low"] == pytest.approx(point["low"] - 1)
    assert point["loss"]["high"] == pytest.approx(1 - point["low"])
