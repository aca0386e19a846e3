"""The most that any model can reach: rows with the same inputs get the same prediction, whatever their labels."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.evaluation.copies import content
from barycenter.fusion.heads.targets import Task, plain
from barycenter.fusion.validation import Views


def ceiling(views: Views, labels: NDArray[Any], rows: NDArray[np.integer], task: Task) -> dict[str, Any] | None:
    """The score of a model that gives each set of equal inputs the label that most of its rows have, or their mean.

    Args:
        views: ``{input: (n, d)}``.
        labels: (n,) labels, none empty in ``rows``.
        rows: Numbers of the rows that are scored.
        task: What the labels are; not ``auto``.

    Returns:
        ``{score, rows}``: accuracy or R2, and how many rows have the inputs of another row with a different label;
        None where there is no such row, or no variance: then nothing is known of a ceiling below 1.
    """
    alike: dict[bytes, list[Any]] = {}
    for row in rows:
        alike.setdefault(content(views, int(row)), []).append(_comparable(labels[row], task))
    mixed = [group for group in alike.values() if len(set(group)) > 1]
    if not mixed:
        return None
    among = sum(map(len, mixed))
    if task != "regression":
        lost = sum(len(group) - max(Counter(group).values()) for group in mixed)
        return {"score": 1 - lost / len(rows), "rows": among}
    variance = float(np.var([float(labels[row]) for row in rows]))
    if not variance > 0:
        return None
    within = sum(float(np.var(group)) * len(group) for group in mixed)
    return {"score": 1 - within / len(rows) / variance, "rows": among}


def _comparable(label: Any, task: Task) -> Any:
    if task == "regression":
        return float(label)
    return tuple(sorted(map(str, label))) if task == "multilabel" else plain(label)
