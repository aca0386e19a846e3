"""Heads that are trained by gradient descent, on Ray's workers."""

from dataclasses import replace
from math import ceil
from typing import Any

from barycenter.fusion.average import resolve
from barycenter.fusion.heads.neural import NeuralHead
from barycenter.fusion.training.context import Checkpoint, TrainingContext
from barycenter.infra.job.models import RayJob, TrainJob
from barycenter.infra.ray.connection import connect
from barycenter.infra.ray.training import train as train_on_ray
from barycenter.infra.storage import Storage
from barycenter.tasks.data.labelled_rows import Survey, read_labelled

_ROWS_WORTH_A_RANK = 100_000


def descended(
    source: Storage,
    manifest: dict[str, Any],
    train: TrainJob,
    chosen: Survey,
    ray: RayJob,
    sink: Storage,
    folder: str,
    *,
    seed: int,
    name: str,
) -> NeuralHead:
    """A head trained data parallel, on one rank for every hundred thousand rows at most.

    Args:
        source: The fused data set.
        manifest: Of its version.
        train: Which head, for what.
        chosen: Which rows, and how their target is read.
        ray: The workers.
        sink: Where checkpoints go, below ``folder``.
        folder: The head's.
        seed: Of everything random.
        name: Of the training, in Ray.
    """
    average = manifest["average"]
    inputs = tuple(manifest["inputs"])
    _, shares = resolve(average["method"], average.get("weights"), inputs)
    settings = {"inputs": inputs, "shares": shares, "task": chosen.target.task, "seed": seed}
    config = {"train": train.model_dump(mode="json"), "source": source, "manifest": manifest, "settings": settings}
    config["chosen"] = chosen
    rows = chosen.sides["train"] * chosen.share
    with connect(ray.address) as cluster:
        plan = cluster.split(ray.workers, ray.threads_per_worker, ray.gpus_per_worker)
        plan = replace(plan, workers=min(plan.workers, ceil(rows / _ROWS_WORTH_A_RANK)))
        trained = train_on_ray(
            head_loop, config, plan=plan, storage=sink, folder=f"{folder}/training", name=f"{name}-train"
        )
    return NeuralHead.restore(trained.state, trained.tensors)


def head_loop(context: TrainingContext, config: dict[str, Any]) -> Checkpoint:
    """What every rank runs: reads the rows, trains, and gives the head back as a checkpoint."""
    train = TrainJob.model_validate(config["train"])
    rows = read_labelled(config["source"], config["manifest"], train, config["chosen"])
    rows = rows.take(~rows.test)
    head = NeuralHead(train.head, **config["settings"])  # type: ignore[arg-type]
    head.fit(rows.fused, rows.target, rows.aligned, groups=rows.groups, context=context)
    about, tensors = head.state()
    return Checkpoint(head.steps_, tensors, about)
