"""The workers of a run: actors and training ranks on its Ray cluster, or this process, for tests and notebooks."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from barycenter.infra.dispatch.executor import Executor, WorkerAllocation
from barycenter.infra.dispatch.in_process import InProcessExecutor
from barycenter.infra.dispatch.units import Worker
from barycenter.infra.job.models import RayJob
from barycenter.infra.ray.cluster import Cluster, Node
from barycenter.infra.storage import Storage

if TYPE_CHECKING:
    from barycenter.fusion.training.context import Checkpoint
    from barycenter.infra.ray.training import Loop


class ThisProcess(Cluster):
    """A cluster without Ray: one worker, in the calling process."""

    def executor(
        self,
        worker: type[Worker],
        args: tuple[Any, ...],
        allocation: WorkerAllocation,
        name: str,  # noqa: ARG002 - a worker in this process needs none
    ) -> Executor:
        """One worker in the calling process, whatever the allocation; its threads are kept to."""
        return InProcessExecutor(worker, args, allocation.threads)


THIS_PROCESS = ThisProcess("this process", (Node(float(os.cpu_count() or 1), 0.0),))


def train(
    cluster: Cluster,
    loop: "Loop",
    config: dict[str, Any],
    *,
    allocation: WorkerAllocation,
    storage: Storage,
    folder: str,
    name: str,
) -> "Checkpoint":
    """Runs a training loop on ranks of a cluster, or as a single rank in this process.

    Arguments, result and errors are those of :func:`barycenter.infra.ray.training.train`; in :data:`THIS_PROCESS` no
    checkpoint is kept.
    """
    if isinstance(cluster, ThisProcess):
        from barycenter.fusion.training.context import LocalContext

        with threadpool_limits(allocation.threads):
            return loop(LocalContext(), config)
    from barycenter.infra.ray.training import train as train_on_ray  # imports torch

    return train_on_ray(loop, config, allocation=allocation, storage=storage, folder=folder, name=name)


def block_workers(cluster: Cluster, ray: RayJob, blocks: int) -> WorkerAllocation:
    """One-threaded workers for blocks of rows: the same bits on any machine, whatever its cores."""
    allocation = cluster.allocate_workers(ray.workers, 1, 0)
    return replace(allocation, workers=max(1, min(allocation.workers, blocks)))
