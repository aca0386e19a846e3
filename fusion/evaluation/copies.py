"""Scored rows whose inputs are those of a row that was learned from: the score is too good by what they give away."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.evaluation.mistakes import Predictions
from barycenter.fusion.evaluation.probe import row_scores
from barycenter.fusion.validation import Views

_FEWEST = 20
"""Rows below which a score says nothing."""


def content(views: Views, row: int) -> bytes:
    """A digest of all inputs of a row; rows with equal inputs have equal ones."""
    digest = hashlib.blake2b(digest_size=16)
    for values in views.values():
        digest.update(np.ascontiguousarray(values[row]).tobytes())
    return digest.digest()


def copies(
    views: Views, learn: NDArray[np.bool_], part: NDArray[np.generic], predictions: Predictions
) -> dict[str, Any]:
    """How many scored rows have equal inputs in another part, from which the model of their part learned.

    Args:
        views: ``{input: (n, d)}``.
        learn: (n,) rows that a model learned from where they were not scored themselves.
        part: (n,) the part, or the fold, that a row is in; a model learns from no row of the part that it scores.
        predictions: Of the scored rows.

    Returns:
        ``{rows, of, score}``: scored rows with a copy, all scored rows, and the score of those without; None where
        those are fewer than twenty, or their target has no variance.
    """
    parts: dict[bytes, set[Any]] = {}
    for row in np.flatnonzero(learn).tolist():
        parts.setdefault(content(views, row), set()).add(part[row])
    copied = np.array([bool(parts.get(content(views, int(row)), set()) - {part[row]}) for row in predictions.rows])
    left = ~copied
    scores = row_scores(predictions.predicted[left], predictions.labels[left], predictions.task)
    known = copied.any() and len(scores) >= _FEWEST and bool(np.isfinite(scores).all())
    return {"rows": int(copied.sum()), "of": len(copied), "score": float(scores.mean()) if known else None}
