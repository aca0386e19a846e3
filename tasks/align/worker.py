"""What a worker of the fit does: blocks of embedding shards to fold moments. Imports neither Prefect nor Ray."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from barycenter.fusion.alignment import FeatureAlignment
from barycenter.fusion.heads.labels import Reading
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.infra.corpus import Shard
from barycenter.tasks.data.rows import RowReader, Rows, regroup

_UPDATE_ROWS = 16_384


class Reduction(Protocol):
    """What is made of rows; plain data that travels to workers."""

    def empty(self) -> FoldMoments:
        """The moments of no rows."""

    def columns(self) -> tuple[str, ...]:
        """The kept columns it looks at."""

    def add(self, total: FoldMoments, rows: Rows) -> None:
        """Adds the training rows among some rows."""


@dataclass(frozen=True, slots=True)
class InputMoments:
    """Moments of the inputs as they are: the folds of rows with a label (or no target), then those of the others."""

    widths: dict[str, int]
    folds: int
    target: Reading | None = None

    def empty(self) -> FoldMoments:
        """See :class:`Reduction`."""
        return FoldMoments([Moments(self.widths) for _ in range(2 * self.folds)])

    def columns(self) -> tuple[str, ...]:
        """See :class:`Reduction`."""
        return () if self.target is None else (self.target.column,)

    def add(self, total: FoldMoments, rows: Rows) -> None:
        """See :class:`Reduction`."""
        labelled = np.ones(rows.count, dtype=bool)
        if self.target is not None:
            labels = self.target.labels(rows.kept.column(self.target.column).to_pylist())
            labelled = np.array([label is not None for label in labels], dtype=bool)
        sides = FoldMoments(total[: self.folds]), FoldMoments(total[self.folds :])
        for side, chosen in zip(sides, (labelled, ~labelled), strict=True):
            index = np.flatnonzero(chosen & rows.training)
            if len(index):
                views = {name: view[index] for name, view in rows.views.items()}
                side.update(views, [rows.groups[row] for row in index])


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """Moments of the features that an alignment makes of the inputs."""

    alignment: FeatureAlignment

    def empty(self) -> FoldMoments:
        """See :class:`Reduction`."""
        return self.alignment.empty_moments()

    def columns(self) -> tuple[str, ...]:
        """See :class:`Reduction`."""
        return ()

    def add(self, total: FoldMoments, rows: Rows) -> None:
        """See :class:`Reduction`."""
        if rows.training.any():
            self.alignment.feature_moments(rows.train, rows.train_groups, into=total)


class MomentsWorker:
    """Reduces blocks of embedding shards."""

    def __init__(self, reader: RowReader, reduction: Reduction) -> None:
        self.reader, self.reduction = replace(reader, keep=reduction.columns()), reduction

    def run(self, payload: Sequence[Shard]) -> FoldMoments:
        """Moments of one block of shards."""
        total = self.reduction.empty()
        for rows in regroup(self.reader.each(payload), _UPDATE_ROWS):
            self.reduction.add(total, rows)
        return total
