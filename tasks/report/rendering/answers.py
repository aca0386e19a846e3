"""The questions that follow a score: is it good, which rows are wrong, what would help; answered in sentences."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from barycenter.tasks.report.rendering.facts import (
    COMPLETE,
    Scores,
    clean,
    count,
    dictionaries,
    evidence,
    number,
    section,
)
from barycenter.tasks.report.rendering.judgment import judge

_MUCH, _OFTEN_MISSING = 0.01, 0.02
_FIRST_KEYS = 5
_FEWEST = 100
"""Held-out rows below which a curve over them says nothing."""

Finding = dict[str, Any]
"""``about``: copies, encoders, dimensions, inputs, labels, rows, missing, target; ``sentence``; ``set``: {key: value}.
"""


def answers(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says in words, for report.json and for the page.

    Returns:
        ``verdict`` {tone, headline, sentence}; ``score`` {metric, score, low, high, n, constant, best_input: {name,
        score}, ceiling, share_of_the_way, sentence}, None without a score; ``mistakes``: a sentence, None where no row
        was predicted; ``help``: a list of :data:`Finding`.
    """
    return {
        "verdict": asdict(judge(report)),
        "score": score_answer(report),
        "mistakes": mistakes_sentence(report),
        "help": findings(report),
    }


def has_signal(report: Mapping[str, Any]) -> bool:
    """Whether any candidate is above the constant guess, as far as the report knows."""
    source, _ = evidence(report)
    return section(source, "signal").get("found") is not False


