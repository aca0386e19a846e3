"""Training a head by gradient descent: mini-batches in a seeded order, early stopping on held-out rows, resumable."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from barycenter.fusion.heads.targets import Task
from barycenter.fusion.training import Checkpoint, Place, pack, reseed, unpack

_EVALUATION_ROWS = 16384


@dataclass(frozen=True)
class Rows:
    """What a head is trained on.

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

    def take(self, index: Tensor, device: torch.device | str = "cpu") -> "Rows":
        """Some rows, on a device."""
        parts = (self.fused, self.aligned, self.present, self.target, self.weight)
        return Rows(*(part[index].to(device) for part in parts))


@dataclass(frozen=True)
class Settings:
    """How to descend.

    Attributes:
        task: Which loss.
        batch_size: Rows of a step, over all ranks.
        rate: Learning rate of Adam.
        decay: Decoupled weight decay of everything but what the linear head gave.
        epochs: At most.
        patience: Epochs without a better held-out loss before stopping.
        seed: Of the order and of dropout.
        save_every: Steps between checkpoints.
    """

    task: Task
    batch_size: int
    rate: float
    decay: float
    epochs: int
    patience: int
    seed: int
    save_every: int


def descend(
    module: nn.Module,
    rows: Rows,
    settings: Settings,
    place: Place,
    *,
    held_out: Rows | None = None,
    steps: int | None = None,
    first: int = 0,
    extra_state: dict[str, Any] | None = None,
) -> int:
    """Trains ``module`` in place, going on from the place's newest checkpoint where that is of this descent.

    With held-out rows it ends with the weights of the epoch (the untrained one included) whose held-out loss was least;
    without, it takes exactly ``steps`` steps.

    Args:
        module: ``module(fused, aligned, present)`` gives logits.
        rows: To learn from.
        settings: How.
        place: Where.
        held_out: To stop by.
        steps: How many, without held-out rows.
        first: Number of this descent's first checkpoint; those of others lie below or above its steps.
        extra_state: What every checkpoint holds besides.

    Returns:
        Steps taken to the weights that it ends with.
    """
    optimizer = _optimizer(module, settings)
    parallel = place.parallel(module)
    per_epoch = steps_per_epoch(len(rows), settings)
    last = settings.epochs * per_epoch if steps is None else steps
    watch = _Watch(settings.patience)
    step = 0
    saved = place.newest()
    if saved is not None and saved.step >= first:
        step = saved.step - first
        unpack(saved.tensors, module, optimizer)
        watch.restore(saved)
    elif held_out is not None:
        watch.see(module, _loss_over(module, held_out, settings.task, place), 0)
    while step < last and not watch.is_over:
        _take_step(parallel, optimizer, rows, step, settings, place)
        step += 1
        if held_out is not None and step % per_epoch == 0:
            watch.see(module, _loss_over(module, held_out, settings.task, place), step)
        if step % settings.save_every == 0:
            state = {**(extra_state or {}), **watch.state()}
            place.save(Checkpoint(first + step, pack(module, optimizer) | watch.tensors(), state))
    if held_out is None:
        return step
    watch.give_back(module)
    return watch.step


def steps_per_epoch(rows: int, settings: Settings) -> int:
    """Batches that so many rows make."""
    return max(1, rows // settings.batch_size)


def _take_step(
    parallel: nn.Module, optimizer: torch.optim.Optimizer, rows: Rows, step: int, settings: Settings, place: Place
) -> None:
    reseed(settings.seed * 1_000_003 + step * place.world_size + place.rank, place.device)
    batch = rows.take(_batch(len(rows), step, settings, place), place.device)
    parallel.train()
    loss = _loss(parallel(batch.fused, batch.aligned, batch.present), batch, settings.task)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


class _Watch:
    """The best epoch so far."""

    def __init__(self, patience: int) -> None:
        self.loss, self.step, self._bad, self._patience = math.inf, 0, 0, patience
        self._best: dict[str, Tensor] = {}

    @property
    def is_over(self) -> bool:
        return self._bad >= self._patience

    def see(self, module: nn.Module, loss: float, step: int) -> None:
        if not step and not math.isfinite(loss):
            raise ValueError(
                f"the loss on held-out rows is {loss} before any training; "
                "look for extreme values in features or targets"
            )
        if loss < self.loss:
            self.loss, self.step, self._bad = loss, step, 0
            self._best = {name: value.detach().clone() for name, value in module.state_dict().items()}
        else:
            self._bad += 1

    def give_back(self, module: nn.Module) -> None:
        module.load_state_dict(self._best)

    def state(self) -> dict[str, Any]:
        return {"best_loss": self.loss if math.isfinite(self.loss) else None, "best_step": self.step, "bad": self._bad}

    def tensors(self) -> dict[str, Tensor]:
        return {f"best.{name}": value for name, value in self._best.items()}

    def restore(self, saved: Checkpoint) -> None:
        extra_state = saved.state
        self.loss = math.inf if extra_state["best_loss"] is None else extra_state["best_loss"]
        self.step, self._bad = extra_state["best_step"], extra_state["bad"]
        named = {name.partition("."): value for name, value in saved.tensors.items()}
        self._best = {name: value for (kind, _, name), value in named.items() if kind == "best"}


def _optimizer(module: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    given = [value for name, value in module.named_parameters() if name.startswith("output.")]
    others = [value for name, value in module.named_parameters() if not name.startswith("output.")]
    groups = [{"params": given, "weight_decay": 0.0}, {"params": others, "weight_decay": settings.decay}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.rate)


def _batch(n: int, step: int, settings: Settings, place: Place) -> Tensor:
    """This rank's rows of a step: a function of seed and step alone, so that a resumed run goes the same way."""
    per_epoch = steps_per_epoch(n, settings)
    epoch, number = divmod(step, per_epoch)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(settings.seed * 7919 + epoch))
    mine = torch.tensor_split(order, per_epoch)[number][place.rank :: place.world_size]
    return mine if len(mine) else order[:1]


def _loss(logits: Tensor, batch: Rows, task: Task) -> Tensor:
    if task == "classification":
        each = nn.functional.cross_entropy(logits, batch.target, reduction="none")
    elif task == "multilabel":
        each = nn.functional.binary_cross_entropy_with_logits(logits, batch.target, reduction="none").mean(dim=1)
    else:
        each = ((logits - batch.target) ** 2).mean(dim=1)
    return (each * batch.weight).sum() / batch.weight.sum()


def _loss_over(module: nn.Module, rows: Rows, task: Task, place: Place) -> float:
    """The loss over all rows, each rank taking its share."""
    total = torch.zeros(2, dtype=torch.float64)
    mine = torch.arange(place.rank, len(rows), place.world_size)
    for index, logits in outputs(module, rows, mine, place.device):
        part = rows.take(index)
        weight = part.weight.sum().double()
        total += torch.stack([_loss(logits, part, task).double() * weight, weight])
    loss, weight = place.total(total)
    return float(loss / weight)


def outputs(module: nn.Module, rows: Rows, index: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, their logits on the CPU), block after block."""
    module.eval()
    for block in torch.split(index, _EVALUATION_ROWS):
        part = rows.take(block, device)
        with torch.no_grad():
            yield block, module(part.fused, part.aligned, part.present).cpu()
