r"""Ridge systems :math:`(C + \lambda T)\,x = b` for a covariance C (Hoerl and Kennard 1970).

T is diagonal and makes the ridge relative: the mean variance of all columns, or of the input that each belongs to.
:func:`solve_ridge` is for one ridge; a :class:`Spectrum` is decomposed once and solved for as many as are tried.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from barycenter.fusion.arrays import Float64

_CUT = 1e-13


@dataclass(frozen=True)
class Spectrum:
    r"""Eigendecomposition :math:`T^{-1/2} C T^{-1/2} = U \mathrm{diag}(s) U^\top`, cut at the numerical rank.

    Attributes:
        vectors: (d, r) eigenvectors U.
        values: (r,) variances s, in the units.
        units: (d,) diagonal of T.
    """

    vectors: Float64
    values: Float64
    units: Float64

    @property
    def rank(self) -> int:
        """Number of directions kept."""
        return len(self.values)

    def leading(self, count: int | None) -> "Spectrum":
        """The first ``count`` directions."""
        return self if count is None else Spectrum(self.vectors[:, :count], self.values[:count], self.units)

    def rotate(self, right: Float64) -> Float64:
        """(r, k) right-hand sides (d, k) in the eigenbasis."""
        return np.asarray(self.vectors.T @ (1 / np.sqrt(self.units)[:, None] * right))

    def solve_rotated(self, rotated: Float64, ridge: float) -> Float64:
        """(d, k) solution for right-hand sides that :meth:`rotate` made."""
        inner = rotated / (self.values + ridge)[:, None]
        return np.asarray(1 / np.sqrt(self.units)[:, None] * (self.vectors @ inner))

    def solve(self, right: Float64, ridges: float | Sequence[float]) -> Float64:
        """(C + ridge T)^-1 times ``right`` (d, k), on the kept directions.

        Returns:
            (d, k), or (d, ridges * k) side by side for several ridges.
        """
        rotated = self.rotate(right)
        if isinstance(ridges, Sequence):
            return np.hstack([self.solve_rotated(rotated, ridge) for ridge in ridges])
        return self.solve_rotated(rotated, ridges)


def solve_ridge(
    covariance: Float64,
    cross: Float64,
    ridge: float,
    units: Float64 | None = None,
    fallback: Callable[[], Spectrum] | None = None,
) -> Float64:
    """(covariance + ridge * units)^-1 times ``cross``, by Cholesky.

    Args:
        covariance: (d, d), symmetric; only its upper triangle is read.
        cross: (d, k).
        ridge: Above 0.
        units: (d,) what the ridge is relative to; by default the mean of the covariance's diagonal.
        fallback: Makes the spectrum to solve on where rounding has left the sum indefinite; by default that of
            ``covariance``.

    Returns:
        (d, k) coefficients.
    """
    d = len(covariance)
    if units is None:
        units = np.full(d, max(float(np.trace(covariance)) / d, 1e-300))
    matrix = np.array(covariance, dtype=np.float64, order="F")
    matrix[np.diag_indices(d)] += ridge * units
    try:
        factor = scipy.linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        found = fallback() if fallback else _spectrum(covariance, units)
        return found.solve(cross, ridge)
    return np.asarray(scipy.linalg.cho_solve(factor, cross, check_finite=False))


def eigh_of_rank(matrix: Float64) -> tuple[Float64, Float64]:
    """(r,) eigenvalues of a (d, d) positive semidefinite matrix above its numerical rank, ascending; (d, r) vectors."""
    values, vectors = np.linalg.eigh(matrix)  # as fast as SciPy's, and other threads go on meanwhile
    kept = values > max(float(values[-1]), 0.0) * _CUT * len(values)
    return values[kept], vectors[:, kept]


def _spectrum(covariance: Float64, units: Float64) -> Spectrum:
    scale = 1 / np.sqrt(units)
    values, vectors = eigh_of_rank(covariance * scale[:, None] * scale)
    return Spectrum(vectors, values, units)
