import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from barycenter.fusion.heads import LinearHead
from barycenter.fusion.heads._ridge_path import GramPath, HatPath, ridge_path
from barycenter.fusion.heads.targets import infer_task
from tests.fusion.calibration import expected_calibration_error


def blobs(n=300, d=12, classes=3, spread=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return (rng.normal(size=(n, d)) + spread * rng.normal(size=(classes, d))[y]).astype(np.float32), y


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(12, 60),
    d=st.integers(1, 40),
    ridge=st.sampled_from([1e-4, 1e-2, 1.0, 30.0]),
    seed=st.integers(0, 10**6),
)
def test_both_ways_give_what_fitting_every_part_anew_gives(n, d, ridge, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * rng.uniform(0.1, 5, d) + rng.normal(size=d) * 10
    Y, weights, fold = rng.normal(size=(n, 2)) + X[:, :1], rng.uniform(0.3, 3, n), np.arange(n) % 4
    mean = weights @ X / weights.sum()
    alpha = ridge * (weights @ (X - mean) ** 2).sum() / d
    expected = np.empty_like(Y)
    for number in range(4):
        train = fold != number
        model = Ridge(alpha=alpha).fit(X[train], Y[train], sample_weight=weights[train])
        expected[~train] = model.predict(X[~train])
    whole = Ridge(alpha=alpha).fit(X, Y, sample_weight=weights)
    for kind in (HatPath, GramPath):
        path = kind(X, Y, weights, fold)
        np.testing.assert_allclose(path.held_out(ridge), expected, atol=1e-6)
        coefficients, intercept = path.solve(ridge)
        np.testing.assert_allclose(X @ coefficients + intercept, whole.predict(X), atol=1e-6)


def test_the_cheaper_way_is_taken():
    def kind(n, d):
        rng = np.random.default_rng(0)
        return type(ridge_path(rng.normal(size=(n, d)), rng.normal(size=(n, 1)), np.ones(n), np.arange(n) % 5, 9))

    assert kind(400, 300) is HatPath
    assert kind(4000, 10) is GramPath


def test_classes_are_reported_apart_and_come_back_as_given():
    X, y = blobs()
    names = np.array(["ant", "bee", "cow"])[y]
    head = LinearHead().fit(X[:200], names[:200])
    assert head.task_ == "classification"
    assert head.classes_.tolist() == ["ant", "bee", "cow"]
    assert head.score(X[200:], names[200:]) > 0.95
    assert set(head.predict(X[200:]).tolist()) <= {"ant", "bee", "cow"}
    assert LinearHead().fit(X, y).predict(X[:1]).dtype.kind == "i"
    mixed = np.array(["a", 1, True], dtype=object)[y]
    assert LinearHead().fit(X, mixed).score(X, mixed) > 0.95


def test_more_features_than_rows():
    X, y = blobs(n=80, d=400, spread=0.5)
    assert LinearHead().fit(X[:60], y[:60]).score(X[60:], y[60:]) > 0.9


def test_the_ridge_follows_the_noise_and_scale_does_not_matter():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 150))
    clean = X @ rng.normal(size=150)
    noisy = clean + 100 * rng.normal(size=200)
    assert LinearHead().fit(X, clean).ridge_ < 1e-4 < LinearHead().fit(X, noisy).ridge_
    one, other = LinearHead().fit(X, noisy), LinearHead().fit(X * 1000, noisy)
    assert one.ridge_ == pytest.approx(other.ridge_)
    np.testing.assert_allclose(one.predict(X), other.predict(X * 1000), rtol=1e-6)


def test_held_out_score_is_no_fiction_on_noise():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 300)), rng.integers(0, 4, 400)
    head = LinearHead().fit(X, y)
    assert head.heldout_score_ < 0.35
    grouped = LinearHead().fit(np.repeat(X, 5, axis=0), np.repeat(y, 5), groups=np.repeat(np.arange(400), 5))
    assert grouped.heldout_score_ < 0.35
    assert LinearHead().fit(np.repeat(X, 5, axis=0), np.repeat(y, 5)).heldout_score_ > 0.9


def test_probabilities_are_calibrated_on_held_out_rows():
    X, y = blobs(n=3000, d=20, spread=0.35, classes=4)
    head = LinearHead().fit(X[:1500], y[:1500])
    probabilities = head.predict_proba(X[1500:])
    np.testing.assert_allclose(probabilities.sum(1), 1)
    hits = probabilities.argmax(1) == y[1500:]
    assert 0.4 < hits.mean() < 0.95
    assert expected_calibration_error(probabilities.max(1), hits) < 0.06


def test_class_weights_move_the_border_towards_the_frequent_class():
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.05).astype(int)
    X = rng.normal(size=(2000, 5)) + y[:, None]
    plain, balanced = LinearHead().fit(X, y), LinearHead(class_weight="balanced").fit(X, y)
    weighted = LinearHead(class_weight={1: 20.0}).fit(X, y)
    rare = y == 1
    assert balanced.predict(X)[rare].mean() > plain.predict(X)[rare].mean() + 0.3
    assert weighted.predict(X)[rare].mean() > plain.predict(X)[rare].mean() + 0.3


def test_label_sets_and_label_matrices():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6))
    matrix = (X[:, :3] + 0.2 * rng.normal(size=(500, 3)) > [0, 0.5, 1.5]).astype(int)
    sets = [[name for name, on in zip("abc", row, strict=True) if on] for row in matrix]
    head = LinearHead().fit(X, sets)
    assert head.task_ == "multilabel"
    assert head.score(X, sets) > 0.75
    assert sorted({label for labels in head.predict(X) for label in labels}) == ["a", "b", "c"]
    other = LinearHead(task="multilabel").fit(X, matrix)
    assert other.predict(X).shape == (500, 3)
    assert other.score(X, matrix) == head.score(X, sets)
    rates = head.predict_proba(X).mean(0)
    np.testing.assert_allclose(rates, matrix.mean(0), atol=0.03)


