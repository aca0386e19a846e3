"""The context that a training loop runs in: rank, device, checkpoints, and sums over the ranks.

:func:`barycenter.fusion.training.loop.train` runs in a plain process (:class:`LocalContext`) and, unchanged, on several
workers of a cluster (``barycenter.infra.ray.training``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_RNG = "rng"


@dataclass(frozen=True)
class Checkpoint:
    """A state of training.

    Attributes:
        step: Steps taken; a later checkpoint has a higher one.
        tensors: Parameters, optimizer and random state; saved as safetensors.
        state: Everything else; saved as JSON.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any] = field(default_factory=dict)


class TrainingContext(Protocol):
    """Where a loop runs.

    Attributes:
        rank: Number of this worker.
        world_size: Number of workers.
        device: Of this worker.
    """

    rank: int
    world_size: int
    device: torch.device

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, the same for every rank; None where there is none yet."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keeps a checkpoint; called by every rank alike, written by rank 0."""

    def prepare_module(self, module: nn.Module) -> nn.Module:
        """The module on this context's device, its gradients averaged over the ranks."""

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks, the same on each."""


class LocalContext:
    """This process alone; keeps the newest checkpoint in memory.

    Args:
        checkpoint: Where to begin.
        device: Where the module lives.
    """

    rank = 0
    world_size = 1

    def __init__(self, checkpoint: Checkpoint | None = None, device: str | torch.device = "cpu") -> None:
        self.checkpoint = checkpoint
        self.device = torch.device(device)

    def latest_checkpoint(self) -> Checkpoint | None:
        """See :class:`TrainingContext`."""
        return self.checkpoint

    def save(self, checkpoint: Checkpoint) -> None:
        """See :class:`TrainingContext`."""
        copied = {name: tensor.detach().cpu().clone() for name, tensor in checkpoint.tensors.items()}
        self.checkpoint = Checkpoint(checkpoint.step, copied, dict(checkpoint.state))

    def prepare_module(self, module: nn.Module) -> nn.Module:
        """See :class:`TrainingContext`."""
        return module.to(self.device)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """See :class:`TrainingContext`."""
        return values


@contextmanager
def preserve_random_state(device: str | torch.device) -> Iterator[None]:
    """Restores torch's random states, of the CPU and of the device, at the end."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def reseed(seed: int, device: str | torch.device = "cpu") -> None:
    """Seeds the CPU and one device; ``torch.manual_seed`` would seed every GPU of the machine."""
    torch.default_generator.manual_seed(seed)
    if torch.device(device).type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def pack_state(module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Tensor]:
    """The tensors of a module, of its optimizer's moments, and of torch's random state, under names of their own.

    >>> sorted(pack_state(nn.Linear(2, 1)))
    ['module.bias', 'module.weight', 'rng']
    """
    tensors = {f"module.{name}": value.detach() for name, value in module.state_dict().items()}
    if optimizer is not None:
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    return tensors | {_RNG: torch.get_rng_state()}


def load_state(tensors: dict[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Restores what :func:`pack_state` gave, so that the next step is the one that would have followed.

    Raises:
        RuntimeError: If the tensors are of another module.
    """
    module.load_state_dict(
        {name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")}
    )
    if optimizer is not None:
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, moment = rest.partition(".")
                moments.setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    if _RNG in tensors:
        torch.set_rng_state(tensors[_RNG].cpu())
