"""Eigenproblems of the linear alignments, solved from moments.

Every input is whitened in the eigenbasis of its own covariance, so a new ridge changes only diagonal scalings; the
eigendecompositions and the rotated cross-covariances are kept with the moments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.linalg

from barycenter.fusion.alignment.sample import Target
from barycenter.fusion.arrays import Float64
from barycenter.fusion.moments import Moments
from barycenter.fusion.ridge import Spectrum

Weights = dict[str, Float64]

# A direction whose variance is below this share of what its columns hold is rounding of the products, not data.
_NOISE = {"float32": 1e-6, "float64": 1e-11}
# Nor is one below this share of the largest variance: without a ridge it would blow up the next row that touches it.
_FLOOR = {"float32": 1e-7, "float64": 1e-13}
# Held-out rows whose variance is below this share of that of the training rows hardly vary.
_VARIES = 1e-9
# Squared correlations above this keep at least eleven digits through a Gram matrix.
_SQUARE_SAFE = 1e-4


@dataclass(frozen=True)
class Supervision(Target):
    """A target of a variance above 0 that directions are to predict (principal covariates regression).

    Attributes:
        share: How much the target counts beside the inputs, in 0..1.
        ridge: Of the regression of the target on the inputs, relative to their mean variance; above 0.
    """

    share: float
    ridge: float


def mean_variance(moments: Moments, name: str) -> float:
    """trace(C_m) / d_m, the unit of the ridge; 1 for an input that is constant."""
    mean = float(np.trace(moments.block(name, name))) / moments.dims[name]
    return mean if mean > 0 else 1.0


def held_variance(own: float, train: Moments, name: str) -> float:
    """Total variance of an input in held-out rows, above 0: that of the training rows where it hardly varies."""
    other = float(np.trace(train.block(name, name)))
    return (own if own > _VARIES * other else other) or 1.0


def stacked(moments: Moments, rows: Sequence[str], columns: Sequence[str]) -> Float64:
    """Covariance between some inputs and others, stacked in the given order."""
    return np.block([[moments.block(a, b) for b in columns] for a in rows])


def units(moments: Moments, names: Sequence[str]) -> Float64:
    """(d,) mean variance of the input that each stacked column belongs to."""
    return np.concatenate([np.full(moments.dims[name], mean_variance(moments, name)) for name in names])


def spectrum(moments: Moments, *names: str) -> Spectrum:
    """Eigendecomposition of one or several stacked inputs, at most n - 1 directions; kept with the moments.

    Variances descend. Two relative cuts: against the variance of the columns that a direction is made of (exact copies
    and directions beyond the rows are rounding there) and, far lower than any ridge, against the largest variance.
    """
    key = ("spectrum", names)
    if key not in moments.cache:
        unit = units(moments, names)
        scale = 1 / np.sqrt(unit)
        matrix = stacked(moments, names, names) * scale[:, None] * scale
        values, vectors = scipy.linalg.eigh(matrix, check_finite=False)
        values, vectors = values[::-1], vectors[:, ::-1]
        held = np.square(vectors).T @ np.clip(np.diag(matrix), 0, None)
        floor = _FLOOR[moments.precision] * max(float(values[0]), 0.0)
        real = values > np.maximum(_NOISE[moments.precision] * held, floor)
        real[max(moments.n - 1, 0) :] = False
        moments.cache[key] = Spectrum(np.ascontiguousarray(vectors[:, real]), values[real], unit)
    found: Spectrum = moments.cache[key]
    return found


def rotated(moments: Moments, row: str, column: str) -> Float64:
    """(r_row, r_column) cross-covariance in both eigenbases, in units of both mean variances."""
    key = ("rotated", row, column)
    if key not in moments.cache:
        a, b = spectrum(moments, row), spectrum(moments, column)
        unit = np.sqrt(mean_variance(moments, row) * mean_variance(moments, column))
        moments.cache[key] = a.vectors.T @ (moments.block(row, column) / unit) @ b.vectors
    found: Float64 = moments.cache[key]
    return found


def fix_signs(weights: Weights) -> Weights:
    """Makes the largest entry of every component of the first input (that has one) positive."""
    first = next((block for block in weights.values() if block.any()), next(iter(weights.values())))
    top = first[np.abs(first).argmax(axis=0), np.arange(first.shape[1])]
    signs = np.where(top < 0, -1.0, 1.0)
    return {name: block * signs for name, block in weights.items()}


def cca(moments: Moments, ridge: float | Mapping[str, float], dim: int) -> Weights:
    r"""Canonical weights of two inputs: the SVD of the whitened cross-covariance.

    .. math:: (C_x + \lambda t_x)^{-1/2} C_{xy} (C_y + \lambda t_y)^{-1/2} = A\,\mathrm{diag}(r)\,B^\top

    Returns:
        ``{name: (d, dim)}`` with W'(C + ridge)W = I.
    """
    a, b = moments.names
    ridges = ridge if isinstance(ridge, Mapping) else {a: ridge, b: ridge}
    scales = {m: 1 / np.sqrt(spectrum(moments, m).values + ridges[m]) for m in (a, b)}
    whitened = scales[a][:, None] * rotated(moments, a, b) * scales[b]
    weights = {}
    for name, vectors in zip((a, b), _leading_pairs(whitened, dim), strict=True):
        whitening = spectrum(moments, name).vectors * (scales[name] / np.sqrt(mean_variance(moments, name)))
        weights[name] = whitening @ vectors
    return fix_signs(weights)


def _leading_pairs(matrix: Float64, dim: int) -> tuple[Float64, Float64]:
    """Leading left and right singular vectors, from the smaller Gram matrix where that costs no accuracy."""
    if matrix.shape[0] > matrix.shape[1]:
        right, left = _leading_pairs(matrix.T, dim)
        return left, right
    size = len(matrix)
    if 2 * dim < size:
        values, left = scipy.linalg.eigh(matrix @ matrix.T, subset_by_index=[size - dim, size - 1], check_finite=False)
        if values[0] > _SQUARE_SAFE:
            left = left[:, ::-1]
            return left, (matrix.T @ left) / np.sqrt(values[::-1])
    left, _, right = scipy.linalg.svd(matrix, full_matrices=False, check_finite=False)
    return left[:, :dim], right[:dim].T


def shares(inertia: Mapping[str, float]) -> dict[str, float]:
    """Weights of the average that belong to block weights: their roots, summing to one.

    >>> shares({"text": 4.0, "image": 1.0, "sound": 1.0})
    {'text': 0.5, 'image': 0.25, 'sound': 0.25}
    """
    roots = {name: float(np.sqrt(value)) for name, value in inertia.items()}
    return {name: root / sum(roots.values()) for name, root in roots.items()}


def joint(
    moments: Moments,
    gamma: float,
    inertia: Mapping[str, float],
    ridge: float,
    dim: int,
    leading: int | None = None,
    supervision: Supervision | None = None,
) -> Weights:
    r"""The family between MAXVAR (gamma = 0) and the PCA of the block-scaled concatenation (gamma = 1).

    .. math:: S w = \theta B w, \qquad B = \mathrm{blockdiag}\big((1-\gamma)(C_m + \lambda t_m I)
        + \gamma\,\tfrac{\mathrm{tr}\,C_m}{\omega_m} I\big)

    with S the covariance whose diagonal blocks carry the same share of the ridge. Kettenring (1971) for gamma = 0.

    Args:
        moments: Of one or more inputs.
        gamma: In 0..1.
        inertia: Block weights omega, scaled here to a mean of one.
        ridge: Relative to each input's mean variance.
        dim: Number of components.
        leading: Look for directions in the leading so many principal ones of each input only.
        supervision: A target; see :func:`_covariate_directions`.

    Returns:
        ``{name: (d, dim)}``, scaled so that the average of the aligned vectors with the weights of :func:`shares` (the
        mean for equal block weights) is the component score.
    """
    names = moments.names
    inertia = {name: inertia[name] for name in names}
    mean_inertia = sum(inertia[name] for name in names) / len(names)
    spectra = {name: spectrum(moments, name).leading(leading) for name in names}
    scales = {}
    for name, found in spectra.items():
        share = inertia[name] / mean_inertia
        scales[name] = 1 / np.sqrt((1 - gamma) * (found.values + ridge) + gamma * moments.dims[name] / share)

    def cross(a: str, b: str) -> Float64:
        between = rotated(moments, a, b) if names.index(a) < names.index(b) else rotated(moments, b, a).T
        return scales[a][:, None] * between[: spectra[a].rank, : spectra[b].rank] * scales[b]

    blocks = [
        [np.diag((spectra[a].values + (1 - gamma) * ridge) * scales[a] ** 2) if a == b else cross(a, b) for b in names]
        for a in names
    ]
    matrix = np.block(blocks)
    keep = min(dim, len(matrix))
    if supervision is None:
        vectors = leading_vectors(matrix, keep)[1]
    else:
        projected = {
            m: found.vectors.T @ (supervision.cross[m] / np.sqrt(mean_variance(moments, m)))
            for m, found in spectra.items()
        }
        crossed = np.vstack([scales[m][:, None] * projected[m] for m in names])
        key = ("whole", gamma, tuple(inertia[m] / mean_inertia for m in names), ridge, leading)
        if key not in moments.cache:
            moments.cache[key] = scipy.linalg.eigh(matrix, check_finite=False)
        values, basis = moments.cache[key]
        vectors = _covariate_directions(values, basis, crossed, supervision, keep)
    weights, start = {}, 0
    share_of = shares(inertia)
    for name, found in spectra.items():
        stop = start + found.rank
        unit = np.sqrt(mean_variance(moments, name) * len(names)) * share_of[name]
        whitening = found.vectors * (scales[name] / unit)
        weights[name] = whitening @ vectors[start:stop]
        start = stop
    return fix_signs(weights)


def leading_vectors(matrix: Float64, keep: int) -> tuple[Float64, Float64]:
    """The largest eigenvalues of a symmetric matrix, descending, and their vectors."""
    size = len(matrix)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[size - keep, size - 1], check_finite=False)
    return values[::-1], vectors[:, ::-1]


def _covariate_directions(
    values: Float64, vectors: Float64, cross: Float64, supervision: Supervision, keep: int
) -> Float64:
    r"""Principal covariates regression (de Jong and Kiers 1992): directions that explain inputs and target.

    With M the covariance of the scaled inputs, c theirs with the target, and :math:`M_\kappa = M + \kappa\,
    \mathrm{tr}(M)/p`, U and :math:`\Lambda` solve

    .. math:: \Big((1-s)\,\frac{M}{\mathrm{tr}\,M}
        + s\,\frac{M_\kappa^{-1/2} c\, c^\top M_\kappa^{-1/2}}{\mathrm{var}\,y}\Big) U = U \Lambda

    and the directions are :math:`M_\kappa^{-1/2} U`, each with variance :math:`\Lambda\,\mathrm{tr}(M)`. A share s of 0
    is the principal components; as s nears 1, the first span the ridge regression of the target.

    M comes as its (r,) eigenvalues and (r, r) eigenvectors, c is (r, k); gives (r, keep).
    """
    values = np.clip(values, 0, None)
    total = max(float(values.sum()), 1e-300)
    root = 1 / np.sqrt(values + supervision.ridge * total / len(values))
    projected = root[:, None] * (vectors.T @ cross)
    mixed = supervision.share / supervision.variance * (projected @ projected.T)
    mixed[np.diag_indices_from(mixed)] += (1 - supervision.share) / total * values
    found, mixing = leading_vectors(mixed, keep)
    directions = root[:, None] * mixing
    spread = np.sqrt(np.square(directions).T @ values)
    wanted = np.sqrt(np.clip(found, 0, None) * total)
    return np.asarray(vectors @ (directions * np.where(spread > 0, wanted / np.where(spread > 0, spread, 1.0), 0.0)))


def pca(moments: Moments, dim: int) -> Weights:
    """The leading principal directions of every input on its own."""
    return {name: fix_signs({name: spectrum(moments, name).vectors[:, :dim]})[name] for name in moments.names}


def procrustes(moments: Moments, dim: int, rounds: int = 100) -> Weights:
    """Principal directions of every input, scaled to unit mean variance and rotated onto a common consensus.

    Two inputs: the orthogonal Procrustes solution (Schoenemann 1966), shared evenly by both; more: generalized
    Procrustes (Gower 1975) by alternating rotations; components are ordered by the variance of the consensus.
    """
    names, base = moments.names, pca(moments, dim)
    for name in names:
        variance = spectrum(moments, name).values[:dim].sum() * mean_variance(moments, name)
        base[name] = base[name] * np.sqrt(dim / variance)
    cov = {(a, b): base[a].T @ moments.block(a, b) @ base[b] for a in names for b in names}
    if len(names) == 2:
        left, _, right = scipy.linalg.svd(cov[names], check_finite=False)
        return fix_signs({names[0]: base[names[0]] @ left, names[1]: base[names[1]] @ right.T})
    rotation = {name: np.eye(dim) for name in names}
    last = -np.inf
    for _ in range(rounds):
        for a in names:
            target = np.sum([cov[a, b] @ rotation[b] for b in names if b != a], axis=0)
            left, _, right = scipy.linalg.svd(target, check_finite=False)
            rotation[a] = left @ right
        # Of all pairs as they now stand: unlike the singular values on the way, it never falls.
        agreement = sum(float(np.vdot(rotation[a], cov[a, b] @ rotation[b])) for a, b in combinations(names, 2))
        if agreement - last <= 1e-12 * abs(agreement):
            break
        last = agreement
    consensus = np.sum([rotation[a].T @ cov[a, b] @ rotation[b] for a in names for b in names], axis=0)
    axes = scipy.linalg.eigh(consensus + consensus.T, check_finite=False)[1][:, ::-1]
    return fix_signs({name: base[name] @ rotation[name] @ axes for name in names})


def pair_correlations(moments: Moments, weights: Weights) -> Float64:
    r"""Correlation of every component between inputs, the mean over pairs of inputs.

    .. math:: r = a^\top C_{xy} b / \sqrt{a^\top C_{xx} a \cdot b^\top C_{yy} b}

    Returns:
        (dim,); 0 where a component has no variance; empty for one input.
    """
    names = moments.names
    if len(names) < 2:
        return np.empty(0)
    variance = {m: np.einsum("ij,ij->j", weights[m], moments.block(m, m) @ weights[m]) for m in names}
    found = []
    for a, b in combinations(names, 2):
        shared = np.einsum("ij,ij->j", weights[a], moments.block(a, b) @ weights[b])
        product = np.sqrt(np.clip(variance[a], 0, None) * np.clip(variance[b], 0, None))
        safe = product > 1e-12 * max(float(product.max(initial=0.0)), 1e-300)
        found.append(np.where(safe, shared / np.where(safe, product, 1.0), 0.0))
    return np.asarray(np.mean(found, axis=0))


def imputation_scores(train: Moments, held: Moments, ridges: Sequence[float]) -> Float64:
    """Share of held-out variance of each input that the others explain, the mean over inputs, for every ridge.

    Returns:
        (len(ridges),) R squared; zeros for one input.
    """
    scores = np.zeros(len(ridges))
    if len(train.names) < 2:
        return scores
    for name in train.names:
        others = tuple(other for other in train.names if other != name)
        found = spectrum(train, *others)
        basis = found.vectors / np.sqrt(found.units)[:, None]
        fitted = basis.T @ stacked(train, others, [name])
        seen = basis.T @ stacked(held, others, [name])
        inner = (fitted @ fitted.T) * (basis.T @ stacked(held, others, others) @ basis)
        agreement = np.einsum("ij,ij->i", fitted, seen)
        total = held_variance(float(np.trace(held.block(name, name))), train, name)
        for i, ridge in enumerate(ridges):
            gain = 1 / (found.values + ridge)
            scores[i] += float(2 * gain @ agreement - gain @ inner @ gain) / total / len(train.names)
    return scores
