"""The figures of two reports, and whether they differ by more than chance."""

import math
from collections.abc import Mapping
from typing import Any

from barycenter.tasks.report.comparison.sides import Side
from barycenter.tasks.report.rendering.facts import Scores, evidence, number, retrieval_pairs, section

_Z = 1.959964

Difference = dict[str, Any]
"""``mean``, ``low``, ``high`` of after minus before, and ``within_noise``: whether the interval holds zero."""


def compared_figures(before: Side, after: Side, notes: list[str]) -> dict[str, Any] | None:
    """Scores of every candidate in every condition, and retrieval; a note says what could not be compared, and why.

    Returns:
        ``metric``, ``how`` and ``n`` [before, after]; ``scores``: {candidate: {condition: {before, after: [score,
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

    Both were mostly scored on the same rows, which makes the true interval narrower: what is called a difference is
    one. The limits are those of Zou and Donner (2008), which need no symmetric intervals.

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
    scores: dict[str, dict[str, Any]] = {}
    for name, condition in dict.fromkeys([*first.values, *second.values]):
        pair = [_triple(each, name, condition) for each in (first, second)]
        entry: dict[str, Any] = {"before": pair[0], "after": pair[1], "difference": None}
        if pair[0] is not None and pair[1] is not None:
            entry["difference"] = _difference(pair[0], pair[1])
        scores.setdefault(name, {})[condition] = entry
    sources = [
        section(report, "probe", "cross_validated") if crossed else section(report, "probe") for report in (one, other)
    ]
    how = "out of fold" if crossed else "held out"
    return {
        "metric": first.metric,
        "how": how,
        "n": [number(source.get("n_test")) for source in sources],
        "scores": scores,
    }


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
