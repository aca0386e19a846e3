"""The workers of a run: actors and training ranks on its Ray cluster, or this process, for tests and notebooks."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from barycenter.infra.dispatch.api import Quarantined, Work, Worker
from barycenter.infra.dispatch.api import dispatch as dispatch_on_ray
from barycenter.infra.job.models import RayJob
from barycenter.infra.ray.connection import Cluster, Node, WorkerPlan
from barycenter.infra.storage import Storage

if TYPE_CHECKING:
    from barycenter.fusion.training import Checkpoint
    from barycenter.infra.ray.training import Loop

THIS_PROCESS = Cluster("this process", (Node(float(os.cpu_count() or 1), 0.0),))
"""A cluster without Ray: one worker, in the calling process. Nothing is retried and no row is quarantined."""


def dispatch(
    cluster: Cluster,
    work: Iterable[Work],
    *,
    worker: type[Worker],
    args: tuple[Any, ...],
    plan: WorkerPlan,
    name: str,
    on_done: Callable[[Work, Any], None],
    without_rows: Callable[[Work, tuple[int, ...]], Work] | None = None,
    first: Sequence[Work] = (),
) -> list[Quarantined]:
    """Runs units of work on actors of a cluster, or one after another in this process.

    Arguments, result and errors are those of :func:`barycenter.infra.dispatch.api.dispatch`; in :data:`THIS_PROCESS`
    an exception of a unit is raised as it is.
    """
    if cluster != THIS_PROCESS:
        return dispatch_on_ray(
            work,
            worker=worker,
            args=args,
            plan=plan,
            name=name,
            on_done=on_done,
            without_rows=without_rows,
            first=first,
        )
    with threadpool_limits(plan.threads):
        instance = worker(*args)
    for unit in chain(first[:1], work):
        with threadpool_limits(plan.threads):
            result = instance.run(unit.payload)
        on_done(unit, result)
    return []


def train(
    cluster: Cluster,
    loop: "Loop",
    config: dict[str, Any],
    *,
    plan: WorkerPlan,
    storage: Storage,
    folder: str,
    name: str,
) -> "Checkpoint":
    """Runs a training loop on ranks of a cluster, or as a single rank in this process.

    Arguments, result and errors are those of :func:`barycenter.infra.ray.training.train`; in :data:`THIS_PROCESS` no
    checkpoint is kept.
    """
    if cluster == THIS_PROCESS:
        from barycenter.fusion.training import InProcess

        with threadpool_limits(plan.threads):
            return loop(InProcess(), config)
    from barycenter.infra.ray.training import train as train_on_ray  # imports torch

    return train_on_ray(loop, config, plan=plan, storage=storage, folder=folder, name=name)


def block_workers(cluster: Cluster, ray: RayJob, blocks: int) -> WorkerPlan:
    """One-threaded workers for blocks of rows: the same bits on any machine, whatever its cores."""
    plan = cluster.split(ray.workers, 1, 0)
    return replace(plan, workers=max(1, min(plan.workers, blocks)))
