"""The linear head: closed-form ridge regression on classes, label sets or values, calibrated on held-out rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.heads._calibration import CalibratedScores
from barycenter.fusion.heads._ridge_path import RidgePath, ridge_path
from barycenter.fusion.heads.base import Aligned, Head
from barycenter.fusion.heads.checks import as_targets, check_scale, checked_targets
from barycenter.fusion.heads.targets import Targets, Task
from barycenter.fusion.parameters import check_whole, is_number
from barycenter.fusion.serialization import load_estimator, save_estimator
from barycenter.fusion.splits import fold_of

_HEAD_RIDGES = tuple(10.0**power for power in range(-7, 3, 2))
_STEPS = (10.0, 10.0**0.5)
_DEFAULT_RIDGE = 1e-2


@dataclass(eq=False, repr=False)
class LinearHead(Head):
    """Ridge regression on one-hot classes, 0/1 labels or values, a scikit-learn estimator.

    The ridge is relative to the mean variance of the features, so rescaling all of them changes nothing. ``auto``
    chooses it by held-out accuracy (classification) or squared error, on a grid of hundredfold steps that is halved
    (in logarithm) twice around the best; ties go to the larger. Probabilities are calibrated on the same held-out
    predictions: one temperature for classes (Guo et al. 2017), a slope and an offset for every label (Platt 1999).

    Args:
        task: ``classification``, ``multilabel`` (lists of labels, or a 0/1 matrix) or ``regression``; ``auto`` says
            from the targets.
        ridge: A number > 0, or ``auto``.
        folds: Number of folds.
        class_weight: ``balanced``, or ``{class: weight}``; classification only.
        seed: Of the folds, where no groups are given.

    Attributes:
        ridge_: The ridge used.
        coef_: (d, k) coefficients.
        intercept_: (k,) intercepts.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> y = np.array(["cat", "dog"] * 50)
        >>> X = rng.normal(size=(100, 3)) + (y == "dog")[:, None] * 3
        >>> head = LinearHead().fit(X, y)
        >>> head.score(X, y) > 0.9, head.predict(X[:2]).tolist()
        (True, ['cat', 'dog'])
    """

    FORMAT = "barycenter-linear-head"

    task: Task | Literal["auto"] = "auto"
    ridge: float | Literal["auto"] = "auto"
    folds: int = 5
    class_weight: Literal["balanced"] | Mapping[Any, float] | None = None
    seed: int = 0

    def fit(self, X: FloatArray, y: Any, *, groups: Iterable[object] | None = None) -> Self:
        """Fits the head.

        Args:
            X: (n, d) features, finite.
            y: n targets.
            groups: n values; rows with equal ones share a fold.

        Raises:
            TypeError: If targets are not one a row, or of a type that cannot be learned.
            ValueError: If rows differ in number, there are none, a feature is not finite, a target is empty or not
                finite, or a setting is out of range.
        """
        X = self._features(X, reset=True)
        y = as_targets(y)
        self._check(X, y)
        y, self.task_ = checked_targets(y, self.task)
        targets = Targets.of(y, self.task_)
        Y = targets.encode(y)
        check_scale("features", X)
        check_scale("targets", Y, 1e-150)
        fold = self._fold(Y, groups)
        weights = targets.row_weights(Y, self.class_weight)
        path = ridge_path(X, Y, weights, fold, len(_HEAD_RIDGES) + 2 * len(_STEPS))
        held_out = len(np.unique(fold)) > 1
        self.ridge_ = self._choose(path, Y, weights) if held_out and self.ridge == "auto" else _DEFAULT_RIDGE
        if self.ridge != "auto":
            self.ridge_ = float(self.ridge)
        self.coef_, self.intercept_ = path.solve(self.ridge_)
        scores = path.held_out(self.ridge_) if held_out else X @ self.coef_ + self.intercept_
        self.scores_ = CalibratedScores.calibrated(targets, scores, Y, weights)
        self.heldout_score_ = self.scores_.score(scores, y) if held_out else float("nan")
        return self

    def raw_scores(self, X: FloatArray, aligned: Aligned | None = None) -> Float64:  # noqa: ARG002
        """See :meth:`Head.raw_scores`; aligned inputs are not used."""
        X = self._features(X)
        return np.asarray(X @ self.coef_.astype(X.dtype) + self.intercept_, dtype=np.float64)

    def save(self, folder: str | Path) -> None:
        """Writes ``head.safetensors`` and ``head.json``."""
        arrays = {"coef": self.coef_, "intercept": self.intercept_}
        arrays |= {"slope": self.scores_.slope, "offset": self.scores_.offset}
        save_estimator(folder, "head", self._header({"ridge": self.ridge_}), arrays)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The head that :meth:`save` wrote.

        Raises:
            ValueError: If the folder holds something else.
        """
        about, arrays = load_estimator(folder, "head", cls.FORMAT, 1)
        head = cls._of_header(about, arrays["slope"], arrays["offset"])
        head.coef_, head.intercept_, head.ridge_ = arrays["coef"], arrays["intercept"], about["ridge"]
        head.n_features_in_ = len(head.coef_)
        return head

    def _check(self, X: FloatArray, y: Sequence[Any] | NDArray[Any]) -> None:
        if len(X) != len(y) or not len(X):
            raise ValueError(f"{len(X)} rows of features and {len(y)} targets; both must be as many, at least one")
        if self.ridge != "auto" and not (is_number(self.ridge) and self.ridge > 0):
            raise ValueError(f"ridge must be above 0 or 'auto', not {self.ridge!r}")
        check_whole("folds", self.folds, least=2)
        check_whole("seed", self.seed, optional=True, least=0)

    def _fold(self, Y: Float64, groups: Iterable[object] | None) -> NDArray[np.int64]:
        if groups is not None:
            fold = fold_of(groups, self.folds)
            if len(fold) != len(Y):
                raise ValueError(f"{len(fold)} groups for {len(Y)} rows")
            return fold
        order = np.random.default_rng(self.seed).permutation(len(Y))
        if self.task_ == "classification":
            order = order[np.argsort(Y[order].argmax(axis=1), kind="stable")]
        fold = np.empty(len(Y), dtype=np.int64)
        fold[order] = np.arange(len(Y)) % self.folds
        return fold

    def _choose(self, path: RidgePath, Y: Float64, weights: Float64) -> float:
        """The ridge whose held-out predictions are best."""

        def quality(ridge: float) -> tuple[float, float]:
            scores = path.held_out(ridge)
            if self.task_ == "classification":
                return float(weights @ (scores.argmax(axis=1) == Y.argmax(axis=1))), ridge
            return -float((weights @ (scores - Y) ** 2).sum()), ridge

        best = max(quality(ridge) for ridge in _HEAD_RIDGES)
        for step in _STEPS:
            best = max(best, quality(best[1] / step), quality(best[1] * step))
        return best[1]
