"""The space in which inputs find each other best: canonical variates weighted by how much they correlate."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np

from fusion import _solvers
from fusion._solvers import Weights
from fusion._views import FloatArray, Views
from fusion.alignment.linear import LinearAlignment
from fusion.alignment.sample import Float64, Sample
from fusion.metrics import match_ranks
from fusion.moments import FoldMoments, Moments
from fusion.splits import fold_of

_RIDGES = (0.3, 1.0)
_TEMPERATURE = 20.0
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
        temperature: For :func:`fusion.metrics.retrieval`.
        heldout_r10: Share of held-out training rows whose partner was among the ten nearest.
    """

    name: str
    weights: Weights
    means: dict[str, Float64]
    temperature: float
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
    names = folds.total.names
    ridges = product(_RIDGES, repeat=2) if len(names) == 2 else ([ridge] * len(names) for ridge in _RIDGES)
    settings = [None, *(dict(zip(names, each, strict=True)) for each in ridges)]
    scores = np.zeros(len(settings))
    rows = sample.complete()
    assert rows.groups is not None
    fold = fold_of(rows.groups, len(folds))
    for number, train in list(enumerate(folds.leave_one_out()))[:_FOLDS]:
        held = np.flatnonzero(fold == number)[:_MAX_ROWS]
        if len(held) < 2:
            continue
        for place, setting in enumerate(settings):
            space = _space(train, setting, alignment)
            aligned = space.transform({name: values[held] for name, values in rows.views.items()})
            ranks = [match_ranks(aligned[a], aligned[b], space.temperature) for a, b in permutations(aligned, 2)]
            scores[place] += float(np.mean(np.stack(ranks) <= _NEAREST)) / _FOLDS
    best = int(scores.argmax())
    return _space(folds.total, settings[best], alignment, float(scores[best]))


def _space(
    moments: Moments, ridges: Mapping[str, float] | None, alignment: LinearAlignment, heldout: float = float("nan")
) -> RetrievalSpace:
    """The alignment's own space, or canonical variates at some ridges, each as loud as it correlates."""
    means = {name: moments.mean[columns] for name, columns in moments.columns.items()}
    ranks = [_solvers.spectrum(moments, name).rank for name in moments.names]
    if ridges is None:
        weights = alignment._solve(moments, alignment.regularization_, min(alignment.dim_, alignment.dim_limit(ranks)))
        return RetrievalSpace(f"{alignment.method}, as written", weights, means, 0.0, heldout)
    limit = max(1, sum(ranks) - max(ranks))
    if len(ranks) == 2:
        weights = _solvers.cca(moments, ridges, limit)
    else:
        weights = _solvers.joint(moments, 0.0, dict.fromkeys(ridges, 1.0), max(ridges.values()), limit)
    shared = [np.einsum("ij,ij->j", weights[a], moments.block(a, b) @ weights[b]) for a, b in combinations(weights, 2)]
    loud = np.clip(np.mean(shared, axis=0), 0, None)
    told = ", ".join(f"{name} {ridge:g}" for name, ridge in ridges.items())
    name = f"cca (ridge {told}), weighted by correlation, hubs turned down (inverted softmax)"
    return RetrievalSpace(name, {m: block * loud for m, block in weights.items()}, means, _TEMPERATURE, heldout)
