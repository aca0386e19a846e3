"""Training of the networks of the trained alignments: batch by batch, so that rows may come from anywhere."""

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from barycenter.fusion.alignment.networks import AlignmentNetwork, ViewBatch
from barycenter.fusion.training.context import Checkpoint, TrainingContext
from barycenter.fusion.training.loop import TrainingSettings, train
from barycenter.fusion.validation import Views


def train_alignment_network(
    context: TrainingContext,
    network: AlignmentNetwork,
    settings: TrainingSettings,
    batches: Callable[[int], Iterable[ViewBatch]],
    held_out: Callable[[], Iterable[ViewBatch]] | None,
    steps_per_epoch: int,
) -> Checkpoint:
    """Trains a network with AdamW; a checkpoint is saved after every epoch.

    Args:
        context: Where it runs.
        network: Its ``forward`` maps a :class:`ViewBatch` to a loss.
        settings: How.
        batches: This rank's training batches of an epoch; cycled where they are fewer than its steps.
        held_out: Gives this rank's batches for early stopping; None to train for all epochs.
        steps_per_epoch: The same on every rank.

    Returns:
        The parameters with the lowest held-out loss, the last ones where nothing is held out; ``state`` holds
        ``history``, that loss before the first epoch and after each, and ``heldout_correlations`` of the components.
    """
    network.to(context.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def training_loss(module: nn.Module, batch: ViewBatch) -> Tensor:
        with _mixed_precision(context):
            return torch.as_tensor(module(batch.to(context.device)))

    stopping = train(
        context,
        network,
        optimizer,
        training_loss,
        lambda epoch: _cycle(batches, epoch),
        steps=settings.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        seed=settings.seed * context.world_size,
        save_every=steps_per_epoch,
        validation_loss=None if held_out is None else lambda: _validation_loss(context, network, held_out()),
        patience=settings.patience,
    )
    tensors = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    correlations = _correlations(context, network, () if held_out is None else held_out())
    state = {"history": stopping.history, "heldout_correlations": correlations}
    return Checkpoint(len(stopping.history), tensors, state)


def _validation_loss(context: TrainingContext, network: AlignmentNetwork, batches: Iterable[ViewBatch]) -> float:
    """The mean loss over the batches of all ranks, which may differ in number, each weighted by its rows."""
    network.eval()
    total = torch.zeros(network.validation_losses + 1, dtype=torch.float64)
    with torch.no_grad(), _mixed_precision(context):
        for batch in batches:
            losses = network.validation_loss(batch.to(context.device)).double().cpu()
            total += torch.cat([losses, torch.ones(1, dtype=torch.float64)]) * len(batch.groups)
    total = context.all_reduce_sum(total)
    return float((total[:-1] / total[-1].clamp(min=1)).min())


def _correlations(context: TrainingContext, network: AlignmentNetwork, batches: Iterable[ViewBatch]) -> list[float]:
    """Correlation of every component between inputs, the mean over pairs of inputs, over the batches of all ranks."""
    network.eval()
    pairs = list(combinations(range(len(network.heads)), 2))
    sums = torch.zeros(len(pairs), 6, network.dim, dtype=torch.float64)
    with torch.no_grad():
        for batch in batches:
            aligned, there = network.aligned(batch.to(context.device))
            for number, (p, q) in enumerate(pairs):
                both = there[:, p] & there[:, q]
                x, y = aligned[p][both].double(), aligned[q][both].double()
                terms = [torch.ones_like(x), x, y, x * x, y * y, x * y]
                sums[number] += torch.stack([term.sum(dim=0) for term in terms]).cpu()
    n, x, y, xx, yy, xy = context.all_reduce_sum(sums).unbind(dim=1)
    n = n.clamp(min=1)
    spread = ((xx - x * x / n) * (yy - y * y / n)).clamp(min=0).sqrt()
    found = torch.where(spread > 0, (xy - x * y / n) / spread.where(spread > 0, 1.0), 0.0)
    return [float(value) for value in found.mean(dim=0)] if pairs else []


def _mixed_precision(context: TrainingContext) -> torch.autocast:
    """bfloat16 where a GPU allows it."""
    return torch.autocast(context.device.type, dtype=torch.bfloat16, enabled=context.device.type == "cuda")


def _cycle(batches: Callable[[int], Iterable[ViewBatch]], epoch: int) -> Iterator[ViewBatch]:
    """The batches of an epoch again and again; none where it has none."""
    empty = False
    while not empty:
        empty = True
        for batch in batches(epoch):
            empty = False
            yield batch


def batches_of(
    views: Views, groups: NDArray[np.int64], rows: NDArray[np.int64], size: int, seed: list[int] | None = None
) -> Iterator[ViewBatch]:
    """Batches of about ``size`` in-memory rows, in an order drawn from the seed if there is one."""
    order = rows if seed is None else np.random.default_rng(seed).permutation(rows)
    for index in np.array_split(order, max(1, round(len(order) / size))):
        part = tuple(torch.from_numpy(np.asarray(values[index], dtype=np.float32)) for values in views.values())
        yield ViewBatch(part, torch.from_numpy(groups[index]))
