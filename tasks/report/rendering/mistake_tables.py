"""The rows that are wrong, as tables: what is confused with what, each label's figures, labels to look at."""

from collections.abc import Mapping, Sequence
from typing import Any

from barycenter.tasks.report.rendering.facts import clean, count, dictionaries, items, number, section
from barycenter.tasks.report.rendering.meanings import MEANINGS
from barycenter.tasks.report.rendering.sheet import Sheet

_LABEL, _MOST_LABELS, _MOST_DOUBTFUL = 40, 30, 20


def label_text(value: object) -> str:
    """A label, a set of labels or a number, on one line.

    >>> label_text(["red", "blue"]), label_text(2.50001), label_text(None), label_text([])
    ('red, blue', '2.5', 'other', 'nothing')
    """
    if value is None:
        return "other"
    if isinstance(value, list | tuple):
        return ", ".join(clean(part, _LABEL) for part in value) or "nothing"
    known = number(value)
    return clean(value, _LABEL) if known is None or isinstance(value, int) else f"{known:.4g}"


def share(value: object) -> str:
    """A share in per cent, a dash where there is none."""
    known = number(value)
    return "–" if known is None else f"{100 * known:.1f}"


def sure_share(value: object) -> str:
    """A probability in per cent; none is shown as 0 or 1.

    >>> sure_share(0.97215), sure_share(0.99999), sure_share(0.00001)
    ('97.2', '> 99.9', '< 0.1')
    """
    known = number(value)
    if known is None:
        return "–"
    return "> 99.9" if known >= 0.9995 else "< 0.1" if known < 0.0005 else share(known)


def label_sheet(report: Mapping[str, Any]) -> Sheet:
    """Recall and precision of every class, or of every label of a row that has several."""
    found = section(report, "mistakes")
    several = dictionaries(found, "labels")
    lines = several or dictionaries(found, "classes")
    rows = [
        (
            label_text(line.get("label")),
            *(count(line.get(name)) for name in ("n", "predicted")),
            *(share(line.get(name)) for name in ("recall", "precision", *(["f1"] if several else []))),
        )
        for line in lines[:_MOST_LABELS]
    ]
    header = ("label", "rows", "predicted", "recall, %", "precision, %", *(["F1, %"] if several else []))
    left = len(lines) - len(rows)
    title = "Each label" + (f", the {len(rows)} most frequent" if left else "")
    return Sheet(title, header, rows, meaning=MEANINGS["labels"])


def pair_sheet(report: Mapping[str, Any]) -> Sheet:
    """What is most often taken for what."""
    rows = [
        (label_text(pair.get("label")), label_text(pair.get("predicted")), count(pair.get("n")))
        for pair in dictionaries(section(report, "mistakes"), "pairs")
    ]
    return Sheet(
        "Taken for each other", ("label", "predicted", "rows"), rows, frozenset({0, 1}), meaning=MEANINGS["pairs"]
    )


def doubtful_sheet(report: Mapping[str, Any]) -> Sheet:
    """Rows whose label should be looked at."""
    doubtful = section(report, "mistakes", "doubtful")
    lines = dictionaries(doubtful, "rows")[:_MOST_DOUBTFUL]
    regression = section(report, "mistakes").get("task") == "regression"
    last = "residual" if regression else "probability, %"
    rows = [
        (
            clean(line.get("key"), _LABEL),
            label_text(line.get("label")),
            label_text(line.get("predicted")),
            label_text(line.get("residual")) if regression else sure_share(line.get("probability")),
        )
        for line in lines
    ]
    n = number(doubtful.get("n")) or 0
    of = f", {len(rows)} of {count(n)}" if n > len(rows) else ""
    words = frozenset({0, 1, 2})
    meaning = MEANINGS["doubtful values" if regression else "doubtful"]
    return Sheet(f"Look at these{of}", ("key", "label", "predicted", last), rows, words, meaning=meaning)


def confusion(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The matrix with each cell's share of its line in per cent; None where it is not whole."""
    found = section(report, "mistakes", "confusion")
    names, lines = items(found, "labels"), items(found, "counts")
    if not names or len(lines) != len(names) or not all(_fits(line, len(names)) for line in lines):
        return None
    rows = []
    for at, (name, line) in enumerate(zip(names, lines, strict=True)):
        total = sum(line)
        cells = [
            {"count": count(value), "share": round(100 * value / total) if total else 0, "right": at == column}
            for column, value in enumerate(line)
        ]
        rows.append({"label": label_text(name), "cells": cells, "total": count(total)})
    return {"labels": [label_text(name) for name in names], "rows": rows, "meaning": MEANINGS["confusion"]}


def _fits(line: object, width: int) -> bool:
    return isinstance(line, Sequence) and len(line) == width and all(number(value) is not None for value in line)
