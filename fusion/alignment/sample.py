"""Training rows that a search may use, and how their target varies with the inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.heads.checks import checked_targets
from barycenter.fusion.heads.targets import Targets, Task, is_empty
from barycenter.fusion.validation import as_matrix, check_views, common_rows, present_rows


@dataclass(frozen=True)
class Target:
    """How a target varies with the inputs on training rows.

    Attributes:
        cross: ``{name: (d, k)}`` covariance of each input with the target's columns.
        variance: Of the target, the sum over its columns.
    """

    cross: Mapping[str, Float64]
    variance: float


def target_moments(views: Mapping[str, FloatArray], values: Float64) -> Target:
    """Covariances of (n, k) targets with complete inputs."""
    centered = values - values.mean(axis=0)
    n = max(len(values) - 1, 1)
    cross = {name: (rows.T @ centered.astype(rows.dtype)).astype(np.float64) / n for name, rows in views.items()}
    return Target(cross, float(np.square(centered).sum()) / n)


@dataclass(frozen=True)
class Sample:
    """Training rows that a search may use.

    Attributes:
        views: ``{name: (n, d)}``; rows that lack an input are left out.
        groups: n values; rows with equal ones share a fold. Row numbers where None.
        labels: n labels; None where there is no target, empty ones are left out.
        task: What the labels are.
    """

    views: Mapping[str, FloatArray]
    groups: Sequence[object] | None = None
    labels: Sequence[Any] | NDArray[Any] | None = None
    task: Task | str = "auto"

    def complete(self) -> "Sample":
        """The rows that have every input and, where there is a target, a label."""
        arrays = {name: as_matrix(name, values) for name, values in check_views(self.views).items()}
        for kind, given in (("groups", self.groups), ("labels", self.labels)):
            if given is not None and len(given) != common_rows(arrays):
                raise ValueError(f"{len(given)} {kind} for {common_rows(arrays)} rows")
        kept = np.logical_and.reduce([present_rows(name, values) for name, values in arrays.items()])
        if self.labels is not None:
            kept &= np.array([not is_empty(label) for label in self.labels], dtype=bool)
        rows: list[int] = np.flatnonzero(kept).tolist()
        groups = range(len(kept)) if self.groups is None else self.groups
        labels = None if self.labels is None else [self.labels[row] for row in rows]
        return Sample({m: v[rows] for m, v in arrays.items()}, [groups[row] for row in rows], labels, self.task)

    def encoded(self) -> tuple[Task, Float64]:
        """The task, and the (n, k) labels as numbers.

        Raises:
            ValueError: If there are no labels, or one is not finite; names the row.
        """
        if self.labels is None:
            raise ValueError("a sample without labels has no target")
        labels, task = checked_targets(self.labels, self.task)
        return task, Targets.of(labels, task).encode(labels)

    def target(self) -> Target:
        """Moments of the target beside the inputs."""
        rows = self.complete()
        return target_moments(rows.views, rows.encoded()[1])

    def __len__(self) -> int:
        return len(next(iter(self.views.values())))
