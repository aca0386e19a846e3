"""Alignments whose features come first: drawn from a sample, or trained from the embedding shards; then the moments."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment import Autoencoder, Contrastive, FeatureAlignment, KernelCCA, TrainedAlignment
from barycenter.fusion.alignment.network_training import batches_of, train_alignment_network
from barycenter.fusion.alignment.networks import AlignmentNetwork, ViewBatch
from barycenter.fusion.alignment.trained import HELD_OUT_FOLD
from barycenter.fusion.errors import RunError
from barycenter.fusion.moments import FoldMoments
from barycenter.fusion.splits import fold_of, stable_hash
from barycenter.fusion.training.context import Checkpoint, TrainingContext
from barycenter.fusion.training.loop import TrainingSettings
from barycenter.infra.corpus import Shard
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.ray.cluster import Cluster
from barycenter.tasks.align.limits import FEATURES, max_dim
from barycenter.tasks.align.moments import reduce_rows
from barycenter.tasks.align.worker import FeatureMoments
from barycenter.tasks.data.rows import RowReader, sample_shards
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.digest import digest

EPOCH_ROWS = 1_000_000
HELD_OUT_ROWS = 20_000
SHUFFLED_ROWS = 65_536

Window = tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]


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

    rows = RowReader.of(run).read_all(sample_shards(run.shards, 2 * SAMPLE_ROWS)).train
    count = len(next(iter(rows.values())))
    picked = np.sort(np.random.default_rng(run.job.seed).permutation(count)[:SAMPLE_ROWS])
    return {name: values[picked] for name, values in rows.items()}


def _train(run: Run, cluster: Cluster, alignment: TrainedAlignment, moments: FoldMoments, key: str) -> None:
    """Finds the number of epochs on the held-out fold, then trains on all rows for as many."""
    plan = _ranks(run, cluster)
    reader, folds, size = RowReader.of(run), alignment.folds, alignment.batch_size

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
    plan = cluster.allocate_workers(run.job.ray.workers, run.job.ray.threads_per_worker, run.job.ray.gpus_per_worker)
    if plan.gpus_per_worker:
        return plan
    return WorkerAllocation(1, 1, cpus_per_worker=min(1.0, plan.cpus))


def train_on_shards(context: TrainingContext, config: dict[str, Any]) -> Checkpoint:
    """The loop of every rank: its share of the shards, streamed."""
    data: ShardBatches = config["data"]
    held_out = list(data.held_out(context.rank))
    return train_alignment_network(
        context,
        config["network"],
        config["settings"],
        lambda epoch: data.training(context.rank, epoch),
        (lambda: held_out) if data.hold else None,
        config["steps"],
    )


@dataclass(frozen=True)
class ShardBatches:
    """Batches of ``size`` rows from embedding shards: never more rows in memory than are shuffled at a time.

    The shards are dealt among ``ranks``; ``hold`` says whether the first of the folds is held out, or nothing.
    """

    reader: RowReader
    shards: Sequence[Shard]
    folds: int
    size: int
    seed: int
    ranks: int
    hold: bool = True

    def training(self, rank: int, epoch: int) -> Iterator[ViewBatch]:
        """This rank's batches in an epoch; of all shards where its own hold no row to train on."""
        order = [self.shards[i] for i in np.random.default_rng([self.seed, epoch]).permutation(len(self.shards))]
        some = False
        for batch in self._shuffled(order[rank :: self.ranks], [self.seed, epoch, rank]):
            some = True
            yield batch
        if not some:
            yield from self._shuffled(order, [self.seed, epoch, rank])

    def held_out(self, rank: int) -> Iterator[ViewBatch]:
        """This rank's part of a sample of the held-out fold."""
        if not self.hold:
            return
        sample = sample_shards(self.shards, HELD_OUT_ROWS * self.folds)
        for views, codes in self._windows(sample[rank :: self.ranks], held=True):
            yield from batches_of(views, codes, np.arange(len(codes)), self.size)

    def _shuffled(self, shards: Iterable[Shard], seed: list[int]) -> Iterator[ViewBatch]:
        for number, (views, codes) in enumerate(self._windows(shards, held=False)):
            yield from batches_of(views, codes, np.arange(len(codes)), self.size, [*seed, number])

    def _windows(self, shards: Iterable[Shard], held: bool) -> Iterator[Window]:
        """Rows held out, or all others, and codes of their groups, about ``SHUFFLED_ROWS`` at a time."""
        parts, count = [], 0
        for shard in shards:
            rows = self.reader.read(shard)
            if not rows.training.any():
                continue
            groups = rows.train_groups
            held_out = (fold_of(groups, self.folds) == HELD_OUT_FOLD) & self.hold
            index = np.flatnonzero(held_out == held)
            if not len(index):
                continue
            codes = stable_hash(groups).view(np.int64)[index]
            parts.append(({name: view[index] for name, view in rows.train.items()}, codes))
            count += len(index)
            if count >= SHUFFLED_ROWS:
                yield _joined(parts)
                parts, count = [], 0
        if parts:
            yield _joined(parts)


def _joined(parts: Sequence[Window]) -> Window:
    views = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
    return views, np.concatenate([codes for _, codes in parts])
