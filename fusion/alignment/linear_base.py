r"""What the linear alignments share: a fit from moments, a ridge by cross-validation, and a projection.

Conventions: aligned input m is :math:`a_m = (x_m - \mu_m) W_m`; the fused vector is an average of these.
Regularization is relative to the mean variance of each input, so rescaling an input changes nothing.
"""

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment import eigenproblems as _solvers
from barycenter.fusion.alignment._projection import Projection
from barycenter.fusion.alignment.base import Alignment
from barycenter.fusion.alignment.eigenproblems import Weights, pair_correlations, spectrum
from barycenter.fusion.alignment.imputation import choose_regularization
from barycenter.fusion.alignment.sample import Sample
from barycenter.fusion.alignment.target_fill import maps_for_target
from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.moments import FoldMoments, Moments, Precision
from barycenter.fusion.parameters import check_whole, is_number
from barycenter.fusion.validation import Views

if TYPE_CHECKING:
    import torch
    from torch import nn

_FALLBACK_RIDGE = 0.1
_LOW_RANK = 0.9
"""A rank below this share of the columns is warned of; a few columns that follow from others are in most data."""


class ClippedDimWarning(UserWarning):
    """The data have a lower rank than the dimension that was asked for."""


class LinearAlignment(Alignment):
    """Base of the alignments that need no more than moments.

    Args:
        dim: Number of components; None for as many as the data allow.
        regularization: Ridge relative to the mean variance of each input, >= 0; ``auto`` is cross-validated.
        folds: Cross-validation folds of :meth:`fit`.
        precision: Type in which :meth:`fit` multiplies; see :class:`barycenter.fusion.moments.Moments`.
        fill_ridges: Ridge of the regression that fills in an input where it is missing, by its name; None or a name
            left out means the ridge of the alignment.
        widths: ``{name: columns}`` of the inputs, in order, where :meth:`fit` is given one matrix of all of them.

    Attributes:
        weights_: ``{name: (d, dim)}``.
        means_: ``{name: (d,)}`` over rows that have every input.
        correlations_: (dim,) in-sample correlation of each component, the mean over pairs of inputs.
        heldout_correlations_: (dim,) the same on held-out folds with weights of the other folds, the mean over folds;
            NaN with fewer than two usable folds.
        regularization_: The ridge in use.
        rank_: ``{name: numerical rank}``.
        n_: Number of rows that have every input.
    """

    min_inputs: ClassVar[int] = 1
    raw: ClassVar[bool] = False
    of_constant: ClassVar[str] = "it gets no weight, and the other inputs are aligned without it"
    weights_: Weights
    means_: dict[str, Float64]
    correlations_: Float64
    heldout_correlations_: Float64
    regularization_: float
    rank_: dict[str, int]
    n_: int
    projection_: Projection

    def __init__(
        self,
        dim: int | None = None,
        regularization: float | Literal["auto"] = "auto",
        folds: int = 5,
        precision: Precision = "float32",
        fill_ridges: Mapping[str, float] | None = None,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        self.dim = dim
        self.regularization = regularization
        self.folds = folds
        self.precision = precision
        self.fill_ridges = fill_ridges
        self.widths = widths

    @classmethod
    def dim_limit(cls, widths: Sequence[int]) -> int:
        """The most components that inputs of these widths (or ranks) allow."""
        return min(widths)

    @abstractmethod
    def _solve(self, moments: Moments, ridge: float, dim: int) -> Weights:
        """``{name: (d, dim)}`` weights, components in order."""

    def solve(self, moments: Moments, ridge: float, dim: int) -> Weights:
        """``{name: (d, dim)}`` weights of any moments.

        An input that never varies gets zeros, and the others are solved as if it were not there; where too few are
        left for the method, each gets its own principal components.
        """
        names = moments.varying
        if len(names) == len(moments.names) >= self.min_inputs:
            return self._solve(moments, ridge, dim)
        found: Weights = {}
        if names:
            rest = _selected(moments, names)
            enough = len(names) >= self.min_inputs
            found = self._solve(rest, ridge, dim) if enough else _solvers.pca(rest, dim)
        return {name: found[name] if name in found else np.zeros((d, dim)) for name, d in moments.dims.items()}

    def limit(self, ranks: Sequence[int]) -> int:
        """The most components for inputs of these ranks, those of rank 0 left out."""
        varying = [rank for rank in ranks if rank]
        return self.dim_limit(varying) if len(varying) >= self.min_inputs else min(varying, default=0)

    def _fit(self, views: Views, _y: object, groups: Sequence[object] | None) -> None:
        self.fit_moments(FoldMoments.of(views, self.folds, groups, self.precision))

    def fit_moments(self, folds: Sequence[Moments]) -> Self:
        """Fits on fold moments; with one fold, nothing is held out and ``auto`` becomes a ridge of 0.1.

        Raises:
            ValueError: See :meth:`fit`.
        """
        self._check_params()
        moments = folds if isinstance(folds, FoldMoments) else FoldMoments(folds)
        total = moments.total
        self._check_inputs(total)
        self.n_features_in_, self.n_ = self._input_widths(total), total.n
        self.rank_ = {name: self._rank(total, name) for name in total.names}
        for name in total.names:
            if name not in total.varying:
                warnings.warn(f"{name}: the same in every complete row; {self.of_constant}", stacklevel=3)
        self.dim_ = self._clipped_dim(total)
        self._choose(moments)
        self._finish(total, self.solve(total, self.regularization_, self.dim_))
        return self

    def _check_params(self) -> None:
        check_whole("dim", self.dim, optional=True)
        check_whole("folds", self.folds)
        given = self.regularization
        if given != "auto" if isinstance(given, str) else not is_number(given) or given < 0:
            raise ValueError(f"regularization must be 'auto' or a number >= 0, not {given!r}")

    def _check_inputs(self, total: Moments) -> None:
        if unknown := set(self.fill_ridges or ()) - set(total.names):
            raise ValueError(f"fill_ridges names {', '.join(sorted(unknown))}; the inputs are {', '.join(total.names)}")
        if len(total.names) < self.min_inputs:
            raise ValueError(f"{self.method} needs at least {self.min_inputs} inputs, got {', '.join(total.names)}")
        if total.n < 2:
            own = ", ".join(f"{name} {total.count(name)}" for name in total.names)
            have = "1 row has" if total.n == 1 else f"{total.n} rows have"
            raise ValueError(f"{have} every input ({own}); {self.method} needs at least 2")

    def _clipped_dim(self, total: Moments) -> int:
        for name, rank in self.rank_.items():
            if 0 < rank < _LOW_RANK * total.dims[name]:
                rank_note = f"{name}: rank {rank} of {total.dims[name]} columns ({self.n_} complete rows)"
                warnings.warn(f"{rank_note}; directions without variance get no weight", stacklevel=4)
        limit = self.limit(list(self.rank_.values()))
        if limit < 1:
            raise ValueError(
                f"nothing to align: {', '.join(self.rank_)} never vary in the {self.n_} rows that have every input"
            )
        if self.dim is not None and self.dim > limit:
            said = f"dim {self.dim} clipped to {limit}, all that the data's rank allows"
            warnings.warn(said, ClippedDimWarning, stacklevel=4)
        return limit if self.dim is None else min(self.dim, limit)

    def _choose(self, folds: FoldMoments) -> None:
        """Sets the ridge and the held-out correlations."""
        ridges = self._ridges(folds)
        found = self.correlate_held_out(folds, ridges)
        known = not np.isnan(found).all()
        best = int(found.sum(axis=1).argmax()) if known else 0
        self.regularization_ = ridges[best] if known or len(ridges) == 1 else _FALLBACK_RIDGE
        self.heldout_correlations_ = found[best]

    def correlate_held_out(self, folds: FoldMoments, ridges: Sequence[float]) -> Float64:
        """(ridges, dim) correlations on each fold with weights of the others, the mean over folds.

        NaN where fewer than two folds can be held out; no column where there is one input.
        """
        total = folds.total
        usable = [held.n > 2 for held in folds]
        if len(total.names) < 2 or sum(usable) < 2:
            return np.full((len(ridges), self.dim_ if len(total.names) > 1 else 0), np.nan)
        scores = np.zeros((len(ridges), sum(usable), self.dim_))
        pairs = compress(zip(self._trains(folds), folds, strict=True), usable)
        for k, (train, held) in enumerate(pairs):
            limit = min(self.dim_, self.limit([self._rank(train, name) for name in train.names]))
            for i, ridge in enumerate(ridges):
                found = pair_correlations(held, self.solve(train, ridge, limit))
                scores[i, k, : len(found)] = found
        return np.asarray(scores.mean(axis=1))

    def _input_widths(self, total: Moments) -> dict[str, int]:
        return dict(total.dims)

    def _rank(self, moments: Moments, name: str) -> int:
        return spectrum(moments, name).rank

    def _trains(self, folds: FoldMoments) -> Iterable[Moments]:
        return folds.leave_one_out()

    def _ridges(self, folds: FoldMoments) -> list[float]:
        """The ridges to compare by held-out correlation; here the one that predicts held-out inputs best."""
        return [choose_regularization(folds) if self.regularization == "auto" else float(self.regularization)]

    def _finish(self, total: Moments, weights: Weights) -> None:
        self.means_ = {name: mean.copy() for name, mean in total.means.items()}
        for name, block in weights.items():
            if not (np.abs(block) < np.finfo(np.float32).max).all():
                spread = np.sqrt(np.diag(total.block(name, name)).max())
                raise ValueError(f"{name}: its columns vary by {spread:.2g} at most, too little; rescale them")
        self.correlations_ = pair_correlations(total, weights)
        covs = {a: {b: weights[a].T @ total.block(a, b) @ weights[b] for b in total.names} for a in total.names}
        deviations = {name: np.sqrt(np.clip(np.diag(covs[name][name]), 0, None)) for name in total.names}
        scales = {name: np.where(values > 0, values, 1.0) for name, values in deviations.items()}
        self.projection_ = Projection(
            weights,
            self.means_,
            scales,
            np.block([[covs[a][b] / np.outer(scales[a], scales[b]) for b in total.names] for a in total.names]),
            self._canonical(),
            raw=self.raw,
            source=total,
            ridges=dict.fromkeys(total.names, self.regularization_) | dict(self.fill_ridges or {}),
        )
        self.weights_ = self.projection_.weights

    def _canonical(self) -> Float64 | None:
        """The correlations of components that correspond one to one; None where they need not."""
        return None

    def _features(self, name: str, values: FloatArray) -> FloatArray:  # noqa: ARG002
        """(n, D) what the weights act on, of rows that have the input: the input as it is."""
        return values

    def _feature_modules(self) -> "dict[str, nn.Module]":
        """The same maps as torch modules."""
        return {}

    def fill_for_target(self, moments: Moments, sample: Sample, weights: Mapping[str, float] | None = None) -> float:
        """Changes what is filled in for missing inputs so that a linear head predicts the target best.

        Args:
            moments: Those that this alignment was fitted on; of features, where it makes some.
            sample: Training rows with labels.
            weights: Of the average, one per input; equal by default.

        Returns:
            The ridge of the head, the one that it takes on the fused sample.
        """
        rows = sample.complete()
        rows = replace(rows, views={name: self._features(name, values) for name, values in rows.views.items()})
        maps, ridge = maps_for_target(self.projection_, moments, rows, weights, own_ridges=bool(self.fill_ridges))
        self.projection_ = self.projection_.with_maps(maps)
        return ridge

    def _project(self, name: str, values: FloatArray) -> FloatArray:
        return self.projection_.project(name, self._features(name, values))

    def _fuse(self, present: Mapping[str, FloatArray], method: str, shares: Mapping[str, float]) -> FloatArray:
        return self.projection_.fuse({name: self._features(name, v) for name, v in present.items()}, method, shares)

    def as_module(self, average: str = "auto", weights: Mapping[str, float] | None = None) -> "torch.nn.Module":
        """A differentiable module: projects, fills in and averages as :meth:`fuse`; exports with ``torch.export``.

        Its ``forward(views, present=None)`` takes ``{name: (n, d)}`` or a tuple in input order, and an (n, inputs)
        boolean mask of what is there (by default: rows without NaN); a row with nothing there becomes NaN.
        """
        from barycenter.fusion.alignment.torch_module import FuseModule

        return FuseModule(self.projection_, *self._average(average, weights), self._feature_modules())

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        values = {"regularization": self.regularization_, "rank": self.rank_, "n": self.n_}
        arrays = self.projection_.to_arrays()
        arrays |= {"correlations": self.correlations_, "heldout_correlations": self.heldout_correlations_}
        return values, arrays

    def _restore(self, values: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.regularization_, self.rank_, self.n_ = values["regularization"], values["rank"], values["n"]
        self.correlations_, self.heldout_correlations_ = arrays["correlations"], arrays["heldout_correlations"]
        self.projection_ = Projection.from_arrays(list(self.n_features_in_), arrays)
        self.weights_, self.means_ = self.projection_.weights, self.projection_.means


def _selected(moments: Moments, names: tuple[str, ...]) -> Moments:
    key = ("selected", names)
    if key not in moments.cache:
        moments.cache[key] = moments.select(names)
    found: Moments = moments.cache[key]
    return found
