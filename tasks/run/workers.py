"""The workers of a run: actors and training ranks on its Ray cluster, or this process, for tests and notebooks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from barycenter.fusion.machine_limits import whole_cpus
from barycenter.infra.blas import limited_threads
from barycenter.infra.dispatch.executor import Executor, WorkerAllocation
from barycenter.infra.dispatch.in_process import InProcessExecutor
from barycenter.infra.dispatch.units import Worker
from barycenter.infra.job.places import RayJob, WorkerRange
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.ray.sizing import Machines, Node
from barycenter.infra.storage import Storage

if TYPE_CHECKING:
    from barycenter.fusion.training.context import Checkpoint
    from barycenter.infra.ray.training import Loop


class ThisProcess(Cluster):
    """A cluster without Ray: one worker, in the calling process."""

    many_workers = False

    def executor(
        self,
        worker: type[Worker],
        args: tuple[Any, ...],
        allocation: WorkerAllocation,
        name: str,  # noqa: ARG002 - a worker in this process needs none
    ) -> Executor:
        """One worker in the calling process, whatever the allocation; its threads are kept to."""
        return InProcessExecutor(worker, args, allocation.threads)

    def train(
        self,
        loop: "Loop",
        config: dict[str, Any],
        *,
        allocation: WorkerAllocation,
        storage: Storage,  # noqa: ARG002 - no checkpoint is kept
        folder: str,  # noqa: ARG002
        name: str,  # noqa: ARG002
    ) -> "Checkpoint":
        """Runs a training loop as a single rank in the calling process; no checkpoint is kept.

        Raises:
            DeadlineError: The time of the run is over.
        """
        from barycenter.tasks.run.local_training import StoppableContext  # imports torch

        with limited_threads(allocation.threads), StoppableContext() as context:
            return loop(context, config)


THIS_PROCESS = ThisProcess(
    "none", lambda: Machines("none", (Node(float(whole_cpus()), 0.0),), own=True, in_process=True)
)


@contextmanager
def open_cluster(ray: RayJob) -> Iterator[Cluster]:
    """The workers at ``ray.address`` for the length of the block: this process for ``none``, else a Ray cluster.

    Ray is imported only where it is used. Errors are those of :func:`barycenter.infra.ray.connection.connect`.
    """
    if ray.address == "none":
        yield THIS_PROCESS
        return
    from barycenter.infra.ray.connection import connect

    with connect(ray.address, start_seconds=ray.start_timeout) as cluster:
        yield cluster


def unused_ray_keys(ray: RayJob) -> str | None:
    """Says which keys a run in the calling process does not use; None where there are none."""
    workers = ray.workers.max if isinstance(ray.workers, WorkerRange) else ray.workers
    given = [f"ray.workers: {workers}"] if workers not in ("auto", 1) else []
    given += [f"ray.gpus_per_worker: {ray.gpus_per_worker:g}"] if ray.gpus_per_worker not in ("auto", 0) else []
    if ray.address != "none" or not given:
        return None
    return f"ray.address none: one worker, in this process and on its CPUs; not used: {', '.join(given)}"


def block_workers(cluster: Cluster, ray: RayJob, blocks: int) -> WorkerAllocation:
    """One-threaded workers for blocks of rows: the same bits on any machine, whatever its cores."""
    return at_most(cluster.machines().allocate_workers(ray.workers, 1, 0), blocks)


def at_most(allocation: WorkerAllocation, units: int) -> WorkerAllocation:
    """No more workers than there are units of work."""
    return replace(allocation, workers=max(1, min(allocation.workers, units)))
