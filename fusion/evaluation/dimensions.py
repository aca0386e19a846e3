"""What the dimension of the fused vector costs: the probe on its first components."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.evaluation.probe import Task, row_scores
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.metrics import bootstrap_means

_SMALLEST = 4


def dimension_curve(
    fused: NDArray[np.floating],
    labels: NDArray[Any],
    groups: Sequence[object],
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    task: Task,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Scores of a linear head on the first 4, 8, 16, ... components and on all of them.

    Args:
        fused: (n, dim), components in order of importance.
        labels: (n,) labels, none empty in the rows named.
        groups: n values; rows with equal ones share a fold of the head's tuning and are resampled together.
        train: (n,) rows to learn from.
        test: (n,) rows to score.
        task: What the labels are; not ``auto``.
        seed: Of the bootstrap.

    Returns:
        ``[{dim, complete, low, high}]``: accuracy or R2 with its 95 % interval; empty without rows or variance.
    """
    learn, score = np.flatnonzero(train), np.flatnonzero(test)
    if not len(learn) or not len(score):
        return []
    curve = []
    width = fused.shape[1]
    for dim in [*(2**power for power in range(16) if _SMALLEST <= 2**power < width), width]:
        head = LinearHead(task=task).fit(fused[learn, :dim], labels[learn], groups=[groups[int(row)] for row in learn])
        scores = row_scores(head.predict(fused[score, :dim]), labels[score], task)
        if not np.isfinite(scores).all():
            return []
        draws = bootstrap_means(scores[:, None], [groups[int(row)] for row in score], seed=seed)
        low, high = np.percentile(draws, [2.5, 97.5])
        curve.append({"dim": dim, "complete": float(scores.mean()), "low": float(low), "high": float(high)})
    return curve
