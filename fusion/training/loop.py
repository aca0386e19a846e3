"""The training loop of the trained alignments and of the neural heads, with early stopping and checkpoints."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from barycenter.fusion.training.context import (
    Checkpoint,
    TrainingContext,
    load_state,
    pack_state,
    preserve_random_state,
    reseed,
)

BatchT = TypeVar("BatchT")


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Attributes:
        epochs: At most.
        patience: Epochs without a lower validation loss before training stops.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW, decoupled.
        seed: Of the order of the rows and of dropout.
    """

    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    seed: int


class EarlyStopping:
    """Keeps the parameters of the epoch with the lowest validation loss.

    Args:
        patience: Epochs without a lower loss before training stops.

    Attributes:
        history: The validation loss before the first epoch and after each.
        best_epoch: Number of the epoch with the lowest loss; 0 is the untrained network.
    """

    def __init__(self, patience: int) -> None:
        self.history: list[float] = []
        self.best_epoch = 0
        self._patience = patience
        self._best: dict[str, Tensor] = {}

    @property
    def should_stop(self) -> bool:
        """Whether the last ``patience`` epochs have not lowered the loss."""
        return len(self.history) - 1 - self.best_epoch >= self._patience

    def step(self, module: nn.Module, loss: float) -> None:
        """Records the validation loss of an epoch.

        Raises:
            ValueError: If the loss before any training is not finite.
        """
        if not self.history and not math.isfinite(loss):
            raise ValueError(
                f"the loss on held-out rows is {loss} before any training; "
                "look for extreme values in the inputs or targets"
            )
        if not self.history or loss < self.history[self.best_epoch]:
            self.best_epoch = len(self.history)
            self._best = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
        self.history.append(loss)

    def restore_best(self, module: nn.Module) -> None:
        """Loads the best parameters into the module."""
        module.load_state_dict(self._best)

    def tensors(self) -> dict[str, Tensor]:
        """The best parameters, for a checkpoint."""
        return {f"best.{name}": value for name, value in self._best.items()}

    def load(self, checkpoint: Checkpoint) -> None:
        """Restores ``history`` and the best parameters from a checkpoint."""
        tensors = checkpoint.tensors.items()
        self._best = {name.removeprefix("best."): value for name, value in tensors if name.startswith("best.")}
        self.history = list(checkpoint.state["history"])
        finite = [epoch for epoch, loss in enumerate(self.history) if not math.isnan(loss)]
        self.best_epoch = min(finite, key=self.history.__getitem__, default=0)


def train(
    context: TrainingContext,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    training_loss: Callable[[nn.Module, BatchT], Tensor],
    batches: Callable[[int], Iterable[BatchT]],
    *,
    steps: int,
    steps_per_epoch: int,
    seed: int,
    save_every: int,
    validation_loss: Callable[[], float] | None = None,
    patience: int = 1,
    first_checkpoint: int = 0,
    extra_state: dict[str, Any] | None = None,
) -> EarlyStopping:
    """Trains ``module`` in place, from the context's newest checkpoint where that is of this training.

    A resumed training gives the same parameters as one that was never interrupted: dropout is seeded by the step.

    Args:
        context: Where it runs.
        module: On the context's device.
        optimizer: Of the module's parameters.
        training_loss: ``training_loss(module, batch)``, a scalar.
        batches: ``batches(epoch)``: this rank's batches of an epoch, the same at every call.
        steps: At most, over all epochs.
        steps_per_epoch: The same on every rank.
        seed: Of dropout at step 0.
        save_every: Steps between checkpoints.
        validation_loss: Of the module as it is, the same on every rank. Where given, training stops early and ends
            with the parameters of the best epoch, the untrained one included; else it takes exactly ``steps`` steps.
        patience: Epochs without a lower validation loss before training stops.
        first_checkpoint: Added to the step of every checkpoint; earlier checkpoints are of another training.
        extra_state: What every checkpoint's state holds besides.

    Returns:
        The validation losses; empty without ``validation_loss``.

    Raises:
        ValueError: If the validation loss before any training is not finite.
    """
    stopping, step = EarlyStopping(patience), 0
    with preserve_random_state(context.device):
        saved = context.latest_checkpoint()
        parallel = context.prepare_module(module)
        if saved is not None and saved.step >= first_checkpoint:
            step = saved.step - first_checkpoint
            load_state(saved.tensors, module, optimizer)
            stopping.load(saved)
        elif validation_loss is not None:
            stopping.step(module, validation_loss())
        for batch in _remaining_batches(batches, step, steps, steps_per_epoch):
            if validation_loss is not None and stopping.should_stop:
                break
            reseed(seed + step * context.world_size + context.rank, context.device)
            parallel.train()
            loss = training_loss(parallel, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            if validation_loss is not None and step % steps_per_epoch == 0:
                stopping.step(module, validation_loss())
            if step % save_every == 0:
                state = (extra_state or {}) | {"history": stopping.history}
                tensors = pack_state(module, optimizer) | stopping.tensors()
                context.save(Checkpoint(first_checkpoint + step, tensors, state))
    if validation_loss is not None:
        stopping.restore_best(module)
    return stopping


def _remaining_batches(
    batches: Callable[[int], Iterable[BatchT]], step: int, steps: int, steps_per_epoch: int
) -> Iterator[BatchT]:
    """The batches of steps ``step`` to ``steps``."""
    while step < steps:
        epoch, done = divmod(step, steps_per_epoch)
        yield from islice(batches(epoch), done, min(steps_per_epoch, steps - epoch * steps_per_epoch))
        step = (epoch + 1) * steps_per_epoch
