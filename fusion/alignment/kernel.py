"""Kernel CCA by random Fourier features, through the same one-pass moments as the linear alignments."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from sklearn.utils.extmath import randomized_svd

from barycenter.fusion.alignment.eigenproblems import Weights, fix_signs, leading_vectors, mean_variance
from barycenter.fusion.alignment.features import FeatureAlignment
from barycenter.fusion.alignment.linear import Canonical
from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.moments import FoldMoments, Moments, Precision
from barycenter.fusion.parameters import check_whole
from barycenter.fusion.validation import Views, as_matrix, check_views, common_rows, present_rows

if TYPE_CHECKING:
    from torch import nn


SAMPLE_ROWS = 2000
FEATURES_A_ROW = 4
"""More features than this would span no more than the rows do."""


@dataclass(eq=False, repr=False)
class KernelCCA(Canonical, FeatureAlignment):
    r"""CCA between Gaussian kernels, approximated by random Fourier features (Rahimi and Recht 2007).

    .. math:: \phi(x) = \sqrt{2/D}\,[\cos(x\Omega), \sin(x\Omega)], \quad \Omega_{ij} \sim N(0, \sigma^{-2})

    with orthogonal blocks of frequencies (Yu et al. 2016); sigma is ``bandwidth`` times the median distance of a
    seeded sample of rows. CCA, ridge and missing inputs then work on :math:`\phi` (Lopez-Paz et al. 2014).

    The other parameters are those of :class:`LinearAlignment`; the ridge is relative to the variance of the features.

    Args:
        regularization: Above 0; ``auto`` is cross-validated.
        n_features: Features D for each input, even, at most four for each row; memory is 8 (M D)^2 bytes a fold.
        bandwidth: In units of the median distance.
        seed: Of frequencies and sample.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(600, 1))
        >>> a = KernelCCA(dim=1, n_features=40).fit({"x": x, "y": x**2})
        >>> bool(a.heldout_correlations_[0] > 0.95)
        True
    """

    method = "kernel-cca"
    ridges = (1e-4, 1e-3, 1e-2, 1e-1)
    dim: int | None = 50
    regularization: float | Literal["auto"] = "auto"
    folds: int = 3
    precision: Precision = "float32"
    n_features: int = 4000
    bandwidth: float = 1.0
    seed: int = 0
    widths: Mapping[str, int] | None = None
    fill_ridges = None

    def _fit(self, views: Views, _y: object, groups: Sequence[object] | None) -> None:
        """Draws frequencies, gathers the moments of the features in blocks, and solves."""
        picked = np.sort(np.random.default_rng(self.seed).permutation(common_rows(views))[:SAMPLE_ROWS])
        self.draw({name: values[picked] for name, values in views.items()})
        self.fit_moments(self.feature_moments(views, groups))

    def draw(self, sample: Views) -> Self:
        """Draws the frequencies, which is all that needs rows before their moments are taken.

        Args:
            sample: ``{name: (n, d)}``, ``SAMPLE_ROWS`` rows, or all where there are fewer, for the bandwidths.

        Raises:
            ValueError: On wrong parameters or rows, and for an input that the sample lacks.
        """
        self._check_params()
        arrays = check_views(sample)
        rng = np.random.default_rng(self.seed)
        count = min(self.n_features, max(2, FEATURES_A_ROW * common_rows(arrays)))
        self.frequencies_ = {name: self._frequencies(name, values, count, rng) for name, values in arrays.items()}
        self.n_features_in_ = {name: len(values) for name, values in self.frequencies_.items()}
        self.feature_dims_ = dict.fromkeys(self.n_features_in_, count)
        return self

    def _check_params(self) -> None:
        super()._check_params()
        if self.regularization == 0:
            raise ValueError("regularization must be above 0 for kernel-cca")
        check_whole("n_features", self.n_features)
        if self.n_features < 2 or self.n_features % 2:
            raise ValueError(f"n_features must be even and at least 2, not {self.n_features}")
        if not self.bandwidth > 0:
            raise ValueError(f"bandwidth must be above 0, not {self.bandwidth}")

    def _frequencies(self, name: str, values: object, count: int, rng: np.random.Generator) -> FloatArray:
        """(d, count / 2); zeros for an input that never varies in the sample, so that its features do not either."""
        sample = as_matrix(name, values)
        sample = sample[present_rows(name, sample)]
        if not len(sample):
            raise ValueError(f"{name}: no row of the sample has it, so kernel-cca finds no bandwidth")
        distances = pdist(sample.astype(np.float64))
        width = sample.shape[1]
        if not distances.any():
            return np.zeros((width, count // 2), dtype=np.float32)
        median = float(np.median(distances[distances > 0]))
        blocks = []
        for _ in range(-(-count // 2 // width)):
            directions = np.linalg.qr(rng.standard_normal((width, width)))[0]
            blocks.append(directions * np.linalg.norm(rng.standard_normal((width, width)), axis=0))
        found = np.hstack(blocks)[:, : count // 2] / (median * self.bandwidth)
        return np.ascontiguousarray(found, dtype=np.float32)

    def _features(self, name: str, values: FloatArray) -> FloatArray:
        angles = values @ self.frequencies_[name].astype(values.dtype, copy=False)
        scale = values.dtype.type(np.sqrt(1 / angles.shape[1]))
        return np.hstack([np.cos(angles), np.sin(angles)]) * scale

    def _rank(self, moments: Moments, name: str) -> int:
        return min(moments.dims[name], max(moments.n - 1, 0)) if name in moments.varying else 0

    def _trains(self, folds: FoldMoments) -> Iterable[Moments]:
        return folds.iter_leave_one_out()

    def _solve(self, moments: Moments, ridge: float, dim: int) -> Weights:
        names = moments.names
        factors: dict[str, Float64] = {}
        for name in names:
            block = moments.block(name, name)
            block[np.diag_indices_from(block)] += ridge * mean_variance(moments, name)
            factors[name] = scipy.linalg.cholesky(block, lower=True, overwrite_a=True, check_finite=False)
        whitened = {(a, b): _whitened(moments.block(a, b), factors[a], factors[b]) for a, b in combinations(names, 2)}
        vectors = _leading(whitened, names, dim, self.seed)
        return fix_signs({m: scipy.linalg.solve_triangular(factors[m], vectors[m], lower=True, trans=1) for m in names})

    def _feature_modules(self) -> "dict[str, nn.Module]":
        from barycenter.fusion.alignment.torch_module import RandomFeatures

        return {name: RandomFeatures(values) for name, values in self.frequencies_.items()}

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        values, arrays = super()._state()
        return values, arrays | {f"frequencies.{i}": w for i, w in enumerate(self.frequencies_.values())}

    def _restore(self, values: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        super()._restore(values, arrays)
        self.frequencies_ = {name: arrays[f"frequencies.{i}"] for i, name in enumerate(self.n_features_in_)}
        self.feature_dims_ = {name: 2 * values.shape[1] for name, values in self.frequencies_.items()}


def _whitened(cross: Float64, left: Float64, right: Float64) -> Float64:
    half = scipy.linalg.solve_triangular(left, cross, lower=True, check_finite=False)
    return np.asarray(scipy.linalg.solve_triangular(right, half.T, lower=True, check_finite=False)).T


def _leading(whitened: dict[tuple[str, str], Float64], names: tuple[str, ...], dim: int, seed: int) -> Weights:
    """Leading canonical vectors of whitened cross-covariances: the SVD for two inputs, MAXVAR for more."""
    if len(names) == 2:
        cross = whitened[names[0], names[1]]
        left, _, right = randomized_svd(cross, dim, n_oversamples=min(dim + 10, 60), n_iter=12, random_state=seed)
        return {names[0]: left, names[1]: right.T}
    width = len(whitened[names[0], names[1]])
    matrix = np.eye(width * len(names))
    for (a, b), cross in whitened.items():
        i, j = names.index(a) * width, names.index(b) * width
        matrix[i : i + width, j : j + width] = cross
        matrix[j : j + width, i : i + width] = cross.T
    if dim < len(matrix) // 4:
        vectors = scipy.sparse.linalg.eigsh(matrix, dim, which="LA", v0=np.ones(len(matrix)))[1][:, ::-1]
    else:
        vectors = leading_vectors(matrix, dim)[1]
    vectors = vectors * np.sqrt(len(names))
    return {name: vectors[i * width : (i + 1) * width] for i, name in enumerate(names)}
