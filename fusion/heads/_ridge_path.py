r"""Ridge regression for many targets and many ridges: out-of-fold predictions without fitting again for each.

With centered rows X, weights s and the ridge measured against the mean variance, the hat matrix is
:math:`H = X (X^\top X + \lambda I)^{-1} X^\top + \sqrt{s}\sqrt{s}^\top / \sum s`, and the residuals of the rows f of a
fold, had they been left out, are exactly :math:`(I - H_{ff})^{-1} (y_f - \hat y_f)` (Hastie, Tibshirani and Friedman
2009, section 7.10, for one row; the same algebra holds for several). One eigendecomposition of the smaller side serves
all folds and ridges. Where folds are larger than that pays for, every training part gets a decomposition of its own
Gram matrix; both give the same numbers.
"""

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from barycenter.fusion.arrays import BLOCK_ROWS, Float64, FloatArray
from barycenter.fusion.ridge import Spectrum, eigh_of_rank

Folds = NDArray[np.int64]

_EIGH_COST = 18.0

_Part = tuple[float, Float64, Float64, Float64, Float64]
_Means = tuple[Float64, Float64]


class _Fit:
    """A fit to some rows, to be solved for any ridge: the spectrum of their scatter and (r, k) cross-moments in it."""

    def __init__(self, spectrum: Spectrum, moments: Float64, unit: float, means: _Means) -> None:
        self._spectrum, self._moments, self.unit = spectrum, moments, unit
        self._mean_x, self._mean_y = means

    def solve(self, ridge: float) -> tuple[Float64, Float64]:
        """(d, k) coefficients and (k,) intercepts."""
        coefficients = self._spectrum.solve_rotated(self._moments, ridge * self.unit)
        return coefficients, self._mean_y - self._mean_x @ coefficients


def ridge_path(X: FloatArray, Y: Float64, weights: Float64, fold: Folds, ridges: int) -> "RidgePath":
    """The cheaper of the two ways for (n, d) features, (n, k) targets and as many ridges as will be tried."""
    n, d = X.shape
    sizes = np.bincount(fold).astype(float)
    side = min(n, d)
    by_hat = _EIGH_COST * side**3 + n * d * side + ridges * float((sizes**2 * side + sizes**3 / 3).sum())
    by_gram = (np.count_nonzero(sizes) + 1) * _EIGH_COST * d**3 + 2.0 * n * d * d
    return HatPath(X, Y, weights, fold) if by_hat < by_gram else GramPath(X, Y, weights, fold)


class HatPath(_Fit):
    """All folds from one eigendecomposition, of the Gram or of the kernel matrix."""

    def __init__(self, X: FloatArray, Y: Float64, weights: Float64, fold: Folds) -> None:
        n, d = X.shape
        self._Y, self._root = Y, np.sqrt(weights)[:, None]
        means = _means(X, Y, weights)
        centered = (X - means[0]) * self._root
        self._target = (Y - means[1]) * self._root
        dual = n < d
        values, vectors = eigh_of_rank(centered @ centered.T if dual else centered.T @ centered)
        self._scores = vectors * np.sqrt(values) if dual else centered @ vectors
        basis = centered.T @ (vectors / np.sqrt(values)) if dual else vectors
        unit = max(float(values.sum()) / d, np.finfo(float).tiny)
        super().__init__(Spectrum(basis, values, np.ones(d)), self._scores.T @ self._target, unit, means)
        self._folds = [np.flatnonzero(fold == number) for number in np.unique(fold)]
        self._total = float(weights.sum())

    def held_out(self, ridge: float) -> Float64:
        """(n, k) predictions of every row by the fit without its fold."""
        shrunk = self._spectrum.values + ridge * self.unit
        fitted = self._scores @ (self._moments / shrunk[:, None])
        predictions = np.empty_like(self._Y)
        for rows in self._folds:
            part, root = self._scores[rows] / np.sqrt(shrunk), self._root[rows]
            rest = -(part @ part.T) - (root / self._total) @ root.T
            rest[np.diag_indices_from(rest)] += 1.0
            residuals = scipy.linalg.solve(rest, self._target[rows] - fitted[rows], assume_a="sym", check_finite=False)
            predictions[rows] = self._Y[rows] - residuals / root
        return predictions


class GramPath:
    """One eigendecomposition for every training part; rows are read in blocks."""

    def __init__(self, X: FloatArray, Y: Float64, weights: Float64, fold: Folds) -> None:
        self._X, self._Y, self._fold = X, Y, fold
        self._shift_x, self._shift_y = _means(X, Y, weights)
        numbers = np.unique(fold)
        parts = {int(number): self._part(np.flatnonzero(fold == number), weights) for number in numbers}
        self._whole = self._decompose(list(parts.values()), None)
        self.solve = self._whole.solve
        self._without = {
            number: self._decompose([part for other, part in parts.items() if other != number], self._whole.unit)
            for number in (parts if len(parts) > 1 else ())
        }

    def _part(self, rows: NDArray[np.int64], weights: Float64) -> _Part:
        """Weighted sums of 1, x, y, xx' and xy' of some rows, about the means of all."""
        d, k = self._X.shape[1], self._Y.shape[1]
        sums = (np.zeros(d), np.zeros(k), np.zeros((d, d)), np.zeros((d, k)))
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            root = np.sqrt(weights[block])[:, None]
            x, y = (self._X[block] - self._shift_x) * root, (self._Y[block] - self._shift_y) * root
            for total, value in zip(sums, ((root * x).sum(0), (root * y).sum(0), x.T @ x, x.T @ y), strict=True):
                total += value
        return float(weights[rows].sum()), *sums

    def _decompose(self, parts: list[_Part], unit: float | None) -> _Fit:
        weight = sum(part[0] for part in parts)
        x, y, xx, xy = (sum(sums[1:], start=sums[0]) for sums in list(zip(*parts, strict=True))[1:])
        x, y = x / weight, y / weight
        means = (self._shift_x + x, self._shift_y + y)
        gram = xx - weight * np.outer(x, x)
        unit = unit or max(float(np.trace(gram)) / len(gram), np.finfo(float).tiny)
        values, vectors = eigh_of_rank(gram)
        spectrum = Spectrum(vectors, values, np.ones(len(gram)))
        return _Fit(spectrum, spectrum.rotate(xy - weight * np.outer(x, y)), unit, means)

    def held_out(self, ridge: float) -> Float64:
        """(n, k) predictions of every row by the fit without its fold."""
        predictions = np.empty_like(self._Y)
        for number, fit in self._without.items():
            rows = np.flatnonzero(self._fold == number)
            coefficients, intercept = fit.solve(ridge)
            predictions[rows] = self._X[rows] @ coefficients.astype(self._X.dtype) + intercept
        return predictions


RidgePath = HatPath | GramPath


def _means(X: FloatArray, Y: Float64, weights: Float64) -> tuple[Float64, Float64]:
    share = weights / weights.sum()
    mean = np.zeros(X.shape[1])
    for start in range(0, len(X), BLOCK_ROWS):
        mean += share[start : start + BLOCK_ROWS] @ X[start : start + BLOCK_ROWS].astype(np.float64)
    return mean, share @ Y
