"""The report: what came in and out, how well the spaces align, whether averaging helped, and how fast it was."""

import json
import warnings
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment import (
    CHOICES,
    Alignment,
    FeatureAlignment,
    Joint,
    LinearAlignment,
    Sample,
    best_space,
    head_fill_ridges,
    labeled_moments,
)
from barycenter.fusion.alignment.imputation import Imputer
from barycenter.fusion.alignment.significance import significance_held_out
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.evaluation.dimensions import dimension_curve
from barycenter.fusion.evaluation.probe import cross_validated_probe, nothing_to_score, probe
from barycenter.fusion.heads.targets import as_objects, is_empty
from barycenter.fusion.machine_limits import whole_cpus
from barycenter.fusion.metrics import chance_r10, retrieval
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.infra.blas import limited_threads
from barycenter.infra.corpus import Shard
from barycenter.infra.deadline import check_deadline
from barycenter.tasks.data.alignment_files import FittedAlignment
from barycenter.tasks.data.rows import RowReader, Rows, sample_shards
from barycenter.tasks.data.targets import learnable_target
from barycenter.tasks.observability.artifacts import show_results
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.report.examples import ShownRows, neighbor_examples, project_to_plane
from barycenter.tasks.report.rendering import html, markdown
from barycenter.tasks.run.context import Run, shows_rate
from barycenter.tasks.run.identities import report_id

_PROBE_ROWS = 20_000
_CROSS_VALIDATED_ROWS = 5_000
_RETRIEVAL_ROWS = 5_000
_LEARNED_FOLDS = 3
_FOLDS_AT_ONCE = 4

REPORT, SAMPLES = "report/report.json", "report/samples.json"
LINEAGE = ("number", "version", "alignment_id", "job", "code")
"""Of the manifest; beside it ``asked``, the hash of this job, and ``report_id``, what the report was computed from."""

Views = dict[str, NDArray[np.float32]]


def lost_workers(speed: Mapping[str, Any]) -> list[str]:
    """A sentence for each stage that lost workers because memory ran out.

    >>> lost_workers({"embed text": {"workers_lost": {"memory": 2, "node": 1}}})
    ['embed text: memory ran out and 2 worker(s) were killed; fewer worked side by side after that (ray.workers)']
    """
    lost = {stage: dict(about.get("workers_lost", {})).get("memory", 0) for stage, about in speed.items()}
    words = "memory ran out and {} worker(s) were killed; fewer worked side by side after that (ray.workers)"
    return [f"{stage}: {words.format(count)}" for stage, count in lost.items() if count]


def write_report(
    run: Run, fitted: FittedAlignment, manifest: Manifest, speed: dict[str, Any], head: dict[str, Any] | None
) -> dict[str, Any]:
    """Writes report/report.json, report.html and the pictures, and shows the report as a Prefect artifact.

    What a report of the same identity holds is rendered again, not computed again.

    Returns:
        The report.
    """
    reuse = _reuse(run, manifest, speed)
    lineage = {name: getattr(manifest, name) for name in LINEAGE}
    lineage |= {"asked": run.job.fingerprint(), "report_id": report_id(run, manifest, fitted.summary)}
    if run.storage.exists(REPORT) and run.storage.exists(SAMPLES):
        report: dict[str, Any] = json.loads(run.storage.read(REPORT))
        if report.get("lineage", {}).get("report_id") == lineage["report_id"]:
            report |= {"lineage": lineage, "name": run.job.name, "listing": run.listing, "reuse": reuse}
            report["speed"] = _kept_speed(run, speed) | {"report": report["speed"]["report"]}
            _write(run, manifest, report, json.loads(run.storage.read(SAMPLES)))
            return report
    with StageProgress("report", run.rows, storage=run.storage) as progress, limited_threads(1):
        shards = sample_shards(run.shards, _PROBE_ROWS)
        rows = RowReader.of(run).read_all(shards)
        folds = FoldMoments.of(rows.train, run.job.alignment.folds, groups=rows.train_groups)
        report = {
            "name": run.job.name,
            "version": manifest.version,
            "rows": manifest.rows,
            "alignment": {key: value for key, value in fitted.summary.items() if key != "warnings"},
            "retrieval": _retrieval(fitted.alignment, rows, folds),
            "warnings": [*fitted.summary.get("warnings", []), *lost_workers(speed)],
        }
        if learnable_target(run) is not None:
            report["probe"] = _probe(run, fitted, rows, folds, report["warnings"])
        if run.job.train is not None:
            report["head"] = head
            report["warnings"] += (head or {}).get("notes", [])
        report["alignment"] |= _beyond_chance(fitted.alignment, rows)
        samples = _samples(run, fitted, rows, shards, report)
        progress.advance(len(rows.keys))
    report["speed"] = _kept_speed(run, speed) | {"report": progress.figures()}
    report |= {"lineage": lineage, "listing": run.listing, "reuse": reuse}
    run.storage.write(SAMPLES, json.dumps(samples).encode())
    _write(run, manifest, report, samples)
    return report


