"""Which rows a head gets wrong: what is confused with what, each label's figures, the size of the errors.

Everything is counted from :class:`Predictions`, which the probe records of rows that its head never saw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.heads.base import Head
from barycenter.fusion.heads.targets import Task, as_objects, plain
from barycenter.fusion.metrics import correct, r2

_LESS_LIKELY = 0.1
"""A label is looked at only if it has at most this share of the probability of another."""

_MOST_CLASSES, _MOST_LABELS, _MOST_PAIRS = 20, 100, 10
_OUTLIER = 4.0
_MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class Predictions:
    """What a head said of rows that it did not learn from.

    Attributes:
        task: What the labels are.
        rows: (m,) numbers of the rows.
        labels: (m,) their labels.
        predicted: (m,) what was predicted.
        certainty: (m,) probability of the predicted class; for label sets that of the least likely part of the label,
            had it been the other way round; NaN for a regression.
        own: (m,) probability of the label that the row has; for label sets that of the least likely part of it. NaN for
            a regression and for a class that the head has not seen.
        part: (m,) for label sets the label which that part is about, else None.
        usual: For label sets, by label and whether a row has it: the sum over such rows of the probability that the
            head gives to that, and their number.
    """

    task: Task
    rows: NDArray[np.int64]
    labels: NDArray[Any]
    predicted: NDArray[Any]
    certainty: NDArray[np.float64]
    own: NDArray[np.float64]
    part: NDArray[Any]
    usual: Mapping[tuple[Any, bool], tuple[float, int]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, head: Head, features: NDArray[np.floating], rows: NDArray[np.int64], labels: NDArray[Any]
    ) -> "Predictions":
        """Of a fitted head, for (m, d) features of its rows."""
        scores = head.raw_scores(features)
        predicted = as_objects([plain(value) for value in head.scores_.decode(scores)])
        unknown, nothing = np.full(len(rows), np.nan), as_objects([None] * len(rows))
        if head.task_ == "regression":
            return cls(head.task_, rows, labels, predicted, unknown, unknown, nothing)
        probabilities, encoded = head.scores_.probabilities(scores), head.scores_.targets.encode(labels)
        if head.task_ == "classification":
            own = np.where(encoded.any(axis=1), (probabilities * encoded).sum(axis=1), np.nan)
            return cls(head.task_, rows, labels, predicted, probabilities.max(axis=1), own, nothing)
        as_given = np.where(encoded > 0, probabilities, 1 - probabilities)
        if not as_given.shape[1]:
            return cls(head.task_, rows, labels, predicted, unknown, unknown, nothing)
        usual = {
            (label, there): (float(as_given[having, column].sum()), int(having.sum()))
            for column, label in enumerate(head.scores_.targets.classes)
            for there in (True, False)
            if (having := (encoded[:, column] > 0) == there).any()
        }
        least = as_given.argmin(axis=1)
        own = as_given[np.arange(len(rows)), least]
        part = as_objects([head.scores_.targets.classes[column] for column in least])
        return cls(head.task_, rows, labels, predicted, 1 - own, own, part, usual)

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Those of several heads, one after the other."""
        names = ("rows", "labels", "predicted", "certainty", "own", "part")
        usual: dict[tuple[Any, bool], tuple[float, int]] = {}
        for key, (total, n) in (item for part in parts for item in part.usual.items()):
            before = usual.get(key, (0.0, 0))
            usual[key] = (before[0] + total, before[1] + n)
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(parts[0].task, usual=usual, **joined)

    def of_rows(self, numbers: NDArray[np.int64]) -> "Predictions":
        """The same, where ``rows`` are places in ``numbers``."""
        return replace(self, rows=numbers[self.rows])

    @property
    def right(self) -> NDArray[np.bool_]:
        """(m,) whether the prediction is the label; of a regression none is."""
        if self.task == "regression":
            return np.zeros(len(self.rows), dtype=bool)
        return correct(self.labels, self.predicted)

    @property
    def residuals(self) -> NDArray[np.float64]:
        """(m,) label minus prediction, of a regression."""
        return np.array([float(label) for label in self.labels]) - self.predicted.astype(np.float64)

    def most_confident_errors(self, most: int, groups: Sequence[object] | None = None) -> list[int]:
        """Positions of the wrong predictions with the highest certainty; of a regression the largest residuals.

        Args:
            most: How many at most.
            groups: A value for each row that ``rows`` numbers; of rows with equal ones, near-copies, one is enough.
        """
        if self.task == "regression":
            order = np.argsort(-np.abs(self.residuals), kind="stable")
        else:
            wrong = np.flatnonzero(~self.right & ~np.isnan(self.certainty))
            order = wrong[np.argsort(-self.certainty[wrong], kind="stable")]
        first: dict[object, int] = {}
        for at in order:
            first.setdefault(int(at) if groups is None else groups[int(self.rows[at])], int(at))
        return list(first.values())[:most]

    def doubtful(self) -> list[int]:
        """Positions of rows whose label should be looked at, the least likely first.

        The rule is that of confident learning (Northcutt et al. 2021). The threshold of a class is the mean probability
        of its own rows. A label is looked at where the predicted class reaches its threshold and the given one does
        not; beside that it must be ten times less likely, for a weak model is as sure of every class. Of label sets
        each label is two classes, there and not there. Of a regression it is residuals of more than four standard
        deviations, the deviation taken from the median so that outliers do not hide themselves.
        """
        if self.task == "regression":
            size = np.abs(self.residuals)
            spread = _MAD_TO_SD * float(np.median(size)) if len(size) else 0.0
            far = np.flatnonzero(size > _OUTLIER * spread) if spread > 0 else np.empty(0, np.int64)
            return [int(at) for at in far[np.argsort(-size[far], kind="stable")]]
        given, other = self._thresholds()
        doubtful = (self.own < given) & (self.certainty >= other) & (self.own <= _LESS_LIKELY * self.certainty)
        low = np.flatnonzero(doubtful & ~self.right)
        return [int(at) for at in low[np.argsort(self.own[low], kind="stable")]]

    def _thresholds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(m,) thresholds of the given class and of the predicted one; NaN of a class without rows."""
        if self.task == "multilabel":
            has = [part in set(map(plain, label)) for part, label in zip(self.part, self.labels, strict=True)]
            given = list(zip(self.part, has, strict=True))
            other = [(part, not there) for part, there in given]
            usual = dict(self.usual)
        else:
            given, other = ([(plain(value), True) for value in values] for values in (self.labels, self.predicted))
            usual = {}
            for at in np.flatnonzero(~np.isnan(self.own)).tolist():
                total, n = usual.get(given[at], (0.0, 0))
                usual[given[at]] = (total + float(self.own[at]), n + 1)
        means = {key: total / n for key, (total, n) in usual.items()}
        return np.array([means.get(key, np.nan) for key in given]), np.array([means.get(key, np.nan) for key in other])


def mistakes(predictions: Predictions) -> dict[str, Any]:
    """Figures over all rows; no row is named.

    Returns:
        ``n``, and by task: ``wrong`` with ``classes`` [{label, n, predicted, recall, precision}], ``confusion``
        {labels, counts: [[of each label, predicted as each]]} of the twenty most frequent classes, the rest as one
        class None, and ``pairs`` [{label, predicted, n}], the most frequent confusions; ``wrong`` with ``labels``
        [{label, n, predicted, recall, precision, f1}] for label sets; ``mean_absolute``, ``median_absolute``,
        ``root_mean_square``, ``of_mean`` (the root mean square error of the mean) and ``r2`` for a regression.
    """
    if predictions.task == "regression":
        return _sizes(predictions)
    n = {"n": len(predictions.rows), "wrong": int((~predictions.right).sum())}
    if predictions.task == "multilabel":
        return n | {"labels": _by_label(predictions)}
    return n | _confused(predictions)


def _sizes(predictions: Predictions) -> dict[str, Any]:
    given = np.array([float(label) for label in predictions.labels])
    residuals = predictions.residuals
    if not len(given):
        return {"n": 0}
    share = r2(given, predictions.predicted.astype(np.float64))
    return {
        "n": len(given),
        "mean_absolute": float(np.abs(residuals).mean()),
        "median_absolute": float(np.median(np.abs(residuals))),
        "root_mean_square": float(np.sqrt((residuals**2).mean())),
        "of_mean": float(given.std()),
        "r2": None if np.isnan(share) else share,
    }


def _confused(predictions: Predictions) -> dict[str, Any]:
    names, codes = _codes([*predictions.labels, *predictions.predicted])
    n = len(predictions.rows)
    true, said = codes[:n], codes[n:]
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (true, said), 1)
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    classes = [
        _figures(names[at], counts[at, at], counts[at].sum(), counts[:, at].sum()) for at in order[:_MOST_LABELS]
    ]
    off = counts * (1 - np.eye(len(names), dtype=np.int64))
    frequent = [at for at in np.argsort(-off, axis=None, kind="stable")[:_MOST_PAIRS] if off.flat[at]]
    pairs = [
        {"label": names[at // len(names)], "predicted": names[at % len(names)], "n": int(off.flat[at])}
        for at in frequent
    ]
    return {"classes": classes, "confusion": _merged(names, counts, order), "pairs": pairs}


def _merged(names: list[Any], counts: NDArray[np.int64], order: NDArray[np.int64]) -> dict[str, Any]:
    """The matrix of the most frequent classes in alphabetical order, all others as one."""
    shown, rest = sorted(order[:_MOST_CLASSES]), order[_MOST_CLASSES:]
    labels = [names[at] for at in shown]
    table = counts[np.ix_(shown, shown)]
    if len(rest):
        below = counts[np.ix_(rest, shown)].sum(axis=0, keepdims=True)
        beside = counts[np.ix_([*shown, *rest], rest)].sum(axis=1)
        beside = np.append(beside[: len(shown)], beside[len(shown) :].sum())
        table, labels = np.hstack([np.vstack([table, below]), beside[:, None]]), [*labels, None]
    return {"labels": labels, "counts": table.tolist()}


def _by_label(predictions: Predictions) -> list[dict[str, Any]]:
    found: dict[Any, list[int]] = {}
    for given, said in zip(predictions.labels, predictions.predicted, strict=True):
        true, guessed = set(map(plain, given)), set(said)
        for label in true | guessed:
            counted = found.setdefault(label, [0, 0, 0])
            counted[0] += label in true and label in guessed
            counted[1] += label in true
            counted[2] += label in guessed
    frequent = sorted(found, key=lambda label: (-found[label][1], str(label)))[:_MOST_LABELS]
    figures = [_figures(label, *found[label]) for label in frequent]
    for each in figures:
        recall, precision = each["recall"] or 0.0, each["precision"] or 0.0
        each["f1"] = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    return figures


def _figures(label: Any, hits: int, n: int, predicted: int) -> dict[str, Any]:
    recall = float(hits / n) if n else None
    precision = float(hits / predicted) if predicted else None
    return {"label": label, "n": int(n), "predicted": int(predicted), "recall": recall, "precision": precision}


def _codes(values: Sequence[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """The different values in order, and the number of each."""
    given = [plain(value) for value in values]
    names = sorted(set(given), key=lambda value: (type(value).__name__, value))
    place = {name: at for at, name in enumerate(names)}
    return names, np.array([place[value] for value in given], dtype=np.int64)
