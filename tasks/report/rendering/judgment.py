"""One honest sentence: did averaging help?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from barycenter.tasks.report.rendering.facts import (
    COMPLETE,
    Gap,
    Scores,
    arrow,
    clean,
    count,
    evidence,
    number,
    retrieval_pairs,
    section,
)

_STRICT = 2.5
_MOST = 3
_HEADLINES = {
    "good": "Averaging helped",
    "even": "Averaging made no measurable difference",
    "bad": "Averaging hurt",
    "open": "How sure is not known",
}


@dataclass(frozen=True)
class Verdict:
    """The answer and its tone.

    Attributes:
        tone: ``good`` averaging helped, ``even`` no difference that these rows could show, ``bad`` it hurt or lost,
            ``none`` there is no signal, ``open`` nothing to judge by.
        headline: A few words.
        sentence: The whole of it.
    """

    tone: Literal["good", "even", "bad", "none", "open"]
    headline: str
    sentence: str


def verdict(report: Mapping[str, Any]) -> str:
    """Fused against the best single input and against concatenation, complete and each input missing, in sentences.

    >>> gain = {"against": "text", "mean": 0.2, "low": 0.1, "high": 0.3}
    >>> verdict({"probe": {"metric": "accuracy", "gaps": {"complete, best input": gain},
    ...     "candidates": {"text": {"complete": 0.5}, "image": {"complete": 0.4}, "fused": {"complete": 0.7}}}})
    'Averaging helped: the fused vector has 70.0 % accuracy, 20.0 points (+10.0 to +30.0) above the best single input \
(text, 50.0 %).'
    """
    return judge(report).sentence


def judge(report: Mapping[str, Any]) -> Verdict:
    """The verdict with its tone; cross-validated scores are preferred to one split."""
    source, crossed = evidence(report)
    scores = Scores.of(report, cross_validated=crossed)
    if scores is None or ("fused", COMPLETE) not in scores.values:
        return _without_target(report)
    if section(source, "signal").get("found") is False:
        return _no_signal(scores, number(source.get("baseline")))
    return _compared(report, scores, Gap.all_of(source))


def _no_signal(scores: Scores, baseline: float | None) -> Verdict:
    shown = "" if baseline is None else f" ({scores.score(baseline, unit=True)})"
    floor = f"the most frequent label alone{shown}" if scores.is_share else "the mean"
    best = max(scores.candidates, key=lambda name: scores.values.get((name, COMPLETE), -math.inf))
    reached = f"{best}, {scores.score(scores.values[best, COMPLETE], unit=scores.is_share)}"
    sentence = (
        f"No signal: neither an input alone nor any average does better than {floor}; "
        f"what the best of them reaches ({reached}) is within chance."
    )
    return Verdict("none", "No signal", sentence)


def _reduced(report: Mapping[str, Any], scores: Scores | None, known: Mapping[tuple[str, str], Gap]) -> str:
    """What the dimension of a single input's vector costs; empty where it is not smaller than the input."""
    kept = section(report, "alignment", "variance_kept")
    share, dim = number(kept.get("share")), count(section(report, "alignment").get("dim"))
    if share is None:
        return ""
    name = clean(kept.get("input"), 40)
    sentence = f" Its {dim} dimensions keep {100 * share:.1f} % of the variance of {name}'s {count(kept.get('of'))}"
    if scores is None or ("concat", COMPLETE) not in scores.values:
        return f"{sentence}."
    return f"{sentence}; the score is {_beside(scores, COMPLETE, 'concat', known, f'that of the whole {name} vector')}."


