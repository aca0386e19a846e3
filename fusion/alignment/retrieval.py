"""The space in which inputs find each other best: canonical variates weighted by how much they correlate.

Cosines are averaged over several ridges, each with loudness to suit (the stronger the ridge, the less of it), and for
two inputs with those of canonical variates of Gaussian kernels, half and half: the errors of the two differ.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import numpy as np

from barycenter.fusion.alignment import eigenproblems as _solvers
from barycenter.fusion.alignment.eigenproblems import Weights
from barycenter.fusion.alignment.kernel import FEATURES_A_ROW, KernelCCA
from barycenter.fusion.alignment.linear import CCA
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.alignment.sample import Sample
from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.metrics import match_ranks, unit_rows
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.fusion.splits import fold_of
from barycenter.fusion.validation import Views

# Ridge, and the power of its correlations that a variate is multiplied with.
_VARIATES = ((0.1, 2.0), (1.0, 1.0), (3.0, 0.5))
_TEMPERATURE = 20.0
_FOLDS = 3
_NEAREST = 10
_MAX_ROWS = 2000
_KERNEL_ROWS = 5000
_KERNEL_DIM = 256
_KERNEL_FEATURES = 2000
_KERNEL_RIDGE = 1.0


@dataclass(frozen=True)
class RetrievalSpace:
    """Where to look for an input's partner.

    Attributes:
        name: What it is, in words.
        parts: Weights ``{name: (d, k)}`` of linear maps whose cosines are averaged.
        means: ``{name: (d,)}``.
        temperature: For :func:`barycenter.fusion.metrics.retrieval`.
        heldout_r10: Share of held-out training rows whose partner was among the ten nearest, of the linear maps.
        kernel: Whose cosines are averaged with theirs, if any.
    """

    name: str
    parts: tuple[Weights, ...]
    means: dict[str, Float64]
    temperature: float
    heldout_r10: float = np.nan
    kernel: KernelCCA | None = None

    def transform(self, views: Views) -> dict[str, FloatArray]:
        """``{name: (n, k)}`` of rows that have the inputs."""
        linear = {
            m: np.hstack([unit_rows((values - self.means[m]) @ part[m]) for part in self.parts])
            for m, values in views.items()
        }
        if self.kernel is None:
            return linear
        loud = np.clip(self.kernel.correlations_, 0, None)
        curved = self.kernel.transform(views)
        return {m: np.hstack([unit_rows(linear[m]), unit_rows(curved[m] * loud)]) for m in views}


def best_space(folds: FoldMoments, sample: Sample, alignment: LinearAlignment) -> RetrievalSpace:
    """Compares an alignment's own space with weighted canonical variates by retrieval on held-out training rows.

    Args:
        folds: Moments of the training rows, of two inputs or more.
        sample: Rows among them.
        alignment: A fitted one, for its parameters.
    """
    rows = sample.complete()
    assert rows.groups is not None
    fold = fold_of(rows.groups, len(folds))
    varying = all(train.varying == train.names for train in folds.leave_one_out())
    makers = (_own, _variates) if varying else (_own,)
    scores = np.zeros(len(makers))
    for number, train in list(enumerate(folds.leave_one_out()))[:_FOLDS]:
        held = np.flatnonzero(fold == number)[:_MAX_ROWS]
        if len(held) < 2:
            continue
        asked = {name: values[held] for name, values in rows.views.items()}
        for place, make in enumerate(makers):
            space = make(train, alignment)
            aligned = space.transform(asked)
            ranks = [match_ranks(aligned[a], aligned[b], space.temperature) for a, b in permutations(aligned, 2)]
            scores[place] += float(np.mean(np.stack(ranks) <= _NEAREST)) / _FOLDS
    best = int(scores.argmax())
    found = replace(makers[best](folds.total, alignment), heldout_r10=float(scores[best]))
    return _with_kernel(found, rows.views) if best and len(rows.views) == 2 else found


def _own(moments: Moments, alignment: LinearAlignment) -> RetrievalSpace:
    """The alignment's own space."""
    limit = alignment.limit([_solvers.spectrum(moments, name).rank for name in moments.names])
    weights = alignment.solve(moments, alignment.regularization_, max(1, min(alignment.dim_, limit)))
    return RetrievalSpace(f"{alignment.method}, as written", (weights,), moments.means, 0.0)


def _variates(moments: Moments, _alignment: LinearAlignment) -> RetrievalSpace:
    """Canonical variates at several ridges, each as loud as it correlates."""
    ranks = [_solvers.spectrum(moments, name).rank for name in moments.names]
    limit, parts = max(1, sum(ranks) - max(ranks)), []
    for ridge, power in _VARIATES:
        weights = CCA().solve(moments, ridge, limit)
        pairs = combinations(weights, 2)
        shared = [np.einsum("ij,ij->j", weights[a], moments.block(a, b) @ weights[b]) for a, b in pairs]
        loud = np.clip(np.mean(shared, axis=0), 0, None) ** power
        parts.append({name: block * loud for name, block in weights.items()})
    ridges = ", ".join(f"{ridge:g}" for ridge, _ in _VARIATES)
    name = f"cca (ridges {ridges}), weighted by correlation, hubs turned down (inverted softmax)"
    return RetrievalSpace(name, tuple(parts), moments.means, _TEMPERATURE)


def _with_kernel(space: RetrievalSpace, views: Mapping[str, FloatArray]) -> RetrievalSpace:
    """With the canonical variates of Gaussian kernels, fitted on some of the rows."""
    picked = {name: values[:_KERNEL_ROWS] for name, values in views.items()}
    rows = len(next(iter(picked.values())))
    dim, features = max(1, min(_KERNEL_DIM, rows // 2)), min(_KERNEL_FEATURES, FEATURES_A_ROW * rows)
    kernel = KernelCCA(dim, _KERNEL_RIDGE, folds=1, n_features=features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel.fit(picked)
    return replace(space, name=f"{space.name}, and kernel-cca (ridge {_KERNEL_RIDGE:g})", kernel=kernel)
