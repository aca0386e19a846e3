"""An autoencoder with one bottleneck for all inputs, from which every one is decoded, whichever are there."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from barycenter.fusion.alignment.eigenproblems import Weights, mean_variance, stacked
from barycenter.fusion.alignment.joint import Joint
from barycenter.fusion.alignment.trained import TrainedAlignment
from barycenter.fusion.arrays import Float64
from barycenter.fusion.moments import Moments
from barycenter.fusion.ridge import solve_ridge

if TYPE_CHECKING:
    from barycenter.fusion.alignment.networks import AlignmentNetwork, Projection

_COMPLETION_RIDGE = 0.1


@dataclass(eq=False, repr=False)
class Autoencoder(TrainedAlignment):
    r"""Encoders of every input into one bottleneck, trained to decode all inputs from any subset (Ngiam et al. 2011).

    .. math:: z = \tfrac1M\sum_m a_m,\quad a_m = [\tilde x_m, \max(0, \tilde x_m H_m + b_m)]\,W_m,\quad
        \min \sum_m \|\tilde x_m - D_m(z)\|^2 / d_m

    Inputs are withheld at random in training; a withheld one enters the bottleneck as what the others say of it. The
    start is the PCA of the block-scaled concatenation (``joint`` with gamma = 1), which is the optimum of the linear
    autoencoder (Baldi and Hornik 1989).

    Beside the parameters of :class:`TrainedAlignment`, whose ``width`` is that of the decoder, too:

    Args:
        input_dropout: Probability with which an input of a row is withheld, never all.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(300, 2))
        >>> a = Autoencoder(dim=2, width=8, epochs=2).fit({"x": z @ rng.normal(size=(2, 3)), "y": z + 1})
        >>> a.fuse({"y": z[:5] + 1}).shape, a.history_[-1] < 0.1
        ((5, 2), True)
    """

    method = "autoencoder"
    start_method = Joint
    input_dropout: float = 0.3

    def _check_params(self) -> None:
        super()._check_params()
        if not 0 <= self.input_dropout < 1:
            raise ValueError(f"input_dropout must be from 0 to below 1, not {self.input_dropout}")

    def _network(self, heads: "list[Projection]", weights: Weights, moments: Moments) -> "AlignmentNetwork":
        """The network before training: encoders, decoders and completions that equal the linear solution."""
        from barycenter.fusion.alignment.networks import AutoencoderNet

        names = moments.names
        completions = {
            (p, q): _completion(moments, weights, a, b)
            for p, a in enumerate(names)
            for q, b in enumerate(names)
            if p != q
        }
        decoders = _decoders(moments, weights)
        return AutoencoderNet(heads, completions, decoders, self.width, self.input_dropout, self.feature_dropout)


def _completion(moments: Moments, weights: Weights, present: str, missing: str) -> Float64:
    """(dim, dim) ridge regression of one aligned input on another."""
    own = weights[present].T @ moments.block(present, present) @ weights[present]
    cross = weights[present].T @ moments.block(present, missing) @ weights[missing]
    return solve_ridge(own, cross, _COMPLETION_RIDGE)


def _decoders(moments: Moments, weights: Weights) -> list[Float64]:
    """(dim, d) regression of every standardized input on the mean of the aligned ones."""
    names = moments.names
    together = np.vstack([weights[name] for name in names]) / len(names)
    cross = together.T @ stacked(moments, names, names)
    own = cross @ together
    scales = {name: mean_variance(moments, name) ** 0.5 for name in names}
    return [solve_ridge(own, cross[:, moments.columns[name]], 1e-6) / scales[name] for name in names]
