"""Alignments whose features come first: drawn from a sample, or trained from the embedding shards; then the moments."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment import Autoencoder, Contrastive, FeatureAlignment, KernelCCA, TrainedAlignment
from barycenter.fusion.alignment.networks import AlignmentNetwork
from barycenter.fusion.errors import RunError
from barycenter.fusion.moments import FoldMoments
from barycenter.fusion.training.context import Checkpoint
from barycenter.fusion.training.loop import TrainingSettings
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.ray.cluster import Cluster
from barycenter.tasks.align.limits import FEATURES, max_dim
from barycenter.tasks.align.moments import reduce_rows
from barycenter.tasks.align.training import ShardBatches, train_on_shards
from barycenter.tasks.align.worker import FeatureMoments
from barycenter.tasks.data.duplicates import counted_reader
from barycenter.tasks.data.rows import sample_shards
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.digest import digest

EPOCH_ROWS = 1_000_000


def fit_feature_alignment(
    run: Run, cluster: Cluster, moments: Callable[[], FoldMoments], key: str
) -> tuple[FeatureAlignment, FoldMoments]:
    """Fits kernel-cca, autoencoder or contrastive, as the job asks, on the training rows.

    Args:
        run: The run.
        cluster: Where it is fitted.
        moments: Gives the fold moments of the inputs, where training starts from them.
        key: Names the fit: its settings and its embeddings.

    Returns:
        The alignment, and the fold moments of its features.

    Raises:
        RunError: If there are too few rows, or workers fail for good.
    """
    try:
        alignment = new_alignment(run)
        if isinstance(alignment, KernelCCA):
            alignment.draw(_sample(run))
        else:
            assert isinstance(alignment, TrainedAlignment)
            _train(run, cluster, alignment, moments(), key)
        folds = reduce_rows(run, cluster, FeatureMoments(alignment))
        return alignment.fit_moments(folds), folds
    except ValueError as error:
        raise RunError(f"alignment.method {run.job.alignment.method}: {error}") from error


def new_alignment(run: Run) -> FeatureAlignment:
    """The unfitted alignment that the job asks for."""
    settings = run.job.alignment
    params: dict[str, Any] = {
        "dim": min(settings.dim, max_dim(settings.method, run.widths)),
        "regularization": settings.regularization,
        "folds": settings.folds,
        "seed": run.job.seed,
    }
    if settings.method == "kernel-cca":
        return KernelCCA(n_features=FEATURES // len(run.widths) // 2 * 2, **params)
    kinds: dict[str, type[TrainedAlignment]] = {"autoencoder": Autoencoder, "contrastive": Contrastive}
    return kinds[settings.method](**params)


def _sample(run: Run) -> dict[str, NDArray[np.float32]]:
    """At most ``SAMPLE_ROWS`` training rows, drawn by the job's seed: ``{input: (n, d)}``."""
    from barycenter.fusion.alignment.kernel import SAMPLE_ROWS

    rows = counted_reader(run).read_all(sample_shards(run.shards, 2 * SAMPLE_ROWS)).train
    count = len(next(iter(rows.values())))
    picked = np.sort(np.random.default_rng(run.job.seed).permutation(count)[:SAMPLE_ROWS])
    return {name: values[picked] for name, values in rows.items()}


def _train(run: Run, cluster: Cluster, alignment: TrainedAlignment, moments: FoldMoments, key: str) -> None:
    """Finds the number of epochs on the held-out fold, then trains on all rows for as many."""
    plan = _ranks(run, cluster)
    reader, folds, size = counted_reader(run), alignment.folds, alignment.batch_size

    def on_workers(network: AlignmentNetwork, settings: TrainingSettings, rows: int, hold: bool) -> Checkpoint:
        data = ShardBatches(reader, run.shards, folds, size, run.job.seed, plan.workers, hold)
        steps = max(1, round(min(EPOCH_ROWS, rows) / size / plan.workers))
        config = {"network": network, "settings": settings, "data": data, "steps": steps}
        folder = f"alignment/training/{digest(key, plan.workers)}-{'inner' if hold else 'all'}"
        name, storage = f"{run.job.name}-align", run.storage
        return cluster.train(train_on_shards, config, allocation=plan, storage=storage, folder=folder, name=name)

    inner = alignment.inner(moments)
    found = on_workers(alignment.start(inner), alignment.settings(), inner.total.n, True)
    settings = alignment.settings(found)
    alignment.take(found, on_workers(alignment.start(moments), settings, moments.total.n, False))


def _ranks(run: Run, cluster: Cluster) -> WorkerAllocation:
    """A rank for every GPU; without one a single rank of one thread, so that the same job gives the same bits."""
    plan = cluster.machines().allocate_ranks(
        run.job.ray.workers, run.job.ray.threads_per_worker, run.job.ray.gpus_per_worker
    )
    if plan.gpus_per_worker:
        return plan
    return WorkerAllocation(1, 1, cpus_per_worker=min(1.0, plan.cpus))
