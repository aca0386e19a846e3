"""The space in which inputs find each other best: canonical variates weighted by how much they correlate."""

from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from fusion import _solvers
from fusion._solvers import Weights
from fusion._views import FloatArray, Views
from fusion.alignment._trial import Float64, Sample
from fusion.alignment.linear import CCA, LinearAlignment
from fusion.metrics import match_ranks
from fusion.moments import FoldMoments, Moments
from fusion.splits import fold_of

_RIDGES = (0.3, 1.0)
_FOLDS = 3
_NEAREST = 10
_MAX_ROWS = 2000


@dataclass(frozen=True)
class RetrievalSpace:
    """Where to look for an input's partner.

    Attributes:
        name: What it is, in words.
        weights: ``{name: (d, k)}``.
        means: ``{name: (d,)}``.
        neighbours: For :func:`fusion.metrics.retrieval`.
        heldout_r10: Share of held-out training rows whose partner was among the ten nearest.
    """

    name: str
    weights: Weights
    means: dict[str, Float64]
    neighbours: int
    heldout_r10: float

    def transform(self, views: Views) -> dict[str, FloatArray]:
        """``{name: (n, k)}`` of rows that have the inputs."""
        return {name: (values - self.means[name]) @ self.weights[name] for name, values in views.items()}


def best_space(folds: FoldMoments, sample: Sample, alignment: LinearAlignment) -> RetrievalSpace:
    """Compares an alignment's own space with weighted canonical variates by retrieval on held-out training rows.

    Args:
        folds: Moments of the training rows, of two inputs or more.
        sample: Rows among them.
        alignment: A fitted one, for its parameters.
    """
    own = ("own", alignment.regularization_)
    found = {own: 0.0} | {("cca", ridge): 0.0 for ridge in _RIDGES}
    rows = sample.complete()
    assert rows.groups is not None
    fold = fold_of(rows.groups, len(folds))
    for number, train in list(enumerate(folds.leave_one_out()))[:_FOLDS]:
        held = np.flatnonzero(fold == number)[:_MAX_ROWS]
        if len(held) < 2:
            continue
        for (kind, ridge), total in found.items():
            space = _space(train, kind, ridge, alignment)
            aligned = space.transform({name: values[held] for name, values in rows.views.items()})
            hits = [
                match_ranks(aligned[a], aligned[b], space.neighbours) <= _NEAREST for a, b in permutations(aligned, 2)
            ]
            found[kind, ridge] = total + float(np.mean(hits)) / _FOLDS
    kind, ridge = max(found, key=lambda key: found[key])
    return _space(folds.total, kind, ridge, alignment, found[kind, ridge])


def _space(
    moments: Moments, kind: str, ridge: float, alignment: LinearAlignment, heldout: float = float("nan")
) -> RetrievalSpace:
    means = {name: moments.mean[columns] for name, columns in moments.columns.items()}
    limit = alignment.dim_limit([_solvers.spectrum(moments, name).rank for name in moments.names])
    if kind == "own":
        weights = alignment._solve(moments, ridge, min(alignment.dim_, limit))
        return RetrievalSpace(f"{alignment.method}, as written", weights, means, 0, heldout)
    limit = CCA.dim_limit([_solvers.spectrum(moments, name).rank for name in moments.names])
    weights = CCA()._solve(moments, ridge, limit)
    shared = [np.einsum("ij,ij->j", weights[a], moments.block(a, b) @ weights[b]) for a, b in combinations(weights, 2)]
    loud = np.clip(np.mean(shared, axis=0), 0, None)
    weights = {name: block * loud for name, block in weights.items()}
    name = f"cca at ridge {ridge:g}, weighted by correlation, hubs scaled down (CSLS)"
    return RetrievalSpace(name, weights, means, _NEAREST, heldout)
