"""Heads that are trained by gradient descent, on Ray's workers."""

from contextlib import nullcontext
from dataclasses import replace
from math import ceil
from typing import Any

from barycenter.fusion.average import resolve
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.heads.neural import NeuralHead
from barycenter.fusion.training.context import Checkpoint, TrainingContext
from barycenter.infra.job.models import TrainJob
from barycenter.infra.job.places import RayJob
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.storage import Storage
from barycenter.tasks.data.labeled_rows import Survey, read_labeled
from barycenter.tasks.run.workers import open_cluster

_ROWS_WORTH_A_RANK = 100_000


def train_neural_head(
    source: Storage,
    manifest: Manifest,
    train: TrainJob,
    chosen: Survey,
    ray: RayJob,
    sink: Storage,
    folder: str,
    *,
    seed: int,
    name: str,
    cluster: Cluster | None = None,
) -> NeuralHead:
    """A head trained data parallel, on one rank for every hundred thousand rows at most.

    Checkpoints go to the sink, below ``folder``; the arguments are those of ``fit_head``, with the rows it chose.
    """
    average = manifest.average
    inputs = tuple(manifest.inputs)
    _, shares = resolve(average["method"], average.get("weights"), inputs)
    settings = {"inputs": inputs, "shares": shares, "task": chosen.target.task, "seed": seed}
    config = {"train": train.model_dump(mode="json"), "source": source, "manifest": manifest, "settings": settings}
    config["chosen"] = chosen
    rows = chosen.parts["train"] * chosen.share
    with nullcontext(cluster) if cluster is not None else open_cluster(ray) as on:
        allocation = on.machines().allocate_ranks(ray.workers, ray.threads_per_worker, ray.gpus_per_worker)
        allocation = replace(allocation, workers=min(allocation.workers, ceil(rows / _ROWS_WORTH_A_RANK)))
        folder, name = f"{folder}/training", f"{name}-train"
        trained = on.train(head_loop, config, allocation=allocation, storage=sink, folder=folder, name=name)
    return NeuralHead.restore(trained.state, trained.tensors)


def head_loop(context: TrainingContext, config: dict[str, Any]) -> Checkpoint:
    """What every rank runs: reads the rows, trains, and gives the head back as a checkpoint."""
    train = TrainJob.model_validate(config["train"])
    rows = read_labeled(config["source"], config["manifest"], train, config["chosen"])
    rows = rows.take(~rows.test)
    head = NeuralHead(train.head, **config["settings"])
    head.fit(rows.fused, rows.target, rows.aligned, groups=rows.groups, context=context)
    about, tensors = head.state()
    return Checkpoint(head.steps_, tensors, about)
