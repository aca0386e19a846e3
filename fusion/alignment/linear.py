"""Linear alignments by name: none, pca, procrustes and cca; :mod:`barycenter.fusion.alignment.joint` is the fifth."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from barycenter.fusion.alignment import eigenproblems as _solvers
from barycenter.fusion.alignment.eigenproblems import Weights
from barycenter.fusion.alignment.imputation import RIDGES
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.arrays import Float64
from barycenter.fusion.moments import FoldMoments, Moments


class Identity(LinearAlignment):
    """No alignment (``none``): aligned vectors are the raw ones, uncentered; all inputs must be equally wide.

    Examples:
        >>> views = {"x": [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], "y": [[0.0, 2.0], [2.0, 0.0], [0.0, 0.0]]}
        >>> Identity().fit(views).fuse(views).tolist()
        [[0.5, 1.0], [1.0, 0.5], [0.5, 0.5]]
    """

    method = "none"
    raw = True
    of_constant = "it moves all vectors alike and separates none"

    def _clipped_dim(self, total: Moments) -> int:
        (first, width), *others = total.dims.items()
        for name, other in others:
            if other != width:
                raise ValueError(f"none needs equal widths: {first} has {width}, {name} has {other}")
        if self.dim not in (None, width):
            raise ValueError(f"none keeps the width {width}; dim {self.dim} needs another method")
        return width

    def _solve(self, moments: Moments, ridge: float, dim: int) -> Weights:  # noqa: ARG002
        return {name: np.eye(width) for name, width in moments.dims.items()}

    solve = _solve  # of inputs that never vary, too


class PCA(LinearAlignment):
    """Every input's own principal components, uncoordinated: a baseline, and the way to shrink a single input.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(60, 5)) * [9.0, 1.0, 1.0, 1.0, 1.0]
        >>> aligned = PCA(dim=2).fit({"x": x}).transform({"x": x})
        >>> aligned["x"].shape, bool(abs(np.corrcoef(aligned["x"][:, 0], x[:, 0])[0, 1]) > 0.99)
        ((60, 2), True)
    """

    method = "pca"

    def _solve(self, moments: Moments, _ridge: float, dim: int) -> Weights:
        return _solvers.pca(moments, dim)


class Procrustes(LinearAlignment):
    """Principal components of every input, scaled and rotated onto a consensus (Schoenemann 1966, Gower 1975).

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(60, 2))
        >>> aligned = Procrustes(dim=2).fit_transform({"x": x, "y": x @ [[0.0, -3.0], [3.0, 0.0]]})
        >>> bool(np.allclose(aligned["x"], aligned["y"], atol=1e-3))
        True
    """

    method = "procrustes"
    min_inputs = 2

    def _solve(self, moments: Moments, _ridge: float, dim: int) -> Weights:
        return _solvers.procrustes(moments, dim)


class Canonical(LinearAlignment):
    """Base of the alignments whose components are pairs of variates that correlate most."""

    min_inputs = 2
    ridges: ClassVar[tuple[float, ...]] = RIDGES

    @classmethod
    def dim_limit(cls, widths: Sequence[int]) -> int:
        """All but the widest: for two inputs the smaller width."""
        return sum(widths) - max(widths)

    def _canonical(self) -> Float64 | None:
        return np.where(np.isnan(self.heldout_correlations_), self.correlations_, self.heldout_correlations_)

    def _ridges(self, _folds: FoldMoments) -> list[float]:
        return list(self.ridges) if self.regularization == "auto" else [float(self.regularization)]


class CCA(Canonical):
    r"""Regularized canonical correlation analysis (Hotelling 1936); MAXVAR for three and more (Kettenring 1971).

    Weights satisfy W_m'(C_m + ridge) W_m = I for two inputs. ``auto`` takes the ridge with the largest sum of held-out
    correlations.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(400, 2))
        >>> a = CCA(dim=2, regularization=0.0).fit({"x": z, "y": z @ [[1.0, 2.0], [0.0, 1.0]]})
        >>> a.correlations_.round(4).tolist(), a.fuse({"y": z[:5]}).shape
        ([1.0, 1.0], (5, 2))
    """

    method = "cca"

    def _solve(self, moments: Moments, ridge: float, dim: int) -> Weights:
        if len(moments.names) == 2:
            return _solvers.cca(moments, ridge, dim)
        return _solvers.joint(moments, 0.0, dict.fromkeys(moments.names, 1.0), ridge, dim)
