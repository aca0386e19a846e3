"""Two versions or outputs, as plain data."""

from typing import Any

from barycenter.tasks.report.comparison.predictions import changed_predictions
from barycenter.tasks.report.comparison.rows import compare_keys, key_changes, moved_rows
from barycenter.tasks.report.comparison.scores import compared_figures
from barycenter.tasks.report.comparison.settings import (
    changed_alignment,
    changed_data,
    changed_encoders,
    changed_settings,
)
from barycenter.tasks.report.comparison.sides import Side


def compare(before: Side, after: Side, head: str | None = None) -> dict[str, Any]:
    """Everything that two versions differ in, from their manifests, reports, heads and feature files.

    Args:
        before: One version.
        after: The other.
        head: Kind of head, where a version has several.

    Returns:
        ``before`` and ``after`` {name, number, version, committed, report}; ``job`` {key: [before, after]} of what
        differs, None where it is not known; ``data`` {rows, missing, bad, sources, keys}; ``encoders`` and
        ``alignment`` {name: [before, after]}; ``figures``, ``moved`` and ``predictions``, None where there is nothing
        to compare; ``notes``: what could not be compared, and why.

    Raises:
        JobError: A version has several heads and none was named, or it has none of the kind that was.
    """
    notes: list[str] = []
    job = changed_settings(before, after)
    if job is None:
        unknown = " and ".join(side.name for side in (before, after) if not side.job)
        notes.append(f"the manifest of {unknown} does not hold its job, so settings are not compared key by key")
    predictions = changed_predictions(before, after, head, notes)
    keys = compare_keys(before, after)
    if not keys.kept:
        notes.append("no row is in both: the figures are of different data")
    return {
        "before": before.about(),
        "after": after.about(),
        "job": job,
        "data": changed_data(before, after) | {"keys": key_changes(before, after, keys)},
        "encoders": changed_encoders(before, after),
        "alignment": changed_alignment(before, after),
        "figures": compared_figures(before, after, notes),
        "moved": moved_rows(before, after, keys, notes),
        "predictions": predictions,
        "notes": notes,
    }
