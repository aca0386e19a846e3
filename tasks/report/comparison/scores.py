"""The figures of two reports, and whether they differ by more than chance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.metrics import bootstrap_gap
from barycenter.tasks.report.comparison.sides import Side
from barycenter.tasks.report.rendering.facts import Scores, evidence, number, retrieval_pairs, section
from barycenter.tasks.report.scored_rows import ScoredRows, read_scored_rows

_Z = 1.959964
_RESAMPLES = 1000

Difference = dict[str, Any]
"""``mean``, ``low``, ``high`` of after minus before, and ``within_noise``: whether the interval holds zero."""


def compared_figures(before: Side, after: Side, notes: list[str]) -> dict[str, Any] | None:
    """Scores of every candidate in every condition, and retrieval; a note says what could not be compared, and why.

    Returns:
        ``metric``, ``how``, ``n`` [before, after] and ``paired``: number of the rows over which differences are paired,
        None where they are as if on different rows; ``scores``: {candidate: {condition: {before, after: [score,
        low, high], difference}}}; ``retrieval``: {direction: {before, after: r10, difference}}. None without both
        reports.
    """
    without = [side.name for side in (before, after) if side.report is None]
    if without:
        notes.append(
            f"no report on {' and '.join(without)}, so figures are not compared; `barycenter report` writes one"
        )
        return None
    assert before.report is not None
    assert after.report is not None
    return {"retrieval": _retrieval(before.report, after.report)} | _scores(before, after, notes)


def independent_difference(before: tuple[float, float, float], after: tuple[float, float, float]) -> Difference:
    """After minus before of two (score, low, high), as if they were scored on different rows.

    On the same rows the true interval is narrower, so what is called a difference is one. The limits are those of Zou
    and Donner (2008), which need no symmetric intervals.

    >>> independent_difference((0.5, 0.4, 0.6), (0.55, 0.45, 0.65))["within_noise"]
    True
    """
    (a, a_low, a_high), (b, b_low, b_high) = before, after
    low, high = b - a - math.hypot(b - b_low, a_high - a), b - a + math.hypot(b_high - b, a - a_low)
    return {"mean": b - a, "low": low, "high": high, "within_noise": low <= 0 <= high}


def _scores(before: Side, after: Side, notes: list[str]) -> dict[str, Any]:
    one, other = before.report or {}, after.report or {}
    targets = [side.job.get("train.target") for side in (before, after)]
    if targets[0] != targets[1] and None not in targets:
        notes.append(f"the targets are {targets[0]} and {targets[1]}, so scores are not compared")
        return {}
    crossed = evidence(one)[1] and evidence(other)[1]
    first, second = (Scores.of(report, cross_validated=crossed) for report in (one, other))
    if first is None or second is None:
        names = [side.name for side, scores in ((before, first), (after, second)) if scores is None]
        notes.append(f"the report on {' and '.join(names)} has no scores, so scores are not compared")
        return {}
    if first.metric != second.metric:
        notes.append(f"the metrics are {first.metric} and {second.metric}, so scores are not compared")
        return {}
    how = "out of fold" if crossed else "held out"
    pairs = _Pairs.of(before, after, how, notes)
    scores: dict[str, dict[str, Any]] = {}
    for name, condition in dict.fromkeys([*first.values, *second.values]):
        pair = [_triple(each, name, condition) for each in (first, second)]
        entry: dict[str, Any] = {"before": pair[0], "after": pair[1], "difference": None}
        if pair[0] is not None and pair[1] is not None:
            paired = None if pairs is None else pairs.difference(name, condition)
            entry["difference"] = paired or _difference(pair[0], pair[1])
        scores.setdefault(name, {})[condition] = entry
    sources = [
        section(report, "probe", "cross_validated") if crossed else section(report, "probe") for report in (one, other)
    ]
    return {
        "metric": first.metric,
        "how": how,
        "paired": None if pairs is None else len(pairs.groups),
        "n": [number(source.get("n_test")) for source in sources],
        "scores": scores,
    }


@dataclass(frozen=True)
class _Pairs:
    """The rows that both reports scored.

    Attributes:
        sides: What each scored.
        rows: Where the shared rows are in each.
        groups: Hashes of their groups: near-copies are no independent evidence.
    """

    sides: tuple[ScoredRows, ScoredRows]
    rows: tuple[NDArray[np.intp], NDArray[np.intp]]
    groups: list[int]

    @classmethod
    def of(cls, before: Side, after: Side, how: str, notes: list[str]) -> Self | None:
        """None, with a note, where most rows of one side were not scored on the other."""
        found = [read_scored_rows(side.storage, side.report or {}) for side in (before, after)]
        without = [
            side.name for side, rows in zip((before, after), found, strict=True) if rows is None or rows.how != how
        ]
        one, other = found
        if without or one is None or other is None:
            notes.append(
                f"differences of scores are not paired: scores of single rows, {how}, are not kept on "
                f"{' and '.join(without)}; `barycenter report` writes them"
            )
            return None
        shared, here, there = np.intersect1d(one.keys, other.keys, return_indices=True)
        if 2 * len(shared) < max(len(one.keys), len(other.keys)) or not len(shared):
            notes.append(
                f"differences of scores are not paired: of {len(one.keys):,} and {len(other.keys):,} scored rows only "
                f"{len(shared):,} are the same"
            )
            return None
        return cls((one, other), (here, there), other.groups[there].tolist())

    def difference(self, candidate: str, condition: str) -> Difference | None:
        """After minus before on the shared rows, whole groups resampled; None where one side lacks the candidate."""
        scores = [side.scores(candidate, condition) for side in self.sides]
        if scores[0] is None or scores[1] is None:
            return None
        one, other = (values[rows] for values, rows in zip(scores, self.rows, strict=True) if values is not None)
        mean, low, high = bootstrap_gap(other, one, self.groups, n=_RESAMPLES)
        if not math.isfinite(mean):
            return None
        return {"mean": mean, "low": low, "high": high, "within_noise": low <= 0 <= high}


def _triple(scores: Scores, name: str, condition: str) -> list[float | None] | None:
    value = scores.values.get((name, condition))
    if value is None:
        return None
    low, high = scores.intervals.get((name, condition), (None, None))
    return [value, low, high]


def _difference(before: list[float | None], after: list[float | None]) -> Difference:
    one = [value for value in before if value is not None]
    other = [value for value in after if value is not None]
    if len(one) == len(other) == 3:
        return independent_difference((one[0], one[1], one[2]), (other[0], other[1], other[2]))
    return {"mean": other[0] - one[0], "low": None, "high": None, "within_noise": None}


def _retrieval(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Of each direction that both have, the share found among ten, and whether they differ by more than chance."""
    one, other = (dict(retrieval_pairs(report)) for report in (before, after))
    rows = [number(section(report, "retrieval").get("n")) for report in (before, after)]
    found = {}
    for name in one.keys() & other.keys():
        a, b = one[name].get("r10"), other[name].get("r10")
        if a is None or b is None or not rows[0] or not rows[1]:
            continue
        reach = _Z * math.sqrt(a * (1 - a) / rows[0] + b * (1 - b) / rows[1])
        gap = {"mean": b - a, "low": b - a - reach, "high": b - a + reach, "within_noise": abs(b - a) <= reach}
        found[name] = {"before": a, "after": b, "difference": gap}
    return dict(sorted(found.items()))
