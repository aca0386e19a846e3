"""A connected Ray cluster: what it is asked for, and what runs there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from barycenter.infra.dispatch.executor import Executor, WorkerAllocation
from barycenter.infra.dispatch.units import Worker
from barycenter.infra.job.places import Workers
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
        machines: Looks at what it has now, for nodes come and go.
        start_seconds: How long a stage waits for its first worker.
    """

    many_workers: ClassVar[bool] = True

    address: str
    machines: Callable[[], Machines]
    start_seconds: float = 1800.0

    def allocate_workers(
        self,
        workers: Workers = "auto",
        threads: int | Literal["auto"] = "auto",
        gpus: float | Literal["auto"] = "auto",
        rows: int | None = None,
        *,
        memory: int = 0,
        inputs: int = 1,
    ) -> WorkerAllocation:
        """What to ask for now; see :meth:`barycenter.infra.ray.sizing.Machines.allocate_workers`."""
        return self.machines().allocate_workers(workers, threads, gpus, rows, memory=memory, inputs=inputs)

    def allocate_ranks(
        self,
        workers: Workers = "auto",
        threads: int | Literal["auto"] = "auto",
        gpus: float | Literal["auto"] = "auto",
    ) -> WorkerAllocation:
        """As :meth:`allocate_workers`, for workers that must all run at once."""
        return self.machines().allocate_ranks(workers, threads, gpus)

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