def _complete_test_rows(rows: Rows) -> NDArray[np.intp]:
    """The first held-out rows that have all inputs."""
    complete = rows.test & np.all([~np.isnan(view[:, 0]) for view in rows.views.values()], axis=0)
    return np.flatnonzero(complete)[:_RETRIEVAL_ROWS]


def _retrieval(alignment: Alignment, rows: Rows, folds: FoldMoments) -> dict[str, Any]:
    """How often a held-out row's other input is among the nearest, both ways.

    Linear alignments: in the space where training rows, held out in turn, are found best; it is named under ``space``.
    """
    chosen = _complete_test_rows(rows)
    result: dict[str, Any] = {"n": len(chosen), "chance_r10": chance_r10(len(chosen))}
    if len(chosen) < 2 or len(rows.views) < 2:
        return result
    held = {name: view[chosen] for name, view in rows.views.items()}
    temperature, aligned = 0.0, alignment.transform(held)
    if isinstance(alignment, LinearAlignment) and alignment.method in CHOICES and folds.total.n > 2:
        space = best_space(folds, Sample(rows.train, rows.train_groups), alignment)
        result["space"] = space.name
        temperature, aligned = space.temperature, space.transform(held)
    for query, candidate in permutations(aligned, 2):
        result[f"{query}->{candidate}"] = retrieval(aligned[query], aligned[candidate], temperature)
    return result


def _probe(run: Run, fitted: FittedAlignment, rows: Rows, folds: FoldMoments, notes: list[str]) -> dict[str, Any]:
    """The probe; of too few rows for it none, and a note that says why."""
    check_deadline()
    target = learnable_target(run)
    assert target is not None
    alignment, (average, weights) = fitted.alignment, fitted.average
    labels = as_objects(target.labels(rows.kept.column(target.column).to_pylist()))
    try:
        imputer = Imputer.of_folds(folds)
        result: dict[str, Any] = probe(
            rows.views,
            lambda views: alignment.fuse(views, average=average, weights=weights),
            labels,
            rows.groups,
            rows.training,
            rows.test,
            imputer=imputer,
            dim=alignment.dim_,
            task=target.task,
        )
    except ValueError as error:
        notes.append(f"no probe: {error}")
        return nothing_to_score(target.task, 0)
    if len(labels) <= _CROSS_VALIDATED_ROWS:
        try:
            result["cross_validated"] = _cross_validated(
                run, fitted, rows.views, labels, rows.groups, imputer.regularization
            )
        except ValueError as error:
            notes.append(f"no probe out of fold: {error}")
    return result


