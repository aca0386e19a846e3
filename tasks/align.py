"""Fit the alignment: fold moments from workers, one small fit here, saved under the hash of what it holds."""

import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from threadpoolctl import threadpool_limits

import fusion.alignment as alignments
from fusion.alignment import Alignment
from fusion.errors import JobError, RunError
from fusion.moments import FoldMoments, Moments
from infra.cluster import Cluster, WorkerPlan
from infra.corpus import Shard
from infra.dispatch import Work, dispatch
from infra.job import AlignmentJob, Job
from infra.storage import Storage
from tasks.progress import StageProgress
from tasks.rows import RowReader
from tasks.run import Run, describe_widths, digest

BLOCK_ROWS = 262_144
DEFAULT_METHOD = "joint"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted alignment and what is told about it."""

    alignment: Alignment
    alignment_id: str
    summary: dict[str, Any]


class MomentsWorker:
    """Reduces blocks of embedding shards to fold moments of their training rows."""

    def __init__(self, reader: RowReader, widths: dict[str, int], folds: int) -> None:
        self.reader, self.widths, self.folds = reader, widths, folds

    def run(self, payload: Sequence[Shard]) -> FoldMoments:
        """Moments of one block of shards."""
        total = FoldMoments([Moments(self.widths) for _ in range(self.folds)])
        for shard in payload:
            rows = self.reader.read(shard)
            if not rows.test.all():
                total.update(rows.train, rows.train_groups)
        return total


@task(name="align", cache_policy=NO_CACHE)
def fit_alignment(run: Run, cluster: Cluster) -> tuple[Fitted, dict[str, Any]]:
    """Fits the alignment of the job, or finds it fitted.

    Returns:
        The alignment, and figures for report.json.
    """
    if run.job.alignment.from_ is not None:
        return _borrowed(run), {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    record = f"alignment/fits/{digest(run.embeddings_key(), _settings_key(run))}.json"
    summary = _found(run, record)
    if summary is not None:
        found = load_alignment(run.storage, summary["alignment_id"])
        return Fitted(found, summary["alignment_id"], summary), {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    with StageProgress("fit", run.rows, storage=run.storage) as progress:
        moments = fold_moments(run, cluster, progress)
        alignment, summary = _fit(run, moments)
        figures = progress.figures()
    alignment_id = save_alignment(run.storage, alignment)
    summary |= {"alignment_id": alignment_id, "settings_key": _settings_key(run)}
    run.storage.write(record, json.dumps(summary, indent=1).encode())
    return Fitted(alignment, alignment_id, summary), figures


def fold_moments(run: Run, cluster: Cluster, progress: StageProgress) -> FoldMoments:
    """Moments of the training rows, one set a fold; saved, so that another ridge, dim or method reads no embedding."""
    folds = run.job.alignment.folds
    path = f"alignment/moments/{digest(run.embeddings_key(), _split_key(run), folds)}.safetensors"
    if run.storage.exists(path):
        return _read_moments(run.storage, path)
    blocks = run.blocks(BLOCK_ROWS)
    parts: dict[int, FoldMoments] = {}

    def done(work: Work, part: FoldMoments) -> None:
        parts[int(work.id)] = part
        progress.advance(work.rows)

    failed = dispatch(
        [Work(str(index), block, sum(shard.rows for shard in block)) for index, block in enumerate(blocks)],
        worker=MomentsWorker,
        args=(RowReader.of(run), run.widths, folds),
        plan=block_workers(run, cluster, len(blocks)),
        name=f"{run.job.name}-fit",
        on_done=done,
    )
    if failed:
        raise RunError(f"moments of block {failed[0].id} failed: {failed[0].detail}; run again")
    merged = reduce(FoldMoments.merge, [parts[index] for index in range(len(blocks))])
    with tempfile.TemporaryDirectory() as folder:
        merged.save(Path(folder) / "moments")
        run.storage.write(path, (Path(folder) / "moments").read_bytes())
    return merged


def block_workers(run: Run, cluster: Cluster, blocks: int) -> WorkerPlan:
    """One-threaded workers for blocks of rows: the same bits on any machine, whatever its cores."""
    plan = cluster.split(run.job.ray.workers, 1, 0)
    return replace(plan, workers=max(1, min(plan.workers, blocks)))


def check_alignment(job: Job, widths: dict[str, int]) -> None:
    """Refuses, before anything starts, what the widths of the inputs do not allow.

    Raises:
        JobError: Naming the key and the widths.
    """
    method, dim = job.alignment.method, job.alignment.dim
    told = describe_widths(widths)
    if method == "none":
        if len(set(widths.values())) > 1:
            raise JobError(
                "alignment.method", f"`none` averages equal widths only, these differ: {told}; use joint or pca"
            )
        if job.explicit("alignment.dim") and dim != next(iter(widths.values())):
            raise JobError(
                "alignment.dim", f"`none` keeps the inputs' width ({told}), so dim cannot be {dim}; leave it out"
            )
        return
    if job.explicit("alignment.dim") and dim > widest(method, widths):
        raise JobError("alignment.dim", f"{dim} is above the {widest(method, widths)} that `{method}` allows ({told})")


def widest(method: str, widths: dict[str, int]) -> int:
    """The largest dim that a method can give for these widths."""
    total, largest, smallest = sum(widths.values()), max(widths.values()), min(widths.values())
    return {"pca": smallest, "procrustes": smallest, "cca": total - largest}.get(method, total)


def save_alignment(storage: Storage, alignment: Alignment) -> str:
    """Writes an alignment under the hash of its files and returns that id."""
    with tempfile.TemporaryDirectory() as folder:
        alignment.save(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    alignment_id = digest([(name, digest(content.hex())) for name, content in files.items()])
    for name, content in files.items():
        storage.write(f"alignment/{alignment_id}/{name}", content)
    return alignment_id


def load_alignment(storage: Storage, alignment_id: str) -> Alignment:
    """Reads a saved alignment."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("alignment.safetensors", "alignment.json"):
            (Path(folder) / name).write_bytes(storage.read(f"alignment/{alignment_id}/{name}"))
        return alignments.load(folder)