def score_answer(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The score of the fused vector against the constant guess, the best single input and the ceiling."""
    source, crossed = evidence(report)
    scores = Scores.of(report, cross_validated=crossed)
    if scores is None or ("fused", COMPLETE) not in scores.values:
        return None
    score, single = scores.values["fused", COMPLETE], scores.best_input()
    ends = scores.intervals.get(("fused", COMPLETE))
    floor = number(source.get("baseline"))
    ceiling = section(report, "probe", "ceiling")
    top = number(ceiling.get("score"))
    found: dict[str, Any] = {
        "metric": scores.metric,
        "score": score,
        "low": ends[0] if ends else None,
        "high": ends[1] if ends else None,
        "n": number(source.get("n_test")),
        "constant": floor,
        "best_input": None if single is None else {"name": single, "score": scores.values[single, COMPLETE]},
        "ceiling": top,
        "share_of_the_way": _share_of_the_way(score, floor, top) if has_signal(report) else None,
    }
    parts = [_score_sentence(report, scores, found), _guess_sentence(scores, found)]
    if top is not None:
        rows = count(ceiling.get("rows"))
        parts.append(
            f"No model can pass {scores.score(top, unit=True)} here: {rows} rows have the inputs of another row with "
            "another label."
        )
    parts.append(_copies_sentence(report, scores))
    if not has_signal(report):
        parts.append("That is no better than the guess.")
    elif found["share_of_the_way"] is not None:
        end = "the most that is possible" if top is not None else "no mistake at all"
        parts.append(f"So it covers {100 * found['share_of_the_way']:.0f} % of the way from that guess to {end}.")
    return found | {"sentence": " ".join(part for part in parts if part)}


def _share_of_the_way(score: float, floor: float | None, top: float | None) -> float | None:
    top = 1.0 if top is None else top
    return (score - floor) / (top - floor) if floor is not None and top > floor and score >= floor else None


def _score_sentence(report: Mapping[str, Any], scores: Scores, found: Mapping[str, Any]) -> str:
    low, high = found["low"], found["high"]
    within = "" if low is None else f" (95 % interval {scores.score(low)} to {scores.score(high)})"
    rows = f"{count(found['n'])} rows" if found["n"] is not None else "the rows"
    if scores.is_share:
        what = "whole label sets of " if section(report, "probe").get("task") == "multilabel" else ""
        return f"The fused vector gets {scores.score(found['score'], unit=True)} of the {what}{rows} right{within}."
    size = section(report, "mistakes")
    usual, spread = number(size.get("median_absolute")), number(size.get("of_mean"))
    known = usual is not None and spread is not None
    error = f" Half of the errors are below {usual:.4g}; the target spreads by {spread:.4g}." if known else ""
    share = f"explains {100 * max(found['score'], 0.0):.1f} % of the target's variance on {rows}"
    return f"The fused vector {share}: R² {scores.score(found['score'])}{within}.{error}"


def _guess_sentence(scores: Scores, found: Mapping[str, Any]) -> str:
    parts = []
    if found["constant"] is not None:
        guess = "The most frequent label alone gets" if scores.is_share else "Always saying the mean gets"
        parts.append(f"{guess} {scores.score(found['constant'], unit=True)}")
    if found["best_input"] is not None and len(scores.inputs) > 1:
        single = found["best_input"]
        parts.append(f"the best single input ({single['name']}) {scores.score(single['score'], unit=True)}")
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def _copies_sentence(report: Mapping[str, Any], scores: Scores) -> str:
    """How many of the scored rows give themselves away, and what is reached without them."""
    copied = section(report, "probe", "copies")
    n, left = number(copied.get("rows")), number(copied.get("score"))
    if not n:
        return ""
    have, them = ("has", "it") if n == 1 else ("have", "them")
    without = "" if left is None else f"; without {them} the score is {scores.score(left, unit=True)}"
    return f"{count(n)} of these rows {have} the inputs of a row that was learned from{without}."


def _copies(report: Mapping[str, Any], *, crossed: bool) -> Iterator[Finding]:
    """What keeps equal rows on one side, where some are on both."""
    if not number(section(report, "probe", "copies").get("rows")):
        return
    split, together = section(report, "split"), "name a column that they share in train.group_by"
    if split.get("group_by"):
        together += f" (`{clean(split['group_by'], 40)}` is none)"
    elif split.get("by") and not crossed:
        together += f", or give them one value of `{clean(split['by'], 40)}`"
    sentence = (
        "Equal rows are learned from and scored, so the score is too good for new rows. To keep them on one side, "
        f"{together}."
    )
    yield {"about": "copies", "sentence": sentence, "set": {}}


def mistakes_sentence(report: Mapping[str, Any]) -> str | None:
    """How many rows are wrong, and in which way most often."""
    found = section(report, "mistakes")
    n, how = number(found.get("n")), found.get("how")
    if not n:
        return None
    rows = f"{count(n)} {'held-out rows' if how == 'held out' else 'rows, each predicted by a model that never saw it'}"
    if found.get("task") == "regression":
        mean = number(found.get("mean_absolute"))
        return f"Of {rows}: predictions are off by {mean:.4g} on average." if mean is not None else None
    wrong = number(found.get("wrong")) or 0
    if not wrong:
        return f"Of {rows}: none is wrong."
    sentence = f"Of {rows}: {count(wrong)} {'is' if wrong == 1 else 'are'} wrong ({100 * wrong / n:.1f} %)."
    pair = next(iter(dictionaries(found, "pairs")), None)
    if pair is not None:
        said, label = (clean(pair.get(name), 40) for name in ("predicted", "label"))
        often = "once" if pair.get("n") == 1 else f"{count(pair.get('n'))} times"
        sentence += f" Most often “{label}” is taken for “{said}” ({often})."
    return sentence


def findings(report: Mapping[str, Any]) -> list[Finding]:
    """What would help, each with the figures that say so; what the rows cannot tell is said, too."""
    source, crossed = evidence(report)
    scores = Scores.of(report, cross_validated=crossed)
    if scores is None:
        if "probe" not in report and "head" not in report:
            sentence = (
                "A target would say how good the vectors are: name a column of labels or numbers in train.target."
            )
            return [{"about": "target", "sentence": sentence, "set": {}}]
        return []
    found = [*_labels(report)]
    if has_signal(report):
        found = [*_inputs(report, source, scores), *_missing(report, source, scores), *_curves(report, scores), *found]
    return [*_copies(report, crossed=crossed), *_encoders(report), *found]


def _encoders(report: Mapping[str, Any]) -> Iterator[Finding]:
    """That a pretrained encoder is worth a try where an input has a built-in one."""
    built_in = {
        clean(name, 40): clean(encoder, 40)
        for name, encoder in section(report, "encoders").items()
        if str(encoder).startswith("builtin/")
    }
    if not built_in:
        return
    have = ", ".join(f"{name} by {encoder}" for name, encoder in built_in.items())
    keys = " and ".join(f"inputs.{name}.encoder" for name in built_in)
    sentence = f"Embedded without a pretrained model: {have}. One would probably help: name it in {keys}."
    yield {"about": "encoders", "sentence": sentence, "set": {}}


def _curves(report: Mapping[str, Any], scores: Scores) -> Iterator[Finding]:
    """What the curves over held-out rows say of dimensions and of more rows; of few such rows, that it is nothing."""
    held_out = number(section(report, "probe").get("n_test"))
    if held_out is None or held_out >= _FEWEST:
        yield from _dimensions(report, scores)
        yield from _rows(report, scores)
    elif section(report, "probe").get("dimensions") or section(report, "probe").get("learning"):
        rows = f"{count(held_out)} held-out rows"
        sentence = f"Whether other dimensions or more rows would help, {rows} are too few to say."
        yield {"about": "rows", "sentence": sentence, "set": {}}


def _change(scores: Scores, gap: Mapping[str, Any]) -> str:
    """A difference with its interval: ``+1.2 points (+0.4 to +2.0)``."""
    mean, low, high = (scores.gap(number(gap.get(name)) or 0.0) for name in ("mean", "low", "high"))
    return f"{mean}{' points' if scores.is_share else ''} ({low} to {high})"


def _negative(gap: Mapping[str, Any]) -> dict[str, float]:
    mean, low, high = (number(gap.get(name)) or 0.0 for name in ("mean", "low", "high"))
    return {"mean": -mean, "low": -high, "high": -low}


def _inputs(report: Mapping[str, Any], source: Mapping[str, Any], scores: Scores) -> Iterator[Finding]:
    worth = {name: gap for name, gap in section(source, "worth").items() if isinstance(gap, Mapping)}
    if len(worth) < 2:
        return
    open_ = {name: gap for name, gap in worth.items() if (number(gap.get("low")) or 0.0) <= 0}
    idle = [name for name, gap in open_.items() if (number(gap.get("high")) or 0.0) <= 2 * _MUCH]
    each = "; ".join(
        f"without {clean(name, 40)} {_change(scores, _negative(gap))}" for name, gap in (open_ or worth).items()
    )
    if not open_:
        sentence = f"Every input is needed. What the score becomes: {each}."
    elif idle == list(open_) and len(idle) == 1:
        sentence = f"{clean(idle[0], 40)} hardly helps complete rows: {each}. {_without(report, idle[0])}"
    elif idle == list(open_):
        sentence = f"Not all of these are needed, so try without one of them: {each}."
    else:
        helps = f"{clean(next(iter(open_)), 40)} helps" if len(open_) == 1 else "each of these helps"
        sentence = f"Whether {helps}, these rows cannot tell: {each}."
    yield {"about": "inputs", "sentence": sentence, "set": {}, "not_needed": idle}


def _without(report: Mapping[str, Any], name: str) -> str:
    """What a job without an input would save, or lose where rows lack another one."""
    missing = section(report, "rows", "missing")
    lacking = [
        f"{count(rows)} rows lack {clean(other, 40)}" for other, rows in missing.items() if other != name and rows
    ]
    if not lacking:
        return "A job without it costs less."
    return f"Without it rows would have less to go by: {', '.join(lacking)}."


def _missing(report: Mapping[str, Any], source: Mapping[str, Any], scores: Scores) -> Iterator[Finding]:
    rows = section(report, "rows")
    written = number(rows.get("written"))
    for name, missing in section(rows, "missing").items():
        gap, absent = section(source, "worth", name), number(missing)
        if not written or not absent or absent < _OFTEN_MISSING * written or (number(gap.get("low")) or 0.0) <= 0:
            continue
        lower, least, most = (scores.gap(number(gap.get(part)) or 0.0, sign=False) for part in ("mean", "low", "high"))
        sentence = (
            f"{clean(name, 40)} is missing in {count(absent)} rows ({100 * absent / written:.1f} %). A row without it "
            f"scores {lower}{' points' if scores.is_share else ''} less ({least} to {most}). rejects/ says why each is "
            "missing."
        )
        yield {"about": "missing", "sentence": sentence, "set": {}}


def _dimensions(report: Mapping[str, Any], scores: Scores) -> Iterator[Finding]:
    points = [point for point in dictionaries(section(report, "probe"), "dimensions") if section(point, "loss")]
    if len(points) < 2:
        return
    whole, most = points[-1], number(section(report, "alignment").get("most_dim"))
    dim = number(whole.get("dim")) or 0.0
    enough = next(point for point in points if point is whole or _no_loss(section(point, "loss")))
    half, loss, setting = points[-2], section(points[-2], "loss"), {}
    rose = f"from {count(half.get('dim'))} to {count(dim)} dimensions the score changed by {_change(scores, loss)}"
    if enough is not whole:
        fewer, setting = number(enough.get("dim")), {"alignment.dim": enough.get("dim")}
        change = _change(scores, _negative(section(enough, "loss")))
        sentence = f"{count(fewer)} of {count(dim)} dimensions do as well: {change}. With fewer the files are smaller."
    elif most is not None and most <= dim:
        sentence = f"The {count(dim)} dimensions are all that these inputs allow: {rose}."
    elif (number(loss.get("low")) or 0.0) <= 0:
        sentence = f"Whether more dimensions would help, these rows cannot tell: {rose}."
    else:
        setting = {"alignment.dim": int(2 * dim if most is None else min(2 * dim, most))}
        sentence = f"More dimensions may help: {rose}."
    yield {"about": "dimensions", "sentence": sentence, "set": setting}


def _no_loss(gap: Mapping[str, Any]) -> bool:
    """Whether less does as well as the whole: no loss that the rows can show, nor much of one."""
    return (number(gap.get("low")) or 0.0) <= 0 and (number(gap.get("mean")) or 0.0) <= _MUCH


def _labels(report: Mapping[str, Any]) -> Iterator[Finding]:
    doubtful = section(report, "mistakes", "doubtful")
    n = number(doubtful.get("n"))
    if n is None:
        return
    found = section(report, "mistakes")
    regression = found.get("task") == "regression"
    if n:
        keys = [clean(row.get("key"), 40) for row in dictionaries(doubtful, "rows")[:_FIRST_KEYS]]
        first = f" The first: {', '.join(keys)}." if keys else ""
        rows, theirs = ("1 row", "its own") if n == 1 else (f"{count(n)} rows", "theirs")
        of = number(found.get("n"))
        rows += f" ({100 * n / of:.1f} %)" if of else ""
        why = (
            f"Look at the values of {rows}: more than four usual errors away from the prediction."
            if regression
            else f"Look at the labels of {rows}: the model is as sure of another label as it is where that one is "
            f"given, and gives {theirs} at most a tenth of that."
        )
        sentence = f"{why}{first} A model can be wrong, too."
    elif not has_signal(report):
        return
    elif regression:
        sentence = "No value looks wrong: none is more than four usual errors away from its prediction."
    else:
        sentence = (
            "No label looks wrong: in no row is the model as sure of another label as it is where that one is given, "
            "and of the row's own a tenth of that."
        )
    yield {"about": "labels", "sentence": sentence, "set": {}}


def _rows(report: Mapping[str, Any], scores: Scores) -> Iterator[Finding]:
    points = [point for point in dictionaries(section(report, "probe"), "learning") if section(point, "loss")]
    if len(points) < 2:
        return
    half, whole = points[-2:]
    gap = section(half, "loss")
    low, high = (number(gap.get(name)) or 0.0 for name in ("low", "high"))
    change = (
        f"from {count(half.get('rows'))} to {count(whole.get('rows'))} rows the score changed by {_change(scores, gap)}"
    )
    rising = all((number(section(point, "loss").get("mean")) or 0.0) >= 0 for point in points)
    if low > 0 and rising:
        sentence = f"More labeled rows would probably help: {change}."
    elif high <= 2 * _MUCH:
        sentence = f"More rows like these would hardly help: {change}."
    else:
        sentence = f"Whether more rows would help, these cannot tell: {change}."
    yield {"about": "rows", "sentence": sentence, "set": {}}
