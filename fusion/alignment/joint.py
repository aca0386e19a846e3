"""The family between canonical correlation and concatenation."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment import eigenproblems as _solvers
from barycenter.fusion.alignment.eigenproblems import Supervision, Weights
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.alignment.sample import Sample, Target
from barycenter.fusion.arrays import Float64
from barycenter.fusion.heads.checks import as_targets
from barycenter.fusion.moments import FoldMoments, Moments, Precision
from barycenter.fusion.parameters import is_number
from barycenter.fusion.validation import Views


class Joint(LinearAlignment):
    r"""The family between CCA (gamma = 0: what the inputs share) and the PCA of the concatenation (gamma = 1: all).

    .. math:: S w = \theta B w, \quad
        B = \mathrm{blockdiag}((1-\gamma)(C_m + \lambda t_m) + \gamma\,\mathrm{tr}(C_m)/\omega_m)

    The average of the aligned inputs with weights :math:`w_m \propto \sqrt{\omega_m}` is the component score (the mean
    where all are equal): an input's weight says how much it counts when directions are sought and, the same, when they
    are averaged; the aligned inputs themselves are equally loud. Components are ordered by theta.

    With a target, a share s of what directions are sought for is how well they predict it: principal covariates
    regression (de Jong and Kiers 1992) in the coordinates that B makes.

    The other parameters are those of :class:`LinearAlignment`; ``auto`` predicts held-out inputs best.

    Args:
        gamma: In 0..1; ``auto`` is 1, which keeps most of a concatenation.
        block_weights: Inertia omega > 0 of each input, on any common scale; ``auto`` is equal.
        target_share: How much the target counts, 0 <= s < 1; above 0, :meth:`fit` needs the target.
        target_ridge: Of the regression of the target on the inputs, relative to their mean variance.

    Attributes:
        gamma_: The gamma in use.
        block_weights_: The inertia in use, mean one.
        average_weights_: :math:`w_m \propto \sqrt{\omega_m}`, summing to one.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(200, 2))
        >>> views = {"x": z @ rng.normal(size=(2, 4)), "y": z @ rng.normal(size=(2, 3))}
        >>> a = Joint(dim=2).fit(views)
        >>> a.fuse(views).shape, bool(np.allclose(a.fuse({"x": views["x"]}), a.fuse(views), atol=0.1))
        ((200, 2), True)
    """

    method = "joint"
    gamma_: float
    block_weights_: dict[str, float]
    _supervision: Supervision | None = None

    def __init__(
        self,
        dim: int | None = None,
        regularization: float | Literal["auto"] = "auto",
        folds: int = 5,
        precision: Precision = "float32",
        gamma: float | Literal["auto"] = "auto",
        block_weights: Mapping[str, float] | Literal["auto"] = "auto",
        fill_ridges: Mapping[str, float] | None = None,
        target_share: float = 0.0,
        target_ridge: float = 0.03,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(dim, regularization, folds, precision, fill_ridges, widths)
        self.gamma = gamma
        self.block_weights = block_weights
        self.target_share = target_share
        self.target_ridge = target_ridge

    def _fit(self, views: Views, y: object, groups: Sequence[object] | None) -> None:
        folds = FoldMoments.of(views, self.folds, groups, self.precision)
        known = self.target_share > 0 and y is not None
        self.fit_moments(folds, Sample(views, groups, as_targets(y)).target() if known else None)

    def fit_moments(
        self, folds: Sequence[Moments], target: Target | None = None, held_out: Sequence[Float64] | None = None
    ) -> Self:
        """Fits on fold moments; with a target, on all of them at once: no ridge is chosen and nothing held out.

        Args:
            folds: Moments of each fold.
            target: Its covariances with the inputs, where ``target_share`` is above 0.
            held_out: Correlations of each fold, where they are known; their mean becomes the held-out correlations.

        Raises:
            ValueError: See :meth:`fit`; also where ``target_share`` is above 0 and there is no target.
        """
        self._supervision = self._supervise(target)
        if self._supervision is not None:
            folds = [(folds if isinstance(folds, FoldMoments) else FoldMoments(folds)).total]
        super().fit_moments(folds)
        if held_out is not None:
            self.heldout_correlations_ = np.zeros(self.dim_)
            for correlations in held_out:
                kept = correlations[: self.dim_]
                self.heldout_correlations_[: len(kept)] += kept / len(held_out)
        return self

    def _supervise(self, target: Target | None) -> Supervision | None:
        if not 0 <= self.target_share < 1 or not 0 < self.target_ridge < np.inf:
            raise ValueError(
                f"target_share must be at least 0 and below 1 and target_ridge above 0, "
                f"not {self.target_share} and {self.target_ridge}"
            )
        if self.target_share == 0:
            return None
        if target is None:
            raise ValueError(f"target_share {self.target_share} needs a target")
        if target.variance <= 0:
            return None
        return Supervision(target.cross, target.variance, self.target_share, self.target_ridge)

    def solve_trial(self, moments: Moments, ridge: float, dim: int, leading: int, target: Target | None) -> Weights:
        """``{name: (d, dim)}`` weights from each input's leading directions only, without a fit."""
        if not moments.varying:
            return {name: np.zeros((width, 1)) for name, width in moments.dims.items()}
        gamma, blocks = self._settings(moments)
        return _solvers.joint(moments, gamma, blocks, ridge, dim, leading, self._supervise(target))

    def _settings(self, moments: Moments) -> tuple[Any, dict[str, float]]:
        blocks = self.block_weights
        given = dict.fromkeys(moments.names, 1.0) if isinstance(blocks, str) else dict(blocks)
        return 1.0 if self.gamma == "auto" else self.gamma, given

    @classmethod
    def dim_limit(cls, widths: Sequence[int]) -> int:
        """The width of the concatenation."""
        return sum(widths)

    def _check_inputs(self, total: Moments) -> None:
        super()._check_inputs(total)
        gamma, given = self._settings(total)
        if not is_number(gamma) or not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be 'auto' or between 0 and 1, not {gamma!r}")
        self.gamma_ = float(gamma)
        if set(given) != set(total.names) or not all(0 < value < np.inf for value in given.values()):
            raise ValueError(f"block_weights must name {', '.join(total.names)} with numbers > 0, not {given}")
        mean = sum(given.values()) / len(given)
        self.block_weights_ = {name: given[name] / mean for name in total.names}

    @property
    def average_weights_(self) -> dict[str, float]:
        """The weights of the average that the directions were sought for."""
        return _solvers.shares(self.block_weights_)

    def _default_average(self) -> Mapping[str, float] | None:
        equal = len(set(self.block_weights_.values())) == 1
        return None if equal else self.average_weights_

    def _solve(self, moments: Moments, ridge: float, dim: int) -> Weights:
        return _solvers.joint(moments, self.gamma_, self.block_weights_, ridge, dim, supervision=self._supervision)

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        values, arrays = super()._state()
        values |= {"gamma": self.gamma_, "block_weights": self.block_weights_}
        if self._supervision is not None:
            values |= {"target_variance": float(self._supervision.variance)}
            cross = [self._supervision.cross[name] for name in self.n_features_in_]
            arrays |= {f"target.{i}": np.ascontiguousarray(values) for i, values in enumerate(cross)}
        return values, arrays

    def _restore(self, values: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        super()._restore(values, arrays)
        self.gamma_, self.block_weights_ = values["gamma"], values["block_weights"]
        if (variance := values.get("target_variance")) is not None:
            cross = {name: arrays[f"target.{i}"] for i, name in enumerate(self.n_features_in_)}
            self._supervision = Supervision(cross, variance, self.target_share, self.target_ridge)
