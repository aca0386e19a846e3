r"""A missing input filled in so that the target is predicted as well as the inputs that are left allow.

The conditional expectation of the fused vector, :math:`E[f \mid x_P] = x_P M`, keeps of the inputs present what is also
in f; what they say of the target beyond that is lost. With the probe :math:`\beta` on f and the ridge regression
:math:`b = (C_{PP} + \lambda T)^{-1} c_P` of the target on the inputs present, f is moved to where the probe reads
:math:`x_P b`, by as much as f itself moves when its scores do:

.. math::
    x_P \big(M + (b - M\beta)\,(\beta^\top \Sigma \beta)^{+} \beta^\top \Sigma\big), \quad \Sigma = \mathrm{cov}\, f

Complete rows stay as they are.
"""

from collections.abc import Mapping

import numpy as np

from barycenter.fusion.alignment._projection import Projection
from barycenter.fusion.alignment.eigenproblems import Weights
from barycenter.fusion.alignment.imputation import regression
from barycenter.fusion.alignment.sample import Sample, Target
from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.average import resolve
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.moments import Moments
from barycenter.fusion.ridge import solve_ridge


def fused_covariance(moments: Moments, weights: Weights) -> Float64:
    """(dim, dim) covariance of the sum of the weighted inputs."""
    names = moments.names
    found = np.sum([weights[a].T @ moments.block(a, b) @ weights[b] for a in names for b in names], axis=0)
    return np.asarray((found + found.T) / 2)


def probe_of(moments: Moments, weights: Weights, target: Target, ridge: float, covariance: Float64) -> Float64:
    """(dim, k) coefficients of the ridge probe on the fused vector, whose covariance is given.

    The ridge, above 0, is relative to the mean variance of the fused vector.
    """
    cross = np.sum([weights[name].T @ target.cross[name] for name in moments.names], axis=0)
    return solve_ridge(covariance, cross, ridge)


def head_ridge(features: FloatArray, sample: Sample) -> float:
    """The ridge that a linear head takes on features of a complete sample."""
    assert sample.labels is not None
    return LinearHead(task=sample.encoded()[0]).fit(features, sample.labels, groups=sample.groups).ridge_


def head_fill_ridges(sample: Sample) -> dict[str, float]:
    """For each of two inputs the ridge of a head on the other alone, at which it is to be filled in."""
    rows = sample.complete()
    first, second = rows.views
    return {first: head_ridge(rows.views[second], rows), second: head_ridge(rows.views[first], rows)}


def maps_for_target(
    projection: Projection,
    moments: Moments,
    rows: Sample,
    weights: Mapping[str, float] | None = None,
    own_ridges: bool = False,
) -> tuple[dict[tuple[str, ...], Float64], float]:
    """What a projection should fill in for missing inputs.

    Args:
        projection: Fitted on ``moments``.
        moments: Of the training rows, or of their features where the alignment makes some.
        rows: Complete rows of these, or of their features, with labels.
        weights: Of the average, one per input; equal by default.
        own_ridges: The ridges that the projection fills in at are those of the target, too; else, of two inputs, each
            is filled in at the ridge of a head on the other.

    Returns:
        The maps by pattern of presence, and the ridge of the probe, the one that a linear head takes on the fused rows.
    """
    method, shares = resolve("auto", weights, projection.names)
    two = len(projection.names) == 2
    ridges = head_fill_ridges(rows) if two and not own_ridges else projection.ridges
    target, ridge = rows.target(), head_ridge(projection.fuse(rows.views, method, shares), rows)
    blocks = {name: block * shares[name] for name, block in projection.weights.items()}
    covariance = fused_covariance(moments, blocks)
    probe = probe_of(moments, blocks, target, ridge, covariance)
    along = probe.T @ covariance
    lift = np.linalg.pinv(along @ probe, rcond=1e-8, hermitian=True) @ along
    dim, found = projection.dim, {}
    for present in projection.patterns():
        missing = [name for name in projection.names if name not in present]
        left = sum(shares[name] for name in missing)
        if not left:
            continue  # what is filled in does not enter the average
        maps = projection.missing_map(present).copy()
        filled = [maps[:, i * dim : (i + 1) * dim] for i in range(len(missing))]
        fused = np.vstack([blocks[name] for name in present])
        fused = fused + np.sum([part * shares[name] for part, name in zip(filled, missing, strict=True)], axis=0)
        cross = np.vstack([target.cross[name] for name in present])
        expected = regression(moments, max(ridges[name] for name in missing), present, cross)
        change = (expected - fused @ probe) @ lift / left
        for part in filled:
            part += change
        found[present] = maps
    return found, ridge
