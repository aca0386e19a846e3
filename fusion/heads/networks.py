"""The trained heads' networks. Each begins as the linear head on the average and learns what to add to it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

_DROPOUT = 0.2
_GATE_DROPOUT = 0.5
ATTENTION_HEADS = 4


class LinearOnAverage(nn.Module):
    """Logits of the fused vector, scaled to unit mean square; what the other heads start from.

    Args:
        dim: Width of the fused vectors.
        outputs: Classes, labels or values.
        inputs: Number of inputs.
        hidden: Width of a hidden layer, or of a token.
        shares: Weight of each input in the average, summing to 1.
    """

    def __init__(self, dim: int, outputs: int, inputs: int, hidden: int, shares: Sequence[float]) -> None:  # noqa: ARG002
        super().__init__()
        self.output = nn.Linear(dim, outputs)
        self.register_buffer("scale", torch.ones(()))

    def start(self, coefficients: Tensor, intercepts: Tensor, scale: float) -> None:
        """Takes over a linear head: (dim, outputs) coefficients and (outputs,) intercepts for unscaled vectors."""
        with torch.no_grad():
            self.get_buffer("scale").fill_(scale)
            self.output.weight.copy_(coefficients.T / scale)
            self.output.bias.copy_(intercepts)

    def forward(self, fused: Tensor, aligned: Tensor, present: Tensor) -> Tensor:
        """(n, outputs) logits.

        Args:
            fused: (n, dim).
            aligned: (n, inputs, dim), finite; the values of missing inputs do not matter.
            present: (n, inputs) boolean.
        """
        del aligned, present
        logits: Tensor = self.output(fused * self.get_buffer("scale"))
        return logits


class Mlp(LinearOnAverage):
    """A hidden layer on the average and on which inputs there are, added to the linear logits."""

    def __init__(self, dim: int, outputs: int, inputs: int, hidden: int, shares: Sequence[float]) -> None:
        super().__init__(dim, outputs, inputs, hidden, shares)
        self.hidden = nn.Sequential(nn.Linear(dim + inputs, hidden), nn.GELU(), nn.Dropout(_DROPOUT))
        self.more = _zero(nn.Linear(hidden, outputs))

    def forward(self, fused: Tensor, aligned: Tensor, present: Tensor) -> Tensor:
        """See :class:`LinearOnAverage`."""
        known = torch.cat([fused * self.get_buffer("scale"), present.to(fused.dtype) - 0.5], dim=1)
        logits: Tensor = super().forward(fused, aligned, present) + self.more(self.hidden(known))
        return logits


class Gated(Mlp):
    """Averages the aligned inputs anew, with weights that depend on the row, then as :class:`Mlp`.

    A gate looks at all aligned inputs that are there and shares their total weight out among them; at the start each
    gets what it has in the average. The average itself moves by (gate - share) times each aligned input, so what it
    holds in place of missing inputs stays. Half of what the gate sees is dropped in training: it has to tell an input
    that lies from one that does not, not one row from another.
    """

    def __init__(self, dim: int, outputs: int, inputs: int, hidden: int, shares: Sequence[float]) -> None:
        super().__init__(dim, outputs, inputs, hidden, shares)
        self.look = nn.Sequential(
            nn.Dropout(_GATE_DROPOUT),
            nn.Linear(inputs * (dim + 1), hidden),
            nn.GELU(),
            nn.Dropout(_GATE_DROPOUT),
            _zero(nn.Linear(hidden, inputs)),
        )
        self.register_buffer("shares", torch.tensor(shares, dtype=torch.float32))

    def gates(self, aligned: Tensor, present: Tensor) -> Tensor:
        """(n, inputs) weights: 0 where missing, in each row summing to what its inputs weigh in the average."""
        there = present.unsqueeze(2)
        seen = torch.where(there, aligned * self.get_buffer("scale"), 0.0)
        flags = present.to(aligned.dtype) - 0.5
        logits = self.look(torch.cat([seen.flatten(1), flags], dim=1)) + self.get_buffer("shares").clamp_min(1e-6).log()
        logits = logits.masked_fill(~present, -torch.inf)
        total = (present * self.get_buffer("shares")).sum(dim=1, keepdim=True)
        return torch.nan_to_num(torch.softmax(logits, dim=1)) * total

    def forward(self, fused: Tensor, aligned: Tensor, present: Tensor) -> Tensor:
        """See :class:`LinearOnAverage`."""
        shift = (self.gates(aligned, present) - present * self.get_buffer("shares")).unsqueeze(2)
        moved = fused + (shift * torch.where(present.unsqueeze(2), aligned, 0.0)).sum(dim=1)
        return super().forward(moved, aligned, present)


class Attention(LinearOnAverage):
    """Self-attention over the aligned inputs and their average as tokens, added to the linear logits."""

    def __init__(self, dim: int, outputs: int, inputs: int, hidden: int, shares: Sequence[float]) -> None:
        super().__init__(dim, outputs, inputs, hidden, shares)
        self.read = nn.Linear(dim, hidden)
        self.kind = nn.Parameter(torch.randn(inputs + 1, hidden) * 0.02)
        self.block = nn.TransformerEncoderLayer(
            hidden, ATTENTION_HEADS, 2 * hidden, _DROPOUT, "gelu", batch_first=True, norm_first=True
        )
        self.more = _zero(nn.Linear(hidden, outputs))

    def forward(self, fused: Tensor, aligned: Tensor, present: Tensor) -> Tensor:
        """See :class:`LinearOnAverage`."""
        aligned = torch.where(present.unsqueeze(2), aligned, 0.0)
        tokens = torch.cat([fused.unsqueeze(1), aligned], dim=1) * self.get_buffer("scale")
        missing = torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1)
        mixed = self.block(self.read(tokens) + self.kind, src_key_padding_mask=missing)
        logits: Tensor = super().forward(fused, aligned, present) + self.more(mixed[:, 0])
        return logits


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


KINDS: Mapping[str, type[LinearOnAverage]] = {"mlp": Mlp, "gated": Gated, "attention": Attention}
