"""How many bytes a run will write, and how many the disk of its output has."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from barycenter.infra.versions.embedding_files import done_shards
from barycenter.infra.versions.manifests import newest_manifest
from barycenter.tasks.align.limits import max_dim
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids

_BESIDE_A_VECTOR = 100
"""Bytes of a row beside its vector: key, digests, what became of it."""

_GIB = float(1 << 30)


def space_needed(run: Run) -> dict[str, int | None]:
    """Bytes that are to be written, packed as little as numbers may be, and those that are free.

    Returns:
        ``{"embeddings", "features", "free"}``: of all that is to be embedded, of one version of features without the
        columns that are kept, and on the disk of the output; None where the output is on object storage. Moments,
        alignment, head and report are small beside them, and are not counted.
    """
    rows_left = dict.fromkeys(run.inputs, run.rows)
    if not run.unjoined:
        for name, embedding_id in embedding_ids(run).items():
            done = done_shards(run.storage, name, embedding_id)
            rows_left[name] = sum(shard.rows for shard in run.shards if shard.id not in done)
    embeddings = sum(rows * (4 * run.widths[name] + _BESIDE_A_VECTOR) for name, rows in rows_left.items())
    settings, output = run.job.alignment, run.job.output
    dim = min(settings.dim, max_dim(settings.method, run.widths))
    vectors = 1 + (len(run.inputs) if output.keep_aligned else 0)
    features = run.rows * (dim * vectors * np.dtype(output.dtype).itemsize + _BESIDE_A_VECTOR)
    return {"embeddings": embeddings, "features": 0 if _is_written(run, rows_left) else features, "free": _free(run)}


def space_line(space: dict[str, int | None]) -> str:
    """The same in words.

    >>> space_line({"embeddings": 3 << 30, "features": 1 << 29, "free": 20 << 30})
    'space: about 3.5 GiB to be written (embeddings 3.0, features 0.5), 20.0 GiB free'
    """
    embeddings, features = (float(space[part] or 0) / _GIB for part in ("embeddings", "features"))
    free = "" if space["free"] is None else f", {space['free'] / _GIB:.1f} GiB free"
    return (
        f"space: about {embeddings + features:.1f} GiB to be written (embeddings {embeddings:.1f}, "
        f"features {features:.1f}){free}"
    )


def space_warning(run: Run) -> str | None:
    """A line where the disk will not hold what the run writes; None where it will, or nobody knows."""
    if not run.storage.is_local:
        return None
    space = space_needed(run)
    needed = (space["embeddings"] or 0) + (space["features"] or 0)
    if space["free"] is None or needed <= space["free"]:
        return None
    return f"output.path: {space_line(space)}; make room or name a folder on another disk"


def _is_written(run: Run, rows_left: Mapping[str, int]) -> bool:
    """Whether the newest version is of this job and these rows, so that no other will be written."""
    newest = newest_manifest(run.storage)
    if newest is None or run.refit or any(rows_left.values()):
        return False
    return newest.job == run.job.fingerprint() and list(newest.shards) == [shard.id for shard in run.shards]


def _free(run: Run) -> int | None:
    if not run.storage.is_local:
        return None
    folder = Path(run.storage.root)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free
