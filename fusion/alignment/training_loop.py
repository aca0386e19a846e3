"""The training loop of the trained alignments: batch by batch, so that rows may come from anywhere."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from barycenter.fusion.alignment.networks import Batch, Learner
from barycenter.fusion.training import Checkpoint, Place, apart, pack, reseed, unpack
from barycenter.fusion.validation import Views

Batches = Callable[[int], Iterable[Batch]]
"""The batches of this rank in an epoch, by its number."""


@dataclass(frozen=True)
class Settings:
    """How a learner is trained; see :class:`barycenter.fusion.alignment.trained.TrainedAlignment`."""

    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    seed: int


def train(
    place: Place, learner: Learner, settings: Settings, batches: Batches, held_out: Batches, steps: int
) -> Checkpoint:
    """AdamW until the held-out loss no longer falls; a checkpoint is kept after every epoch.

    What is resumed goes on as if it had never stopped: dropout is seeded by the step.

    Args:
        place: Where it runs; begins with its newest checkpoint.
        learner: Its ``forward`` maps a :class:`Batch` to a loss.
        settings: How.
        batches: For training; cycled if an epoch has fewer than ``steps``.
        held_out: For early stopping.
        steps: Of an epoch, the same on every rank.

    Returns:
        The parameters with the lowest held-out loss, the last ones where nothing is held out; ``state`` holds
        ``history``, that loss before the first epoch and after each, and ``heldout_correlations`` of the components.
    """
    optimizer = torch.optim.AdamW(
        learner.to(place.device).parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    history: list[float] = []
    best: dict[str, Tensor] = {}
    saved = place.newest()
    with apart(place.device):
        if saved is not None:
            unpack(saved.tensors, learner, optimizer)
            best = {key.removeprefix("best."): t for key, t in saved.tensors.items() if key.startswith("best.")}
            history = saved.state["history"]
        model = place.parallel(learner)
        while not _done(history, settings):
            if history:
                epoch = len(history) - 1
                _epoch(place, model, optimizer, islice(_cycle(batches, epoch), steps), settings.seed + epoch * steps)
            history.append(_loss_of(place, learner, held_out(len(history))))
            _check_start(history[0])
            if history[-1] <= np.nanmin(history):
                best = {key: values.detach().cpu().clone() for key, values in learner.state_dict().items()}
            tensors = pack(learner, optimizer) | {f"best.{key}": values for key, values in best.items()}
            place.save(Checkpoint(len(history), tensors, {"history": history}))
    learner.load_state_dict(best)
    found = _correlations(place, learner, held_out(len(history)))
    return Checkpoint(len(history), best, {"history": history, "heldout_correlations": found})


def _check_start(loss: float) -> None:
    if not np.isfinite(loss):
        raise ValueError(
            f"the loss on held-out rows is {loss} before any training; look for extreme values in the inputs"
        )


def _done(history: list[float], settings: Settings) -> bool:
    since = len(history) - 1 - int(np.nanargmin(history)) if history else 0
    return len(history) > settings.epochs or since >= settings.patience


def _epoch(
    place: Place, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Batch], seed: int
) -> None:
    model.train()
    for number, batch in enumerate(batches):
        reseed((seed + number) * place.world_size + place.rank, place.device)
        with _precision(place):
            loss = torch.as_tensor(model(batch.to(place.device)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _loss_of(place: Place, learner: Learner, batches: Iterable[Batch]) -> float:
    """The mean loss over the batches of all ranks, which may differ in number, each weighted by its rows."""
    learner.eval()
    total = torch.zeros(learner.n_validation_losses + 1, dtype=torch.float64)
    with torch.no_grad(), _precision(place):
        for batch in batches:
            losses = learner.validation_loss(batch.to(place.device)).double().cpu()
            total += torch.cat([losses, torch.ones(1, dtype=torch.float64)]) * len(batch.groups)
    total = place.total(total)
    return float((total[:-1] / total[-1].clamp(min=1)).min())


def _correlations(place: Place, learner: Learner, batches: Iterable[Batch]) -> list[float]:
    """Correlation of every component between inputs, the mean over pairs of inputs, over the batches of all ranks."""
    learner.eval()
    pairs = list(combinations(range(len(learner.heads)), 2))
    sums = torch.zeros(len(pairs), 6, learner.dim, dtype=torch.float64)
    with torch.no_grad():
        for batch in batches:
            aligned, there = learner.aligned(batch.to(place.device))
            for number, (p, q) in enumerate(pairs):
                both = there[:, p] & there[:, q]
                x, y = aligned[p][both].double(), aligned[q][both].double()
                terms = [torch.ones_like(x), x, y, x * x, y * y, x * y]
                sums[number] += torch.stack([term.sum(dim=0) for term in terms]).cpu()
    n, x, y, xx, yy, xy = place.total(sums).unbind(dim=1)
    n = n.clamp(min=1)
    spread = ((xx - x * x / n) * (yy - y * y / n)).clamp(min=0).sqrt()
    found = torch.where(spread > 0, (xy - x * y / n) / spread.where(spread > 0, 1.0), 0.0)
    return [float(value) for value in found.mean(dim=0)] if pairs else []


def _precision(place: Place) -> torch.autocast:
    """Mixed precision on a GPU."""
    return torch.autocast(place.device.type, dtype=torch.bfloat16, enabled=place.device.type == "cuda")


def _cycle(batches: Batches, epoch: int) -> Iterator[Batch]:
    while True:
        some = False
        for batch in batches(epoch):
            some = True
            yield batch
        if not some:
            return


def batches_of(
    views: Views, groups: NDArray[np.int64], rows: NDArray[np.int64], size: int, seed: list[int] | None = None
) -> Iterator[Batch]:
    """Batches of about ``size`` in-memory rows, in an order drawn from the seed if there is one."""
    order = rows if seed is None else np.random.default_rng(seed).permutation(rows)
    for index in np.array_split(order, max(1, round(len(order) / size))):
        part = tuple(torch.from_numpy(np.asarray(values[index], dtype=np.float32)) for values in views.values())
        yield Batch(part, torch.from_numpy(groups[index]))
