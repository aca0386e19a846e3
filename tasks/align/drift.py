"""Whether new rows still look like those that a kept alignment was fitted on."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment import Alignment
from barycenter.infra.storage import Storage
from barycenter.infra.storage.json_files import read_if_whole
from barycenter.infra.versions.embedding_files import done_shards, embedding_path
from barycenter.infra.versions.manifests import read_manifest
from barycenter.tasks.align.marks import shard_marks
from barycenter.tasks.data.alignment_files import FITTED
from barycenter.tasks.data.embeddings import read_embeddings
from barycenter.tasks.data.rows import evenly_spaced
from barycenter.tasks.observability.events import dataset_drifted
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids

_SAMPLE_ROWS = 20_000
_LEADING = 16
_SHARED = 0.1
_FEWEST_ROWS = 10
_SHIFT = 0.2
_LOSS = 0.2
_SIGMAS = 4.0
_ROUNDING = 1e-6

Views = dict[str, NDArray[np.float32]]


def record_fitted_shards(run: Run, alignment_id: str) -> None:
    """Writes, beside an alignment, the shards it was fitted on: {id: mark of its rows, whichever file they are in}."""
    marks = dict(zip([shard.id for shard in run.shards], shard_marks(run), strict=True))
    run.storage.write(f"alignment/{alignment_id}/{FITTED}", json.dumps(marks).encode())


def check_drift(
    run: Run, alignment: Alignment, summary: Mapping[str, Any], fitted_on: Storage | None = None
) -> dict[str, Any]:
    """Compares rows that came after a fit with those before, in the aligned space.

    The mean shift of an input is the distance between the two means in units of the standard deviation of the rows
    before (root of the summed variances); the correlation is the mean over the leading components, held out before
    and, as nothing was fitted on them, on the new rows. Both are reported; what exceeds 0.2 (a fifth of the
    correlation) and four standard errors is a warning. Reads about 20,000 rows of each side. ``fitted_on`` is the
    output of the run that fitted the alignment, if that was another one.

    Returns:
        The summary, with ``drift`` and its warnings where there are new rows.
    """
    kept = {name: value for name, value in summary.items() if name != "drift"}
    ours = theirs = embedding_ids(run)
    if fitted_on is None:
        marks = read_if_whole(run.storage, f"alignment/{summary['alignment_id']}/{FITTED}") or {}
        fitted = list(marks)
        new = _new_shards(run, marks) if marks else []
    else:
        manifest = read_manifest(fitted_on)
        fitted = list(manifest.shards)
        theirs = {name: str(manifest.inputs[name]["embedding_id"]) for name in ours}
        new = [shard.id for shard in run.shards]
    there = [done_shards(fitted_on or run.storage, name, folder) for name, folder in theirs.items()]
    fitted = [shard_id for shard_id in fitted if all(shard_id in done for done in there)]
    if not new or not fitted:
        return kept
    wanted = max(1, _SAMPLE_ROWS // max(1, run.job.corpus.rows_per_shard))
    before = alignment.transform(_views(fitted_on or run.storage, theirs, evenly_spaced(fitted, wanted)))
    after = alignment.transform(_views(run.storage, ours, evenly_spaced(new, wanted)))
    drift, warnings = measure_drift(before, after, summary.get("heldout_correlations", []))
    drift = {"new_shards": len(new)} | drift
    if warnings:
        dataset_drifted(run, drift, warnings)
    return kept | {"drift": drift, "warnings": [*kept.get("warnings", []), *warnings]}


def _new_shards(run: Run, fitted: Mapping[str, str]) -> list[str]:
    """Ids of the shards whose rows are not those of a shard that was fitted on; ``fitted``: {id: mark}."""
    unknown = [shard for shard in run.shards if shard.id not in fitted]
    known = set(fitted.values())
    return [
        shard.id for shard, mark in zip(unknown, shard_marks(run, shards=unknown), strict=True) if mark not in known
    ]


def measure_drift(before: Views, after: Views, heldout: Sequence[float]) -> tuple[dict[str, Any], list[str]]:
    """Mean shift and correlation of aligned rows against those before.

    Both are {input: (n, dim)}, all-NaN where missing; ``heldout`` is each component's correlation, as the fit has it.

    Returns:
        Figures for the report, and warnings.
    """
    shifts: dict[str, float] = {}
    warnings = []
    for name in before:
        old, new = (rows[~np.isnan(rows[:, 0])].astype(np.float64) for rows in (before[name], after[name]))
        spread = float(np.sqrt(old.var(axis=0).sum())) if len(old) > 1 else 0.0
        if len(old):
            spread = max(spread, _ROUNDING * float(np.linalg.norm(old.mean(axis=0))))  # of an input that never varies
        if not len(new) or not spread:
            continue
        shifts[name] = round(float(np.linalg.norm(new.mean(axis=0) - old.mean(axis=0))) / spread, 4)
        if shifts[name] > max(_SHIFT, _SIGMAS * np.sqrt(1 / len(new) + 1 / len(old))):
            warnings.append(
                f"drift: the new rows' mean of {name} lies {shifts[name]:.2f} standard deviations from that of the "
                "rows which the alignment was fitted on; consider --refit"
            )
    figures: dict[str, Any] = {"mean_shift": shifts}
    leading = np.nan_to_num(np.asarray(heldout[:_LEADING], dtype=np.float64))
    shared = np.flatnonzero(leading > _SHARED)
    pairs = [
        _correlations(after[one][both][:, shared], after[other][both][:, shared])
        for one, other in combinations(after, 2)
        if (both := ~np.isnan(after[one][:, 0]) & ~np.isnan(after[other][:, 0])).sum() >= _FEWEST_ROWS
    ]
    if pairs and len(shared):
        known, now = float(leading[shared].mean()), float(np.mean(pairs))
        figures["correlation"] = {"before": round(known, 4), "new": round(now, 4)}
        least = min(int((~np.isnan(view[:, 0])).sum()) for view in after.values())
        if known - now > max(_LOSS * known, _SIGMAS / np.sqrt(len(shared) * max(least, 1))):
            warnings.append(
                f"drift: the inputs of the new rows correlate at {now:.2f} in the aligned space, held out before it "
                f"was {known:.2f}; consider --refit"
            )
    rows = max((int((~np.isnan(view[:, 0])).sum()) for view in after.values()), default=0)
    return figures | {"rows_compared": rows}, warnings


def _correlations(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Correlation of each component."""
    left, right = (rows.astype(np.float64) - rows.mean(axis=0) for rows in (one, other))
    scale = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    return np.asarray((left * right).sum(axis=0) / np.maximum(scale, 1e-12))


def _views(storage: Storage, folders: Mapping[str, str], shard_ids: Sequence[str]) -> Views:
    views: Views = {}
    for name, embedding_id in folders.items():
        paths = [embedding_path(name, embedding_id, shard_id) for shard_id in shard_ids]
        views[name] = np.concatenate([read_embeddings(storage, path, [])[0] for path in paths])
    return views
