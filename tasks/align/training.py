"""What every rank runs that trains an alignment: its share of the embedding shards as batches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment.network_training import batches_of, train_alignment_network
from barycenter.fusion.alignment.networks import ViewBatch
from barycenter.fusion.alignment.trained import HELD_OUT_FOLD
from barycenter.fusion.splits import fold_of, stable_hash
from barycenter.fusion.training.context import Checkpoint, TrainingContext
from barycenter.infra.corpus import Shard
from barycenter.tasks.data.rows import RowReader, sample_shards

HELD_OUT_ROWS = 20_000
SHUFFLED_ROWS = 65_536

Window = tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]


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
