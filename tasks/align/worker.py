"""What a worker of the fit does: blocks of embedding shards to fold moments. Imports neither Prefect nor Ray."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from barycenter.fusion.heads.labels import Reading
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.infra.corpus import Shard
from barycenter.tasks.data.rows import RowReader, Rows, regroup

if TYPE_CHECKING:
    from barycenter.fusion.alignment import FeatureAlignment  # imports scikit-learn

_UPDATE_ROWS = 16_384


class Reduction(Protocol):
    """What is made of rows; plain data that travels to workers."""

    def columns(self) -> tuple[str, ...]:
        """The kept columns it looks at."""

    def moments(self, parts: Iterable[Rows]) -> FoldMoments:
        """The moments of the training rows among some rows."""


@dataclass(frozen=True, slots=True)
class InputMoments:
    """Moments of the inputs as they are: the folds of rows with a label (or no target), then those of the others."""

    widths: dict[str, int]
    folds: int
    target: Reading | None = None

    def columns(self) -> tuple[str, ...]:
        """See :class:`Reduction`."""
        return () if self.target is None else (self.target.column,)

    def moments(self, parts: Iterable[Rows]) -> FoldMoments:
        """See :class:`Reduction`."""
        total = FoldMoments([Moments(self.widths) for _ in range(2 * self.folds)])
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
        return total


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """Moments of the features that an alignment makes of the inputs."""

    alignment: "FeatureAlignment"

    def columns(self) -> tuple[str, ...]:
        """See :class:`Reduction`."""
        return ()

    def moments(self, parts: Iterable[Rows]) -> FoldMoments:
        """See :class:`Reduction`."""
        total = self.alignment.empty_moments()
        for rows in parts:
            if rows.training.any():
                self.alignment.feature_moments(rows.train, rows.train_groups, into=total)
        return total


class MomentsWorker:
    """Reduces blocks of embedding shards."""

    def __init__(self, reader: RowReader, reduction: Reduction) -> None:
        self.reader, self.reduction = replace(reader, keep=reduction.columns()), reduction

    def run(self, payload: Sequence[Shard]) -> FoldMoments:
        """Moments of one block of shards."""
        return self.reduction.moments(regroup(self.reader.each(payload), _UPDATE_ROWS))
