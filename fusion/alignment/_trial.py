r"""What a linear probe would say of a set of weights, from moments and a bounded sample of rows.

With fused vectors :math:`f = \sum_m x_m W_m` and targets y, the ridge probe is a map of the inputs:

.. math:: \beta = (W^\top C W + \kappa)^{-1} W^\top c, \qquad \hat y = \sum_m x_m W_m \beta .

so a trial costs one small eigenproblem and a few thin products; no row is projected, and only held-out rows are scored.
Where an input is missing, the probe is that of the inputs that are left, whatever the weights: what fills in for it is
made to say just that (:mod:`barycenter.fusion.alignment.target_fill`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment.eigenproblems import Weights, spectrum
from barycenter.fusion.alignment.imputation import RIDGES
from barycenter.fusion.alignment.sample import Sample, Target, target_moments
from barycenter.fusion.alignment.target_fill import fused_covariance, probe_of
from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.heads.targets import Task
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.fusion.splits import fold_of

Rows = NDArray[np.int64]

PROBE_RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
COMPLETE = "complete"
WITHOUT = "without "

Solve = Callable[[Moments, Target | None], Weights]
"""Weights from the moments of a training part and, where there is one, its target."""


@dataclass(frozen=True)
class TrialScores:
    """How a probe on the fused vectors did on held-out rows.

    Attributes:
        rows: {condition: (n,) 1 where right, else 0; for regression 1 - squared error / variance of all scored rows}.
        fill_ridges: {input: the ridge at which the others do best where it is missing}.
        probe_ridge: The probe's own ridge on complete rows.
    """

    rows: dict[str, Float64]
    fill_ridges: dict[str, float] = field(default_factory=dict)
    probe_ridge: float = 0.0

    @property
    def each(self) -> Float64:
        """(n,) the mean over conditions."""
        return np.asarray(np.mean(list(self.rows.values()), axis=0))

    @property
    def mean(self) -> float:
        """The mean over rows and conditions."""
        return float(self.each.mean())

    def conditions(self) -> dict[str, float]:
        """The mean over rows, by condition."""
        return {condition: float(values.mean()) for condition, values in self.rows.items()}


class ProbeTrials:
    """Scores weights by a cross-validated probe over complete rows and over each input missing.

    Labeled rows of fold k are scored by weights of the other folds.
    """

    def __init__(self, folds: FoldMoments, sample: Sample) -> None:
        sample = sample.complete()
        assert sample.groups is not None
        task, values = sample.encoded()
        fold = fold_of(sample.groups, len(folds))
        self.parts: list[_Part] = []
        self.groups: list[object] = []
        for number, train in enumerate(folds.leave_one_out()):
            held, fit = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            if min(len(held), len(fit), train.n - 1) < 1:
                continue
            self.parts.append(_Part(number, train, sample.views, values, fit, held, task))
            self.groups += [sample.groups[row] for row in held.tolist()]
        if self.parts:  # errors of all folds are measured against one variance: a target may be constant in a fold
            variance = np.concatenate([part.held_targets for part in self.parts]).var(axis=0)
            for part in self.parts:
                part.variance = np.where(variance > 0, variance, 1.0)
        self._without = self._score_without()

    def training(self) -> list[tuple[int, Moments, Target | None]]:
        """Number of the fold held out, and moments and target of the others."""
        return [(part.number, part.train, part.target) for part in self.parts]

    def score(self, solve: Solve) -> TrialScores:
        """Scores of the weights that ``solve`` makes of every training part."""
        hits = np.concatenate([part.complete(solve(part.train, part.target)) for part in self.parts], axis=-1)
        means = hits.mean(axis=-1)
        best = int(np.flatnonzero(means >= means.max())[-1])
        rows = {WITHOUT + name: scores for name, (scores, _) in self._without.items()}
        ridges = {name: ridge for name, (_, ridge) in self._without.items()}
        return TrialScores({COMPLETE: hits[best]} | rows, ridges, PROBE_RIDGES[best])

    def _score_without(self) -> dict[str, tuple[Float64, float]]:
        """{input: score of every row without it, and the ridge of that}."""
        found = {}
        names = self.parts[0].train.names if self.parts else ()
        for name in names if len(names) > 1 else ():
            hits = np.concatenate([part.without(name) for part in self.parts], axis=-1)
            smooth = np.convolve(np.pad(hits.mean(axis=-1), 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
            best = int(smooth.argmax())
            found[name] = (hits[best], RIDGES[best])
        return found


class _Part:
    """One training part, rows to fit the probe on and held-out rows to score."""

    def __init__(
        self,
        number: int,
        train: Moments,
        views: Mapping[str, FloatArray],
        targets: Float64,
        fit: Rows,
        held: Rows,
        task: Task,
    ) -> None:
        self.number, self.train, self.task = number, train, task
        self.held_targets = targets[held]
        self.variance = np.ones(targets.shape[1])
        self._mean = targets[fit].mean(axis=0)
        self.target = target_moments({name: values[fit] for name, values in views.items()}, targets[fit])
        self._held, self._shift = {}, {}
        for name, columns in train.columns.items():
            mean = train.mean[columns]
            self._held[name] = views[name][held] - mean
            self._shift[name] = views[name][fit].mean(axis=0, dtype=np.float64) - mean

    def complete(self, weights: Weights) -> Float64:
        """(probe ridges, n) scores of complete rows."""
        known = fused_covariance(self.train, weights)
        heads = np.hstack([probe_of(self.train, weights, self.target, ridge, known) for ridge in PROBE_RIDGES])
        return self._scored({name: weights[name] @ heads for name in weights}, len(PROBE_RIDGES))

    def without(self, missing: str) -> Float64:
        """(ridges, n) scores of the other inputs."""
        present = tuple(name for name in self.train.names if name != missing)
        cross = np.vstack([self.target.cross[name] for name in present])
        stack = spectrum(self.train, *present).solve(cross, RIDGES)
        ends = np.cumsum([0, *(self.train.dims[name] for name in present)])
        maps = {name: stack[a:b] for name, a, b in zip(present, ends, ends[1:], strict=False)}
        return self._scored(maps, len(RIDGES))

    def _scored(self, maps: Weights, ridges: int) -> Float64:
        """(ridges, n) scores of what (d, ridges * k) maps of some inputs predict."""
        n, k = self.held_targets.shape
        predictions = np.sum([(self._held[name] - self._shift[name]) @ maps[name] for name in maps], axis=0)
        values = predictions.reshape(n, ridges, k) + self._mean
        if self.task == "classification":
            hits = values.argmax(axis=2) == self.held_targets.argmax(axis=1)[:, None]
        elif self.task == "multilabel":
            hits = ((values > 0.5) == (self.held_targets > 0.5)[:, None]).all(axis=2)
        else:
            return np.asarray(1 - (np.square(values - self.held_targets[:, None]) / self.variance).mean(axis=2).T)
        return np.asarray(hits.T, dtype=np.float64)
