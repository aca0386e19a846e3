"""The machines of a Ray cluster, and how many workers of which size fit on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.dispatch.executor import Executor, WorkerAllocation
from barycenter.infra.dispatch.units import Worker
from barycenter.infra.storage import Storage

if TYPE_CHECKING:
    from barycenter.fusion.training.context import Checkpoint
    from barycenter.infra.ray.training import Loop

_ROWS_WORTH_A_WORKER = 256
_MOST_AUTO_THREADS = 4
_MOST_GPU_THREADS = 8


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float

    def holds(self, cpus: float, gpus: float) -> int:
        """How many workers of that size fit."""
        by_cpu = int(self.cpus / cpus + 1e-6)
        return min(by_cpu, int(self.gpus / gpus + 1e-6)) if gpus else by_cpu


@dataclass(frozen=True)
class Cluster:
    """A connected cluster."""

    address: str
    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> float:
        """CPUs of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    def allocate_workers(
        self,
        workers: int | Literal["auto"] = "auto",
        threads: int | Literal["auto"] = "auto",
        gpus: float | Literal["auto"] = "auto",
        rows: int | None = None,
    ) -> WorkerAllocation:
        """Chooses what the job file left to us.

        Without GPUs few workers of up to four threads; with GPUs one worker a GPU and its share of the CPUs. No more
        workers than the rows are worth (one for 256), for each loads the model.

        Args:
            workers: ``ray.workers``; a number is taken as it is, with CPUs shared out if there are too few.
            threads: ``ray.threads_per_worker``.
            gpus: ``ray.gpus_per_worker``; ``auto`` is one where the cluster has GPUs; 0 for work that needs none.
            rows: Rows to be worked on.

        Raises:
            JobError: No node can hold a worker's GPUs.
        """
        share = self._gpu_share(gpus)
        nodes = [node for node in self.nodes if node.cpus > 0 and node.gpus >= share]
        if not nodes:
            raise RunError(f"the Ray cluster at {self.address} has no node with a CPU to work on; add one")
        each = _auto_threads(nodes, workers, share) if isinstance(threads, str) else threads
        count = _auto_workers(nodes, each, share, rows) if isinstance(workers, str) else workers
        return WorkerAllocation(count, each, share, _cpu_reservation(nodes, count, each, share))

    def allocate_ranks(
        self,
        workers: int | Literal["auto"] = "auto",
        threads: int | Literal["auto"] = "auto",
        gpus: float | Literal["auto"] = "auto",
    ) -> WorkerAllocation:
        """As :meth:`allocate_workers`, for workers that must all run at once: no more than fit on the nodes."""
        allocation = self.allocate_workers(workers, threads, gpus)
        fitting = _room(self.nodes, allocation.cpus, allocation.gpus_per_worker)
        return replace(allocation, workers=max(1, min(allocation.workers, fitting)))

    def executor(
        self, worker: type[Worker], args: tuple[Any, ...], allocation: WorkerAllocation, name: str
    ) -> Executor:
        """What runs the workers of a stage on this cluster; their names begin with ``name``."""
        from barycenter.infra.ray.executor import RayExecutor  # imports Ray

        return RayExecutor(worker, args, allocation, name)

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

        return train(loop, config, allocation=allocation, storage=storage, folder=folder, name=name)

    def _gpu_share(self, gpus: float | Literal["auto"]) -> float:
        most = max((node.gpus for node in self.nodes), default=0.0)
        if gpus == "auto":
            return 1.0 if most >= 1 else 0.0
        if gpus > 1 and gpus != int(gpus):
            raise JobError("ray.gpus_per_worker", f"{gpus:g} is neither a whole number nor a fraction of one GPU")
        if gpus > most:
            raise JobError(
                "ray.gpus_per_worker",
                f"{gpus:g} asked for, but no node of the cluster has more than {most:g}; use 0 or auto",
            )
        return float(gpus)


def _room(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """How many workers of that size fit on the nodes at once."""
    return sum(node.holds(cpus, gpus) for node in nodes)


def _auto_threads(nodes: list[Node], workers: int | Literal["auto"], share: float) -> int:
    smallest = min(node.cpus for node in nodes)
    if share:
        each = min(node.cpus / max(1, int(node.gpus / share + 1e-6)) for node in nodes)
        return int(max(1, min(_MOST_GPU_THREADS, each)))
    if isinstance(workers, str):
        return int(max(1, min(_MOST_AUTO_THREADS, smallest)))
    return int(max(1, min(smallest, sum(node.cpus for node in nodes) // workers)))


def _auto_workers(nodes: list[Node], threads: int, share: float, rows: int | None) -> int:
    fitting = _room(nodes, threads, share)
    by_gpu = sum(int(node.gpus / share + 1e-6) for node in nodes) if share else 1
    worth = fitting + by_gpu if rows is None else max(1, ceil(rows / _ROWS_WORTH_A_WORKER))
    return min(max(fitting, by_gpu), worth)


def _cpu_reservation(nodes: list[Node], workers: int, threads: int, share: float) -> float:
    """The most CPUs, up to ``threads``, that may be reserved for each so that all workers are placed at once."""
    sizes = {float(threads)} | {node.cpus / count for node in nodes for count in range(1, workers + 1)}
    room = sum(int(node.gpus / share + 1e-6) for node in nodes) if share else workers
    wanted = min(workers, room)
    for size in sorted((size for size in sizes if size <= threads), reverse=True):
        cpus = float(int(size)) if size >= 1 and size == int(size) else int(size * 1000) / 1000
        if cpus > 0 and _room(nodes, cpus, share) >= wanted:
            return cpus
    return 0.001
