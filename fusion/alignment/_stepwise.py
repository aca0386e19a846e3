"""Stepwise search for alignment, dimension, ridge and weights by a held-out criterion.

With a target the criterion is the accuracy of a cross-validated linear probe, the mean over complete rows and over each
input missing. Without one it is the mean of two shares on held-out rows: how often an input finds its partner among the
ten nearest, and how much of the inputs' variance the fused vector still explains. Candidates are tried from simple to
elaborate; one that is more elaborate has to win by more than the standard error of its lead.

With a target, `joint` may also be supervised by it (`target_share`): at half the columns of a concatenation its
principal components cut what separates classes. Only labels of training rows enter.

An input's weight w is one number with one meaning: `joint` seeks directions with block weights w squared, and the
average mixes with w. Other weights are no more elaborate than equal ones, so they win by any lead, over few rows, too:
the score of the best of four trials an input is then optimistic, and where inputs are alike the luck costs something
(three classes, accuracy on new rows against a lead beyond one standard error: 0.2 and 0.8 points at 40 and 80 rows,
nothing at 200), but where one is noise, waiting for a sure lead costs more (1.5 points at 40 rows). An input that adds
nothing and shares nothing is weighted down unless that does harm. Where the average is given, the weights are equal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from sklearn.base import clone

from barycenter.fusion.alignment._pairs import PairTrials
from barycenter.fusion.alignment._trial import COMPLETE, WITHOUT, ProbeTrials, TrialScores
from barycenter.fusion.alignment.eigenproblems import Weights, pair_correlations, spectrum
from barycenter.fusion.alignment.joint import Joint
from barycenter.fusion.alignment.linear import CCA, PCA, Procrustes
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.alignment.sample import Sample, Target
from barycenter.fusion.alignment.target_fill import head_fill_ridges
from barycenter.fusion.arrays import Float64
from barycenter.fusion.moments import FoldMoments, Moments

_TIMES = (0.25, 0.5, 2.0, 4.0)
_GAMMAS = (0.1, 0.02)
_TARGET_SHARE = 0.9
_TARGET_RIDGES = (0.3, 0.03, 0.003)
# Of the weight of an input that adds nothing and shares nothing.
_LITTLE = 1 / 16
_RIDGE = 0.1
# Directions of each input that trials of `joint` use, in multiples of dim.
_LEADING = 2

_KINDS: dict[str, type[LinearAlignment]] = {"joint": Joint, "cca": CCA, "procrustes": Procrustes, "pca": PCA}
CHOICES = tuple(_KINDS)
"""Names of the methods that can be chosen among, the simplest first."""

Average = Literal["auto", "mean"]


@dataclass(frozen=True)
class Trial:
    """One candidate and how it did.

    Attributes:
        alignment: Its parameters; not fitted.
        weights: Of the average, summing to one.
        scores: On held-out rows.
    """

    alignment: LinearAlignment
    weights: dict[str, float]
    scores: TrialScores

    @property
    def params(self) -> dict[str, Any]:
        """What distinguishes this candidate from the others."""
        return candidate_params(self.alignment, self.weights)

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        conditions = {name: round(value, 4) for name, value in self.scores.conditions().items()}
        weights = {name: round(value, 4) for name, value in self.weights.items()}
        return self.params | {"weights": weights, "score": round(self.scores.mean, 4)} | conditions


def candidate_params(alignment: LinearAlignment, weights: Mapping[str, float]) -> dict[str, Any]:
    """Method, dimension and weights, and what is particular to ``joint``."""
    params: dict[str, Any] = {"method": alignment.method, "dim": alignment.dim}
    if isinstance(alignment, Joint):
        params["gamma"] = alignment.gamma
        if alignment.target_share:
            params |= {"target_share": alignment.target_share, "target_ridge": alignment.target_ridge}
    return params | {"weights": dict(weights)}


class StepwiseSearch:
    """Tries candidates from simple to elaborate; for the arguments see :class:`AlignmentSearch`.

    Attributes:
        tried: Every candidate in the order in which it was tried.
        best: The best so far, once :meth:`run` has tried one.
        lead: Its lead over the simplest candidate, and the standard error of that.
    """

    def __init__(
        self,
        folds: FoldMoments,
        sample: Sample,
        dim: int | None,
        regularization: float | Literal["auto"],
        average: Average,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        self.widths = widths
        self.all_folds, self.all_names, self.average = folds, folds.total.names, average
        self.whole = sample.complete()
        self.folds, self.names, self.sample = folds, folds.total.varying or folds.total.names, self.whole
        if self.names != self.all_names:
            self.folds = folds.select(self.names)
            self.sample = replace(self.whole, views={name: self.whole.views[name] for name in self.names})
        self.dim, self.regularization = dim, regularization
        self.target = sample.labels is not None
        self.trials = ProbeTrials(self.folds, self.sample) if self.target else PairTrials(self.folds, self.sample)
        self.groups = np.unique([str(group) for group in self.trials.groups], return_inverse=True)[1]
        self.tried: list[Trial] = []
        self.uninformative: list[str] = []

    def run(
        self, methods: Sequence[str], half_dim: bool, correlated: bool, is_uncorrelated: Callable[[str], bool]
    ) -> None:
        """Finds the best candidate; whether the inputs, or one with the others, share anything is known elsewhere."""
        first, *others = (
            _KINDS[name](self.dim, self.regularization, len(self.folds), widths=self.widths) for name in methods
        )
        self.first = first
        if not self.trials.parts:
            return
        self.best = self.simplest = self._try(first)
        if len(self.names) < 2:
            return
        if self.target and self.average == "auto":
            self._down_weight_uninformative(is_uncorrelated)
            self._weigh()
        if correlated:
            self._vary([{"gamma": gamma} for gamma in _GAMMAS])
        if self.target:
            self._vary([{"target_share": _TARGET_SHARE, "target_ridge": ridge} for ridge in _TARGET_RIDGES])
        if not correlated:
            return
        self._stage([(other, None) for other in others])
        if half_dim and self.dim is not None and self.dim > 1:
            self._stage([(clone(self.best.alignment).set_params(dim=self.dim // 2), self.best.weights)])

    def _down_weight_uninformative(self, is_uncorrelated: Callable[[str], bool]) -> None:
        """Inputs that add nothing and share nothing get less weight, unless that does harm or all are like that."""
        rows = self.best.scores.rows
        found = []
        for name in self.names:
            gain, error = self._mean(rows[COMPLETE] - rows[WITHOUT + name])
            if gain <= 2 * error and is_uncorrelated(name):
                found.append(name)
        self.uninformative = found if len(found) < len(self.names) else []
        if self.uninformative:
            weights = {m: w * _LITTLE if m in self.uninformative else w for m, w in self.best.weights.items()}
            trial = self._try(*self._weighted(weights))
            lead, error = self._lead(trial, self.best)
            if lead >= -2 * error:
                self.best = trial

    def _weigh(self) -> None:
        """One input after the other, the first excepted: its weight times each factor."""
        for name in [name for name in self.names if name not in self.uninformative][1:]:
            weights = [self.best.weights | {name: self.best.weights[name] * times} for times in _TIMES]
            self._stage([self._weighted(each) for each in weights], errors=0.0)

    def _vary(self, settings: list[dict[str, float]]) -> None:
        """`joint` with other settings, where it is the best so far."""
        if isinstance(self.best.alignment, Joint):
            alignment, weights = self.best.alignment, self.best.weights
            self._stage([(clone(alignment).set_params(**each), weights) for each in settings])

    def _weighted(self, weights: dict[str, float]) -> tuple[LinearAlignment, dict[str, float]]:
        """The best alignment so far with other weights."""
        alignment = clone(self.best.alignment)
        if isinstance(alignment, Joint):
            alignment.set_params(block_weights={name: weight**2 for name, weight in weights.items()})
        return alignment, weights

    def _stage(self, candidates: list[tuple[LinearAlignment, dict[str, float] | None]], errors: float = 1.0) -> None:
        """The best of some candidates replaces the best so far if its lead is beyond so many standard errors."""
        trials = [self._try(alignment, weights) for alignment, weights in candidates]
        if not trials:
            return
        best = max(trials, key=lambda trial: trial.scores.mean)
        lead, error = self._lead(best, self.best)
        if lead > errors * error:
            self.best = best

    def _try(self, alignment: LinearAlignment, weights: dict[str, float] | None = None) -> Trial:
        shares = weights or dict.fromkeys(self.names, 1.0)
        shares = {name: share / sum(shares.values()) for name, share in shares.items()}

        def solve(moments: Moments, target: Target | None) -> Weights:
            found = _solved(alignment, moments, target)
            return {name: found[name] * shares[name] for name in found}

        self.tried.append(Trial(alignment, shares, self.trials.score(solve)))
        return self.tried[-1]

    def _lead(self, one: Trial, other: Trial) -> tuple[float, float]:
        """Mean lead and its standard error over groups."""
        return self._mean(one.scores.each - other.scores.each)

    def _mean(self, gap: Float64) -> tuple[float, float]:
        mean = float(gap.mean())
        sums = np.bincount(self.groups, gap - mean)
        if len(sums) < 2:
            return mean, np.inf
        return mean, float(np.sqrt(np.square(sums).sum() * len(sums) / (len(sums) - 1))) / len(gap)

    @property
    def lead(self) -> tuple[float, float]:
        """The best candidate's mean lead over the simplest one, and its standard error over groups."""
        return self._lead(self.best, self.simplest) if self.tried else (0.0, 0.0)

    def average_weights(self) -> dict[str, float]:
        """Weights of the average; inputs that never vary count nothing in it, unless all are to count the same."""
        if self.average == "mean":
            return dict.fromkeys(self.all_names, 1 / len(self.all_names))
        weights = self.best.weights if self.tried else dict.fromkeys(self.names, 1 / len(self.names))
        return {name: weights.get(name, 0.0) for name in self.all_names}

    def fit_best(self) -> tuple[LinearAlignment, float]:
        """The best candidate fitted on all rows, and the ridge of the probe that missing inputs are filled in for."""
        if not self.tried:
            return self.first.fit_moments(self.all_folds), 0.0
        alignment = clone(self.best.alignment)
        if isinstance(alignment, Joint) and not isinstance(alignment.block_weights, str):
            given = dict(alignment.block_weights)
            middle = sum(given.values()) / len(given)  # for the inputs that were left out, which have nothing to weigh
            alignment.set_params(block_weights={name: given.get(name, middle) for name in self.all_names})
        if self.regularization == "auto" and self.best.scores.fill_ridges:
            ridges = head_fill_ridges(self.sample) if len(self.names) == 2 else self.best.scores.fill_ridges
            alignment.set_params(fill_ridges=ridges, regularization=_RIDGE)
        fitted, ridge = self._fitted(alignment), 0.0
        if self.target and len(self.all_names) > 1:
            ridge = fitted.fill_for_target(self.all_folds.total, self.whole, self.average_weights())
        return fitted, ridge

    def _fitted(self, alignment: LinearAlignment) -> LinearAlignment:
        """Fitted on all folds; `joint` at a known ridge takes its held-out correlations from what its trial solved."""
        if not isinstance(alignment, Joint) or alignment.regularization == "auto" or len(self.names) < 2:
            return alignment.fit_moments(self.all_folds)
        target = self.whole.target() if alignment.target_share else None
        held_out = [
            pair_correlations(self.folds[number], _solved(alignment, train, its_target))
            for number, train, its_target in self.trials.training()
        ]
        return alignment.fit_moments([self.all_folds.total], target, held_out)


def _solved(alignment: LinearAlignment, moments: Moments, target: Target | None) -> Weights:
    """Weights for a trial: `joint` in each input's leading directions only."""
    ridge = _RIDGE if alignment.regularization == "auto" else float(alignment.regularization)
    limit = max(1, alignment.limit([spectrum(moments, name).rank for name in moments.names]))
    dim = alignment.dim or limit
    if isinstance(alignment, Joint):
        return alignment.solve_trial(moments, ridge, dim, _LEADING * dim, target)
    return alignment.solve(moments, ridge, min(dim, limit))
