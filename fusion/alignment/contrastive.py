"""Projection heads by which the inputs of one row find each other among others."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from barycenter.fusion.alignment.eigenproblems import Weights
from barycenter.fusion.alignment.linear import CCA
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.alignment.trained import TrainedAlignment
from barycenter.fusion.moments import Moments

if TYPE_CHECKING:
    from barycenter.fusion.alignment.networks import AlignmentNetwork, Projection


@dataclass(eq=False, repr=False)
class Contrastive(TrainedAlignment):
    r"""Projection heads trained by the symmetric InfoNCE over the batch (van den Oord 2018, CLIP: Radford et al. 2021).

    .. math:: \min\; -\tfrac12 \sum_i \log \frac{e^{s_{ii}/\tau}}{\sum_j e^{s_{ij}/\tau}}
        + \log \frac{e^{s_{ii}/\tau}}{\sum_j e^{s_{ji}/\tau}}, \quad s_{ij} = \cos(a_i, b_j)

    The start is ridge CCA with every component weighted by the root of its held-out correlation, as the posterior mean
    of the shared latent weights it (Bach and Jordan 2005). Rows of one group are no negatives of each other. More than
    two inputs: the mean over pairs. Held-out loss is that at the best temperature.

    Beside the parameters of :class:`TrainedAlignment`; the rows of a step are each other's negatives:

    Args:
        temperature: At first; it is learned.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(300, 2))
        >>> a = Contrastive(dim=2, width=8, epochs=2).fit({"x": z @ rng.normal(size=(2, 3)), "y": z + 1})
        >>> a.transform({"y": z[:5] + 1})["y"].shape, a.fuse({"y": z[:5] + 1}).shape
        ((5, 2), (5, 2))
    """

    method = "contrastive"
    min_inputs = 2
    start_method = CCA
    batch_size: int = 1024
    temperature: float = 0.07

    def _check_params(self) -> None:
        super()._check_params()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")

    def _start_weights(self, start: LinearAlignment) -> Weights:
        found = start.heldout_correlations_
        strength = np.clip(np.where(np.isnan(found), start.correlations_, found), 0.05, None)
        return {name: block * np.sqrt(strength) for name, block in start.weights_.items()}

    def _network(self, heads: "list[Projection]", _weights: Weights, _moments: Moments) -> "AlignmentNetwork":
        from barycenter.fusion.alignment.networks import ContrastiveNet

        return ContrastiveNet(heads, self.temperature, self.feature_dropout)