def _compared(report: Mapping[str, Any], scores: Scores, gaps: Sequence[Gap]) -> Verdict:
    fused = scores.values["fused", COMPLETE]
    single, known = scores.best_input(), {(gap.condition, gap.against): gap for gap in gaps}
    has = f"the fused vector has {scores.score(fused, unit=True)} {scores.metric_name}"
    if single is None:
        return Verdict("open", "Nothing to compare", f"Nothing to compare with: {has}.")
    if len(scores.inputs) == 1:
        cost = _reduced(report, scores, known)
        return Verdict("open", "One input", f"There is one input, so nothing was averaged: {has}.{cost}")
    gain = known.get((COMPLETE, single))
    tone = "open" if gain is None else gain.tone
    best = f"the best single input ({single}, {scores.score(scores.values[single, COMPLETE], unit=True)})"
    concatenation = known.get((COMPLETE, "concat"))
    headline = _HEADLINES[tone]
    if tone == "even" and concatenation is not None and concatenation.tone == "bad":
        tone, headline = "bad", "Averaging lost against concatenation"
    parts = [f"{headline}: {has}, {_beside(scores, COMPLETE, single, known, best)}"]
    if ("concat", COMPLETE) in scores.values:
        parts.append(f"it is {_beside(scores, COMPLETE, 'concat', known, 'concatenation')}")
    missing = []
    for condition in scores.conditions[1:]:
        left = scores.best_input(condition)
        if left is not None and ("fused", condition) in scores.values:
            missing.append(f"{condition} it is {_beside(scores, condition, left, known, f'{left} alone')}")
    if len(missing) > _MOST:
        missing = [_all_missing(scores, known)]
    sentences = [f"{each[0].upper()}{each[1:]}" for each in (*parts, *missing)]
    return Verdict(tone, headline, f"{'. '.join(sentences)}.")


def _all_missing(scores: Scores, known: Mapping[tuple[str, str], Gap]) -> str:
    """Many inputs, each withheld in turn, in one clause."""
    gaps = [gap for (condition, _), gap in known.items() if condition != COMPLETE]
    ahead, behind = (sum(gap.tone == tone for gap in gaps) for tone in ("good", "bad"))
    lowest = min(scores.values["fused", condition] for condition in scores.conditions[1:])
    return (
        f"with one of the {len(scores.inputs)} inputs withheld it keeps at least {scores.score(lowest, unit=True)}, "
        f"above the best input left in {ahead} of {len(gaps)} cases and below it in {behind}"
    )


def _beside(scores: Scores, condition: str, against: str, known: Mapping[tuple[str, str], Gap], named: str) -> str:
    """How far fused is from another candidate, as ``named``; with the interval where one is known."""
    gap = scores.values["fused", condition] - scores.values[against, condition]
    size = scores.gap(abs(gap), sign=False)
    unit = (" point" if size == "1.0" else " points") if scores.is_share else ""
    if float(size) == 0:
        return f"level with {named}"
    side, sure = "above" if gap > 0 else "below", known.get((condition, against))
    if sure is None or sure.low is None or sure.high is None:
        return f"{size}{unit} {side} {named}"
    ends = f"{scores.gap(sure.low)} to {scores.gap(sure.high)}"
    if sure.tone == "even":
        return f"level with {named} within noise ({scores.gap(gap)}{unit}, {ends})"
    return f"{size}{unit} ({ends}) {side} {named}"


def _without_target(report: Mapping[str, Any]) -> Verdict:
    nothing = "There is nothing to learn from the target" if section(report, "head") else "No target was given"
    without = nothing if not section(report, "probe") else "No labeled held-out row has all inputs"
    pairs = [(name, figures["r10"]) for name, figures in retrieval_pairs(report) if "r10" in figures]
    if not pairs:
        why = f"{without.lower()}, and there is no retrieval"
        kept = _reduced(report, None, {}).replace(" Its", " The fused vector's", 1)
        return Verdict("open", "Nothing to judge by", f"Nothing to judge by: {why}.{kept}")
    chance = number(section(report, "retrieval").get("chance_r10"))
    found = " and ".join(f"{100 * value:.1f} % of the time {arrow(name)}" for name, value in pairs)
    lowest = min(value for _, value in pairs)
    start = f"{without}, so only retrieval can tell"
    where = "the other input of a held-out row is among the ten nearest"
    if chance is None:
        return Verdict("open", without, f"{start}: {where} {found}.")
    n = number(section(report, "retrieval").get("n")) or 10 / max(chance, 1e-9)
    if lowest <= chance + _STRICT * math.sqrt(max(chance * (1 - chance), 0.0) / max(n, 1.0)):
        return Verdict(
            "none", "No signal", f"{start}, and it is no better than chance ({100 * chance:.1f} %): {found}."
        )
    times = f"{lowest / chance:.0f} times" if lowest >= 2 * chance else f"{lowest / chance:.1f} times"
    return Verdict("open", without, f"{start}: {where} {found}, at least {times} chance ({100 * chance:.1f} %).")
