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
        """Runs a training loop as a single rank in the calling process; no checkpoint is kept."""
        from barycenter.fusion.training.context import LocalContext  # imports torch

        with threadpool_limits(allocation.threads):
            return loop(LocalContext(), config)


THIS_PROCESS = ThisProcess("this process", (Node(float(os.cpu_count() or 1), 0.0),))


def block_workers(cluster: Cluster, ray: RayJob, blocks: int) -> WorkerAllocation:
    """One-threaded workers for blocks of rows: the same bits on any machine, whatever its cores."""
    allocation = cluster.allocate_workers(ray.workers, 1, 0)
    return replace(allocation, workers=max(1, min(allocation.workers, blocks)))
