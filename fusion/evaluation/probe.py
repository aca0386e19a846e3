"""The probe: did fusing help on the user's own labels, beside the inputs alone, plain averages and concatenation.

Candidates are every input alone (by its own name), ``naive_mean`` (zero-padded to the widest), ``pca_mean`` (each
input's principal components), ``concat`` (missing part mean-imputed), ``concat_imputed`` (missing part by conditional
expectation) and ``fused``. Conditions are ``complete``, the labeled test rows that have all inputs, and
``without <input>``, the same rows with that input withheld. Training rows are the same for all: those with a label and
at least one input, a missing one borne the candidate's own way; an input alone learns from the rows that have it, and
says the majority class (regression: the mean) where it is withheld. Splits, probe and its tuning are the same for all.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment.imputation import Imputer
from barycenter.fusion.arrays import FloatArray
from barycenter.fusion.evaluation.baselines import Representation, baseline_representations, presence, take, withhold
from barycenter.fusion.evaluation.intervals import COMPLETE, RowScores, evidence
from barycenter.fusion.evaluation.mistakes import Predictions
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.heads.targets import Task as HeadTask
from barycenter.fusion.heads.targets import as_objects, infer_task, is_empty
from barycenter.fusion.metrics import correct
from barycenter.fusion.moments import FoldMoments
from barycenter.fusion.splits import fold_of
from barycenter.fusion.validation import Views, as_matrix, check_views, common_rows

Task = HeadTask | Literal["auto"]
RowNumbers = NDArray[np.int64]
Labels = Sequence[Any] | NDArray[Any]
Fit = Callable[[dict[str, FloatArray], NDArray[Any], list[object]], Representation]
Record = Callable[[Predictions], object]
"""Takes what the fused vectors of the complete rows are predicted as, by a head that did not learn from them."""
RecordScores = Callable[[RowNumbers, RowScores], object]
"""Takes the numbers of the scored rows, and their scores."""


def probe(
    views: Views,
    fused: Representation | Mapping[str, FloatArray],
    labels: Labels,
    groups: Sequence[object] | None,
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    *,
    imputer: Imputer,
    dim: int,
    task: Task = "auto",
    record: Record | None = None,
    record_scores: RecordScores | None = None,
) -> dict[str, Any]:
    """Scores every candidate on held-out rows; the ``probe`` entry of report.json.

    Args:
        views: ``{input: (n, d)}``; an all-NaN row is a missing input.
        fused: ``fuse(views) -> (n, dim)``, or ``{condition: (n, dim) of all rows}`` where ``complete`` holds the
            vectors as written.
        labels: n labels; None, empty texts and NaN are left out.
        groups: n values; rows with equal ones share a fold of the probe's tuning. None: every row on its own.
        train: (n,) training rows.
        test: (n,) held-out rows.
        imputer: Fitted on training rows.
        dim: Width of ``pca_mean``, the same as that of the fused vectors.
        task: What the labels are.
        record: Called once with the predictions from the fused vectors, rows numbered as in ``views``.
        record_scores: Called once with the scores of every row, candidate and condition.

    Returns:
        ``{metric, task, n_train, n_test, candidates: {name: {condition: score}}, baseline}``: accuracy in 0..1, for
        regression R2; None where there are no rows. ``baseline`` is what a constant scores. Where there are rows also
        ``intervals``, ``gaps`` and ``signal`` of :func:`barycenter.fusion.evaluation.intervals.evidence`.

    Raises:
        TypeError: If ``train`` or ``test`` is no mask.
        ValueError: If no training row has a label, or labels, groups or masks are not one a row.
    """
    views = {name: as_matrix(name, values) for name, values in check_views(views).items()}
    labels = as_objects(labels)
    _check_rows(common_rows(views), labels=labels, groups=groups, train=train, test=test)
    train, test = _mask("train", train), _mask("test", test)
    task = _task(labels, task)
    there = presence(views)
    fit_rows, score_rows = _rows(there, labels, train, test)
    if not len(fit_rows):
        raise ValueError("no training row has a label and an input; the probe has nothing to learn from")
    if not len(score_rows):
        return nothing_to_score(task, len(fit_rows))
    made = baseline_representations(take(views, np.flatnonzero(train)), imputer, dim)
    vectors = _vectors(views, made, fused, fit_rows, score_rows)
    everyone: Sequence[object] = range(len(labels)) if groups is None else groups
    keys = None if groups is None else [groups[row] for row in fit_rows]
    variance = _variance(labels[score_rows], task)
    scores, constant, said = _scored(vectors, labels[fit_rows], labels[score_rows], keys, task, variance)
    if record is not None and said is not None:
        record(said.of_rows(score_rows))
    if record_scores is not None:
        record_scores(score_rows, scores)
    about = {"n_train": len(fit_rows), "n_test": len(score_rows)}
    return _result(task, about, scores, constant) | evidence(
        scores, constant, list(views), [everyone[row] for row in score_rows]
    )


def cross_validated_probe(
    views: Views,
    labels: Labels,
    groups: Sequence[object] | None,
    folds: int,
    repeats: int,
    fit: Fit,
    *,
    dim: int,
    task: Task = "auto",
    imputer: Callable[[dict[str, FloatArray], list[object]], Imputer] | None = None,
    seed: int = 0,
    threads: int = 1,
    record: Record | None = None,
    record_scores: RecordScores | None = None,
) -> dict[str, Any]:
    """The probe out of fold: everything is fitted again inside each training part.

    Args:
        views: ``{input: (n, d)}``.
        labels: n labels.
        groups: n values that no fold divides. None: every row on its own.
        folds: Number of folds.
        repeats: How often the rows are divided anew.
        fit: ``fit(views, labels, groups)`` of a training part gives its ``fuse(views)``.
        dim: Width of ``pca_mean``.
        task: What the labels are.
        imputer: Makes an imputer of a training part and its groups; by default its ridge is chosen on held-out rows.
        seed: Of the bootstrap.
        threads: Folds worked on at a time, with no effect on the result; more than one pay where BLAS has one thread.
        record: Called with the predictions of each fold from its fused vectors, in order.
        record_scores: Called once with the scores of every row, candidate and condition.

    Returns:
        As :func:`probe`, over every labeled row that has all inputs.

    Raises:
        ValueError: If a fold leaves nothing to learn from or nothing to score, or labels or groups are not one a row.
    """
    views = {name: as_matrix(name, values) for name, values in check_views(views).items()}
    labels = as_objects(labels)
    _check_rows(common_rows(views), labels=labels, groups=groups)
    task = _task(labels, task)
    n = len(labels)
    keys: list[object] = list(range(n)) if groups is None else list(groups)
    there = presence(views)
    make = imputer or (lambda part, part_keys: Imputer.of_folds(FoldMoments.of(part, groups=part_keys)))
    everyone = np.ones(n, dtype=bool)
    variance = _variance(labels[_rows(there, labels, everyone, everyone)[1]], task)

    def scored(
        held_out: NDArray[np.bool_],
    ) -> tuple[RowNumbers, RowScores, NDArray[np.float64], Predictions | None] | None:
        training = np.flatnonzero(~held_out)
        fit_rows, score_rows = _rows(there, labels, ~held_out, held_out)
        if not len(score_rows):
            return None
        if not len(fit_rows):
            raise ValueError("a training part has no labeled row; use fewer folds or finer groups")
        part, part_keys = take(views, training), [keys[row] for row in training]
        fuse = fit(part, labels[training], part_keys)
        made = baseline_representations(part, make(part, part_keys), dim)
        vectors = _vectors(views, made, fuse, fit_rows, score_rows)
        fit_keys = [keys[row] for row in fit_rows]
        return score_rows, *_scored(vectors, labels[fit_rows], labels[score_rows], fit_keys, task, variance)

    divisions = [folds_of(keys, folds, repeat) for repeat in range(repeats)]
    with ThreadPoolExecutor(threads) as pool:
        held_out = [fold == number for fold in divisions for number in range(folds)]
        every = [pool.submit(copy_context().run, scored, rows) for rows in held_out]
        parts = [part for each in every if (part := each.result()) is not None]
    if not parts:
        raise ValueError("no labeled row has all inputs; there is nothing to score")
    for numbers, *_, said in parts:
        if record is not None and said is not None:
            record(said.of_rows(numbers))
    rows, constant = (np.concatenate([part[at] for part in parts]) for at in (0, 2))
    if task != "regression":
        constant = _best_constant(labels[rows], constant, task)
    scores = {
        name: {condition: np.concatenate([part[1][name][condition] for part in parts]) for condition in by}
        for name, by in parts[0][1].items()
    }
    if record_scores is not None:
        record_scores(rows, scores)
    about = {"folds": folds, "repeats": repeats, "n_test": len(np.unique(rows))}
    groups = [keys[row] for row in rows]
    return _result(task, about, scores, constant) | evidence(scores, constant, list(views), groups, seed)


def folds_of(groups: Sequence[object], folds: int, repeat: int = 0) -> NDArray[np.int64]:
    """(n,) the fold in which :func:`cross_validated_probe` holds out each row."""
    return fold_of((f"{repeat}:{group}" for group in groups), folds)


def _check_rows(n: int, **given: Sequence[Any] | NDArray[Any] | None) -> None:
    for name, values in given.items():
        if values is not None and len(values) != n:
            raise ValueError(f"{len(values)} {name} for {n} rows")


def _mask(name: str, values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.asarray(values)
    if mask.dtype != np.bool_:
        raise TypeError(f"{name} must be (n,) true or false, not {mask.dtype}")
    return mask


def nothing_to_score(task: Task, n_train: int) -> dict[str, Any]:
    """What :func:`probe` gives where no row can be scored."""
    return _result(task, {"n_train": n_train, "n_test": 0}, {}, np.empty(0))


def _result(task: Task, about: dict[str, int], scores: RowScores, constant: NDArray[np.float64]) -> dict[str, Any]:
    averages = {name: {condition: _average(rows) for condition, rows in by.items()} for name, by in scores.items()}
    metric = "r2" if task == "regression" else "accuracy"
    return {"metric": metric, "task": task, **about, "candidates": averages, "baseline": _average(constant)}


def _rows(
    there: Mapping[str, NDArray[np.bool_]], labels: NDArray[Any], train: NDArray[np.bool_], test: NDArray[np.bool_]
) -> tuple[RowNumbers, RowNumbers]:
    """Labeled training rows with any input, labeled test rows with all."""
    labeled = np.array([not is_empty(label) for label in labels], dtype=bool)
    stacked = np.stack(list(there.values()))
    return np.flatnonzero(labeled & train & stacked.any(axis=0)), np.flatnonzero(labeled & test & stacked.all(axis=0))


def _vectors(
    views: Views,
    made: Mapping[str, Representation],
    fused: Representation | Mapping[str, FloatArray],
    fit_rows: RowNumbers,
    score_rows: RowNumbers,
) -> dict[str, tuple[FloatArray, dict[str, FloatArray]]]:
    """For every candidate its training vectors, and its test vectors in every condition."""
    given: dict[str, tuple[FloatArray, dict[str, FloatArray]]] = {}
    made_here = dict(made)
    training, complete = take(views, fit_rows), take(views, score_rows)
    conditions = {"complete": complete}
    if len(views) > 1:
        conditions |= {f"without {name}": withhold(complete, name) for name in views}
    if isinstance(fused, Mapping):
        given = {"fused": (fused["complete"][fit_rows], {name: fused[name][score_rows] for name in conditions})}
    else:
        made_here["fused"] = fused
    vectors = {
        name: (represent(training), {condition: represent(part) for condition, part in conditions.items()})
        for name, represent in made_here.items()
    }
    return vectors | given


def _scored(
    vectors: Mapping[str, tuple[FloatArray, dict[str, FloatArray]]],
    fit_labels: NDArray[Any],
    score_labels: NDArray[Any],
    groups: list[object] | None,
    task: Task,
    variance: float,
) -> tuple[RowScores, NDArray[np.float64], Predictions | None]:
    """Score of every test row, by candidate and condition, that of a constant, and what fused is predicted as."""
    scores: RowScores = {}
    said: Predictions | None = None
    constant = _constant(fit_labels, task, len(score_labels))
    fitted: list[tuple[FloatArray, LinearHead | None]] = []
    for name, (training, tested) in vectors.items():
        head = next((head for same, head in fitted if np.array_equal(same, training, equal_nan=True)), None)
        if head is None:
            head = _head(training, fit_labels, groups, task)
            fitted.append((training, head))
        scores[name] = {}
        for condition, values in tested.items():
            predicted = constant.copy()
            rows = np.flatnonzero(~np.isnan(values[:, 0]))
            if head is not None and len(rows):
                predicted[rows] = head.predict(values[rows])
                if (name, condition) == ("fused", COMPLETE):
                    said = Predictions.of(head, values[rows], rows, score_labels[rows])
            scores[name][condition] = row_scores(predicted, score_labels, task, variance)
    return scores, row_scores(constant, score_labels, task, variance), said


def _head(training: FloatArray, labels: NDArray[Any], groups: list[object] | None, task: Task) -> LinearHead | None:
    """The probe itself, from the rows that have a vector; None where there are none."""
    known = np.flatnonzero(~np.isnan(training[:, 0]))
    if not len(known):
        return None
    keys = None if groups is None else [groups[row] for row in known]
    return LinearHead(task=task).fit(training[known], labels[known], groups=keys)


def _best_constant(labels: NDArray[Any], out_of_fold: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """Scores of the better constant: each fold's own, or the most frequent label, or label set, of all.

    Of labels that are equally frequent, the one that is the most frequent of a training part is rarer in the part
    that is held out: out of fold a constant scores less than it would.
    """
    given = _comparable(labels, task)
    common = Counter(given).most_common(1)[0][0]
    of_all = np.array([label == common for label in given], dtype=np.float64)
    return of_all if of_all.mean() > out_of_fold.mean() else out_of_fold


def _constant(labels: NDArray[Any], task: Task, n: int) -> NDArray[Any]:
    """The majority class, the most frequent label set, or the mean, n times."""
    if task == "regression":
        return np.full(n, np.mean([float(label) for label in labels]))
    counts: dict[Any, list[int]] = {}
    for row, label in enumerate(_comparable(labels, task)):
        counts.setdefault(label, []).append(row)
    return as_objects([labels[max(counts.values(), key=len)[0]]] * n)


def _comparable(labels: NDArray[Any], task: Task) -> list[Any]:
    """Labels that can be counted; a label set whatever its order."""
    return [tuple(sorted(map(str, label))) if task == "multilabel" else label for label in labels]


def _variance(labels: NDArray[Any], task: Task) -> float:
    """Of the target over all scored rows; a fold's own may be 0."""
    return float(np.var([float(label) for label in labels])) if task == "regression" and len(labels) else 0.0


def row_scores(
    predicted: NDArray[Any], labels: NDArray[Any], task: Task, variance: float | None = None
) -> NDArray[np.float64]:
    """(n,) what averages to the metric: 1 where right, or 1 - squared error / variance.

    Args:
        predicted: n predictions.
        labels: n labels.
        task: What they are.
        variance: Of the target, where these rows are only some of those scored; by default that of the labels.
    """
    if task != "regression":
        return correct(labels, predicted).astype(np.float64)
    y = np.array([float(label) for label in labels])
    if variance is None:
        variance = float(y.var()) if len(y) else 0.0
    return 1 - (y - predicted.astype(np.float64)) ** 2 / variance if variance > 0 else np.full(len(y), np.nan)


def _average(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) and np.isfinite(values).all() else None


def _task(labels: NDArray[Any], task: Task) -> Task:
    if task != "auto":
        return task
    known = [label for label in labels if not is_empty(label)]
    if not known:
        raise ValueError("no row has a label; the probe has nothing to learn from")
    return infer_task(known)
