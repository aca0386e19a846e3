r"""What a linear probe would say of a set of weights, from moments and a bounded sample of rows.

With fused vectors :math:`f = \sum_m x_m W_m` and targets y, the ridge probe and every way to bear a missing input are
maps of the inputs:

.. math:: \beta = (W^\top C W + \kappa)^{-1} W^\top c, \qquad
    \hat y = \sum_{p \in P} x_p \big(B_p + [(C_{PP} + \lambda T)^{-1} C_{Pq} B_q]_p\big), \quad B = W \beta,

so a trial costs one small eigenproblem and a few thin products; no row is projected, and only held-out rows are scored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fusion._solvers import Target, Weights, spectrum, stacked
from fusion._views import FloatArray, as_matrix, present_rows
from fusion.heads._targets import Targets, Task, infer_task, is_empty
from fusion.imputation import RIDGES
from fusion.moments import FoldMoments, Moments
from fusion.splits import fold_of

Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]

PROBE_RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
COMPLETE = "complete"
WITHOUT = "without "

Solve = Callable[[Moments, Target | None], Weights]


@dataclass(frozen=True)
class Sample:
    """Training rows that a choice may look at.

    Attributes:
        views: ``{name: (n, d)}``; rows that lack an input are left out.
        groups: n values; rows with equal ones share a fold. Row numbers where None.
        labels: n labels; None where there is no target, empty ones are left out.
        task: What the labels are.
    """

    views: Mapping[str, FloatArray]
    groups: Sequence[object] | None = None
    labels: Sequence[Any] | NDArray[Any] | None = None
    task: Task | str = "auto"

    def complete(self) -> "Sample":
        """The rows that have every input and, where there is a target, a label."""
        arrays = {name: as_matrix(name, values) for name, values in self.views.items()}
        kept = np.logical_and.reduce([present_rows(name, values) for name, values in arrays.items()])
        if self.labels is not None:
            kept &= np.array([not is_empty(label) for label in self.labels], dtype=bool)
        rows: list[int] = np.flatnonzero(kept).tolist()
        groups = range(len(kept)) if self.groups is None else self.groups
        labels = None if self.labels is None else [self.labels[row] for row in rows]
        return Sample({m: v[rows] for m, v in arrays.items()}, [groups[row] for row in rows], labels, self.task)

    def encoded(self) -> tuple[Task, Float64]:
        """The task, and the (n, k) labels as numbers.

        Raises:
            ValueError: If there are no labels.
        """
        if self.labels is None:
            raise ValueError("a sample without labels has no target")
        task: Task = infer_task(self.labels) if self.task == "auto" else self.task  # type: ignore[assignment]
        return task, Targets.of(self.labels, task).encode(self.labels)

    def target(self) -> Target:
        """Moments of the target beside the inputs."""
        rows = self.complete()
        return target_moments(rows.views, rows.encoded()[1])

    def __len__(self) -> int:
        return len(next(iter(self.views.values())))


def target_moments(views: Mapping[str, FloatArray], values: Float64) -> Target:
    """Moments of (n, k) targets beside complete inputs."""
    centred = values - values.mean(axis=0)
    n = max(len(values) - 1, 1)
    cross = {name: (rows.T @ centred.astype(rows.dtype)).astype(np.float64) / n for name, rows in views.items()}
    return Target(cross, centred.T @ centred / n)


@dataclass(frozen=True)
class Scores:
    """How a probe on the fused vectors did on held-out rows.

    Attributes:
        rows: {condition: (n,) 1 where right, else 0; for regression 1 - squared error / variance}.
        fill_ridges: {input: the ridge that filled it in best where it was missing}.
    """

    rows: dict[str, Float64]
    fill_ridges: dict[str, float]

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

    Args:
        folds: Moments of the training rows; fold k's rows are scored by weights of the others.
        sample: Labelled rows among them.
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

    def training(self) -> list[tuple[int, Moments, Target | None]]:
        """Number of the fold held out, moments of the others, and their target beside the inputs."""
        return [(part.number, part.train, part.target) for part in self.parts]

    def score(self, solve: Solve) -> Scores:
        """Scores the weights that ``solve`` makes of every training part."""
        found = [part.score(solve(part.train, part.target)) for part in self.parts]
        joined = {condition: np.concatenate([part[condition] for part in found], axis=-1) for condition in found[0]}
        complete = joined.pop(COMPLETE)[0]
        means = complete.mean(axis=-1)
        probe = int(np.flatnonzero(means >= means.max())[-1])
        rows, ridges = {COMPLETE: complete[probe]}, {}
        for condition, hits in joined.items():
            best = int(hits[:, probe].mean(axis=-1).argmax())
            rows[condition], ridges[condition.removeprefix(WITHOUT)] = hits[best, probe], RIDGES[best]
        return Scores(rows, ridges)


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
        self._held_targets = targets[held]
        self._mean = targets[fit].mean(axis=0)
        self._variance = np.maximum(self._held_targets.var(axis=0), 1e-300)
        self.target = target_moments({name: values[fit] for name, values in views.items()}, targets[fit])
        self._held, self._shift = {}, {}
        for name, columns in train.columns.items():
            mean = train.mean[columns]
            self._held[name] = views[name][held] - mean
            self._shift[name] = views[name][fit].mean(axis=0, dtype=np.float64) - mean
        self._rotated: dict[tuple[str, ...], Float64] = {}

    def score(self, weights: Weights) -> dict[str, Float64]:
        """{condition: (imputation ridges, probe ridges, n) scores}; one imputation ridge where rows are complete."""
        names = self.train.names
        maps, intercepts = self._probes(weights)
        found = {COMPLETE: self._scored(sum(self._held[m] @ maps[m] for m in names) + intercepts)[None]}
        for missing in names if len(names) > 1 else ():
            present = tuple(m for m in names if m != missing)
            basis = spectrum(self.train, *present)
            if present not in self._rotated:
                rows = np.hstack([self._held[m] for m in present]) / np.sqrt(basis.units)
                self._rotated[present] = rows @ basis.vectors
            cross = stacked(self.train, present, [missing]) @ maps[missing]
            inner = basis.vectors.T @ (cross / np.sqrt(basis.units)[:, None])
            own = sum(self._held[m] @ maps[m] for m in present) + intercepts
            filled = [self._rotated[present] @ (inner / (basis.values + ridge)[:, None]) for ridge in RIDGES]
            found[WITHOUT + missing] = np.stack([self._scored(own + extra) for extra in filled])
        return found

    def _probes(self, weights: Weights) -> tuple[Weights, Float64]:
        """``{name: (d, ridges * k)}`` maps of the inputs to scores, and their intercepts."""
        names = self.train.names
        cross = np.sum([weights[m].T @ self.target.cross[m] for m in names], axis=0)
        covariance = np.sum([weights[a].T @ self.train.block(a, b) @ weights[b] for a in names for b in names], axis=0)
        values, vectors = scipy.linalg.eigh((covariance + covariance.T) / 2, check_finite=False)
        values = np.clip(values, 1e-12 * max(float(values[-1]), 1e-300), None)
        unit, inner = values.mean(), vectors.T @ cross
        heads = np.hstack([vectors @ (inner / (values + ridge * unit)[:, None]) for ridge in PROBE_RIDGES])
        maps = {m: weights[m] @ heads for m in names}
        shift = np.sum([self._shift[m] @ maps[m] for m in names], axis=0)
        return maps, np.tile(self._mean, len(PROBE_RIDGES)) - shift

    def _scored(self, predictions: Float64) -> Float64:
        """(ridges, n) scores of (n, ridges * k) predictions."""
        n, k = self._held_targets.shape
        values = predictions.reshape(n, -1, k)
        if self.task == "classification":
            hits = values.argmax(axis=2) == self._held_targets.argmax(axis=1)[:, None]
        elif self.task == "multilabel":
            hits = ((values > 0.5) == (self._held_targets > 0.5)[:, None]).all(axis=2)
        else:
            return np.asarray(1 - (np.square(values - self._held_targets[:, None]) / self._variance).mean(axis=2).T)
        return np.asarray(hits.T, dtype=np.float64)
