"""The networks of the trained alignments, each started from the linear alignment that it refines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from barycenter.fusion.arrays import Float64

_MOST_LOG_SCALE = float(np.log(100))
_VALIDATION_TEMPERATURES = (0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class ViewBatch:
    """Some rows.

    Attributes:
        views: (n, d) of every input in order; NaN rows are missing.
        groups: (n,) integers; rows with equal ones are near-copies of each other.
    """

    views: tuple[Tensor, ...]
    groups: Tensor

    def to(self, device: torch.device) -> "ViewBatch":
        """The same rows on a device."""
        return ViewBatch(tuple(values.to(device, non_blocking=True) for values in self.views), self.groups.to(device))


class LearnedFeatures(nn.Module):
    r"""Features of one input: itself, standardized, beside a hidden layer: :math:`[\tilde x, \max(0, \tilde x H + b)]`.

    Args:
        mean: (d,) mean of the input.
        scale: Root of its mean variance.
        hidden: (d, width) H, and
        bias: (width,) b; drawn when not given.
        width: Hidden units, where they are drawn.
    """

    def __init__(
        self,
        mean: NDArray[np.floating],
        scale: float,
        width: int = 0,
        hidden: NDArray[np.floating] | None = None,
        bias: NDArray[np.floating] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        if hidden is None or bias is None:
            drawn = nn.Linear(len(mean), width)
            self.hidden = nn.Parameter(drawn.weight.detach().T.contiguous())
            self.bias = nn.Parameter(drawn.bias.detach())
        else:
            self.hidden = nn.Parameter(torch.as_tensor(hidden, dtype=torch.float32))
            self.bias = nn.Parameter(torch.as_tensor(bias, dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        """(n, d) to (n, d + width)."""
        like = values.dtype
        standard = (values - self.get_buffer("mean").to(like)) / self.get_buffer("scale").to(like)
        return torch.cat([standard, functional.relu(standard @ self.hidden.to(like) + self.bias.to(like))], dim=1)


class Projection(nn.Module):
    """A linear map of the features, at first the (d, dim) weights of a linear alignment of the input as it is."""

    def __init__(self, features: LearnedFeatures, weights: Float64) -> None:
        super().__init__()
        self.features = features
        start = torch.zeros(weights.shape[0] + features.hidden.shape[1], weights.shape[1])
        start[: len(weights)] = torch.as_tensor(weights) * features.get_buffer("scale")
        self.weights = nn.Parameter(start)

    def standard(self, values: Tensor) -> Tensor:
        """The input in the units in which it is reconstructed."""
        return (values - self.features.get_buffer("mean")) / self.features.get_buffer("scale")

    def forward(self, values: Tensor, noise: float = 0.0) -> Tensor:
        """(n, d) to (n, dim)."""
        features = self.features(values)
        if noise and self.training:
            features = functional.dropout(features, noise)
        return torch.as_tensor(features @ self.weights)


class AlignmentNetwork(nn.Module):
    """What both networks share: a head per input, and a loss of one batch as its ``forward``."""

    def __init__(self, heads: Sequence[Projection], input_dropout: float, feature_dropout: float) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.input_dropout = input_dropout
        self.feature_dropout = feature_dropout

    validation_losses = 1
    """How many losses :meth:`validation_loss` gives."""

    @property
    def dim(self) -> int:
        """Width of the aligned vectors."""
        return int(cast(Projection, self.heads[0]).weights.shape[1])

    def aligned(self, batch: ViewBatch) -> tuple[list[Tensor], Tensor]:
        """(n, dim) of every input, zeros where it is missing, and the (n, inputs) mask of what is there."""
        present = torch.stack([~values.isnan().any(dim=1) for values in batch.views], dim=1)
        out = []
        for i, (head, values) in enumerate(zip(self.heads, batch.views, strict=True)):
            here = present[:, i : i + 1]
            own = head(torch.where(here, values, 0.0), self.feature_dropout)
            out.append(torch.where(here, own, 0.0))
        return out, present

    def validation_loss(self, batch: ViewBatch) -> Tensor:
        """(k,) held-out losses of a batch; the smallest mean over all batches counts."""
        return torch.as_tensor(self(batch))[None]

    def withheld(self, present: Tensor) -> Tensor:
        """The mask with some inputs of training rows dropped at random, at least one kept."""
        if not (self.training and self.input_dropout):
            return present
        chance = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
        kept = present & (chance >= self.input_dropout)
        return torch.where(kept.any(dim=1, keepdim=True), kept, chance == chance.amax(dim=1, keepdim=True)) & present


class AutoencoderNet(AlignmentNetwork):
    r"""Heads into one bottleneck, out of which every input is decoded, whatever was withheld.

    .. math:: z = \tfrac1M \sum_m a_m, \quad \hat a_q = \tfrac1{|P|} \sum_{p \in P} a_p T_{pq} \text{ for missing } q,
        \quad \hat x_m = z D_m + \max(0, z G + g) E_m

    The loss is the mean over inputs of the squared error over the variance, every input equally heavy.

    T are ``completions``, ``{(p, q): (dim, dim)}``, D ``decoders``, (dim, d) for every input, in standardized units;
    ``width`` counts the hidden units of the decoder.
    """

    def __init__(
        self,
        heads: Sequence[Projection],
        completions: Mapping[tuple[int, int], Float64],
        decoders: Sequence[Float64],
        width: int,
        input_dropout: float,
        feature_dropout: float,
    ) -> None:
        super().__init__(heads, input_dropout, feature_dropout)
        self.completions = nn.ParameterDict(
            {f"{p}_{q}": nn.Parameter(torch.as_tensor(t, dtype=torch.float32)) for (p, q), t in completions.items()}
        )
        starts = [torch.as_tensor(values, dtype=torch.float32) for values in decoders]
        self.decoders = nn.ParameterList(nn.Parameter(values) for values in starts)
        self.hidden = nn.Linear(len(decoders[0]), width)
        self.outputs = nn.ParameterList(nn.Parameter(torch.zeros(width, values.shape[1])) for values in decoders)

    def forward(self, batch: ViewBatch) -> Tensor:
        """The reconstruction error of a batch; out of training the one to be expected over what may be withheld."""
        aligned, there = self.aligned(batch)
        if self.training:
            return self._error(batch, aligned, there, self.withheld(there))
        loss = self._error(batch, aligned, there, there)
        if not self.input_dropout or len(aligned) == 1:
            return loss
        lacking = [self._error(batch, aligned, there, self._without(there, m)) for m in range(len(aligned))]
        return (1 - self.input_dropout) * loss + self.input_dropout * torch.stack(lacking).mean()

    @staticmethod
    def _without(there: Tensor, missing: int) -> Tensor:
        """The mask without one input, but for rows that have no other."""
        kept = there.clone()
        kept[:, missing] = False
        return torch.where(kept.any(dim=1, keepdim=True), kept, there)

    def _error(self, batch: ViewBatch, aligned: list[Tensor], there: Tensor, kept: Tensor) -> Tensor:
        bottleneck = self._bottleneck(aligned, kept)
        hidden = functional.relu(self.hidden(bottleneck))
        loss = bottleneck.new_zeros(())
        for i, (head, values) in enumerate(zip(self.heads, batch.views, strict=True)):
            target = torch.where(there[:, i : i + 1], cast(Projection, head).standard(values), 0.0)
            error = bottleneck @ self.decoders[i] + hidden @ self.outputs[i] - target
            rows = error.float().square().mean(dim=1) * there[:, i]
            loss = loss + rows.sum() / there[:, i].sum().clamp(min=1)
        return loss / len(self.heads)

    def _bottleneck(self, aligned: list[Tensor], kept: Tensor) -> Tensor:
        count = kept.sum(dim=1, keepdim=True).clamp(min=1)
        total = torch.zeros_like(aligned[0])
        for q, own in enumerate(aligned):
            guess = torch.zeros_like(own)
            for p, other in enumerate(aligned):
                if p != q:
                    guess = guess + torch.where(kept[:, p : p + 1], other, 0.0) @ self.completions[f"{p}_{q}"]
            total = total + torch.where(kept[:, q : q + 1], own, guess / count)
        return total / len(aligned)


class ContrastiveNet(AlignmentNetwork):
    """Heads whose outputs of one row find each other among all rows of the batch.

    The symmetric cross-entropy of CLIP (Radford et al. 2021), the mean over pairs of inputs. Near-copies of a row are
    no negatives for it. Outputs are centered within the batch, as they are when the alignment is used.

    """

    validation_losses = len(_VALIDATION_TEMPERATURES)

    def __init__(self, heads: Sequence[Projection], temperature: float, feature_dropout: float) -> None:
        super().__init__(heads, 0.0, feature_dropout)
        self.log_scale = nn.Parameter(torch.tensor(-np.log(temperature), dtype=torch.float32))

    def forward(self, batch: ViewBatch) -> Tensor:
        """The loss of a batch."""
        return self._loss(batch, [self.log_scale.clamp(max=_MOST_LOG_SCALE).exp()])[0]

    def validation_loss(self, batch: ViewBatch) -> Tensor:
        """(k,) losses of a batch at several temperatures, so that none seems better by being less sure only."""
        return self._loss(batch, [self.log_scale.new_tensor(1 / each) for each in _VALIDATION_TEMPERATURES])

    def _loss(self, batch: ViewBatch, scales: Sequence[Tensor]) -> Tensor:
        aligned, there = self.aligned(batch)
        copies = batch.groups[:, None] == batch.groups[None, :]
        copies.fill_diagonal_(False)
        losses = []
        for p in range(len(aligned)):
            for q in range(p + 1, len(aligned)):
                both = there[:, p] & there[:, q]
                cosines = self._cosines(aligned[p], aligned[q], both)
                losses.append(torch.stack([_info_nce(cosines * scale, both, copies) for scale in scales]))
        return torch.stack(losses).mean(dim=0)

    @staticmethod
    def _cosines(left: Tensor, right: Tensor, both: Tensor) -> Tensor:
        count = both.sum().clamp(min=1)
        with torch.autocast(left.device.type, enabled=False):
            units = [
                functional.normalize((own - (own * both[:, None]).sum(dim=0) / count).float(), dim=1)
                for own in (left, right)
            ]
            return units[0] @ units[1].T


def _info_nce(scores: Tensor, both: Tensor, copies: Tensor) -> Tensor:
    """Symmetric cross-entropy of (n, n) scores over the rows that have both inputs, without near-copies."""
    truth = torch.where(both, torch.arange(len(both), device=both.device), -100)
    total = scores.new_zeros(())
    for logits in (scores, scores.T):
        allowed = torch.where(copies | ~both[None, :], -torch.inf, logits)
        safe = torch.where(both[:, None], allowed, 0.0)
        total = total + functional.cross_entropy(safe, truth, ignore_index=-100, reduction="sum")
    return total / 2 / both.sum().clamp(min=1)
