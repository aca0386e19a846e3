"""Fit the alignment: fold moments from workers, one small fit here, saved under the hash of what it holds."""

import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE
from threadpoolctl import threadpool_limits

import fusion.alignment as alignments
from fusion.alignment import Alignment, LinearAlignment, Sample, labelled_moments
from fusion.errors import JobError, RunError
from fusion.heads._targets import is_empty
from fusion.moments import FoldMoments, Moments
from infra.cluster import Cluster, WorkerPlan
from infra.corpus import Shard
from infra.dispatch import Work, dispatch
from infra.job import AlignmentJob, Job
from infra.storage import Storage
from tasks.checks import widest
from tasks.drift import check_drift, note_fitted_shards
from tasks.progress import StageProgress
from tasks.rows import RowReader, gathered, sample_shards
from tasks.run import Run, digest

BLOCK_ROWS = 262_144
LEAST_BLOCK_ROWS = 32_768
SAMPLE_ROWS = 20_000
_UPDATE_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted alignment and what is told about it."""

    alignment: Alignment
    alignment_id: str
    summary: dict[str, Any]

    @property
    def average(self) -> tuple[str, dict[str, float] | None]:
        """How aligned inputs are averaged: the method, and the weights where it has some."""
        return self.summary["average"], self.summary["weights"]


class MomentsWorker:
    """Reduces blocks of embedding shards to fold moments of their training rows, those without a label apart."""

    def __init__(self, reader: RowReader, widths: dict[str, int], folds: int, target: str | None) -> None:
        self.reader, self.widths, self.folds, self.target = reader, widths, folds, target

    def run(self, payload: Sequence[Shard]) -> FoldMoments:
        """Moments of one block of shards: the folds of rows with a label (or no target), then those of the others."""
        sides = [FoldMoments([Moments(self.widths) for _ in range(self.folds)]) for _ in range(2)]
        reader = replace(self.reader, keep=(self.target,) if self.target is not None else ())
        for rows in gathered(reader.each(payload), _UPDATE_ROWS):
            labelled = np.ones(rows.count, dtype=bool)
            if self.target is not None:
                labelled = np.array([not is_empty(label) for label in rows.kept.column(self.target).to_pylist()])
            for side, chosen in zip(sides, (labelled, ~labelled), strict=True):
                index = np.flatnonzero(chosen & ~rows.test)
                if len(index):
                    views = {name: view[index] for name, view in rows.views.items()}
                    side.update(views, [rows.groups[row] for row in index])
        return FoldMoments([*sides[0], *sides[1]])


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
        summary = check_drift(run, found, summary)
        return Fitted(found, summary["alignment_id"], summary), {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    with StageProgress("fit", run.rows, storage=run.storage) as progress:
        moments = fold_moments(run, cluster, progress)
        alignment, summary = _fit(run, moments)
        figures = progress.figures()
    alignment_id = save_alignment(run.storage, alignment)
    note_fitted_shards(run, alignment_id)
    summary |= {"alignment_id": alignment_id, "settings_key": _settings_key(run)}
    run.storage.write(record, json.dumps(summary, indent=1).encode())
    return Fitted(alignment, alignment_id, summary), figures


def fold_moments(run: Run, cluster: Cluster, progress: StageProgress) -> FoldMoments:
    """Moments of the training rows, one set a fold; saved, so that another ridge, dim or method reads no embedding."""
    folds = run.job.alignment.folds
    both = _both_moments(run, cluster, progress)
    return labelled_moments(FoldMoments(both[:folds]), FoldMoments(both[folds:]))


def _both_moments(run: Run, cluster: Cluster, progress: StageProgress) -> FoldMoments:
    folds, target = run.job.alignment.folds, run.job.train.target if run.job.train else None
    path = f"alignment/moments/{digest(run.embeddings_key(), _split_key(run), folds, target)}.safetensors"
    if run.storage.exists(path):
        return _read_moments(run.storage, path)
    blocks = run.blocks(min(max(run.rows // 8, LEAST_BLOCK_ROWS), BLOCK_ROWS))
    merged = _InOrder()

    def done(work: Work, part: FoldMoments) -> None:
        merged.add(int(work.id), part)
        progress.advance(work.rows)

    failed = dispatch(
        [Work(str(index), block, sum(shard.rows for shard in block)) for index, block in enumerate(blocks)],
        worker=MomentsWorker,
        args=(RowReader.of(run), run.widths, folds, target),
        plan=block_workers(run, cluster, len(blocks)),
        name=f"{run.job.name}-fit",
        on_done=done,
    )
    if failed:
        raise RunError(f"moments of block {failed[0].id} failed: {failed[0].detail}; run again")
    assert merged.whole is not None
    with tempfile.TemporaryDirectory() as folder:
        merged.whole.save(Path(folder) / "moments")
        run.storage.write(path, (Path(folder) / "moments").read_bytes())
    return merged.whole


class _InOrder:
    """Merges parts in the order of their numbers, however they arrive, and keeps none that is merged."""

    def __init__(self) -> None:
        self.whole: FoldMoments | None = None
        self._waiting: dict[int, FoldMoments] = {}
        self._next = 0

    def add(self, number: int, part: FoldMoments) -> None:
        self._waiting[number] = part
        while (following := self._waiting.pop(self._next, None)) is not None:
            self.whole = following if self.whole is None else self.whole.merge(following)
            self._next += 1


def block_workers(run: Run, cluster: Cluster, blocks: int) -> WorkerPlan:
    """One-threaded workers for blocks of rows: the same bits on any machine, whatever its cores."""
    plan = cluster.split(run.job.ray.workers, 1, 0)
    return replace(plan, workers=max(1, min(plan.workers, blocks)))


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
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
        warnings.simplefilter("always")
        if settings.method in ("auto", *alignments.CHOICES):
            alignment, told = _chosen(run, moments)
        else:
            alignment = _new(settings).fit_moments(moments)
            average, weights = given_average(run.job)
            told = {"chosen_by": "job file", "average": average, "weights": weights}
    summary = {
        "method": alignment.method,
        "dim": int(alignment.dim_),
        "regularization": alignment.regularization_,
        "heldout_correlations": [round(float(value), 6) for value in alignment.heldout_correlations_],
        **told,
        "rows": moments.total.n,
        "warnings": list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning))),
    }
    return alignment, summary


def given_average(job: Job) -> tuple[str, dict[str, float] | None]:
    """The average that a job names; where it is `auto` and nothing was chosen, the mean."""
    if job.average.method == "weighted":
        return "weighted", job.input_weights
    return ("mean" if job.average.method == "auto" else job.average.method), None


def _chosen(run: Run, moments: FoldMoments) -> tuple[LinearAlignment, dict[str, Any]]:
    """What a held-out criterion chooses among the methods that the job allows."""
    job, settings = run.job, run.job.alignment
    choice = alignments.choose(
        moments,
        read_sample(run),
        dim=min(settings.dim, widest(settings.method, run.widths)),
        regularization=settings.regularization,
        methods=alignments.CHOICES if settings.method == "auto" else (settings.method,),
        average="auto" if job.average.method == "auto" else "mean",
        shorter=not job.explicit("alignment.dim"),
    )
    average, weights = given_average(job)
    if job.average.method == "auto" and choice.average == "weighted":
        average, weights = "weighted", choice.weights
    return choice.alignment, choice.told() | {"average": average, "weights": weights}


def read_sample(run: Run) -> Sample:
    """Training rows of evenly spaced shards, with their labels where there is a target."""
    rows = RowReader.of(run).read_all(sample_shards(run.shards, SAMPLE_ROWS))
    train = run.job.train
    labels = None
    if train is not None:
        column = rows.kept.column(train.target).to_pylist()
        labels = [label for label, held in zip(column, rows.test, strict=True) if not held]
    return Sample(rows.train, rows.train_groups, labels, train.task if train is not None else "auto")


def _new(settings: AlignmentJob) -> LinearAlignment:
    if settings.method == "none":
        return alignments.Identity(folds=settings.folds)
    raise JobError(
        "alignment.method",
        f"`{settings.method}` is not available yet; use one of none, {', '.join(alignments.CHOICES)}, auto",
    )


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
    average = manifest["average"]
    if run.job.average.method != "auto":
        average = dict(zip(("method", "weights"), given_average(run.job), strict=True))
    summary |= {"average": average["method"], "weights": average["weights"]}
    return Fitted(alignment, alignment_id, check_drift(run, alignment, summary, source))


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
    job = run.job
    settings = [job.alignment.model_dump(mode="json", by_alias=True), job.explicit("alignment.dim")]
    settings += [job.average.model_dump(mode="json"), [job.train.target, job.train.task] if job.train else None]
    return digest(settings, {name: run.encoders[name].encoder_id for name in run.inputs}, _split_key(run))
