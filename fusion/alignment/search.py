"""The alignment that held-out rows prefer, in the manner of scikit-learn's searches."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from barycenter.fusion.alignment._stepwise import CHOICES, Average, StepwiseSearch, candidate_params
from barycenter.fusion.alignment.base import views_as_arrays
from barycenter.fusion.alignment.eigenproblems import spectrum
from barycenter.fusion.alignment.joint import Joint
from barycenter.fusion.alignment.linear import CCA
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.alignment.sample import Sample
from barycenter.fusion.alignment.significance import Significance, significance
from barycenter.fusion.arrays import FloatArray
from barycenter.fusion.heads.checks import as_targets
from barycenter.fusion.heads.targets import Task
from barycenter.fusion.moments import FoldMoments
from barycenter.fusion.parameters import check_whole
from barycenter.fusion.validation import check_views

_TESTED = {"dim": 16, "leading": 128, "rows": 5000}
# An input counts as soon as it shares anything; that is tested for each input, so at a lower level.
_STRICT: dict[str, Any] = {"permutations": 99, "level": 0.01}


@views_as_arrays
class AlignmentSearch(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Chooses a linear alignment and the weights of its average, and fits them on all rows.

    With a target the criterion is the score of a cross-validated linear probe, without one held-out retrieval and the
    share of the inputs that is kept. Candidates go from simple to elaborate; see
    :mod:`barycenter.fusion.alignment._stepwise`.

    Args:
        dim: Number of components at most; None for as many as the data allow.
        regularization: Ridge of what is fitted, or ``auto``.
        methods: Which may win; the first is the simplest.
        average: ``mean`` keeps the weights equal.
        half_dim: Try half the dimensions, too.
        folds: Cross-validation folds of :meth:`fit`.
        task: What the targets are; see :class:`barycenter.fusion.heads.LinearHead`.
        widths: ``{name: columns}`` of the inputs, in order, where :meth:`fit` is given one matrix of all of them.

    Attributes:
        best_estimator_: The winner, fitted on all rows.
        best_params_: What distinguishes it from the other candidates, the weights of the average among it.
        best_score_: Its mean over held-out rows and conditions; NaN where there were too few rows to hold any out.
        best_index_: Its place in ``cv_results_``; None where nothing was tried.
        cv_results_: Every candidate, the highest score first: ``params``, ``mean_test_score``, ``rank_test_score``, and
            ``mean_test_<condition>``, the score of complete rows or of those without an input.
        average_: ``mean`` or ``weighted``.
        average_weights_: Of the average, summing to one.
        tried_: ``cv_results_`` as rows for a report, rounded.
        chosen_by_: The criterion, or why there was none.
        lead_: The winner's lead over the simplest candidate, and its standard error (infinite with a single group).
        significance_: How many correlations between inputs are more than chance; None where that cannot be tested.
        probe_ridge_: Of the probe that missing inputs are filled in for; 0 without a target.

    Examples:
        >>> rng = np.random.default_rng(1)
        >>> z = rng.normal(size=(400, 3))
        >>> views = {m: z @ rng.normal(size=(3, 5)) + 0.1 * rng.normal(size=(400, 5)) for m in ("text", "image")}
        >>> views["noise"] = rng.normal(size=(400, 40))
        >>> search = AlignmentSearch(dim=4).fit(views, z[:, 0] > 0)
        >>> search.best_params_["method"], search.average_weights_["noise"] < 0.1, search.best_score_ > 0.8
        ('joint', True, True)
    """

    best_estimator_: LinearAlignment
    best_score_: float
    average_: str
    average_weights_: dict[str, float]

    def __init__(
        self,
        dim: int | None = None,
        regularization: float | Literal["auto"] = "auto",
        methods: Sequence[str] = CHOICES,
        average: Average = "auto",
        half_dim: bool = False,
        folds: int = 5,
        task: Task | Literal["auto"] = "auto",
        widths: Mapping[str, int] | None = None,
    ) -> None:
        self.dim, self.regularization, self.methods, self.average = dim, regularization, methods, average
        self.half_dim, self.folds, self.task, self.widths = half_dim, folds, task, widths

    def fit(self, X: Any, y: Any = None, *, groups: Iterable[object] | None = None) -> Self:
        """Searches and fits.

        Args:
            X: ``{name: (n, d)}``, or one matrix of all inputs; all-NaN rows of an input are missing.
            y: n targets, where there is one; empty ones are left out.
            groups: n values; rows with equal ones share a fold.

        Raises:
            ValueError: See :meth:`Alignment.fit`; also on unknown methods.
        """
        check_whole("folds", self.folds)
        views, given = check_views(X, self.widths), None if groups is None else list(groups)
        sample = Sample(views, given, None if y is None else as_targets(y), self.task)
        return self.fit_moments(FoldMoments.of(views, self.folds, given), sample)

    def fit_moments(self, folds: FoldMoments, sample: Sample) -> Self:
        """Searches and fits on moments.

        Args:
            folds: Moments of the training rows.
            sample: Some or all of these rows, with their labels where there is a target; folds are those of the groups.

        Raises:
            ValueError: See :meth:`LinearAlignment.fit_moments`; also on unknown methods.
        """
        if not self.methods or not set(self.methods) <= set(CHOICES):
            raise ValueError(f"methods must be some of {', '.join(CHOICES)}, not {', '.join(self.methods) or 'none'}")
        search = StepwiseSearch(folds, sample, self.dim, self.regularization, self.average, self.widths)
        found = _significance(search.folds, search.sample)

        def is_uncorrelated(name: str) -> bool:
            alone = found if len(search.names) == 2 else _significance(search.folds, search.sample, name)
            return alone is not None and alone.n_significant == 0

        search.run(self.methods, self.half_dim, found is None or found.n_significant > 0, is_uncorrelated)
        self.significance_, self.lead_, self.average_weights_ = found, search.lead, search.average_weights()
        self.average_ = "mean" if len(set(self.average_weights_.values())) == 1 else "weighted"
        self.best_estimator_, self.probe_ridge_ = search.fit_best()
        self._keep_results(search)
        self.chosen_by_ = _criterion(search, found)
        return self

    def _keep_results(self, search: StepwiseSearch) -> None:
        trials = sorted(search.tried, key=lambda trial: -trial.scores.mean)
        self.tried_ = [trial.to_dict() | ({"chosen": True} if trial is search.best else {}) for trial in trials]
        scores = np.array([trial.scores.mean for trial in trials])
        self.cv_results_ = {
            "params": [trial.params for trial in trials],
            "mean_test_score": scores,
            "rank_test_score": rankdata(-scores, method="min").astype(np.int32),
        }
        for condition in trials[0].scores.rows if trials else ():
            means = [trial.scores.conditions()[condition] for trial in trials]
            self.cv_results_[f"mean_test_{condition}"] = np.array(means)
        best = search.best if trials else None
        self.best_index_ = next((place for place, trial in enumerate(trials) if trial is best), None)
        self.best_score_ = best.scores.mean if best else float("nan")
        self.best_params_ = best.params if best else candidate_params(search.first, self.average_weights_)

    def transform(self, X: Any) -> Any:
        """``{name: (n, dim)}`` in the common space; of one matrix of all inputs, the fused vectors."""
        check_is_fitted(self)
        return self.best_estimator_.transform(X) if isinstance(X, Mapping) else self.fuse(X)

    def fuse(self, X: Any) -> FloatArray:
        """(n, dim) fused vectors, missing inputs filled in."""
        check_is_fitted(self)
        weights = self.average_weights_ if self.average_ == "weighted" else None
        return self.best_estimator_.fuse(X, self.average_, weights)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[Any]:
        """Names of the fused columns."""
        check_is_fitted(self)
        names: NDArray[Any] = self.best_estimator_.get_feature_names_out(input_features)
        return names

    @property
    def n_features_in_(self) -> dict[str, int]:
        """``{name: width}`` of the inputs seen in fit."""
        return self.best_estimator_.n_features_in_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "best_estimator_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        best, (lead, error) = self.best_estimator_, self.lead_
        rounded = {"mean": round(lead, 4), "standard_error": round(error, 4) if np.isfinite(error) else None}
        summary: dict[str, Any] = {"chosen_by": self.chosen_by_, "tried": self.tried_, "lead": rounded}
        summary |= {"fill_ridges": best.fill_ridges, "probe_ridge": self.probe_ridge_}
        if isinstance(best, Joint):
            summary |= {"gamma": best.gamma_, "target_share": best.target_share}
        if self.significance_ is not None:
            found = self.significance_
            summary["significant"] = {
                "components": found.n_significant,
                "tested": len(found.heldout_correlations),
                "chance": round(found.noise_edge, 4),
                "strongest": round(float(found.heldout_correlations.max()), 4),
            }
        return summary


