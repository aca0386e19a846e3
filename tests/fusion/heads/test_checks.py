"""What cannot be learnt is refused before the fit, by row, whatever the head."""

import datetime
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.exceptions import NotFittedError

from barycenter.fusion.heads import LinearHead, NeuralHead

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
SIDE = X[:, 0] > 0
WORDS = np.array(["a", "b"])[SIDE.astype(int)]


def with_first(value, values):
    return [value, *list(values)[1:]]


REFUSED = {
    "NaN among numbers": (with_first(np.nan, X[:, 0]), ValueError, r"row 0 is empty \(.*nan"),
    "infinity among numbers": (with_first(np.inf, X[:, 0]), ValueError, "row 0 .* not finite"),
    "None among classes": (with_first(None, WORDS), ValueError, r"row 0 is empty \(None\)"),
    "pandas NA": (pd.Series(with_first(pd.NA, WORDS), dtype="string"), ValueError, r"row 0 is empty \(<NA>\)"),
    "no time": (np.array(["NaT"] + ["2020-01-01"] * 39, "datetime64[D]"), ValueError, "row 0 is empty"),
    "dates": ([datetime.date(2020, 1, 1 + int(side)) for side in SIDE], TypeError, "row 0 is date; classes are text"),
    "bytes": ([b"a"] * 40, TypeError, "row 0 is bytes; classes are text"),
    "complex": (X[:, 0] + 1j, TypeError, "row 0 is complex"),
    "a list without labels": (with_first(None, [["a"]] * 40), ValueError, r"row 0 is empty \(None\)"),
    "a text among lists": (with_first("ab", [["ab"]] * 40), TypeError, "row 0 is str; multilabel targets are lists"),
    "an empty label": (with_first([None], [["ab"]] * 40), ValueError, "row 0 holds an empty label"),
    "a text": ("ab" * 20, TypeError, "one a row in a list or an array, got str"),
    "one number": (np.array(3), TypeError, "one a row"),
    "three axes": (np.zeros((40, 2, 2)), TypeError, r"\(40, 2, 2\)"),
    "NaN in a matrix": (np.where(np.arange(40)[:, None] < 3, np.nan, X), ValueError, "row 0 is not finite"),
    "huge numbers": (X[:, 0] * 1e300 + 0.5e-3, ValueError, "targets: values as large as"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_targets_that_cannot_be_learnt_are_refused_by_row(case, head):
    y, error, message = REFUSED[case]
    task = "regression" if case == "huge numbers" else "auto"
    model, aligned = LinearHead(task=task), ()
    if head == "mlp":
        model, aligned = NeuralHead("mlp", ["a"], task=task), ({"a": X},)
    with pytest.raises(error, match=message):
        model.fit(X, y, *aligned)


@pytest.mark.parametrize(
    ("task", "y", "message"),
    [
        ("clasification", WORDS, "task must be auto, classification, multilabel, regression"),
        ("multilabel", SIDE.astype(int), "row 0 is int64; multilabel targets are lists"),
        ("multilabel", X[:, :2], "holds 0 and 1 only"),
        ("regression", WORDS, "row 0 is .*; a regression needs numbers"),
        ("classification", X[:, :2], "one class a row"),
        ("classification", [["a"]] * 40, "row 0 is list"),
    ],
)
def test_a_task_that_does_not_fit_its_targets_is_refused(task, y, message):
    with pytest.raises((TypeError, ValueError), match=message):
        LinearHead(task=task).fit(X, y)


@pytest.mark.parametrize(
    ("values", "name"),
    [(X * 1e200, "as large as"), ((X * 1e-42).astype(np.float32), "too little"), (X * 1e-200, "too little")],
)
def test_features_whose_scale_no_float_holds_are_refused(values, name):
    warnings.simplefilter("error")
    with pytest.raises(ValueError, match=f"features: .*{name}.*rescale"):
        LinearHead().fit(values, WORDS)


@pytest.mark.parametrize(
    "y", [pa.array(WORDS.tolist()), pd.Series(WORDS, index=np.arange(40)[::-1]), pd.DataFrame({"y": WORDS})]
)
def test_columns_of_tables_are_targets(y):
    assert LinearHead().fit(X, y).predict(X).tolist() == LinearHead().fit(X, WORDS).predict(X).tolist()
    assert LinearHead().fit(X, WORDS).score(X, y) > 0.9


def test_tensors_are_targets(tmp_path):
    head = LinearHead().fit(X, torch.tensor(SIDE.astype(int)))
    head.save(tmp_path)
    assert LinearHead.load(tmp_path).classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ridge": "x"}, "ridge must be"), ({"ridge": np.inf}, "ridge must be"), ({"folds": 2.5}, "folds must be"),
        ({"folds": "5"}, "folds must be"), ({"seed": -1}, "seed must be"), ({"class_weight": "bal"}, "class_weight"),
        ({"class_weight": {"a": np.inf}}, "class weights must be"),
    ],
)  # fmt: skip
def test_settings_are_refused_by_name(setting, message):
    with pytest.raises(ValueError, match=message):
        LinearHead(**setting).fit(X, WORDS)


@pytest.mark.parametrize(
    "setting",
    [{"batch_size": 2.5}, {"learning_rate": -1}, {"learning_rate": "x"}, {"weight_decay": np.nan}, {"seed": -1}],
)
def test_settings_of_a_neural_head_are_refused_by_name(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))} must be"):
        NeuralHead("mlp", ["a", "b"], **setting).fit(X, WORDS)


def test_a_neural_head_takes_every_input_once():
    with pytest.raises(ValueError, match="twice"):
        NeuralHead("mlp", ["a", "a"]).fit(X, WORDS)


def test_what_is_not_fitted_says_so():
    with pytest.raises(NotFittedError):
        LinearHead().predict(X)
    with pytest.raises(NotFittedError):
        NeuralHead("mlp", ["a"]).predict_proba(X, {"a": X})


def test_scores_need_as_many_targets_as_rows():
    head = LinearHead().fit(X, WORDS)
    with pytest.raises(ValueError, match="5 true values and 40 predictions"):
        head.score(X, WORDS[:5])
    head = LinearHead().fit(X, [["a"] if side else [] for side in SIDE])
    with pytest.raises(ValueError, match="40 rows of features and 1 targets"):
        head.score(X, [["a"]])
