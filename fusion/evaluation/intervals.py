"""How sure a probe's figures are: intervals of every score, of its gaps, and whether there is a signal at all."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.metrics import bootstrap_means

RowScores = dict[str, dict[str, NDArray[np.float64]]]
"""Score of every row, by candidate and condition."""

COMPLETE = "complete"
BEST_INPUT = "complete, best input"
_RESAMPLES = 2000
_Z = 1.959964


def evidence(
    scores: RowScores, constant: NDArray[np.float64], inputs: Sequence[str], groups: Iterable[object], seed: int = 0
) -> dict[str, Any]:
    """What resampling whole groups says about scores; every figure comes from the same resamples.

    Args:
        scores: Score of every row by candidate (``fused`` and ``concat`` among them) and condition.
        constant: (rows,) score of a model that always says the same.
        inputs: The candidates that are a single input.
        groups: (rows,) rows with equal values are drawn together.
        seed: Of the draws.

    Returns:
        ``intervals``: {candidate: {condition: [low, high]}}, 95 %. ``gaps``: {condition: {against, mean, low, high}},
        ``fused`` minus ``concat`` and (``complete, best input``) minus the best input alone on complete rows, and minus
        the best remaining input alone where one is withheld. ``worth``: {input: {mean, low, high}}, what ``fused``
        loses where that input is withheld. ``signal``: {candidate, mean, low, found}: the candidate that stands out
        most above the constant, with the 97.5 % lower bound that holds for all candidates at once (maximum of the
        studentized bootstrap), so that the best of many noises is no signal. Empty where scores are not finite (R2 of
        a target without variance) and where there are fewer than two groups to resample.
    """
    drawn = list(groups)
    columns = [(name, condition) for name, by in scores.items() for condition in by]
    place = {column: at for at, column in enumerate(columns)}
    table = np.stack([*(scores[name][condition] for name, condition in columns), constant], axis=1)
    if not np.isfinite(table).all() or len(set(drawn)) < 2:
        return {}
    means = table.mean(axis=0)
    draws = bootstrap_means(table, drawn, _RESAMPLES, seed)
    groups_drawn = len(set(drawn))
    intervals: dict[str, dict[str, list[float]]] = {name: {} for name in scores}
    for (name, condition), at in place.items():
        intervals[name][condition] = ends(draws[:, at], groups_drawn)

    def minus(one: tuple[str, str], other: tuple[str, str]) -> dict[str, float]:
        mean = means[place[one]] - means[place[other]]
        return difference(draws[:, place[one]], draws[:, place[other]], mean, groups_drawn)

    def gap(condition: str, others: Sequence[str]) -> dict[str, Any]:
        against = max(others, key=lambda name: means[place[name, condition]])
        return {"against": against} | minus(("fused", condition), (against, condition))

    gaps, worth = {COMPLETE: gap(COMPLETE, ["concat"])}, {}
    if len(inputs) > 1:
        gaps[BEST_INPUT] = gap(COMPLETE, inputs)
        withheld = {name: f"without {name}" for name in inputs}
        gaps |= {where: gap(where, [other for other in inputs if other != name]) for name, where in withheld.items()}
        worth = {name: minus(("fused", COMPLETE), ("fused", where)) for name, where in withheld.items()}
    complete = [at for (_, condition), at in place.items() if condition == COMPLETE]
    names = [name for name, condition in columns if condition == COMPLETE]
    signal = _signal(names, means[complete] - means[-1], draws[:, complete] - draws[:, -1:])
    return {"intervals": intervals, "gaps": gaps, "worth": worth, "signal": signal}


def ends(draws: NDArray[np.float64], groups: int) -> list[float]:
    """The 95 % interval of a score from its resamples.

    Where no row is wrong, or none is right, resamples are all alike: then Wilson's interval of so many groups.
    """
    if np.ptp(draws) == 0 and draws[0] in (0.0, 1.0):
        reach = _reach(groups)
        return [1 - reach, 1.0] if draws[0] else [0.0, reach]
    low, high = np.percentile(draws, [2.5, 97.5])
    return [float(low), float(high)]


def difference(one: NDArray[np.float64], other: NDArray[np.float64], mean: float, groups: int) -> dict[str, float]:
    """Mean and 95 % interval of the difference of two scores, from their resamples.

    Where each score is 0 or 1 in all resamples, the interval is that of Newcombe (1998), method 10.
    """
    if np.ptp(one) == 0 == np.ptp(other) and {one[0], other[0]} <= {0.0, 1.0}:
        reach = _reach(groups) * (1 if one[0] == other[0] else 2**0.5)
        return {"mean": float(mean), "low": max(-1.0, mean - reach), "high": min(1.0, mean + reach)}
    low, high = np.percentile(one - other, [2.5, 97.5])
    return {"mean": float(mean), "low": float(low), "high": float(high)}


def _reach(groups: int) -> float:
    """How far Wilson's interval goes where all are alike."""
    return _Z**2 / (groups + _Z**2)


def _signal(names: Sequence[str], above: NDArray[np.float64], draws: NDArray[np.float64]) -> dict[str, Any]:
    """The candidate furthest above the constant in standard errors, with its simultaneous lower bound."""
    spread = np.maximum(draws.std(axis=0), 1e-9)
    reach = float(np.percentile(((draws - above) / spread).max(axis=1), 97.5))
    best = int(np.argmax(above / spread))
    bound = float(above[best] - reach * spread[best])
    return {"candidate": names[best], "mean": float(above[best]), "low": bound, "found": bound > 0}