def _read_moments(storage: Storage, path: str) -> FoldMoments:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "moments").write_bytes(storage.read(path))
        return FoldMoments.load(Path(folder) / "moments")


def _fit(run: Run, moments: FoldMoments) -> tuple[Alignment, dict[str, Any]]:
    settings = run.job.alignment
    method = DEFAULT_METHOD if settings.method == "auto" else settings.method
    dim = min(settings.dim, widest(method, run.widths))
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
        warnings.simplefilter("always")
        alignment = _new(method, dim, settings).fit_moments(moments)
    summary = {
        "method": method,
        "dim": int(alignment.dim_),
        "regularization": alignment.regularization_,
        "heldout_correlations": [round(float(value), 6) for value in alignment.heldout_correlations_],
        "chosen_by": "default" if settings.method == "auto" else "job file",
        "rows": moments.total.n,
        "warnings": [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)],
    }
    return alignment, summary


def _new(method: str, dim: int, settings: AlignmentJob) -> Alignment:
    if method == "none":
        return alignments.Identity(folds=settings.folds)
    kinds: dict[str, type[Alignment]] = {
        "pca": alignments.PCA,
        "procrustes": alignments.Procrustes,
        "cca": alignments.CCA,
        "joint": alignments.Joint,
    }
    if method not in kinds:
        raise JobError("alignment.method", f"`{method}` is not available yet; use one of none, {', '.join(kinds)}")
    return kinds[method](dim=dim, regularization=settings.regularization, folds=settings.folds)


def _borrowed(run: Run) -> Fitted:
    source = Storage(str(run.job.alignment.from_), run.job.storage.endpoint_url)
    if not source.exists("manifest.json"):
        raise JobError(
            "alignment.from", f"{run.job.alignment.from_} holds no manifest.json; name the output of a finished run"
        )
    manifest = json.loads(source.read("manifest.json"))
    theirs = {name: entry["encoder_id"] for name, entry in manifest["inputs"].items()}
    ours = {name: run.encoders[name].encoder_id for name in run.inputs}
    if theirs != ours:
        differing = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        raise JobError(
            "alignment.from", f"was fitted on other encoders of {', '.join(differing)}; embed with the same ones"
        )
    alignment = load_alignment(source, manifest["alignment_id"])
    alignment_id = save_alignment(run.storage, alignment)
    summary = manifest["alignment"] | {"chosen_by": "alignment.from", "alignment_id": alignment_id}
    return Fitted(alignment, alignment_id, summary)


def _split_key(run: Run) -> list[str | None]:
    train = run.job.train
    return [train.split, train.group_by] if train else [None, None]


def _found(run: Run, record: str) -> dict[str, Any] | None:
    """The fit of exactly these embeddings, or the committed one of the same settings unless a refit is asked for."""
    if run.refit:
        return None
    if run.storage.exists(record):
        summary: dict[str, Any] = json.loads(run.storage.read(record))
        return summary
    if not run.storage.exists("manifest.json"):
        return None
    committed: dict[str, Any] = json.loads(run.storage.read("manifest.json"))["alignment"]
    return committed if committed.get("settings_key") == _settings_key(run) else None


def _settings_key(run: Run) -> str:
    settings = run.job.alignment.model_dump(mode="json", by_alias=True)
    return digest(settings, {name: run.encoders[name].encoder_id for name in run.inputs}, _split_key(run))
