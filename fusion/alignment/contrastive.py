"""Projection heads by which the inputs of one row find each other among others."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from barycenter.fusion.alignment.eigenproblems import Weights
from barycenter.fusion.alignment.linear import CCA
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.alignment.trained import TrainedAlignment
from barycenter.fusion.moments import Moments, Precision

if TYPE_CHECKING:
    from barycenter.fusion.alignment.networks import AlignmentNetwork, Projection


class Contrastive(TrainedAlignment):
    r"""Projection heads trained by the symmetric InfoNCE over the batch (van den Oord 2018, CLIP: Radford et al. 2021).

    .. math:: \min\; -\tfrac12 \sum_i \log \frac{e^{s_{ii}/\tau}}{\sum_j e^{s_{ij}/\tau}}
        + \log \frac{e^{s_{ii}/\tau}}{\sum_j e^{s_{ji}/\tau}}, \quad s_{ij} = \cos(a_i, b_j)

    The start is ridge CCA with every component weighted by the root of its held-out correlation, as the posterior mean
    of the shared latent weights it (Bach and Jordan 2005). Rows of one group are no negatives of each other. More than
    two inputs: the mean over pairs. Held-out loss is that at the best temperature.

    Args:
        dim: Number of components.
        regularization: See :class:`TrainedAlignment`, also for what follows.
        folds: Of the rows; the first one is held out.
        precision: Type in which moments are multiplied.
        width: Hidden units of every head.
        epochs: At most.
        patience: Epochs without a better held-out loss.
        batch_size: Rows in a step, each other's negatives.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        temperature: At first; it is learned.
        feature_dropout: Probability with which a feature is withheld in training.
        seed: Of everything random.
        device: ``auto``, ``cpu``, ``cuda``.
        widths: ``{name: columns}`` of the inputs, for one matrix of all of them.

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(300, 2))
    >>> a = Contrastive(dim=2, width=8, epochs=2).fit({"x": z @ rng.normal(size=(2, 3)), "y": z + 1})
    >>> a.transform({"y": z[:5] + 1})["y"].shape, a.fuse({"y": z[:5] + 1}).shape
    ((5, 2), (5, 2))
    """

    method = "contrastive"
    min_inputs = 2
    start_method = CCA

    def __init__(
        self,
        dim: int | None = 256,
        regularization: float | Literal["auto"] = "auto",
        folds: int = 5,
        precision: Precision = "float32",
        width: int = 512,
        epochs: int = 50,
        patience: int = 5,
        batch_size: int = 1024,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-2,
        temperature: float = 0.07,
        feature_dropout: float = 0.1,
        seed: int = 0,
        device: str = "auto",
        widths: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(
            dim, regularization, folds, precision, width, epochs, patience, batch_size, learning_rate, weight_decay,
            feature_dropout, seed, device, widths,
        )  # fmt: skip
        self.temperature = temperature

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
