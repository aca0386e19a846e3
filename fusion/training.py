"""What a training loop needs of the place it runs in: who it is, its newest checkpoint, and the other workers.

A loop written against :class:`Place` runs in a plain process (:class:`InProcess`) and, unchanged, on several workers of
a cluster (``barycenter.infra.ray.training``). It saves a :class:`Checkpoint` now and then, begins with the newest, and
ends with one:

    def loop(place: Place, config: dict[str, Any]) -> Checkpoint:
        module, optimizer = ...
        start = 0
        if (saved := place.newest()) is not None:
            unpack(saved.tensors, module, optimizer)
            start = saved.step
        parallel = place.parallel(module)
        for step in range(start, config["steps"]):
            ...
            if step % 100 == 99:
                place.save(Checkpoint(step + 1, pack(module, optimizer), {"best": best}))
        return Checkpoint(config["steps"], pack(module), {})
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
        step: How far it is; a later checkpoint has a higher one.
        tensors: What safetensors can hold.
        state: What JSON can hold.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any] = field(default_factory=dict)


class Place(Protocol):
    """Where a loop runs."""

    rank: int
    world_size: int
    device: torch.device

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint, the same for every rank; None at the very beginning."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keeps a checkpoint; called by every rank alike, written by rank 0."""

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module on this place's device, its gradients averaged over the ranks."""

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, the same on each: what all must decide alike (early stopping) is decided by it."""


class InProcess:
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

    def newest(self) -> Checkpoint | None:
        """See :class:`Place`."""
        return self.checkpoint

    def save(self, checkpoint: Checkpoint) -> None:
        """See :class:`Place`."""
        copied = {name: tensor.detach().cpu().clone() for name, tensor in checkpoint.tensors.items()}
        self.checkpoint = Checkpoint(checkpoint.step, copied, dict(checkpoint.state))

    def parallel(self, module: nn.Module) -> nn.Module:
        """See :class:`Place`."""
        return module.to(self.device)

    def total(self, values: Tensor) -> Tensor:
        """See :class:`Place`."""
        return values


@contextmanager
def apart(device: str | torch.device) -> Iterator[None]:
    """What is drawn inside leaves torch's random states, of the CPU and of the device, as they were."""
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        yield


def reseed(seed: int, device: str | torch.device = "cpu") -> None:
    """Seeds the CPU and one device; ``torch.manual_seed`` would seed every GPU of the machine."""
    torch.default_generator.manual_seed(seed)
    if torch.device(device).type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def pack(module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Tensor]:
    """The tensors of a module, of its optimizer's moments, and of torch's random state, under names of their own.

    >>> sorted(pack(nn.Linear(2, 1)))
    ['module.bias', 'module.weight', 'rng']
    """
    tensors = {f"module.{name}": value.detach() for name, value in module.state_dict().items()}
    if optimizer is not None:
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    return tensors | {_RNG: torch.get_rng_state()}


def unpack(tensors: dict[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Puts back what :func:`pack` took: the next step is the one that would have followed.

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
