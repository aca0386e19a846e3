"""The report: what came in and out, how well the spaces align, whether averaging helped, and how fast it was."""

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment import CHOICES, Alignment, LinearAlignment, Sample, best_space
from barycenter.fusion.alignment.significance import significance_held_out
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.evaluation.dimensions import dimension_curve, learning_curve, variance_kept
from barycenter.fusion.evaluation.mistakes import Predictions
from barycenter.fusion.heads.targets import as_objects, is_empty
from barycenter.fusion.metrics import chance_r10, retrieval
from barycenter.fusion.moments import FoldMoments
from barycenter.infra.blas import limited_threads
from barycenter.infra.corpus import Shard
from barycenter.infra.deadline import check_deadline
from barycenter.infra.storage.json_files import read_if_whole
from barycenter.infra.versions.manifests import report_path
from barycenter.infra.words import counted
from barycenter.tasks.align.limits import max_dim
from barycenter.tasks.data.alignment_files import FittedAlignment
from barycenter.tasks.data.duplicates import counted_reader
from barycenter.tasks.data.rows import Rows, sample_shards
from barycenter.tasks.data.targets import learnable_target
from barycenter.tasks.observability.artifacts import show_results
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.report.comparison.decline import decline
from barycenter.tasks.report.examples import ShownRows, neighbor_examples, project_to_plane
from barycenter.tasks.report.mistakes import error_examples, mistakes_section, residual_points
from barycenter.tasks.report.probing import probe_rows
from barycenter.tasks.report.rendering import answers, html, markdown
from barycenter.tasks.report.rendering.facts import section
from barycenter.tasks.report.scored_rows import read_scored_rows, write_scored_rows
from barycenter.tasks.run.context import Run, shows_rate
from barycenter.tasks.run.identities import report_id

_PROBE_ROWS = 20_000
_RETRIEVAL_ROWS = 5_000

REPORT, SAMPLES, PAGE = "report/report.json", "report/samples.json", "report/report.html"
LINEAGE = ("number", "version", "alignment_id", "job", "code")
"""Of the manifest; beside it ``asked``, the hash of this job, and ``report_id``, what the report was computed from."""


def lost_workers(speed: Mapping[str, Any]) -> list[str]:
    """A sentence for each stage that lost workers because memory ran out.

    >>> lost_workers({"embed text": {"workers_lost": {"memory": 2, "node": 1}}})
    ['embed text: memory ran out and killed 2 workers; fewer worked side by side after that (ray.workers)']
    """
    lost = {stage: dict(about.get("workers_lost", {})).get("memory", 0) for stage, about in speed.items()}
    words = "memory ran out and killed {}; fewer worked side by side after that (ray.workers)"
    return [f"{stage}: {words.format(counted(count, 'worker'))}" for stage, count in lost.items() if count]


def write_report(
    run: Run, fitted: FittedAlignment, manifest: Manifest, speed: dict[str, Any], head: dict[str, Any] | None
) -> dict[str, Any]:
    """Writes report/report.json, report.html and the pictures, and shows the report as a Prefect artifact.

    What a report of the same identity holds is rendered again, not computed or drawn again.

    Returns:
        The report.
    """
    reuse = _reuse(run, manifest, speed)
    lineage = _lineage(run, manifest, fitted.summary)
    if (computed := _computed(run, lineage["report_id"])) is not None:
        report, samples = computed
        report |= {"lineage": lineage, "name": run.job.name, "listing": run.listing, "reuse": reuse}
        report["speed"] = _kept_speed(run, speed) | {"report": report["speed"]["report"]}
        report["history"] = _history(run, manifest, report)
        _write(run, manifest, report, samples, _drawn(run, report))
        return report
    with StageProgress("report", run.rows, storage=run.storage) as progress, limited_threads(1):
        shards = sample_shards(run.shards, _PROBE_ROWS)
        rows = counted_reader(run).read_all(shards).counted()
        folds = FoldMoments.of(rows.train, run.job.alignment.folds, groups=rows.train_groups)
        report = {
            "name": run.job.name,
            "version": manifest.version,
            "rows": manifest.rows,
            "encoders": {name: spec.encoder for name, spec in run.specs.items() if spec.encoder},
            "split": _split(run, rows, head),
            "alignment": {key: value for key, value in fitted.summary.items() if key != "warnings"},
            "retrieval": _retrieval(fitted.alignment, rows, folds),
            "warnings": [*fitted.summary.get("warnings", []), *lost_workers(speed)],
        }
        target, labels, probed = learnable_target(run), None, None
        if target is not None:
            labels = as_objects(target.labels(rows.kept.column(target.column).to_pylist()))
            labels[~(rows.training | rows.test)] = None  # in neither part: neither learned from nor scored
            probed = probe_rows(run, fitted, rows, labels, target, folds, report["warnings"])
            report["probe"] = probed.figures
        predictions = None if probed is None else probed.predictions
        if predictions is not None:
            crossed = "cross_validated" in report["probe"]
            report["mistakes"] = mistakes_section(predictions, rows.keys, rows.groups, crossed=crossed)
        if run.job.train is not None:
            report["head"] = head
            report["warnings"] += (head or {}).get("notes", [])
        report["alignment"] |= _beyond_chance(fitted.alignment, rows) | _most_dimensions(run, fitted)
        samples = _samples(run, fitted, rows, shards, labels, predictions, report)
        progress.advance(len(rows.keys))
    report["speed"] = _kept_speed(run, speed) | {"report": progress.figures()}
    report |= {"lineage": lineage, "listing": run.listing, "reuse": reuse}
    run.storage.write(SAMPLES, json.dumps(samples).encode())
    write_scored_rows(run.storage, manifest.version, report, probed, rows.keys, rows.groups)
    report["history"] = _history(run, manifest, report)
    _write(run, manifest, report, samples)
    return report


