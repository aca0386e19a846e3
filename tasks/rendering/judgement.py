"""One honest sentence: did averaging help?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.rendering.facts import COMPLETE, Gap, Scores, arrow, number, retrieval_pairs, section

_STRICT, _USUAL = 2.5, 1.96


@dataclass(frozen=True)
class Verdict:
    """The answer and its tone.

    Attributes:
        tone: ``good`` averaging helped, ``even`` no difference that these rows could show, ``bad`` it hurt,
            ``none`` there is no signal, ``open`` nothing to judge by.
        headline: A few words.
        sentence: The whole of it.
    """

    tone: Literal["good", "even", "bad", "none", "open"]
    headline: str
    sentence: str


def verdict(report: Mapping[str, Any]) -> str:
    """One sentence: fused against the best single input and against concatenation, complete and each input missing.

    >>> verdict({"probe": {"metric": "accuracy", "n_test": 400, "baseline": 0.1, "candidates": {
    ...     "text": {"complete": 0.5}, "image": {"complete": 0.4}, "fused": {"complete": 0.7}}}})
    'Averaging helped: the fused vector has 70.0 % accuracy, 20.0 points above the best single input (text, 50.0 %).'
    """
    return judge(report).sentence


def judge(report: Mapping[str, Any]) -> Verdict:
    """The verdict with its tone; cross-validated scores are preferred to one split."""
    crossed = Scores.of(report, cross_validated=True)
    scores = crossed if crossed and ("fused", COMPLETE) in crossed.values else Scores.of(report)
    if scores is None or ("fused", COMPLETE) not in scores.values:
        return _without_target(report)
    probe = section(report, "probe")
    source = section(probe, "cross_validated") if scores is crossed else probe
    evidence = _Evidence(scores, number(source.get("n_test")) or 0.0, Gap.all_of(report) if scores is crossed else [])
    baseline = number(probe.get("baseline"))
    if not evidence.any_signal(baseline):
        label = f"the most frequent label alone ({scores.score(baseline, unit=True)})"
        floor = label if scores.is_share else "the mean"
        best = scores.score(scores.best(COMPLETE), unit=True)
        sentence = (
            f"No signal: nothing does better than {floor}, neither an input alone nor any average; "
            f"the best reaches {best} {scores.metric_name}."
        )
        return Verdict("none", "No signal", sentence)
    return _compared(evidence)


@dataclass(frozen=True)
class _Evidence:
    scores: Scores
    n: float
    gaps: list[Gap]

    def any_signal(self, floor: float | None) -> bool:
        best = self.scores.best(COMPLETE)
        if best is not None and not self.scores.is_share:
            return best > _STRICT**2 / max(self.n, 1.0)
        return (
            floor is None
            or best is None
            or best > floor + _STRICT * math.sqrt(max(floor * (1 - floor), 0.0) / max(self.n, 1.0))
        )

    def beyond_noise(self, other: str, condition: str, gap: float) -> bool:
        """Whether a gap is more than chance: by its interval if given, else by the error of two such scores."""
        for known in self.gaps:
            if (
                (known.against, known.condition) == (other, condition)
                and known.low is not None
                and known.high is not None
            ):
                return known.low > 0 or known.high < 0
        values = self.scores.values
        both = [values["fused", condition], values[other, condition]]
        spread = sum(min(max(value * (1 - value), 0.0), 0.25) for value in both)
        return abs(gap) > _USUAL * math.sqrt(spread / max(self.n, 1.0))


def _compared(evidence: _Evidence) -> Verdict:
    scores = evidence.scores
    fused = scores.values["fused", COMPLETE]
    single = scores.best_input()
    has = f"the fused vector has {scores.score(fused, unit=True)} {scores.metric_name}"
    if single is None:
        return Verdict("open", "Nothing to compare", f"Nothing to compare with: {has}.")
    if len(scores.inputs) == 1:
        return Verdict("open", "One input", f"There is one input, so nothing was averaged: {has}.")
    gap = fused - scores.values[single, COMPLETE]
    clear = evidence.beyond_noise(single, COMPLETE, gap)
    tone: Literal["good", "even", "bad"] = "even" if not clear else "good" if gap > 0 else "bad"
    headline = {
        "good": "Averaging helped",
        "even": "Averaging made no measurable difference",
        "bad": "Averaging hurt",
    }[tone]
    best = f"the best single input ({single}, {scores.score(scores.values[single, COMPLETE], unit=True)})"
    parts = [f"{headline}: {has}, {_difference(scores, gap)} {best}"]
    if ("concat", COMPLETE) in scores.values:
        against = fused - scores.values["concat", COMPLETE]
        parts.append(f"{_difference(scores, against)} concatenation")
    sentence = " and ".join(parts)
    missing = [text for condition in scores.conditions[1:] if (text := _withheld(scores, condition))]
    return Verdict(tone, headline, "; ".join([sentence, *missing]) + ".")


def _difference(scores: Scores, gap: float) -> str:
    size = scores.gap(abs(gap), sign=False)
    if float(size) == 0:
        return "level with"
    unit = (" point" if size == "1.0" else " points") if scores.is_share else ""
    return f"{size}{unit} {'above' if gap > 0 else 'below'}"


def _withheld(scores: Scores, condition: str) -> str:
    """Fused with an input withheld, against the best input that is left."""
    left = scores.best_input(condition)
    if left is None or ("fused", condition) not in scores.values:
        return ""
    gap = scores.values["fused", condition] - scores.values[left, condition]
    return f"{condition} it is {_difference(scores, gap)} {left} alone"


def _without_target(report: Mapping[str, Any]) -> Verdict:
    pairs = [(name, figures["r10"]) for name, figures in retrieval_pairs(report) if "r10" in figures]
    if not pairs:
        return Verdict("open", "Nothing to judge by", "Nothing to judge by: the report has no target and no retrieval.")
    chance = number(section(report, "retrieval").get("chance_r10"))
    found = " and ".join(f"{100 * value:.1f} % of the time {arrow(name)}" for name, value in pairs)
    lowest = min(value for _, value in pairs)
    start = "No target was given, so only retrieval can tell"
    where = "the other input of a held-out row is among the ten nearest"
    if chance is None:
        return Verdict("open", "No target", f"{start}: {where} {found}.")
    n = number(section(report, "retrieval").get("n")) or 10 / max(chance, 1e-9)
    if lowest <= chance + _STRICT * math.sqrt(max(chance * (1 - chance), 0.0) / max(n, 1.0)):
        return Verdict(
            "none", "No signal", f"{start}, and it is no better than chance ({100 * chance:.1f} %): {found}."
        )
    times = f"{lowest / chance:.0f} times" if lowest >= 2 * chance else f"{lowest / chance:.1f} times"
    return Verdict("open", "No target", f"{start}: {where} {found}, at least {times} chance ({100 * chance:.1f} %).")
