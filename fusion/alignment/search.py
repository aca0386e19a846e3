"""`auto`: alignment, dimension, ridge and weights by a held-out criterion, and an account of what was tried.

With a target the criterion is the accuracy of a cross-validated linear probe, the mean over complete rows and over each
input missing. Without one it is the mean of two shares on held-out rows: how often an input finds its partner among the
ten nearest, and how much of the inputs' variance the fused vector still explains. Candidates are tried from simple to
elaborate; one that is more elaborate has to win by more than the standard error of its lead.

With a target, `joint` may also be drawn to it (`target_share`): at half the columns of a concatenation its principal
components cut what separates classes. Only labels of training rows enter.

An input's weight w is one number with one meaning: `joint` seeks directions with block weights w squared, and the
average mixes with w. Other weights are no more elaborate than equal ones, so they win by any lead, over few rows, too:
the score of the best of four trials an input is then optimistic, and where inputs are alike the luck costs something
(three classes, accuracy on new rows against a lead beyond one standard error: 0.2 and 0.8 points at 40 and 80 rows,
nothing at 200), but where one is noise, waiting for a sure lead costs more (1.5 points at 40 rows). An input that adds
nothing and shares nothing is turned down unless that does harm. Where the average is given, the weights are equal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from barycenter.fusion.alignment._pairs import PairTrials
from barycenter.fusion.alignment._trial import COMPLETE, WITHOUT, ProbeTrials, Scores
from barycenter.fusion.alignment.eigenproblems import Weights, pair_correlations, spectrum
from barycenter.fusion.alignment.joint import Joint
from barycenter.fusion.alignment.linear import CCA, PCA, Procrustes
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.alignment.sample import Sample, Target
from barycenter.fusion.alignment.significance import Significance, significance
from barycenter.fusion.alignment.target_fill import head_fill_ridges
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.fusion.validation import FloatArray, Views

Float64 = NDArray[np.float64]

_TIMES = (0.25, 0.5, 2.0, 4.0)
_GAMMAS = (0.1, 0.02)
_PULLED = 0.9
_PULL_RIDGES = (0.3, 0.03, 0.003)
_SILENT = 1 / 16
_RIDGE = 0.1
# Directions of each input that trials of `joint` look at, in multiples of dim.
_LEADING = 2
_TESTED = {"dim": 16, "leading": 128, "rows": 5000}
# An input counts as soon as it shares anything; that is tested for each input, so at a lower level.
_STRICT: dict[str, Any] = {"permutations": 99, "level": 0.01}

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
    scores: Scores

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        about: dict[str, Any] = {"method": self.alignment.method, "dim": self.alignment.dim}
        if isinstance(self.alignment, Joint):
            about["gamma"] = self.alignment.gamma
            if self.alignment.target_share:
                about |= {"target_share": self.alignment.target_share, "target_ridge": self.alignment.target_ridge}
        about["weights"] = {name: round(value, 4) for name, value in self.weights.items()}
        conditions = {name: round(value, 4) for name, value in self.scores.conditions().items()}
        return about | {"score": round(self.scores.mean, 4)} | conditions


@dataclass(frozen=True)
class Choice:
    """What `auto` settled on.

    Attributes:
        alignment: Fitted on all folds.
        average: ``mean`` or ``weighted``.
        weights: Of the average, summing to one.
        chosen_by: The criterion, or why there was none.
        tried: Every candidate, best first; the winner is marked.
        lead: The winner's lead over the simplest candidate, and its standard error (infinite with a single group).
        significance: How many correlations between inputs are more than chance; None where that cannot be tested.
        probe_ridge: Of the probe that missing inputs are filled in for; 0 without a target.
    """

    alignment: LinearAlignment
    average: str
    weights: dict[str, float]
    chosen_by: str
    tried: list[dict[str, Any]]
    lead: tuple[float, float]
    significance: Significance | None
    probe_ridge: float = 0.0

    def fuse(self, views: Views) -> FloatArray:
        """(n, dim) fused vectors, missing inputs filled in."""
        return self.alignment.fuse(views, self.average, self.weights if self.average == "weighted" else None)

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        error = round(self.lead[1], 4) if np.isfinite(self.lead[1]) else None
        lead = {"mean": round(self.lead[0], 4), "standard_error": error}
        summary: dict[str, Any] = {"chosen_by": self.chosen_by, "tried": self.tried, "lead": lead}
        summary |= {"fill_ridges": self.alignment.fill_ridges, "probe_ridge": self.probe_ridge}
        if isinstance(self.alignment, Joint):
            summary |= {"gamma": self.alignment.gamma_, "target_share": self.alignment.target_share}
        if self.significance is not None:
            found = self.significance
            summary["significant"] = {
                "components": found.n_significant,
                "tested": len(found.heldout_correlations),
                "chance": round(found.noise_edge, 4),
                "strongest": round(float(found.heldout_correlations.max()), 4),
            }
        return summary


def choose(
    folds: FoldMoments,
    sample: Sample,
    dim: int | None = None,
    regularization: float | Literal["auto"] = "auto",
    methods: Sequence[str] = CHOICES,
    average: Average = "auto",
    shorter: bool = False,
) -> Choice:
    """Chooses a linear alignment and the weights of its average.

    Args:
        folds: Moments of the training rows.
        sample: Some or all of these rows, with their labels where there is a target; folds are those of the groups.
        dim: Number of components at most; None for as many as the data allow.
        regularization: Ridge of what is fitted, or ``auto``.
        methods: Which may win; the first is the simplest.
        average: ``mean`` keeps the weights equal.
        shorter: Try half the dimensions, too.

    Raises:
        ValueError: See :meth:`LinearAlignment.fit_moments`.

    >>> rng = np.random.default_rng(1)
    >>> z = rng.normal(size=(400, 3))
    >>> views = {m: z @ rng.normal(size=(3, 5)) + 0.1 * rng.normal(size=(400, 5)) for m in ("text", "image")}
    >>> views["noise"] = rng.normal(size=(400, 40))
    >>> choice = choose(FoldMoments.of(views), Sample(views, labels=(z[:, 0] > 0).tolist()), dim=4)
    >>> choice.alignment.method, choice.weights["noise"] < 0.1
    ('joint', True)
    """
    search = _Search(folds, sample, dim, regularization, average)
    found = _correlations(search.folds, search.sample)

    def idle(name: str) -> bool:
        alone = found if len(search.names) == 2 else _correlations(search.folds, search.sample, name)
        return alone is not None and alone.n_significant == 0

    search.run(methods, shorter, found is None or found.n_significant > 0, idle)
    return search.choice(found)


class _Search:
    """Tries candidates from simple to elaborate."""

    def __init__(
        self,
        folds: FoldMoments,
        sample: Sample,
        dim: int | None,
        regularization: float | Literal["auto"],
        average: Average,
    ) -> None:
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
        self.silent: list[str] = []

    def run(self, methods: Sequence[str], shorter: bool, correlated: bool, idle: Callable[[str], bool]) -> None:
        """Finds the winner; ``idle`` says whether an input shares nothing with the others."""
        first, *others = (_KINDS[name](self.dim, self.regularization, len(self.folds)) for name in methods)
        self.first = first
        if not self.trials.parts:
            return
        self.best = self.simplest = self._try(first)
        if len(self.names) < 2:
            return
        if self.target and self.average == "auto":
            self._quieten(idle)
            self._weigh()
        if correlated:
            self._vary([{"gamma": gamma} for gamma in _GAMMAS])
        if self.target:
            self._vary([{"target_share": _PULLED, "target_ridge": ridge} for ridge in _PULL_RIDGES])
        if not correlated:
            return
        self._stage([(other, None) for other in others])
        if shorter and self.dim is not None and self.dim > 1:
            self._stage([(clone(self.best.alignment).set_params(dim=self.dim // 2), self.best.weights)])

    def _quieten(self, idle: Callable[[str], bool]) -> None:
        """Inputs that add nothing and share nothing are turned down, unless that does harm or all are like that."""
        rows = self.best.scores.rows
        silent = []
        for name in self.names:
            gain, error = self._mean(rows[COMPLETE] - rows[WITHOUT + name])
            if gain <= 2 * error and idle(name):
                silent.append(name)
        self.silent = silent if len(silent) < len(self.names) else []
        if self.silent:
            weights = {m: w * _SILENT if m in self.silent else w for m, w in self.best.weights.items()}
            trial = self._try(*self._weighted(weights))
            lead, error = self._lead(trial, self.best)
            if lead >= -2 * error:
                self.best = trial

    def _weigh(self) -> None:
        """One input after the other, the first excepted: its weight times each factor."""
        for name in [name for name in self.names if name not in self.silent][1:]:
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

    def choice(self, found: Significance | None) -> Choice:
        """The winner, fitted; inputs that never vary count nothing in it, unless all are to count the same."""
        weights = dict.fromkeys(self.names, 1 / len(self.names)) if not self.tried else self.best.weights
        weights = {name: weights.get(name, 0.0) for name in self.all_names}
        if self.average == "mean":
            weights = dict.fromkeys(self.all_names, 1 / len(self.all_names))
        average = "mean" if len(set(weights.values())) == 1 else "weighted"
        if not self.tried:
            fitted = self.first.fit_moments(self.all_folds)
            return Choice(fitted, average, weights, "default: too few rows to hold any out", [], (0.0, 0.0), found)
        alignment = self._for_all(clone(self.best.alignment))
        if self.regularization == "auto" and self.best.scores.fill_ridges:
            ridges = head_fill_ridges(self.sample) if len(self.names) == 2 else self.best.scores.fill_ridges
            alignment.set_params(fill_ridges=ridges, regularization=_RIDGE)
        fitted, ridge = self._fitted(alignment), 0.0
        if self.target and len(self.all_names) > 1:
            ridge = fitted.fill_for_target(self.all_folds.total, self.whole, weights)
        ordered = sorted(self.tried, key=lambda trial: -trial.scores.mean)
        tried = [trial.to_dict() | ({"chosen": True} if trial is self.best else {}) for trial in ordered]
        lead = self._lead(self.best, self.simplest)
        return Choice(fitted, average, weights, self._criterion(found), tried, lead, found, ridge)

    def _for_all(self, alignment: LinearAlignment) -> LinearAlignment:
        """With block weights for the inputs that were left out, too; they have nothing to weigh."""
        if isinstance(alignment, Joint) and not isinstance(alignment.block_weights, str):
            given = dict(alignment.block_weights)
            middle = sum(given.values()) / len(given)
            alignment.set_params(block_weights={name: given.get(name, middle) for name in self.all_names})
        return alignment

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

    def _criterion(self, found: Significance | None) -> str:
        if self.target:
            return "cross-validated probe, complete and with each input missing"
        if found is not None and found.n_significant == 0:
            return "default: no correlation between the inputs survives the permutation test"
        return "held-out retrieval and share of the inputs kept"


def _solved(alignment: LinearAlignment, moments: Moments, target: Target | None) -> Weights:
    """Weights for a trial: `joint` in each input's leading directions only."""
    ridge = _RIDGE if alignment.regularization == "auto" else float(alignment.regularization)
    limit = max(1, alignment.limit([spectrum(moments, name).rank for name in moments.names]))
    dim = alignment.dim or limit
    if isinstance(alignment, Joint):
        return alignment.solve_trial(moments, ridge, dim, _LEADING * dim, target)
    return alignment.solve(moments, ridge, min(dim, limit))


def _correlations(folds: FoldMoments, sample: Sample, one: str | None = None) -> Significance | None:
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
    try:
        return significance(test, views, list(islice(rows.groups, kept)), **level)
    except ValueError:
        return None


def labelled_moments(labelled: FoldMoments, others: FoldMoments) -> FoldMoments:
    """The rows to fit on where there is a target: those with a label where they are the most, else all.

    A head learns from labelled rows only; what fills in for a missing input suits it best when it comes from the same
    rows (2,008 emoji, 168 without a label: 0.2 to 0.4 points in every condition).
    """
    return labelled if labelled.total.n >= others.total.n else labelled.merge(others)