def _criterion(search: StepwiseSearch, found: Significance | None) -> str:
    if not search.tried:
        return "default: too few rows to hold any out"
    if search.target:
        return "cross-validated probe, complete and with each input missing"
    if found is not None and found.n_significant == 0:
        return "default: no correlation between the inputs survives the permutation test"
    return "held-out retrieval and share of the inputs kept"


def _significance(folds: FoldMoments, sample: Sample, one: str | None = None) -> Significance | None:
    """How many correlations of the leading directions are more than chance, of all inputs or of one with the others."""
    rows = Sample(sample.views, sample.groups).complete()
    total = folds.total
    if len(total.names) < 2 or len(rows) < 10 * len(folds) or total.n < 10:
        return None
    assert rows.groups is not None
    kept = min(len(rows), _TESTED["rows"])
    views = {}
    for name, columns in total.columns.items():
        basis = spectrum(total, name).vectors[:, : _TESTED["leading"]]
        if not basis.shape[1]:
            return None
        views[name] = (rows.views[name][:kept] - total.mean[columns]) @ basis
    if one is not None:
        views = {one: views.pop(one), "others": np.hstack(list(views.values()))}
    dim = min(_TESTED["dim"], CCA.dim_limit([values.shape[1] for values in views.values()]))
    test = CCA(dim, folds=len(folds), regularization=1.0)
    level = {} if one is None else _STRICT
    with warnings.catch_warnings():
        # Its inputs are made here: their rank is no news of the user's, and no input is called `others`.
        warnings.filterwarnings("ignore", message=r"\w+: rank \d+ of \d+ columns|dim \d+ clipped to")
        try:
            return significance(test, views, list(islice(rows.groups, kept)), **level)
        except ValueError:
            return None


def labeled_moments(labeled: FoldMoments, others: FoldMoments) -> FoldMoments:
    """The rows to fit on where there is a target: those with a label where they are the most, else all.

    A head learns from labeled rows only; what fills in for a missing input suits it best when it comes from the same
    rows (2,008 emoji, 168 without a label: 0.2 to 0.4 points in every condition).
    """
    return labeled if _rows(labeled) >= _rows(others) else labeled.merge(others)


def _rows(folds: FoldMoments) -> int:
    return sum(part.n for part in folds.parts)
