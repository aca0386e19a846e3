"""What every head is: a scikit-learn classifier or regressor whose scores have a calibrated meaning."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.heads._calibration import CalibratedScores
from barycenter.fusion.heads.checks import as_targets
from barycenter.fusion.heads.targets import Targets, Task, as_array
from barycenter.fusion.validation import as_matrix

Aligned = Mapping[str, NDArray[Any]]


def _has_classes(head: "Head") -> bool:
    """Whether a head has what only classifiers have."""
    return getattr(head, "task_", head.task) != "regression"


class Head(BaseEstimator, ABC):  # type: ignore[misc]
    """Base of all heads: what is done with scores, whoever makes them.

    A head is a classifier or a regressor by its ``task``; with ``auto`` it passes for a classifier until it is fitted.

    Attributes:
        task_: The task.
        scores_: What the scores mean: targets and calibration.
        heldout_score_: :meth:`score` of the out-of-fold predictions; NaN where there was no fold to hold out.
        n_features_in_: Width of the features; ``feature_names_in_`` are their names, where they have some.
    """

    FORMAT: ClassVar[str]
    task: Task | Literal["auto"]
    task_: Task
    scores_: CalibratedScores
    heldout_score_: float

    @abstractmethod
    def raw_scores(self, X: FloatArray, aligned: Aligned | None = None) -> Float64:
        """(n, k) scores, a column for each class, label or value.

        Raises:
            NotFittedError: Before :meth:`fit`.
            ValueError: If the width is not that of the training rows, or a feature is not finite.
        """

    @property
    def classes_(self) -> NDArray[Any]:
        """(k,) classes or labels, in column order; none for a regression."""
        return as_array(self.scores_.targets.classes)

    @available_if(_has_classes)  # type: ignore[untyped-decorator]
    def decision_function(self, X: FloatArray, aligned: Aligned | None = None) -> Float64:
        """(n, k) scores; of two classes (n,), how much the second has more than the first."""
        scores = self.raw_scores(X, aligned)
        if self.task_ == "classification" and scores.shape[1] == 2:
            return np.asarray(scores[:, 1] - scores[:, 0])
        return scores

    def predict(self, X: FloatArray, aligned: Aligned | None = None) -> NDArray[Any]:
        """Targets in the form they were given in: (n,) classes, label lists or values, or an (n, k) matrix."""
        scores = self.raw_scores(X, aligned)
        return self.scores_.decode(scores)

    @available_if(_has_classes)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: FloatArray, aligned: Aligned | None = None) -> Float64:
        """(n, k) calibrated probabilities of classes (each row sums to 1) or of labels."""
        scores = self.raw_scores(X, aligned)
        return self.scores_.probabilities(scores)

    def score(self, X: FloatArray, y: Sequence[Any] | NDArray[Any], aligned: Aligned | None = None) -> float:
        """Accuracy in 0..1 (of whole label sets for multilabel), or R2 for regression."""
        scores = self.raw_scores(X, aligned)
        return self.scores_.score(scores, as_targets(y))

    def _features(self, X: Any, reset: bool = False) -> FloatArray:
        """(n, d) finite features, as wide as those of :meth:`fit` unless ``reset``."""
        if not reset:
            check_is_fitted(self)
        checked = features(X)
        validate_data(self, X if hasattr(X, "columns") else checked, reset=reset, skip_check_array=True)
        return checked

    def _header(self, own: dict[str, Any], **params: Any) -> dict[str, Any]:
        """What JSON can hold of a fitted head: its kind's own values, the constructor's arguments (or ``params``)."""
        given = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters} | params
        if isinstance(given["class_weight"], Mapping):
            given["class_weight"] = list(given["class_weight"].items())
        targets = self.scores_.targets
        about = {"format": self.FORMAT, "version": 1, "task": self.task_, "classes": targets.classes}
        score = None if np.isnan(self.heldout_score_) else self.heldout_score_
        return about | {"shape": targets.shape} | own | {"heldout_score": score, "params": given}

    @classmethod
    def _of_header(cls, about: dict[str, Any], slope: Float64, offset: Float64) -> Self:
        """A head without its coefficients."""
        params = about["params"]
        if isinstance(params["class_weight"], list):
            params = params | {"class_weight": dict(params["class_weight"])}
        head = cls(**params)
        head.task_ = about["task"]
        head.heldout_score_ = float("nan") if about["heldout_score"] is None else about["heldout_score"]
        targets = Targets(about["task"], about["classes"], about["shape"])
        head.scores_ = CalibratedScores(targets, slope, offset)
        return head

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "scores_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        task = getattr(self, "task_", self.task)
        tags.target_tags.required = True
        tags.target_tags.multi_output = task in ("multilabel", "regression")
        if task == "regression":
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        else:
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags(multi_label=task != "classification")
        return tags


def features(values: Any) -> FloatArray:
    """(n, d) finite floats, float32 unless they are float64.

    Raises:
        ValueError: On another shape, or naming the first row that is not finite.
    """
    X: FloatArray = as_matrix("features", values)
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = np.flatnonzero(~np.isfinite(X.sum(axis=1)))
    wrong = wrong[~np.isfinite(X[wrong]).all(axis=1)]
    if len(wrong):
        raise ValueError(f"features of row {int(wrong[0])} are NaN or infinite; impute or leave out such rows first")
    return X
