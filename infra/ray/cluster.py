"""A connected Ray cluster: what it is asked for, and what runs there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from barycenter.infra.dispatch.executor import Executor, WorkerAllocation
from barycenter.infra.dispatch.units import Worker
from barycenter.infra.ray.sizing import Machines
from barycenter.infra.storage import Storage

if TYPE_CHECKING:
    from barycenter.fusion.training.context import Checkpoint
    from barycenter.infra.ray.training import Loop


@dataclass(frozen=True)
class Cluster:
    """A connected cluster.

    Attributes:
        many_workers: Workers run beside each other.
        address: For messages.
        machines: Looks at what it has now, for nodes come and go; they say what workers to ask for.
        start_seconds: How long a stage waits for its first worker.
    """

    many_workers: ClassVar[bool] = True

    address: str
    machines: Callable[[], Machines]
    start_seconds: float = 1800.0

    def executor(
        self, worker: type[Worker], args: tuple[Any, ...], allocation: WorkerAllocation, name: str
    ) -> Executor:
        """What runs the workers of a stage on this cluster; their names begin with ``name``."""
        from barycenter.infra.ray.executor import RayExecutor  # imports Ray

        return RayExecutor(worker, args, allocation, name, self.start_seconds)

    def train(
        self,
        loop: "Loop",
        config: dict[str, Any],
        *,
        allocation: WorkerAllocation,
        storage: Storage,
        folder: str,
        name: str,
    ) -> "Checkpoint":
        """Runs a training loop on ranks of this cluster; see :func:`barycenter.infra.ray.training.train`."""
        from barycenter.infra.ray.training import train  # imports torch

        patience = self.start_seconds
        return train(
            loop, config, allocation=allocation, storage=storage, folder=folder, name=name, start_seconds=patience
        )
