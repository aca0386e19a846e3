"""Fit the alignment: fold moments from workers, one small fit here, saved under the hash of what it holds."""

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pyarrow as pa

import barycenter.fusion.alignment as alignments
from barycenter.fusion.alignment import Alignment, ClippedDimWarning, LinearAlignment, Sample, labeled_moments
from barycenter.fusion.errors import RunError
from barycenter.fusion.moments import FoldMoments
from barycenter.infra.blas import limited_threads
from barycenter.infra.deadline import check_deadline
from barycenter.infra.job.models import Job
from barycenter.infra.logs import say
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.storage.json_files import read_if_whole
from barycenter.infra.versions.manifests import newest_manifest
from barycenter.tasks.align.drift import check_drift, record_fitted_shards
from barycenter.tasks.align.lender import lender
from barycenter.tasks.align.limits import max_dim
from barycenter.tasks.align.moments import stored_moments
from barycenter.tasks.align.worker import InputMoments
from barycenter.tasks.data.alignment_files import FittedAlignment, alignment_is_whole, load_alignment, save_alignment
from barycenter.tasks.data.duplicates import counted_reader
from barycenter.tasks.data.rows import sample_shards
from barycenter.tasks.data.targets import learnable_target
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.digest import digest
from barycenter.tasks.run.identities import alignment_settings, embeddings_key, fit_key, moments_parts

SAMPLE_ROWS = 20_000
KEPT = "alignment {} is kept, it was fitted on other rows than these; --refit fits it again"

log = logging.getLogger(__name__)


