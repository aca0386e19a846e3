"""Heads as scikit-learn's estimators: its own checks, and its tools around them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from barycenter.fusion.heads import LinearHead, NeuralHead
from tests.fusion.sklearn_checks import run_check

EXPECTED_FAILURES = {
    "check_dtype_object": "an array of objects is no matrix of numbers: what is None in it would become NaN unseen",
    "check_classifiers_regression_target": "numbers with fractions are classes where the task says so, as 1.5 stars",
    "check_supervised_y_2d": "a table of one column is a target like that column, without a warning",
}


def expected(head: LinearHead | NeuralHead) -> dict[str, str]:
    passed = {"check_supervised_y_2d"} if head.task == "regression" else set()
    return {check: why for check, why in EXPECTED_FAILURES.items() if check not in passed}


@parametrize_with_checks([LinearHead(task="classification"), LinearHead(task="regression")])
def test_linear_heads_pass_scikit_learns_checks(estimator, check):
    run_check(check, estimator, expected(estimator))


@pytest.mark.slow
@parametrize_with_checks([NeuralHead(task=task, hidden=4, epochs=5) for task in ("classification", "regression")])
def test_neural_heads_pass_scikit_learns_checks(estimator, check):
    run_check(check, estimator, expected(estimator))


def make_rows(n=120):
    rng = np.random.default_rng(0)
    y = np.array(["cat", "dog"] * (n // 2))
    return rng.normal(size=(n, 4)) + 2 * (y == "dog")[:, None], y


def test_a_grid_search_over_a_pipeline_sets_a_heads_parameters():
    X, y = make_rows()
    search = GridSearchCV(make_pipeline(StandardScaler(), LinearHead()), {"linearhead__ridge": [1e-3, 1e3]}, cv=3)
    assert search.fit(X, y).best_score_ > 0.8
    assert search.best_params_["linearhead__ridge"] in (1e-3, 1e3)


@pytest.mark.parametrize("scoring", [None, "roc_auc", "neg_log_loss"])
def test_scorers_read_two_classes(scoring):
    X, y = make_rows()
    scores = cross_val_score(LinearHead(), X, y, cv=3, scoring=scoring)
    assert np.isfinite(scores).all()
    assert scoring == "neg_log_loss" or scores.mean() > 0.8


def test_a_neural_head_works_on_features_alone_and_in_a_search():
    X, y = make_rows()
    search = GridSearchCV(NeuralHead(epochs=2, batch_size=32), {"hidden": [4, 8]}, cv=2).fit(X, y)
    assert search.score(X, y) > 0.8
    with pytest.raises(ValueError, match="kind gated needs the aligned inputs"):
        NeuralHead("gated").fit(X, y)


def test_clones_keep_their_parameters_and_nothing_learned():
    head = NeuralHead("gated", ["text", "image"], {"text": 2, "image": 1}, hidden=8)
    assert clone(head).get_params() == head.get_params()
    with pytest.raises(NotFittedError):
        clone(LinearHead().fit(*make_rows())).predict(make_rows()[0])


def test_the_task_says_what_kind_of_estimator_it_is():
    X, _ = make_rows()
    assert is_classifier(LinearHead())
    assert is_regressor(LinearHead(task="regression"))
    assert is_regressor(LinearHead().fit(X, X[:, 0]))
    assert not hasattr(LinearHead().fit(X, X[:, 0]), "predict_proba")
    assert "LinearHead(ridge=0.5)" in repr(LinearHead(ridge=0.5))


def test_columns_of_a_frame_are_known_by_name():
    X, y = make_rows()
    frame = pd.DataFrame(X, columns=list("abcd"))
    head = LinearHead().fit(frame, y)
    assert head.feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        head.predict(frame[list("dcba")])