def is_reported(run: Run, manifest: Manifest, summary: Mapping[str, Any]) -> bool:
    """Whether the report of a version is there, with all its files and what this job says of it."""
    lineage = _lineage(run, manifest, summary)
    computed = _computed(run, lineage["report_id"])
    if computed is None or _picture_paths(run, computed[0]) is None:
        return False
    report = computed[0]
    of_job = {"lineage": lineage, "name": run.job.name, "listing": run.listing}
    pages = (PAGE, report_path(manifest.version))
    return all(report.get(key) == value for key, value in of_job.items()) and all(map(run.storage.exists, pages))


def _history(run: Run, manifest: Manifest, report: dict[str, Any]) -> dict[str, Any]:
    """What depends on the versions before this one; all else in a report is that of a run in an empty output."""
    return {"warnings": decline(run.storage, manifest, report)}


def _lineage(run: Run, manifest: Manifest, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a report is of."""
    lineage = {name: getattr(manifest, name) for name in LINEAGE}
    return lineage | {"asked": run.job.fingerprint(), "report_id": report_id(run, manifest, summary)}


def _computed(run: Run, identity: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The report that is there and its samples, if both are whole and of this identity."""
    report, samples = read_if_whole(run.storage, REPORT), read_if_whole(run.storage, SAMPLES)
    if report is None or samples is None or section(report, "lineage").get("report_id") != identity:
        return None
    scored = section(report, "probe", "candidates")
    return None if scored and read_scored_rows(run.storage, report) is None else (report, samples)


def _picture_paths(run: Run, report: Mapping[str, Any]) -> dict[str, str] | None:
    """Where the pictures of a report that is there lie, by name; None where one is gone."""
    paths = {name: f"report/{name}" for name in report.get("pictures", ())}
    return paths if "pictures" in report and all(map(run.storage.exists, paths.values())) else None


def _drawn(run: Run, report: Mapping[str, Any]) -> dict[str, bytes] | None:
    """The pictures of a report that is there; None where one is gone."""
    paths = _picture_paths(run, report)
    return None if paths is None else {name: run.storage.read(path) for name, path in paths.items()}


def _split(run: Run, rows: Rows, head: dict[str, Any] | None) -> dict[str, Any]:
    """Which rows are learned from and which are held out: by what, and how many, labeled ones of all where known."""
    train = run.job.train
    counted = (head or {}).get("labelled")
    parts = counted or Counter(np.where(rows.training, "train", np.where(rows.test, "test", "other")).tolist())
    return {
        "by": train.split if train is not None and train.split is not None else None,
        "group_by": train.group_by if train is not None else None,
        "rows": "labeled rows" if counted else "rows looked at",
        **{part: int(parts.get(part, 0)) for part in ("train", "test", "other")},
    }


def _most_dimensions(run: Run, fitted: FittedAlignment) -> dict[str, int]:
    """The dimension that a job may ask for; the fitted one where the data had no more than that."""
    settings, dim = run.job.alignment, int(fitted.alignment.dim_)
    if dim < settings.dim and run.job.explicit("alignment.dim"):
        return {"most_dim": dim}
    return {"most_dim": max(dim, max_dim(settings.method, run.widths))}


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
    run: Run,
    fitted: FittedAlignment,
    rows: Rows,
    shards: Sequence[Shard],
    labels: NDArray[Any] | None,
    predictions: Predictions | None,
    report: dict[str, Any],
) -> dict[str, Any]:
    """The map, the gallery and the errors; adds the curves and the neighbors' agreement to the report."""
    check_deadline()
    alignment, (average, weights) = fitted.alignment, fitted.average
    stacked = np.stack([~np.isnan(view[:, 0]) for view in rows.views.values()])
    there, complete = stacked.any(axis=0), stacked.all(axis=0)
    fused = np.full((len(rows.keys), alignment.dim_), np.nan, np.float32)
    given = {name: view[there] for name, view in rows.views.items()}
    fused[there] = alignment.fuse(given, average=average, weights=weights)
    if labels is not None and "probe" in report:
        labeled = np.array([not is_empty(label) for label in labels], dtype=bool)
        learn, score = labeled & there & rows.training, labeled & complete & rows.test
        judged = fused, labels, rows.groups, learn, score, report["probe"]["task"]
        if report["alignment"]["method"] != "none":
            report["probe"]["dimensions"] = dimension_curve(*judged)
        report["probe"]["learning"] = learning_curve(*judged)
    report["alignment"] |= _kept_variance(given, fused[there])
    shown = ShownRows(shards, rows.keys, fused, labels, rows.groups, rows.test & complete)
    neighbors, report["neighbors"] = neighbor_examples(run, shown)
    samples = {"map": project_to_plane(shown), "neighbors": neighbors}
    if predictions is not None:
        samples["errors"] = error_examples(run, shown, predictions)
        samples["residuals"] = residual_points(predictions)
    return samples