def fit_alignment(run: Run, cluster: Cluster) -> tuple[FittedAlignment, dict[str, Any]]:
    """Fits the alignment of the job, or finds it fitted.

    Returns:
        The alignment, and figures for report.json.
    """
    if run.job.alignment.from_ is not None:
        return _borrowed(run), {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    summary = found_fit(run)
    if summary is not None:
        if summary["kept"]:
            say(log, f"align: {KEPT.format(summary['alignment_id'])}")
        found = load_alignment(run.storage, summary["alignment_id"])
        summary = check_drift(run, found, summary)
        return FittedAlignment(found, summary["alignment_id"], summary), {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    with StageProgress("fit", run.rows, storage=run.storage) as progress:
        alignment, summary = _fit(run, cluster, lambda: fold_moments(run, cluster, progress))
        figures = progress.figures()
    alignment_id = save_alignment(run.storage, alignment)
    record_fitted_shards(run, alignment_id)
    summary |= {"alignment_id": alignment_id, "settings_key": alignment_settings(run)}
    summary |= {"fitted_on": embeddings_key(run), "moments": moments_key(run), "kept": False}
    run.storage.write(_record(run), json.dumps(summary, indent=1).encode())
    return FittedAlignment(alignment, alignment_id, summary), figures


def fold_moments(run: Run, cluster: Cluster, progress: StageProgress) -> FoldMoments:
    """Moments of the training rows, one set a fold; saved, so that another ridge, dim or method reads no embedding."""
    folds, target = run.job.alignment.folds, learnable_target(run)
    both = stored_moments(run, cluster, InputMoments(run.widths, folds, target), moments_key(run), progress)
    check_deadline()  # what follows is one long step
    return labeled_moments(FoldMoments(both[:folds]), FoldMoments(both[folds:]))


def moments_key(run: Run) -> str:
    """Names the folder in which the moments of this run's rows are kept."""
    target = learnable_target(run)
    return digest(moments_parts(run), asdict(target) if target else None)


def _fit(run: Run, cluster: Cluster, moments: Callable[[], FoldMoments]) -> tuple[Alignment, dict[str, Any]]:
    settings = run.job.alignment
    with warnings.catch_warnings(record=True) as caught, limited_threads(1):
        warnings.simplefilter("always")
        try:
            if settings.method in ("auto", *alignments.CHOICES):
                alignment, summary = _chosen(run, moments())
            else:
                alignment, summary = _other(run, cluster, moments)
        except ValueError as error:
            raise RunError(
                f"alignment.method {settings.method}: {error}; rows held out for testing do not count"
            ) from error
    said = [str(w.message) for w in caught if issubclass(w.category, UserWarning) and not _is_of_dim(w)]
    if run.job.explicit("alignment.dim") and alignment.dim_ < settings.dim:
        said.append(f"alignment.dim {settings.dim} was clipped to {alignment.dim_}, the rank of the data")
    summary = {
        "method": alignment.method,
        "dim": int(alignment.dim_),
        "regularization": alignment.regularization_,
        "heldout_correlations": [round(float(value), 6) for value in alignment.heldout_correlations_],
        **summary,
        "rows": alignment.n_,
        "warnings": list(dict.fromkeys(said)),
    }
    return alignment, summary


def _is_of_dim(warning: warnings.WarningMessage) -> bool:
    """Of a default nobody need hear, and methods that were only tried have other ranks than the chosen one."""
    return issubclass(warning.category, ClippedDimWarning)


def given_average(job: Job) -> tuple[str, dict[str, float] | None]:
    """The average that a job names; where it is `auto` and nothing was chosen, the mean."""
    if job.average.method == "weighted":
        return "weighted", job.input_weights
    return ("mean" if job.average.method == "auto" else job.average.method), None


def _chosen(run: Run, moments: FoldMoments) -> tuple[LinearAlignment, dict[str, Any]]:
    """What a held-out criterion chooses among the methods that the job allows."""
    job, settings = run.job, run.job.alignment
    search = alignments.AlignmentSearch(
        dim=min(settings.dim, max_dim(settings.method, run.widths)),
        regularization=settings.regularization,
        methods=alignments.CHOICES if settings.method == "auto" else (settings.method,),
        average="auto" if job.average.method == "auto" else "mean",
        half_dim=not job.explicit("alignment.dim"),
    ).fit_moments(moments, read_sample(run))
    average, weights = given_average(job)
    if job.average.method == "auto" and search.average_ == "weighted":
        average, weights = "weighted", search.average_weights_
    return search.best_estimator_, search.to_dict() | {"average": average, "weights": weights}


def read_sample(run: Run) -> Sample:
    """Training rows of evenly spaced shards, with their labels where there is a target."""
    rows = counted_reader(run).read_all(sample_shards(run.shards, SAMPLE_ROWS))
    target, labels = learnable_target(run), None
    if target is not None:
        labels = target.labels(rows.kept.column(target.column).filter(pa.array(rows.training)).to_pylist())
    return Sample(rows.train, rows.train_groups, labels, target.task if target is not None else "auto")


def _other(run: Run, cluster: Cluster, moments: Callable[[], FoldMoments]) -> tuple[LinearAlignment, dict[str, Any]]:
    """What there is no choice in: none, and the alignments that make features first."""
    average, weights = given_average(run.job)
    summary: dict[str, Any] = {"chosen_by": "job file", "average": average, "weights": weights}
    if run.job.alignment.method == "none":
        return alignments.Identity(folds=run.job.alignment.folds).fit_moments(moments()), summary
    from barycenter.tasks.align.trained import fit_feature_alignment  # imports torch

    alignment, features = fit_feature_alignment(run, cluster, moments, fit_key(run))
    if learnable_target(run) is not None and average in ("mean", "weighted") and len(run.inputs) > 1:
        summary["probe_ridge"] = alignment.fill_for_target(features.total, read_sample(run), weights)
    return alignment, summary


def _borrowed(run: Run) -> FittedAlignment:
    source, manifest = lender(run)
    alignment = load_alignment(source, manifest.alignment_id)
    alignment_id = save_alignment(run.storage, alignment)
    summary = manifest.alignment | {"chosen_by": "alignment.from", "alignment_id": alignment_id, "kept": False}
    for theirs_alone in ("settings_key", "fitted_on", "moments"):
        summary.pop(theirs_alone, None)
    average = manifest.average
    if run.job.average.method != "auto":
        average = dict(zip(("method", "weights"), given_average(run.job), strict=True))
    summary |= {"average": average["method"], "weights": average["weights"]}
    return FittedAlignment(alignment, alignment_id, check_drift(run, alignment, summary, source))


def _record(run: Run) -> str:
    """Where the summary of a fit is kept."""
    return f"alignment/fits/{fit_key(run)}.json"


def found_fit(run: Run) -> dict[str, Any] | None:
    """The fit of exactly these embeddings, or the committed one of the same settings unless a refit is asked for.

    Of a corpus as it was on a day, the committed one may have been fitted on later rows: it is not kept.
    """
    if run.refit:
        return None
    if (summary := read_if_whole(run.storage, _record(run))) is not None:
        return summary if alignment_is_whole(run.storage, summary["alignment_id"]) else None
    newest = newest_manifest(run.storage)
    if newest is None:
        return None
    committed = newest.alignment
    asked = committed.get("settings_key") == alignment_settings(run)
    if not asked or not alignment_is_whole(run.storage, newest.alignment_id):
        return None
    kept = committed.get("fitted_on") != embeddings_key(run)
    return None if kept and run.as_of is not None else committed | {"kept": kept}
