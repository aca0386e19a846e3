"""What a worker of the fit does: blocks of embedding shards to fold moments. Imports neither Prefect nor Ray."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from barycenter.fusion.heads.labels import Reading
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.tasks.align.blocks import Block, read_moments, updates, write_moments
from barycenter.tasks.data.rows import RowReader, Rows

if TYPE_CHECKING:
    from barycenter.fusion.alignment import FeatureAlignment  # imports scikit-learn


class Reduction(Protocol):
    """What is made of rows; plain data that travels to workers."""

    def columns(self) -> tuple[str, ...]:
        """The kept columns it looks at."""

    def empty(self) -> FoldMoments:
        """The moments of no rows."""

    def add(self, parts: Iterable[Rows], total: FoldMoments) -> None:
        """Adds the training rows among some rows, an update a part."""


@dataclass(frozen=True, slots=True)
class InputMoments:
    """Moments of the inputs as they are: the folds of rows with a label (or no target), then those of the others."""

    widths: dict[str, int]
    folds: int
    target: Reading | None = None

    def columns(self) -> tuple[str, ...]:
        """See :class:`Reduction`."""
        return () if self.target is None else (self.target.column,)

    def empty(self) -> FoldMoments:
        """See :class:`Reduction`."""
        return FoldMoments([Moments(self.widths) for _ in range(2 * self.folds)])

    def add(self, parts: Iterable[Rows], total: FoldMoments) -> None:
        """See :class:`Reduction`."""
        halves = FoldMoments(total[: self.folds]), FoldMoments(total[self.folds :])
        for rows in parts:
            labeled = np.ones(rows.count, dtype=bool)
            if self.target is not None:
                labels = self.target.labels(rows.kept.column(self.target.column).to_pylist())
                labeled = np.array([label is not None for label in labels], dtype=bool)
            for half, chosen in zip(halves, (labeled, ~labeled), strict=True):
                index = np.flatnonzero(chosen & rows.training)
                if len(index):
                    views = {name: view[index] for name, view in rows.views.items()}
                    half.update(views, [rows.groups[row] for row in index])


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """Moments of the features that an alignment makes of the inputs."""

    alignment: "FeatureAlignment"

    def columns(self) -> tuple[str, ...]:
        """See :class:`Reduction`."""
        return ()

    def empty(self) -> FoldMoments:
        """See :class:`Reduction`."""
        return self.alignment.empty_moments()

    def add(self, parts: Iterable[Rows], total: FoldMoments) -> None:
        """See :class:`Reduction`."""
        for rows in parts:
            if rows.training.any():
                self.alignment.feature_moments(rows.train, rows.train_groups, into=total)


class MomentsWorker:
    """Reduces blocks of embedding shards."""

    def __init__(self, reader: RowReader, reduction: Reduction) -> None:
        self.reader, self.reduction = replace(reader, keep=reduction.columns()), reduction

    def run(self, payload: Block) -> FoldMoments:
        """Moments of one block of shards."""
        storage, shards = self.reader.storage, payload.shards
        total = read_moments(storage, payload.base) if payload.base is not None else self.reduction.empty()
        if payload.keep is not None:
            count, path = payload.keep
            self.reduction.add(updates(self.reader.each(shards[:count])), total)
            write_moments(storage, path, total)
            shards = shards[count:]
        self.reduction.add(updates(self.reader.each(shards)), total)
        return total