def test_regression_of_one_and_of_several_values():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 8)) + 50
    Y = X @ rng.normal(size=(8, 2)) + 0.1 * rng.normal(size=(300, 2)) + 7
    head = LinearHead().fit(X[:200], Y[:200, 0])
    assert head.task_ == "regression"
    assert head.score(X[200:], Y[200:, 0]) > 0.99
    assert head.predict(X).shape == (300,)
    assert LinearHead().fit(X, Y).predict(X).shape == (300, 2)
    with pytest.raises(AttributeError, match="no attribute 'predict_proba'"):
        head.predict_proba(X)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        ([1.5, 2.0], "regression"),
        ([1, 2], "classification"),
        (["a", "b"], "classification"),
        ([["a"], []], "multilabel"),
        (np.eye(2), "multilabel"),
        (np.array([[0.5, 2]]), "regression"),
        (np.array([True, False]), "classification"),
    ],
)
def test_the_task_is_reported_from_the_targets(y, task):
    assert infer_task(y) == task


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_saved_and_loaded_heads_say_the_same(tmp_path, kind):
    X, y = blobs()
    targets = {
        "classification": np.array(["ä", "b", "c"])[y],
        "multilabel": [["x"] * int(v > 0) + ["y"] * int(v > 1) for v in y],
        "regression": y + 0.5,
    }[kind]
    head = LinearHead(class_weight={"b": 2.0} if kind == "classification" else None).fit(X, targets)
    head.save(tmp_path / "head")
    assert sorted(path.name for path in (tmp_path / "head").iterdir()) == ["head.json", "head.safetensors"]
    loaded = LinearHead.load(tmp_path / "head")
    assert loaded.predict(X).tolist() == head.predict(X).tolist()
    assert loaded.get_params() == head.get_params()
    assert (loaded.task_, loaded.ridge_) == (head.task_, head.ridge_)
    assert loaded.classes_.tolist() == head.classes_.tolist()
    if kind != "regression":
        np.testing.assert_array_equal(loaded.predict_proba(X), head.predict_proba(X))
    about = json.loads((tmp_path / "head/head.json").read_text())
    (tmp_path / "head/head.json").write_text(json.dumps(about | {"format": "other"}))
    with pytest.raises(ValueError, match="not of format barycenter-"):
        LinearHead.load(tmp_path / "head")


def test_scikit_learn_manners():
    head = clone(LinearHead(ridge=0.5).set_params(folds=3))
    assert (head.ridge, head.folds) == (0.5, 3)
    X, y = blobs()
    assert head.fit(X, y).ridge_ == 0.5
    with pytest.raises(ValueError, match="Invalid parameter"):
        head.set_params(colour=1)
    for train, test in GroupKFold(3).split(X, y, np.arange(300) % 30):
        assert clone(head).fit(X[train], y[train]).score(X[test], y[test]) > 0.9


def test_few_rows_one_class_and_one_group():
    X = np.arange(4.0)[:, None]
    assert LinearHead().fit(X, ["a"] * 4).predict_proba(X).tolist() == [[1.0]] * 4
    assert LinearHead().fit(X[:1], ["a"]).predict(X).tolist() == ["a"] * 4
    head = LinearHead().fit(X, [0, 0, 1, 1], groups=["g"] * 4)
    assert head.predict(X).tolist() == [0, 0, 1, 1]
    assert np.isnan(head.heldout_score_)
    constant = LinearHead().fit(np.ones((6, 3)), [0, 1] * 3)
    assert np.isfinite(constant.predict_proba(np.ones((1, 3)))).all()


def test_wrong_input_is_named():
    X, y = blobs(n=20)
    bad = X.copy()
    bad[7, 2] = np.nan
    with pytest.raises(ValueError, match="row 7"):
        LinearHead().fit(bad, y)
    with pytest.raises(ValueError, match="20 rows of features and 19"):
        LinearHead().fit(X, y[:19])
    with pytest.raises(ValueError, match="X has 5 features, but LinearHead is expecting 12"):
        LinearHead().fit(X, y).predict(X[:, :5])
    for wrong in ({"ridge": 0}, {"folds": 1}, {"class_weight": {0: -1.0}}):
        with pytest.raises(ValueError, match=r"ridge|folds|weights"):
            LinearHead(**wrong).fit(X, y)
    with pytest.raises(ValueError, match="3 groups for 20"):
        LinearHead().fit(X, y, groups=[1, 2, 3])


@pytest.mark.parametrize(
    ("y", "task"),
    [
        ([0.0, 1.0, 0.0], "classification"),
        (np.array([0.0, 1.0, np.nan]), "classification"),
        (np.array([[1], [2], [2]]), "classification"),
        (np.array([[1.5], [2.0], [2.5]]), "regression"),
        ([0.5, 1, 2], "regression"),
        ([Decimal("0.5"), Decimal(1), None], "regression"),
        ([True, False, True], "classification"),
    ],
)
def test_numbers_are_a_regression_only_with_a_fraction(y, task):
    assert infer_task(y) == task


def test_a_column_of_targets_is_read_as_its_values():
    X = np.random.default_rng(0).normal(size=(60, 4))
    y = (X[:, :1] > 0).astype(int)
    head = LinearHead().fit(X, y)
    assert head.classes_.tolist() == [0, 1]
    assert head.predict(X).shape == (60,)
