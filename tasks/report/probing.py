"""The probe of a run: scores of every candidate, and what the fused vectors are predicted as, row by row."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment import FeatureAlignment, Joint, Sample, head_fill_ridges, labeled_moments
from barycenter.fusion.alignment.imputation import Imputer
from barycenter.fusion.evaluation.ceiling import ceiling
from barycenter.fusion.evaluation.copies import copies
from barycenter.fusion.evaluation.intervals import RowScores
from barycenter.fusion.evaluation.mistakes import Predictions
from barycenter.fusion.evaluation.probe import (
    RecordScores,
    cross_validated_probe,
    folds_of,
    nothing_to_score,
    probe,
)
from barycenter.fusion.heads.labels import Reading
from barycenter.fusion.heads.targets import is_empty
from barycenter.fusion.machine_limits import whole_cpus
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.infra.deadline import check_deadline
from barycenter.tasks.data.alignment_files import FittedAlignment
from barycenter.tasks.data.rows import Rows
from barycenter.tasks.run.context import Run

_CROSS_VALIDATED_ROWS = 5_000
_LEARNED_FOLDS = 3
_FOLDS_AT_ONCE = 4

Views = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Probed:
    """What the probe of a run found.

    Attributes:
        figures: The ``probe`` of report.json.
        predictions: Those behind the score of ``fused`` that the report goes by: out of fold where there are any, else
            those of the held-out rows. None of too few rows.
        rows: Numbers of the rows behind that score.
        scores: Their scores, by candidate and condition.
    """

    figures: dict[str, Any]
    predictions: Predictions | None = None
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    scores: RowScores = field(default_factory=dict)


def probe_rows(
    run: Run,
    fitted: FittedAlignment,
    rows: Rows,
    labels: NDArray[Any],
    target: Reading,
    folds: FoldMoments,
    notes: list[str],
) -> Probed:
    """The probe; of too few rows there is none, and a note that says why."""
    check_deadline()
    alignment, (average, weights) = fitted.alignment, fitted.average
    held_out: list[Predictions] = []
    scored: list[tuple[NDArray[np.int64], RowScores]] = []
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
            record=held_out.append,
            record_scores=lambda *part: scored.append(part),
        )
    except ValueError as error:
        notes.append(f"no probe: {error}")
        return Probed(nothing_to_score(target.task, 0))
    out_of_fold: list[Predictions] = []
    if len(labels) <= _CROSS_VALIDATED_ROWS:
        try:
            result["cross_validated"] = _cross_validated(
                run, fitted, rows, labels, target, imputer.regularization, out_of_fold,
                lambda *part: scored.append(part),
            )  # fmt: skip
        except ValueError as error:
            out_of_fold.clear()
            notes.append(f"no probe out of fold: {error}")
    found = out_of_fold or held_out
    if not found:
        return Probed(result)
    predictions = Predictions.joined(found)
    result["ceiling"] = ceiling(rows.views, labels, predictions.rows, target.task)
    result["copies"] = _copies(run, rows, labels, predictions, crossed=bool(out_of_fold))
    return Probed(result, predictions, *scored[-1])


def _copies(run: Run, rows: Rows, labels: NDArray[Any], predictions: Predictions, *, crossed: bool) -> dict[str, Any]:
    """Scored rows whose inputs are those of a row on the side that is learned from."""
    learn = np.array([not is_empty(label) for label in labels], dtype=bool)
    if crossed:
        return copies(rows.views, learn, folds_of(rows.groups, run.job.alignment.folds), predictions)
    return copies(rows.views, learn & rows.training, rows.test, predictions)


def _cross_validated(
    run: Run,
    fitted: FittedAlignment,
    rows: Rows,
    labels: NDArray[Any],
    target: Reading,
    ridge: float,
    predictions: list[Predictions],
    record_scores: RecordScores,
) -> dict[str, Any]:
    """The probe out of fold: alignment and imputation fitted again inside each training part.

    Method, gamma and weights stay those that were chosen once, on the training rows of the run.
    """
    check_deadline()
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
            FoldMoments.of({name: view[some] for name, view in part.items()}, held_out, np.array(part_groups)[some])
            for some in (labeled, ~labeled)
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
            rows.views, labels, rows.groups, run.job.alignment.folds, 1,
            learn if learned else fit, dim=alignment.dim_, task=target.task,
            imputer=lambda part, _: Imputer(Moments.of(part), ridge),
            threads=1 if learned else min(whole_cpus(), _FOLDS_AT_ONCE),
            record=predictions.append,
            record_scores=record_scores,
        )  # fmt: skip
    return result | {"chosen_inside": False}