def _kept_variance(views: Mapping[str, NDArray[np.float32]], fused: NDArray[np.float32]) -> dict[str, Any]:
    """What a smaller dimension keeps of a single input."""
    (name, view), *others = views.items()
    if others or not len(view) or fused.shape[1] >= view.shape[1]:
        return {}
    return {"variance_kept": {"input": name, "of": view.shape[1], "share": variance_kept(view, fused)}}


def _reuse(run: Run, manifest: Manifest, speed: dict[str, Any]) -> dict[str, Any]:
    """What became of each input's rows; where this run embedded nothing, what the report of the version says."""
    reuse = {name: speed.get(f"embed {name}", {}).pop("reuse", None) for name in run.inputs}
    if None not in reuse.values() or (before := read_if_whole(run.storage, REPORT)) is None:
        return reuse
    return before.get("reuse", reuse) if before.get("version") == manifest.version else reuse


def _kept_speed(run: Run, speed: dict[str, Any]) -> dict[str, Any]:
    """Figures of this run's stages; one that had little to do shows those of the run that did it under `before`."""
    before = (read_if_whole(run.storage, REPORT) or {}).get("speed", {})
    for stage, figures in before.items():
        now = speed.get(stage)
        if now is None:
            speed[stage] = figures
        elif not shows_rate(now) and stage in before:
            now["before"] = figures if shows_rate(figures) else figures.get("before", figures)
    return speed


def _write(
    run: Run,
    manifest: Manifest,
    report: dict[str, Any],
    samples: dict[str, Any],
    pictures: dict[str, bytes] | None = None,
) -> None:
    """Writes the report; ``pictures``: those that are there, else they are drawn."""
    report["answers"] = answers(report)
    if pictures is None:
        from barycenter.tasks.report.rendering.figures import plots  # imports matplotlib, which takes a second

        pictures = plots(report, samples)
        for name, picture in pictures.items():
            run.storage.write(f"report/{name}", picture)
    report["pictures"] = sorted(pictures)
    content = json.dumps(report, indent=1).encode()
    run.storage.write(REPORT, content)
    run.storage.write(report_path(manifest.version), content)
    run.storage.write(PAGE, html(report, samples, pictures).encode())
    show_results(run, manifest, markdown(report))
