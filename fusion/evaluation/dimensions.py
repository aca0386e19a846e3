"""What the dimension of the fused vector costs, and what more labeled rows would bring: the probe on less of each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.evaluation.intervals import difference, ends
from barycenter.fusion.evaluation.probe import Task, row_scores
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.metrics import bootstrap_means
from barycenter.fusion.splits import stable_hash

_SMALLEST = 4
_FEWEST_ROWS = 40
_SHARES = (0.125, 0.25, 0.5, 1.0)
_SALT = "share"

RowNumbers = NDArray[np.intp]


def dimension_curve(
    fused: NDArray[np.floating],
    labels: NDArray[Any],
    groups: Sequence[object],
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    task: Task,
    seed: int = 0,
) -> list[dict[str, Any]]:
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
        ``[{dim, complete, low, high, loss}]``: accuracy or R2 with its 95 % interval, and what is lost against all
        components, {mean, low, high} on the same rows; empty without rows or variance.
    """
    learn, width = np.flatnonzero(train), fused.shape[1]
    dims = [*(2**power for power in range(16) if _SMALLEST <= 2**power < width), width]
    curve = _curve(fused, labels, groups, [(learn, dim) for dim in dims], np.flatnonzero(test), task, seed)
    return [{"dim": dim} | point for dim, point in zip(dims, curve, strict=False)]


def learning_curve(
    fused: NDArray[np.floating],
    labels: NDArray[Any],
    groups: Sequence[object],
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    task: Task,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Scores of a linear head that learns from an eighth, a quarter, half and all of the labeled rows.

    The fused vectors stay as they are: what more rows would do to the alignment is not in it. Groups are taken whole,
    by a hash, and each share holds the smaller ones.

    Args:
        fused: (n, dim).
        labels: (n,) labels, none empty in the rows named.
        groups: n values; rows with equal ones are in the same share, share a fold and are resampled together.
        train: (n,) rows to learn from.
        test: (n,) rows to score.
        task: What the labels are; not ``auto``.
        seed: Of the bootstrap.

    Returns:
        ``[{rows, complete, low, high, loss}]``: rows learned from, and the rest as there, the loss against all rows;
        shares of fewer than forty rows or of one label alone are left out.
    """
    learn = np.flatnonzero(train)
    drawn = stable_hash([groups[int(row)] for row in learn], _SALT) / 2.0**64
    parts = [part for share in _SHARES if _can_learn(labels, part := learn[drawn < share], len(learn))]
    width = fused.shape[1]
    curve = _curve(fused, labels, groups, [(part, width) for part in parts], np.flatnonzero(test), task, seed)
    return [{"rows": len(part)} | point for part, point in zip(parts, curve, strict=False)]


def _can_learn(labels: NDArray[Any], rows: RowNumbers, of: int) -> bool:
    return len(rows) == of or (len(rows) >= _FEWEST_ROWS and len({repr(label) for label in labels[rows]}) > 1)


def _curve(
    fused: NDArray[np.floating],
    labels: NDArray[Any],
    groups: Sequence[object],
    parts: Sequence[tuple[RowNumbers, int]],
    score: RowNumbers,
    task: Task,
    seed: int,
) -> list[dict[str, Any]]:
    """Scores of a head for each (rows to learn from, leading components), the last of them the whole."""
    if not len(score) or not all(len(learn) for learn, _ in parts):
        return []
    scores = []
    for learn, dim in parts:
        head = LinearHead(task=task).fit(fused[learn, :dim], labels[learn], groups=[groups[int(row)] for row in learn])
        scores.append(row_scores(head.predict(fused[score, :dim]), labels[score], task))
    table = np.stack(scores, axis=1)
    if not np.isfinite(table).all():
        return []
    resampled = [groups[int(row)] for row in score]
    draws, means = bootstrap_means(table, resampled, seed=seed), table.mean(axis=0)
    drawn, points = len(set(resampled)), []
    for at, mean in enumerate(means):
        low, high = ends(draws[:, at], drawn)
        loss = difference(draws[:, -1], draws[:, at], means[-1] - mean, drawn)
        points.append({"complete": float(mean), "low": low, "high": high, "loss": loss})
    return points


def variance_kept(view: NDArray[np.floating], fused: NDArray[np.floating]) -> float | None:
    """Share of a view's variance that is linear in the fused vectors of the same rows; None without variance."""
    centered = [values - values.mean(axis=0, dtype=np.float64) for values in (view, fused)]
    x, f = (values.astype(np.float64) for values in centered)
    total = float((x**2).sum())
    if not total > 0:
        return None
    cross = f.T @ x
    return float(np.sum(cross * (np.linalg.pinv(f.T @ f, hermitian=True) @ cross)) / total)