def _cross_validated(
    run: Run, fitted: FittedAlignment, views: Views, labels: NDArray[Any], groups: Sequence[str | None], ridge: float
) -> dict[str, Any]:
    """The probe out of fold: alignment and imputation fitted again inside each training part.

    Method, gamma and weights stay those that were chosen once, on the training rows of the run.
    """
    check_deadline()
    target = learnable_target(run)
    assert target is not None
    alignment, (average, weights) = fitted.alignment, fitted.average
    settings = alignment.get_params() | {"regularization": alignment.regularization_}
    for_target = bool(fitted.summary.get("probe_ridge"))
    held_out = run.job.alignment.folds if average == "posterior" else 1

    def learn(part: Views, part_labels: NDArray[Any], part_groups: Sequence[object]) -> Any:
        check_deadline()
        again = type(alignment)(**settings | {"folds": _LEARNED_FOLDS}).fit(part, groups=part_groups)
        if for_target and isinstance(again, FeatureAlignment):
            features = again.feature_moments(part, part_groups).total
            again.fill_for_target(features, Sample(part, part_groups, part_labels, target.task), weights)
        return lambda given: again.fuse(given, average=average, weights=weights)

    def fit(part: Views, part_labels: NDArray[Any], part_groups: Sequence[object]) -> Any:
        labeled = np.array([not is_empty(label) for label in part_labels])
        halves = [
            FoldMoments.of({name: view[rows] for name, view in part.items()}, held_out, np.array(part_groups)[rows])
            for rows in (labeled, ~labeled)
        ]
        moments = labeled_moments(*halves)
        sample = Sample(part, part_groups, part_labels, target.task)
        ridges = {"fill_ridges": head_fill_ridges(sample)} if settings.get("fill_ridges") and len(part) == 2 else {}
        again = type(alignment)(**settings | ridges)
        again.fit_moments(moments, *([sample.target()] if isinstance(again, Joint) else []))
        if for_target:
            again.fill_for_target(moments.total, sample, weights)
        return lambda given: again.fuse(given, average=average, weights=weights)

    learned = isinstance(alignment, FeatureAlignment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        result: dict[str, Any] = cross_validated_probe(
            views, labels, groups, run.job.alignment.folds, 1,
            learn if learned else fit, dim=alignment.dim_, task=target.task,
            imputer=lambda part, _: Imputer(Moments.of(part), ridge),
            threads=1 if learned else min(whole_cpus(), _FOLDS_AT_ONCE),
        )  # fmt: skip
    return result | {"chosen_inside": False}


def _beyond_chance(alignment: Alignment, rows: Rows) -> dict[str, Any]:
    """Correlation of each component on test rows, and what randomly paired inputs reach on them."""
    check_deadline()
    chosen = _complete_test_rows(rows)
    if len(chosen) < 3 or len(rows.views) < 2:
        return {}
    aligned = alignment.transform({name: view[chosen] for name, view in rows.views.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = significance_held_out(aligned, [rows.groups[row] for row in chosen])
    return {
        "test_correlations": [round(float(value), 6) for value in found.heldout_correlations],
        "noise_edge": round(found.noise_edge, 6),
        "n_significant": found.n_significant,
    }


def _samples(
    run: Run, fitted: FittedAlignment, rows: Rows, shards: Sequence[Shard], report: dict[str, Any]
) -> dict[str, Any]:
    """The map and the gallery; adds the dimension curve and the neighbors' agreement to the report."""
    check_deadline()
    alignment, (average, weights) = fitted.alignment, fitted.average
    stacked = np.stack([~np.isnan(view[:, 0]) for view in rows.views.values()])
    there, complete = stacked.any(axis=0), stacked.all(axis=0)
    fused = np.full((len(rows.keys), alignment.dim_), np.nan, np.float32)
    given = {name: view[there] for name, view in rows.views.items()}
    fused[there] = alignment.fuse(given, average=average, weights=weights)
    target = learnable_target(run)
    labels = None if target is None else as_objects(target.labels(rows.kept.column(target.column).to_pylist()))
    if labels is not None and "probe" in report and report["alignment"]["method"] != "none":
        labeled = np.array([not is_empty(label) for label in labels], dtype=bool)
        report["probe"]["dimensions"] = dimension_curve(
            fused, labels, rows.groups, labeled & there & rows.training, labeled & complete & rows.test,
            report["probe"]["task"],
        )  # fmt: skip
    shown = ShownRows(shards, rows.keys, fused, labels, rows.groups, rows.test & complete)
    neighbors, report["neighbors"] = neighbor_examples(run, shown)
    return {"map": project_to_plane(shown), "neighbors": neighbors}


def _reuse(run: Run, manifest: Manifest, speed: dict[str, Any]) -> dict[str, Any]:
    """What became of each input's rows; where this run embedded nothing, what the report of the version says."""
    reuse = {name: speed.get(f"embed {name}", {}).pop("reuse", None) for name in run.inputs}
    if None not in reuse.values() or not run.storage.exists(REPORT):
        return reuse
    before: dict[str, Any] = json.loads(run.storage.read(REPORT))
    return before.get("reuse", reuse) if before.get("version") == manifest.version else reuse


def _kept_speed(run: Run, speed: dict[str, Any]) -> dict[str, Any]:
    """Figures of this run's stages; one that had little to do shows those of the run that did it under `before`."""
    if not run.storage.exists(REPORT):
        return speed
    before = json.loads(run.storage.read(REPORT)).get("speed", {})
    for stage, figures in before.items():
        now = speed.get(stage)
        if now is None:
            speed[stage] = figures
        elif not shows_rate(now) and stage in before:
            now["before"] = figures if shows_rate(figures) else figures.get("before", figures)
    return speed


def _write(run: Run, manifest: Manifest, report: dict[str, Any], samples: dict[str, Any]) -> None:
    from barycenter.tasks.report.rendering.figures import plots  # imports matplotlib, which takes a second

    run.storage.write(REPORT, json.dumps(report, indent=1).encode())
    pictures = plots(report, samples)
    for name, content in pictures.items():
        run.storage.write(f"report/{name}", content)
    run.storage.write("report/report.html", html(report, samples, pictures).encode())
    show_results(run, manifest, markdown(report))
