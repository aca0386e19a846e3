"""The family between canonical correlation and concatenation."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fusion import _solvers
from fusion._solvers import Weights
from fusion.alignment.linear import LinearAlignment
from fusion.moments import Moments, Precision


class Joint(LinearAlignment):
    r"""The family between CCA (gamma = 0: what the inputs share) and the PCA of the concatenation (gamma = 1: all).

    .. math:: S w = \theta B w, \quad
        B = \mathrm{blockdiag}((1-\gamma)(C_m + \lambda t_m) + \gamma\,\mathrm{tr}(C_m)/\omega_m)

    The average of the aligned inputs with weights :math:`w_m \propto \sqrt{\omega_m}` is the component score (the mean
    where all are equal): an input's weight says how much it counts when directions are sought and, the same, when they
    are averaged; the aligned inputs themselves are equally loud. Components are ordered by theta.

    Args:
        dim: Number of components.
        regularization: See :class:`LinearAlignment`; ``auto`` predicts held-out inputs best.
        folds: Cross-validation folds.
        precision: See :class:`fusion.moments.Moments`.
        gamma: In 0..1; ``auto`` is 1, which keeps most of a concatenation.
        block_weights: Inertia omega > 0 of each input, on any common scale; ``auto`` is equal.
        fill_ridges: See :class:`LinearAlignment`.

    Attributes:
        gamma_: The gamma in use.
        block_weights_: The inertia in use, mean one.
        average_weights_: :math:`w_m \propto \sqrt{\omega_m}`, summing to one.
    """

    method = "joint"
    gamma_: float
    block_weights_: dict[str, float]

    def __init__(
        self,
        dim: int | None = None,
        regularization: float | Literal["auto"] = "auto",
        folds: int = 5,
        precision: Precision = "float32",
        gamma: float | Literal["auto"] = "auto",
        block_weights: Mapping[str, float] | Literal["auto"] = "auto",
        fill_ridges: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(dim, regularization, folds, precision, fill_ridges)
        self.gamma = gamma
        self.block_weights = block_weights

    @classmethod
    def dim_limit(cls, widths: Sequence[int]) -> int:
        """The width of the concatenation."""
        return sum(widths)

    def _check_inputs(self, total: Moments) -> None:
        super()._check_inputs(total)
        gamma = 1.0 if self.gamma == "auto" else self.gamma
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be 'auto' or between 0 and 1, not {gamma}")
        self.gamma_ = float(gamma)
        given = dict.fromkeys(total.names, 1.0) if isinstance(self.block_weights, str) else dict(self.block_weights)
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
        return _solvers.joint(moments, self.gamma_, self.block_weights_, ridge, dim)

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        values, arrays = super()._state()
        return values | {"gamma": self.gamma_, "block_weights": self.block_weights_}, arrays

    def _restore(self, values: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        super()._restore(values, arrays)
        self.gamma_, self.block_weights_ = values["gamma"], values["block_weights"]
