"""What held-out rows say of a set of weights where there is no target: do inputs find each other, and what is kept."""

from collections.abc import Mapping
from itertools import permutations

import numpy as np

from barycenter.fusion.alignment._trial import Solve, TrialScores
from barycenter.fusion.alignment.eigenproblems import Weights, held_variance, stacked
from barycenter.fusion.alignment.sample import Sample, Target
from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.metrics import match_ranks
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.fusion.ridge import solve_ridge
from barycenter.fusion.splits import fold_of

RETRIEVAL, KEPT = "retrieval", "kept"
_NEAREST = 10
_MAX_ROWS = 2000


class PairTrials:
    """Scores weights by held-out retrieval and by the variance of the inputs that the fused vector explains.

    Rows of fold k, of those of the sample, are scored by weights of the other folds.
    """

    def __init__(self, folds: FoldMoments, sample: Sample) -> None:
        sample = sample.complete()
        assert sample.groups is not None
        fold = fold_of(sample.groups, len(folds))
        self.parts: list[tuple[int, Moments, dict[str, FloatArray]]] = []
        self.groups: list[object] = []
        for number, train in enumerate(folds.leave_one_out()):
            held = np.flatnonzero(fold == number)[:_MAX_ROWS]
            if len(held) > _NEAREST and train.n > 2:
                columns = train.columns
                self.parts.append(
                    (number, train, {m: v[held] - train.mean[columns[m]] for m, v in sample.views.items()})
                )
                self.groups += [sample.groups[row] for row in held.tolist()]

    def training(self) -> list[tuple[int, Moments, Target | None]]:
        """Number of the fold held out, and moments of the others; there is no target."""
        return [(number, train, None) for number, train, _ in self.parts]

    def score(self, solve: Solve) -> TrialScores:
        """Scores of the weights that ``solve`` makes of every training part."""
        found = [_scored(train, held, solve(train, None)) for _, train, held in self.parts]
        return TrialScores({name: np.concatenate([part[name] for part in found]) for name in found[0]})


def _scored(train: Moments, held: Mapping[str, FloatArray], weights: Weights) -> dict[str, Float64]:
    aligned = {name: values @ weights[name] for name, values in held.items()}
    scores = {KEPT: _kept(train, held, weights)}
    if len(held) > 1:
        hits = [match_ranks(aligned[a], aligned[b]) <= _NEAREST for a, b in permutations(held, 2)]
        scores[RETRIEVAL] = np.mean(hits, axis=0)
    return scores


def _kept(train: Moments, held: Mapping[str, FloatArray], weights: Weights) -> Float64:
    """(n,) 1 - squared error / variance of the inputs read back from the fused vector, each input counting the same."""
    names = train.names
    stack = np.vstack([weights[name] for name in names])
    cross = stacked(train, names, names) @ stack
    back = solve_ridge(stack.T @ cross, cross.T, 1e-6)
    fused = np.sum([held[name] @ weights[name] for name in names], axis=0)
    kept = np.zeros(len(fused))
    for name, columns in train.columns.items():
        error = np.square(held[name] - fused @ back[:, columns]).sum(axis=1)
        variance = held_variance(float(np.square(held[name]).sum(axis=1).mean()), train, name)
        kept += (1 - error / variance) / len(names)
    return kept
