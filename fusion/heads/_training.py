"""Training of the neural heads: mini-batches in a seeded order, and the losses of the tasks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from barycenter.fusion.heads.targets import Task
from barycenter.fusion.training.context import TrainingContext
from barycenter.fusion.training.loop import TrainingSettings, train

_EVALUATION_ROWS = 16384
_ROWS_FILLED_TO = 16


@dataclass(frozen=True)
class HeadRows:
    """Rows that a neural head reads.

    Attributes:
        fused: (n, dim).
        aligned: (n, inputs, dim), zeros where missing.
        present: (n, inputs) boolean.
        target: (n, k) one-hot classes, 0/1 labels, or values.
        weight: (n,) weights in the loss.
    """

    fused: Tensor
    aligned: Tensor
    present: Tensor
    target: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.fused)

    def take(self, index: Tensor, device: torch.device | str = "cpu") -> "HeadRows":
        """Some rows, on a device."""
        parts = (self.fused, self.aligned, self.present, self.target, self.weight)
        return HeadRows(*(part[index].to(device) for part in parts))


def train_head_network(
    module: nn.Module,
    rows: HeadRows,
    task: Task,
    settings: TrainingSettings,
    context: TrainingContext,
    *,
    batch_size: int,
    held_out: HeadRows | None = None,
    steps: int | None = None,
    **checkpoints: Any,
) -> int:
    """Trains the network of a head in place; for the arguments see :func:`barycenter.fusion.training.loop.train`.

    Weight decay leaves out what the linear head gave, a batch counts the rows of all ranks, and ``steps`` are for a
    training without held-out rows.

    Returns:
        Steps taken to the weights that it ends with.
    """
    per_epoch = steps_per_epoch(len(rows), batch_size)

    def batches(epoch: int) -> Iterator[HeadRows]:
        generator = torch.Generator().manual_seed(settings.seed * 7919 + epoch)
        order = torch.randperm(len(rows), generator=generator)
        for part in torch.tensor_split(order, per_epoch):
            mine = part[context.rank :: context.world_size]
            yield rows.take(mine if len(mine) else order[:1], context.device)

    def training_loss(parallel: nn.Module, batch: HeadRows) -> Tensor:
        return _loss(parallel(batch.fused, batch.aligned, batch.present), batch, task)

    module.to(context.device)
    steps = settings.epochs * per_epoch if steps is None else steps
    stopping = train(
        context,
        module,
        _optimizer(module, settings),
        training_loss,
        batches,
        steps=steps,
        steps_per_epoch=per_epoch,
        seed=settings.seed * 1_000_003,
        validation_loss=None if held_out is None else lambda: _validation_loss(module, held_out, task, context),
        patience=settings.patience,
        **checkpoints,
    )
    return steps if held_out is None else stopping.best_epoch * per_epoch


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Number of batches that so many rows make."""
    return max(1, rows // batch_size)


def _optimizer(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    linear = [value for name, value in module.named_parameters() if name.startswith("output.")]
    others = [value for name, value in module.named_parameters() if not name.startswith("output.")]
    groups = [{"params": linear, "weight_decay": 0.0}, {"params": others, "weight_decay": settings.weight_decay}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate)


def _loss(logits: Tensor, batch: HeadRows, task: Task) -> Tensor:
    if task == "classification":
        each = nn.functional.cross_entropy(logits, batch.target, reduction="none")
    elif task == "multilabel":
        each = nn.functional.binary_cross_entropy_with_logits(logits, batch.target, reduction="none").mean(dim=1)
    else:
        each = ((logits - batch.target) ** 2).mean(dim=1)
    return (each * batch.weight).sum() / batch.weight.sum()


def _validation_loss(module: nn.Module, rows: HeadRows, task: Task, context: TrainingContext) -> float:
    """The loss over all rows, each rank taking its share."""
    total = torch.zeros(2, dtype=torch.float64)
    mine = torch.arange(context.rank, len(rows), context.world_size)
    for index, logits in predict_logits(module, rows, mine, context.device):
        part = rows.take(index)
        weight = part.weight.sum().double()
        total += torch.stack([_loss(logits, part, task).double() * weight, weight])
    loss, weight = context.all_reduce_sum(total)
    return float(loss / weight)


def predict_logits(
    module: nn.Module, rows: HeadRows, index: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of row numbers and their (n, k) logits on the CPU, block by block.

    Blocks are filled up with their last row: BLAS computes one row, or a few, otherwise than many.
    """
    module.eval()
    for block in torch.split(index, _EVALUATION_ROWS):
        part = rows.take(torch.cat([block, block[-1:].repeat(-len(block) % _ROWS_FILLED_TO)]), device)
        with torch.no_grad():
            yield block, module(part.fused, part.aligned, part.present)[: len(block)].cpu()
